"""The endpoint as Django URL patterns, with synchronous or asynchronous views.

Install it with `pip install "chatkit-sessions[django]"`.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, ParamSpec, TypeAlias, TypeVar, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._config.validation import is_coroutine_function
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks

from ._endpoint import AsyncChatKitEndpoint, ChatKitEndpoint, Hooks
from ._requests import (
    COOKIE_MAX_AGE,
    COOKIE_NAME,
    COOKIE_SALT,
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
    exact_cookie,
    new_visitor,
    parse_visitor,
    validate_prefix,
    validate_secret_keys,
)

try:
    from asgiref.sync import sync_to_async
    from django.conf import settings as django_settings
    from django.core.exceptions import PermissionDenied, RequestDataTooBig
    from django.core.handlers.exception import response_for_exception
    from django.db import connections, transaction
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

P = ParamSpec("P")
T = TypeVar("T")
AnyClient: TypeAlias = ChatKitClient | AsyncChatKitClient
AnyEndpoint: TypeAlias = ChatKitEndpoint | AsyncChatKitEndpoint
_User: TypeAlias = Callable[[HttpRequest], str | Awaitable[str | None] | None]
_Options: TypeAlias = Callable[
    [HttpRequest], CreateSessionOptions | Awaitable[CreateSessionOptions]
]
_View: TypeAlias = Callable[..., HttpResponseBase]
_AsyncView: TypeAlias = Callable[..., Coroutine[object, object, HttpResponseBase]]

_VISITOR_ATTRIBUTE: Final = "_chatkit_sessions_visitor"


def chatkit_urls(
    client: AnyClient | Callable[[HttpRequest], AnyClient | Awaitable[AsyncChatKitClient]],
    *,
    user: _User | None = None,
    options: _Options | None = None,
    prefix: str = DEFAULT_PREFIX,
    csrf_exempt: bool = False,
    **settings: Unpack[EndpointSettings],
) -> list[URLPattern]:
    """Make the URL patterns that the page calls, for the project's `urlpatterns`.

    Django's CSRF protection stays on, if the project has it: the page sends the token in the header
    `X-CSRFToken`. The endpoint checks the origin, in place of `CSRF_TRUSTED_ORIGINS`. Pages of
    `allowed_origins` need no token, because they cannot read it.

    Args:
        client: The client, or a function that returns it for a request. With an
            `AsyncChatKitClient` or a coroutine function, the views are asynchronous. The views do
            not close the client.
        user: Returns the id of the signed-in user, from your login. None: nobody is signed in. With
            asynchronous views, it may be a coroutine function. Default: `request.user.pk`, as a
            string.
        options: Returns the options of a session that this request creates. It is called only if a
            user is signed in. With asynchronous views, it may be a coroutine function. Default: the
            API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`. Pass an empty prefix inside
            `include`.
        csrf_exempt: Whether to skip Django's CSRF token. This is safe if the login is a header that
            pages must set, such as `Authorization`. Otherwise, the endpoint's checks of origin and
            content type are the only protection.
        settings: See `EndpointSettings`.

    Returns:
        The URL patterns.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint: AnyEndpoint
    if isinstance(client, AsyncChatKitClient) or is_coroutine_function(client):
        user = _signed_in_async if user is None else user
        endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    else:
        user = _signed_in if user is None else user
        endpoint = ChatKitEndpoint(cast("ChatKitClient", client), **settings)
    endpoint.validate_functions(user=user, options=options)
    view = _view(endpoint, user, options, csrf_exempt=csrf_exempt)
    # The endpoint checks both itself: it never redirects to the login page.
    vars(view).update(csrf_exempt=True, login_required=False)
    for database in connections:  # no transaction stays open during a call to the API
        transaction.non_atomic_requests(using=database)(view)
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
    """Return the id of an anonymous visitor. Pass this function as `user`, or call it in yours.

    The id is random and begins with `visitor_`. The browser keeps it for a year, in a cookie that
    `SECRET_KEY` signs.

    Raises:
        ConfigurationError: `SECRET_KEY`, or one of `SECRET_KEY_FALLBACKS`, has less than 16 bytes.
    """
    visitor = vars(request).get(_VISITOR_ATTRIBUTE) or _known_visitor(request)
    if visitor is None:
        visitor = vars(request)[_VISITOR_ATTRIBUTE] = new_visitor()
    return cast("str", visitor)


def _known_visitor(request: HttpRequest) -> str | None:
    """The visitor of the request's cookie; None if it has no valid one."""
    _validate_keys()
    strict = HttpRequest()  # only Django knows how it signs cookies
    strict.COOKIES = {COOKIE_NAME: exact_cookie(request.META.get("HTTP_COOKIE"), COOKIE_NAME) or ""}
    return parse_visitor(
        strict.get_signed_cookie(COOKIE_NAME, default="", salt=COOKIE_SALT, max_age=COOKIE_MAX_AGE)
    )


@hidden_from_tracebacks
def _validate_keys() -> None:
    keys = [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]
    validate_secret_keys(keys, "`SECRET_KEY`")


def _view(
    endpoint: AnyEndpoint, user: _User, options: _Options | None, *, csrf_exempt: bool
) -> _View | _AsyncView:
    is_async = isinstance(endpoint, AsyncChatKitEndpoint)
    # In a thread: the token may be in the session, and the session in the database.
    apart = sync_to_async if is_async else _at_once

    async def flow(request: HttpRequest, path: str) -> HttpResponseBase:
        page_request = _endpoint_request(request, path)
        hooks = Hooks.for_request(
            endpoint, request, user=user, body=lambda: _read_body(request), options=options
        )
        try:
            response = await apart(_rejection)(
                endpoint, page_request, request, csrf_exempt=csrf_exempt
            )
            if response is None:
                response = _response(await endpoint.serve(page_request, hooks))
        except _RAISED as error:
            response = await apart(_response_to)(error, endpoint, page_request, request)
        return _finish(response, endpoint, page_request, request)

    def handle(request: HttpRequest, path: str, **variables: str) -> HttpResponseBase:
        return run_blocking(flow, request, path.format(**variables))

    async def handle_async(request: HttpRequest, path: str, **variables: str) -> HttpResponseBase:
        return await flow(request, path.format(**variables))

    return handle_async if is_async else handle


def _at_once(function: Callable[P, T]) -> Callable[P, Coroutine[object, None, T]]:
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return call


class _CsrfCheck(CsrfViewMiddleware):
    """Django's check of the token; the endpoint has checked the origin by then."""

    def _origin_verified(self, request: HttpRequest) -> bool:
        del request
        return True


def _rejection(
    endpoint: AnyEndpoint, page_request: EndpointRequest, request: HttpRequest, *, csrf_exempt: bool
) -> HttpResponseBase | None:
    """The response that needs neither user nor body, or to a missing token; None: go on."""
    screened = endpoint.screen(page_request)
    if screened is not None:
        return _response(screened)
    if csrf_exempt or endpoint.cors_headers(page_request) or not _project_checks_csrf():
        return None
    # The view that is passed here is never called.
    return _CsrfCheck(HttpResponse).process_view(request, HttpResponse, (), {})


def _project_checks_csrf() -> bool:
    middleware = [import_string(name) for name in django_settings.MIDDLEWARE]
    return any(
        isinstance(each, type) and issubclass(each, CsrfViewMiddleware) for each in middleware
    )


_RAISED: Final = (PermissionDenied, Http404, RequestDataTooBig, UnreadablePostError)


def _response_to(
    error: Exception, endpoint: AnyEndpoint, page_request: EndpointRequest, request: HttpRequest
) -> HttpResponseBase:
    """The response to an exception of the application's functions, or of reading the body."""
    if isinstance(error, RequestDataTooBig):
        return _response(endpoint.reject(page_request, "request_too_large"))
    if isinstance(error, UnreadablePostError):
        return _response(endpoint.reject_incomplete(page_request))
    return response_for_exception(request, error)


def _finish(
    response: HttpResponseBase,
    endpoint: AnyEndpoint,
    page_request: EndpointRequest,
    request: HttpRequest,
) -> HttpResponseBase:
    """Add CORS headers and the visitor's cookie to any response."""
    for name, value in endpoint.cors_headers(page_request).items():
        response[name] = value
    patch_vary_headers(response, ["Origin"])
    visitor = vars(request).get(_VISITOR_ATTRIBUTE)
    if visitor is not None:
        response.set_signed_cookie(
            COOKIE_NAME,
            visitor,
            salt=COOKIE_SALT,
            max_age=COOKIE_MAX_AGE,
            secure=True,
            httponly=True,
            samesite="Lax",
        )
    return response


def _endpoint_request(request: HttpRequest, path: str) -> EndpointRequest:
    return EndpointRequest(
        method=request.method or "",
        path=path,
        url=f"{request.scheme}://{request.get_host()}",
        headers=request.headers,
    )


def _read_body(request: HttpRequest) -> bytes:
    """Read the body and leave it where Django keeps it, for the next reader.

    Raises:
        RequestDataTooBig: The body is too large.
    """
    if hasattr(request, "_body"):
        return request.body
    # Whatever its length is said to be: an ASGI server has stored all of it.
    own = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    bound = MAX_BODY if own is None else min(MAX_BODY, own)
    body = MaskedBytes(request.read(bound + 1))
    if len(body) > bound:
        raise RequestDataTooBig
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
