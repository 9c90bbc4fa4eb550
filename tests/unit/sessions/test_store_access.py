"""Who asks a store during an outage, and who waits for the answer: in threads and in tasks."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from chatkit_sessions import SessionStoreError
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._sessions.store_access import ScriptCall, StoreAccess
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.stores._redis_commands import Script
from chatkit_sessions.stores.base import Transaction
from workers import as_flow

NO_LIMIT = Deadline(time.monotonic, None)
AT_ONCE = 20


class Gate:
    """A store that holds its readers until a test opens it, and then serves or fails them."""

    timeout = 60.0
    namespace = "shop"

    def __init__(self) -> None:
        self.asked: int = 0
        self.is_out = True
        self.held: Callable[[], object] = lambda: None

    def _serve(self, names: Sequence[str]) -> list[Entry | None]:
        if self.is_out:
            raise SessionStoreError("The store is out.")
        return [None for _ in names]


class SyncGate(Gate):
    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        del group
        self.asked += 1
        self.held()
        return self._serve(names)

    def names(self, group: str) -> list[str]:
        return [group]

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return bool(group and changes and when)


class AsyncGate(Gate):
    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        del group
        self.asked += 1
        held = self.held()
        if isinstance(held, Awaitable):
            await held
        return self._serve(names)

    async def names(self, group: str) -> list[str]:
        return [group]

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return bool(group and changes and when)


async def read(access: StoreAccess) -> str:
    """What one caller gets."""
    try:
        await access.get("group", ["name"], NO_LIMIT)
    except SessionStoreError as error:
        return error.message
    return "served"


def run(flow: Coroutine[object, None, str]) -> str:
    return run_blocking(as_flow, flow)


OUT = "The store is out."
WAITED = "The session store stopped responding while the call waited to use it."


class TestThreads:
    def crowd(self, gate: SyncGate, access: StoreAccess) -> tuple[list[str], int]:
        """Many callers during one probe, which ends when all of them are there."""
        probing, let_go = threading.Event(), threading.Event()
        arrived = threading.Semaphore(0)

        def hold() -> None:
            if not probing.is_set():
                probing.set()
                assert let_go.wait(60)

        gate.held, before = hold, gate.asked

        def call() -> str:
            arrived.release()
            return run(read(access))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            first = pool.submit(call)
            assert probing.wait(60)
            others = [pool.submit(call) for _ in range(AT_ONCE - 1)]
            for _ in range(AT_ONCE):
                assert arrived.acquire(timeout=60)
            while access.state.probe_executor._threads.get()._jobs.qsize() < AT_ONCE - 1:
                pass
            let_go.set()
            return [first.result(60), *(each.result(60) for each in others)], gate.asked - before

    def test_one_probe_at_a_time_answers_for_all_who_waited_before_it_began(self) -> None:
        gate = SyncGate()
        access = StoreAccess(gate)
        assert run(read(access)) == OUT
        assert access.state.circuit_breaker.is_open

        outcomes, asked = self.crowd(gate, access)

        assert asked == 2, "one that was under way when the others came, and one for all of them"
        assert sorted(outcomes) == sorted([OUT] * 2 + [WAITED] * (AT_ONCE - 2))

    def test_the_first_success_serves_all_who_wait(self) -> None:
        gate = SyncGate()
        access = StoreAccess(gate)
        run(read(access))
        gate.is_out = False

        outcomes, asked = self.crowd(gate, access)

        assert outcomes == ["served"] * AT_ONCE
        assert asked == AT_ONCE
        assert not access.state.circuit_breaker.is_open


class TestTasks:
    async def crowd(self, gate: AsyncGate, access: StoreAccess) -> tuple[list[str], int]:
        probing, let_go = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            if not probing.is_set():
                probing.set()
                await let_go.wait()

        gate.held, before = hold, gate.asked
        first = asyncio.create_task(read(access))
        await probing.wait()
        others = [asyncio.create_task(read(access)) for _ in range(AT_ONCE - 1)]
        await asyncio.sleep(0)
        let_go.set()
        return await asyncio.gather(first, *others), gate.asked - before

    @pytest.mark.parametrize("is_back", [False, True])
    def test_they_wait_for_a_probe_as_threads_do(self, *, is_back: bool) -> None:
        async def main() -> tuple[list[str], int]:
            gate = AsyncGate()
            access = StoreAccess(gate)
            assert await read(access) == OUT
            gate.is_out = not is_back
            return await self.crowd(gate, access)

        outcomes, asked = asyncio.run(main())

        if is_back:
            assert (outcomes, asked) == (["served"] * AT_ONCE, AT_ONCE)
        else:
            assert (sorted(outcomes), asked) == (sorted([OUT] * 2 + [WAITED] * (AT_ONCE - 2)), 2)


def test_who_waits_for_a_turn_when_an_outage_begins_becomes_a_probe_of_it() -> None:
    """What failed had begun before this caller came."""

    async def main() -> None:
        gate = AsyncGate()
        access = StoreAccess(gate)
        holding, let_go = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            holding.set()
            await let_go.wait()

        gate.held = hold
        holders = [asyncio.create_task(read(access)) for _ in range(32)]
        await holding.wait()
        waiting = asyncio.create_task(read(access))
        await asyncio.sleep(0)
        breaker = access.state.circuit_breaker
        for number in (breaker.latest - 1, breaker.latest):
            breaker._counted_until = 0
            breaker.record_failure(SessionStoreError("out"), number)
        gate.is_out = False
        let_go.set()

        assert await waiting == "served"
        await asyncio.gather(*holders)
        assert not breaker.is_open

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_store_that_fails_once_is_asked_again(timeout: float | None) -> None:
    class FailsOnce(SyncGate):
        def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
            self.is_out = self.asked == 0
            return super().get(group, names)

    gate = FailsOnce()
    vars(gate)["timeout"] = timeout

    assert run(read(StoreAccess(gate))) == "served"
    assert gate.asked == 2


def test_an_async_store_without_a_limit_gets_one() -> None:
    gate = AsyncGate()
    vars(gate)["timeout"] = None

    assert StoreAccess(gate).state.executor.timeout == 1.0
    assert StoreAccess(MemorySessionStore()).state.executor.timeout is None


class Quick(MemorySessionStore):
    """It has all that saves round trips."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def get_with_time(self, group: str, names: Sequence[str]) -> tuple[list[Entry | None], float]:
        self.calls.append("get_with_time")
        return self.get(group, names), 1.0

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        self.calls.append("get_many")
        return [self.get(group, [name])[0] for group, name in entries]

    def commit_or_get(self, *_: object, **__: object) -> None:
        self.calls.append("commit_or_get")

    def run_script(self, *_: object) -> list[bytes | int | None]:
        self.calls.append("run_script")
        return []


class OverridesGet(Quick):
    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return super().get(group, names)


class OverridesCommit(Quick):
    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return super().commit(group, changes, when=when)


class OverridesAll(OverridesGet, OverridesCommit):
    get_with_time = Quick.get_with_time
    get_many = Quick.get_many
    commit_or_get = Quick.commit_or_get
    run_script = Quick.run_script


class Delegating:
    """It has no method of its own."""

    def __init__(self) -> None:
        self._store = Quick()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


ALL = ["get_with_time", "get_many", "commit_or_get", "run_script"]


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        (Quick, ALL),
        (OverridesGet, []),
        (OverridesCommit, ["get_with_time", "get_many", "get_with_time"]),
        (OverridesAll, ALL),
        (cast("type[Quick]", Delegating), ALL),
    ],
)
def test_no_method_of_a_store_bypasses_what_a_subclass_overrides(
    kind: type[Quick], used: list[str]
) -> None:
    """Such as to encrypt what is stored: a secret would be stored in plain text."""
    store = kind()
    access = StoreAccess(store)
    refused = Transaction("group", {}, {"name": b"other"})
    script = ScriptCall(Script.of("return {}"), "group", [], [])

    async def use() -> str:
        await access.get_with_time("group", ["name"], NO_LIMIT)
        await access.get_many([("group", "name")], NO_LIMIT)
        await access.commit_or_get(refused, ["name"], NO_LIMIT)
        await access.run_script(script, NO_LIMIT)
        return ""

    run(use())

    assert store.calls == used


class TestAStoreThatLimitsItself:
    """As one from a URL, whose connections have timeouts: a switch of threads costs more."""

    def thread_of_an_operation(self, access: StoreAccess, gate: SyncGate) -> threading.Thread:
        found: list[threading.Thread] = []
        gate.held = lambda: found.append(threading.current_thread())
        run(read(access))
        return found[-1]

    @pytest.mark.parametrize("limits_itself", [False, True])
    def test_runs_in_the_caller_s_thread(self, *, limits_itself: bool) -> None:
        gate = SyncGate()
        vars(gate)["limits_itself"] = limits_itself
        gate.is_out = False
        access = StoreAccess(gate)

        def is_own() -> bool:
            return self.thread_of_an_operation(access, gate) is threading.current_thread()

        assert is_own() is limits_itself, "the main thread"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(is_own).result(60) is limits_itself
