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
    "hang": "the local API does not answer",
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


def answer_to(
    handle: Callable[[Request], Response], request: ClientRequest, body: bytes
) -> Response:
    """Hand a request to the local API; the answer claims the length that its fault makes it."""
    answer = handle(
        Request(
            request.method,
            request.url.raw_path.decode("ascii"),
            Headers(request.headers.multi_items()),
            body,
        )
    )
    if answer.fault is None:
        return answer
    length = str(length_claimed(answer.body, answer.fault))
    headers = Headers({**answer.headers, "content-length": length}.items())
    return Response(answer.status_code, headers, answer.body, answer.fault)


def pieces_received(answer: Response) -> Iterator[bytes]:
    """What arrives of a body, without any waiting: of one that drips, a single byte."""
    for piece in pieces_sent(answer.body, answer.fault):
        yield piece
        if answer.fault == "drip":
            return
