"""Clients whose requests a service handles in process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import httpx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions._concurrency.threads import run_blocking

from ._rules import Headers, ServiceRequest, ServiceResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from chatkit_sessions.events import OnEvent
    from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore
    from chatkit_sessions.stores.memory import MemorySessionStore

    from ._flow import ServiceFlow

BASE_URL: Final = "https://chatkit-sessions.invalid/v1"
"""Nothing connects to it: the transport responds."""
API_KEY: Final = "sk-in-process"
"""A placeholder: the transport knows the project."""


class ClientSettings(TypedDict):
    """The settings of a client that are passed on; see `SessionsService.client`."""

    workflow_id: str | None
    timeout: float | None
    clock: Callable[[], datetime] | None
    on_event: OnEvent | None


def in_process_client(
    flow: ServiceFlow, *, project: str, store: SessionStore, **settings: Unpack[ClientSettings]
) -> ChatKitClient:
    """See `SessionsService.client`."""
    client = ChatKitClient(
        api_key=API_KEY,
        base_url=BASE_URL,
        project=project,
        max_retries=0,
        http_client=httpx.Client(transport=InProcessTransport(flow, project)),
        store=store,
        **settings,
    )
    if store is flow.store:
        client._sessions.registry.requires_store = True  # noqa: SLF001 -- one package
    return client


def in_process_async_client(
    flow: ServiceFlow,
    *,
    project: str,
    store: AsyncSessionStore | MemorySessionStore,
    **settings: Unpack[ClientSettings],
) -> AsyncChatKitClient:
    """See `AsyncSessionsService.client`."""
    client = AsyncChatKitClient(
        api_key=API_KEY,
        base_url=BASE_URL,
        project=project,
        max_retries=0,
        http_client=httpx.AsyncClient(transport=InProcessTransport(flow, project)),
        store=store,
        **settings,
    )
    if store is flow.store:
        client._sessions.registry.requires_store = True  # noqa: SLF001 -- one package
    return client


class InProcessTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Passes the requests of an `httpx.Client` or `httpx.AsyncClient` to a service.

    A store outage raises SessionStoreError. With an async store, only the latter can use it.
    """

    def __init__(self, flow: ServiceFlow, project: str) -> None:
        self._flow = flow
        self._project = project

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Handle a request of a sync client."""
        received = _service_request(request, request.read())
        return _response(run_blocking(self._flow.respond, received, project=self._project))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Handle a request of an async client."""
        received = _service_request(request, await request.aread())
        return _response(await self._flow.respond(received, project=self._project))


def _service_request(request: httpx.Request, body: bytes) -> ServiceRequest:
    headers = Headers(request.headers.multi_items())
    return ServiceRequest(request.method, request.url.raw_path.decode("ascii"), headers, body)


def _response(response: ServiceResponse) -> httpx.Response:
    return httpx.Response(
        response.status_code, headers=dict(response.headers), content=response.body
    )
