"""The library's own connections under httpx, for synchronous code.

httpx looks through all its connections for every request, and merges settings into each that are
empty here. Without either, many threads cost no more than one.
"""

from collections.abc import Callable, Iterable
from typing import Final, cast

import httpcore
import httpx

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._redaction import MaskedBytes

from .clients import read_body, read_whole
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
from .sync_connection import Connection, ResponseStream
from .sync_network import DeadlineBackend, DeadlineStream


class Client:
    """What this library asks of an HTTP client, without what it has no use for.

    Each call goes through `send` of a real one, where instruments and mocks expect it.
    """

    def __init__(self, http_client: httpx.Client, close_idle: Callable[[], None]) -> None:
        self._http_client = http_client
        self.close_idle: Final = close_idle
        self._requests = RequestFactory()

    def send(self, request: Request, deadline: Deadline) -> Response | None:
        """Send a request and read its response; None once the deadline has passed."""
        response = self._http_client.send(
            self._requests.build(request, deadline.live_timeouts()),
            stream=True,
            auth=NO_AUTH,
            follow_redirects=False,
        )
        try:
            stream: object = response.extensions.get(OWN_STREAM)
            if isinstance(stream, ResponseStream) and (whole := stream.take_whole()) is not None:
                return read_whole(response, request, whole)
            return read_body(response, request, deadline)
        finally:
            response.close()
            # It refers back to its response, and cycles cost a busy process many collections.
            del response.stream

    def close(self) -> None:
        """Close the connections."""
        self._http_client.close()


class Cookieless(httpx.Client):
    """An httpx client that keeps nothing of its responses."""

    @property
    def cookies(self) -> httpx.Cookies:
        """A jar that stays empty."""
        return NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        """Take none."""


class Transport(httpx.HTTPTransport):
    """httpx's own transport, but for where its connections come from.

    httpx has no public way to pass a pool, nor a network backend; a test over real sockets watches
    the two private names. What instruments httpx finds the methods that it expects.
    """

    def __init__(self, proxy: httpx.Proxy | None) -> None:
        self._pool = ConnectionPool() if proxy is None else ProxiedPool(proxy)

    def close_idle(self) -> None:
        """Close the connections that no call uses."""
        if isinstance(self._pool, ConnectionPool):
            self._pool.close_idle()


class ProxiedPool(httpcore.ConnectionPool):
    """Connections through a proxy: httpcore's, each for one request.

    httpcore reuses a connection on which bytes are left over, and leaves one open whose negotiation
    with a SOCKS proxy fails.
    """

    def __init__(self, proxy: httpx.Proxy) -> None:
        self._through = proxy

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection is closed with the response, or when a stage fails."""
        transport = httpx.HTTPTransport(
            verify=tls_context(), limits=PROXY_LIMITS, proxy=self._through
        )
        backend = RememberingBackend()
        pool = cast("httpcore.ConnectionPool", pool_of(transport, backend))
        try:
            return pool.handle_request(request)
        except BaseException:
            for stream in backend.opened:
                stream.close()
            raise

    def close(self) -> None:
        """Close nothing: no connection is idle."""


class RememberingBackend(DeadlineBackend):
    """Opens connections and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[DeadlineStream] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> DeadlineStream:
        """Connect."""
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        self.opened.append(stream)
        return stream


class ConnectionPool(httpcore.ConnectionPool):
    """As many connections as there are calls at once; see the module."""

    def __init__(self) -> None:
        self._backend = DeadlineBackend()
        self._idle = IdleConnections[Connection]()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request; its connection comes back when the response is closed.

        A connection that was idle and breaks before a byte of the response says nothing about the
        server: the request is sent once more, on a new connection.
        """
        if is_mocked(httpcore.HTTPConnection.handle_request):
            return httpcore.ConnectionPool(
                ssl_context=tls_context(), max_keepalive_connections=0
            ).handle_request(request)
        stream: object = request.stream
        if isinstance(stream, RequestBody):
            body = stream.content
        else:
            body = MaskedBytes(b"".join(cast("Iterable[bytes]", stream)))
        connection = self._take()
        if connection is not None:
            try:
                return connection.exchange(request, body, self._put)
            except ConnectionLost:
                connection = None
        return self._connect(request).exchange(request, body, self._put)

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as its response is closed."""
        self._closed = True
        for connection in self._idle.take_all():
            connection.close()

    def _connect(self, request: httpcore.Request) -> Connection:
        timeout = timeouts_of(request)["connect"]
        host, port, tls = address_of(request.url)
        stream = self._backend.connect_tcp(host, port, timeout)
        return Connection(stream if tls is None else stream.start_tls(tls, host, timeout))

    def close_idle(self) -> None:
        """Close what is idle now."""
        for connection in self._idle.take_all():
            connection.close()

    def _take(self) -> Connection | None:
        while (connection := self._idle.take()) is not None:
            if not connection.has_unread():
                return connection
            connection.close()
        return None

    def _put(self, connection: Connection, *, reusable: bool) -> None:
        for done_with in self._idle.put(connection) if reusable else [connection]:
            done_with.close()
        if self._closed:  # while the call was in progress
            self.close()


def client_factory(proxy: Proxy | None) -> Callable[[], Client]:
    """Return what makes the clients that ours uses: one for each process."""
    settings = proxy and proxy.settings

    def make() -> Client:
        transport = Transport(settings)
        return Client(Cookieless(transport=transport), transport.close_idle)

    return make
