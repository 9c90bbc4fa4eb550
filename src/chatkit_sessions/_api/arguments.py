"""The arguments of a call: the value, or an `InvalidRequestError` before anything is sent."""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from chatkit_sessions._config.validation import problem_with_id, problem_with_timeout
from chatkit_sessions._redaction import (
    hidden_from_tracebacks,
    is_masked,
    redact,
    safe_repr,
    with_article,
)
from chatkit_sessions.errors import InvalidRequestError

# Of this library's own: what every server takes in a URL.
_MAX_SESSION_ID_LENGTH: Final = 256
_NO_SESSION_IDS: Final = frozenset({"", ".", "..", "refresh"})
_NOT_IN_A_SESSION_ID: Final = re.compile(r"[\s/\\?#%]")


def invalid_argument(argument: str, bound: str, given: str) -> InvalidRequestError:
    """The error for an argument outside its bounds.

    Args:
        argument: The argument's name, as the caller writes it.
        bound: The bound, such as `must be 1 or more`.
        given: The value, without anything confidential.
    """
    return InvalidRequestError(f"`{argument}` {bound}, got {given}.")


def validate_user(user: object) -> str:
    """Reject a user that is not a string; the message says what to pass instead."""
    if isinstance(user, str):
        if not user:
            raise invalid_argument("user", "must have 1 character or more", "an empty string")
        # A proxy, such as werkzeug's LocalProxy, only claims to be a string.
        return validate_unicode(user if issubclass(type(user), str) else str(user), "user")
    if isinstance(user, Mapping):
        given = 'an object: pass its id, such as `user["id"]`'
    elif isinstance(user, int) and not isinstance(user, bool):
        given = f"the integer {safe_repr(user)}: pass `str(user)`"
    else:
        given = f"{with_article(type(user).__name__)}: pass its id as a string"
    raise invalid_argument("user", "must be a string that identifies your end user", given)


def validate_workflow_id(workflow_id: object) -> str:
    """Reject an invalid workflow id that was passed to a call."""
    problem = problem_with_id(workflow_id)
    if problem is not None:
        raise InvalidRequestError(f"`workflow_id` {problem}, got {safe_repr(workflow_id)}.")
    return str(workflow_id)


def validate_client_secret(client_secret: object) -> SecretStr:
    """Reject a malformed client secret; the message never quotes it."""
    secret = SecretStr(client_secret) if isinstance(client_secret, str) else client_secret
    if not isinstance(secret, SecretStr):
        raise InvalidRequestError(
            "`client_secret` must be the session's current secret as a string or a SecretStr, "
            f"got {with_article(type(secret).__name__)}."
        )
    problem = _problem_with_secret(secret)
    if problem is not None:
        raise InvalidRequestError(f"`client_secret` {problem}.")
    return secret


@hidden_from_tracebacks
def _problem_with_secret(masked: SecretStr) -> str | None:
    secret = masked.get_secret_value()
    if not secret.strip():
        return "is empty: to begin with, create a session"
    if is_masked(secret):
        return "is masked (asterisks only): it was read from a dump; pass the secret itself"
    if secret.startswith("cksess_"):
        return "is a session's id: pass the secret that the widget holds"
    return None if _is_unicode(secret) else "is not valid Unicode text"


def validate_call_timeout(timeout: float | None) -> float | None:
    """Reject an invalid timeout of a call."""
    problem = problem_with_timeout(timeout)
    if problem is not None:
        raise InvalidRequestError(f"`timeout` {problem}.")
    return timeout


def validate_session_id(session_id: str) -> str:
    """Reject an invalid session id."""
    problem = problem_with_session_id(session_id)
    if problem is not None:
        raise InvalidRequestError(f"`session_id` {problem}, got {safe_repr(session_id)}.")
    return session_id


def problem_with_session_id(session_id: object) -> str | None:
    """Why a session id is invalid, or None. An id is opaque, but must not lead to another route."""
    if not isinstance(session_id, str):
        return "must be a string: pass `session.id`"
    if not 1 <= len(session_id) <= _MAX_SESSION_ID_LENGTH:
        return f"must have 1 to {_MAX_SESSION_ID_LENGTH} characters"
    if redact(session_id) != session_id:
        return "is a secret or an API key, which must not stand in a URL: pass `session.id`"
    # Some servers drop what follows a semicolon, even an escaped one, before they choose a route.
    segment = session_id.partition(";")[0]
    if segment in _NO_SESSION_IDS or _NOT_IN_A_SESSION_ID.search(session_id):
        return (
            "must not hold white space, `/`, `\\`, `?`, `#` or `%`, nor consist of dots or be "
            "`refresh`, also before a `;`: they lead to other routes"
        )
    return None if session_id.isprintable() else "must not hold unprintable characters"


def validate_unicode(text: str, argument: str) -> str:
    """Reject text that no JSON document can hold."""
    if not _is_unicode(text):
        raise invalid_argument(argument, "must be valid Unicode text", "a lone surrogate")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
