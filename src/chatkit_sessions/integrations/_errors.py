"""What the page gets for each error: a status, a code and a sentence, never the error's text."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from chatkit_sessions._api.diagnosis import is_permanent
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ChatKitError,
    ConflictError,
    InternalServerError,
    RateLimitError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionNotRecordedError,
    SessionStoreError,
)

from ._messages import ErrorCode


class EndpointError(NamedTuple):
    """The response to the page."""

    status_code: int
    message: str


ERRORS: Final[Mapping[ErrorCode, EndpointError]] = {
    "invalid_request": EndpointError(400, "The request's body is not valid for this route."),
    "unauthenticated": EndpointError(401, "Nobody is signed in."),
    "origin_not_allowed": EndpointError(403, "Pages of this origin may not create chat sessions."),
    "not_found": EndpointError(404, "There is no such session."),
    "method_not_allowed": EndpointError(405, "This route does not support this method."),
    "session_deleted": EndpointError(409, "The user has signed out meanwhile."),
    "request_too_large": EndpointError(413, "The request's body is too large."),
    "unsupported_media_type": EndpointError(415, "The body's type must be application/json."),
    "rate_limit_exceeded": EndpointError(
        429, "Too many requests for chat sessions: try again later."
    ),
    "configuration_error": EndpointError(502, "The chat is not set up correctly."),
    "upstream_error": EndpointError(502, "The chat service failed: try again."),
    "store_unavailable": EndpointError(
        503, "Chat sessions cannot be looked up just now: try again."
    ),
    "upstream_timeout": EndpointError(504, "The chat service did not respond in time: try again."),
}

# The first match counts. The application must fix any other error: the key, the workflow, …
_CODES_OF_ERRORS: Final[tuple[tuple[type[ChatKitError], ErrorCode], ...]] = (
    (RateLimitError, "rate_limit_exceeded"),
    (APITimeoutError, "upstream_timeout"),
    (SessionNotFoundError, "not_found"),
    (SessionNotRecordedError, "not_found"),
    (SessionDeletedError, "session_deleted"),
    (SessionStoreError, "store_unavailable"),
    (APIConnectionError, "upstream_error"),
    (APIResponseValidationError, "upstream_error"),
    (ConflictError, "upstream_error"),
    (InternalServerError, "upstream_error"),
    (ChatKitError, "configuration_error"),
)


def code_of(error: ChatKitError) -> ErrorCode:
    """The code for an error of this library."""
    if isinstance(error, RateLimitError) and is_permanent(error.error):
        return "configuration_error"
    return next(code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind))
