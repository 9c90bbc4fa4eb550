"""The endpoint as routes of Starlette, or of any application that takes them.

It needs Starlette: `pip install "chatkit-sessions[starlette]"`.
"""

from collections.abc import Awaitable, Callable
from typing import Unpack

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._redaction import MaskedBytes

from ._async_endpoint import AsyncChatKitEndpoint
from ._flow import maybe_await
from ._messages import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointSettings,
)
from ._sentry import keep_body_from_sentry

try:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ModuleNotFoundError as _error:
    raise ImportError(
        'The routes for Starlette need it: pip install "chatkit-sessions[starlette]"'
    ) from _error

__all__ = ["chatkit_routes"]


def chatkit_routes(
    client: AsyncChatKitClient,
    *,
    user: Callable[[Request], str | Awaitable[str | None] | None],
    options: Callable[[Request], CreateSessionOptions | Awaitable[CreateSessionOptions]]
    | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> list[Route]:
    """Make the routes that the widget's page calls.

    Args:
        client: Makes the sessions. It stays yours to close, when the application ends.
        user: Tells from your login the id of who is signed in; None: nobody. A function, or a
            coroutine function if it has to wait.
        options: Tells the options of a session that this request creates, in the same way; it is
            asked only where somebody is signed in. Left out: the API's own.
        prefix: What the routes' paths begin with.
        settings: See `AsyncChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint = AsyncChatKitEndpoint(client, **settings)

    def route(path: str, methods: tuple[str, ...]) -> Route:
        async def handle(request: Request) -> Response:
            who = None if request.method == "OPTIONS" else await maybe_await(user(request))
            chosen = await maybe_await(options(request)) if who and options else None
            return await respond(endpoint, path, request, user=who, options=chosen)

        return Route(prefix + path, handle, methods=list(methods))

    return [route(path, methods) for path, methods in endpoint.routes.items()]


async def respond(
    endpoint: AsyncChatKitEndpoint,
    path: str,
    request: Request,
    *,
    user: str | None,
    options: CreateSessionOptions | None,
) -> Response:
    """Let the endpoint respond to a request that came to the route of that path."""
    keep_body_from_sentry()
    response = await endpoint.handle(
        EndpointRequest(
            method=request.method,
            path=path.format(**request.path_params),
            url=str(request.url),
            headers=request.headers,
            body=await _read_body(request),
        ),
        user=user,
        options=options,
    )
    return Response(response.body, response.status_code, response.headers)


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body = MaskedBytes(body + chunk)
        del chunk  # local variables are part of tracebacks
        if len(body) > MAX_BODY:
            break
    return body[: MAX_BODY + 1]
