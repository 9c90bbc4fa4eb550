"""An httpx transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from .faults import LOSES_THE_REQUEST
from .in_process import WORDS, answer_to, pieces_received

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .faults import Fault
    from .wire import Request, Response

_ERRORS: Final[dict[Fault, type[httpx.TransportError]]] = {
    "reset": httpx.ReadError,
    "hang": httpx.ReadTimeout,
    "drip": httpx.ReadTimeout,
    "truncate": httpx.RemoteProtocolError,
}


class FakeTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers the requests of an `httpx.Client` or an `httpx.AsyncClient` without a socket.

    Args:
        handle: From a request to its answer.
    """

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._handle = handle

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of a sync client."""
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of an async client."""
        return self._answer(request, await request.aread())

    def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        answer = answer_to(self._handle, request, body)
        if answer.fault is None:
            return httpx.Response(
                answer.status_code, headers=dict(answer.headers), content=answer.body
            )
        if answer.fault in LOSES_THE_REQUEST:
            raise _ERRORS[answer.fault](WORDS[answer.fault], request=request)
        stream = _FaultyStream(answer, answer.fault, request)
        return httpx.Response(answer.status_code, headers=dict(answer.headers), stream=stream)


class _FaultyStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that does not arrive as it should, without any waiting."""

    def __init__(self, answer: Response, fault: Fault, request: httpx.Request) -> None:
        self._answer = answer
        self._fault: Fault = fault
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield from pieces_received(self._answer)
        if self._fault in _ERRORS:
            raise _ERRORS[self._fault](WORDS[self._fault], request=self._request)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
