"""The interface of an HTTP client, of httpx or of its fork httpx2."""

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any, Final, Protocol

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline, Timeouts
from chatkit_sessions._redaction import plain_headers, type_of
from chatkit_sessions.errors import ConfigurationError

from .exchange import Body
from .failures import HTTPErrors

FAMILIES: Final = ("httpx", "httpx2")
_OURS: Final = {"Client": "ChatKitClient", "AsyncClient": "AsyncChatKitClient"}
"""The client of this library that takes each of theirs."""


class HTTPResponse(Protocol):
    """The part of a response that both kinds of client share."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def is_stream_consumed(self) -> bool: ...


class SyncHTTPResponse(HTTPResponse, Protocol):
    """A response whose body has not been read."""

    def iter_raw(self) -> Iterator[bytes]: ...
    def iter_bytes(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncHTTPResponse(HTTPResponse, Protocol):
    """A response whose body has not been read."""

    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class _HTTPClient(Protocol):
    @property
    def is_closed(self) -> bool: ...

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout: Timeouts,
    ) -> Any: ...  # noqa: ANN401 -- a request of either family


class SyncHTTPClient(_HTTPClient, Protocol):
    """An `httpx.Client` or `httpx2.Client`, as far as it is used."""

    def send(
        self,
        request: Any,  # noqa: ANN401 -- as above
        *,
        stream: bool,
        auth: None,
        follow_redirects: bool,
    ) -> SyncHTTPResponse: ...

    def close(self) -> None: ...


class AsyncHTTPClient(_HTTPClient, Protocol):
    """An `httpx.AsyncClient` or `httpx2.AsyncClient`, as far as it is used."""

    async def send(
        self,
        request: Any,  # noqa: ANN401 -- as above
        *,
        stream: bool,
        auth: None,
        follow_redirects: bool,
    ) -> AsyncHTTPResponse: ...

    async def aclose(self) -> None: ...


class SuppliedClient:
    """Sends through the user's client.

    The client gets a request that is built already. Its own `stream` would hold the headers, with
    the key, in a local variable for as long as the call takes.
    """

    def __init__(self, http_client: SyncHTTPClient) -> None:
        self._http_client = http_client

    def check_open(self) -> None:
        """Raise RuntimeError if the user's client is closed, which is a mistake of the program."""
        _check_open(self._http_client)

    def send(self, request: Request, deadline: Deadline) -> Awaitable[Response | None]:
        """Send a request and read its response; None once the deadline has passed.

        The request is sent now, and not when the result is awaited: Python turns a StopIteration of
        the application's code, such as a mock's, into RuntimeError if it leaves a coroutine.
        """
        built = _build(self._http_client, request, deadline)
        response = self._http_client.send(built, stream=True, auth=None, follow_redirects=False)
        try:
            read = read_body(response, request, deadline)
        finally:
            response.close()
        return _ready(read)


async def _ready(response: Response | None) -> Response | None:
    return response


class AsyncSuppliedClient:
    """Sends through the user's client, as `SuppliedClient` does."""

    def __init__(self, http_client: AsyncHTTPClient) -> None:
        self._http_client = http_client

    def check_open(self) -> None:
        """Raise RuntimeError if the user's client is closed, which is a mistake of the program."""
        _check_open(self._http_client)

    async def send(self, request: Request, deadline: Deadline) -> Response | None:
        """Send a request and read its response; None once the deadline has passed."""
        built = _build(self._http_client, request, deadline)
        response = await self._http_client.send(
            built, stream=True, auth=None, follow_redirects=False
        )
        try:
            return await aread_body(response, request, deadline)
        finally:
            await response.aclose()


def _build(http_client: _HTTPClient, request: Request, deadline: Deadline) -> object:
    return http_client.build_request(
        request.method,
        request.url,
        content=None if request.body is None else request.body.get_secret_value(),
        headers=plain_headers(request.headers),
        timeout=deadline.timeouts(),
    )


def _check_open(http_client: _HTTPClient) -> None:
    if http_client.is_closed:
        raise RuntimeError("The `http_client` that was passed to this client is closed.")


def read_body(response: SyncHTTPResponse, request: Request, deadline: Deadline) -> Response | None:
    """Read a response's body within its limit; None if the deadline has passed.

    It does not raise the error itself: a traceback would contain this frame, and so a part of the
    body, with the new secret.
    """
    decoded = response.is_stream_consumed
    body = _body(response, request, decoded=decoded)
    for chunk in response.iter_bytes() if decoded else response.iter_raw():
        if not body.add(chunk):
            break
        if deadline.remaining() == 0:
            return None
    return body.response()


async def aread_body(
    response: AsyncHTTPResponse, request: Request, deadline: Deadline
) -> Response | None:
    """Read a response's body as `read_body` does."""
    decoded = response.is_stream_consumed
    body = _body(response, request, decoded=decoded)
    async for chunk in response.aiter_bytes() if decoded else response.aiter_raw():
        if not body.add(chunk):
            break
        if deadline.remaining() == 0:
            return None
    return body.response()


def _body(response: HTTPResponse, request: Request, *, decoded: bool) -> Body:
    sent = 0 if request.body is None else len(request.body)
    return Body(response.status_code, response.headers, decoded=decoded, sent=sent)


def errors_of_client(http_client: object, *, is_async: bool) -> HTTPErrors:
    """What a supplied client raises.

    Args:
        http_client: The user's.
        is_async: Which of a family's two clients it must be.

    Raises:
        ConfigurationError: It is neither that client of httpx or httpx2, nor of a subclass.
    """
    kind, other = ("AsyncClient", "Client") if is_async else ("Client", "AsyncClient")
    # By names, so that only the family in use is ever imported.
    bases = {
        (base.__module__.partition(".")[0], base.__name__) for base in type(http_client).__mro__
    }
    for family in FAMILIES:
        if (family, kind) in bases:
            return HTTPErrors(family)
        if (family, other) in bases:
            raise ConfigurationError(
                f"`http_client` is an {family}.{other}: {_OURS[kind]} takes an {family}.{kind}, "
                f"{_OURS[other]} takes this one."
            )
    raise ConfigurationError(
        f"`http_client` must be an httpx.{kind} or an httpx2.{kind}, not {type_of(http_client)}."
    )
