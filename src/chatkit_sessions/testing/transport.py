"""An httpx transport that asks the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from .wire import Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable


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
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.body, request=request
        )
