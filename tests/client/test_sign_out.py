"""What workers agree about when sessions are refreshed, deleted, and when a user signs out."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import cast
from unittest.mock import ANY

import httpx
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    AsyncChatKitClient,
    AuthenticationError,
    ChatKitClient,
    ChatKitError,
    ChatKitSessionResponse,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionStoreError,
)
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.tasks import TaskEvent
from chatkit_sessions._concurrency.threads import ThreadEvent
from chatkit_sessions._sessions.entries import LEASE
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import Answer, Connect, Script, Time, invalid_url, ok, refused
from workers import Backend, inner

REFRESH = "POST /v1/chatkit/sessions/refresh"
CREATE = "POST /v1/chatkit/sessions"
ANNOUNCED = {"chatkit-extensions": "get, refresh, sign_out"}
SIGN_OUT = "POST /v1/chatkit/sessions/cancel"


def when_called(backend: Backend, path: str, act: Callable[[ChatKitClient], object]) -> None:
    """Let another worker act while the API is asked for something, the first time."""
    other = backend.worker()

    def before(request: httpx.Request) -> object:
        if not request.url.path.endswith(path):
            return None
        backend.api.before = lambda _: None
        happens = act(inner(other))
        if backend.kind == "sync":
            return None

        async def wait() -> None:
            await cast("asyncio.Future[object]", happens)

        return wait()

    backend.api.before = before


class TestRefresh:
    def test_replaces_the_session_for_everybody(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")

        second = worker.refresh_session(first.client_secret, user="user_1")

        assert second.client_secret != first.client_secret
        assert backend.worker().get_or_create_session("user_1") == second
        assert backend.calls() == [CREATE, REFRESH]

    def test_gives_many_tabs_one_new_session(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.answer_when_waiting(worker, 4)

        told = backend.at_once(
            *[lambda: inner(worker).refresh_session(first.client_secret, user="user_1")] * 5
        )

        assert all(isinstance(each, ChatKitSessionResponse) for each in told)
        assert all(each == told[0] for each in told)
        assert told[0] != first
        assert backend.calls() == [CREATE, REFRESH]

    def test_gives_a_tab_that_comes_late_what_the_others_got(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        second = worker.refresh_session(first.client_secret, user="user_1")

        late = backend.worker().refresh_session(first.client_secret, user="user_1")

        assert late == second
        assert backend.calls() == [CREATE, REFRESH]

    def test_gives_tabs_that_wake_after_the_expiry_one_new_session(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.advance(3600)

        second = worker.refresh_session(first.client_secret, user="user_1")

        assert backend.worker().refresh_session(first.client_secret, user="user_1") == second
        assert backend.calls() == [CREATE, CREATE]

    def test_never_gives_what_was_presented(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")

        for _ in range(3):
            again = worker.refresh_session(session.client_secret, user="user_1")
            assert again.client_secret != session.client_secret
            session = again

    def test_creates_anew_where_the_presented_session_is_not_the_shared_one(
        self, backend: Backend
    ) -> None:
        """Else a secret of other options, or of another session, would become everybody's."""
        worker = backend.worker()
        of_other_options = worker.get_or_create_session("user_1", history=False)
        shared = worker.get_or_create_session("user_1")
        backend.advance(550)

        fresh = worker.refresh_session(of_other_options.client_secret, user="user_1")

        assert fresh.id not in {of_other_options.id, shared.id}
        assert backend.calls() == [CREATE, CREATE, CREATE]
        assert worker.get_or_create_session("user_1") == fresh

    def test_with_other_options_leaves_the_shared_session_to_the_others(
        self, backend: Backend
    ) -> None:
        """Whoever forgets the options must not end the session of all other tabs."""
        worker = backend.worker()
        shared = worker.get_or_create_session("user_1", history=False)

        fresh = worker.refresh_session(shared.client_secret, user="user_1")

        assert fresh.id != shared.id
        assert backend.calls() == [CREATE, CREATE]
        assert backend.fake.sessions[shared.id].status == "active"
        assert worker.get_or_create_session("user_1", history=False) == shared

    def test_that_is_refused_creates_for_everybody(self, backend: Backend) -> None:
        backend.fake.refresh_route = False
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")

        second = worker.refresh_session(first.client_secret, user="user_1")

        assert backend.worker().get_or_create_session("user_1") == second
        assert backend.calls() == [CREATE, REFRESH, CREATE]

    def test_that_fails_fails_all_tabs(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.fake.fail_next(status_code=500, times=1)
        backend.answer_when_waiting(worker, 2)

        told = backend.at_once(
            *[lambda: inner(worker).refresh_session(first.client_secret, user="user_1")] * 3
        )

        assert [type(each) for each in told] == [InternalServerError] * 3
        assert worker.refresh_session(first.client_secret, user="user_1").status == "active"

    def test_does_not_hand_a_waiter_what_it_presented(self, backend: Backend) -> None:
        """The call that it waits for may itself be handed the session that the waiter has."""
        worker, other, dead = backend.worker(), backend.worker(), backend.worker()
        backend.begin_to_create(dead)
        if backend.kind == "sync":
            told = self._refresh_while_a_thread_waits(backend, worker, other)
        else:
            told = self._refresh_while_a_task_waits(backend, worker, other)

        first, second, refreshed = told
        assert first == second
        assert refreshed.client_secret != second.client_secret
        assert other.get_or_create_session("user_1") == refreshed

    def _refresh_while_a_thread_waits(
        self, backend: Backend, worker: ChatKitClient, other: ChatKitClient
    ) -> list[ChatKitSessionResponse]:
        waits = threading.Semaphore(0)

        class Counted(ThreadEvent):
            def wait(self, timeout: float | None = None) -> bool:
                waits.release()
                return super().wait(timeout)

        worker._sessions.registry.single_flight._new_event = Counted
        told: list[ChatKitSessionResponse] = []
        refreshed: list[ChatKitSessionResponse] = []

        def refresh() -> None:
            refreshed.append(worker.refresh_session(told[0].client_secret, user="user_1"))

        thread = threading.Thread(target=refresh)

        def sleep(_: float) -> None:
            if not told:
                backend.advance(LEASE)
                told.append(other.get_or_create_session("user_1"))
                thread.start()
                assert waits.acquire(timeout=60)

        worker._sessions.io.runtime = worker._sessions.io.runtime._replace(sleep=sleep)
        told.append(worker.get_or_create_session("user_1"))
        thread.join(60)
        return told + refreshed

    def _refresh_while_a_task_waits(
        self, backend: Backend, worker: ChatKitClient, other: ChatKitClient
    ) -> list[ChatKitSessionResponse]:
        one = cast("AsyncChatKitClient", inner(worker))
        two = cast("AsyncChatKitClient", inner(other))
        waits: list[object] = []

        class Counted(TaskEvent):
            async def wait_for(self, seconds: float | None) -> bool:
                waits.append(self)
                return await super().wait_for(seconds)

        one._sessions.registry.single_flight._new_event = Counted

        async def main() -> list[ChatKitSessionResponse]:
            told: list[ChatKitSessionResponse] = []
            tasks: list[asyncio.Task[ChatKitSessionResponse]] = []

            async def sleep(_: float) -> None:
                if not told:
                    backend.advance(LEASE)
                    told.append(await two.get_or_create_session("user_1"))
                    refresh = one.refresh_session(told[0].client_secret, user="user_1")
                    tasks.append(asyncio.create_task(refresh))
                    while not waits:  # noqa: ASYNC110 -- whoever waits does not know of us
                        await asyncio.sleep(0)

            one._sessions.io.runtime = one._sessions.io.runtime._replace(sleep=sleep)
            told.append(await one.get_or_create_session("user_1"))
            return [*told, await tasks[0]]

        return cast("list[ChatKitSessionResponse]", backend.run(main))


class TestDelete:
    def test_ends_reuse_everywhere(self, backend: Backend) -> None:
        worker, other = backend.worker(), backend.worker()
        first = worker.get_or_create_session("user_1")

        other.delete_session(first.id)

        assert worker.get_or_create_session("user_1").id != first.id
        assert worker.get_session(first.id).status == "cancelled"

    def test_ends_reuse_before_the_api_is_asked(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        told: list[str] = []
        backend.api.before = lambda _: told.append(backend.stored())

        worker.delete_session(first.id)

        assert len(told) == 1
        assert first.client_secret.get_secret_value() not in told[0]

    def test_ends_reuse_even_if_the_api_fails(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.fake.fail_next(status_code=500, times=1)

        with pytest.raises(InternalServerError):
            worker.delete_session(first.id)

        assert worker.get_or_create_session("user_1").id != first.id
        assert worker.get_session(first.id).status == "active"

    def test_of_a_session_that_was_replaced_leaves_the_new_one(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        second = worker.refresh_session(first.client_secret, user="user_1")

        worker.delete_session(first.id)

        assert worker.get_or_create_session("user_1") == second

    def test_of_what_the_api_does_not_know_is_forgotten(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.fake.fail_next(
            status_code=404, message="Chatkit Session with id 'x' not found.", times=2
        )

        with pytest.raises(SessionNotFoundError):
            worker.delete_session(first.id)
        worker.delete_session(first.id, missing_ok=True)

        assert worker.sessions_for("user_1") == []


class TestSessionsOfAUser:
    def test_are_those_of_all_workers(self, backend: Backend) -> None:
        one = backend.worker().create_session("user_1", expires_after=100)
        two = backend.worker().get_or_create_session("user_1")
        three = backend.worker().refresh_session(one.client_secret, user="user_1")
        backend.worker().create_session("user_2")

        infos = backend.worker().sessions_for("user_1")

        assert {info.id for info in infos} == {one.id, two.id, three.id}
        assert infos[-1].id == one.id
        assert {info.user for info in infos} == {"user_1"}
        assert {info.source for info in infos} == {"record"}
        assert [info.expires_at for info in infos] == sorted(
            (info.expires_at for info in infos), reverse=True
        )

    def test_tell_their_status(self, backend: Backend) -> None:
        worker = backend.worker()
        short = worker.create_session("user_1", expires_after=10)
        ended = worker.create_session("user_1")
        going_on = worker.create_session("user_1")
        worker.delete_session(ended.id)
        backend.advance(20)

        told = {info.id: info.status for info in backend.worker().sessions_for("user_1")}

        assert told == {short.id: "expired", ended.id: "cancelled", going_on.id: "active"}

    def test_are_known_until_a_day_after_their_expiry(self, backend: Backend) -> None:
        worker = backend.worker()
        worker.create_session("user_1")

        backend.advance(600 + 24 * 3600 - 60)
        assert len(worker.sessions_for("user_1")) == 1
        backend.advance(120)
        assert worker.sessions_for("user_1") == []

    def test_tell_no_secret(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")

        assert session.client_secret.get_secret_value() not in str(worker.sessions_for("user_1"))

    def test_are_none_where_there_are_none(self, backend: Backend) -> None:
        assert backend.worker().sessions_for("user_1") == []
        backend.worker().delete_sessions("user_1")
        assert backend.calls() == [SIGN_OUT], "the server may know of some"

    @pytest.mark.parametrize("user", ["", None, 5, {"id": "user_1"}])
    def test_need_a_user(self, backend: Backend, user: str) -> None:
        worker = backend.worker()

        with pytest.raises(InvalidRequestError, match="user"):
            worker.sessions_for(user)
        with pytest.raises(InvalidRequestError, match="user"):
            worker.delete_sessions(user)


class TestSigningOut:
    def test_ends_every_session_of_the_user_and_no_other(self, backend: Backend) -> None:
        worker = backend.worker()
        sessions = [
            worker.create_session("user_1"),
            backend.worker().get_or_create_session("user_1"),
            backend.worker().get_or_create_session("user_1", history=False),
        ]
        other = worker.get_or_create_session("user_2")

        backend.worker().delete_sessions("user_1")

        assert {info.status for info in worker.sessions_for("user_1")} == {"cancelled"}
        assert {backend.fake.sessions[each.id].status for each in sessions} == {"cancelled"}
        assert worker.get_or_create_session("user_2") == other
        assert len([path for path in backend.calls("/cancel") if path != SIGN_OUT]) == 3

    def test_leaves_what_has_ended_already(self, backend: Backend) -> None:
        worker = backend.worker()
        worker.create_session("user_1", expires_after=10)
        ended = worker.create_session("user_1")
        worker.delete_session(ended.id)
        backend.advance(30)
        before = len(backend.calls("/cancel"))

        worker.delete_sessions("user_1")

        assert len(backend.calls("/cancel")) == before

    def test_makes_the_next_session_a_new_one(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")

        worker.delete_sessions("user_1")

        second = backend.worker().get_or_create_session("user_1")
        assert second.id != first.id
        assert worker.get_or_create_session("user_1") == second

    def test_hides_the_old_session_from_its_first_moment(self, backend: Backend) -> None:
        """Who signs in again at that moment gets no session that is about to be cancelled."""
        worker, other = backend.worker(), backend.worker()
        first = worker.get_or_create_session("user_1")
        sessions = inner(other)._sessions
        deadline = Deadline.after(None, sessions.calls.monotonic)
        sign_out = sessions.registry.sign_out(sessions.scope, "user_1", deadline, generation=b"1")
        assert backend.run_flow(sign_out) == ({first.id: ANY}, None)

        assert worker.get_or_create_session("user_1").id != first.id

    def test_takes_the_secrets_out_before_the_api_is_asked(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")
        told: list[str] = []
        backend.api.before = lambda _: told.append(backend.stored())

        worker.delete_sessions("user_1")

        assert session.client_secret.get_secret_value() not in told[0]

    def test_goes_on_after_a_failure_and_tells_it(
        self, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = backend.worker()
        for _ in range(3):
            worker.create_session("user_1")
        backend.fake.fail_next(status_code=500, times=2)

        with caplog.at_level(logging.WARNING), pytest.raises(InternalServerError):
            worker.delete_sessions("user_1")

        statuses = sorted(str(info.status) for info in worker.sessions_for("user_1"))
        assert statuses == ["active", "active", "cancelled"]
        assert "A session could not be deleted" in caplog.text
        worker.delete_sessions("user_1")
        assert {info.status for info in worker.sessions_for("user_1")} == {"cancelled"}

    def test_counts_what_the_api_does_not_know_as_ended(self, backend: Backend) -> None:
        worker = backend.worker()
        worker.create_session("user_1")
        backend.fake.fail_next(
            status_code=404, message="Chatkit Session with id 'x' not found.", times=1
        )

        worker.delete_sessions("user_1")

        assert worker.sessions_for("user_1") == []

    @pytest.mark.parametrize("method", ["create_session", "get_or_create_session"])
    def test_ends_a_create_that_is_under_way(self, backend: Backend, method: str) -> None:
        worker = backend.worker()
        when_called(backend, "/sessions", lambda other: other.delete_sessions("user_1"))

        with pytest.raises(SessionDeletedError) as caught:
            getattr(worker, method)("user_1")

        assert caught.value.hint
        assert [each.status for each in backend.fake.sessions.values()] == ["cancelled"]
        assert [info.status for info in worker.sessions_for("user_1")] == ["cancelled"]
        assert "ek_" not in backend.stored()
        # … and a new sign-in begins anew.
        assert worker.get_or_create_session("user_1").status == "active"

    def test_ends_a_refresh_that_is_under_way(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        when_called(backend, "/refresh", lambda other: other.delete_sessions("user_1"))

        with pytest.raises(SessionDeletedError):
            worker.refresh_session(first.client_secret, user="user_1")

        assert {each.status for each in backend.fake.sessions.values()} == {"cancelled"}
        assert "ek_" not in backend.stored()

    def test_ends_all_who_wait_for_a_create_that_is_under_way(self, backend: Backend) -> None:
        worker, other = backend.worker(), inner(backend.worker())
        backend.answer_when_waiting(worker, 2)
        wait = backend.api.before

        def sign_out(request: httpx.Request) -> object:
            happens = wait(request)
            if backend.kind == "sync":
                other.delete_sessions("user_1")
                return None

            async def do() -> None:
                await cast("asyncio.Future[None]", happens)
                await cast("AsyncChatKitClient", other).delete_sessions("user_1")

            return do()

        backend.api.before = sign_out

        told = backend.at_once(*[lambda: inner(worker).get_or_create_session("user_1")] * 3)

        assert [type(each) for each in told] == [SessionDeletedError] * 3
        assert backend.creates == 1

    def test_ends_who_waits_for_another_worker(self, backend: Backend) -> None:
        """Else that one would create, for a user who has signed out, when it is its turn."""
        worker, other = backend.worker(), backend.worker()
        client = inner(worker)
        backend.begin_to_create(other)

        def sleep(seconds: float) -> None:
            backend.advance(seconds)
            other.delete_sessions("user_1")

        async def asleep(seconds: float) -> None:
            backend.advance(seconds)
            await cast("AsyncChatKitClient", inner(other)).delete_sessions("user_1")

        sleeps = sleep if backend.kind == "sync" else asleep
        client._sessions.io.runtime = client._sessions.io.runtime._replace(sleep=sleeps)

        with pytest.raises(SessionDeletedError):
            worker.get_or_create_session("user_1")

        assert backend.creates == 0

    def test_a_day_ago_does_not_matter_any_more(self, backend: Backend) -> None:
        """What is remembered of it may run out while a session is created."""
        worker = backend.worker()
        worker.delete_sessions("user_1")
        backend.advance(24 * 3600 - 100)
        backend.api.before = lambda _: backend.advance(200)

        assert worker.create_session("user_1", timeout=None).user == "user_1"
        assert len(worker.sessions_for("user_1")) == 1

    def test_needs_no_record(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.create_session("user_1")
        backend.overwrite("record", b"nonsense")

        worker.delete_sessions("user_1")

        assert backend.fake.sessions[session.id].status == "cancelled"
        assert [info.status for info in worker.sessions_for("user_1")] == ["cancelled"]

    @pytest.mark.parametrize("listed", [b"\xff\xfe", b"", b" ", b"a b", b"id of nothing\n"])
    def test_passes_over_what_is_no_id(self, backend: Backend, listed: bytes) -> None:
        """Whoever can write the store cannot keep a session alive by it."""
        worker = backend.worker()
        worker.create_session("user_1")
        backend.overwrite("session:", listed)
        session = worker.create_session("user_1")

        worker.delete_sessions("user_1")

        assert backend.fake.sessions[session.id].status == "cancelled"


class TestAnAnswerOfCancelling:
    def test_of_a_session_that_no_worker_knows_is_remembered(self, connect: Connect) -> None:
        answer = httpx.Response(200, json={"id": "cksess_x", "status": "cancelled"})
        chatkit = connect(Script([answer, invalid_url]))

        chatkit.delete_session("cksess_x")

        assert chatkit.get_session("cksess_x").status == "cancelled"

    def test_that_is_an_error_changes_nothing(self, connect: Connect) -> None:
        chatkit = connect(Script([ok(), refused(403), invalid_url]))
        session = chatkit.create_session("user_123")

        with pytest.raises(ChatKitError):
            chatkit.delete_session(session.id)

        assert chatkit.get_session(session.id).status == "active"


class TestFullStore:
    """A sign-out in a store in memory that had to make room."""

    @pytest.fixture
    def store(self, time: Time) -> MemorySessionStore:
        return MemorySessionStore(namespace="shop", max_entries=6, clock=lambda: time.monotonic)

    @pytest.mark.parametrize("method", ["create_session", "get_or_create_session"])
    def test_raises_if_it_may_have_missed_a_session(
        self,
        connect: Connect,
        store: MemorySessionStore,
        fake: FakeChatKit,
        time: Time,
        method: str,
    ) -> None:
        client = connect(fake.transport(), store=store, api_key=fake.api_key)
        for user in ("ada", *"bcdefg"):
            getattr(client, method)(user)
            time.advance(1)
        last = client.create_session("ada")
        time.advance(1)

        with pytest.raises(SessionStoreError, match="may have missed a session") as caught:
            client.delete_sessions("ada")

        assert "`max_entries`" in (caught.value.hint or "")
        assert fake.sessions[last.id].status == "cancelled"

    def test_says_nothing_where_only_ended_sessions_made_room(
        self,
        connect: Connect,
        store: MemorySessionStore,
        fake: FakeChatKit,
        time: Time,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        client = connect(fake.transport(), store=store, api_key=fake.api_key)
        client.create_session("ada")
        fake.clock.advance(seconds=601)
        time.advance(601)
        for number in range(3):
            client.create_session(f"user_{number}")

        assert "is full" not in caplog.text
        client.delete_sessions("ada")

    def test_says_nothing_once_the_missed_session_has_expired(
        self, connect: Connect, store: MemorySessionStore, fake: FakeChatKit, time: Time
    ) -> None:
        client = connect(fake.transport(), store=store, api_key=fake.api_key)
        client.create_session("ada")
        for number in range(6):
            client.create_session(f"user_{number}")
        fake.clock.advance(seconds=601)
        time.advance(601)

        client.delete_sessions("ada")


class TestTheRouteOfTheService:
    """A server that ends all sessions of a user at once, whoever created them."""

    def ended(self, *session_ids: str, user: str = "user_123") -> httpx.Response:
        content = {"object": "chatkit.user", "user": user, "cancelled_sessions": session_ids}
        return httpx.Response(200, json=content, headers=ANNOUNCED)

    def created(self, *, announces: bool) -> httpx.Response:
        response = ok()
        response.headers.update(ANNOUNCED if announces else {})
        return response

    @pytest.fixture
    def fake(self) -> FakeChatKit:
        return FakeChatKit(sign_out_route=True)

    def test_ends_what_other_clients_created(
        self, connect: Connect, fake: FakeChatKit, server: FakeServer
    ) -> None:
        one = connect(api_key=server.api_key, base_url=server.url)
        other = connect(api_key=server.api_key, base_url=server.url)
        sessions = [one.create_session("user_123"), other.create_session("user_123")]
        kept = one.create_session("eve")

        connect(api_key=server.api_key, base_url=server.url).delete_sessions("user_123")

        assert {fake.sessions[each.id].status for each in sessions} == {"cancelled"}
        assert fake.sessions[kept.id].status == "active"

    def test_takes_one_request_with_the_user_in_its_body(self, connect: Connect) -> None:
        script = Script([self.created(announces=True), self.ended("cksess_new")])
        chatkit = connect(script)
        session = chatkit.create_session("user_123")

        chatkit.delete_sessions("user_123")

        assert script.paths == [CREATE, SIGN_OUT]
        assert script.body() == {"user": "user_123"}
        assert chatkit.sessions_for("user_123")[0].id == session.id
        assert chatkit.sessions_for("user_123")[0].status == "cancelled"

    def test_leaves_to_cancel_what_the_server_did_not_know(self, connect: Connect) -> None:
        cancelled = httpx.Response(200, json={"id": "cksess_new", "status": "cancelled"})
        script = Script([self.created(announces=True), self.ended("cksess_other"), cancelled])
        chatkit = connect(script)
        chatkit.create_session("user_123")

        chatkit.delete_sessions("user_123")

        assert script.paths == [CREATE, SIGN_OUT, f"{CREATE}/cksess_new/cancel"]

    def test_is_not_asked_of_a_server_that_does_not_announce_it(self, connect: Connect) -> None:
        cancelled = httpx.Response(200, json={"id": "cksess_new", "status": "cancelled"})
        script = Script([self.created(announces=False), cancelled])
        chatkit = connect(script)
        chatkit.create_session("user_123")

        chatkit.delete_sessions("user_123")

        assert script.paths == [CREATE, f"{CREATE}/cksess_new/cancel"]

    @pytest.mark.parametrize(
        "answer", [invalid_url, refused(403), httpx.Response(404), httpx.Response(200, html="?")]
    )
    def test_is_asked_of_an_unknown_server_and_not_again_for_ten_minutes(
        self, connect: Connect, time: Time, answer: Answer
    ) -> None:
        script = Script([answer, self.ended()])
        chatkit = connect(script)

        chatkit.delete_sessions("user_123")
        time.advance(599)
        chatkit.delete_sessions("user_123")
        assert script.paths == [SIGN_OUT]

        time.advance(1)
        chatkit.delete_sessions("user_123")
        chatkit.delete_sessions("user_123")
        assert script.paths == [SIGN_OUT] * 3

    def test_is_never_asked_of_openai(self, connect: Connect) -> None:
        script = Script([self.ended()])

        connect(script, base_url="https://api.openai.com/v1").delete_sessions("user_123")

        assert script.paths == []

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (refused(500), InternalServerError),
            (refused(429), RateLimitError),
            (httpx.ConnectError("refused"), APIConnectionError),
        ],
    )
    def test_that_fails_for_now_is_an_error(
        self, connect: Connect, answer: Answer, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            connect(Script([answer]), max_retries=0).delete_sessions("user_123")

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (refused(401), AuthenticationError),
            (httpx.Response(404), NotFoundError),
            (
                httpx.Response(200, json={"user": "eve", "cancelled_sessions": 1}),
                APIResponseValidationError,
            ),
            (httpx.Response(200, html="?"), APIResponseValidationError),
        ],
    )
    def test_that_a_server_is_known_to_have_and_rejects_is_an_error(
        self, connect: Connect, answer: httpx.Response, error: type[Exception]
    ) -> None:
        script = Script([self.created(announces=True), answer])
        chatkit = connect(script, max_retries=0)
        chatkit.create_session("user_123")

        with pytest.raises(error):
            chatkit.delete_sessions("eve")

    def test_with_the_response_to_another_request_is_an_error(self, connect: Connect) -> None:
        script = Script([self.ended("cksess_1", user="eve")])

        with pytest.raises(APIResponseValidationError, match="another user"):
            connect(script, max_retries=0).delete_sessions("user_123")

    def test_of_a_server_that_was_rolled_back_is_not_asked_again(self, connect: Connect) -> None:
        cancelled = httpx.Response(200, json={"id": "cksess_new", "status": "cancelled"})
        script = Script([self.created(announces=True), invalid_url, cancelled])
        chatkit = connect(script)
        chatkit.create_session("user_123")

        chatkit.delete_sessions("user_123")
        chatkit.delete_sessions("user_123")

        assert script.paths == [CREATE, SIGN_OUT, f"{CREATE}/cksess_new/cancel"]
