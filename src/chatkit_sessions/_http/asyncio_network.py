"""Network streams under asyncio, of which none is left open, whenever a task is cancelled.

httpcore's own go through anyio, which costs more than all the rest of a call when many are under
way. Reads and writes here have no timeout of their own: the whole call has a deadline, which
cancels what it waits for.
"""

import asyncio
import ipaddress
import itertools
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final, cast

import httpcore

from .async_streams import AsyncStream
from .connections import SocketOption, is_readable

NEXT_ADDRESS_AFTER: Final = 0.25
"""Seconds before a host's next address is tried beside the one before: RFC 8305, section 5."""
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
    ) -> AsyncStream:
        """Connect, trying a host's addresses side by side."""
        with _connect_errors():
            async with asyncio.timeout(timeout):
                addresses = [host] if _is_address(host) else await _addresses_of(host, port)
                return await _connect_to_first(addresses, port)


async def _addresses_of(host: str, port: int) -> list[str]:
    """A host's addresses, the two families in turn."""
    found = await _resolve(host, port)
    preferred = [address for family, address in found if family == found[0][0]]
    others = [address for family, address in found if family != found[0][0]]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(preferred, others))
    return [address for address in in_turn if address is not None]


async def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, *_, address in found]


async def _connect(address: str, port: int) -> "AsyncioStream":
    _, stream = await asyncio.get_running_loop().create_connection(AsyncioStream, address, port)
    return stream


async def _connect_to_first(addresses: list[str], port: int) -> "AsyncioStream":
    """Connect to the address that is first to accept; uvloop would try them one by one."""
    if len(addresses) == 1:
        return await _connect(addresses[0], port)
    waiting, attempts, chosen = list(addresses), list[asyncio.Task[AsyncioStream]](), None
    pending: set[asyncio.Task[AsyncioStream]] = set()
    try:
        while chosen is None and (waiting or pending):
            if waiting:
                attempts.append(asyncio.create_task(_connect(waiting.pop(0), port)))
                pending.add(attempts[-1])
            delay = NEXT_ADDRESS_AFTER if waiting else None
            done, pending = await asyncio.wait(
                pending, timeout=delay, return_when=asyncio.FIRST_COMPLETED
            )
            chosen = next((each for each in done if each.exception() is None), None)
        return (chosen or attempts[-1]).result()
    finally:
        for attempt in attempts:
            if attempt is not chosen and not attempt.cancel() and attempt.exception() is None:
                await attempt.result().aclose()


class AsyncioStream(asyncio.Protocol, AsyncStream):
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

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        # The event loop may not have looked since; it does not run between some calls.
        return (
            bool(self._received)
            or self._ended
            or is_readable(self._transport.get_extra_info("socket").fileno())
        )

    async def aclose(self) -> None:
        """Close the connection."""
        self._ended = True
        self._transport.abort()
        self._wake()

    def get_extra_info(self, info: str) -> object:
        """Return what httpcore asks of the connection."""
        if info == "is_readable":
            return self.has_unread()
        return self._transport.get_extra_info(_EXTRA_INFO.get(info, info))

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


@contextmanager
def _connect_errors() -> Generator[None, None, None]:
    try:
        yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
