"""Closing a client that has calls under way: nothing is repeated, nothing stays open."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest
import trio

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    AsyncChatKitClient,
    ChatKitClient,
    InternalServerError,
)
from chatkit_sessions._client.sync_client import SyncIO
from chatkit_sessions._concurrency.tasks import time_limit
from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions._http.own_client import OwnClient
from raw_server import Connection, raw_server, serve_sessions
from support import KEY, WORKFLOW, Connect, Script, Time, refused

CLOSED = "closed while the call was under way"


class Stall:
    """A script that answers once it is told to, and notices when the client has gone."""

    def __init__(self, calls: int = 1) -> None:
        self.arrived = threading.Semaphore(0)
        self.go = threading.Event()
        self.gone = threading.Semaphore(0)
        self._calls = calls

    def __call__(self, connection: Connection) -> None:
        connection.receive()
        self.arrived.release()
        assert self.go.wait(30)
        connection.answer()
        connection.wait_for_the_client_to_go()
        self.gone.release()

    def wait_for_the_calls(self) -> None:
        for _ in range(self._calls):
            assert self.arrived.acquire(timeout=30)


def make_async(url: str) -> AsyncChatKitClient:
    return AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url)


# Synchronous: a call ends by itself, at its deadline at the latest


def test_a_call_in_another_thread_gets_its_answer_and_leaves_no_connection_open() -> None:
    stall = Stall()
    with raw_server(stall) as server, ThreadPoolExecutor(1) as thread:
        chatkit = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url)
        call = thread.submit(chatkit.create_session, "user_123")
        stall.wait_for_the_calls()

        chatkit.close()
        stall.go.set()

        assert call.result().id == "cksess_new"
        assert stall.gone.acquire(timeout=30)  # nobody else closes the connection now


def test_a_call_in_another_thread_that_fails_is_not_repeated() -> None:
    arrived, go = threading.Event(), threading.Event()

    def fail(connection: Connection) -> None:
        connection.receive()
        arrived.set()
        assert go.wait(30)
        connection.answer(b"", status="503 Service Unavailable")

    with raw_server(fail) as server, ThreadPoolExecutor(1) as thread:
        chatkit = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url)
        call = thread.submit(chatkit.create_session, "user_123")
        assert arrived.wait(30)

        chatkit.close()
        go.set()

        assert isinstance(call.exception(), InternalServerError)
        assert len(server.requests) == 1


def test_a_client_closed_between_two_attempts_raises_what_the_first_ended_with(
    connect: Connect, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([refused(503)])
    clients: list[ChatKitClient] = []

    def close_meanwhile(_: float) -> None:
        clients[0]._sessions.calls.lifetime.close()

    monkeypatch.setattr(time, "sleep", close_meanwhile)
    chatkit = connect(script)
    clients.append(chatkit)

    with pytest.raises(InternalServerError):
        chatkit.create_session("user_123")

    assert len(script.requests) == 1


def test_connections_made_after_another_thread_has_closed_are_closed_too() -> None:
    """The other thread comes in where nothing but luck prevents it."""
    with raw_server(serve_sessions) as server:
        chatkit = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url)
        io = chatkit._sessions.io
        assert isinstance(io, SyncIO)
        connections = io.http
        assert isinstance(connections, PerProcess)
        make = connections._make

        def close_and_make() -> OwnClient:
            chatkit.close()
            return make()

        connections._make = close_and_make

        with pytest.raises(RuntimeError, match="closed"):
            chatkit.create_session("user_123")

        assert connections.pop() is None
        assert server.connections == 0


# Asynchronous: a call ends at once


async def ended_with(call: Awaitable[object]) -> BaseException:
    with pytest.raises(APIConnectionError) as caught:
        await call
    return caught.value


def test_calls_under_way_end_at_once() -> None:
    stall = Stall(calls=5)

    async def main(url: str) -> None:
        chatkit = make_async(url)
        calls = [asyncio.create_task(chatkit.create_session("user_123")) for _ in range(5)]
        await asyncio.to_thread(stall.wait_for_the_calls)

        await chatkit.aclose()

        for call in calls:
            assert CLOSED in str(await ended_with(call))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with raw_server(stall) as server:
        asyncio.run(main(server.url))
        stall.go.set()

        assert len(server.requests) == 5
        for _ in range(5):
            assert stall.gone.acquire(timeout=30)


def test_calls_under_way_end_at_once_under_trio() -> None:
    stall = Stall()
    ended: list[BaseException] = []

    async def main(url: str) -> None:
        chatkit = make_async(url)

        async def call() -> None:
            ended.append(await ended_with(chatkit.create_session("user_123")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.to_thread.run_sync(stall.wait_for_the_calls)
            await chatkit.aclose()

    with raw_server(stall) as server:
        trio.run(main, server.url)
        stall.go.set()
        assert stall.gone.acquire(timeout=30)

    assert CLOSED in str(ended)


def test_a_call_that_still_connects_ends_at_once() -> None:
    async def main(url: str) -> None:
        chatkit = make_async(url.replace("http:", "https:"))
        call = asyncio.create_task(chatkit.create_session("user_123"))
        await asyncio.to_thread(connected.wait, 30)

        await chatkit.aclose()

        assert CLOSED in str(await ended_with(call))

    connected = threading.Event()

    def never_shake_hands(connection: Connection) -> None:
        connected.set()
        connection.wait_for_the_client_to_go()

    with raw_server(never_shake_hands) as server:
        asyncio.run(main(server.url))


def test_a_call_that_waits_for_its_next_attempt_ends_at_once() -> None:
    async def main(url: str) -> None:
        chatkit = make_async(url)
        sleeping = asyncio.Event()

        async def sleep_for_ever(_: float) -> None:
            sleeping.set()
            await asyncio.Event().wait()

        chatkit._sessions.io.runtime = chatkit._sessions.io.runtime._replace(sleep=sleep_for_ever)
        call = asyncio.create_task(chatkit.create_session("user_123"))
        await sleeping.wait()

        await chatkit.aclose()

        assert CLOSED in str(await ended_with(call))

    with raw_server(lambda connection: connection.reset()) as server:
        asyncio.run(main(server.url))


@pytest.mark.parametrize(
    ("closed", "ends"), [("parent", {"parent", "child"}), ("child", {"child"})]
)
def test_what_ends_is_what_the_closed_client_began(closed: str, ends: set[str]) -> None:
    stall = Stall(calls=2)

    async def main(url: str) -> set[str]:
        async with make_async(url) as parent:
            child = parent.with_options(timeout=20)
            calls = {
                "parent": asyncio.create_task(parent.create_session("user_123")),
                "child": asyncio.create_task(child.create_session("user_123")),
            }
            await asyncio.to_thread(stall.wait_for_the_calls)
            await {"parent": parent, "child": child}[closed].aclose()
            await asyncio.sleep(0)
            stall.go.set()
            results = await asyncio.gather(*calls.values(), return_exceptions=True)
            return {
                name
                for name, result in zip(calls, results, strict=True)
                if isinstance(result, APIConnectionError)
            }

    with raw_server(stall) as server:
        assert asyncio.run(main(server.url)) == ends


def test_a_call_in_another_event_loop_goes_on() -> None:
    stall = Stall()
    with raw_server(stall) as server, ThreadPoolExecutor(1) as thread:
        chatkit = make_async(server.url)

        async def create() -> str:
            return (await chatkit.create_session("user_123")).id

        call = thread.submit(lambda: asyncio.run(create()))
        stall.wait_for_the_calls()

        asyncio.run(chatkit.aclose())
        stall.go.set()

        assert call.result() == "cksess_new"
        assert stall.gone.acquire(timeout=30)


# What ends them


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_limit_ends_what_runs_inside_and_nothing_else(backend: str) -> None:
    async def main() -> None:
        async with time_limit(None) as limit:
            limit.end()
            limit.end()
            await anyio.sleep_forever()
        async with time_limit(0.001):
            await anyio.sleep_forever()
        with pytest.raises(TimeoutError, match="of somebody else"):
            async with time_limit(None):
                raise TimeoutError("of somebody else")

    anyio.run(main, backend=backend)


def test_a_limit_that_has_passed_may_be_ended_before_its_task_knows() -> None:
    async def main() -> None:
        async with time_limit(None) as limit:
            limit.end()
            asyncio.get_running_loop().call_soon(limit.end)
            await asyncio.Event().wait()

    asyncio.run(main())


class EndlessBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response's body, longer than any may be."""

    is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


def test_a_response_that_is_not_read_to_its_end_is_closed(connect: Connect) -> None:
    body = EndlessBody()
    chatkit = connect(httpx.MockTransport(lambda _: httpx.Response(200, stream=body)))

    with pytest.raises(APIResponseValidationError, match="it is longer than"):
        chatkit.create_session("user_123")

    assert body.is_closed
