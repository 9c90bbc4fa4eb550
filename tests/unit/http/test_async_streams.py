"""TLS over a connection: whatever is received and not read is seen."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine

import httpcore
import pytest
import trustme

from chatkit_sessions._http.async_streams import AsyncStream, TLSStream

AUTHORITY = trustme.CA()


class Memory(AsyncStream):
    """A connection to a TLS server in memory."""

    def __init__(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate = AUTHORITY.issue_cert("chatkit.test")
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.coming: list[bytes] = []
        self.closed = False

    def encrypted(self, data: bytes) -> bytes:
        """What the server sends to say that."""
        self.server.write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """How the server ends TLS."""
        with pytest.raises(ssl.SSLWantReadError):
            self.server.unwrap()
        return self._outgoing.read()

    def received(self, size: int) -> bytes:
        """What the server has received."""
        return self.server.read(size)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del max_bytes, timeout
        if not self.coming:
            await asyncio.Event().wait()
        return self.coming.pop(0)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._incoming.write(buffer)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.server.do_handshake()
        if sent := self._outgoing.read():
            self.coming.append(sent)

    def has_unread(self) -> bool:
        return bool(self.coming)

    async def aclose(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> object:
        return f"the connection's {info}"


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    return context


Test = Callable[[Memory, TLSStream], Coroutine[object, object, None]]


def after_the_handshake(test: Test) -> None:
    async def main() -> None:
        memory = Memory()
        tls = await memory.start_tls(client_context(), "chatkit.test", timeout=5)
        memory.coming, tickets = [], memory.coming
        memory.coming = [b"".join(tickets) + memory.encrypted(b"hello")]
        assert await tls.read(100) == b"hello"
        assert not tls.has_unread()
        await test(memory, tls)

    asyncio.run(main())


def test_what_is_said_arrives() -> None:
    async def test(memory: Memory, tls: TLSStream) -> None:
        await tls.write(b"x" * 100_000)
        assert len(b"".join(memory.received(16_384) for _ in range(7))) == 100_000
        assert tls.get_extra_info("is_readable") is False
        assert isinstance(tls.get_extra_info("ssl_object"), ssl.SSLObject)
        assert tls.get_extra_info("socket") == "the connection's socket"
        await tls.aclose()
        assert memory.closed

    after_the_handshake(test)


@pytest.mark.parametrize("size", [1, 5, 6, 20])
def test_the_beginning_of_a_record_is_unread(size: int) -> None:
    async def test(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [memory.encrypted(b"response") + memory.encrypted(b"another")[:size]]
        assert await tls.read(100) == b"response"
        assert tls.has_unread()

    after_the_handshake(test)


def test_the_rest_of_a_record_is_unread() -> None:
    async def test(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [memory.encrypted(b"response")]
        assert await tls.read(4) == b"resp"
        assert tls.has_unread()
        assert await tls.read(4) == b"onse"
        assert not tls.has_unread()

    after_the_handshake(test)


def test_what_the_connection_has_not_read_is_unread() -> None:
    async def test(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [b"something"]
        assert tls.has_unread()

    after_the_handshake(test)


def test_both_ends_read_as_empty() -> None:
    async def with_goodbye(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [memory.goodbye()]
        assert await tls.read(100) == b""

    async def without(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [b""]
        assert await tls.read(100) == b""

    after_the_handshake(with_goodbye)
    after_the_handshake(without)


def test_what_is_no_tls_is_an_error() -> None:
    async def test(memory: Memory, tls: TLSStream) -> None:
        memory.coming = [b"HTTP/1.1 200 OK\r\n\r\n"]
        with pytest.raises(httpcore.ReadError):
            await tls.read(100)
        with pytest.raises(httpcore.WriteError):
            await tls.write(b"more")

    after_the_handshake(test)


@pytest.mark.parametrize(
    ("host", "timeout", "error"),
    [
        ("elsewhere.test", 5.0, httpcore.ConnectError),
        ("chatkit.test", 0.0, httpcore.ConnectTimeout),
    ],
    ids=["another host's certificate", "no time"],
)
def test_a_handshake_that_fails_closes_the_connection(
    host: str, timeout: float, error: type[Exception]
) -> None:
    async def main() -> None:
        memory = Memory()
        if not timeout:
            memory.write = silent  # type: ignore[method-assign]  # nothing comes back
        with pytest.raises(error):
            await memory.start_tls(client_context(), host, timeout)
        assert memory.closed

    async def silent(buffer: bytes, timeout: float | None = None) -> None:
        del buffer, timeout

    asyncio.run(main())


def test_a_stream_has_to_say_what_is_unread() -> None:
    with pytest.raises(NotImplementedError):
        AsyncStream().has_unread()
