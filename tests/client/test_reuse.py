"""`get_or_create_session`, over both clients and both stores: one session for many who ask."""

import asyncio
import threading
from datetime import timedelta
from typing import cast

import httpx
import pytest
import trio
import trio.testing

from chatkit_sessions import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatKitClient,
    AuthenticationError,
    ChatKitClient,
    ChatKitSessionResponse,
    ConfigurationError,
    InternalServerError,
    InvalidRequestError,
)
from chatkit_sessions._sessions.entries import LEASE
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from support import KEY, Connect, Script, ok, session_json
from workers import Api, Backend, inner


class TestTheSameSession:
    def test_is_handed_out_again(self, backend: Backend) -> None:
        worker = backend.worker()

        first = worker.get_or_create_session("user_1")
        second = worker.get_or_create_session("user_1")

        assert second == first
        assert second.client_secret.get_secret_value().startswith("ek_")
        assert second.for_browser() == first.for_browser()
        assert backend.creates == 1

    def test_is_known_to_every_worker(self, backend: Backend) -> None:
        first = backend.worker().get_or_create_session("user_1")

        assert backend.worker().get_or_create_session("user_1") == first
        assert backend.worker().get_session(first.id).status == "active"
        assert backend.creates == 1

    def test_is_not_another_user_s(self, backend: Backend) -> None:
        worker = backend.worker()

        sessions = {worker.get_or_create_session(user).id for user in ("user_1", "user_2", "User")}

        assert len(sessions) == 3

    def test_has_the_same_options(self, backend: Backend) -> None:
        worker = backend.worker()
        options: list[dict[str, object]] = [
            {},
            {"expires_after": 300},
            {"history": False},
            {"state_variables": {"a": True}},
            {"state_variables": {"a": 1}},
            {"state_variables": {"a": 1.0}},
        ]

        sessions = [
            [worker.get_or_create_session("user_1", **each).id for each in options]  # type: ignore[arg-type]  # options of every type
            for _ in range(2)
        ]

        assert sessions[0] == sessions[1]
        assert len(set(sessions[0])) == len(options)

    def test_has_the_same_project_and_organization(self, backend: Backend) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")

        others = [
            worker.with_options(project="proj_2"),
            worker.with_options(organization="org-2"),
            backend.worker(base_url="https://other.test/v1"),
            backend.worker(store=backend.store("another shop")),
        ]

        assert first.id not in {other.get_or_create_session("user_1").id for other in others}
        assert worker.with_options(timeout=5).get_or_create_session("user_1") == first

    def test_tells_neither_state_nor_what_is_unknown_when_it_comes_from_the_store(
        self, backend: Backend
    ) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1", state_variables={"plan": "pro"})
        second = worker.get_or_create_session("user_1", state_variables={"plan": "pro"})

        assert first.workflow is not None
        assert first.workflow.state_variables == {"plan": "pro"}
        assert second.workflow is not None
        assert second.workflow.state_variables is None
        assert "pro" not in backend.stored()

    def test_is_not_told_by_any_name_in_the_store(self, backend: Backend) -> None:
        backend.worker().get_or_create_session("user-of-that-name")

        if backend.server is None:
            names = [str(name) for name in backend.memory._entries]
        else:
            names = backend.server.all_keys()
        assert names
        assert "user-of-that-name" not in str(names)


class TestTimeLeft:
    @pytest.mark.parametrize(
        ("expires_after", "min_remaining", "lasts"),
        [
            (None, None, 539),
            (600, None, 539),
            (300, None, 239),
            (100, None, 79),
            (10, None, 7),
            (None, 100, 499),
            (None, timedelta(minutes=2), 479),
            (None, 0.5, 598.5),
            (None, 0, 599),
            (100, 90, 9),
        ],
    )
    def test_decides_between_the_old_session_and_a_new_one(
        self,
        backend: Backend,
        expires_after: int | None,
        min_remaining: float | timedelta | None,
        lasts: float,
    ) -> None:
        worker = backend.worker()

        def ask() -> ChatKitSessionResponse:
            return worker.get_or_create_session(
                "user_1", expires_after=expires_after, min_remaining=min_remaining
            )

        # In Redis real time passes, too.
        margin = 0.25 if backend.server is None else min(5.0, lasts / 2)
        first = ask()
        backend.advance(lasts - margin)
        assert ask() == first
        backend.advance(2 * margin)
        assert ask().id != first.id
        assert backend.creates == 2

    @pytest.mark.parametrize(
        ("expires_after", "min_remaining"),
        [
            (None, 600),
            (None, 600.5),
            (300, 300),
            (1, 1),
            (None, -1),
            (None, -0.001),
            (None, float("nan")),
            (None, float("inf")),
            (None, True),
            (None, "60"),
            (None, timedelta(minutes=10)),
            (None, timedelta(seconds=-1)),
        ],
    )
    def test_that_no_session_can_have_is_refused(
        self, backend: Backend, expires_after: int | None, min_remaining: float
    ) -> None:
        with pytest.raises(InvalidRequestError, match="`min_remaining` must be seconds"):
            backend.worker().get_or_create_session(
                "user_1", expires_after=expires_after, min_remaining=min_remaining
            )

        assert backend.calls() == []

    @pytest.mark.parametrize("hours", [-5, 5])
    def test_does_not_depend_on_this_machine_s_clock(self, backend: Backend, hours: int) -> None:
        backend.connect.time.now += timedelta(hours=hours)
        worker = backend.worker()

        first = worker.get_or_create_session("user_1")
        backend.advance(530)
        assert worker.get_or_create_session("user_1") == first
        backend.advance(20)
        assert worker.get_or_create_session("user_1").id != first.id

    def test_counts_from_when_the_request_was_sent(self, backend: Backend) -> None:
        """An answer that took long says nothing about how old it is."""
        worker = backend.worker()
        backend.api.before = lambda _: backend.advance(20)
        first = worker.get_or_create_session("user_1")
        backend.api.before = lambda _: None

        backend.advance(510)
        assert worker.get_or_create_session("user_1") == first
        backend.advance(15)
        assert worker.get_or_create_session("user_1").id != first.id

    def test_that_is_short_from_the_beginning_is_better_than_nothing(
        self, backend: Backend
    ) -> None:
        """A server may give less than was asked for."""
        answer = ok(user="user_1", expires_at=int(backend.fake.clock.now().timestamp()) + 30)
        answer.headers["date"] = "Sun, 22 Nov 2026 12:00:00 GMT"
        script = Script([answer])
        chatkit = backend.connect(script, store=backend.store())

        assert chatkit.get_or_create_session("user_1").id == "cksess_new"
        assert chatkit.get_or_create_session("user_1").id == "cksess_new"
        assert len(script.requests) == 2
        chatkit.get_or_create_session("user_1", min_remaining=20)
        assert len(script.requests) == 2

    def test_that_has_run_out_on_arrival_is_not_kept(self, backend: Backend) -> None:
        answer = ok(user="user_1", expires_at=int(backend.fake.clock.now().timestamp()))
        answer.headers["date"] = "Sun, 22 Nov 2026 12:00:00 GMT"
        script = Script([answer])
        chatkit = backend.connect(script, store=backend.store())

        for number in range(1, 3):
            assert chatkit.get_or_create_session("user_1", min_remaining=0).id == "cksess_new"
            assert len(script.requests) == number

    def test_without_the_api_s_clock_is_what_was_asked_for(self, backend: Backend) -> None:
        script = Script([httpx.Response(200, json=session_json(user="user_1"))])
        chatkit = backend.connect(script, store=backend.store())
        chatkit.get_or_create_session("user_1", expires_after=100)

        backend.advance(75)
        chatkit.get_or_create_session("user_1", expires_after=100)
        assert len(script.requests) == 1
        backend.advance(10)
        chatkit.get_or_create_session("user_1", expires_after=100)
        assert len(script.requests) == 2


class TestSecrets:
    def test_are_stored_by_no_other_method(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.create_session("user_1")
        session = worker.refresh_session(session.client_secret, user="user_1")

        assert session.client_secret.get_secret_value() not in backend.stored()
        assert worker.get_or_create_session("user_1").id != session.id

    def test_are_gone_when_the_session_expires(self, backend: Backend) -> None:
        session = backend.worker().get_or_create_session("user_1")
        secret = session.client_secret.get_secret_value()
        assert secret in backend.stored()

        backend.advance(601)

        assert secret not in backend.stored()
        assert backend.worker().get_session(session.id).status == "expired"

    def test_nothing_is_left_after_a_day(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")
        worker.refresh_session(session.client_secret, user="user_1")
        worker.delete_sessions("user_1")

        backend.advance(600 + 24 * 3600)

        assert backend.stored() == "{}"
        assert backend.server is None or backend.server.all_keys() == []


class TestManyAtOnce:
    def test_make_one_create(self, backend: Backend) -> None:
        worker = backend.worker()
        backend.answer_when_waiting(worker, 9)

        told = backend.at_once(*[lambda: inner(worker).get_or_create_session("user_1")] * 10)

        assert backend.creates == 1
        assert all(isinstance(each, ChatKitSessionResponse) for each in told)
        assert all(each == told[0] for each in told)

    def test_get_that_answer_even_if_it_has_less_left_than_they_ask_for(
        self, backend: Backend
    ) -> None:
        worker = backend.worker()
        backend.answer_when_waiting(worker, 1)

        told = backend.at_once(
            *[lambda: inner(worker).get_or_create_session("user_1", min_remaining=599.999)] * 2
        )

        assert told[0] == told[1]
        assert backend.creates == 1

    def test_fail_together_each_with_an_error_of_its_own(self, backend: Backend) -> None:
        worker = backend.worker()
        backend.fake.fail_next(status_code=500, times=1)
        backend.answer_when_waiting(worker, 4)

        told = backend.at_once(*[lambda: inner(worker).get_or_create_session("user_1")] * 5)

        assert backend.creates == 1
        assert [type(each) for each in told] == [InternalServerError] * 5
        assert len({id(each) for each in told}) == 5
        assert len({str(each) for each in told}) == 1
        assert worker.get_or_create_session("user_1").status == "active"

    def test_do_not_wait_for_another_user_s_session(self, backend: Backend) -> None:
        worker = backend.worker()
        other: list[object] = []

        def ask_for_another(_: httpx.Request) -> object:
            backend.api.before = lambda _: None
            if backend.kind == "sync":
                other.append(worker.get_or_create_session("user_2"))
                return None

            async def ask() -> None:
                client = cast("AsyncChatKitClient", inner(worker))
                other.append(await client.get_or_create_session("user_2"))

            return ask()

        backend.api.before = ask_for_another

        session = worker.get_or_create_session("user_1")

        (another,) = other
        assert isinstance(another, ChatKitSessionResponse)
        assert (session.user, another.user) == ("user_1", "user_2")

    def test_do_without_a_leader_whose_time_is_up(self, backend: Backend) -> None:
        worker = backend.worker()
        backend.answer_when_waiting(worker, 1)
        wait = backend.api.before

        def wait_too_long(request: httpx.Request) -> object:
            happens = wait(request)
            if backend.kind == "sync":
                backend.connect.time.advance(5)
                raise httpx.ReadTimeout("too slow", request=request)

            async def hang() -> None:
                await cast("asyncio.Future[None]", happens)
                await asyncio.sleep(60)

            return hang()

        backend.api.before = wait_too_long
        waiter_goes_on = [
            lambda: inner(worker).get_or_create_session("user_1", timeout=0.2),
            lambda: inner(worker).get_or_create_session("user_1"),
        ]

        impatient, patient = backend.at_once(*waiter_goes_on)

        assert isinstance(impatient, APITimeoutError)
        assert isinstance(patient, ChatKitSessionResponse)

    def test_do_without_a_leader_whose_client_is_closed(self, backend: Backend) -> None:
        worker = backend.worker()
        clone = worker.with_options(timeout=29)
        backend.answer_when_waiting(clone, 1)
        wait = backend.api.before

        def close(request: httpx.Request) -> object:
            happens = wait(request)
            if backend.kind == "sync":
                clone.close()
                raise httpx.ConnectError("closed", request=request)

            async def close_it() -> None:
                await cast("asyncio.Future[None]", happens)
                await cast("AsyncChatKitClient", inner(clone)).aclose()
                await asyncio.sleep(60)

            return close_it()

        backend.api.before = close

        closed, going_on = backend.at_once(
            lambda: inner(clone).get_or_create_session("user_1"),
            lambda: inner(worker).get_or_create_session("user_1"),
        )

        assert isinstance(closed, APIConnectionError)
        assert isinstance(going_on, ChatKitSessionResponse)

    def test_do_without_a_leader_that_fails_in_its_own_way(self, backend: Backend) -> None:
        """A key function that breaks is the caller's own trouble, not the API's response."""
        keys = iter([backend.fake.api_key, None, backend.fake.api_key])

        def key() -> str:
            found = next(keys)
            if found is None:
                raise ZeroDivisionError
            return found

        worker = backend.worker(api_key=key, max_retries=1)
        backend.answer_when_waiting(worker, 1)
        wait = backend.api.before

        def break_down(request: httpx.Request) -> object:
            happens = wait(request)
            if backend.kind == "sync":
                raise httpx.ConnectError("so the key is asked for again", request=request)

            async def fail() -> None:
                await cast("asyncio.Future[None]", happens)
                raise httpx.ConnectError("so the key is asked for again", request=request)

            return fail()

        backend.api.before = break_down

        told = backend.at_once(*[lambda: inner(worker).get_or_create_session("user_1")] * 2)

        assert sorted(type(each).__name__ for each in told) == [
            "ChatKitSessionResponse",
            "ZeroDivisionError",
        ]

    def test_wait_no_longer_than_their_own_time(self, backend: Backend) -> None:
        worker = backend.worker()
        backend.answer_when_waiting(worker, 2)

        def ask(timeout: float) -> object:
            return inner(worker).get_or_create_session("user_1", timeout=timeout)

        wait = backend.api.before
        impatient = threading.Event()

        def answer_late(request: httpx.Request) -> object:
            happens = wait(request)
            if backend.kind == "sync":
                assert impatient.wait(60)
                return None

            async def answer() -> None:
                await cast("asyncio.Future[None]", happens)
                await asyncio.wait([backend.tasks[1]])

            return answer()

        def be_impatient() -> object:
            if backend.kind == "async":
                return ask(0.05)
            try:
                return ask(0.05)
            finally:
                impatient.set()

        backend.api.before = answer_late

        told = backend.at_once(lambda: ask(30), be_impatient, lambda: ask(30))

        assert isinstance(told[1], APITimeoutError)
        assert isinstance(told[0], ChatKitSessionResponse)
        assert told[0] == told[2]
        assert backend.creates == 1


class TestOtherWorkers:
    def test_that_died_while_creating_are_waited_for_a_bounded_time(self, backend: Backend) -> None:
        backend.begin_to_create(backend.worker())
        begun = backend.connect.time.monotonic

        session = backend.worker().get_or_create_session("user_1")

        assert session.status == "active"
        waited = backend.connect.time.monotonic - begun
        assert waited < LEASE + 0.5
        assert waited >= LEASE or backend.server is not None  # where real time passes, too

    def test_that_died_are_waited_for_no_longer_than_the_call_has_time(
        self, backend: Backend
    ) -> None:
        backend.begin_to_create(backend.worker())
        begun = backend.connect.time.monotonic

        with pytest.raises(APITimeoutError):
            backend.worker().get_or_create_session("user_1", timeout=2)

        assert backend.connect.time.monotonic - begun == pytest.approx(2.0)
        assert backend.calls() == []

    def test_that_died_may_be_waited_for_without_a_limit(self, backend: Backend) -> None:
        backend.begin_to_create(backend.worker())

        assert backend.worker().get_or_create_session("user_1", timeout=None).status == "active"

    def test_that_create_at_the_moment_are_waited_for(self, backend: Backend) -> None:
        first, second = backend.worker(), backend.worker()
        if backend.kind == "sync":
            begun, go_on = threading.Event(), threading.Event()

            def hold(_: httpx.Request) -> None:
                begun.set()
                assert go_on.wait(60)

            backend.api.before = hold
            told: list[object] = []
            leader = threading.Thread(
                target=lambda: told.append(first.get_or_create_session("user_1"))
            )
            leader.start()
            assert begun.wait(60)

            def sleep(_: float) -> None:
                go_on.set()
                leader.join()

            second._sessions.io.runtime = second._sessions.io.runtime._replace(sleep=sleep)
            told.append(second.get_or_create_session("user_1"))
        else:

            async def main() -> list[object]:
                begun, go_on = asyncio.Event(), asyncio.Event()

                async def hold() -> None:
                    begun.set()
                    await go_on.wait()

                backend.api.before = lambda _: hold()
                one = cast("AsyncChatKitClient", inner(first))
                two = cast("AsyncChatKitClient", inner(second))
                leader = asyncio.ensure_future(one.get_or_create_session("user_1"))
                await begun.wait()

                async def sleep(_: float) -> None:
                    go_on.set()
                    await leader

                two._sessions.io.runtime = two._sessions.io.runtime._replace(sleep=sleep)
                return [await two.get_or_create_session("user_1"), await leader]

            told = backend.run(main)

        assert told[0] == told[1]
        assert backend.creates == 1

    def test_that_failed_are_followed_by_others_in_turn(self, backend: Backend) -> None:
        first, second = backend.worker(), backend.worker()
        backend.fake.fail_next(status_code=401, times=1)

        with pytest.raises(AuthenticationError):
            first.get_or_create_session("user_1")
        begun = backend.connect.time.monotonic

        assert second.get_or_create_session("user_1").status == "active"
        assert backend.connect.time.monotonic == begun


class TestCancelling:
    @pytest.mark.parametrize("kind", ["async"])
    def test_who_leads_cancels_nobody_who_waits(self, backend: Backend) -> None:
        worker = backend.worker()
        backend.answer_when_waiting(worker, 3)
        wait = backend.api.before

        def cancel(request: httpx.Request) -> object:
            async def cancel_the_leader() -> None:
                await cast("asyncio.Future[None]", wait(request))
                backend.tasks[0].cancel()
                await asyncio.sleep(60)

            return cancel_the_leader()

        backend.api.before = cancel

        leader, *waiters = backend.at_once(
            *[lambda: inner(worker).get_or_create_session("user_1")] * 4
        )

        assert isinstance(leader, asyncio.CancelledError)
        assert all(isinstance(each, ChatKitSessionResponse) for each in waiters)
        assert len({str(each) for each in waiters}) == 1
        assert backend.creates == 1  # the one that was cancelled never reached the API


class TestRecordsThatCannotBeUsed:
    @pytest.mark.parametrize("value", [b"", b"nonsense", b"{}", b"\xff", b"null"])
    def test_are_misses(self, backend: Backend, value: bytes) -> None:
        worker = backend.worker()
        first = worker.get_or_create_session("user_1")
        backend.overwrite("secret:", value)

        second = worker.get_or_create_session("user_1")

        assert second.id != first.id
        assert backend.worker().get_or_create_session("user_1") == second

    def test_do_not_keep_anything_from_being_deleted(self, backend: Backend) -> None:
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")
        backend.overwrite("secret:", b"nonsense")

        worker.delete_session(session.id)

        assert worker.get_session(session.id).status == "cancelled"


class TestTenants:
    def test_another_key_needs_to_say_where_its_sessions_belong(self, backend: Backend) -> None:
        worker = backend.worker()

        with pytest.raises(ConfigurationError, match="pass `store`"):
            worker.with_options(api_key="sk-of-another-tenant")

        worker.with_options(api_key="sk-of-another-tenant", store=backend.store())
        worker.with_options(api_key=backend.fake.api_key)

    def test_with_namespaces_of_their_own_share_nothing(self, backend: Backend) -> None:
        worker = backend.worker()
        tenant = worker.with_options(
            api_key=backend.fake.api_key, store=backend.store("another shop")
        )

        assert (
            tenant.get_or_create_session("user_1").id != worker.get_or_create_session("user_1").id
        )
        assert len(worker.sessions_for("user_1")) == 1

    def test_a_store_given_again_is_the_same(self, backend: Backend) -> None:
        store = backend.store()
        worker = backend.worker(store=store)

        again = worker.with_options(store=store, timeout=3)

        assert inner(again)._sessions.registry is inner(worker)._sessions.registry


class TestWithoutAStoreGiven:
    def test_sessions_are_shared_within_the_client(self, connect: Connect) -> None:
        script = Script([ok()])
        chatkit = connect(script)

        first = chatkit.get_or_create_session("user_123")

        assert chatkit.with_options(timeout=3).get_or_create_session("user_123") == first
        assert len(script.requests) == 1
        assert connect(script).get_or_create_session("user_123") == first
        assert len(script.requests) == 2

    def test_sessions_are_not_shared_with_another_key(self, connect: Connect) -> None:
        script = Script([ok()])
        chatkit = connect(script)
        chatkit.get_or_create_session("user_123")

        chatkit.with_options(api_key="sk-other").get_or_create_session("user_123")
        chatkit.with_options(api_key=KEY).get_or_create_session("user_123")

        assert len(script.requests) == 2

    def test_the_clock_of_a_test_moves_their_end(self, connect: Connect) -> None:
        script = Script([ok()])
        chatkit = connect(script)
        chatkit.get_or_create_session("user_123")

        connect.time.advance(539)
        chatkit.get_or_create_session("user_123")
        assert len(script.requests) == 1
        connect.time.advance(2)
        chatkit.get_or_create_session("user_123")
        assert len(script.requests) == 2

    def test_both_clients_can_share_one_in_memory(self, connect: Connect) -> None:
        store = MemorySessionStore(clock=lambda: connect.time.monotonic)
        script = Script([ok()])
        first = connect(script, store=store).get_or_create_session("user_123")

        with ChatKitClient(
            api_key=KEY,
            workflow_id="wf_test",
            base_url="https://chatkit.test/v1",
            store=store,
            http_client=httpx.Client(transport=httpx.MockTransport(script)),
        ) as other:
            assert other.get_or_create_session("user_123") == first
        assert len(script.requests) == 1


class TestUnderTrio:
    def client(self, fake: FakeChatKit, api: Api) -> AsyncChatKitClient:
        return AsyncChatKitClient(
            api_key=fake.api_key,
            workflow_id=fake.workflow_id,
            base_url="https://chatkit.test/v1",
            http_client=httpx.AsyncClient(transport=api),
        )

    def test_many_at_once_make_one_create(self, fake: FakeChatKit) -> None:
        api = Api(fake)
        told: list[ChatKitSessionResponse] = []

        async def main() -> None:
            chatkit = self.client(fake, api)
            begun, go_on = trio.Event(), trio.Event()

            async def hold() -> None:
                begun.set()
                await go_on.wait()

            api.before_async = hold

            async def ask() -> None:
                told.append(await chatkit.get_or_create_session("user_1"))

            async with chatkit, trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await begun.wait()
                for _ in range(9):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()

        trio.run(main)

        assert len(told) == 10
        assert all(each == told[0] for each in told)
        fake.assert_created(times=1)

    def test_who_leads_and_is_cancelled_cancels_nobody_who_waits(self, fake: FakeChatKit) -> None:
        api = Api(fake)
        told: list[ChatKitSessionResponse] = []

        async def main() -> None:
            chatkit = self.client(fake, api)
            begun = trio.Event()

            async def hang() -> None:
                begun.set()
                await trio.sleep_forever()

            api.before_async = hang

            async def lead(scope: trio.CancelScope) -> None:
                with scope:
                    await chatkit.get_or_create_session("user_1")

            async def ask() -> None:
                told.append(await chatkit.get_or_create_session("user_1"))

            async with chatkit, trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(lead, scope)
                await begun.wait()
                for _ in range(3):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                api.before_async = None
                scope.cancel()

        trio.run(main)

        assert len(told) == 3
        assert len({each.id for each in told}) == 1
