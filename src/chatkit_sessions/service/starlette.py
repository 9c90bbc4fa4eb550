"""The session behind a request, for Starlette.

Install it with `pip install "chatkit-sessions[starlette]"`.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from ._chat_server import (
    VERIFICATION_ERRORS,
    BrokenBodyError,
    Rejection,
    is_counted,
    length_to_read,
    rejection_of,
)
from ._records import SessionContext
from ._rules import bearer_token
from ._services import AsyncSessionsService, validate_service

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
except ModuleNotFoundError as _error:
    raise ImportError(
        'Verifying sessions under Starlette needs it: pip install "chatkit-sessions[starlette]"'
    ) from _error

__all__ = ["chatkit_session"]


def chatkit_session(
    service: AsyncSessionsService,
    *,
    workflow_id: str | None = None,
    project: str | None = None,
    count: bool | None = None,
) -> Callable[[Request], Awaitable[SessionContext]]:
    """Make a coroutine function that returns the session behind a request.

    In FastAPI, use it as a dependency: `Depends(chatkit_session(service))`. A request is rejected
    with 401 without a valid client secret, with 429 over the session's rate limit, and with 503
    during a store outage.

    Args:
        service: Verifies the client secret.
        workflow_id: The workflow that this chat server runs; another one's secrets are rejected
            as unknown. Default: any of the service's `workflows`.
        project: The project whose sessions are accepted. Default: any.
        count: Whether requests count towards the session's rate limit. Default: requests with
            which the widget only reads threads or items do not count, all others do. A request
            with a body of more than 64 KiB, or of unknown length, always counts.

    Returns:
        The function. Await it with the request.

    Raises:
        ConfigurationError: The service is another class's, or has `workflows`, but not this one.
    """
    validate_service(
        service, AsyncSessionsService, workflow_id=workflow_id, project=project, count=count
    )

    async def verified_session(request: Request) -> SessionContext:
        # Repeated values are joined, so that none can hide behind another.
        secret = bearer_token(", ".join(request.headers.getlist("authorization")))
        length = length_to_read(
            request.headers.get("content-length"), request.headers.get("transfer-encoding")
        )

        async def is_counted_by_body() -> bool:
            return length is None or is_counted(await _read_body(request, length), length)

        try:
            return await service.verify(
                secret,
                workflow_id=workflow_id,
                project=project,
                count=is_counted_by_body if count is None else count,
            )
        except VERIFICATION_ERRORS as error:
            rejection = rejection_of(error)
        raise _RejectedError(request, rejection)

    return verified_session


async def _read_body(request: Request, length: int) -> bytes:
    """Read at most one byte more than the length, and leave the body to `Request.body`."""
    body = bytearray()
    try:
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece[: length + 1]
                if len(body) > length:
                    break
    except ClientDisconnect:
        raise BrokenBodyError from None
    vars(request)["_body"] = read = bytes(body)
    return read


class _RejectedError(HTTPException):
    """Ends a request with a rejection.

    The default handler of HTTPException writes another body, so the exception adds its own handler
    to the application. Without such an application, status and headers are still right.
    """

    def __init__(self, request: Request, rejection: Rejection) -> None:
        super().__init__(rejection.status_code, rejection.message, rejection.all_headers())
        self.body = rejection.body()
        handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
        handlers.setdefault(_RejectedError, _respond)


async def _respond(_: Request, error: Exception) -> Response:
    assert isinstance(error, _RejectedError)  # noqa: S101
    return Response(error.body, error.status_code, error.headers)
