"""The endpoint as a router of FastAPI.

It needs FastAPI: `pip install "chatkit-sessions[fastapi]"`.
"""

from collections.abc import Callable
from typing import Annotated, Final, Unpack

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions.models import BrowserSession

from ._async_endpoint import AsyncChatKitEndpoint
from ._messages import DEFAULT_PREFIX, CreateSessionOptions, EndpointSettings

try:
    from fastapi import APIRouter, Depends, Request, Response
except ModuleNotFoundError as _error:
    raise ImportError(
        'The router for FastAPI needs it: pip install "chatkit-sessions[fastapi]"'
    ) from _error

from .starlette import respond

__all__ = ["chatkit_router"]

_SUMMARIES: Final = {
    ("POST", "/session"): "Get a session for the ChatKit widget",
    ("POST", "/session/refresh"): "Get another secret for the ChatKit widget",
    ("DELETE", "/session"): "End all of the user's ChatKit sessions",
    ("GET", "/session/{session_id}"): "Tell of one of the user's ChatKit sessions",
    ("DELETE", "/session/{session_id}"): "End one of the user's ChatKit sessions",
}


def chatkit_router(
    client: AsyncChatKitClient,
    *,
    user: Callable[..., object],
    options: Callable[..., object] | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> APIRouter:
    """Make the router that the widget's page calls; include it in the application.

    Args:
        client: Makes the sessions. It stays yours to close, when the application ends.
        user: A dependency of yours that returns the id of who is signed in, a string; None:
            nobody. It may as well raise an HTTPException of yours.
        options: A dependency that returns the `CreateSessionOptions` of a session that this request
            creates, or None. As any dependency it runs for those who are not signed in, too, unless
            it depends on one that raises. Left out: the API's own.
        prefix: What the routes' paths begin with.
        settings: See `AsyncChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint = AsyncChatKitEndpoint(client, **settings)
    router = APIRouter(prefix=prefix, tags=["chatkit"])

    def add(path: str, method: str) -> None:
        async def handle(
            request: Request,
            user: Annotated[str | None, Depends(user)],
            options: Annotated[CreateSessionOptions | None, Depends(options or _no_options)],
        ) -> Response:
            return await respond(endpoint, path, request, user=user, options=options)

        # Browsers send no cookies with it: nobody is signed in.
        async def preflight(request: Request) -> Response:
            return await respond(endpoint, path, request, user=None, options=None)

        summary = _SUMMARIES.get((method, path))
        router.add_api_route(
            path,
            preflight if method == "OPTIONS" else handle,
            methods=[method],
            summary=summary,
            include_in_schema=summary is not None,
            responses={200: {"model": BrowserSession}} if method == "POST" else None,
            status_code=204 if method == "DELETE" else 200,
            dependencies=[Depends(_session_id)] if "{session_id}" in path else None,
        )

    for path, methods in endpoint.routes.items():
        for method in methods:
            add(path, method)
    return router


def _no_options() -> None:
    """Leave everything to the API."""


def _session_id(session_id: str) -> None:
    """Tell FastAPI of the variable in the path; the endpoint checks it."""
