"""The session behind a request, for Django.

Install it with `pip install "chatkit-sessions[django]"`.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar, cast

from pydantic import SecretStr

from chatkit_sessions.errors import ConfigurationError

from ._chat_server import (
    VERIFICATION_ERRORS,
    BrokenBodyError,
    VerificationError,
    is_counted,
    length_to_read,
    rejection_of,
)
from ._records import SessionContext
from ._rules import bearer_token
from ._services import AsyncSessionsService, SessionsService, validate_service

try:
    from asgiref.sync import iscoroutinefunction
    from django.conf import settings
    from django.db import connections, transaction
    from django.http import HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
    from django.views.decorators.csrf import csrf_exempt
except ModuleNotFoundError as _error:
    raise ImportError(
        'Verifying sessions under Django needs it: pip install "chatkit-sessions[django]"'
    ) from _error

__all__ = ["chatkit_session"]

P = ParamSpec("P")
R = TypeVar("R")


def chatkit_session(
    service: SessionsService | AsyncSessionsService,
    *,
    workflow_id: str | None = None,
    project: str | None = None,
    count: bool | None = None,
) -> Callable[
    [Callable[Concatenate[HttpRequest, SessionContext, P], R]],
    Callable[Concatenate[HttpRequest, P], R],
]:
    """Decorate a view: verify each request, and pass the session as the second argument.

    A request is rejected with 401 without a valid client secret, with 429 over the session's rate
    limit, and with 503 during a store outage. The view is exempt from Django's CSRF protection,
    because it does not use cookies. An `async def` view also opts out of `ATOMIC_REQUESTS`, which
    Django has for synchronous views only.

    Args:
        service: Verifies the client secret: an `AsyncSessionsService` for an `async def` view, a
            `SessionsService` for others.
        workflow_id: The workflow that this chat server runs; another one's secrets are rejected
            as unknown. Default: any of the service's `workflows`.
        project: The project whose sessions are accepted. Default: any.
        count: Whether requests count towards the session's rate limit. Default: requests with
            which the widget only reads threads or items do not count, all others do. A request
            with a body of more than 64 KiB, or of unknown length, always counts.

    Raises:
        ConfigurationError: The service is another class's, or has `workflows`, but not this one.
            When decorating: the view is `async def` and the service is not, or vice versa.
    """
    is_async = isinstance(service, AsyncSessionsService)
    expected = AsyncSessionsService if is_async else SessionsService
    validate_service(service, expected, workflow_id=workflow_id, project=project, count=count)

    def decorate(
        view: Callable[Concatenate[HttpRequest, SessionContext, P], R],
    ) -> Callable[Concatenate[HttpRequest, P], R]:
        if iscoroutinefunction(view) != is_async:  # pyright: ignore[reportDeprecated] -- before Python 3.12, that of inspect does not see what Django marks
            raise ConfigurationError(
                f"The view is {'a plain' if is_async else 'an async'} function, and the service "
                f"{'an Async' if is_async else 'a '}SessionsService.",
                hint="Use an AsyncSessionsService for `async def` views, a SessionsService for "
                "others.",
            )
        decorated: Callable[..., object]
        if isinstance(service, AsyncSessionsService):
            awaited = partial(service.verify, workflow_id=workflow_id, project=project)
            decorated = _async_view(awaited, cast("_AsyncView", view), count=count)
            opt_out = [transaction.non_atomic_requests(using=each) for each in connections]
        else:
            verify = partial(service.verify, workflow_id=workflow_id, project=project)
            decorated = _sync_view(verify, view, count=count)
            opt_out = []
        exempt = csrf_exempt(wraps(view)(decorated))
        for mark in opt_out:  # Django runs no asynchronous view in a transaction
            exempt = mark(exempt)
        return cast("Callable[Concatenate[HttpRequest, P], R]", exempt)

    return decorate


_AsyncView: TypeAlias = Callable[..., Coroutine[object, object, HttpResponseBase]]


def _sync_view(
    verify: Callable[..., SessionContext], view: Callable[..., object], *, count: bool | None
) -> Callable[..., object]:
    def decorated(request: HttpRequest, *args: object, **kwargs: object) -> object:
        try:
            session = verify(
                _secret_of(request), count=partial(_is_counted, request) if count is None else count
            )
        except VERIFICATION_ERRORS as error:
            return _rejected(error)
        return view(request, session, *args, **kwargs)

    return decorated


def _async_view(
    verify: Callable[..., Awaitable[SessionContext]], view: _AsyncView, *, count: bool | None
) -> _AsyncView:
    async def decorated(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        async def is_counted_by_body() -> bool:
            return _is_counted(request)

        try:
            session = await verify(
                _secret_of(request), count=is_counted_by_body if count is None else count
            )
        except VERIFICATION_ERRORS as error:
            return _rejected(error)
        return await view(request, session, *args, **kwargs)

    return decorated


def _secret_of(request: HttpRequest) -> SecretStr | None:
    return bearer_token(request.headers.get("Authorization"))


def _is_counted(request: HttpRequest) -> bool:
    length = length_to_read(
        request.headers.get("Content-Length"), request.headers.get("Transfer-Encoding")
    )
    return length is None or is_counted(_read_body(request, length), length)


def _read_body(request: HttpRequest, length: int) -> bytes:
    """Read at most one byte more than the length, and leave the body to `request.body`."""
    bound = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    try:
        if hasattr(request, "_body") or (bound is not None and length > bound):
            return request.body  # or Django's own rejection
        vars(request)["_body"] = body = request.read(length + 1)
    except UnreadablePostError:
        raise BrokenBodyError from None
    return body


def _rejected(error: VerificationError) -> HttpResponse:
    rejection = rejection_of(error)
    return HttpResponse(
        rejection.body(), status=rejection.status_code, headers=rejection.all_headers()
    )
