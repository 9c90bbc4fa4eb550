"""What a client's own store learns of when somebody asks."""

import hashlib
import linecache
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import httpx
import pytest

from chatkit_sessions import ChatKitClient, SessionDeletedError, SessionNotRecordedError
from chatkit_sessions._sessions import registry as module
from chatkit_sessions._sessions.identity import Scope
from chatkit_sessions._sessions.registry import RecentSessions
from chatkit_sessions.models import ChatKitSessionResponse
from chatkit_sessions.stores.memory import MemorySessionStore
from support import NEW_SECRET, Connect, Script, invalid_url, ok, session_json
from workers import inner

DAY = 86_400.0
SCOPE = Scope(
    base_url="https://chatkit.test/v1", organization=None, project=None, namespace="", key="k"
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def remember(recent: RecentSessions, session_id: str, user: str = "user_1") -> bool:
    session = ChatKitSessionResponse.model_validate(session_json(id=session_id, user=user))
    creation = recent.begin(SCOPE, user)
    try:
        return recent.add(creation, session, workflow_id="wf_1", asked_for=600.0)
    finally:
        recent.end(creation)


def is_stored(store: MemorySessionStore, session_id: str) -> bool:
    return store.get(SCOPE.group_of_session(session_id), ["record"]) != [None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemorySessionStore:
    return MemorySessionStore(clock=clock)


@pytest.fixture
def recent(store: MemorySessionStore, clock: Clock) -> RecentSessions:
    return RecentSessions(store, clock)


def test_a_session_is_stored_when_somebody_asks(
    recent: RecentSessions, store: MemorySessionStore
) -> None:
    remember(recent, "cksess_1")
    assert not is_stored(store, "cksess_1")

    recent.publish_session(SCOPE, "cksess_1")

    assert is_stored(store, "cksess_1")
    assert store.names(SCOPE.group_of_user("user_1")) != []


def test_a_users_sessions_are_stored_and_nobody_elses(
    recent: RecentSessions, store: MemorySessionStore
) -> None:
    for session_id, user in (("cksess_1", "ada"), ("cksess_2", "bob"), ("cksess_3", "ada")):
        remember(recent, session_id, user)

    recent.publish_user(SCOPE, "ada")

    stored = [is_stored(store, session_id) for session_id in ("cksess_1", "cksess_2", "cksess_3")]
    assert stored == [True, False, True]


def test_another_scope_sees_nothing(recent: RecentSessions, store: MemorySessionStore) -> None:
    remember(recent, "cksess_1")
    other = Scope(
        base_url="https://other.test", organization=None, project=None, namespace="", key="k"
    )

    recent.publish_session(other, "cksess_1")
    recent.publish_user(other, "user_1")

    assert not is_stored(store, "cksess_1")


def test_a_stored_session_lasts_as_if_it_had_been_stored_at_once(
    recent: RecentSessions, store: MemorySessionStore, clock: Clock
) -> None:
    remember(recent, "cksess_1")
    clock.now += 100

    recent.publish_session(SCOPE, "cksess_1")

    (entry,) = store.get(SCOPE.group_of_session("cksess_1"), ["record"])
    assert entry is not None
    assert entry.seconds == DAY + 600 - 100


def test_a_session_that_nobody_asked_for_in_time_is_forgotten(
    recent: RecentSessions, store: MemorySessionStore, clock: Clock
) -> None:
    remember(recent, "cksess_1")
    clock.now += DAY + 600

    recent.publish_session(SCOPE, "cksess_1")

    assert not is_stored(store, "cksess_1")


def test_the_oldest_make_room_and_are_not_lost_while_they_are_active(
    recent: RecentSessions,
    store: MemorySessionStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_RECENT", 2)
    remember(recent, "cksess_ended")
    clock.now += 600
    for number in range(3):
        remember(recent, f"cksess_{number}")

    assert len(recent._sessions) == 2
    assert is_stored(store, "cksess_0")
    assert not is_stored(store, "cksess_ended")


def test_what_has_expired_makes_room(recent: RecentSessions, clock: Clock) -> None:
    remember(recent, "cksess_1")
    clock.now += 2 * DAY

    remember(recent, "cksess_2")

    assert [id_ for _, id_ in recent._sessions] == ["cksess_2"]


def test_a_session_that_is_created_while_its_user_signs_out_is_not_kept(
    recent: RecentSessions,
) -> None:
    ada, bob = recent.begin(SCOPE, "ada"), recent.begin(SCOPE, "bob")

    recent.sign_out(SCOPE, "ada")

    assert (ada.signed_out, bob.signed_out) == (True, False)
    session = ChatKitSessionResponse.model_validate(session_json())
    assert not recent.add(ada, session, workflow_id="wf_1", asked_for=600.0)
    assert recent._sessions == {}


ACTIONS: dict[str, Callable[[RecentSessions], object]] = {
    "a session is added": lambda recent: remember(recent, "cksess_3"),
    "it is added again": lambda recent: remember(recent, "cksess_1"),
    "a session is published": lambda recent: recent.publish_session(SCOPE, "cksess_1"),
    "a user's are published": lambda recent: recent.publish_user(SCOPE, "user_1"),
}


class InterruptError(BaseException):
    """What a signal's handler raises."""


def interrupted(call: Callable[[], object], *, at: int) -> bool:
    """Make the call, and raise at that line of `RecentSessions`; whether there is one."""
    left = at

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 -- itself
        nonlocal left
        code = frame.f_code
        # Python runs no signal handler between a lock's block and the end of its `with`.
        is_lock = "_lock." in linecache.getline(code.co_filename, frame.f_lineno)
        if event == "line" and code.co_qualname.startswith("RecentSessions.") and not is_lock:
            left -= 1
            if left == 0:
                raise InterruptError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except InterruptError:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


@pytest.mark.parametrize("action", ACTIONS)
def test_an_interrupt_at_any_line_loses_no_session(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(module, "MAX_RECENT", 2)
    at, hit = 0, True
    while hit:
        at += 1
        store = MemorySessionStore(clock=clock)
        recent = RecentSessions(store, clock)
        for session_id in ("cksess_1", "cksess_2"):
            remember(recent, session_id)

        hit = interrupted(partial(ACTIONS[action], recent), at=at)

        known = {"cksess_1", "cksess_2", *(session_id for _, session_id in recent._sessions)}
        recent.publish_user(SCOPE, "user_1")
        assert all(is_stored(store, each) for each in known), at
        assert len(store.names(SCOPE.group_of_user("user_1"))) == len(known), at
        assert recent._sessions == {}, at
    assert at > 5


def test_no_secret_is_kept(recent: RecentSessions) -> None:
    remember(recent, "cksess_1")

    assert NEW_SECRET not in repr(vars(recent))
    assert "client_secret" not in repr(vars(recent))


def test_creating_a_session_asks_no_store_and_hashes_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatkit = connect(Script([ok()]))
    for name in ("get", "names", "commit"):
        monkeypatch.setattr(MemorySessionStore, name, pytest.fail)
    monkeypatch.setattr(hashlib, "sha256", pytest.fail)

    assert chatkit.create_session("user_123").id == "cksess_new"


def test_a_session_that_was_created_can_be_asked_for(connect: Connect) -> None:
    chatkit = connect(Script([ok(), ok(id="cksess_2"), invalid_url]))
    chatkit.create_session("user_123")
    chatkit.create_session("user_123")

    assert chatkit.get_session("cksess_new").user == "user_123"
    assert {each.id for each in chatkit.sessions_for("user_123")} == {"cksess_new", "cksess_2"}
    with pytest.raises(SessionNotRecordedError):
        chatkit.get_session("cksess_3")


def test_a_session_whose_user_signs_out_while_it_is_created_is_cancelled(connect: Connect) -> None:
    clients: list[ChatKitClient] = []

    def create(_: httpx.Request) -> httpx.Response:
        client = inner(clients[0])
        recent = client._sessions.registry.recent
        assert recent is not None
        recent.sign_out(client._sessions.scope, "user_123")
        return ok()

    script = Script([create, httpx.Response(200, json={"id": "cksess_new", "status": "cancelled"})])
    clients.append(connect(script))

    with pytest.raises(SessionDeletedError):
        clients[0].create_session("user_123")

    assert script.requests[1].url.path.endswith("/cksess_new/cancel")
