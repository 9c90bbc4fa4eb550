"""An httpx transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from .faults import LOSES_THE_REQUEST
from .in_process import WORDS, pieces_received, respond_to

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
    """Responds to the requests of an `httpx.Client` or an `httpx.AsyncClient` without a socket.

    Args:
        handle: Request → response.
    """

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._handle = handle

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request of a sync client."""
        return self._respond(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request of an async client."""
        return self._respond(request, await request.aread())

    def _respond(self, request: httpx.Request, body: bytes) -> httpx.Response:
        response = respond_to(self._handle, request, body)
        if response.fault is None:
            return httpx.Response(
                response.status_code, headers=dict(response.headers), content=response.body
            )
        if response.fault in LOSES_THE_REQUEST:
            raise _ERRORS[response.fault](WORDS[response.fault], request=request)
        stream = _FaultyStream(response, response.fault, request)
        return httpx.Response(response.status_code, headers=dict(response.headers), stream=stream)


class _FaultyStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that does not arrive as it should, without any waiting."""

    def __init__(self, response: Response, fault: Fault, request: httpx.Request) -> None:
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
