"""An httpx transport that calls the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from .in_process import FamilyTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Request, Response


class FakeTransport(
    FamilyTransport[httpx.Request, httpx.Response],
    httpx.BaseTransport,
    httpx.AsyncBaseTransport,
):
    """Responds to the requests of an `httpx.Client` or an `httpx.AsyncClient` without a socket.

    Args:
        handle: Returns the response to a request.
    """

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        super().__init__(httpx, handle)
