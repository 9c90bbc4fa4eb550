"""Our own connections: which is used, which is closed, and that none is left open."""

import asyncio
import contextlib
import importlib.util
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Self, cast

import anyio
import certifi
import httpx
import pytest
import trio
import trustme

from chatkit_sessions import (
    APIConnectionError,
    AsyncChatKitClient,
    ConfigurationError,
    InternalServerError,
)
from chatkit_sessions._api.protocol import Response
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._http import async_network, connections
from chatkit_sessions._http.async_network import AsyncioStream, connect as connect_async
from chatkit_sessions._http.connections import (
    KEEPALIVE_EXPIRY,
    Connections,
    Stream,
    TLSStream,
)
from chatkit_sessions._http.exchange import (
    ConnectError,
    ConnectTimeout,
    LocalProtocolError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    Target,
    TransportError,
    WriteTimeout,
)
from chatkit_sessions._redaction import MaskedBytes
from raw_server import Connection, RawServer, raw_server, serve_sessions
from support import KEY, NEW_SECRET, WORKFLOW, Connect, new_uvloop, session_json

BODY = json.dumps(session_json()).encode()

NO_LIMIT = Deadline.after(None, lambda: 0.0)
TARGET = Target("chatkit.test", 80, False, b"chatkit.test", b"/")
MESSAGE = MaskedBytes(b"POST / HTTP/1.1\r\n\r\n")
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

# Idle connections


class Scripted(Stream):
    """A connection without a network: what it receives, byte strings or errors, is given."""

    def __init__(self, *received: bytes | BaseException) -> None:
        self.received = list(received)
        self.sent: list[bytes | None] = []
        self.sends: bool | BaseException = True
        self.unread = self.closed = False

    async def receive(self, deadline: Deadline) -> MaskedBytes:
        del deadline
        received = self.received.pop(0)
        if isinstance(received, BaseException):
            raise received
        return MaskedBytes(received)

    async def send(self, data: bytes, deadline: Deadline) -> bool:
        del deadline
        self.sent.append(data)
        if isinstance(self.sends, BaseException):
            raise self.sends
        return self.sends

    def has_unread(self) -> bool:
        return self.unread

    def close(self) -> None:
        self.closed = True


def connections_of(*streams: Scripted | BaseException) -> Connections:
    waiting = list(streams)

    async def connect(host: str, port: int, deadline: Deadline) -> Stream:
        assert (host, port, deadline.end is None) == ("chatkit.test", 80, False)
        stream = waiting.pop(0)
        if isinstance(stream, BaseException):
            raise stream
        return stream

    return Connections(connect)


def send(pool: Connections) -> Response:
    return run_blocking(pool.send, TARGET, MESSAGE, NO_LIMIT, sent=2)


def test_the_connection_that_came_last_goes_first_and_the_others_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first, second, third = Scripted(), Scripted(), Scripted(PLAIN, PLAIN)
    pool = connections_of(third)
    for stream in (first, second):
        pool._put(stream)
        now[0] += 1
    pool._put(third)

    assert pool._take() is third
    pool._put(third)
    now[0] += KEEPALIVE_EXPIRY - 1
    assert (first.closed, second.closed) == (False, False)
    fourth = Scripted()
    pool._put(fourth)
    assert (first.closed, second.closed, third.closed) == (True, True, False)
    now[0] += KEEPALIVE_EXPIRY
    assert pool._take() is None
    assert (third.closed, fourth.closed) == (True, True)


def test_idle_connections_are_kept_as_long_as_httpx_keeps_them() -> None:
    assert httpx.Limits().keepalive_expiry == KEEPALIVE_EXPIRY


def test_another_thread_may_take_the_last_one_while_the_expired_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, stream = connections_of(), Scripted()

    def monotonic() -> float:
        pool._idle.clear()  # as if between any two steps
        return 0.0

    monkeypatch.setattr(time, "monotonic", monotonic)
    monkeypatch.setattr(connections, "KEEPALIVE_EXPIRY", -1.0)
    pool._put(stream)

    assert stream.closed


def test_connections_are_closed_with_the_client_those_in_use_with_their_call() -> None:
    stream, idle = Scripted(PLAIN), Scripted()
    pool = connections_of(stream)
    pool._put(idle)
    idle.unread = True

    async def close_meanwhile(deadline: Deadline) -> MaskedBytes:
        del deadline
        pool.close()
        return MaskedBytes(PLAIN)

    stream.receive = close_meanwhile  # type: ignore[method-assign]  # another thread's doing

    assert send(pool).status_code == 200
    assert (stream.closed, idle.closed) == (True, True)


# One exchange


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (b"", RemoteProtocolError),
        (ConnectionResetError(104, "reset"), ReadError),
        (ssl.SSLError("bad record"), ReadError),
        (TimeoutError("timed out"), ReadTimeout),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 20"])
def test_whatever_ends_an_exchange_closes_its_connection(
    end: bytes | BaseException, error: type[BaseException], begun: bytes
) -> None:
    received = (begun, end) if begun else (end,)
    stream = Scripted(*received)

    with pytest.raises(error):
        send(connections_of(stream))

    assert stream.closed


@pytest.mark.parametrize("end", [b"", ConnectionResetError(104, "reset"), ssl.SSLError("bad")])
def test_an_idle_connection_that_breaks_before_the_first_byte_is_replaced_once(
    end: bytes | BaseException,
) -> None:
    idle, other, new = Scripted(end), Scripted(), Scripted(PLAIN)
    pool = connections_of(new)
    pool._put(other)
    pool._put(idle)

    assert send(pool).status_code == 200

    assert (idle.closed, new.closed, other.sent, new.sent) == (True, False, [], [MESSAGE])


@pytest.mark.parametrize("received", [(TimeoutError(),), (b"H", b""), (b"H", OSError())])
def test_nothing_is_sent_again_after_the_first_byte_or_a_timeout(
    received: tuple[bytes | BaseException, ...],
) -> None:
    idle = Scripted(*received)
    pool = connections_of()
    pool._put(idle)

    with pytest.raises(TransportError):
        send(pool)

    assert idle.closed


@pytest.mark.parametrize("sends", [False, ConnectionResetError(104, "reset")])
def test_a_response_to_a_request_that_was_not_read_counts_and_ends_the_connection(
    sends: bool | BaseException,  # noqa: FBT001 -- what a parameter of a test is
) -> None:
    stream = Scripted(PLAIN)
    stream.sends = sends

    assert send(connections_of(stream)).status_code == 200
    assert stream.closed


def test_a_server_that_does_not_read_is_a_timeout_of_writing() -> None:
    stream = Scripted()
    stream.sends = TimeoutError("timed out")

    with pytest.raises(WriteTimeout):
        send(connections_of(stream))

    assert stream.closed


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ConnectionRefusedError(111, "refused"), ConnectError),
        (TimeoutError("timed out"), ConnectTimeout),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_connecting_raises_is_named_so(
    raised: BaseException, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        send(connections_of(raised))


def test_the_names_of_errors_are_those_of_httpx() -> None:
    for kind in (
        ConnectError, ConnectTimeout, ReadError, ReadTimeout, WriteTimeout, LocalProtocolError,
        RemoteProtocolError,
    ):  # fmt: skip
        theirs = getattr(httpx, kind.__name__)
        assert issubclass(theirs, httpx.TimeoutException) == issubclass(kind, TimeoutError)


# Which connections are used


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
            assert closed.acquire(timeout=30)

        assert server.connections == 3


def test_a_connection_on_which_something_came_unasked_is_not_used_again(connect: Connect) -> None:
    answered, sent = threading.Semaphore(0), threading.Semaphore(0)

    def answer_and_talk_on(connection: Connection) -> None:
        connection.receive()
        connection.answer()
        assert answered.acquire(timeout=30)
        connection.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        sent.release()
        connection.wait_for_the_client_to_go()

    with raw_server(answer_and_talk_on) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        for _ in range(2):
            chatkit.create_session("user_123")
            answered.release()
            assert sent.acquire(timeout=30)

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
    all_arrived = threading.Barrier(20, timeout=30)

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
    real = ssl.create_default_context

    def create(**files: str) -> ssl.SSLContext:
        made.append(files)
        return real(**files)  # type: ignore[arg-type]  # both are texts

    monkeypatch.setattr(ssl, "create_default_context", create)
    connections._tls_context.cache_clear()

    assert connections.tls_context() is connections.tls_context()
    assert len(made) == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", None])
def test_certificates_come_from_where_httpx_takes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None
) -> None:
    made: list[dict[str, str]] = []
    real = ssl.create_default_context

    def create(**files: str) -> ssl.SSLContext:
        made.append(files)
        return real(**files)  # type: ignore[arg-type]  # both are texts

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    expected = {"cafile": certifi.where()}
    if variable is not None:
        path = tmp_path / "ca.pem" if variable == "SSL_CERT_FILE" else tmp_path
        monkeypatch.setenv(variable, str(path))
        expected = {"cafile" if variable == "SSL_CERT_FILE" else "capath": str(path)}
    monkeypatch.setattr(ssl, "create_default_context", create)
    connections._tls_context.cache_clear()

    ours, theirs = connections.tls_context(), httpx.create_ssl_context()

    assert made[0] == expected
    assert made[1:] in ([], [expected])  # older releases of httpx make one in another way
    assert (ours.verify_mode, ours.check_hostname, ours.minimum_version) == (
        theirs.verify_mode, theirs.check_hostname, theirs.minimum_version
    )  # fmt: skip


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
    monkeypatch.setattr(ssl, "create_default_context", pytest.fail)
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


# The stream under asyncio


@contextlib.asynccontextmanager
async def stream_to(script: Callable[[Connection], None]) -> AsyncGenerator[AsyncioStream, None]:
    with raw_server(script) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        stream = await connect_async("127.0.0.1", port, NO_LIMIT)
        assert isinstance(stream, AsyncioStream)
        try:
            yield stream
        finally:
            stream.close()
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
            while not stream._server_waits:  # noqa: ASYNC110 -- set from outside
                await asyncio.sleep(0)
            assert len(stream._received) < size / 8
            assert not sent.is_set()

            total = 0
            while total < size:
                total += len(await stream.receive(NO_LIMIT))

            assert total == size
            assert sent.wait(5)

    asyncio.run(main())


def test_a_server_that_does_not_read_makes_the_writer_wait() -> None:
    body = b"x" * (32 * 1024 * 1024)
    go = threading.Event()
    received: list[int] = []

    def read_later(connection: Connection) -> None:
        assert go.wait(30)
        received.append(connection.receive_bytes(len(body)))
        connection.send(b".")

    async def main() -> None:
        async with stream_to(read_later) as stream:
            write = asyncio.create_task(stream.send(body, NO_LIMIT))
            await asyncio.sleep(0)
            assert not write.done()
            go.set()
            assert await write
            assert await stream.receive(NO_LIMIT) == b"."

    asyncio.run(main())
    assert received == [len(body)]


def test_a_server_that_responds_before_it_reads_ends_the_wait_of_the_writer() -> None:
    def speak(connection: Connection) -> None:
        connection.receive_bytes(1)
        connection.send(b".")
        connection.stop.wait()

    async def main() -> None:
        async with stream_to(speak) as stream:
            assert not await stream.send(b"x" * (32 * 1024 * 1024), NO_LIMIT)
            assert await stream.receive(NO_LIMIT) == b"."

    asyncio.run(main())


def test_a_connection_that_breaks_says_so_when_it_is_read_and_written() -> None:
    def reset_when_asked(connection: Connection) -> None:
        connection.receive_bytes(1)
        connection.reset()

    async def main() -> None:
        async with stream_to(reset_when_asked) as stream:
            assert await stream.send(b"?", NO_LIMIT)
            with pytest.raises(OSError, match="reset"):
                await stream.receive(NO_LIMIT)
            assert not await stream.send(b"x", NO_LIMIT)
            assert stream.has_unread()
            stream.close()
            stream.close()

    asyncio.run(main())


def test_a_connection_that_the_server_ends_reads_as_empty() -> None:
    async def main() -> None:
        async with stream_to(lambda connection: connection.send(b"last words")) as stream:
            assert await stream.receive(NO_LIMIT) == b"last words"
            assert await stream.receive(NO_LIMIT) == b""

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_host_that_does_not_accept_in_time_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    async def never(*_: object, **__: object) -> NoReturn:
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(async_network, "_connect", never)
    monkeypatch.setattr(trio, "open_tcp_stream", never)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await connect_async("127.0.0.1", 9, Deadline.after(0.001, time.monotonic))

    anyio.run(main, backend=backend)


def test_a_host_of_several_addresses_is_tried_at_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A first address that swallows every packet must not use the time of those after it."""
    real = socket.getaddrinfo

    def resolve(host: object, port: int, *hints: int, **options: int) -> object:
        if host != b"several.test":
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
    monkeypatch.setattr(async_network, "NEXT_ADDRESS_AFTER", 0.001)

    async def main(silent: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        async def resolve(*_: object) -> list[tuple[int, str]]:
            v4, v6 = socket.AF_INET, socket.AF_INET6
            return [(v4, silent), (v4, silent), (v6, "::ffff:127.0.0.1")]

        monkeypatch.setattr(async_network, "_resolve", resolve)
        tasks = asyncio.all_tasks(loop)
        stream = await connect_async("named.test", port, NO_LIMIT)
        assert isinstance(stream, AsyncioStream)
        assert stream._transport is not None
        assert stream._transport.get_extra_info("peername")[:2] == ("::ffff:127.0.0.1", port)
        stream.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks(loop) == tasks

    with raw_server(serve_sessions) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        with silent_address(port) as silent, asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main(silent, port))


class Opened:
    """What connecting gives."""

    closed = False

    def close(self) -> None:
        self.closed = True


def connect_to(
    addresses: dict[str, Opened | Exception], monkeypatch: pytest.MonkeyPatch, *, turns: int = 0
) -> Callable[[], Opened]:
    """Connect to the first of these, which all have their result at the same moment."""
    gate: list[asyncio.Event] = []

    async def connect(address: str, port: int) -> Opened:
        assert port == 80
        if address == list(addresses)[-1]:
            gate[0].set()
        await gate[0].wait()
        for _ in range(turns if address == list(addresses)[-1] else 0):
            await asyncio.sleep(0)
        result = addresses[address]
        if isinstance(result, Exception):
            raise result
        return result

    async def main() -> Opened:
        gate.append(asyncio.Event())
        return cast("Opened", await async_network._connect_to_first(list(addresses), 80))

    monkeypatch.setattr(async_network, "_connect", connect)
    monkeypatch.setattr(async_network, "NEXT_ADDRESS_AFTER", 0)
    return lambda: asyncio.run(main())


def test_of_two_addresses_that_accept_at_once_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Opened(), Opened()

    chosen = connect_to({"a": first, "b": second}, monkeypatch)()

    assert chosen in {first, second}
    assert [first.closed, second.closed].count(True) == 1
    assert not chosen.closed


def test_an_address_that_refuses_does_not_end_the_wait_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = Opened()
    waiting = connect_to({"a": OSError("refused"), "b": second}, monkeypatch, turns=9)

    assert waiting() is second


def test_where_every_address_refuses_the_last_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OSError, match="the last"):
        connect_to({"a": OSError("the first"), "b": OSError("the last")}, monkeypatch)()


def test_what_is_no_refusal_ends_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Opened()
    waiting = connect_to({"a": ValueError("no address"), "b": second}, monkeypatch, turns=9)

    with pytest.raises(ValueError, match="no address"):
        waiting()


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
            assert ended.acquire(timeout=30)


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


# TLS


AUTHORITY = trustme.CA()


class Memory(Stream):
    """A connection to a TLS server in memory."""

    def __init__(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate = AUTHORITY.issue_cert("chatkit.test")
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.coming: list[bytes] = []
        self.closed = False
        self.reads_all = True

    def encrypted(self, data: bytes) -> bytes:
        """What the server sends to say that."""
        self.server.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """How the server ends TLS."""
        with pytest.raises(ssl.SSLWantReadError):
            self.server.unwrap()
        return self._outgoing.read()

    async def receive(self, deadline: Deadline) -> MaskedBytes:
        del deadline
        return MaskedBytes(self.coming.pop(0))

    async def send(self, data: bytes, deadline: Deadline) -> bool:
        del deadline
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.server.do_handshake()
        if sent := self._outgoing.read():
            self.coming.append(sent)
        return self.reads_all

    def has_unread(self) -> bool:
        return bool(self.coming)

    def close(self) -> None:
        self.closed = True


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    return context


@pytest.fixture
def shaken() -> tuple[Memory, TLSStream]:
    """A connection after its handshake, on which nothing is unread."""
    memory = Memory()
    tls = run_blocking(TLSStream.open, memory, client_context(), "chatkit.test", NO_LIMIT)
    tickets, memory.coming = memory.coming, []
    memory.coming = [b"".join(tickets) + memory.encrypted(b"hello")]
    assert run_blocking(tls.receive, NO_LIMIT) == b"hello"
    assert not tls.has_unread()
    return memory, tls


def test_what_is_said_over_tls_arrives(shaken: tuple[Memory, TLSStream]) -> None:
    memory, tls = shaken

    assert run_blocking(tls.send, b"x" * 100_000, NO_LIMIT)

    assert len(b"".join(memory.server.read(16_384) for _ in range(7))) == 100_000
    tls.close()
    assert memory.closed


def test_what_the_server_does_not_read_of_tls_is_known(shaken: tuple[Memory, TLSStream]) -> None:
    memory, tls = shaken
    memory.reads_all = False

    assert not run_blocking(tls.send, b"x", NO_LIMIT)


@pytest.mark.parametrize("size", [1, 5, 6, 20])
def test_the_beginning_of_a_tls_record_is_unread(
    shaken: tuple[Memory, TLSStream], size: int
) -> None:
    memory, tls = shaken
    memory.coming = [memory.encrypted(b"response") + memory.encrypted(b"another")[:size]]

    assert run_blocking(tls.receive, NO_LIMIT) == b"response"
    assert tls.has_unread()


def test_the_rest_of_a_tls_record_is_unread(
    shaken: tuple[Memory, TLSStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, tls = shaken
    monkeypatch.setattr(connections, "PIECE", 4)
    memory.coming = [memory.encrypted(b"response")]

    assert run_blocking(tls.receive, NO_LIMIT) == b"resp"
    assert tls.has_unread()
    assert run_blocking(tls.receive, NO_LIMIT) == b"onse"
    assert not tls.has_unread()


def test_what_the_connection_under_tls_has_not_read_is_unread(
    shaken: tuple[Memory, TLSStream],
) -> None:
    memory, tls = shaken
    memory.coming = [b"something"]

    assert tls.has_unread()


@pytest.mark.parametrize("polite", [False, True])
def test_both_ends_of_tls_read_as_empty(shaken: tuple[Memory, TLSStream], *, polite: bool) -> None:
    memory, tls = shaken
    memory.coming = [memory.goodbye() if polite else b""]

    assert run_blocking(tls.receive, NO_LIMIT) == b""


def test_what_is_no_tls_is_an_error(shaken: tuple[Memory, TLSStream]) -> None:
    memory, tls = shaken
    memory.coming = [b"HTTP/1.1 200 OK\r\n\r\n"]

    with pytest.raises(ssl.SSLError):
        run_blocking(tls.receive, NO_LIMIT)
    with pytest.raises(ssl.SSLError):
        run_blocking(tls.send, b"more", NO_LIMIT)


def test_a_handshake_that_fails_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()

    async def connect(*_: object) -> Stream:
        return memory

    monkeypatch.setattr(connections, "tls_context", client_context)
    elsewhere = TARGET._replace(host="elsewhere.test", is_tls=True)

    with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        run_blocking(Connections(connect).send, elsewhere, MESSAGE, NO_LIMIT, sent=0)

    assert memory.closed
