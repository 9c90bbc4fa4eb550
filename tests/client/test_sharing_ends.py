"""Callers who wait for one another, when a client closes, loops differ or a task is cancelled."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import cast

import httpx
import pytest
import trio

from chatkit_sessions import AsyncChatKitClient, ChatKitSessionResponse
from chatkit_sessions._concurrency.single_flight import Flight
from chatkit_sessions._concurrency.threads import ThreadEvent
from chatkit_sessions.options import SessionOptions
from chatkit_sessions.stores import Entry, MemorySessionStore
from support import BASE_URL, KEY, WORKFLOW, session_json
from workers import Backend, inner

PATIENCE = 60


@pytest.mark.parametrize("kind", ["sync"])
class TestAClientThatIsClosed:
    def test_while_it_waits_for_another_process_creates_nothing(self, backend: Backend) -> None:
        worker = inner(backend.worker())
        backend.begin_to_create(backend.worker())
        closed: list[float] = []

        def sleep(seconds: float) -> None:
            assert not closed, "it went on"
            closed.append(seconds)
            worker.close()

        worker._sessions.io.runtime = worker._sessions.io.runtime._replace(sleep=sleep)

        with pytest.raises(RuntimeError, match="closed"):
            worker.get_or_create_session("user_1")

        assert backend.creates == 0

    def test_while_it_waits_for_another_caller_who_gives_up_creates_nothing(
        self, backend: Backend
    ) -> None:
        worker = inner(backend.worker())
        single_flight = worker._sessions.registry.single_flight
        key = None, worker._sessions.request("user_1", SessionOptions()).identity.slot, None

        class Closing(ThreadEvent):
            def wait(self, timeout: float | None = None) -> bool:
                worker.close()
                single_flight.end(key, other)
                return super().wait(timeout)

        other = Flight[ChatKitSessionResponse](Closing)
        single_flight.join(key, other)
        vars(worker._sessions.registry)["acquire_lease"] = never  # the store may be closed, too

        with pytest.raises(RuntimeError, match="closed"):
            worker.get_or_create_session("user_1")

        assert backend.creates == 0


async def never(*_: object) -> bool:
    raise AssertionError


class Transport(httpx.AsyncBaseTransport):
    """Responds when it is let; says that it has been asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.goes_on = threading.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        await asyncio.to_thread(self.goes_on.wait, PATIENCE)
        return httpx.Response(200, json=session_json(), request=request)


def client_over(transport: httpx.AsyncBaseTransport, store: object) -> AsyncChatKitClient:
    return AsyncChatKitClient(
        api_key=KEY,
        workflow_id=WORKFLOW,
        base_url=BASE_URL,
        store=cast("MemorySessionStore", store),
        http_client=httpx.AsyncClient(transport=transport),
    )


def test_two_event_loops_do_not_wait_in_each_other() -> None:
    """An event of one loop never wakes a task of another: they share by the store alone."""
    transport = Transport()
    chatkit = client_over(transport, MemorySessionStore(namespace="shop"))

    async def sleep(seconds: float) -> None:
        transport.goes_on.set()  # whoever sleeps waits for the lease, and not for the flight
        await asyncio.sleep(seconds)

    chatkit._sessions.io.runtime = chatkit._sessions.io.runtime._replace(sleep=sleep)
    told: list[ChatKitSessionResponse] = []

    def lead() -> None:
        told.append(asyncio.run(chatkit.get_or_create_session("user_123", timeout=PATIENCE)))

    leader = threading.Thread(target=lead)
    leader.start()
    assert transport.asked.wait(PATIENCE)
    try:
        told.append(asyncio.run(chatkit.get_or_create_session("user_123", timeout=5)))
    finally:
        transport.goes_on.set()
        leader.join(PATIENCE)

    assert told[0] == told[1]


class CheckpointStore:
    """A store that lets trio take over before each operation."""

    namespace = "shop"

    def __init__(self) -> None:
        self.memory = MemorySessionStore(namespace="shop")

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        await trio.lowlevel.checkpoint()
        return self.memory.get(group, names)

    async def names(self, group: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        return self.memory.names(group)

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        await trio.lowlevel.checkpoint()
        return self.memory.commit(group, changes, when=when)


class Hanging(httpx.AsyncBaseTransport):
    """Never responds."""

    def __init__(self) -> None:
        self.asked = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        del request
        self.asked.set()
        await trio.sleep_forever()
        raise AssertionError


def test_a_lease_ends_with_a_task_that_trio_cancels() -> None:
    """Else the other processes would wait until it runs out."""
    store = CheckpointStore()

    async def main() -> None:
        transport = Hanging()
        chatkit = client_over(transport, store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chatkit.get_or_create_session, "user_123")
            await transport.asked.wait()
            assert leases() == ["lease"]
            nursery.cancel_scope.cancel()
        assert leases() == []

    def leases() -> list[str]:
        names = [name.partition(":")[0] for _, name in store.memory._entries]
        return [name for name in names if name == "lease"]

    trio.run(main)
