"""Network streams under trio, of which none is left open, whenever a task is cancelled.

They are httpcore's own, which forget a connection whose TLS handshake is cancelled, by a deadline
for one: it is closed here.
"""

import ssl
from collections.abc import Iterable
from typing import cast

import httpcore

from chatkit_sessions._concurrency.event_loop import shielded

from .connections import SocketOption


class TrioBackend(httpcore.AsyncNetworkBackend):
    """Opens connections that are closed when their TLS handshake fails in whatever way."""

    def __init__(self) -> None:
        self._sockets = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect, trying a host's addresses side by side."""
        return TrioStream(
            await self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        )


class TrioStream(httpcore.AsyncNetworkStream):
    """One connection; see the backend."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes."""
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Shake hands, or close the connection."""
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with shielded():
                await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> object:
        """Tell of the socket what httpcore asks."""
        return self._stream.get_extra_info(info)
