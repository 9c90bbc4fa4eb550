"""An httpx2 transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .faults import LOSES_THE_REQUEST
from .in_process import WORDS, pieces_received, respond_to

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
    """Responds to the requests of an `httpx2.Client` or an `httpx2.AsyncClient` without a socket.

    Args:
        handle: Request → response.
    """

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._handle = handle

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Respond to a request of a sync client."""
        return self._respond(request, request.read())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Respond to a request of an async client."""
        return self._respond(request, await request.aread())

    def _respond(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        response = respond_to(self._handle, request, body)
        if response.fault is None:
            return httpx2.Response(
                response.status_code, headers=dict(response.headers), content=response.body
            )
        if response.fault in LOSES_THE_REQUEST:
            raise _ERRORS[response.fault](WORDS[response.fault], request=request)
        stream = _FaultyStream(response, response.fault, request)
        return httpx2.Response(response.status_code, headers=dict(response.headers), stream=stream)


class _FaultyStream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that does not arrive as it should, without any waiting."""

    def __init__(self, response: Response, fault: Fault, request: httpx2.Request) -> None:
        self._response = response
        self._fault: Fault = fault
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield from pieces_received(self._response)
        if self._fault in _ERRORS:
            raise _ERRORS[self._fault](WORDS[self._fault], request=self._request)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
