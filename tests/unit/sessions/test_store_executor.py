"""How long an operation of a store may take, and what counts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import trio

from chatkit_sessions import SessionStoreError
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.tasks import RunningLimit, TaskLimiter
from chatkit_sessions._concurrency.threads import NotStartedError, OverdueError, run_blocking
from chatkit_sessions._sessions.store_access import (
    Attempt,
    StoreAccess,
    StoreBusyError,
    StoreExecutor,
    StoreState,
    state_of,
)
from chatkit_sessions.stores import Entry, MemorySessionStore
from stored_sessions import created
from workers import AsyncFailingStore, FailingStore

NO_TIME = 0.01
AT_NOON = 100.0


def clock() -> float:
    return AT_NOON


async def hang() -> object:
    await asyncio.sleep(60)
    return "never"


async def run(
    executor: StoreExecutor, operation: Callable[[], Awaitable[object]], deadline: Deadline
) -> object:
    attempt = Attempt(StoreState(MemorySessionStore()), 0, None, writes=False)
    result: object = await executor.run(operation, deadline, attempt)
    return result


@dataclass
class Unhashable:
    """A user's own store, which cannot be a key of a dictionary."""

    namespace: str = "shop"
    entries: list[Entry | None] = field(default_factory=list[Entry | None])

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        del group, names
        return self.entries

    def names(self, group: str) -> list[str]:
        return [group]

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return bool(group and changes and when)


class TestStoreExecutor:
    def test_a_call_without_time_left_does_not_ask(self) -> None:
        executor = StoreExecutor(AsyncFailingStore(FailingStore(MemorySessionStore())))

        async def main() -> None:
            with pytest.raises(StoreBusyError, match="no time left"):
                await run(executor, hang, Deadline(clock, AT_NOON))

        asyncio.run(main())

    def test_an_operation_has_half_of_what_the_call_has_left(self) -> None:
        executor = StoreExecutor(AsyncFailingStore(FailingStore(MemorySessionStore())))

        async def main() -> None:
            with pytest.raises(SessionStoreError, match=r"within 0\.02 s"):
                await run(executor, hang, Deadline(clock, AT_NOON + 0.04))

        asyncio.run(main())

    def test_a_turn_that_does_not_come_is_no_fault_of_the_store(self) -> None:
        executor = StoreExecutor(AsyncFailingStore(FailingStore(MemorySessionStore())))

        async def fail() -> object:
            raise NotStartedError

        async def main() -> None:
            with pytest.raises(StoreBusyError):
                await run(executor, fail, Deadline(clock, None))

        asyncio.run(main())


class TestTurns:
    def test_no_more_functions_run_at_once_than_there_may(self) -> None:
        running = most = 0

        async def run() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        async def main() -> None:
            turns = TaskLimiter(3)
            await asyncio.gather(*[turns.run(run, queue_timeout=None, limit=60) for _ in range(20)])

        asyncio.run(main())

        assert most == 3

    def test_waiting_for_a_turn_has_its_own_limit(self) -> None:
        async def main() -> None:
            turns, go_on = TaskLimiter(1), asyncio.Event()
            holder = asyncio.create_task(turns.run(go_on.wait, queue_timeout=None, limit=60))
            await asyncio.sleep(0)
            with pytest.raises(NotStartedError):
                await turns.run(go_on.wait, queue_timeout=NO_TIME, limit=60)
            go_on.set()
            assert await holder

        asyncio.run(main())

    def test_under_trio_a_function_has_its_limit_too(self) -> None:
        async def main() -> None:
            with pytest.raises(OverdueError):
                await TaskLimiter(1).run(trio.sleep_forever, queue_timeout=None, limit=NO_TIME)

        trio.run(main)

    def test_a_loop_that_is_blocked_has_not_waited(self) -> None:
        """However late the loop comes to look, one part of the limit is over."""

        async def main() -> None:
            limit = RunningLimit(60)
            async with limit:
                left = limit._left
                limit._timer.cancel()
                limit._count()
                assert limit._left == left - 1

        asyncio.run(main())


class TestStoreState:
    def test_is_one_for_all_clients_of_a_store(self) -> None:
        store = MemorySessionStore()

        assert state_of(store) is state_of(store)
        assert state_of(store) is not state_of(MemorySessionStore())

    def test_is_the_client_s_own_where_a_store_cannot_be_a_key(self) -> None:
        store = Unhashable()

        assert state_of(store) is not state_of(store)

    def test_keeps_so_many_sessions_and_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chatkit_sessions._sessions.store_access.MAX_UNPUBLISHED", 2)
        state = StoreState(MemorySessionStore())
        sessions = [
            created()._replace(session=created().session.model_copy(update={"id": f"cksess_{n}"}))
            for n in range(3)
        ]

        for each in sessions:
            state.defer_publication(each, None)  # type: ignore[arg-type]  # what it kept with does not matter

        assert [*state.unpublished] == ["cksess_1", "cksess_2"]
        group, works_until = sessions[0].identity.group, sessions[0].works_until
        assert state.evictions.seconds_left(group, works_until - 5) == 5

    def test_counts_a_session_that_another_call_publishes_as_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Published(dict[object, object]):
            def pop(self, *_: object) -> None:
                return None

        monkeypatch.setattr("chatkit_sessions._sessions.store_access.MAX_UNPUBLISHED", 0)
        state = StoreState(MemorySessionStore())
        vars(state)["unpublished"] = Published()

        state.defer_publication(created(), None)  # type: ignore[arg-type]  # as above

        assert state.evictions.seconds_left(created().identity.group, 0.0) == 0

    def test_says_that_a_sign_out_may_miss_what_has_made_room(self) -> None:
        access = StoreAccess(MemorySessionStore())
        access.state.evictions.add("group", 10.0)

        def has_evicted(group: str, now: float) -> bool:
            deadline = Deadline(lambda: 0.0, None)
            return run_blocking(access.has_evicted, group, deadline, now=now)

        assert has_evicted("group", 9.0)
        assert not has_evicted("group", 11.0)
