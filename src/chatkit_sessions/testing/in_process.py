"""What a transport of either HTTP family does in process, as far as it is the same for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from .faults import length_claimed, pieces_sent
from .wire import Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .faults import Fault

WORDS: Final[dict[Fault, str]] = {
    "reset": "the local API resets the connection",
    "hang": "the local API does not respond",
    "drip": "the local API drips",
    "truncate": "the local API closed the connection within the body",
}
"""What the error says with which a fault ends in process; the others end well."""


class _URL(Protocol):
    @property
    def raw_path(self) -> bytes: ...


class _HeaderFields(Protocol):
    def multi_items(self) -> list[tuple[str, str]]: ...


class ClientRequest(Protocol):
    """A request of httpx, or of httpx2."""

    @property
    def method(self) -> str: ...  # noqa: D102 - as in both
    @property
    def url(self) -> _URL: ...  # noqa: D102 - as in both
    @property
    def headers(self) -> _HeaderFields: ...  # noqa: D102 - as in both


def respond_to(
    handle: Callable[[Request], Response], request: ClientRequest, body: bytes
) -> Response:
    """Pass a request to the local API; a fault may change the length that the response claims."""
    response = handle(
        Request(
            request.method,
            request.url.raw_path.decode("ascii"),
            Headers(request.headers.multi_items()),
            body,
        )
    )
    if response.fault is None:
        return response
    length = str(length_claimed(response.body, response.fault))
    headers = Headers({**response.headers, "content-length": length}.items())
    return Response(response.status_code, headers, response.body, response.fault)


def pieces_received(response: Response) -> Iterator[bytes]:
    """What arrives of a body, without any waiting: of one that drips, a single byte."""
    for piece in pieces_sent(response.body, response.fault):
        yield piece
        if response.fault == "drip":
            return
