"""The session behind a request, for Flask.

Install it with `pip install "chatkit-sessions[flask]"`.
"""

from collections.abc import Callable

from ._chat_server import (
    VERIFICATION_ERRORS,
    BrokenBodyError,
    is_counted,
    length_to_read,
    rejection_of,
)
from ._records import SessionContext
from ._rules import bearer_token
from ._services import SessionsService, validate_service

try:
    from flask import Response, abort, request
    from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
except ModuleNotFoundError as _error:
    raise ImportError(
        'Verifying sessions under Flask needs it: pip install "chatkit-sessions[flask]"'
    ) from _error

__all__ = ["chatkit_session"]


def chatkit_session(
    service: SessionsService,
    *,
    workflow_id: str | None = None,
    project: str | None = None,
    count: bool | None = None,
) -> Callable[[], SessionContext]:
    """Make a function that returns the session behind the current request.

    A request is rejected with 401 without a valid client secret, with 429 over the session's rate
    limit, and with 503 during a store outage.

    Args:
        service: Verifies the client secret.
        workflow_id: The workflow that this chat server runs; another one's secrets are rejected
            as unknown. Default: any of the service's `workflows`.
        project: The project whose sessions are accepted. Default: any.
        count: Whether requests count towards the session's rate limit. Default: requests with
            which the widget only reads threads or items do not count, all others do. A request
            with a body of more than 64 KiB, or of unknown length, always counts.

    Returns:
        The function. Call it in a request.

    Raises:
        ConfigurationError: The service is another class's, or has `workflows`, but not this one.
    """
    validate_service(
        service, SessionsService, workflow_id=workflow_id, project=project, count=count
    )

    def verified_session() -> SessionContext:
        secret = bearer_token(request.headers.get("Authorization"))
        length = length_to_read(
            request.headers.get("Content-Length"), request.headers.get("Transfer-Encoding")
        )

        def is_counted_by_body() -> bool:
            return length is None or is_counted(_read_body(length), length)

        try:
            session = service.verify(
                secret,
                workflow_id=workflow_id,
                project=project,
                count=is_counted_by_body if count is None else count,
            )
        except VERIFICATION_ERRORS as error:
            rejection = rejection_of(error)
            abort(Response(rejection.body(), rejection.status_code, rejection.all_headers()))
        return session

    return verified_session


def _read_body(length: int) -> bytes:
    """Read at most one byte more than the length, and leave the body to `request.get_data`."""
    bound = length + 1
    request.max_content_length = min(request.max_content_length or bound, bound)
    try:
        return request.get_data()
    except (ClientDisconnected, RequestEntityTooLarge):
        raise BrokenBodyError from None
