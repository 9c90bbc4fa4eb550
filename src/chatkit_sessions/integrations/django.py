"""The endpoint as URL patterns of Django, with synchronous or asynchronous views.

It needs Django: `pip install "chatkit-sessions[django]"`.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeAlias, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.sync_client import ChatKitClient

from ._async_endpoint import AsyncChatKitEndpoint
from ._flow import maybe_await
from ._messages import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
)
from ._sync_endpoint import ChatKitEndpoint

try:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern, path as url_pattern
except ModuleNotFoundError as _error:
    raise ImportError(
        'The URL patterns for Django need it: pip install "chatkit-sessions[django]"'
    ) from _error

__all__ = ["chatkit_urls"]

_User: TypeAlias = Callable[[HttpRequest], str | Awaitable[str | None] | None]
_Options: TypeAlias = Callable[
    [HttpRequest], CreateSessionOptions | Awaitable[CreateSessionOptions]
]


def chatkit_urls(
    client: ChatKitClient | AsyncChatKitClient,
    *,
    user: _User | None = None,
    options: _Options | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> list[URLPattern]:
    """Make the URL patterns that the widget's page calls, for the project's `urlpatterns`.

    Django's protection against cross-site request forgery stays on: the page sends the token in
    the header `X-CSRFToken`.

    Args:
        client: Makes the sessions; with an `AsyncChatKitClient` the views are asynchronous. It
            stays yours to close.
        user: Tells from your login the id of who is signed in; None: nobody. With asynchronous
            views it may be a coroutine function. Left out: `request.user.pk`, as a string.
        options: Tells the options of a session that this request creates, in the same way; it is
            asked only where somebody is signed in. Left out: the API's own.
        prefix: What the routes' paths begin with; empty where `include` says it.
        settings: See `ChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint: ChatKitEndpoint | AsyncChatKitEndpoint
    view: Callable[..., HttpResponse | Coroutine[object, object, HttpResponse]]
    if isinstance(client, AsyncChatKitClient):
        endpoint = AsyncChatKitEndpoint(client, **settings)
        view = _async_view(endpoint, user or _signed_in_async, options)
    else:
        endpoint = ChatKitEndpoint(client, **settings)
        view = _view(endpoint, user or _signed_in, options)
    return [
        url_pattern(
            f"{prefix}{path}".lstrip("/").replace("{", "<str:").replace("}", ">"),
            view,
            {"path": path},
            name=f"chatkit{path}",
        )
        for path in endpoint.routes
    ]


def _view(
    endpoint: ChatKitEndpoint, user: _User, options: _Options | None
) -> Callable[..., HttpResponse]:
    def handle(request: HttpRequest, path: str, **variables: str) -> HttpResponse:
        # What would have to be awaited is no user and no options, as the endpoint then says.
        who = None if request.method == "OPTIONS" else cast("str | None", user(request))
        chosen = cast("CreateSessionOptions", options(request)) if who and options else None
        asked = _plain(request, path.format(**variables))
        return _response(endpoint.handle(asked, user=who, options=chosen))

    return handle


def _async_view(
    endpoint: AsyncChatKitEndpoint, user: _User, options: _Options | None
) -> Callable[..., Coroutine[object, object, HttpResponse]]:
    async def handle(request: HttpRequest, path: str, **variables: str) -> HttpResponse:
        who = None if request.method == "OPTIONS" else await maybe_await(user(request))
        chosen = await maybe_await(options(request)) if who and options else None
        asked = _plain(request, path.format(**variables))
        return _response(await endpoint.handle(asked, user=who, options=chosen))

    return handle


def _plain(request: HttpRequest, path: str) -> EndpointRequest:
    return EndpointRequest(
        method=request.method or "",
        path=path,
        url=request.build_absolute_uri(),
        headers=request.headers,
        body=request.read(MAX_BODY + 1),
    )


def _response(response: EndpointResponse) -> HttpResponse:
    return HttpResponse(response.body, status=response.status_code, headers=dict(response.headers))


def _signed_in(request: HttpRequest) -> str | None:
    return _id_of(request.user)


async def _signed_in_async(request: HttpRequest) -> str | None:
    return _id_of(await request.auser())


def _id_of(user: object) -> str | None:
    pk: object = getattr(user, "pk", None)
    return None if pk is None else str(pk)
