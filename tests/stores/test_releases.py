"""Releases that run side by side read what each other has stored.

`helpers/stored` has what each release stored: see `helpers/stored_by_release.py`.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from chatkit_sessions import ChatKitClient, RateLimitError
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.entries import record_schema
from chatkit_sessions.service import InvalidClientSecretError, SessionContext, SessionsService
from chatkit_sessions.service._records import parse_record
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from stored_by_release import BASE_URL, OPTIONS, entries_of, use_clients, use_service
from support import NOON, Script, ok, refused

FOLDER = Path(__file__).parents[1] / "helpers" / "stored"
RELEASES = sorted(each.stem for each in FOLDER.glob("*.json"))
WITH_SERVICE = [release for release in RELEASES if release != "0.9.0"]


class Stored:
    """What one release stored, in a store of this one."""

    def __init__(self, release: str, *, of_a_newer_release: bool = False) -> None:
        content = json.loads((FOLDER / f"{release}.json").read_text())
        self.secrets: dict[str, str] = content["secrets"]
        self.entries: list[dict[str, Any]] = content["entries"]
        self.store = MemorySessionStore(namespace="shop", clock=NOON.timestamp)
        for each in self.entries:
            value = each["value"]
            if of_a_newer_release and value.startswith("{"):
                value = json.dumps(with_more_names(json.loads(value)))
            entry = Entry(MaskedBytes(value.encode()), each["seconds"], listed=each["listed"])
            self.store.commit(each["group"], {each["name"]: entry}, when={})

    def client(self, script: Script | None = None) -> ChatKitClient:
        return ChatKitClient(
            api_key=FakeChatKit().api_key,
            workflow_id="wf_test",
            base_url=BASE_URL,
            max_retries=0,
            http_client=httpx.Client(transport=httpx.MockTransport(script or Script([]))),
            store=self.store,
            clock=lambda: NOON,
        )

    def service(self) -> SessionsService:
        return SessionsService(self.store, workflows={"support"}, clock=lambda: NOON)

    def verify(self, name: str) -> SessionContext:
        return self.service().verify(self.secrets[name])


def with_more_names(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """JSON whose objects all have one more name, but those whose names are the user's."""
    if not isinstance(value, dict):
        return value
    names: dict[str, Any] = {"of_a_newer_release": {"mode": [1, None]}}
    for name, each in cast("dict[str, Any]", value).items():
        names[name] = each if name == "state_variables" else with_more_names(each)
    return names


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["as stored", "with more names"])
def newer(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_shared_session_is_returned(release: str, *, newer: bool) -> None:
    stored = Stored(release, of_a_newer_release=newer)

    session = stored.client().get_or_create_session("ada", **OPTIONS)

    assert session.client_secret.get_secret_value() == stored.secrets["of the API, shared"]
    assert session.max_requests_per_1_minute == 30


def test_a_users_sessions_are_listed_and_ended(release: str, *, newer: bool) -> None:
    stored = Stored(release, of_a_newer_release=newer)
    cancelled = httpx.Response(200, json={"id": "", "status": "cancelled"})
    script = Script([lambda request: echo_id(request, cancelled)])
    chatkit = stored.client(script)

    listed = chatkit.sessions_for("ada")
    chatkit.delete_sessions("ada")

    assert [each.status for each in listed] == ["active"] * 3
    assert {each.user for each in listed} == {"ada"}
    asked = [path for path in script.paths if path != "POST /v1/chatkit/sessions/cancel"]
    assert sorted(asked) == sorted(f"POST /v1/chatkit/sessions/{each.id}/cancel" for each in listed)
    assert {each.status for each in chatkit.sessions_for("ada")} == {"cancelled"}


def echo_id(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    session_id = request.url.path.split("/")[-2]
    return httpx.Response(200, json={**response.json(), "id": session_id})


def test_a_sign_out_ends_what_is_shared(release: str, *, newer: bool) -> None:
    stored = Stored(release, of_a_newer_release=newer)
    script = Script([ok(user="bob")])

    session = stored.client(script).get_or_create_session("bob")

    assert session.id == "cksess_new"
    assert [each.status for each in stored.client().sessions_for("bob")] == ["cancelled", "active"]


@pytest.mark.parametrize("newer", [False, True])
def test_a_shared_failure_is_raised(*, newer: bool) -> None:
    stored = Stored("0.10.0", of_a_newer_release=newer)

    with pytest.raises(RateLimitError) as raised:
        stored.client(Script([refused(500)])).get_or_create_session("eve")

    assert raised.value.retry_after == 30


@pytest.mark.parametrize("release", WITH_SERVICE)
def test_secrets_of_the_service_are_verified(release: str, *, newer: bool) -> None:
    stored = Stored(release, of_a_newer_release=newer)

    context = stored.verify("all options")

    assert (context.user, context.workflow_id, context.project) == ("ada", "support", "default")
    assert context.state_variables == OPTIONS.get("state_variables")
    assert context.expires_at == NOON + timedelta(seconds=500)
    assert context.settings.max_requests_per_1_minute == 30
    assert (context.settings.max_files, context.settings.recent_threads) == (2, 3)
    assert stored.verify("no option").settings.max_requests_per_1_minute == 10
    assert stored.verify("refreshed").user == "carl"
    with pytest.raises(InvalidClientSecretError) as raised:
        stored.verify("cancelled")
    assert raised.value.reason == "cancelled"


@pytest.mark.parametrize("release", WITH_SERVICE)
def test_sessions_of_the_service_are_refreshed_and_ended(release: str, *, newer: bool) -> None:
    stored = Stored(release, of_a_newer_release=newer)
    chatkit = stored.service().client(workflow_id="support")

    refreshed = chatkit.refresh_session(stored.secrets["refreshed"], user="carl")
    chatkit.delete_sessions("ada")

    assert stored.service().verify(refreshed.client_secret).user == "carl"
    for name in ("refreshed", "all options", "no option"):
        with pytest.raises(InvalidClientSecretError) as raised:
            stored.verify(name)
        assert raised.value.reason == "cancelled"


def test_what_a_record_of_the_service_lacks_has_its_default() -> None:
    values = record_of_the_service("no option")
    required = {"id", "secret_digest", "created_at", "expires_at", "cancelled", "project"}
    least = {name: values[name] for name in required}
    least["settings"] = {"user": "ada", "workflow_id": "support"}

    assert parse_record(json.dumps(least).encode()) == parse_record(json.dumps(values).encode())


def test_what_a_record_of_a_client_lacks_has_its_default() -> None:
    least = {"id": "cksess_1", "expires_at": NOON.isoformat()}

    record = record_schema().validate_json(json.dumps(least))

    assert (record.user, record.workflow_id, record.status, record.slot) == (None,) * 4


def record_of_the_service(name: str) -> dict[str, Any]:
    """The record of a session of the service, as 0.10.0 stored it."""
    stored = Stored("0.10.0")
    session_id = stored.verify(name).session_id
    values = [json.loads(e["value"]) for e in stored.entries if e["name"] == "session"]
    (found,) = [each for each in values if each["id"] == session_id]
    return dict(found)


def test_a_worker_of_0_10_0_reads_what_this_release_stores() -> None:
    store = MemorySessionStore(namespace="shop", clock=NOON.timestamp)
    use_clients(store)
    use_service(store)

    # It accepts no names in a record of the service but its own.
    for name in ("session", "record"):
        assert names_in(name, entries_of(store)) == names_in(name, Stored("0.10.0").entries)


def names_in(entry: str, entries: list[dict[str, Any]]) -> set[str]:
    """The names in the values of those entries."""
    values = [json.loads(each["value"]) for each in entries if each["name"] == entry]
    return {name for each in values for name in (*each, *each.get("settings", {}))}
