"""Calls through httpx's public `send`: those that something watches or mocks, and those of proxies.

Below httpx's transport they use the library's own connections. Through a proxy, and where httpcore
is patched, they use httpcore's pools, over streams of the library's own.

What httpx or httpcore calls blocks in one of their two kinds of client and is awaited in the other.
"""

import functools
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

import httpcore
import httpx

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import CONNECT_TIMEOUT, Deadline
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._redaction import plain_headers

from .clients import aread_body, read_body
from .connections import Connections, Stream, TLSStream, tls_context
from .exchange import Target, encode, target_of
from .own_client import HTTPCORE, is_patched
from .proxies import Proxy

P = ParamSpec("P")
T = TypeVar("T")
_Either: TypeAlias = T | Awaitable[T]
"""A result, or what httpx or httpcore awaits for it."""

_CALL: Final = "chatkit_sessions.call"
"""The extension of a request that holds its `_Call`, and of a response that holds ours."""
# As many connections as there are calls. None is kept: httpcore reuses one on which bytes are left
# over, which the next user's call would get.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_NO_AUTH: Final = httpx.Auth()
"""Leaves a request as it is; without it an httpx client looks for credentials in the URL."""
_CODING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


async def send(
    request: Request,
    deadline: Deadline,
    connections: Connections,
    proxy: Proxy | None,
    *,
    is_async: bool,
) -> Response | None:
    """Send a request and read its response; None once the deadline has passed."""
    call = _Call(target_of(request.url), deadline, connections, [], is_async)
    needs_pool = proxy is not None or is_patched(HTTPCORE[is_async])
    client = _pooled_client(call, proxy) if needs_pool else _client(_kind(call))
    try:
        built = _build(request, call)
        sent = client.send(built, stream=True, auth=_NO_AUTH, follow_redirects=False)
        response = await sent if is_async else sent
        try:
            own: object = response.extensions.get(_CALL)
            if isinstance(own, Response):
                return own
            if is_async:
                return await aread_body(response, request, deadline)
            return read_body(response, request, deadline)
        finally:
            await response.aclose() if is_async else response.close()
            # It refers back to its response, and cycles cost a busy process many collections.
            del response.stream
    finally:
        call.close()


class _Call(NamedTuple):
    """What the parts below httpx need to know of a call."""

    target: Target
    deadline: Deadline
    connections: Connections
    opened: list[Stream]
    """Connections of this call alone."""
    is_async: bool

    def run(
        self, flow: Callable[P, Coroutine[object, None, T]], *args: P.args, **kwargs: P.kwargs
    ) -> _Either[T]:
        """Run a flow as httpx wants it."""
        return flow(*args, **kwargs) if self.is_async else run_blocking(flow, *args, **kwargs)

    def close(self) -> None:
        for stream in self.opened:
            stream.close()


def _build(request: Request, call: _Call) -> httpx.Request:
    """Build a request of exactly what it is given, and of what HTTP itself wants."""
    connect, read, write, pool = call.deadline.timeouts()
    timeout = {"connect": connect, "read": read, "write": write, "pool": pool}
    body = b"" if request.body is None else request.body.get_secret_value()
    headers = {"Host": call.target.host_header.decode(), **plain_headers(request.headers)}
    if request.method == "POST":
        headers["Content-Length"] = str(len(body))
    extensions = {"timeout": timeout, _CALL: call}
    url = _parsed(request.url)
    return httpx.Request(request.method, url, headers=headers, content=body, extensions=extensions)


_parsed: Final = functools.lru_cache(maxsize=16)(httpx.URL)


# The library's own connections below httpx's transports. httpx has no public way to pass a pool.


def _kind(call: _Call) -> Any:  # noqa: ANN401 -- of either kind
    return httpx.AsyncClient if call.is_async else httpx.Client


@functools.cache  # for each class: a tool may put one of its own in the place of httpx's
def _client(kind: Any) -> Any:  # noqa: ANN401 -- of either kind
    client = kind(transport=_AsyncTransport() if kind is httpx.AsyncClient else _Transport())
    # All calls share it: a cookie for one user must not travel with another's.
    client._cookies = _NoCookies()  # noqa: SLF001 -- the setter would make a jar of its own
    return client


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Take nothing out of a response."""


class _Transport(httpx.HTTPTransport):
    def __init__(self) -> None:
        self._pool = cast("httpcore.ConnectionPool", _Pool())


class _AsyncTransport(httpx.AsyncHTTPTransport):
    def __init__(self) -> None:
        self._pool = cast("httpcore.AsyncConnectionPool", _Pool())


class _Pool:
    """Sends what httpx's transports hand down, with whatever those who watch have added to it."""

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        body = b"".join(cast("Iterable[bytes]", request.stream))
        return run_blocking(self._send, request, body)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        body = b"".join([part async for part in cast("AsyncIterable[bytes]", request.stream)])
        return await self._send(request, body)

    async def _send(self, request: httpcore.Request, body: bytes) -> httpcore.Response:
        extensions: dict[str, object] = vars(request)["extensions"]
        call = cast("_Call", extensions[_CALL])
        message = encode(request.method, request.url.target, request.headers, body)
        response = await call.connections.send(call.target, message, call.deadline, sent=len(body))
        # As those who watch see it: its body has been read, and decoded.
        return httpcore.Response(
            response.status_code,
            headers=[each for each in response.headers.items() if each[0] not in _CODING],
            content=response.body.get_secret_value(),
            extensions={_CALL: response},
        )


# The library's own streams below httpcore's pools, which leave one open whose negotiation with a
# proxy fails. The network backend is a private name; a test over real sockets watches it.


def _pooled_client(call: _Call, proxy: Proxy | None) -> Any:  # noqa: ANN401 -- of either kind
    kind: Any = httpx.AsyncHTTPTransport if call.is_async else httpx.HTTPTransport
    transport = kind(verify=tls_context(), limits=_LIMITS, proxy=proxy and proxy.settings)
    transport._pool._network_backend = _Backend(call)  # noqa: SLF001 -- see above
    return _kind(call)(transport=transport)


@contextmanager
def _as_httpcore(
    error: type[httpcore.NetworkError], timeout: type[httpcore.TimeoutException]
) -> Generator[None, None, None]:
    try:
        yield
    except TimeoutError as raised:
        raise timeout(str(raised)) from raised
    except OSError as raised:
        raise error(str(raised)) from raised


_CONNECTING: Final = httpcore.ConnectError, httpcore.ConnectTimeout
_READING: Final = httpcore.ReadError, httpcore.ReadTimeout
_WRITING: Final = httpcore.WriteError, httpcore.WriteTimeout


class _Backend:
    """A network backend of httpcore's, of either kind."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> "_Either[_Stream]":
        return self._call.run(self._connect, host, port)

    async def _connect(self, host: str, port: int) -> "_Stream":
        with _as_httpcore(*_CONNECTING):
            deadline = self._call.deadline.at_most(CONNECT_TIMEOUT)
            stream = await self._call.connections.connect(host, port, deadline)
        self._call.opened.append(stream)
        return _Stream(stream, self._call)


class _Stream:
    """A network stream of httpcore's, of either kind; its call closes what is below."""

    def __init__(self, stream: Stream, call: _Call) -> None:
        self._stream = stream
        self._call = call

    def read(self, *_: object, **__: object) -> _Either[bytes]:
        return self._call.run(self._read)

    async def _read(self) -> bytes:
        with _as_httpcore(*_READING):
            return await self._stream.receive(self._call.deadline)

    def write(self, buffer: bytes, *_: object, **__: object) -> _Either[None]:
        return self._call.run(self._write, buffer)

    async def _write(self, buffer: bytes) -> None:
        with _as_httpcore(*_WRITING):
            await self._stream.send(buffer, self._call.deadline)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str, *_: object, **__: object
    ) -> "_Either[_Stream]":
        return self._call.run(self._start_tls, ssl_context, server_hostname)

    async def _start_tls(self, context: ssl.SSLContext, host: str) -> "_Stream":
        with _as_httpcore(*_CONNECTING):
            deadline = self._call.deadline.at_most(CONNECT_TIMEOUT)
            tls = await TLSStream.open(self._stream, context, host, deadline)
        return _Stream(tls, self._call)

    def get_extra_info(self, _: str) -> None:
        """Nothing that httpcore asks for is known, such as whether HTTP/2 was agreed on."""

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        self._stream.close()
