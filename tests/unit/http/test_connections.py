"""Our own connections under httpx: which is used, which is closed, and that none is left open."""

import asyncio
import contextlib
import importlib.util
import json
import socket
import ssl
import sys
import threading
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import anyio
import httpcore
import httpx
import pytest
from pydantic import SecretBytes, SecretStr

from chatkit_sessions import (
    APIConnectionError,
    AsyncChatKitClient,
    ConfigurationError,
    InternalServerError,
)
from chatkit_sessions._api.protocol import Headers, Request
from chatkit_sessions._http import asyncio_network, connections
from chatkit_sessions._http.asyncio_network import AsyncioBackend, AsyncioStream
from chatkit_sessions._http.connections import KEEPALIVE_EXPIRY, IdleConnections, RequestFactory
from raw_server import Connection, RawServer, raw_server, serve_sessions
from support import KEY, NEW_SECRET, WORKFLOW, Connect, new_uvloop, session_json

BODY = json.dumps(session_json()).encode()

# Idle connections


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_connection_that_came_last_goes_first() -> None:
    idle = IdleConnections[str]()
    for name in ("first", "second", "third"):
        idle.put(name)

    assert [idle.take(), idle.take(), idle.take(), idle.take()] == [
        "third",
        "second",
        "first",
        None,
    ]


def test_connections_that_have_waited_for_too_long_come_back_to_be_closed() -> None:
    clock = Clock()
    idle = IdleConnections[str](clock)
    idle.put("first")
    clock.now += 1
    idle.put("second")
    clock.now += KEEPALIVE_EXPIRY - 1

    assert idle.put("third") == ["first"]
    clock.now += 1
    assert idle.put("fourth") == ["second"]
    assert idle.take_all() == ["third", "fourth"]
    assert idle.take() is None


def test_idle_connections_are_kept_as_long_as_httpx_keeps_them() -> None:
    assert httpx.Limits().keepalive_expiry == KEEPALIVE_EXPIRY


def test_an_idle_connection_that_the_server_closed_costs_no_attempt(connect: Connect) -> None:
    closed = threading.Semaphore(0)

    def answer_once(connection: Connection) -> None:
        connection.receive()
        connection.answer()
        connection.close()
        closed.release()

    with raw_server(answer_once) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        for _ in range(3):
            assert chatkit.create_session("user_123").id == "cksess_new"
            closed.acquire()

        assert server.connections == 3


def test_a_connection_on_which_something_came_unasked_is_not_used_again(connect: Connect) -> None:
    answered, sent = threading.Semaphore(0), threading.Semaphore(0)

    def answer_and_talk_on(connection: Connection) -> None:
        connection.receive()
        connection.answer()
        answered.acquire()
        connection.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        sent.release()
        connection.wait_for_the_client_to_go()

    with raw_server(answer_and_talk_on) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        for _ in range(2):
            chatkit.create_session("user_123")
            answered.release()
            sent.acquire()

        assert server.connections == 2


def test_idle_connections_expire(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "KEEPALIVE_EXPIRY", -1.0)
    with raw_server(serve_sessions) as server:
        chatkit = connect(base_url=server.url)

        for _ in range(2):
            chatkit.create_session("user_123")

        assert server.connections == 2


def calls_at_once(connect: Connect, server: RawServer, count: int) -> None:
    """Make that many calls of which none is answered before all have arrived."""
    if connect.kind == "sync":
        chatkit = connect(base_url=server.url)
        with ThreadPoolExecutor(count) as threads:
            assert len(list(threads.map(chatkit.create_session, ["user_123"] * count))) == count
            assert len(list(threads.map(chatkit.create_session, ["user_123"] * count))) == count
        return

    async def main() -> None:
        async with AsyncChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=server.url
        ) as chatkit:
            for _ in range(2):
                await asyncio.gather(*(chatkit.create_session("user_123") for _ in range(count)))

    asyncio.run(main())


def test_as_many_connections_are_opened_as_calls_are_under_way(connect: Connect) -> None:
    all_arrived = threading.Barrier(20)

    def answer_together(connection: Connection) -> None:
        while connection.receive():
            all_arrived.wait()
            connection.answer()

    with raw_server(answer_together) as server:
        calls_at_once(connect, server, 20)

        assert server.connections == 20
        assert len(server.requests) == 40


# Settings of TLS and of proxies


def test_all_clients_share_one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = httpx.create_ssl_context

    def create() -> ssl.SSLContext:
        made.append(None)
        return real()

    monkeypatch.setattr(httpx, "create_ssl_context", create)
    connections._tls_context.cache_clear()

    assert connections.tls_context() is connections.tls_context()
    assert len(made) == 1


def test_certificates_that_cannot_be_used_are_a_configuration_error(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("this is no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(nothing))
    with raw_server(serve_sessions) as server:
        chatkit = connect(base_url=server.url.replace("http:", "https:"))

        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
            chatkit.create_session("user_123")

        assert server.connections == 0


def test_no_tls_settings_are_made_where_none_are_needed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", pytest.fail)
    with raw_server(serve_sessions) as server:
        assert connect(base_url=server.url).create_session("user_123").id == "cksess_new"


def test_a_socks_proxy_names_the_package_that_it_needs(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.test:1080")
    monkeypatch.setattr(importlib.util, "find_spec", dict[str, object]().get)

    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)

    with pytest.raises(ConfigurationError, match=r"httpx\[socks\]"):
        connect()


# Requests


def request_to_build(method: str, url: str, headers: Headers, body: bytes | None = None) -> Request:
    content = None if body is None else SecretBytes(body)
    return Request(method, url, headers, content, secrets=())


def test_a_request_holds_what_it_is_given_and_what_http_wants() -> None:
    url = "https://chatkit.test:8443/v1/chatkit/sessions"
    wanted = request_to_build("POST", url, {"X-One": SecretStr("1")}, b"{}")

    request = RequestFactory().build(wanted, (5.0, 1.0, 2.0, None))

    assert dict(request.headers) == {
        "host": "chatkit.test:8443", "x-one": "1", "content-length": "2"
    }  # fmt: skip
    assert (request.content, request.read(), request.content) == (b"{}", b"{}", b"{}")
    assert request.extensions["timeout"] == {
        "connect": 5.0, "read": 1.0, "write": 2.0, "pool": None
    }  # fmt: skip


@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("GET", None)])
def test_a_request_without_a_body_says_so_where_one_is_expected(
    method: str, length: str | None
) -> None:
    wanted = request_to_build(method, "https://chatkit.test/v1", {})

    request = RequestFactory().build(wanted, (None, None, None, None))

    assert request.headers.get("content-length") == length


def test_a_request_has_nothing_of_the_one_before() -> None:
    factory, timeouts = RequestFactory(), (None, None, None, None)
    url, headers = "https://chatkit.test/v1", {"X-A": "1"}
    first = factory.build(request_to_build("POST", url, headers, b"12345"), timeouts)
    first.headers["X-B"] = "of somebody who looks on"

    others = [
        factory.build(request_to_build("GET", url, headers), timeouts),
        factory.build(request_to_build("GET", "https://another.test/v1", headers), timeouts),
        factory.build(request_to_build("GET", url, {"X-A": "2"}), timeouts),
    ]

    assert [dict(other.headers) for other in others] == [
        {"host": "chatkit.test", "x-a": "1"},
        {"host": "another.test", "x-a": "1"},
        {"host": "chatkit.test", "x-a": "2"},
    ]


def test_a_request_whose_stream_somebody_replaces_has_the_content_that_was_read() -> None:
    wanted = request_to_build("POST", "https://chatkit.test/v1", {}, b"{}")
    request = RequestFactory().build(wanted, (None, None, None, None))
    request.read()
    request.stream = httpx.ByteStream(b"another")

    assert request.content == b"{}"


def test_a_request_that_cannot_be_built_shows_no_key_in_a_traceback_with_locals(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(httpx.Request, "__init__", interrupted)
    chatkit = connect()

    with pytest.raises(KeyboardInterrupt) as caught:
        chatkit.create_session("user_123")

    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert frames.stack[-1].name == "send"
    assert KEY not in "".join(frames.format())


# The stream under asyncio


@contextlib.asynccontextmanager
async def stream_to(
    script: Callable[[Connection], None],
) -> AsyncGenerator[httpcore.AsyncNetworkStream, None]:
    with raw_server(script) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, timeout=5)
        try:
            yield stream
        finally:
            await stream.aclose()
            await asyncio.sleep(0)


def test_a_server_that_sends_what_nobody_reads_has_to_wait() -> None:
    size = 32 * 1024 * 1024
    sent = threading.Event()

    def flood(connection: Connection) -> None:
        connection.send(b"x" * size)
        sent.set()
        connection.wait_for_the_client_to_go()

    async def main() -> None:
        async with stream_to(flood) as stream:
            assert isinstance(stream, AsyncioStream)
            while not stream._server_waits:  # noqa: ASYNC110 -- set from outside
                await asyncio.sleep(0)
            assert len(stream._received) < size / 8
            assert not sent.is_set()

            total = 0
            while total < size:
                total += len(await stream.read(65536))

            assert total == size
            assert sent.wait(5)

    asyncio.run(main())


def test_a_server_that_does_not_read_makes_the_writer_wait() -> None:
    body = b"x" * (32 * 1024 * 1024)
    go = threading.Event()
    received: list[int] = []

    def read_later(connection: Connection) -> None:
        go.wait()
        received.append(connection.receive_bytes(len(body)))
        connection.send(b".")

    async def main() -> None:
        async with stream_to(read_later) as stream:
            write = asyncio.create_task(stream.write(body))
            await asyncio.sleep(0)
            assert not write.done()
            go.set()
            await write
            assert await stream.read(1) == b"."

    asyncio.run(main())
    assert received == [len(body)]


def test_a_connection_that_breaks_says_so_when_it_is_read_and_written() -> None:
    def reset_when_asked(connection: Connection) -> None:
        connection.receive_bytes(1)
        connection.reset()

    async def main() -> None:
        async with stream_to(reset_when_asked) as stream:
            await stream.write(b"?")
            with pytest.raises(httpcore.ReadError):
                await stream.read(1)
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"x")
            assert stream.get_extra_info("is_readable") is True

    asyncio.run(main())


def test_a_connection_that_the_server_ends_reads_as_empty() -> None:
    async def main() -> None:
        async with stream_to(lambda connection: connection.send(b"last words")) as stream:
            assert await stream.read(65536) == b"last words"
            assert await stream.read(65536) == b""

    asyncio.run(main())


def test_what_httpcore_asks_of_the_socket_is_told() -> None:
    async def main() -> None:
        async with stream_to(lambda connection: connection.wait_for_the_client_to_go()) as stream:
            ours, theirs = (stream.get_extra_info(f"{side}_addr") for side in ("client", "server"))
            sock = stream.get_extra_info("socket")
            assert (ours, theirs) == (sock.getsockname(), sock.getpeername())
            assert stream.get_extra_info("ssl_object") is None
            assert stream.get_extra_info("is_readable") is False

    asyncio.run(main())


def test_a_host_that_does_not_answer_in_time_is_a_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> object:
        return await asyncio.Event().wait()

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        with pytest.raises(httpcore.ConnectTimeout):
            await AsyncioBackend().connect_tcp("127.0.0.1", 9, timeout=0.001)

    asyncio.run(main())


def test_a_host_of_several_addresses_is_tried_at_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A first address that swallows every packet must not use the time of those after it."""
    real = socket.getaddrinfo

    def resolve(host: object, port: int, *hints: int, **options: int) -> object:
        if host != "several.test":
            return real(host, port, *hints, **options)  # type: ignore[arg-type]  # passed through
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, ("127.0.0.9", 1)), (*kind, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def main(url: str) -> None:
        async with AsyncChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=url, allow_insecure_http=True
        ) as chatkit:
            session = await chatkit.create_session("user_123")
            assert session.client_secret.get_secret_value() == NEW_SECRET

    with raw_server(serve_sessions) as server:
        asyncio.run(main(server.url.replace("127.0.0.1", "several.test")))


@contextlib.contextmanager
def silent_address(port: int) -> Generator[str, None, None]:
    """An address at which nobody answers: the queue of those that wait there is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.9", port))
        listener.listen(0)
        with socket.create_connection(("127.0.0.9", port)):
            yield "127.0.0.9"


needs_full_queues = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a full queue refuses who comes next"
)


@needs_full_queues
@pytest.mark.parametrize("new_loop", [None, new_uvloop], ids=["asyncio", "uvloop"])
def test_a_silent_first_address_does_not_hold_up_the_next(
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_network, "NEXT_ADDRESS_AFTER", 0.001)

    async def main(silent: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        async def resolve(*_: object) -> list[tuple[int, str]]:
            v4, v6 = socket.AF_INET, socket.AF_INET6
            return [(v4, silent), (v4, silent), (v6, "::ffff:127.0.0.1")]

        monkeypatch.setattr(asyncio_network, "_resolve", resolve)
        tasks = asyncio.all_tasks(loop)
        stream = await AsyncioBackend().connect_tcp("named.test", port, timeout=5)
        assert stream.get_extra_info("server_addr")[:2] == ("::ffff:127.0.0.1", port)
        await stream.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks(loop) == tasks

    with raw_server(serve_sessions) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        with silent_address(port) as silent, asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main(silent, port))


# Cancelled at the wrong moment


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("turns", range(12))
def test_a_call_cancelled_at_any_turn_of_the_loop_leaves_no_connection_open(
    backend: str, turns: int
) -> None:
    """The server sees every connection that was opened end, and the client works on."""
    ended = threading.Semaphore(0)

    def serve_and_tell(connection: Connection) -> None:
        try:
            serve_sessions(connection)
        finally:
            ended.release()

    async def main(url: str) -> None:
        chatkit = AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url)
        await chatkit.create_session("user_123")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(chatkit.create_session, "user_123")
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert (await chatkit.create_session("user_123")).id == "cksess_new"
        await chatkit.aclose()

    with raw_server(serve_and_tell) as server:
        anyio.run(main, server.url, backend=backend)

        for _ in range(server.connections):
            ended.acquire()


class FaultyServer:
    """Serves sessions in the running event loop, with a refusal or a broken answer now and then."""

    def __init__(self) -> None:
        self.url = ""
        self._requests = 0
        self._open = 0
        self._none_open = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1_000)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def until_none_is_open(self) -> None:
        """Wait until the client has closed every connection."""
        await self._none_open.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        self._none_open.clear()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        self._open -= 1
        if not self._open:
            self._none_open.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        self._requests += 1
        if self._requests % 11 == 5:
            return False
        status = b"503 Service Unavailable" if self._requests % 7 == 3 else b"200 OK"
        length = b"content-length: %d\r\n\r\n" % len(BODY)
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + length + BODY)
        return True


async def outcome_of_call(chatkit: AsyncChatKitClient, number: int) -> str:
    """Every tenth call is cancelled, each at another turn of the event loop."""
    call = asyncio.create_task(chatkit.create_session("user_123"))
    if number % 10 == 0:
        for _ in range(number // 10 % 4):
            await asyncio.sleep(0)
        call.cancel()
    try:
        return (await call).id
    except (APIConnectionError, InternalServerError, asyncio.CancelledError) as error:
        return type(error).__name__


@pytest.mark.slow
def test_ten_thousand_mixed_calls_leave_nothing_behind() -> None:
    """Answered, refused, broken off and, every tenth of them, cancelled; then all is as before."""

    async def main() -> list[str]:
        outcomes: list[str] = []
        async with FaultyServer() as server:
            tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
            async with AsyncChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=server.url, max_retries=0
            ) as chatkit:
                for start in range(0, 10_000, 100):
                    calls = (outcome_of_call(chatkit, n) for n in range(start, start + 100))
                    outcomes += await asyncio.gather(*calls)
            await server.until_none_is_open()
            assert not asyncio.all_tasks() - tasks
            assert not set(threading.enumerate()) - threads
        return outcomes

    outcomes = Counter(asyncio.run(main()))

    assert set(outcomes) == {
        "cksess_new", "InternalServerError", "APIConnectionError", "CancelledError"
    }  # fmt: skip
    assert outcomes["CancelledError"] == 1_000
