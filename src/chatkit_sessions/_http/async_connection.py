"""One connection for asynchronous code, and one exchange on it."""

from collections.abc import AsyncIterator, Awaitable
from typing import Final, Protocol

import httpcore

from chatkit_sessions._concurrency.tasks import shielded
from chatkit_sessions._redaction import MaskedBytes

from .async_streams import AsyncStream
from .connections import ConnectionLost, PlainResponse, timeouts_of
from .http1 import ResponseParser, encode_request

_PIECE: Final = 64 * 1024
"""Bytes read at once."""


class GiveBack(Protocol):
    """What takes a connection whose response has been closed."""

    def __call__(self, connection: "Connection", *, reusable: bool) -> Awaitable[None]: ...


class Connection:
    """One connection, used for one request at a time."""

    __slots__ = ("_reused", "_stream")

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._reused = False

    def has_unread(self) -> bool:
        """Whether there are unread bytes, or the end of the connection."""
        return self._stream.has_unread()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def exchange(
        self, request: httpcore.Request, body: bytes, give_back: GiveBack
    ) -> httpcore.Response:
        """Send a request and read its response's head; on any error the connection is closed.

        Raises:
            ConnectionLost: The connection was idle before, and no byte of the response arrived.
        """
        parser = ResponseParser(request, body)
        timeouts = timeouts_of(request)
        try:
            message = encode_request(request, body)
            try:  # noqa: SIM105 -- a context manager costs three calls
                await self._stream.write(message, timeouts["write"])
            except httpcore.WriteError:
                pass  # the server may have responded already
            while parser.head is None:
                parser.feed(await self.receive(timeouts["read"]))
        except BaseException as error:
            with shielded():
                await self.aclose()
            lost = isinstance(error, httpcore.ReadError | httpcore.RemoteProtocolError)
            if lost and self._reused and not parser.begun:
                raise ConnectionLost from None
            raise
        self._reused = True
        stream = ResponseStream(self, parser, timeouts["read"], give_back)
        return PlainResponse(parser.head, stream, self._stream)

    async def receive(self, timeout: float | None) -> bytes:
        """Wait for bytes."""
        return MaskedBytes(await self._stream.read(_PIECE, timeout))


class ResponseStream:
    """A response's body; closing it gives the connection back, or closes the connection."""

    __slots__ = ("_connection", "_give_back", "_parser", "_timeout")

    def __init__(
        self,
        connection: Connection,
        parser: ResponseParser,
        timeout: float | None,
        give_back: GiveBack,
    ) -> None:
        self._connection = connection
        self._parser = parser
        self._timeout = timeout
        self._give_back: GiveBack | None = give_back

    def take_whole(self) -> bytes | None:
        """The body, if it has arrived whole and nothing was taken of it; None where it has not."""
        return self._parser.take_whole()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := self._parser.next_part()) != b"":
            if part is None:
                self._parser.feed(await self._connection.receive(self._timeout))
            else:
                yield part

    async def aclose(self) -> None:
        """End the body, whether or not it has been read."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            await give_back(self._connection, reusable=self._parser.reusable)
