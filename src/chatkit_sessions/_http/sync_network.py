"""Network streams whose every wait ends with the call's deadline, for synchronous code.

httpx gives each wait for bytes the full timeout, so a response that arrives byte by byte never
ends. Here each wait gets the time that the call has left.
"""

import socket
import ssl
from collections.abc import Iterable
from typing import Final, cast

import httpcore

from chatkit_sessions._config.deadline import TimeLeft

from .connections import SocketOption

# Written in pieces, so that a server which reads ever so slowly meets the deadline, too.
_PIECE: Final = 64 * 1024
_AS_CONNECTING: Final = -1.0
"""For httpcore's negotiation with a SOCKS proxy, which passes no timeout."""


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose every wait ends with the call's deadline."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> "DeadlineStream":
        """Try a host's addresses in turn, each with its share of the time that is left."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        while True:
            address = addresses.pop(0)
            left = time_left(timeout, httpcore.ConnectTimeout)
            share = None if left is None else left / (len(addresses) + 1)
            try:
                stream = self._sockets.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise
            else:
                return DeadlineStream(stream, timeout)


class DeadlineStream(httpcore.NetworkStream):
    """One connection; see the module."""

    def __init__(self, stream: httpcore.NetworkStream, connect_timeout: float | None) -> None:
        self._stream = stream
        self._connect_timeout = connect_timeout

    def read(self, max_bytes: int, timeout: float | None = _AS_CONNECTING) -> bytes:
        """Wait for bytes until the deadline."""
        timeout = self._connect_timeout if timeout == _AS_CONNECTING else timeout
        return self._stream.read(max_bytes, time_left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = _AS_CONNECTING) -> None:
        """Send bytes until the deadline."""
        timeout = self._connect_timeout if timeout == _AS_CONNECTING else timeout
        for start in range(0, len(buffer), _PIECE):
            piece = buffer[start : start + _PIECE]
            self._stream.write(piece, time_left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "DeadlineStream":
        """Shake hands until the deadline, which CPython keeps; on failure, close the connection."""
        try:
            left = time_left(timeout, httpcore.ConnectTimeout)
            stream = self._stream.start_tls(ssl_context, server_hostname, left)
        except BaseException:
            self.close()
            raise
        return DeadlineStream(stream, timeout)

    def get_extra_info(self, info: str) -> object:
        """Return what httpcore asks of the connection."""
        return self._stream.get_extra_info(info)


def socket_of(stream: httpcore.NetworkStream) -> socket.socket:
    """The socket under a connection, with its TLS if it has any."""
    sock: object = stream.get_extra_info("socket")
    return cast("socket.socket", sock)


def time_left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    """What a timeout leaves by now; a plain number is taken as it is.

    Raises:
        httpcore.TimeoutException: The call's deadline has passed; of the given class.
    """
    if not isinstance(timeout, TimeLeft):
        return timeout
    left = timeout.now()
    if left == 0:
        raise error("the call's deadline has passed")
    return left
