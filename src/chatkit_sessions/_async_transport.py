"""Our own connections under httpx, for asynchronous code.

Here cancelling ends whatever waits, so that the deadline needs no help from the connections. But
httpcore forgets a connection whose TLS handshake is cancelled, by a deadline for one: it is closed
here.
"""

import ssl
from collections.abc import Callable, Iterable
from typing import cast

import httpcore
import httpx

from ._http import LIMITS, SocketOption, no_cookies, proxy_for


def client_factory(base_url: str) -> Callable[[], httpx.AsyncClient]:
    """Return what makes the clients that ours uses: one for each event loop, one TLS context."""
    tls = httpx.create_ssl_context()
    proxy = proxy_for(base_url)

    def make() -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=tls, limits=LIMITS, proxy=proxy)
        # httpx has no public way to hand a backend in; a test over real sockets watches the names.
        transport._pool._network_backend = ClosingBackend()  # noqa: SLF001 -- see above
        return httpx.AsyncClient(transport=transport, cookies=no_cookies())

    return make


class ClosingBackend(httpcore.AsyncNetworkBackend):
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
        return ClosingStream(
            await self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        )


class ClosingStream(httpcore.AsyncNetworkStream):
    """One connection; see the module."""

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
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> object:
        """Tell of the socket what httpcore asks."""
        return self._stream.get_extra_info(info)
