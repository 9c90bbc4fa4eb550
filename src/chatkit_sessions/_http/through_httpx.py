"""Calls through httpx's public `send`: those that something watches or mocks, and those of proxies.

Below httpx's transport they use the library's own connections. Through a proxy, and where httpcore
is patched, they use httpcore's pools, over streams of the library's own.
"""

import functools
import ssl
from collections.abc import AsyncIterable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, cast

import httpcore
import httpx

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._config.deadline import CONNECT_TIMEOUT, Deadline
from chatkit_sessions._redaction import MaskedBytes, plain_headers

from .clients import aread_body, read_body
from .connections import Connections, Stream, TLSStream, tls_context
from .exchange import Target, encode, target_of
from .own_client import HTTPCORE, is_patched
from .proxies import Proxy

_CALL: Final = "chatkit_sessions.call"
"""The extension of a request that holds its `_Call`, and of a response that holds ours."""
# As many connections as there are calls. None is kept: httpcore reuses one on which bytes are left
# over, which the next user's call would get.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_NO_AUTH: Final = httpx.Auth()
"""Leaves a request as it is; without it an httpx client looks for credentials in the URL."""
_CODING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


async def send(
    request: Request, deadline: Deadline, connections: Connections, proxy: Proxy | None
) -> Response | None:
    """Send a request and read its response; None once the deadline has passed."""
    call = _Call(target_of(request.url), deadline, connections, [])
    client = _client_of(httpx.Client)
    if proxy is not None or is_patched(HTTPCORE[False]):
        client = httpx.Client(transport=_pooled(httpx.HTTPTransport, proxy, _Backend(call)))
    built = _build(request, call)
    try:
        response = client.send(built, stream=True, auth=_NO_AUTH, follow_redirects=False)
        try:
            own: object = response.extensions.get(_CALL)
            return own if isinstance(own, Response) else read_body(response, request, deadline)
        finally:
            response.close()
            # It refers back to its response, and cycles cost a busy process many collections.
            del response.stream
    finally:
        call.close()


async def asend(
    request: Request, deadline: Deadline, connections: Connections, proxy: Proxy | None
) -> Response | None:
    """Send a request as `send` does, for asynchronous code."""
    call = _Call(target_of(request.url), deadline, connections, [])
    client = _client_of(httpx.AsyncClient)
    if proxy is not None or is_patched(HTTPCORE[True]):
        transport = _pooled(httpx.AsyncHTTPTransport, proxy, _AsyncBackend(call))
        client = httpx.AsyncClient(transport=transport)
    built = _build(request, call)
    try:
        response = await client.send(built, stream=True, auth=_NO_AUTH, follow_redirects=False)
        try:
            own: object = response.extensions.get(_CALL)
            if isinstance(own, Response):
                return own
            return await aread_body(response, request, deadline)
        finally:
            await response.aclose()
            del response.stream  # as in `send`
    finally:
        call.close()


class _Call(NamedTuple):
    """What the parts below httpx need to know of a call."""

    target: Target
    deadline: Deadline
    connections: Connections
    opened: list[Stream]
    """Connections of this call alone."""

    async def connect(self, host: str, port: int) -> Stream:
        stream = await self.connections.connect(host, port, self.deadline.at_most(CONNECT_TIMEOUT))
        self.opened.append(stream)
        return stream

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


# One client for all calls. A cookie for one user must not travel with another's call; and a tool
# may put a class of its own in the place of httpx's.


@functools.cache
def _client_of(kind: type[httpx.Client] | type[httpx.AsyncClient]) -> Any:  # noqa: ANN401 -- of either kind
    transport = _Transport() if issubclass(kind, httpx.Client) else _AsyncTransport()
    cookieless: Any = type("Client", (_Cookieless, kind), {})
    return cookieless(transport=transport)


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Take nothing out of a response."""


class _Cookieless:
    @property
    def cookies(self) -> httpx.Cookies:
        """A jar that stays empty."""
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        """Take none."""


_NO_COOKIES: Final = _NoCookies()


# The library's own connections below httpx's transports. httpx has no public way to pass a pool.


class _Transport(httpx.HTTPTransport):
    def __init__(self) -> None:
        self._pool = _Pool()


class _AsyncTransport(httpx.AsyncHTTPTransport):
    def __init__(self) -> None:
        self._pool = _AsyncPool()


class _Pool(httpcore.ConnectionPool):
    def __init__(self) -> None:
        pass

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        body = b"".join(cast("Iterable[bytes]", request.stream))
        call, message = _encode(request, body)
        send = call.connections.send
        return _answer(run_blocking(send, call.target, message, call.deadline, sent=len(body)))


class _AsyncPool(httpcore.AsyncConnectionPool):
    def __init__(self) -> None:
        pass

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        body = b"".join([part async for part in cast("AsyncIterable[bytes]", request.stream)])
        call, message = _encode(request, body)
        send = call.connections.send
        return _answer(await send(call.target, message, call.deadline, sent=len(body)))


def _encode(request: httpcore.Request, body: bytes) -> tuple[_Call, MaskedBytes]:
    """Encode a request with whatever those who watch have added to it."""
    extensions: dict[str, object] = vars(request)["extensions"]
    message = encode(request.method, request.url.target, request.headers, body)
    return cast("_Call", extensions[_CALL]), message


def _answer(response: Response) -> httpcore.Response:
    """The response as those who watch see it: its body has been read, and decoded."""
    return httpcore.Response(
        response.status_code,
        headers=[each for each in response.headers.items() if each[0] not in _CODING],
        content=response.body.get_secret_value(),
        extensions={_CALL: response},
    )


# The library's own streams below httpcore's pools, which leave one open whose negotiation with a
# proxy fails. The network backend is a private name; a test over real sockets watches it.


def _pooled(kind: type[Any], proxy: Proxy | None, backend: "_Backend | _AsyncBackend") -> Any:  # noqa: ANN401 -- of either kind
    transport = kind(verify=tls_context(), limits=_LIMITS, proxy=proxy and proxy.settings)
    transport._pool._network_backend = backend  # noqa: SLF001 -- see above
    return transport


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


class _Backend(httpcore.NetworkBackend):
    def __init__(self, call: _Call) -> None:
        self._call = call

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> "_Stream":
        with _as_httpcore(*_CONNECTING):
            stream = run_blocking(self._call.connect, host, port)
        return _Stream(stream, self._call.deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def close(self) -> None:
        self._stream.close()

    def read(self, *_: object, **__: object) -> bytes:
        with _as_httpcore(*_READING):
            return run_blocking(self._stream.receive, self._deadline)

    def write(self, buffer: bytes, *_: object, **__: object) -> None:
        with _as_httpcore(*_WRITING):
            run_blocking(self._stream.send, buffer, self._deadline)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        *_: object,
        **__: object,
    ) -> "_Stream":
        with _as_httpcore(*_CONNECTING):
            deadline = self._deadline.at_most(CONNECT_TIMEOUT)
            tls = run_blocking(TLSStream.open, self._stream, ssl_context, server_hostname, deadline)
        return _Stream(tls, self._deadline)


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, call: _Call) -> None:
        self._call = call

    async def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> "_AsyncStream":
        with _as_httpcore(*_CONNECTING):
            stream = await self._call.connect(host, port)
        return _AsyncStream(stream, self._call.deadline)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    async def read(self, *_: object, **__: object) -> bytes:
        with _as_httpcore(*_READING):
            return await self._stream.receive(self._deadline)

    async def write(self, buffer: bytes, *_: object, **__: object) -> None:
        with _as_httpcore(*_WRITING):
            await self._stream.send(buffer, self._deadline)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        *_: object,
        **__: object,
    ) -> "_AsyncStream":
        with _as_httpcore(*_CONNECTING):
            deadline = self._deadline.at_most(CONNECT_TIMEOUT)
            tls = await TLSStream.open(self._stream, ssl_context, server_hostname, deadline)
        return _AsyncStream(tls, self._deadline)

    async def aclose(self) -> None:
        self._stream.close()
