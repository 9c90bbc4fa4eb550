"""What the library's own connections under httpx share, synchronous or not."""

import codecs
import functools
import os
import select
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

import httpcore
import httpx

from chatkit_sessions._api.protocol import Headers, Request
from chatkit_sessions._config.deadline import Timeouts
from chatkit_sessions._redaction import MaskedBytes, plain_headers, redact
from chatkit_sessions.errors import ConfigurationError

from .h11_parser import ResponseHead

# Imports what looking up a host imports otherwise: a child of `fork()` would wait forever for a
# module that another thread was just importing.
codecs.lookup("idna")

C = TypeVar("C")

SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
"""What httpcore passes on to `setsockopt`."""

OWN_STREAM: Final = "chatkit_sessions.stream"
"""The extension of a response that holds its body's stream without what httpx wraps around it."""

KEEPALIVE_EXPIRY: Final = 5.0
"""Seconds for which an idle connection is kept, as httpx does by default."""

# Through a proxy. As many connections as there are calls: waiting for one would only turn into a
# timeout. None is kept: httpcore reuses one on which bytes are left over, which the next user's
# call would get.
PROXY_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class ConnectionLost(Exception):  # noqa: N818 -- never leaves this package
    """A connection that was idle broke before a byte of the response had arrived."""


class IdleConnections(Generic[C]):
    """Connections that wait for a request: the last to come is the first to go.

    So those that are not needed any more go unused and expire, and finding one takes no search,
    however many there are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: deque[tuple[float, C]] = deque()

    def take(self) -> C | None:
        """Take out the connection that came last, if it has not waited for too long."""
        now = self._clock()
        with self._lock:
            fresh = self._held and self._held[-1][0] > now
            return self._held.pop()[1] if fresh else None

    def put(self, connection: C) -> list[C]:
        """Keep a connection; return those that have waited for too long, to be closed."""
        now = self._clock()
        expired: list[C] = []
        with self._lock:
            self._held.append((now + KEEPALIVE_EXPIRY, connection))
            while self._held and self._held[0][0] <= now:
                expired.append(self._held.popleft()[1])
        return expired

    def take_all(self) -> list[C]:
        """Take out every connection."""
        with self._lock:
            held = [connection for _, connection in self._held]
            self._held.clear()
        return held


def tls_context() -> ssl.SSLContext:
    """The TLS settings of every connection in this process, made when first needed.

    Raises:
        ConfigurationError: The certificates that the environment names cannot be used.
    """
    try:
        return _tls_context(
            os.getpid(), os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        )
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigurationError(
            "The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used: "
            f"{redact(str(error))}."
        ) from None


# For each process: OpenSSL locks a context while a thread shakes hands with it, and a child of
# `fork()` would wait for that thread.
@functools.cache
def _tls_context(_process: int, _file: str | None, _directory: str | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


NO_AUTH: Final = httpx.Auth()
"""Leaves a request as it is; without it an httpx client looks for credentials in the URL."""


class NoCookies(httpx.Cookies):
    """A jar that keeps nothing: a cookie for one user must not travel with another's call."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Take nothing out of a response."""


NO_COOKIES: Final = NoCookies()


class RequestBody(httpx.ByteStream):
    """A request's body, which our own connections take as it is."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content: Final = MaskedBytes(content)


class PlainRequest(httpx.Request):
    """A request whose body stands in its stream: what records or mocks calls looks at `content`."""

    @property
    def content(self) -> bytes:
        """The body."""
        stream = self.stream
        return stream.content if isinstance(stream, RequestBody) else super().content


class RequestFactory:
    """Builds requests of exactly what it is given, and of what HTTP itself wants.

    An httpx client would first merge its own settings into each request, all of which are empty
    here, and that takes as long as everything else that this library does. The headers of the last
    request are kept, because most calls of a client have the same ones.
    """

    def __init__(self) -> None:
        self._last: tuple[Headers, str, httpx.Headers] | None = None

    def build(self, request: Request, timeouts: Timeouts) -> httpx.Request:
        """Build a request."""
        target = _parsed(request.url)
        last = self._last
        if last is None or last[0] is not request.headers or last[1] != request.url:
            headers = {"Host": target.netloc.decode(), **plain_headers(request.headers)}
            last = self._last = (request.headers, request.url, httpx.Headers(headers))
        body = RequestBody(b"" if request.body is None else request.body.get_secret_value())
        connect, read, write, pool = timeouts
        by_name = {"connect": connect, "read": read, "write": write, "pool": pool}
        built = PlainRequest(
            request.method, target, headers=last[2], stream=body, extensions={"timeout": by_name}
        )
        if request.method == "POST":
            built.headers["Content-Length"] = str(len(body.content))
        return built


# Most calls go to one URL; those of single sessions come and go.
_parsed: Final = functools.lru_cache(maxsize=16)(httpx.URL)


def validate_url(base_url: str) -> None:
    """Refuse a base URL that an HTTP client would refuse at each call."""
    try:
        _ = httpx.URL(base_url).host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(f"The base URL cannot be called: {redact(str(error))}.") from None


def is_readable(descriptor: int) -> bool:
    """Whether a socket has something to read, be it its end."""
    if sys.platform == "win32":  # pragma: no cover -- there descriptors may have any value
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def address_of(url: httpcore.URL) -> tuple[str, int, ssl.SSLContext | None]:
    """The host and port to connect to, and the TLS settings; None for plain http."""
    tls = tls_context() if url.scheme == b"https" else None
    return url.host.decode("ascii"), url.port or (443 if tls else 80), tls


def timeouts_of(request: httpcore.Request) -> Mapping[str, float | None]:
    """By `connect`, `read` and `write`: seconds, or None for no limit."""
    timeouts: Mapping[str, float | None] = request.extensions["timeout"]  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType] -- its types
    return timeouts  # pyright: ignore[reportUnknownVariableType] -- as above


def pool_of(
    transport: httpx.HTTPTransport | httpx.AsyncHTTPTransport,
    backend: httpcore.NetworkBackend | httpcore.AsyncNetworkBackend,
) -> object:
    """The pool of one of httpx's transports, which opens its connections with that backend.

    httpx has no public way to either; a test over real sockets watches the two private names.
    """
    pool = transport._pool  # noqa: SLF001 -- see above
    setattr(pool, "_network_backend", backend)  # noqa: B010 -- see above
    return pool


def is_mocked(method: Callable[..., object]) -> bool:
    """Whether a mock, such as respx, stands in the place of a method of httpcore's."""
    return not str(getattr(method, "__module__", "")).startswith("httpcore.")


class PlainResponse(httpcore.Response):
    """A response of which httpcore need not check everything once more."""

    def __init__(
        self,
        head: ResponseHead,
        stream: Iterable[bytes] | AsyncIterable[bytes],
        network_stream: httpcore.NetworkStream | httpcore.AsyncNetworkStream,
    ) -> None:
        self.status = head.status_code
        self.headers = head.headers
        self.stream = stream
        self.extensions = {
            "http_version": b"HTTP/" + head.http_version,
            "reason_phrase": head.reason,
            "network_stream": network_stream,
            OWN_STREAM: stream,
        }
