"""How a chat server rejects a request, and which requests count, for all frameworks."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias, cast

from chatkit_sessions.errors import ChatKitError, SessionStoreError

from .errors import ClientSecretRateLimitError, InvalidClientSecretError

logger: Final = logging.getLogger("chatkit_sessions")


class BrokenBodyError(ChatKitError):
    """The body is not as long as its Content-Length."""

    def __init__(self) -> None:
        super().__init__("The request's body is not as long as its Content-Length.")
        self._restored_by()


VerificationError: TypeAlias = (
    InvalidClientSecretError | ClientSecretRateLimitError | SessionStoreError | BrokenBodyError
)
VERIFICATION_ERRORS: Final = (
    InvalidClientSecretError,
    ClientSecretRateLimitError,
    SessionStoreError,
    BrokenBodyError,
)

# The requests for which ChatKitServer of openai-chatkit only reads.
_READS: Final = frozenset({"threads.list", "threads.get_by_id", "items.list"})

_MAX_LENGTH_OF_READS: Final = 65_536
_MAX_DIGITS: Final = 5


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
    if isinstance(error, BrokenBodyError):
        logger.warning("A request to the chat server was rejected with 400: %s", error.message)
        return Rejection(400, "invalid_request", error.message, {})
    logger.error("A request to the chat server was rejected with 503: %s", error)
    message = "Chat sessions cannot be verified right now: try again."
    return Rejection(503, "store_unavailable", message, {"Retry-After": "1"})


def length_to_read(content_length: str | None, transfer_encoding: str | None) -> int | None:
    """Return how many bytes to read to see whether a request counts.

    None: the request counts, and the chat server reads its body. Requests that only read are short,
    so a body is not read if it is long, or if its length is missing or overridden by a transfer
    coding.
    """
    length = content_length or ""
    if transfer_encoding is not None or not length.isdecimal() or len(length) > _MAX_DIGITS:
        return None
    return int(length) if int(length) <= _MAX_LENGTH_OF_READS else None


def is_counted(body: bytes, length: int) -> bool:
    """Whether a request with this body counts towards the session's rate limit.

    Args:
        body: What has arrived, up to one byte more than the length.
        length: The length from the request's headers.

    Raises:
        BrokenBodyError: The body has another length; most often, the client is gone.
    """
    if len(body) != length:
        raise BrokenBodyError
    try:
        request: object = json.loads(body)
    except (ValueError, RecursionError):
        return True  # the chat server rejects it
    if not isinstance(request, dict):
        return True
    kind = cast("dict[str, object]", request).get("type")
    return not isinstance(kind, str) or kind not in _READS
