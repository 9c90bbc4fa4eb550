"""The endpoint as Litestar route handlers.

Install it with `pip install "chatkit-sessions[litestar]"`.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient

from ._asgi import RouteGuard, VisitorCookies
from ._endpoint import AsyncChatKitEndpoint, Hooks
from ._requests import (
    DEFAULT_PREFIX,
    CreateSessionOptions,
    EndpointSettings,
    validate_prefix,
)

try:
    from litestar import HttpMethod, Request, Response
    from litestar.handlers import HTTPRouteHandler
except ModuleNotFoundError as _error:
    raise ImportError(
        'The route handlers for Litestar need it: pip install "chatkit-sessions[litestar]"'
    ) from _error

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["AnonymousVisitor", "chatkit_handlers"]

AnyRequest: TypeAlias = Request[Any, Any, Any]
_VARIABLE: Final = re.compile(r"\{(\w+)\}")


def chatkit_handlers(
    client: AsyncChatKitClient
    | Callable[[AnyRequest], AsyncChatKitClient | Awaitable[AsyncChatKitClient]],
    *,
    user: Callable[[AnyRequest], str | Awaitable[str | None] | None],
    options: Callable[[AnyRequest], CreateSessionOptions | Awaitable[CreateSessionOptions]]
    | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> list[HTTPRouteHandler]:
    """Make the route handlers that the page calls, for `Litestar(route_handlers=…)`.

    Args:
        client: The client, or a function that returns it for a request, such as
            `lambda request: request.app.state.chatkit`. Close the client when the application ends.
        user: Returns the id of the signed-in user, from your login. None: nobody is signed in. It
            may be a coroutine function, and raise Litestar's exceptions.
        options: Returns the options of a session that this request creates. It is called only if a
            user is signed in, and may be a coroutine function. Default: the API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`. Its variables are strings,
            as in `/tenants/{tenant}/chatkit`.
        settings: See `EndpointSettings`.

    Returns:
        The route handlers.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    endpoint.validate_functions(user=user, options=options)
    start = validate_prefix(prefix)

    def handler(path: str) -> HTTPRouteHandler:
        guard = RouteGuard(endpoint, path)

        def guarded(app: "ASGIApp") -> "ASGIApp":
            async def middleware(scope: "Scope", receive: "Receive", send: "Send") -> None:
                await guard.run(*cast("Any", (app, scope, receive, send)))

            return middleware

        async def handle(request: AnyRequest) -> Response[bytes | None]:
            hooks = Hooks.for_request(
                endpoint, request, user=user, body=request.body, options=options
            )
            response = await guard.respond(cast("Any", request.scope), hooks)
            return Response(
                response.body or None,
                status_code=response.status_code,
                headers=dict(response.headers),
            )

        return HTTPRouteHandler(
            _VARIABLE.sub(r"{\1:str}", start + path),
            # The endpoint rejects methods itself.
            http_method=list(HttpMethod),
            middleware=[guarded],
            include_in_schema=False,
        )(handle)

    return [handler(path) for path in endpoint.routes]


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

    def __call__(self, request: AnyRequest) -> str:
        """Return the visitor's id; a new visitor gets a cookie with the response."""
        return self.visitor_of(cast("Any", request.scope))
