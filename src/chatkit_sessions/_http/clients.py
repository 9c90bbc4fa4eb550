"""What this library asks of an HTTP client, whoever made it, and what it tells of its failures.

httpx has a maintained fork, httpx2, with the same names in a package of its own. A client of either
can be supplied, so that what a client raises is looked up in the family that it belongs to.
"""

import importlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._config.deadline import Deadline, Timeouts
from chatkit_sessions._redaction import redact
from chatkit_sessions.errors import APIConnectionError, APITimeoutError, ConfigurationError

from .body import Body

FAMILIES: Final = ("httpx", "httpx2")


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
    """An `httpx.Client` or `httpx2.Client`, as far as it is used."""

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
    """An `httpx.AsyncClient` or `httpx2.AsyncClient`, as far as it is used."""

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


class _RequestError(Protocol):
    """What httpx and httpx2 call RequestError, as far as it is written to."""

    request: object


class _Family(Protocol):
    """The names of the package `httpx` or `httpx2` that are used here."""

    @property
    def Request(self) -> type: ...  # noqa: N802 -- httpx's name
    @property
    def RequestError(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def TransportError(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def TimeoutException(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def DecodingError(self) -> type[Exception]: ...  # noqa: N802 -- as above


@dataclass(frozen=True, slots=True)
class HTTPErrors:
    """What the clients of one family raise where no usable answer came.

    Attributes:
        raised: All of it. With OSError: some clients let the system's own errors pass.
    """

    _family: _Family
    raised: tuple[type[Exception], ...]

    @classmethod
    def of(cls, family: str) -> "HTTPErrors":
        """What the clients of `httpx` or `httpx2` raise."""
        module = cast("_Family", importlib.import_module(family))
        return cls(module, (module.TransportError, module.DecodingError, OSError))

    def translate(self, error: Exception, request: Request) -> APIConnectionError:
        """Make one of ours of a client's error, which stays its cause but loses its request.

        The request, and the local variables of the client's frames, hold the API key in plain text.
        """
        host = urlsplit(request.url).netloc
        text = redact(str(error), request.secrets)
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if isinstance(error, self._family.RequestError):
            bare: object = self._family.Request(request.method, request.url)
            cast("_RequestError", error).request = bare
        error.args = (text,)
        error.__cause__ = error.__context__ = None
        if isinstance(error, self._family.TimeoutException):
            mine: APIConnectionError = APITimeoutError(
                f"{host} gave no complete answer in time ({told}).",
                hint=f"Check that this machine reaches {host}, or allow the call more time.",
            )
        else:
            mine = APIConnectionError(
                f"No complete answer came from {host} ({told}).",
                hint=f"Check that this machine reaches {host} (name resolution, firewall, proxy "
                "settings, certificates), and OPENAI_BASE_URL (or `base_url`).",
                answered=isinstance(error, self._family.DecodingError),
            )
        mine.__cause__ = error.with_traceback(None)
        return mine


def read_body(response: SyncHTTPResponse, deadline: Deadline) -> Response | None:
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
    return body.response()


async def aread_body(response: AsyncHTTPResponse, deadline: Deadline) -> Response | None:
    """Read an answer's body as `read_body` does."""
    decoded = response.is_stream_consumed
    body = Body(response.status_code, response.headers, decoded=decoded)
    async for chunk in response.aiter_bytes() if decoded else response.aiter_raw():
        if not body.add(chunk):
            break
        if deadline.remaining() == 0:
            return None
    return body.response()


def errors_of_sync_client(http_client: object) -> HTTPErrors:
    """What a supplied client raises.

    Raises:
        ConfigurationError: It is no `Client` of httpx or httpx2, nor of a class made from one.
    """
    return HTTPErrors.of(_family(http_client, "Client", wanted_by="ChatKitClient"))


def errors_of_async_client(http_client: object) -> HTTPErrors:
    """What a supplied client raises.

    Raises:
        ConfigurationError: It is no `AsyncClient` of httpx or httpx2, nor of a class made from one.
    """
    return HTTPErrors.of(_family(http_client, "AsyncClient", wanted_by="AsyncChatKitClient"))


def _family(http_client: object, kind: str, *, wanted_by: str) -> str:
    """Found by names, so that only the family in use is ever imported."""
    bases = {
        (base.__module__.partition(".")[0], base.__name__) for base in type(http_client).__mro__
    }
    for family in FAMILIES:
        if (family, kind) in bases:
            return family
    other, taken_by = (
        ("AsyncClient", "AsyncChatKitClient") if kind == "Client" else ("Client", "ChatKitClient")
    )
    for family in FAMILIES:
        if (family, other) in bases:
            raise ConfigurationError(
                f"`http_client` is an {family}.{other}: {wanted_by} takes an {family}.{kind}, "
                f"{taken_by} takes this one."
            )
    raise ConfigurationError(
        f"`http_client` must be an httpx.{kind} or an httpx2.{kind}, "
        f"not {type(http_client).__name__}."
    )
