"""Network streams for asynchronous code that can say whether anything waits to be read.

TLS is done here, over bytes in memory: the event loops' own keeps what it has received where nobody
else can look, such as the beginning of a record. A connection that holds any must not be reused.
"""

import ssl
from collections.abc import Callable
from typing import Final, ParamSpec, Self, TypeVar

import httpcore

from chatkit_sessions._concurrency.tasks import shielded, time_limit

P = ParamSpec("P")
T = TypeVar("T")

_PIECE: Final = 64 * 1024
"""Bytes read at once."""


class AsyncStream(httpcore.AsyncNetworkStream):
    """One connection, or TLS on it."""

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        raise NotImplementedError

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "TLSStream":
        """Shake hands, or close the connection."""
        return await TLSStream.open(self, ssl_context, server_hostname, timeout)


class TLSStream(AsyncStream):
    """TLS on a connection."""

    def __init__(
        self, stream: AsyncStream, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )

    @classmethod
    async def open(
        cls,
        stream: AsyncStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float | None,
    ) -> Self:
        """Shake hands, or close the connection."""
        tls: Self | None = None
        try:
            async with time_limit(timeout):
                connection = cls(stream, context, server_hostname)
                await connection._do(None, connection._tls.do_handshake)
                tls = connection
        except (OSError, httpcore.NetworkError) as error:  # ssl.SSLError is an OSError
            raise httpcore.ConnectError(str(error)) from error
        finally:
            if tls is None:
                with shielded():
                    await stream.aclose()
        if tls is None:
            raise httpcore.ConnectTimeout("The TLS handshake took too long.")
        return tls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes; none means that the server has closed the connection."""
        try:
            return await self._do(timeout, self._tls.read, max_bytes)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        left = memoryview(buffer)
        try:
            while left:
                left = left[await self._do(timeout, self._tls.write, left) :]
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error

    async def _do(
        self, timeout: float | None, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Take a step of TLS, with the bytes that it needs and those that it has to send."""
        while True:
            try:
                result = step(*args, **kwargs)
            except ssl.SSLWantReadError:
                await self._flush(timeout)
            else:
                await self._flush(timeout)
                return result
            if data := await self._stream.read(_PIECE, timeout):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    async def _flush(self, timeout: float | None) -> None:
        if self._outgoing.pending:
            await self._stream.write(self._outgoing.read(), timeout)

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        decrypted, encrypted = self._tls.pending(), self._incoming.pending
        return decrypted > 0 or encrypted > 0 or self._stream.has_unread()

    async def aclose(self) -> None:
        """Close the connection, without TLS's closing handshake."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        """Return what httpcore asks of the connection."""
        if info == "ssl_object":
            return self._tls
        return self.has_unread() if info == "is_readable" else self._stream.get_extra_info(info)
