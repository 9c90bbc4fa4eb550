"""One connection for synchronous code, and one exchange on it."""

import ssl
from collections.abc import Iterator
from typing import Final, Protocol

import httpcore

from chatkit_sessions._redaction import MaskedBytes

from .connections import ConnectionLost, PlainResponse, is_readable, timeouts_of
from .http1 import ResponseParser, encode_request
from .sync_network import socket_of, time_left

_PIECE: Final = 64 * 1024
"""Bytes written at once, so that a server which reads ever so slowly meets the deadline, too."""


class GiveBack(Protocol):
    """What takes a connection whose response has been closed."""

    def __call__(self, connection: "Connection", *, reusable: bool) -> None: ...


class Connection:
    """One connection, used for one request at a time."""

    __slots__ = ("_reused", "_socket", "_stream")

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._socket = socket_of(stream)
        self._reused = False

    def has_unread(self) -> bool:
        """Whether there are unread bytes, or the end of the connection."""
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        return pending or is_readable(self._socket.fileno())

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def exchange(
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
            self._send(message, timeouts["write"])
            while parser.head is None:
                parser.feed(self.receive(timeouts["read"]))
        except BaseException as error:
            self.close()
            lost = isinstance(error, httpcore.ReadError | httpcore.RemoteProtocolError)
            if lost and self._reused and not parser.begun:
                raise ConnectionLost from None
            raise
        self._reused = True
        stream = ResponseStream(self, parser, timeouts["read"], give_back)
        return PlainResponse(parser.head, stream, self._stream)

    def _send(self, data: bytes, timeout: float | None) -> None:
        try:
            for start in range(0, len(data), _PIECE):
                self._socket.settimeout(time_left(timeout, httpcore.WriteTimeout))
                self._socket.sendall(data[start : start + _PIECE])
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError:
            return  # the server may have responded already

    def receive(self, timeout: float | None) -> bytes:
        """Wait for bytes until the deadline."""
        try:
            self._socket.settimeout(time_left(timeout, httpcore.ReadTimeout))
            return MaskedBytes(self._socket.recv(_PIECE))
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error


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

    def __iter__(self) -> Iterator[bytes]:
        while (part := self._parser.next_part()) != b"":
            if part is None:
                self._parser.feed(self._connection.receive(self._timeout))
            else:
                yield part

    def close(self) -> None:
        """End the body, whether or not it has been read."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self._connection, reusable=self._parser.reusable)
