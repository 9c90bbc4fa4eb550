"""The endpoint as a FastAPI router.

Install it with `pip install "chatkit-sessions[fastapi]"`.
"""

import inspect
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions.errors import ConfigurationError
from chatkit_sessions.models import BrowserSession

from ._asgi import RouteGuard
from ._endpoint import AsyncChatKitEndpoint, Hooks
from ._requests import (
    DEFAULT_PREFIX,
    CreateSessionOptions,
    EndpointSettings,
    ErrorBody,
    SessionState,
    validate_prefix,
)
from ._rules import ERRORS

try:
    from fastapi import APIRouter, Depends, Request, Response
    from fastapi.routing import APIRoute
    from starlette.types import Receive, Scope, Send
except ModuleNotFoundError as _error:
    raise ImportError(
        'The router for FastAPI needs it: pip install "chatkit-sessions[fastapi]"'
    ) from _error

from .starlette import AnonymousVisitor, to_response

__all__ = ["AnonymousVisitor", "chatkit_router"]


def chatkit_router(
    client: AsyncChatKitClient | Callable[..., object],
    *,
    user: Callable[..., object],
    options: Callable[..., object] | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> APIRouter:
    """Make the router that the page calls, for `app.include_router`.

    Args:
        client: The client, or a dependency that returns it; `app.dependency_overrides` can replace
            the dependency. Close the client when the application ends.
        user: A dependency that returns the id of the signed-in user, a string. None: nobody is
            signed in. It may raise HTTPException, and set headers and cookies of the response.
        options: A dependency that returns the `CreateSessionOptions` of a session that this request
            creates, or None. FastAPI also runs it if nobody is signed in, unless it depends on a
            dependency that raises. Default: the API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`.
        settings: See `EndpointSettings`.

    Returns:
        The router.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    endpoint.validate_functions(user=user, options=options)
    _require_annotations(user, "user")
    if options is not None:
        _require_annotations(options, "options")
    router = APIRouter(prefix=validate_prefix(prefix), tags=["chatkit"])

    async def the_client() -> object:
        return client

    get_client = client if callable(client) else the_client

    def add(path: str, method: str, operation: _Operation | None) -> None:
        guard = RouteGuard(endpoint, path)

        class EndpointRoute(APIRoute):
            async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
                await guard.run(super().handle, scope, receive, send)

        async def handle(
            request: Request,
            injected: Response,
            client: Annotated[object, Depends(get_client)],
            user: Annotated[str | None, Depends(user)],
            options: Annotated[CreateSessionOptions | None, Depends(options or _no_options)],
        ) -> Response:
            hooks = Hooks(lambda: client, lambda: user, request.body, lambda: options)
            response = to_response(await guard.respond(request.scope, hooks))
            # FastAPI does this, except for a response that the route makes itself.
            response.raw_headers.extend(injected.raw_headers)
            return response

        router.add_api_route(
            path,
            handle,
            methods=[method],
            dependencies=[Depends(_session_id)] if "{session_id}" in path else None,
            route_class_override=EndpointRoute,
            response_model=None,
            **_documentation(operation),
        )

    for (path, methods), operations in zip(endpoint.routes.items(), _OPERATIONS, strict=False):
        for method in methods:
            add(path, method, operations.get(method))
    return router


class _Operation(NamedTuple):
    """A route in the OpenAPI schema; generated clients use its name."""

    name: str
    summary: str
    model: type | None = None
    body: dict[str, object] | None = None


_REFRESH_BODY: Final[dict[str, object]] = {
    "title": "RefreshSession",
    "type": "object",
    "properties": {"currentClientSecret": {"type": "string", "title": "Currentclientsecret"}},
    "required": ["currentClientSecret"],
}
_OPERATIONS: Final[tuple[dict[str, _Operation], ...]] = (
    {
        "POST": _Operation(
            "create_chatkit_session", "Get a session for the ChatKit widget", BrowserSession
        ),
        "DELETE": _Operation("delete_chatkit_sessions", "End all of the user's ChatKit sessions"),
    },
    {
        "POST": _Operation(
            "refresh_chatkit_session",
            "Get another secret for the ChatKit widget",
            BrowserSession,
            _REFRESH_BODY,
        )
    },
    {
        "GET": _Operation(
            "get_chatkit_session", "Return one of the user's ChatKit sessions", SessionState
        ),
        "DELETE": _Operation("delete_chatkit_session", "End one of the user's ChatKit sessions"),
    },
)


def _documentation(operation: _Operation | None) -> dict[str, Any]:
    """The arguments of `add_api_route` for the schema; None: the route is not in the schema."""
    if operation is None:
        return {"include_in_schema": False}
    responses: dict[int, dict[str, object]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in sorted({status for status, _ in ERRORS.values()})
    }
    if operation.model is not None:
        responses[200] = {"model": operation.model}
    content = {"application/json": {"schema": operation.body}}
    body = {"requestBody": {"required": True, "content": content}}
    return {
        "name": operation.name,
        "summary": operation.summary,
        "responses": responses,
        "status_code": 204 if operation.model is None else 200,
        "openapi_extra": None if operation.body is None else body,
    }


def _require_annotations(dependency: Callable[..., object], argument: str) -> None:
    """Reject a parameter that FastAPI would silently read from the URL.

    Raises:
        ConfigurationError: A parameter has neither an annotation nor a default.
    """
    for each in inspect.signature(dependency).parameters.values():
        variable = each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        if each.annotation is each.default is each.empty and not variable:
            raise ConfigurationError(
                f"The parameter `{each.name}` of `{argument}` has no annotation: FastAPI takes it "
                "from the URL's query, which anybody can write.",
                hint="For the request write `request: Request`; for another dependency "
                f"`{each.name}: Annotated[…, Depends(…)]`.",
            )


async def _no_options() -> None:
    """Use the API's defaults."""


async def _session_id(session_id: str) -> None:
    """Declare the path's variable; the endpoint validates it."""
