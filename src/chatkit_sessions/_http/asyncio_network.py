"""Network streams under asyncio, of which none is left open, whenever a task is cancelled.

httpcore's own go through anyio, which costs more than all the rest of a call when many are under
way. Reads and writes here have no timeout of their own: the whole call has a deadline, which
cancels what it waits for.
"""

import asyncio
import ipaddress
import select
import ssl
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final, TypedDict, cast

import httpcore

from .connections import SocketOption


class _Options(TypedDict, total=False):
    happy_eyeballs_delay: float
    """Seconds before a host's next address is tried beside the one before."""


_HAPPY_EYEBALLS: Final = _Options(happy_eyeballs_delay=0.25)  # RFC 8305, section 5
_MAX_RECEIVED: Final = 256 * 1024
"""Bytes that wait to be read before the server has to wait, too."""
_EXTRA_INFO: Final = {"client_addr": "sockname", "server_addr": "peername"}


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Opens connections in the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 -- httpcore's signature
        socket_options: Iterable[SocketOption] | None = None,  # noqa: ARG002 -- as above
    ) -> httpcore.AsyncNetworkStream:
        """Connect, trying a host's addresses side by side where the loop can."""
        loop = asyncio.get_running_loop()
        # uvloop tries them in turn, and takes no such argument; an address has only itself.
        several = isinstance(loop, asyncio.BaseEventLoop) and not _is_address(host)
        options = _HAPPY_EYEBALLS if several else _Options()
        with _connect_errors():
            async with asyncio.timeout(timeout):
                _, stream = await loop.create_connection(AsyncioStream, host, port, **options)
                return stream


class AsyncioStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection: asyncio pushes what it receives, httpcore pulls it.

    One task at a time uses it, so that one future serves for whatever that task waits for.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._server_waits = False
        self._may_write = True
        self._waiting: asyncio.Future[None] | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what came, and let the server wait where nobody reads it."""
        self._received += data
        if len(self._received) > _MAX_RECEIVED and not self._server_waits:
            self._server_waits = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Learn that nothing more comes; asyncio then closes the connection."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is closed, from whichever side."""
        self._ended = True
        self._may_write = True
        self._error = exc
        self._wake()

    def pause_writing(self) -> None:
        """Wait with writing: the server does not read."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Go on writing."""
        self._may_write = True
        self._wake()

    # What httpcore calls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 -- see the module
        """Wait for bytes; none means that the server has closed the connection."""
        while not (self._received or self._ended):
            await self._wait()
        if self._error is not None and not self._received:
            raise httpcore.ReadError(str(self._error))
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        if self._server_waits and not self._ended:
            self._server_waits = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 -- as above
        """Send bytes, as fast as the server reads them."""
        if self._ended:
            raise httpcore.WriteError("the connection is closed")
        self._transport.write(buffer)
        while not self._may_write:
            await self._wait()

    async def aclose(self) -> None:
        """Close the connection, without the goodbyes of TLS that nobody waits for."""
        self._ended = True
        self._transport.abort()
        self._wake()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Shake hands, or close the connection."""
        loop = asyncio.get_running_loop()
        try:
            with _connect_errors():
                async with asyncio.timeout(timeout):
                    transport = await loop.start_tls(
                        self._transport, self, ssl_context, server_hostname=server_hostname
                    )
        except BaseException:
            await self.aclose()
            raise
        self._transport = cast("asyncio.Transport", transport)
        return self

    def get_extra_info(self, info: str) -> object:
        """Tell of the socket what httpcore asks."""
        if info == "is_readable":
            return bool(self._received) or self._ended or self._is_socket_readable()
        return self._transport.get_extra_info(_EXTRA_INFO.get(info, info))

    def _is_socket_readable(self) -> bool:
        """The event loop may not have looked since; it does not run between some calls."""
        return is_readable(self._transport.get_extra_info("socket").fileno())

    def _wait(self) -> asyncio.Future[None]:
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_readable(descriptor: int) -> bool:
    """Whether a socket has something to read, be it its end."""
    if sys.platform == "win32":  # pragma: no cover -- there descriptors may have any value
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _connect_errors() -> Generator[None, None, None]:
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
