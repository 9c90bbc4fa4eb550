"""Whatever is asked in whatever order, the local API does what a simple model of it says."""

import json
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)

from chatkit_sessions.testing import FakeChatKit, FakeClock
from chatkit_sessions.testing.wire import Headers, ServiceRequest
from support import NOON

SESSIONS = "/v1/chatkit/sessions"
KEYS = st.sampled_from(["sk-test", "sk-second", "sk-north", "sk-unknown"])
WORKFLOWS = st.sampled_from(["wf_test", "wf_north", "wf_unknown"])
NOTHING: MultipleResults[tuple[str, int]] = multiple()
PROJECTS = {"sk-test": "proj_test", "sk-second": "proj_test", "sk-north": "north"}


@dataclass
class Modelled:
    secret: str
    user: str
    project: str
    ends: float
    status: str = "active"


class LocalAPI(RuleBasedStateMachine):
    """Sessions of two projects, one of which has two keys."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeChatKit(read_route=True, clock=FakeClock(NOON))
        self.fake.add_api_key("sk-second")
        self.fake.add_api_key("sk-north", project="north")
        self.fake.add_workflow("wf_north", project="north")
        self.model: dict[str, Modelled] = {}
        self.revoked: set[str] = set()
        self.now = 0.0

    def ask(
        self, method: str, path: str, key: str, content: object = None
    ) -> tuple[int, dict[str, object]]:
        headers = {"authorization": f"Bearer {key}", "openai-beta": "chatkit_beta=v1"}
        body = b"" if content is None else json.dumps(content).encode()
        answer = self.fake.handle(ServiceRequest(method, path, Headers(headers.items()), body))
        return answer.status_code, json.loads(answer.body)

    def project_of(self, key: str) -> str | None:
        return None if key in self.revoked else PROJECTS.get(key)

    def kept(self, told: dict[str, object], user: str, project: str, seconds: int) -> str:
        session_id = str(told["id"])
        assert session_id not in self.model
        secret = str(told["client_secret"])
        assert secret not in {each.secret for each in self.model.values()}
        self.model[session_id] = Modelled(secret, user, project, self.now + seconds)
        assert told["user"] == user
        return session_id

    def status_of(self, session: Modelled) -> str:
        ended = session.status == "active" and self.now >= session.ends
        return "expired" if ended else session.status

    @rule(
        target=sessions,
        key=KEYS,
        workflow=WORKFLOWS,
        user=st.text(min_size=1, max_size=3),
        seconds=st.integers(1, 600),
    )
    def create(
        self, key: str, workflow: str, user: str, seconds: int
    ) -> MultipleResults[tuple[str, int]]:
        expiry = {"anchor": "created_at", "seconds": seconds}
        content = {"user": user, "workflow": {"id": workflow}, "expires_after": expiry}

        status, told = self.ask("POST", SESSIONS, key, content)

        project = self.project_of(key)
        workflows = {"proj_test": "wf_test", "north": "wf_north"}
        if project is None:
            assert status == 401
        elif workflow != workflows[project]:
            assert status == 404
        else:
            assert status == 200
            session_id = self.kept(told, user, project, seconds)
            return multiple((session_id, seconds))
        return NOTHING

    @rule(target=sessions, session=sessions, key=KEYS)
    def refresh(self, session: tuple[str, int], key: str) -> MultipleResults[tuple[str, int]]:
        session_id, seconds = session
        before = self.model[session_id]

        status, told = self.ask(
            "POST", f"{SESSIONS}/refresh", key, {"client_secret": before.secret}
        )

        project = self.project_of(key)
        if project is None:
            assert status == 401
        elif project != before.project or self.status_of(before) != "active":
            assert 400 <= status < 500
            assert status != 401
        else:
            assert status == 200
            before.status = "cancelled"
            return multiple((self.kept(told, before.user, project, seconds), seconds))
        return NOTHING

    @rule(session=sessions, key=KEYS, method=st.sampled_from(["GET", "cancel"]))
    def look_or_cancel(self, session: tuple[str, int], key: str, method: str) -> None:
        session_id, _ = session
        path = f"{SESSIONS}/{session_id}"

        if method == "GET":
            status, told = self.ask("GET", path, key)
        else:
            status, told = self.ask("POST", f"{path}/cancel", key)

        known, project = self.model[session_id], self.project_of(key)
        if project is None:
            assert status == 401
            return
        if project != known.project:
            assert status == 404
            return
        assert status == 200
        if method == "cancel" and self.status_of(known) == "active":
            known.status = "cancelled"
        assert told["status"] == self.status_of(known)
        assert not told["client_secret"]

    @rule(seconds=st.integers(0, 400))
    def time_passes(self, seconds: int) -> None:
        self.fake.clock.advance(seconds=seconds)
        self.now += seconds

    @rule(session=sessions)
    def expire(self, session: tuple[str, int]) -> None:
        self.fake.expire(session[0])
        known = self.model[session[0]]
        if known.status == "active":
            known.status = "expired"

    @rule(key=st.sampled_from(["sk-second", "sk-north"]))
    def revoke_or_restore(self, key: str) -> None:
        if key in self.revoked:
            self.fake.add_api_key(key, project=PROJECTS[key])
            self.revoked.remove(key)
        else:
            self.fake.remove_api_key(key)
            self.revoked.add(key)

    @invariant()
    def sessions_are_as_the_model_says(self) -> None:
        told = {
            session_id: (each.client_secret, each.user, each.project, each.status)
            for session_id, each in self.fake.sessions.items()
        }
        assert told == {
            session_id: (each.secret, each.user, each.project, self.status_of(each))
            for session_id, each in self.model.items()
        }


TestLocalAPI = LocalAPI.TestCase
TestLocalAPI.settings = settings(max_examples=60, stateful_step_count=30)
