"""Connections for tasks, under asyncio or trio, of which none is left open when one is cancelled.

Reads and writes have no timeout of their own: the whole call has a deadline, which cancels what it
waits for.
"""

import asyncio
import ipaddress
import itertools
import socket
from typing import TYPE_CHECKING, Final, cast

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.tasks import time_limit, under_trio
from chatkit_sessions._redaction import MaskedBytes

from .connections import PIECE, Stream, is_readable, is_refusal

if TYPE_CHECKING:
    import trio

NEXT_ADDRESS_AFTER: Final = 0.25
"""Seconds before a host's next address is tried beside the one before: RFC 8305, section 5."""
_MAX_RECEIVED: Final = 256 * 1024
"""Bytes that wait to be read before the server has to wait, too."""


async def connect(host: str, port: int, deadline: Deadline) -> Stream:
    """Connect, trying a host's addresses side by side."""
    async with time_limit(deadline.remaining()):
        if under_trio():
            return await _connect_under_trio(host, port)
        addresses = [host] if _is_address(host) else await _addresses_of(host, port)
        return await _connect_to_first(addresses, port)
    raise TimeoutError("the host did not accept in time")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _addresses_of(host: str, port: int) -> list[str]:
    """A host's addresses, the two families in turn."""
    found = await _resolve(host, port)
    preferred = [address for family, address in found if family == found[0][0]]
    others = [address for family, address in found if family != found[0][0]]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(preferred, others))
    return [address for address in in_turn if address is not None]


async def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    # As bytes, for the reason that `sync_network.connect` has.
    found = await loop.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
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
            chosen = next((each for each in done if not is_refusal(each.exception())), None)
        return (chosen or attempts[-1]).result()
    finally:
        for attempt in attempts:
            if attempt is not chosen and not attempt.cancel() and attempt.exception() is None:
                attempt.result().close()


class AsyncioStream(asyncio.Protocol, Stream):
    """One connection: asyncio pushes what it receives, a call pulls it.

    One task at a time uses it, so that one future serves for whatever that task waits for.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
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
        self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """Keep what came, and let the server wait where nobody reads it."""
        self._received += data
        if len(self._received) > _MAX_RECEIVED and not self._server_waits and self._transport:
            self._server_waits = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Learn that nothing more comes; asyncio then closes the connection."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is closed, from whichever side."""
        self._transport = None  # asyncio's can do nothing any more, not even end
        self._ended = True
        self._error = exc
        self._wake()

    def pause_writing(self) -> None:
        """Wait with writing: the server does not read."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Go on writing."""
        self._may_write = True
        self._wake()

    # What a call needs

    async def receive(self, deadline: Deadline) -> MaskedBytes:  # noqa: ARG002 -- see the module
        """Wait for bytes."""
        while not (self._received or self._ended):
            await self._wait()
        if self._error is not None and not self._received:
            raise OSError(str(self._error))
        data = MaskedBytes(self._received)
        self._received.clear()
        if self._server_waits and not self._ended and self._transport:
            self._server_waits = False
            self._transport.resume_reading()
        return data

    async def send(self, data: bytes, deadline: Deadline) -> bool:  # noqa: ARG002 -- as above
        """Send bytes, as fast as the server reads them, until it responds."""
        if self._transport and not self._ended:
            self._transport.write(data)
        while not (self._may_write or self._ended or self._received):
            await self._wait()
        return self._may_write and not self._ended

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        if self._received or self._ended or self._transport is None:
            return True
        # The event loop may not have looked since; it does not run between some calls.
        return is_readable(self._descriptor)

    def close(self) -> None:
        """Close the connection."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wait(self) -> asyncio.Future[None]:
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


async def _connect_under_trio(host: str, port: int) -> "TrioStream":
    import trio  # noqa: PLC0415 -- only where it is in use already

    return TrioStream((await trio.open_tcp_stream(host, port)).socket)


class TrioStream(Stream):
    """A socket of trio's."""

    def __init__(self, connected: "trio.socket.SocketType") -> None:
        self._socket = connected

    async def receive(self, deadline: Deadline) -> MaskedBytes:  # noqa: ARG002 -- see the module
        """Wait for bytes."""
        return MaskedBytes(await self._socket.recv(PIECE))

    async def send(self, data: bytes, deadline: Deadline) -> bool:  # noqa: ARG002 -- as above
        """Send bytes."""
        left = memoryview(data)
        while left:
            left = left[await self._socket.send(left) :]
        return True

    def has_unread(self) -> bool:
        """Whether there are unread bytes, or the end of the connection."""
        return is_readable(self._socket.fileno())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
