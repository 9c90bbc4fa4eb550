"""A store that does not answer keeps nobody from a session, and is complained of once."""

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from chatkit_sessions import (
    AsyncChatKitClient,
    ChatKitClient,
    ConfigurationError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionNotRecordedError,
    SessionStoreError,
)
from chatkit_sessions._concurrency.single_flight import Batches, Flight
from chatkit_sessions._concurrency.threads import ThreadEvent
from chatkit_sessions._sessions.entries import StoreSnapshot
from chatkit_sessions._sessions.store_access import RETRY_STORE_AFTER
from chatkit_sessions.options import SessionOptions
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from support import KEY, Connect, Kind
from workers import AsyncFailingStore, Backend, FailingStore, inner

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def backend(connect: Connect) -> Backend:
    return Backend(connect, "memory", None, connect._stack)


@pytest.fixture
def failing(backend: Backend) -> FailingStore:
    return FailingStore(backend.memory)


@pytest.fixture
def worker(backend: Backend, failing: FailingStore) -> ChatKitClient:
    worker = backend.worker(store=failing if backend.kind == "sync" else AsyncFailingStore(failing))
    inner(worker)._sessions.registry._state.circuit_breaker._clock = lambda: (
        backend.connect.time.monotonic
    )
    return worker


def test_sessions_are_created_all_the_same(worker: ChatKitClient, failing: FailingStore) -> None:
    failing.out = True

    created = worker.create_session("user_1")
    refreshed = worker.refresh_session(created.client_secret, user="user_1")
    reused = worker.get_or_create_session("user_1")

    assert len({created.id, refreshed.id, reused.id}) == 3


def test_the_outage_is_logged_once(
    worker: ChatKitClient, failing: FailingStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatkit_sessions")
    failing.out = True

    for _ in range(5):
        worker.get_or_create_session("user_1")

    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert "The session store does not answer (out of order)." in told.getMessage()


def test_a_store_that_is_out_is_asked_once_a_second(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    failing.out = True

    for _ in range(5):
        worker.get_or_create_session("user_1")
    assert failing.uses == 2, "it failed, and failed again"
    backend.advance(RETRY_STORE_AFTER)
    worker.get_or_create_session("user_1")
    assert failing.uses == 3


def test_sessions_are_shared_again_when_it_is_back(
    worker: ChatKitClient,
    failing: FailingStore,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chatkit_sessions")
    failing.out = True
    worker.get_or_create_session("user_1")
    failing.out = False
    backend.advance(RETRY_STORE_AFTER)

    first = worker.get_or_create_session("user_1")

    assert worker.get_or_create_session("user_1") == first
    assert "The session store responds again." in caplog.text


def test_calls_at_once_make_one_create_even_then(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    failing.out = True
    backend.answer_when_waiting(worker, 4)

    told = backend.at_once(*[lambda: inner(worker).get_or_create_session("user_1")] * 5)

    assert len({str(each) for each in told}) == 1
    assert backend.creates == 1


@pytest.mark.parametrize("fails_at", range(12))
def test_wherever_it_fails_a_session_is_handed_out_and_nothing_stays_locked(
    worker: ChatKitClient, failing: FailingStore, backend: Backend, fails_at: int
) -> None:
    failing.fails_at = fails_at

    first = worker.get_or_create_session("user_1")
    refreshed = worker.refresh_session(first.client_secret, user="user_1")

    assert refreshed.client_secret != first.client_secret
    backend.advance(10)  # what a lease that could not be ended costs the others
    again = backend.worker().get_or_create_session("user_1")
    assert again.status == "active"
    assert backend.worker().get_or_create_session("user_1") == again


def test_changes_may_be_made_twice(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    """As by a connection that breaks after a change and is made anew for it."""
    failing.repeats = True
    begun = backend.connect.time.monotonic

    first = worker.get_or_create_session("user_1")
    second = worker.refresh_session(first.client_secret, user="user_1")
    worker.delete_session(second.id)
    third = worker.get_or_create_session("user_1")
    worker.delete_sessions("user_1")

    assert backend.connect.time.monotonic == begun, "nobody waited for its own lease"
    assert len({first.id, second.id, third.id}) == 3
    assert backend.creates == 2
    assert {info.status for info in worker.sessions_for("user_1")} <= {"cancelled", "expired"}


def test_a_session_that_was_created_meanwhile_is_known_once_it_is_back(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    """The next sign-out ends it; it is not handed out, because one may have gone before."""
    failing.out = True

    def come_back(_: httpx.Request) -> None:
        failing.out = False
        backend.connect.time.advance(RETRY_STORE_AFTER)
        backend.api.before = lambda _: None

    backend.api.before = come_back

    session = worker.get_or_create_session("user_1")

    assert [info.id for info in worker.sessions_for("user_1")] == [session.id]
    assert "ek_" not in backend.stored()
    worker.delete_sessions("user_1")
    assert backend.fake.sessions[session.id].status == "cancelled"


def test_what_only_the_store_can_tell_is_an_error(
    worker: ChatKitClient, failing: FailingStore
) -> None:
    session = worker.create_session("user_1")
    failing.out = True

    with pytest.raises(SessionStoreError, match="out of order"):
        worker.sessions_for("user_1")
    with pytest.raises(SessionStoreError):
        worker.delete_sessions("user_1")
    with pytest.raises(SessionStoreError):
        worker.get_session(session.id)


def test_what_the_api_can_tell_needs_no_store(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    backend.fake.read_route = True
    session = worker.create_session("user_1")
    failing.out = True

    assert worker.get_session(session.id).source == "api"


def test_deleting_ends_the_session_and_tells_that_the_store_does_not_know(
    worker: ChatKitClient, failing: FailingStore, backend: Backend
) -> None:
    session = worker.get_or_create_session("user_1")
    failing.out = True

    with pytest.raises(SessionStoreError):
        worker.delete_session(session.id)

    assert backend.fake.sessions[session.id].status == "cancelled"
    failing.out = False
    worker.delete_session(session.id)
    assert worker.get_or_create_session("user_1").id != session.id


def test_deleting_what_the_api_does_not_know_tells_that_first(
    worker: ChatKitClient, failing: FailingStore
) -> None:
    failing.out = True
    unknown = "cksess_" + "0" * 48

    with pytest.raises(SessionNotFoundError):
        worker.delete_session(unknown)
    with pytest.raises(SessionStoreError):
        worker.delete_session(unknown, missing_ok=True)


def test_a_session_that_is_not_to_be_used_is_cancelled_without_it(
    worker: ChatKitClient, failing: FailingStore, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    other = backend.worker()

    def before(request: httpx.Request) -> object:
        if request.url.path.endswith("/cancel") and "cksess_" in request.url.path:
            failing.out = True
        if not request.url.path.endswith("/sessions"):
            return None
        if backend.kind == "sync":
            other.delete_sessions("user_1")
            return None
        return cast("AsyncChatKitClient", inner(other)).delete_sessions("user_1")

    backend.api.before = before

    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="were deleted"):
        worker.create_session("user_1")

    assert {each.status for each in backend.fake.sessions.values()} == {"cancelled"}


class TestLookUpsOfOthers:
    """Another thread's, which this one waits for."""

    @pytest.mark.parametrize("kind", ["sync"])
    def test_that_take_too_long_are_not_waited_for(
        self, worker: ChatKitClient, backend: Backend
    ) -> None:
        look_ups, key = self.look_ups_of(worker)
        own = look_ups.new()
        look_ups.start(key, own)

        session = worker.get_or_create_session("user_1", timeout=0.05)

        assert session.user == "user_1"
        assert backend.creates == 1

    @pytest.mark.parametrize("kind", ["sync"])
    def test_that_came_to_nothing_are_done_again(
        self, worker: ChatKitClient, backend: Backend
    ) -> None:
        look_ups, key = self.look_ups_of(worker)

        class Ended(ThreadEvent):
            def wait(self, timeout: float | None = None) -> bool:
                look_ups.end(key, own)
                return super().wait(timeout)

        own = Flight[StoreSnapshot](Ended)
        look_ups.join(key, own)

        assert worker.get_or_create_session("user_1").user == "user_1"
        assert backend.creates == 1

    def look_ups_of(self, worker: ChatKitClient) -> tuple[Batches[StoreSnapshot], Hashable]:
        client = inner(worker)
        identity = client._sessions.request("user_1", SessionOptions()).identity
        return client._sessions.registry.look_ups, (None, identity.slot, False)


class TestASessionOfAnOutage:
    def test_is_returned_again_by_its_process(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        failing.out = True

        first = worker.get_or_create_session("user_1")

        assert worker.get_or_create_session("user_1") == first
        assert worker.with_options(timeout=9).get_or_create_session("user_1") == first
        assert backend.creates == 1
        refreshed = worker.refresh_session(first.client_secret, user="user_1")
        assert worker.get_or_create_session("user_1") == refreshed

    def test_is_ended_by_a_sign_out_of_its_process(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        failing.out = True
        first = worker.get_or_create_session("user_1")
        other = worker.get_or_create_session("user_2")

        with pytest.raises(SessionStoreError):
            worker.delete_sessions("user_1")

        assert backend.fake.sessions[first.id].status == "cancelled"
        assert worker.get_or_create_session("user_1").id != first.id
        assert worker.get_or_create_session("user_2") == other

    def test_that_is_being_created_is_ended_too(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        failing.out = True
        worker.get_or_create_session("user_0")

        def sign_out(request: httpx.Request) -> object:
            if not request.url.path.endswith("/sessions"):
                return None
            backend.api.before = lambda _: None
            if backend.kind == "sync":
                with pytest.raises(SessionStoreError):
                    worker.delete_sessions("user_1")
                return None

            async def do() -> None:
                with pytest.raises(SessionStoreError):
                    await cast("AsyncChatKitClient", inner(worker)).delete_sessions("user_1")

            return do()

        backend.api.before = sign_out

        with pytest.raises(SessionDeletedError):
            worker.get_or_create_session("user_1")

        assert backend.calls("/cancel")

    def test_is_not_returned_after_it_was_deleted(
        self, worker: ChatKitClient, failing: FailingStore
    ) -> None:
        failing.out = True
        first = worker.get_or_create_session("user_1")

        with pytest.raises(SessionStoreError):
            worker.delete_session(first.id)

        assert worker.get_or_create_session("user_1").id != first.id

    def test_is_known_to_all_when_the_store_is_back(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        failing.out = True
        sessions = [worker.create_session("user_1"), worker.get_or_create_session("user_1")]
        failing.out = False
        backend.advance(RETRY_STORE_AFTER)

        worker.get_or_create_session("user_2")
        worker.get_or_create_session("user_2")

        infos = backend.worker().sessions_for("user_1")
        assert {info.id for info in infos} == {each.id for each in sessions}

    def test_whose_user_has_signed_out_elsewhere_is_cancelled(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        """Here the store was there when the call began, and for the sign-out."""

        def fall_out(_: httpx.Request) -> None:
            failing.out = True
            backend.api.before = lambda _: None

        backend.api.before = fall_out
        session = worker.create_session("user_1")
        backend.worker().delete_sessions("user_1")
        failing.out = False
        backend.advance(RETRY_STORE_AFTER)

        worker.create_session("user_2")
        worker.create_session("user_2")

        assert backend.fake.sessions[session.id].status == "cancelled"

    def test_stays_unpublished_where_the_store_cannot_be_changed(
        self, worker: ChatKitClient, failing: FailingStore, backend: Backend
    ) -> None:
        failing.is_full = True
        session = worker.create_session("user_1")
        backend.advance(RETRY_STORE_AFTER)
        worker.create_session("user_2")
        failing.is_full = False
        backend.advance(RETRY_STORE_AFTER)
        worker.create_session("user_2")
        worker.create_session("user_2")

        assert [info.id for info in backend.worker().sessions_for("user_1")] == [session.id]


class TestWhatIsNoStore:
    @pytest.mark.parametrize(
        ("store", "told"),
        [
            ("redis://localhost", "must be a session store"),
            (object(), "must be a session store"),
            (MemorySessionStore, "must be a session store"),
            ({}, "must be a session store"),
        ],
    )
    def test_is_refused_at_once(self, connect: Connect, store: object, told: str) -> None:
        with pytest.raises(ConfigurationError, match=told):
            connect(store=store)

    def test_is_refused_in_the_wrong_colour(self, kind: Kind) -> None:
        plain = RedisSessionStore.from_url("redis://localhost:1", namespace="shop")
        asynchronous = AsyncRedisSessionStore.from_url("redis://localhost:1", namespace="shop")

        client: object = ChatKitClient if kind == "sync" else AsyncChatKitClient
        make = cast("Callable[..., object]", client)

        with pytest.raises(ConfigurationError, match="is a store for"):
            make(api_key=KEY, store=asynchronous if kind == "sync" else plain)

    def test_is_refused_by_with_options_too(self, connect: Connect) -> None:
        chatkit = connect()

        with pytest.raises(ConfigurationError, match="must be a session store"):
            chatkit.with_options(store=5)  # type: ignore[arg-type]  # the point of it

    def test_has_a_namespace_that_is_text(self, connect: Connect) -> None:
        store = MemorySessionStore(namespace=5)  # type: ignore[arg-type]  # the point of it

        with pytest.raises(ConfigurationError, match="`namespace` must be a string"):
            connect(store=store)


def test_a_client_without_records_says_how_workers_come_to_share_them(connect: Connect) -> None:
    chatkit = Backend(connect, "memory", None, connect._stack).worker()

    with pytest.raises(SessionNotRecordedError, match="store"):
        chatkit.get_session("cksess_unseen")
