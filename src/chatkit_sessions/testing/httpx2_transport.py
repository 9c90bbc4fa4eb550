"""An httpx2 transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .faults import LOSES_THE_REQUEST
from .in_process import WORDS, answer_to, pieces_received

try:
    import httpx2
except ModuleNotFoundError as _error:
    raise ImportError("A transport for httpx2 needs it: pip install httpx2") from _error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .faults import Fault
    from .wire import Request, Response

_ERRORS: Final[dict[Fault, type[httpx2.TransportError]]] = {
    "reset": httpx2.ReadError,
    "hang": httpx2.ReadTimeout,
    "drip": httpx2.ReadTimeout,
    "truncate": httpx2.RemoteProtocolError,
}


class FakeHTTPX2Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers the requests of an `httpx2.Client` or an `httpx2.AsyncClient` without a socket.

    Args:
        handle: From a request to its answer.
    """

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._handle = handle

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of a sync client."""
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of an async client."""
        return self._answer(request, await request.aread())

    def _answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        answer = answer_to(self._handle, request, body)
        if answer.fault is None:
            return httpx2.Response(
                answer.status_code, headers=dict(answer.headers), content=answer.body
            )
        if answer.fault in LOSES_THE_REQUEST:
            raise _ERRORS[answer.fault](WORDS[answer.fault], request=request)
        stream = _FaultyStream(answer, answer.fault, request)
        return httpx2.Response(answer.status_code, headers=dict(answer.headers), stream=stream)


class _FaultyStream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that does not arrive as it should, without any waiting."""

    def __init__(self, answer: Response, fault: Fault, request: httpx2.Request) -> None:
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
