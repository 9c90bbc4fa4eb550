"""The session behind a request, for Flask.

Install it with `pip install "chatkit-sessions[flask]"`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._records import SessionContext
from ._rules import bearer_token
from ._verification import VERIFICATION_ERRORS, counts, is_short, rejection_of

try:
    from flask import Response, abort, request
except ModuleNotFoundError as _error:
    raise ImportError(
        'Verifying sessions under Flask needs it: pip install "chatkit-sessions[flask]"'
    ) from _error

if TYPE_CHECKING:
    from ._services import SessionsService

__all__ = ["chatkit_session"]


def chatkit_session(
    service: "SessionsService", *, count: bool | None = None
) -> Callable[[], SessionContext]:
    """Make a function that returns the session behind the current request.

    A request is rejected with 401 without a valid client secret, with 429 over the session's rate
    limit, and with 503 during a store outage.

    Args:
        service: Verifies the client secret.
        count: Whether requests count towards the session's rate limit. Default: requests with
            which the widget only reads threads or items do not count, all others do. A request
            with a body of more than 64 KiB, or of unknown length, always counts.

    Returns:
        The function. Call it in a request.
    """

    def verified_session() -> SessionContext:
        secret = bearer_token(request.headers.get("Authorization"))
        counted = count
        if counted is None:
            length = request.headers.get("Content-Length")
            counted = not is_short(length) or counts(request.get_data())
        try:
            session = service.verify(secret, count=counted)
        except VERIFICATION_ERRORS as error:
            rejection = rejection_of(error)
            abort(Response(rejection.body(), rejection.status_code, rejection.all_headers()))
        return session

    return verified_session
