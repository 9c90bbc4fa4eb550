"""Our own connections under httpx, for synchronous code.

httpx looks through all its connections at every request, and adds settings to each that are empty
here. Without either, many threads cost no more than one.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Protocol, cast

import httpcore
import httpx

from chatkit_sessions._config.deadline import Timeouts

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
from .sync_network import DeadlineBackend


class Client:
    """What this library asks of an HTTP client, without what it has no use for.

    Each call goes through `send` of a real one, where instruments and mocks expect it.
    """

    def __init__(self, http_client: httpx.Client) -> None:
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

    def close(self) -> None:
        """Close the connections."""
        self._http_client.close()


class Exchange:
    """One request and its answer, which has to be read inside."""

    __slots__ = ("_http_client", "_request", "_response")

    _response: httpx.Response

    def __init__(self, http_client: httpx.Client, request: httpx.Request) -> None:
        self._http_client = http_client
        self._request = request

    def __enter__(self) -> httpx.Response:
        self._response = self._http_client.send(
            self._request, auth=NO_AUTH, follow_redirects=False, stream=True
        )
        return self._response

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._response.close()
        # It refers back to its response, and cycles cost a busy process many garbage collections.
        del self._response.stream


class Cookieless(httpx.Client):
    """An httpx client that keeps nothing of its answers."""

    @property
    def cookies(self) -> httpx.Cookies:
        """A jar that stays empty."""
        return NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        """Take none."""


class Transport(httpx.HTTPTransport):
    """httpx's own transport, but for where its connections come from.

    httpx has no public way to hand them in, nor what opens them; a test over real sockets watches
    the two private names. What instruments httpx finds the methods that it expects.
    """

    def __init__(self, proxy: httpx.Proxy | None) -> None:
        if proxy is None:
            self._pool = ConnectionPool()
        else:
            super().__init__(verify=tls_context(), limits=PROXY_LIMITS, proxy=proxy)
            self._pool._network_backend = DeadlineBackend()  # noqa: SLF001 -- see above


class ConnectionPool(httpcore.ConnectionPool):
    """As many connections as there are calls at once; see the module."""

    def __init__(self) -> None:
        self._opener = DeadlineBackend()
        self._idle = IdleConnections[httpcore.ConnectionInterface]()
        self._ended = False

    def create_connection(self, origin: httpcore.Origin) -> httpcore.HTTPConnection:
        """Make a connection, which opens with its first request."""
        return httpcore.HTTPConnection(
            origin,
            ssl_context=tls_context() if origin.scheme == b"https" else None,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            network_backend=self._opener,
        )

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection comes back when the answer is closed."""
        connection = self._take() or self.create_connection(request.url.origin)
        try:
            response = connection.handle_request(request)
        except BaseException:
            connection.close()
            raise
        body = cast("Body", response.stream)
        response.stream = LentBody(body, functools.partial(self._put, connection))
        return response

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as its answer is closed."""
        self._ended = True
        for connection in self._idle.take_all():
            connection.close()

    def _take(self) -> httpcore.ConnectionInterface | None:
        while (connection := self._idle.take()) is not None:
            if not connection.has_expired():
                return connection
            connection.close()
        return None

    def _put(self, connection: httpcore.ConnectionInterface) -> None:
        for done_with in self._idle.put(connection) if connection.is_idle() else [connection]:
            done_with.close()
        if self._ended:  # while the call was on its way
            self.close()


class Body(Protocol):
    """What an answer's body is to httpcore, and to what imitates it."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class LentBody:
    """An answer's body that gives its connection back when it is closed."""

    def __init__(self, body: Body, give_back: Callable[[], None]) -> None:
        self._body = body
        self._give_back = give_back

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """End the body, whether or not it has been read."""
        try:
            self._body.close()
        finally:
            self._give_back()


def client_factory(base_url: str) -> Callable[[], Client]:
    """Return what makes the clients that ours uses: one for each process."""
    proxy = proxy_for(base_url)
    return lambda: Client(Cookieless(transport=Transport(proxy)))
