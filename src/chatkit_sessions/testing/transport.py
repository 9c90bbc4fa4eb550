"""An httpx transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from .faults import length_claimed, pieces_sent
from .wire import Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .faults import Fault


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
        answer = self._handle(
            Request(
                request.method,
                request.url.raw_path.decode("ascii"),
                Headers(request.headers.multi_items()),
                body,
            )
        )
        if answer.fault == "reset":
            raise httpx.ReadError("the local API resets the connection", request=request)
        if answer.fault == "hang":
            raise httpx.ReadTimeout("the local API does not answer", request=request)
        if answer.fault is None:
            return httpx.Response(
                answer.status_code, headers=dict(answer.headers), content=answer.body
            )
        length = length_claimed(answer.body, answer.fault)
        headers = {**answer.headers, "content-length": str(length)}
        stream = _FaultyStream(answer.body, answer.fault, request)
        return httpx.Response(answer.status_code, headers=headers, stream=stream)


class _FaultyStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that does not arrive as it should, without any waiting."""

    def __init__(self, body: bytes, fault: Fault, request: httpx.Request) -> None:
        self._pieces = pieces_sent(body, fault)
        self._fault = fault
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield piece
            if self._fault == "drip":
                raise httpx.ReadTimeout("the local API drips", request=self._request)
            if self._fault == "truncate":
                raise httpx.RemoteProtocolError(
                    "the local API closed the connection within the body", request=self._request
                )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
