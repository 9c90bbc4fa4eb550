"""The library's own connections, once for threads, whose network never suspends, and for tasks."""

import functools
import os
import select
import ssl
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, Self, TypeAlias, TypeVar

from chatkit_sessions._api.protocol import Response
from chatkit_sessions._concurrency.clocks import CONNECT_TIMEOUT, Deadline
from chatkit_sessions._concurrency.threads import process, raised_by_handler
from chatkit_sessions._redaction import MaskedBytes, redact
from chatkit_sessions.errors import ConfigurationError

from .exchange import (
    ConnectError,
    ConnectTimeout,
    ReadError,
    ReadTimeout,
    Target,
    TransportError,
    WriteTimeout,
    receive_response,
)

P = ParamSpec("P")
T = TypeVar("T")

KEEPALIVE_EXPIRY: Final = 5.0
"""Seconds for which an idle connection is kept, as httpx does by default."""
PIECE: Final = 64 * 1024
"""Bytes read or written at once."""


class Stream(ABC):
    """One connection. A failure raises OSError, such as ssl.SSLError."""

    @abstractmethod
    async def receive(self, deadline: Deadline) -> MaskedBytes:
        """Wait for bytes; none means that the server has closed the connection."""

    @abstractmethod
    async def send(self, data: bytes, deadline: Deadline) -> bool:
        """Send bytes; False where the server would not read all, as it may have responded."""

    @abstractmethod
    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class TLSStream(Stream):
    """TLS on a connection, over bytes in memory.

    The TLS of sockets and event loops hides bytes that it has received, such as the beginning of a
    record. A connection with unread bytes must not be reused, so this class can see them.
    """

    def __init__(self, stream: Stream, context: ssl.SSLContext, host: str | None) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    @classmethod
    async def open(
        cls, stream: Stream, context: ssl.SSLContext, host: str | None, deadline: Deadline
    ) -> Self:
        """Shake hands."""
        tls = cls(stream, context, host)
        await tls._do(deadline, tls._tls.do_handshake)
        return tls

    async def receive(self, deadline: Deadline) -> MaskedBytes:
        """Wait for bytes; none means that the server has closed the connection."""
        try:
            return MaskedBytes(await self._do(deadline, self._tls.read, PIECE))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return MaskedBytes()

    async def send(self, data: bytes, deadline: Deadline) -> bool:
        """Send bytes; False where the server would not read all."""
        self._tls.write(data)
        return await self._flush(deadline)

    async def _do(
        self, deadline: Deadline, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Take a step of TLS, with the bytes that it needs and those that it has to send."""
        while True:
            try:
                result = step(*args, **kwargs)
            except ssl.SSLWantReadError:
                await self._flush(deadline)
            else:
                await self._flush(deadline)
                return result
            if data := await self._stream.receive(deadline):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    async def _flush(self, deadline: Deadline) -> bool:
        if not self._outgoing.pending:
            return True
        return await self._stream.send(self._outgoing.read(), deadline)

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        return bool(self._tls.pending() or self._incoming.pending) or self._stream.has_unread()

    def close(self) -> None:
        """Close the connection, without TLS's closing handshake."""
        self._stream.close()


Connect: TypeAlias = Callable[[str, int, Deadline], Awaitable[Stream]]
"""Connects to a host and port, or raises OSError."""


class Connections:
    """The connections to one server: as many as there are calls at once.

    The connection that was returned last is used first: those that are not needed any more expire,
    and finding one takes no search, however many there are.

    Args:
        connect: What opens them.
    """

    def __init__(self, connect: Connect) -> None:
        self.connect: Final = connect
        # Without a lock: a deque's own steps are whole ones.
        self._idle: deque[tuple[float, Stream]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def send(
        self, target: Target, message: MaskedBytes, deadline: Deadline, *, sent: int
    ) -> Response:
        """Send a request and read its response.

        A connection that was idle and breaks before a byte of the response says nothing about the
        server: the request is sent once more, on a new connection.

        Args:
            target: The server.
            message: The request, encoded.
            deadline: The call's.
            sent: Bytes of the request's body.

        Raises:
            TransportError: No complete response came.
        """
        idle = self._take()
        if idle is not None:
            try:
                return await self._exchange(idle, message, deadline, sent=sent, is_new=False)
            except _LostWhileIdleError:
                idle = None
        stream = await self._open(target, deadline.at_most(CONNECT_TIMEOUT))
        return await self._exchange(stream, message, deadline, sent=sent, is_new=True)

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as its response is read."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close what is idle now."""
        while True:
            try:
                _, stream = self._idle.pop()
            except IndexError:
                return
            stream.close()

    async def _exchange(
        self, stream: Stream, message: MaskedBytes, deadline: Deadline, *, sent: int, is_new: bool
    ) -> Response:
        """Send a request and read its response; then keep the connection, or close it."""
        is_sent = has_begun = reusable = False
        try:
            parser = receive_response(sent=sent)
            next(parser)
            is_sent = await _send(stream, message, deadline)
            while True:
                data = await stream.receive(deadline)
                has_begun = has_begun or bool(data)
                parser.send(data)
        except StopIteration as stop:
            response: Response
            response, reusable = stop.value
            reusable = reusable and is_sent
            return response
        except OSError as error:
            timed_out = isinstance(error, TimeoutError)
            if not (is_new or has_begun or timed_out or raised_by_handler(error)):
                raise _LostWhileIdleError from None
            if isinstance(error, TransportError):
                raise
            raise (ReadTimeout if timed_out else ReadError)(str(error)) from error
        finally:
            if reusable:
                self._put(stream)
            else:
                stream.close()

    async def _open(self, target: Target, deadline: Deadline) -> Stream:
        context = tls_context() if target.is_tls else None
        stream, is_open = None, False
        try:
            stream = opened = await self.connect(target.host, target.port, deadline)
            if context is not None:
                opened = await TLSStream.open(stream, context, target.host, deadline)
            is_open = True
        except OSError as error:
            timed_out = isinstance(error, TimeoutError)
            raise (ConnectTimeout if timed_out else ConnectError)(str(error)) from error
        finally:
            if stream is not None and not is_open:
                stream.close()
        return opened

    def _take(self) -> Stream | None:
        while True:
            try:
                expires, stream = self._idle.pop()
            except IndexError:
                return None
            if expires > time.monotonic() and not stream.has_unread():
                return stream
            stream.close()

    def _put(self, stream: Stream) -> None:
        now = time.monotonic()
        self._idle.append((now + KEEPALIVE_EXPIRY, stream))
        try:
            while self._idle[0][0] <= now:
                self._idle.popleft()[1].close()
        except IndexError:
            pass  # another thread has just taken the last one
        if self._closed:  # while the call was in progress
            self.close_idle()


class _LostWhileIdleError(Exception):
    """A connection that was idle broke before a byte of the response had arrived."""


async def _send(stream: Stream, message: MaskedBytes, deadline: Deadline) -> bool:
    try:
        return await stream.send(message, deadline)
    except TimeoutError as error:
        raise WriteTimeout(str(error)) from error
    except OSError as error:
        if raised_by_handler(error):
            raise
        return False  # the server may have responded already


def is_refusal(error: BaseException | None) -> bool:
    """Whether an address did not accept, so that the next may be tried."""
    return isinstance(error, OSError) and not raised_by_handler(error)


def is_readable(descriptor: int) -> bool:
    """Whether a socket has bytes to read, or its end."""
    if sys.platform == "win32":  # pragma: no cover -- there descriptors may have any value
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def tls_context() -> ssl.SSLContext:
    """The TLS settings of every connection in this process, made when first needed.

    Raises:
        ConfigurationError: The certificates that the environment names cannot be used.
    """
    try:
        return _tls_context(
            process.number, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        )
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigurationError(
            "The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used: "
            f"{redact(str(error))}."
        ) from None


# For each process: OpenSSL locks a context while a thread shakes hands with it, and a child of
# `fork()` would wait for that thread.
@functools.cache
def _tls_context(_process: int, file: str | None, directory: str | None) -> ssl.SSLContext:
    """The TLS settings that httpx has."""
    if file:
        context = ssl.create_default_context(cafile=file)
    elif directory:
        context = ssl.create_default_context(capath=directory)
    else:
        import certifi  # noqa: PLC0415 -- plain http needs none

        context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
