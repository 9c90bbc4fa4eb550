"""Our own connections under httpx, for asynchronous code.

Here cancelling ends whatever waits, so that the deadline needs no help from the connections; but a
call that is cancelled at the wrong moment must not leave its connection open.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol, cast

import httpcore
import httpx

from chatkit_sessions._concurrency.event_loop import shielded, sleep, under_trio
from chatkit_sessions._config.deadline import Timeouts

from .asyncio_network import AsyncioBackend
from .connections import (
    KEEPALIVE_EXPIRY,
    NO_AUTH,
    NO_COOKIES,
    PROXY_LIMITS,
    IdleConnections,
    plain_request,
    proxy_for,
    tls_context,
)
from .trio_network import TrioBackend


class Client:
    """What this library asks of an HTTP client, without what it has no use for.

    Each call goes through `send` of a real one, where instruments and mocks expect it.
    """

    def __init__(self, http_client: httpx.AsyncClient) -> None:
        self._http_client = http_client

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout: Timeouts,
        auth: None,
        follow_redirects: bool,
    ) -> "Exchange":
        """Prepare a call; entering it sends it."""
        del auth, follow_redirects  # none and no: a real client would need to be told
        request = plain_request(method, url, content=content, headers=headers, timeout=timeout)
        return Exchange(self._http_client, request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http_client.aclose()


class Exchange:
    """One request and its answer, which has to be read inside."""

    __slots__ = ("_http_client", "_request", "_response")

    _response: httpx.Response

    def __init__(self, http_client: httpx.AsyncClient, request: httpx.Request) -> None:
        self._http_client = http_client
        self._request = request

    async def __aenter__(self) -> httpx.Response:
        self._response = await self._http_client.send(
            self._request, auth=NO_AUTH, follow_redirects=False, stream=True
        )
        return self._response

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._response.aclose()
        # It refers back to its response, and cycles cost a busy process many garbage collections.
        del self._response.stream


class Cookieless(httpx.AsyncClient):
    """An httpx client that keeps nothing of its answers."""

    @property
    def cookies(self) -> httpx.Cookies:
        """A jar that stays empty."""
        return NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        """Take none."""


class Transport(httpx.AsyncHTTPTransport):
    """httpx's own transport, but for where its connections come from; as in `_sync_transport`."""

    def __init__(self, proxy: httpx.Proxy | None) -> None:
        if proxy is None:
            self._pool = ConnectionPool()
        else:
            super().__init__(verify=tls_context(), limits=PROXY_LIMITS, proxy=proxy)
            self._pool._network_backend = opener()  # noqa: SLF001 -- see there


def opener() -> httpcore.AsyncNetworkBackend:
    """What opens connections under the running event loop."""
    return TrioBackend() if under_trio() else AsyncioBackend()


class ConnectionPool(httpcore.AsyncConnectionPool):
    """As many connections as there are calls at once, found without a search."""

    def __init__(self) -> None:
        self._opener = opener()
        self._idle = IdleConnections[httpcore.AsyncConnectionInterface]()
        self._ended = False

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """Make a connection, which opens with its first request."""
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=tls_context() if origin.scheme == b"https" else None,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            network_backend=self._opener,
        )

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection comes back when the answer is closed."""
        connection = await self._take() or self.create_connection(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await _close([connection])
            raise
        body = cast("Body", response.stream)
        response.stream = LentBody(body, functools.partial(self._put, connection))
        return response

    async def aclose(self) -> None:
        """Close what is idle now, and what is in use as soon as its answer is closed."""
        self._ended = True
        await _close(self._idle.take_all())
        await sleep(0)  # asyncio closes sockets on its next turn

    async def _take(self) -> httpcore.AsyncConnectionInterface | None:
        while (connection := self._idle.take()) is not None:
            if not connection.has_expired():
                return connection
            await _close([connection])
        return None

    async def _put(self, connection: httpcore.AsyncConnectionInterface) -> None:
        usable = connection.is_idle() and not self._ended
        await _close(self._idle.put(connection) if usable else [connection])


async def _close(connections: Iterable[httpcore.AsyncConnectionInterface]) -> None:
    """Close them all, even if the task is cancelled: nobody else will."""
    with shielded():
        for connection in connections:
            await connection.aclose()


class Body(Protocol):
    """What an answer's body is to httpcore, and to what imitates it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class LentBody:
    """An answer's body that gives its connection back when it is closed."""

    def __init__(self, body: Body, give_back: Callable[[], Awaitable[None]]) -> None:
        self._body = body
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)

    async def aclose(self) -> None:
        """End the body, whether or not it has been read.

        Where the task is cancelled meanwhile, httpcore leaves the connection as if in use; it is
        then not idle, and is closed.
        """
        try:
            await self._body.aclose()
        finally:
            await self._give_back()


def client_factory(base_url: str) -> Callable[[], Client]:
    """Return what makes the clients that ours uses: one for each event loop, inside it."""
    proxy = proxy_for(base_url)
    return lambda: Client(Cookieless(transport=Transport(proxy)))
