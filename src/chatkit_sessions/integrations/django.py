"""The endpoint as URL patterns of Django, with synchronous or asynchronous views.

It needs Django: `pip install "chatkit-sessions[django]"`.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeAlias, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._concurrency.run import run_blocking
from chatkit_sessions._redaction import MaskedBytes

from ._async_endpoint import AsyncChatKitEndpoint, awaited
from ._messages import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
)
from ._paths import validate_prefix
from ._sync_endpoint import ChatKitEndpoint, blocking
from ._visitors import COOKIE, MAX_AGE, SALT, new_visitor

try:
    from asgiref.sync import sync_to_async
    from django.conf import settings as django_settings
    from django.core.exceptions import PermissionDenied, RequestDataTooBig
    from django.core.handlers.exception import response_for_exception
    from django.http import (
        Http404,
        HttpRequest,
        HttpResponse,
        HttpResponseBase,
        UnreadablePostError,
    )
    from django.middleware.csrf import CsrfViewMiddleware
    from django.urls import URLPattern, path as url_pattern
    from django.utils.cache import patch_vary_headers
    from django.utils.module_loading import import_string
except ModuleNotFoundError as _error:
    raise ImportError(
        'The URL patterns for Django need it: pip install "chatkit-sessions[django]"'
    ) from _error

__all__ = ["anonymous_visitor", "chatkit_urls"]

AnyClient: TypeAlias = ChatKitClient | AsyncChatKitClient
AnyEndpoint: TypeAlias = ChatKitEndpoint | AsyncChatKitEndpoint
_User: TypeAlias = Callable[[HttpRequest], str | Awaitable[str | None] | None]
_Options: TypeAlias = Callable[
    [HttpRequest], CreateSessionOptions | Awaitable[CreateSessionOptions]
]
_View: TypeAlias = Callable[..., HttpResponseBase]
_AsyncView: TypeAlias = Callable[..., Coroutine[object, object, HttpResponseBase]]

_VISITOR: Final = "_chatkit_sessions_visitor"


def chatkit_urls(
    client: AnyClient | Callable[[HttpRequest], AnyClient | Awaitable[AsyncChatKitClient]],
    *,
    user: _User | None = None,
    options: _Options | None = None,
    prefix: str = DEFAULT_PREFIX,
    csrf_exempt: bool = False,
    **settings: Unpack[EndpointSettings],
) -> list[URLPattern]:
    """Make the URL patterns that the widget's page calls, for the project's `urlpatterns`.

    Django's protection against cross-site request forgery stays on, if the project has it: the page
    sends the token in the header `X-CSRFToken`. Which origins may call is the endpoint's rule, in
    place of `CSRF_TRUSTED_ORIGINS`; pages of `allowed_origins` need no token, which they cannot
    read.

    Args:
        client: Makes the sessions; with an `AsyncChatKitClient` the views are asynchronous. Or a
            function that returns it for a request; with a coroutine function, the views are
            asynchronous. It stays yours to close.
        user: Returns, from your login, the id of who is signed in; None: nobody. With asynchronous
            views it may be a coroutine function. Omitted: `request.user.pk`, as a string.
        options: Returns the options of a session that this request creates, in the same way; it is
            called only where somebody is signed in. Omitted: the API's defaults.
        prefix: What the routes' paths begin with; empty where `include` says it.
        csrf_exempt: Whether to do without Django's token. Safe where the login is a header that
            pages have to set, such as `Authorization`; otherwise the endpoint's rules for origins
            and types are the only protection.
        settings: See `ChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint: AnyEndpoint
    view: _View | _AsyncView
    if isinstance(client, AsyncChatKitClient) or inspect.iscoroutinefunction(client):
        endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
        view = _async_view(endpoint, user or _signed_in_async, options, csrf_exempt=csrf_exempt)
    else:
        endpoint = ChatKitEndpoint(cast("ChatKitClient", client), **settings)
        view = _view(endpoint, user or _signed_in, options, csrf_exempt=csrf_exempt)
    # The endpoint checks both by itself: it never sends a page to where people sign in.
    vars(view).update(csrf_exempt=True, login_required=False)
    start = validate_prefix(prefix)
    return [
        url_pattern(
            f"{start}{path}".lstrip("/").replace("{", "<str:").replace("}", ">"),
            cast("_View", view),
            {"path": path},
            name=f"chatkit{path}",
        )
        for path in endpoint.routes
    ]


def anonymous_visitor(request: HttpRequest) -> str:
    """Return the id of a visitor who is not signed in: a `user` for the views, or part of one.

    The id is random, and the visitor's browser keeps it in a cookie that `SECRET_KEY` signs. It
    begins with `visitor_`.
    """
    visitor = vars(request).get(_VISITOR) or request.get_signed_cookie(
        COOKIE, default="", salt=SALT, max_age=MAX_AGE
    )
    if not visitor:
        visitor = vars(request)[_VISITOR] = new_visitor()
    return cast("str", visitor)


def _view(
    endpoint: ChatKitEndpoint, user: _User, options: _Options | None, *, csrf_exempt: bool
) -> _View:
    def handle(request: HttpRequest, path: str, **variables: str) -> HttpResponseBase:
        asked = _plain(request, path.format(**variables))
        hooks = blocking(
            lambda: endpoint.client(request),
            # What would have to be awaited is no user and no options, as the endpoint then says.
            lambda: cast("str | None", user(request)),
            lambda: _read_body(request),
            lambda: cast("CreateSessionOptions", options(request)) if options else None,
        )
        try:
            response = _rejection(endpoint, asked, request, csrf_exempt=csrf_exempt)
            if response is None:
                response = _response(run_blocking(endpoint.serve, asked, hooks))
        except _RAISED as error:
            response = _response_to(error, endpoint, asked, request)
        return _finish(response, endpoint, asked, request)

    return handle


def _async_view(
    endpoint: AsyncChatKitEndpoint, user: _User, options: _Options | None, *, csrf_exempt: bool
) -> _AsyncView:
    async def handle(request: HttpRequest, path: str, **variables: str) -> HttpResponseBase:
        asked = _plain(request, path.format(**variables))
        hooks = awaited(
            lambda: endpoint.client(request),
            lambda: user(request),
            lambda: _read_body(request),
            lambda: options(request) if options else None,
        )
        try:
            # In a thread: where the token is in the session, that may be in the database.
            response = await sync_to_async(_rejection)(
                endpoint, asked, request, csrf_exempt=csrf_exempt
            )
            if response is None:
                response = _response(await endpoint.serve(asked, hooks))
        except _RAISED as error:
            response = await sync_to_async(_response_to)(error, endpoint, asked, request)
        return _finish(response, endpoint, asked, request)

    return handle


class _CsrfCheck(CsrfViewMiddleware):
    """Django's check of the token; which origins may call, the endpoint has decided by then."""

    def _origin_verified(self, request: HttpRequest) -> bool:
        del request
        return True


def _rejection(
    endpoint: AnyEndpoint, asked: EndpointRequest, request: HttpRequest, *, csrf_exempt: bool
) -> HttpResponseBase | None:
    """The response where neither user nor body is needed for it, or the token is missing."""
    screened = endpoint.screen(asked)
    if screened is not None:
        return _response(screened)
    if csrf_exempt or endpoint.cors_headers(asked) or not _project_checks_csrf():
        return None
    # What stands for the view here is never called.
    return _CsrfCheck(HttpResponse).process_view(request, HttpResponse, (), {})


def _project_checks_csrf() -> bool:
    middleware = [import_string(name) for name in django_settings.MIDDLEWARE]
    return any(
        isinstance(each, type) and issubclass(each, CsrfViewMiddleware) for each in middleware
    )


_RAISED: Final = (PermissionDenied, Http404, RequestDataTooBig, UnreadablePostError)


def _response_to(
    error: Exception, endpoint: AnyEndpoint, asked: EndpointRequest, request: HttpRequest
) -> HttpResponseBase:
    """The response to what reading the body raised, or the application's function."""
    if isinstance(error, RequestDataTooBig):
        return _response(endpoint.reject(asked, "request_too_large"))
    if isinstance(error, UnreadablePostError):
        return _response(endpoint.reject(asked, "invalid_request"))
    return response_for_exception(request, error)


def _finish(
    response: HttpResponseBase, endpoint: AnyEndpoint, asked: EndpointRequest, request: HttpRequest
) -> HttpResponseBase:
    """Add what the page's browser needs, whoever made the response."""
    for name, value in endpoint.cors_headers(asked).items():
        response[name] = value
    patch_vary_headers(response, ["Origin"])
    visitor = vars(request).get(_VISITOR)
    if visitor is not None:
        response.set_signed_cookie(
            COOKIE,
            visitor,
            salt=SALT,
            max_age=MAX_AGE,
            secure=True,
            httponly=True,
            samesite="Lax",
        )
    return response


def _plain(request: HttpRequest, path: str) -> EndpointRequest:
    return EndpointRequest(
        method=request.method or "",
        path=path,
        url=f"{request.scheme}://{request.get_host()}",
        headers=request.headers,
    )


def _read_body(request: HttpRequest) -> bytes:
    """Read the body where Django keeps it, for whoever reads it next.

    Raises:
        RequestDataTooBig: It is too large.
    """
    if request.META.get("CONTENT_LENGTH") or hasattr(request, "_body"):
        return request.body  # the endpoint has looked at its length
    # An ASGI server has spooled a body of unknown length, and Django would read all of it.
    body = MaskedBytes(request.read(MAX_BODY + 1))
    vars(request)["_body"] = body
    return body


def _response(response: EndpointResponse) -> HttpResponse:
    return HttpResponse(response.body, status=response.status_code, headers=dict(response.headers))


def _signed_in(request: HttpRequest) -> str | None:
    return _id_of(request.user)


async def _signed_in_async(request: HttpRequest) -> str | None:
    return _id_of(await request.auser())


def _id_of(user: object) -> str | None:
    pk: object = getattr(user, "pk", None)
    return None if pk is None else str(pk)
