"""The arguments of a call: the value, or an `InvalidRequestError` before anything is sent.

The bounds of a session's options are those of the published contract (`CreateChatSessionBody`),
validated here so that a mistake is reported at once and in the caller's own words.
"""

import inspect
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, TypeGuard

from pydantic import JsonValue

from chatkit_sessions._config.validation import is_unicode, problem_with_id, problem_with_timeout
from chatkit_sessions._redaction import (
    redact,
    safe_repr,
    with_article,
)
from chatkit_sessions.errors import InvalidRequestError
from chatkit_sessions.options import SessionOptions

MAX_EXPIRES_AFTER: Final = 600
"""Seconds; also how long a session lasts by default."""
MAX_STATE_VARIABLES: Final = 64
MAX_STATE_KEY_LENGTH: Final = 64
MAX_STATE_VALUE_LENGTH: Final = 10_485_760
MAX_FILE_SIZE: Final = 512

# Of this library's own: what every JSON reader takes as an integer, and every server in a URL.
_MAX_INTEGER: Final = 2**63 - 1
_MIN_REMAINING: Final = 60.0
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
    elif inspect.iscoroutine(user):
        user.close()  # else Python warns that nobody awaited it
        given = "a coroutine: await it; a synchronous endpoint needs a plain function as `user`"
    elif isinstance(user, int) and not isinstance(user, bool):
        given = f"the integer {safe_repr(user)}: pass `str(user)`"
    else:
        given = f"{with_article(type(user).__name__)}: pass its id as a string"
    raise invalid_argument("user", "must be a string that identifies your end user", given)


def validate_workflow_id(workflow_id: object) -> str:
    """Reject an invalid workflow id that was passed to a call."""
    problem = problem_with_id(workflow_id)
    if problem is not None:
        raise invalid_argument("workflow_id", problem, safe_repr(workflow_id))
    return str(workflow_id)


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
        raise invalid_argument("session_id", problem, safe_repr(session_id))
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
    if not is_unicode(text):
        raise invalid_argument(argument, "must be valid Unicode text", "a lone surrogate")
    return text


def create_body(user: str, *, workflow_id: str, options: SessionOptions) -> dict[str, JsonValue]:
    """Build the body of `POST /chatkit/sessions`."""
    body: dict[str, JsonValue] = {
        "workflow": _workflow(workflow_id, options),
        "user": validate_user(user),
    }
    expires_after = options.get("expires_after")
    if expires_after is not None:
        body["expires_after"] = {"anchor": "created_at", "seconds": _whole_seconds(expires_after)}
    limit = options.get("max_requests_per_1_minute")
    if limit is not None:
        body["rate_limits"] = {
            "max_requests_per_1_minute": _integer(limit, "max_requests_per_1_minute")
        }
    configuration = _chatkit_configuration(options)
    if configuration:
        body["chatkit_configuration"] = configuration
    return body


def _workflow(workflow_id: str, options: SessionOptions) -> dict[str, JsonValue]:
    workflow: dict[str, JsonValue] = {"id": workflow_id}
    version = options.get("workflow_version")
    if version is not None:
        problem = problem_with_id(version)
        if problem is not None:
            raise invalid_argument("workflow_version", problem, safe_repr(version))
        if version == "latest":
            # The API accepts it and fails only later, inside the chat.
            raise invalid_argument(
                "workflow_version", "must name a version", "'latest': omit it to get that"
            )
        workflow["version"] = version
    variables = options.get("state_variables")
    if variables is not None:
        workflow["state_variables"] = _state_variables(variables)
    tracing = options.get("tracing")
    if tracing is not None:
        workflow["tracing"] = {"enabled": _boolean(tracing, "tracing")}
    return workflow


def _state_variables(variables: object) -> dict[str, JsonValue]:
    if not _is_mapping(variables):
        raise invalid_argument(
            "state_variables",
            "must be a mapping of names to values",
            with_article(type(variables).__name__),
        )
    if len(variables) > MAX_STATE_VARIABLES:
        raise invalid_argument(
            "state_variables",
            f"must have at most {MAX_STATE_VARIABLES} entries",
            str(len(variables)),
        )
    return dict(_state_variable(key, value) for key, value in variables.items())


def _state_variable(name: object, value: object) -> tuple[str, JsonValue]:
    if not isinstance(name, str):
        raise invalid_argument("state_variables", "must have strings as names", safe_repr(name))
    if len(name) > MAX_STATE_KEY_LENGTH:
        bound = f"must have names of at most {MAX_STATE_KEY_LENGTH} characters"
        raise invalid_argument("state_variables", bound, f"{safe_repr(name)} with {len(name)}")
    return validate_unicode(name, "state_variables"), _state_value(
        f"state_variables[{safe_repr(name)}]", value
    )


def _state_value(argument: str, value: object) -> JsonValue:
    """Validate a value without quoting it: a workflow's state may be confidential."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
            raise invalid_argument(argument, "must fit 64 bits", "a larger integer")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise invalid_argument(argument, "must be finite", repr(value))
        return float(value)
    if not isinstance(value, str):
        bound = "must be a string, an integer, a number or a boolean"
        raise invalid_argument(argument, bound, with_article(type(value).__name__))
    if len(value) > MAX_STATE_VALUE_LENGTH:
        bound = f"must have at most {MAX_STATE_VALUE_LENGTH:,} characters"
        raise invalid_argument(argument, bound, f"{len(value):,}")
    return validate_unicode(value, argument)


def requested_lifetime(options: SessionOptions) -> int:
    """Seconds that a session with these options lasts."""
    expires_after = options.get("expires_after")
    return MAX_EXPIRES_AFTER if expires_after is None else _whole_seconds(expires_after)


def validate_min_remaining(min_remaining: object, *, lifetime: int) -> float:
    """Seconds that a session must have left to be reused; None: a fifth of its life, at most 60."""
    if min_remaining is None:
        return min(_MIN_REMAINING, lifetime / 5)
    if isinstance(min_remaining, timedelta):
        seconds: object = min_remaining.total_seconds()
    else:
        seconds = min_remaining
    bound = f"must be seconds, 0 or more and less than `expires_after` ({lifetime})"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise invalid_argument("min_remaining", bound, safe_repr(seconds))
    if not 0 <= seconds < lifetime:
        raise invalid_argument("min_remaining", bound, safe_repr(seconds))
    return float(seconds)


def _whole_seconds(value: object) -> int:
    if isinstance(value, timedelta):
        if value % timedelta(seconds=1):
            raise invalid_argument(
                "expires_after", "must be whole seconds", f"{value.total_seconds()} s"
            )
        value = value // timedelta(seconds=1)
    if _is_mapping(value):  # as in the API's own body, and in the official SDK
        raise InvalidRequestError(
            f"`expires_after` must be a whole number, 1 to {MAX_EXPIRES_AFTER} seconds, got "
            f"{safe_repr(value)}. Pass the seconds alone, such as `expires_after=300`."
        )
    return _integer(value, "expires_after", most=MAX_EXPIRES_AFTER, unit=" seconds")


def _chatkit_configuration(options: SessionOptions) -> dict[str, JsonValue]:
    configuration: dict[str, JsonValue] = {}
    titling = options.get("automatic_thread_titling")
    if titling is not None:
        enabled = _boolean(titling, "automatic_thread_titling")
        configuration["automatic_thread_titling"] = {"enabled": enabled}
    file_upload = options.get("file_upload")
    if file_upload is not None:
        bounds = {"max_file_size": MAX_FILE_SIZE, "max_files": None}
        # The API's default is off, but a caller who sets limits for uploads wants uploads.
        upload = _feature(file_upload, "file_upload", bounds)
        configuration["file_upload"] = {"enabled": True, **upload}
    history = options.get("history")
    if history is not None:
        configuration["history"] = _feature(history, "history", {"recent_threads": None})
    return configuration


def _feature(
    value: object, argument: str, bounds: Mapping[str, int | None]
) -> dict[str, JsonValue]:
    """Validate a feature: a boolean, or a dictionary of `enabled` and integers of 1 or more."""
    if isinstance(value, bool):
        return {"enabled": value}
    names = ", ".join(f"`{name}`" for name in ("enabled", *bounds))
    if not _is_mapping(value):
        raise invalid_argument(
            argument, f"must be a boolean or a dictionary of {names}", safe_repr(value)
        )
    feature: dict[str, JsonValue] = {}
    for name, setting in value.items():
        if name == "enabled":
            feature["enabled"] = _boolean(setting, f'{argument}["enabled"]')
        elif isinstance(name, str) and name in bounds:
            feature[name] = _integer(setting, f'{argument}["{name}"]', most=bounds[name])
        else:
            raise invalid_argument(argument, f"must hold nothing but {names}", safe_repr(name))
    return feature


def _integer(value: object, argument: str, *, most: int | None = None, unit: str = "") -> int:
    bound = f"1 to {most}{unit}" if most is not None else f"1 or more{unit}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid_argument(argument, f"must be a whole number, {bound}", safe_repr(value))
    if not 1 <= value <= (_MAX_INTEGER if most is None else most):
        raise invalid_argument(argument, f"must be {bound}", safe_repr(value))
    return int(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _boolean(value: object, argument: str) -> bool:
    if not isinstance(value, bool):
        raise invalid_argument(argument, "must be True or False", safe_repr(value))
    return value
