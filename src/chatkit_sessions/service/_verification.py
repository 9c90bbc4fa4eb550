"""How a chat server rejects a request, and which requests it counts; for all frameworks."""

import json
import math
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias, cast

from chatkit_sessions.errors import SessionStoreError

from .errors import ClientSecretRateLimitError, InvalidClientSecretError

VerificationError: TypeAlias = (
    InvalidClientSecretError | ClientSecretRateLimitError | SessionStoreError
)
VERIFICATION_ERRORS: Final = (
    InvalidClientSecretError,
    ClientSecretRateLimitError,
    SessionStoreError,
)

# The requests for which ChatKitServer of openai-chatkit only reads.
_READS: Final = frozenset({"threads.list", "threads.get_by_id", "items.list"})

_MAX_LENGTH_OF_READS: Final = 65_536


class Rejection(NamedTuple):
    """The response to a rejected request."""

    status_code: int
    code: str
    message: str
    headers: Mapping[str, str]

    def error(self) -> dict[str, str]:
        """The `error` object of the body."""
        return {"code": self.code, "message": self.message}

    def body(self) -> bytes:
        """The body, in the format of the endpoint's errors."""
        return json.dumps({"error": self.error()}).encode()

    def all_headers(self) -> dict[str, str]:
        """The headers, with those that every rejection has."""
        common = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return {**common, **self.headers}


def rejection_of(error: VerificationError) -> Rejection:
    """The rejection for an exception of `verify`."""
    if isinstance(error, InvalidClientSecretError):
        code, challenge = f"client_secret_{error.reason}", {"WWW-Authenticate": "Bearer"}
        return Rejection(401, code, error.message, challenge)
    if isinstance(error, ClientSecretRateLimitError):
        headers = {"Retry-After": str(math.ceil(error.retry_after))}
        return Rejection(429, "rate_limit_exceeded", "Too many requests: try later.", headers)
    message = "Chat sessions cannot be verified right now: try again."
    return Rejection(503, "store_unavailable", message, {"Retry-After": "1"})


def is_short(content_length: str | None) -> bool:
    """Whether a body may be one of a request that only reads, which are short.

    Others count unread: nobody knows yet whose they are, and parsing blocks the event loop.
    """
    length = content_length or ""
    return length.isdecimal() and len(length) <= 5 and int(length) <= _MAX_LENGTH_OF_READS  # noqa: PLR2004 -- digits


def counts(body: bytes) -> bool:
    """Whether a request with this body counts towards the session's rate limit."""
    try:
        request: object = json.loads(body)
    except (ValueError, RecursionError):
        return True  # the chat server rejects it
    if not isinstance(request, dict):
        return True
    kind = cast("dict[str, object]", request).get("type")
    return not isinstance(kind, str) or kind not in _READS
