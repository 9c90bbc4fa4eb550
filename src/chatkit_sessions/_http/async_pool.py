"""The library's own connections under httpx, for asynchronous code.

Here cancelling ends whatever waits, so that the deadline needs no help from the connections; but a
call that is cancelled at the wrong moment must not leave its connection open.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Final, Protocol, cast

import httpcore
import httpx

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.tasks import shielded, sleep, under_trio
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._redaction import MaskedBytes

from .async_connection import Connection, ResponseStream
from .async_streams import AsyncStream
from .asyncio_network import AsyncioBackend
from .clients import aread_body, read_whole
from .connections import (
    NO_AUTH,
    NO_COOKIES,
    OWN_STREAM,
    PROXY_LIMITS,
    ConnectionLost,
    IdleConnections,
    RequestBody,
    RequestFactory,
    SocketOption,
    address_of,
    is_mocked,
    pool_of,
    timeouts_of,
    tls_context,
)
from .proxies import Proxy
from .trio_network import TrioBackend


class Client:
    """What this library asks of an HTTP client, without what it has no use for.

    Each call goes through `send` of a real one, where instruments and mocks expect it.
    """

    def __init__(
        self, http_client: httpx.AsyncClient, close_idle: Callable[[], Awaitable[None]]
    ) -> None:
        self._http_client = http_client
        self.close_idle: Final = close_idle
        self._requests = RequestFactory()

    async def send(self, request: Request, deadline: Deadline) -> Response | None:
        """Send a request and read its response; None once the deadline has passed."""
        response = await self._http_client.send(
            self._requests.build(request, deadline.timeouts()),
            stream=True,
            auth=NO_AUTH,
            follow_redirects=False,
        )
        try:
            stream: object = response.extensions.get(OWN_STREAM)
            if isinstance(stream, ResponseStream) and (whole := stream.take_whole()) is not None:
                return read_whole(response, request, whole)
            return await aread_body(response, request, deadline)
        finally:
            await response.aclose()
            # It refers back to its response, and cycles cost a busy process many collections.
            del response.stream

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http_client.aclose()


class Cookieless(httpx.AsyncClient):
    """An httpx client that keeps nothing of its responses."""

    @property
    def cookies(self) -> httpx.Cookies:
        """A jar that stays empty."""
        return NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        """Take none."""


class Transport(httpx.AsyncHTTPTransport):
    """httpx's own transport, but for where its connections come from; as in `sync_pool`."""

    def __init__(self, proxy: httpx.Proxy | None) -> None:
        self._pool = ConnectionPool() if proxy is None else ProxiedPool(proxy)

    async def close_idle(self) -> None:
        """Close the connections that no call uses."""
        if isinstance(self._pool, ConnectionPool):
            await self._pool.close_idle()


class Backend(Protocol):
    """What opens connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncStream: ...


def network_backend() -> Backend:
    """What opens connections under the running event loop."""
    return TrioBackend() if under_trio() else AsyncioBackend()


class ProxiedPool(httpcore.AsyncConnectionPool):
    """Connections through a proxy; as in `sync_pool`."""

    def __init__(self, proxy: httpx.Proxy) -> None:
        self._through = proxy

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection is closed with the response, or when a stage fails."""
        transport = httpx.AsyncHTTPTransport(
            verify=tls_context(), limits=PROXY_LIMITS, proxy=self._through
        )
        backend = RememberingBackend()
        pool = cast("httpcore.AsyncConnectionPool", pool_of(transport, backend))
        try:
            return await pool.handle_async_request(request)
        except BaseException:
            with shielded():
                for stream in backend.opened:
                    await stream.aclose()
            raise

    async def aclose(self) -> None:
        """Close nothing: no connection is idle."""


class RememberingBackend(httpcore.AsyncNetworkBackend):
    """Opens connections and remembers them."""

    def __init__(self) -> None:
        self.opened: list[AsyncStream] = []
        self._backend = network_backend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncStream:
        """Connect."""
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        self.opened.append(stream)
        return stream


class ConnectionPool(httpcore.AsyncConnectionPool):
    """As many connections as there are calls at once, found without a search."""

    def __init__(self) -> None:
        self._backend = network_backend()
        self._idle = IdleConnections[Connection]()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection comes back when the response is closed.

        A connection that was idle and breaks before a byte of the response says nothing about the
        server: the request is sent once more, on a new connection.
        """
        if is_mocked(httpcore.AsyncHTTPConnection.handle_async_request):
            return await httpcore.AsyncConnectionPool(
                ssl_context=tls_context(), max_keepalive_connections=0
            ).handle_async_request(request)
        body = await _body_of(request)
        connection = await self._take()
        if connection is not None:
            try:
                return await connection.exchange(request, body, self._put)
            except ConnectionLost:
                connection = None
        connection = await self._connect(request)
        return await connection.exchange(request, body, self._put)

    async def aclose(self) -> None:
        """Close what is idle now, and what is in use as soon as its response is closed."""
        self._closed = True
        await _close(self._idle.take_all())
        await sleep(0)  # asyncio closes sockets on its next turn

    async def _connect(self, request: httpcore.Request) -> Connection:
        timeout = timeouts_of(request)["connect"]
        host, port, tls = address_of(request.url)
        stream = await self._backend.connect_tcp(host, port, timeout)
        return Connection(stream if tls is None else await stream.start_tls(tls, host, timeout))

    async def close_idle(self) -> None:
        """Close what is idle now."""
        await _close(self._idle.take_all())

    async def _take(self) -> Connection | None:
        while (connection := self._idle.take()) is not None:
            if not connection.has_unread():
                return connection
            await _close([connection])
        return None

    async def _put(self, connection: Connection, *, reusable: bool) -> None:
        usable = reusable and not self._closed
        if done_with := self._idle.put(connection) if usable else [connection]:
            await _close(done_with)


async def _body_of(request: httpcore.Request) -> MaskedBytes:
    stream: object = request.stream
    if isinstance(stream, RequestBody):
        return stream.content
    parts = cast("AsyncIterable[bytes]", stream)
    return MaskedBytes(b"".join([part async for part in parts]))


async def _close(connections: Iterable[Connection]) -> None:
    """Close them all, even if the task is cancelled: nobody else will."""
    with shielded():
        for connection in connections:
            await connection.aclose()


def client_factory(proxy: Proxy | None) -> Callable[[], Client]:
    """Return what makes the clients that ours uses: one for each event loop, inside it."""
    settings = proxy and proxy.settings

    def make() -> Client:
        transport = Transport(settings)
        return Client(Cookieless(transport=transport), transport.close_idle)

    return make
