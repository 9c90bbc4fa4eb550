"""The transport that calls the local API in process, for httpx and for httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import httpx

from .faults import LOSES_THE_REQUEST, length_claimed, pieces_sent
from .wire import FakeResponse, Headers, ServiceRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .faults import Fault

WORDS: Final[dict[Fault, str]] = {
    "reset": "the local API resets the connection",
    "hang": "the local API does not respond",
    "drip": "the local API drips",
    "truncate": "the local API closed the connection within the body",
}
"""The message of the error that a fault raises in process; the other fault raises none."""


class _URL(Protocol):
    @property
    def raw_path(self) -> bytes: ...


class _HeaderFields(Protocol):
    def multi_items(self) -> list[tuple[str, str]]: ...


class _Request(Protocol):
    """A request of httpx, or of httpx2."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> _URL: ...
    @property
    def headers(self) -> _HeaderFields: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


Q = TypeVar("Q", bound=_Request)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Family(Protocol[R_co]):
    """The names of the package `httpx` or `httpx2` that are used here."""

    @property
    def Response(self) -> Callable[..., R_co]: ...  # noqa: D102, N802 -- httpx's name
    @property
    def ReadError(self) -> Callable[..., Exception]: ...  # noqa: D102, N802 -- as above
    @property
    def ReadTimeout(self) -> Callable[..., Exception]: ...  # noqa: D102, N802 -- as above
    @property
    def RemoteProtocolError(self) -> Callable[..., Exception]: ...  # noqa: D102, N802 -- as above


class FamilyTransport(Generic[Q, R]):
    """Responds to the requests of a client, sync or async, without a socket.

    Args:
        family: The package that the client is of.
        handle: Returns the response to a request.
    """

    def __init__(self, family: Family[R], handle: Callable[[ServiceRequest], FakeResponse]) -> None:
        self._new_response = family.Response
        self._errors: dict[Fault, Callable[..., Exception]] = {
            "reset": family.ReadError,
            "hang": family.ReadTimeout,
            "drip": family.ReadTimeout,
            "truncate": family.RemoteProtocolError,
        }
        self._handle = handle

    def handle_request(self, request: Q) -> R:
        """Respond to a request of a sync client."""
        response = self._respond(request, request.read())
        if response.fault is None:
            return self._made(response, response.body)
        return self._made(response, self._pieces_received(request, response))

    async def handle_async_request(self, request: Q) -> R:
        """Respond to a request of an async client."""
        response = self._respond(request, await request.aread())
        if response.fault is None:
            return self._made(response, response.body)

        async def pieces_received() -> AsyncIterator[bytes]:
            for piece in self._pieces_received(request, response):
                yield piece

        return self._made(response, pieces_received())

    def _respond(self, request: Q, body: bytes) -> FakeResponse:
        path = request.url.raw_path.decode("ascii")
        headers = Headers(request.headers.multi_items())
        response = self._handle(ServiceRequest(request.method, path, headers, body))
        if response.fault is not None and response.fault in LOSES_THE_REQUEST:
            raise self._error(response.fault, request)
        return response

    def _made(self, response: FakeResponse, content: Any) -> R:  # noqa: ANN401 -- bytes or iterators
        headers = dict(response.headers)
        if response.fault is not None:
            headers["content-length"] = str(length_claimed(response.body, response.fault))
        return self._new_response(response.status_code, headers=headers, content=content)

    def _pieces_received(self, request: Q, response: FakeResponse) -> Iterator[bytes]:
        """The pieces of a body that arrive without waiting: of one that drips, a single byte."""
        for piece in pieces_sent(response.body, response.fault):
            yield piece
            if response.fault == "drip":
                break
        if response.fault is not None and response.fault in self._errors:
            raise self._error(response.fault, request)

    def _error(self, fault: Fault, request: Q) -> Exception:
        return self._errors[fault](WORDS[fault], request=request)


class FakeTransport(
    FamilyTransport[httpx.Request, httpx.Response],
    httpx.BaseTransport,
    httpx.AsyncBaseTransport,
):
    """Responds to the requests of an `httpx.Client` or an `httpx.AsyncClient` without a socket.

    Args:
        handle: Returns the response to a request.
    """

    def __init__(self, handle: Callable[[ServiceRequest], FakeResponse]) -> None:
        super().__init__(httpx, handle)
