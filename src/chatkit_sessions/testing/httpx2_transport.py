"""An httpx2 transport that calls the local API in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .transport import FamilyTransport

try:
    import httpx2
except ModuleNotFoundError as _error:
    raise ImportError("A transport for httpx2 needs it: pip install httpx2") from _error

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import FakeResponse, ServiceRequest


class FakeHTTPX2Transport(
    FamilyTransport[httpx2.Request, httpx2.Response],
    httpx2.BaseTransport,
    httpx2.AsyncBaseTransport,
):
    """Responds to the requests of an `httpx2.Client` or an `httpx2.AsyncClient` without a socket.

    Args:
        handle: Returns the response to a request.
    """

    def __init__(self, handle: Callable[[ServiceRequest], FakeResponse]) -> None:
        super().__init__(httpx2, handle)
