"""Network streams under trio."""

from collections.abc import Iterable
from typing import cast

import httpcore

from .async_streams import AsyncStream
from .connections import SocketOption


class TrioBackend(httpcore.AsyncNetworkBackend):
    """Opens connections by httpcore's own means."""

    def __init__(self) -> None:
        self._sockets = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncStream:
        """Connect, trying a host's addresses side by side."""
        return TrioStream(
            await self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        )


class TrioStream(AsyncStream):
    """One connection, which reads no more than it is asked for."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes."""
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        await self._stream.write(buffer, timeout)

    def has_unread(self) -> bool:
        """Whether unread bytes, or the end, have been received."""
        return bool(self._stream.get_extra_info("is_readable"))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        """Return what httpcore asks of the connection."""
        return self._stream.get_extra_info(info)
