"""An endpoint's arguments: the value, or a `ConfigurationError` that says what to change."""

from typing import Final

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError, SessionNotRecordedError
from chatkit_sessions.models import ChatKitSessionInfo

MAX_RATE_LIMIT: Final = 1_000


def validate_rate_limit(limit: object) -> int | None:
    """Reject an invalid limit.

    Raises:
        ConfigurationError: The limit is not a whole number within the bounds.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_RATE_LIMIT:
        raise ConfigurationError(
            f"`rate_limit` must be a whole number from 1 to {MAX_RATE_LIMIT:,}, or None for no "
            f"limit, got {safe_repr(limit)}."
        )
    return limit


def validate_client(client: object, expected: type, *, endpoint: str) -> None:
    """Reject an async client where a sync one is expected, and the other way round.

    Raises:
        ConfigurationError: The client is not of that type.
    """
    if not isinstance(client, expected):
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got {safe_repr(client)}."
        )


def require_owner(info: ChatKitSessionInfo, user: str) -> None:
    """Reveal nothing about another user's session, not even that it exists.

    Raises:
        SessionNotRecordedError: The session is not this user's.
    """
    if info.user != user:
        raise SessionNotRecordedError("The session is not this user's.")
