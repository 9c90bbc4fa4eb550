"""The endpoint as Starlette routes.

Install it with `pip install "chatkit-sessions[starlette]"`.
"""

from collections.abc import Awaitable, Callable
from typing import Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient

from ._asgi import RouteGuard, VisitorCookies
from ._endpoint import AsyncChatKitEndpoint, Hooks
from ._requests import (
    DEFAULT_PREFIX,
    CreateSessionOptions,
    EndpointResponse,
    EndpointSettings,
    validate_prefix,
)

try:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send
except ModuleNotFoundError as _error:
    raise ImportError(
        'The routes for Starlette need it: pip install "chatkit-sessions[starlette]"'
    ) from _error

__all__ = ["AnonymousVisitor", "chatkit_routes"]


def chatkit_routes(
    client: AsyncChatKitClient
    | Callable[[Request], AsyncChatKitClient | Awaitable[AsyncChatKitClient]],
    *,
    user: Callable[[Request], str | Awaitable[str | None] | None],
    options: Callable[[Request], CreateSessionOptions | Awaitable[CreateSessionOptions]]
    | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> list[Route]:
    """Make the routes that the page calls, for `Starlette(routes=…)`.

    Args:
        client: The client, or a function that returns it for a request, such as
            `lambda request: request.state.chatkit`. Close the client when the application ends.
        user: Returns the id of the signed-in user, from your login. None: nobody is signed in. It
            may be a coroutine function.
        options: Returns the options of a session that this request creates. It is called only if a
            user is signed in, and may be a coroutine function. Default: the API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`.
        settings: See `EndpointSettings`.

    Returns:
        The routes.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    endpoint.validate_functions(user=user, options=options)
    start = validate_prefix(prefix)

    def route(path: str, methods: tuple[str, ...]) -> Route:
        guard = RouteGuard(endpoint, path)

        class EndpointRoute(Route):
            async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
                await guard.run(super().handle, scope, receive, send)

        async def handle(request: Request) -> Response:
            hooks = Hooks.for_request(
                endpoint, request, user=user, body=request.body, options=options
            )
            return to_response(await guard.respond(request.scope, hooks))

        return EndpointRoute(start + path, handle, methods=list(methods))

    return [route(path, methods) for path, methods in endpoint.routes.items()]


class AnonymousVisitor(VisitorCookies):
    """Returns the ids of anonymous visitors. Pass an instance as `user`, or call it in yours.

    An id is random and begins with `visitor_`. The browser keeps it for a year, in a signed cookie.
    Needs itsdangerous: `pip install itsdangerous`.

    Args:
        secret_key: Signs the cookies: 16 bytes or more. Keep it secret, and use the same key in
            all processes.

    Raises:
        ConfigurationError: The key is too short.
        ImportError: itsdangerous is not installed.
    """

    def __call__(self, request: Request) -> str:
        """Return the visitor's id; a new visitor gets a cookie with the response."""
        return self.visitor_of(request.scope)


def to_response(response: EndpointResponse) -> Response:
    """The response as Starlette's."""
    return Response(response.body, response.status_code, response.headers)
