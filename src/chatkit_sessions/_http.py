"""What this library asks of an HTTP client, whoever made it, and what it tells of its failures."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from ._body import Body
from ._config import is_loopback
from ._protocol import Answer, Request
from ._redaction import redact
from .errors import APIConnectionError, APITimeoutError, ConfigurationError

Timeouts: TypeAlias = tuple[float | None, float | None, float | None, float | None]
"""Seconds to connect, to read, to write and to wait for a free connection."""

SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
"""What httpcore passes on to `setsockopt`."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that connecting takes at the most, each time."""

TRANSPORT_ERRORS: Final = (httpx.TransportError, httpx.DecodingError, OSError)
"""What an HTTP client raises where no usable answer came. OSError: some let the system's pass."""


class HTTPResponse(Protocol):
    """The part of an answer that both kinds of client share."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def is_stream_consumed(self) -> bool: ...


class SyncHTTPResponse(HTTPResponse, Protocol):
    """An answer whose body has not been read."""

    def iter_raw(self) -> Iterator[bytes]: ...
    def iter_bytes(self) -> Iterator[bytes]: ...


class AsyncHTTPResponse(HTTPResponse, Protocol):
    """An answer whose body has not been read."""

    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...


class SyncHTTPClient(Protocol):
    """An `httpx.Client`, as far as it is used."""

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
    ) -> AbstractContextManager[SyncHTTPResponse]: ...

    def close(self) -> None: ...


class AsyncHTTPClient(Protocol):
    """An `httpx.AsyncClient`, as far as it is used."""

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
    ) -> AbstractAsyncContextManager[AsyncHTTPResponse]: ...

    async def aclose(self) -> None: ...


class TimeLeft(float):
    """The seconds left at one moment, which can tell them again at a later one.

    It passes through HTTP clients as the number it is; our own connections ask it before each wait,
    so that an answer of which a byte comes now and then ends with the call's deadline all the same.
    """

    __slots__ = ("deadline",)

    deadline: "Deadline"

    @classmethod
    def of(cls, deadline: "Deadline") -> "TimeLeft | None":
        """The time that the deadline leaves; None for no limit."""
        seconds = deadline.remaining()
        if seconds is None:
            return None
        left = cls(seconds)
        left.deadline = deadline
        return left

    def now(self) -> float:
        """The seconds left by now, 0 or more."""
        return self.deadline.remaining() or 0.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which a call ends, with all its requests and waits.

    Attributes:
        clock: A monotonic clock, in seconds.
        end: Its reading at the end of the call; None for no limit.
    """

    clock: Callable[[], float]
    end: float | None

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float]) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(clock, None if seconds is None else clock() + seconds)

    def at_most(self, seconds: float) -> "Deadline":
        """This deadline, or that many seconds from now if it is earlier."""
        end = self.clock() + seconds
        return Deadline(self.clock, end if self.end is None else min(end, self.end))

    def remaining(self) -> float | None:
        """Seconds left, 0 or more; None for no limit."""
        return None if self.end is None else max(0.0, self.end - self.clock())

    @staticmethod
    def error() -> APITimeoutError:
        """What ends a call whose deadline has passed."""
        return APITimeoutError(
            "No complete answer came within the time that the call had.",
            hint="Check that the API is reachable, or allow the call more time: `timeout`.",
        )

    def timeouts(self) -> Timeouts:
        """The same as an HTTP client takes it."""
        left = TimeLeft.of(self)
        return (TimeLeft.of(self.at_most(CONNECT_TIMEOUT)), left, left, left)


def read_body(response: SyncHTTPResponse, deadline: Deadline) -> Answer | None:
    """Read an answer's body within its bound; None once the deadline has passed.

    It does not raise that itself: a traceback would hold this frame, and with it a piece of the
    body, in which the new secret may stand.
    """
    decoded = response.is_stream_consumed
    body = Body(response.status_code, response.headers, decoded=decoded)
    for chunk in response.iter_bytes() if decoded else response.iter_raw():
        if not body.add(chunk):
            break
        if deadline.remaining() == 0:
            return None
    return body.answer()


async def aread_body(response: AsyncHTTPResponse, deadline: Deadline) -> Answer | None:
    """Read an answer's body as `read_body` does."""
    decoded = response.is_stream_consumed
    body = Body(response.status_code, response.headers, decoded=decoded)
    async for chunk in response.aiter_bytes() if decoded else response.aiter_raw():
        if not body.add(chunk):
            break
        if deadline.remaining() == 0:
            return None
    return body.answer()


def connection_error(error: httpx.RequestError | OSError, request: Request) -> APIConnectionError:
    """Make one of ours of an HTTP client's error, which stays its cause but loses its request.

    The request, and the local variables of the client's frames, hold the API key in plain text.
    """
    host = urlsplit(request.url).netloc
    text = redact(str(error), request.secrets)
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, httpx.RequestError):
        error.request = httpx.Request(request.method, request.url)
    error.args = (text,)
    error.__cause__ = error.__context__ = None
    if isinstance(error, httpx.TimeoutException):
        mine: APIConnectionError = APITimeoutError(
            f"{host} gave no complete answer in time ({told}).",
            hint=f"Check that this machine reaches {host}, or allow the call more time.",
        )
    else:
        mine = APIConnectionError(
            f"No complete answer came from {host} ({told}).",
            hint=f"Check that this machine reaches {host} (name resolution, firewall, proxy "
            "settings, certificates), and OPENAI_BASE_URL (or `base_url`).",
            answered=isinstance(error, httpx.DecodingError),
        )
    mine.__cause__ = error.with_traceback(None)
    return mine


# As many connections as there are calls: waiting for one would only turn into a timeout.
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100)


def no_cookies() -> CookieJar:
    """A jar that keeps nothing: what one user's answer sets must not travel with another's call."""
    return CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))


def proxy_for(base_url: str) -> httpx.Proxy | None:
    """The proxy that the environment names for a URL, by the usual variables.

    Plain http goes to this machine and through no proxy, which would carry the key off it.

    Raises:
        ConfigurationError: The proxy's URL cannot be used.
    """
    parts = urlsplit(base_url)
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return None
    proxies = getproxies()
    url = proxies.get(parts.scheme) or proxies.get("all")
    if not url or proxy_bypass(parts.netloc):
        return None
    try:
        return httpx.Proxy(url if "://" in url else f"http://{url}")
    except (httpx.InvalidURL, ValueError):
        pass
    raise ConfigurationError(
        f"The proxy that the environment names for {parts.scheme} cannot be used: check "
        f"{parts.scheme.upper()}_PROXY and ALL_PROXY."
    )


def check_url(base_url: str) -> None:
    """Refuse a base URL that an HTTP client would refuse at each call."""
    try:
        _ = httpx.URL(base_url).host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigurationError(
            f"The base URL is none that can be called: {redact(str(error))}."
        ) from None


def check_sync_client(http_client: object) -> None:
    """Refuse what is no `httpx.Client`."""
    if isinstance(http_client, httpx.AsyncClient):
        raise ConfigurationError(
            "`http_client` is an httpx.AsyncClient: ChatKitClient takes an httpx.Client, "
            "AsyncChatKitClient takes this one."
        )
    if not isinstance(http_client, httpx.Client):
        raise ConfigurationError(
            f"`http_client` must be an httpx.Client, not {type(http_client).__name__}."
        )


def check_async_client(http_client: object) -> None:
    """Refuse what is no `httpx.AsyncClient`."""
    if isinstance(http_client, httpx.Client):
        raise ConfigurationError(
            "`http_client` is an httpx.Client: AsyncChatKitClient takes an httpx.AsyncClient, "
            "ChatKitClient takes this one."
        )
    if not isinstance(http_client, httpx.AsyncClient):
        raise ConfigurationError(
            f"`http_client` must be an httpx.AsyncClient, not {type(http_client).__name__}."
        )
