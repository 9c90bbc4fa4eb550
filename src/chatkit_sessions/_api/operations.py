"""One builder per call: arguments → `Operation`, or an error before anything is sent.

The bounds are those of the published contract (`CreateChatSessionBody`), checked here so that a
mistake is answered at once and in the caller's own words.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Generic, TypedDict, TypeGuard, TypeVar
from urllib.parse import quote

from pydantic import JsonValue, SecretStr, ValidationError

from chatkit_sessions._config.settings import flaw_of_id, flaw_of_timeout
from chatkit_sessions._redaction import MaskedBytes, is_masked, mask, redact, shown, with_article
from chatkit_sessions.errors import InvalidRequestError
from chatkit_sessions.models import (
    FIELD_NAMES,
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    FileUpload,
    History,
    StateVariable,
)

from .diagnosis import says_session_ended

T_co = TypeVar("T_co", covariant=True)
AnswerT = TypeVar("AnswerT", ChatKitSessionInfo, CancelledSession)

MAX_EXPIRES_AFTER: Final = 600
"""Seconds; also what a session lasts if nothing else is asked for."""
MAX_STATE_VARIABLES: Final = 64
MAX_STATE_KEY_LENGTH: Final = 64
MAX_STATE_VALUE_LENGTH: Final = 10_485_760
MAX_FILE_SIZE: Final = 512

# Bounds of this library's own: what every JSON reader takes as an integer, what every server takes
# in a URL.
_MAX_INTEGER: Final = 2**63 - 1
_MAX_SESSION_ID_LENGTH: Final = 256

_MIN_REMAINING: Final = 60.0
_MAX_FLAWS_TOLD: Final = 3
_NO_SESSION_IDS: Final = frozenset({".", "..", "refresh"})
_NOT_IN_A_SESSION_ID: Final = re.compile(r"[\s/\\?#%;]")
_SESSIONS: Final = "/chatkit/sessions"


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """One call of the API, as plain values."""

    method: str
    path: str
    """Below the base URL, escaped."""
    body: MaskedBytes | None
    read: Callable[[dict[str, JsonValue]], T_co]
    """Makes the result of a success answer's JSON object.

    Raises pydantic's ValidationError or UnacceptableAnswerError."""
    read_refusal: Callable[[int, ChatKitErrorDetail | None], T_co | None] = lambda _, __: None
    """Makes a result of an error answer that is as good as success; None where it is an error."""
    secrets: tuple[SecretStr, ...] = field(default=(), repr=False)
    """What the request holds beside the key and no text may quote."""


class SessionOptions(TypedDict):
    """The options of a session; None: left to the API."""

    workflow_version: str | None
    state_variables: Mapping[str, StateVariable] | None
    tracing: bool | None
    expires_after: int | timedelta | None
    max_requests_per_1_minute: int | None
    file_upload: bool | FileUpload | None
    history: bool | History | None
    automatic_thread_titling: bool | None


def create(
    user: str, *, workflow_id: str, options: SessionOptions
) -> Operation[ChatKitSessionResponse]:
    """`POST /chatkit/sessions`."""
    body: dict[str, JsonValue] = {
        "workflow": _workflow(workflow_id, options),
        "user": check_user(user),
    }
    if options["expires_after"] is not None:
        seconds = _whole_seconds(options["expires_after"])
        body["expires_after"] = {"anchor": "created_at", "seconds": seconds}
    if options["max_requests_per_1_minute"] is not None:
        limit = _integer(options["max_requests_per_1_minute"], "max_requests_per_1_minute")
        body["rate_limits"] = {"max_requests_per_1_minute": limit}
    configuration = _chatkit_configuration(options)
    if configuration:
        body["chatkit_configuration"] = configuration
    return Operation("POST", _SESSIONS, _encode(body), ChatKitSessionResponse.model_validate)


@dataclass(frozen=True, slots=True)
class RejectedSession:
    """What the refresh route handed out and nobody may use; `id` where it has one to cancel."""

    id: str | None
    reason: str


def refresh(
    client_secret: str | SecretStr, *, user: str, workflow_id: str
) -> Operation[ChatKitSessionResponse | RejectedSession]:
    """`POST /chatkit/sessions/refresh`: not in the contract, so its answer is not trusted."""
    secret = check_client_secret(client_secret)

    def read(answer: dict[str, JsonValue]) -> ChatKitSessionResponse | RejectedSession:
        return _judge_refreshed(answer, presented=secret, user=user, workflow_id=workflow_id)

    body = _encode({"client_secret": secret.get_secret_value()})
    return Operation("POST", f"{_SESSIONS}/refresh", body, read, secrets=(secret,))


def _judge_refreshed(
    answer: dict[str, JsonValue], *, presented: SecretStr, user: str, workflow_id: str
) -> ChatKitSessionResponse | RejectedSession:
    try:
        session = ChatKitSessionResponse.model_validate(answer)
    except ValidationError as error:
        reason = describe_validation_error(error)
    else:
        if session.client_secret == presented:
            reason = "it holds the secret that was presented"
        elif session.status in {"expired", "cancelled"}:
            reason = "it has ended already"
        elif session.user != user:
            reason = "it does not name the same user"
        elif session.workflow is None or session.workflow.id != workflow_id:
            reason = "it does not name the same workflow"
        else:
            return session
    session_id = answer.get("id")
    if not isinstance(session_id, str) or _flaw_of_session_id(session_id) is not None:
        return RejectedSession(None, reason)
    return RejectedSession(
        session_id if mask(session_id, [presented]) == session_id else None, reason
    )


def get(session_id: str) -> Operation[ChatKitSessionInfo]:
    """`GET /chatkit/sessions/{session_id}`: offered by some ChatKit-compatible servers."""

    def read(answer: dict[str, JsonValue]) -> ChatKitSessionInfo:
        info = ChatKitSessionInfo.model_validate({**answer, "source": "api"})
        return _about(session_id, info)

    return Operation("GET", _session_path(session_id), None, read)


def cancel(session_id: str) -> Operation[CancelledSession]:
    """`POST /chatkit/sessions/{session_id}/cancel`; one that has ended already counts as done."""

    def read_refusal(
        status_code: int, detail: ChatKitErrorDetail | None
    ) -> CancelledSession | None:
        ended = says_session_ended(status_code, detail)
        return CancelledSession(id=session_id, status=ended) if ended else None

    def read(answer: dict[str, JsonValue]) -> CancelledSession:
        return _about(session_id, CancelledSession.model_validate(answer))

    path = f"{_session_path(session_id)}/cancel"
    return Operation("POST", path, None, read, read_refusal)


class UnacceptableAnswerError(ValueError):
    """Why a well-formed answer is none to what was asked. Holds nothing of the answer."""


def _about(session_id: str, answer: AnswerT) -> AnswerT:
    if answer.id != session_id:
        raise UnacceptableAnswerError("it is about another session")
    return answer


def describe_validation_error(error: ValidationError) -> str:
    """Tell where a body fails and how, without a value or a name that is the body's own."""
    flaws = [
        f"`{'.'.join(_step(step) for step in flaw['loc'])}` {flaw['msg']} ({flaw['type']})"
        for flaw in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(flaws[:_MAX_FLAWS_TOLD])


def _step(step: int | str) -> str:
    return str(step) if isinstance(step, int) or step in FIELD_NAMES else "…"


def check_user(user: object) -> str:
    """Refuse a user that is not a string, saying what to pass instead."""
    if isinstance(user, str):
        if not user:
            raise _refusal("user", "must have 1 character or more", "an empty string")
        return _unicode(user, "user")
    if isinstance(user, Mapping):
        given = 'an object: pass its id, such as `user["id"]`'
    elif isinstance(user, int) and not isinstance(user, bool):
        given = f"the integer {shown(user)}: pass `str(user)`"
    else:
        given = f"{with_article(type(user).__name__)}: pass its id as a string"
    raise _refusal("user", "must be a string that identifies your end user", given)


def check_workflow_id(workflow_id: object) -> str:
    """Refuse a workflow id, given to a call, that cannot be one."""
    flaw = flaw_of_id(workflow_id)
    if flaw is not None:
        raise InvalidRequestError(f"`workflow_id` {flaw}, got {shown(workflow_id)}.")
    return str(workflow_id)


def check_client_secret(client_secret: object) -> SecretStr:
    """Refuse what cannot be a client secret, without ever quoting it."""
    secret = SecretStr(client_secret) if isinstance(client_secret, str) else client_secret
    if not isinstance(secret, SecretStr):
        raise InvalidRequestError(
            "`client_secret` must be the session's current secret as a string or a SecretStr, "
            f"got {with_article(type(secret).__name__)}."
        )
    flaw = _flaw_of_secret(secret.get_secret_value())
    if flaw is not None:
        raise InvalidRequestError(f"`client_secret` {flaw}.")
    return secret


def _flaw_of_secret(secret: str) -> str | None:
    if not secret.strip():
        return "is empty: to begin with, create a session"
    if is_masked(secret):
        return "is masked (asterisks only): it was read from a dump; pass the secret itself"
    if secret.startswith("cksess_"):
        return "is a session's id: pass the secret that the widget holds"
    return None if _is_unicode(secret) else "is not valid Unicode text"


def check_call_timeout(timeout: float | None) -> float | None:
    """Refuse a call's timeout that is none."""
    flaw = flaw_of_timeout(timeout)
    if flaw is not None:
        raise InvalidRequestError(f"`timeout` {flaw}.")
    return timeout


def _session_path(session_id: str) -> str:
    flaw = _flaw_of_session_id(session_id)
    if flaw is not None:
        raise InvalidRequestError(f"`session_id` {flaw}, got {shown(session_id)}.")
    return f"{_SESSIONS}/{quote(session_id, safe='')}"


def _flaw_of_session_id(session_id: object) -> str | None:
    """Ids are opaque, but they become part of a URL: refuse what could lead to another route."""
    if not isinstance(session_id, str):
        return "must be a string: pass `session.id`"
    if not 1 <= len(session_id) <= _MAX_SESSION_ID_LENGTH:
        return f"must have 1 to {_MAX_SESSION_ID_LENGTH} characters"
    if redact(session_id) != session_id:
        return "is a secret or an API key, which must not stand in a URL: pass `session.id`"
    if session_id in _NO_SESSION_IDS or _NOT_IN_A_SESSION_ID.search(session_id):
        return (
            "must not hold white space, `/`, `\\`, `?`, `#`, `%` or `;`, nor consist of dots or be "
            "`refresh`, which lead to other routes"
        )
    return None if session_id.isprintable() else "must not hold unprintable characters"


def _workflow(workflow_id: str, options: SessionOptions) -> dict[str, JsonValue]:
    workflow: dict[str, JsonValue] = {"id": workflow_id}
    version = options["workflow_version"]
    if version is not None:
        flaw = flaw_of_id(version)
        if flaw is not None:
            raise InvalidRequestError(f"`workflow_version` {flaw}, got {shown(version)}.")
        if version == "latest":
            # The API accepts it and fails only later, inside the chat.
            raise _refusal(
                "workflow_version", "must name a version", "'latest': leave it out to get that"
            )
        workflow["version"] = version
    if options["state_variables"] is not None:
        workflow["state_variables"] = _state_variables(options["state_variables"])
    if options["tracing"] is not None:
        workflow["tracing"] = {"enabled": _boolean(options["tracing"], "tracing")}
    return workflow


def _state_variables(variables: object) -> dict[str, JsonValue]:
    if not _is_mapping(variables):
        raise _refusal(
            "state_variables",
            "must be a mapping of names to values",
            with_article(type(variables).__name__),
        )
    if len(variables) > MAX_STATE_VARIABLES:
        raise _refusal(
            "state_variables",
            f"must have at most {MAX_STATE_VARIABLES} entries",
            str(len(variables)),
        )
    return dict(_state_variable(key, value) for key, value in variables.items())


def _state_variable(name: object, value: object) -> tuple[str, JsonValue]:
    if not isinstance(name, str):
        raise _refusal("state_variables", "must have strings as names", shown(name))
    if len(name) > MAX_STATE_KEY_LENGTH:
        bound = f"must have names of at most {MAX_STATE_KEY_LENGTH} characters"
        raise _refusal("state_variables", bound, f"{shown(name)} with {len(name)}")
    return _unicode(name, "state_variables"), _state_value(f"state_variables[{shown(name)}]", value)


def _state_value(argument: str, value: object) -> JsonValue:
    """Values are never quoted: a workflow's state may well be confidential."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
            raise _refusal(argument, "must fit 64 bits", "a larger integer")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(argument, "must be finite", repr(value))
        return float(value)
    if not isinstance(value, str):
        bound = "must be a string, an integer, a number or a boolean"
        raise _refusal(argument, bound, with_article(type(value).__name__))
    if len(value) > MAX_STATE_VALUE_LENGTH:
        bound = f"must have at most {MAX_STATE_VALUE_LENGTH:,} characters"
        raise _refusal(argument, bound, f"{len(value):,}")
    return _unicode(value, argument)


def seconds_asked_for(options: SessionOptions) -> int:
    """How long a session with these options lasts."""
    asked = options["expires_after"]
    return MAX_EXPIRES_AFTER if asked is None else _whole_seconds(asked)


def check_min_remaining(min_remaining: object, options: SessionOptions) -> float:
    """Seconds that a session has to have left to be used again; None: a fifth, at most 60."""
    lasts = seconds_asked_for(options)
    if min_remaining is None:
        return min(_MIN_REMAINING, lasts / 5)
    if isinstance(min_remaining, timedelta):
        seconds: object = min_remaining.total_seconds()
    else:
        seconds = min_remaining
    bound = f"must be seconds, 0 or more and less than `expires_after` ({lasts})"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise _refusal("min_remaining", bound, shown(seconds))
    if not 0 <= seconds < lasts:
        raise _refusal("min_remaining", bound, shown(seconds))
    return float(seconds)


def _whole_seconds(value: object) -> int:
    if isinstance(value, timedelta):
        if value % timedelta(seconds=1):
            raise _refusal("expires_after", "must be whole seconds", f"{value.total_seconds()} s")
        value = value // timedelta(seconds=1)
    if _is_mapping(value):  # as in the API's own body, and in the official SDK
        raise InvalidRequestError(
            f"`expires_after` must be a whole number, 1 to {MAX_EXPIRES_AFTER} seconds, got "
            f"{shown(value)}. Pass the seconds alone, such as `expires_after=300`."
        )
    return _integer(value, "expires_after", most=MAX_EXPIRES_AFTER, unit=" seconds")


def _chatkit_configuration(options: SessionOptions) -> dict[str, JsonValue]:
    configuration: dict[str, JsonValue] = {}
    titling = options["automatic_thread_titling"]
    if titling is not None:
        enabled = _boolean(titling, "automatic_thread_titling")
        configuration["automatic_thread_titling"] = {"enabled": enabled}
    if options["file_upload"] is not None:
        bounds = {"max_file_size": MAX_FILE_SIZE, "max_files": None}
        upload = _feature(options["file_upload"], "file_upload", bounds)
        # The API's default is off, and who gives limits for uploads wants uploads.
        configuration["file_upload"] = {"enabled": True, **upload}
    if options["history"] is not None:
        configuration["history"] = _feature(options["history"], "history", {"recent_threads": None})
    return configuration


def _feature(
    value: object, argument: str, bounds: Mapping[str, int | None]
) -> dict[str, JsonValue]:
    """A feature is a boolean or a dictionary of `enabled` and integers of 1 or more."""
    if isinstance(value, bool):
        return {"enabled": value}
    names = ", ".join(f"`{name}`" for name in ("enabled", *bounds))
    if not _is_mapping(value):
        raise _refusal(argument, f"must be a boolean or a dictionary of {names}", shown(value))
    feature: dict[str, JsonValue] = {}
    for name, setting in value.items():
        if name == "enabled":
            feature["enabled"] = _boolean(setting, f'{argument}["enabled"]')
        elif isinstance(name, str) and name in bounds:
            feature[name] = _integer(setting, f'{argument}["{name}"]', most=bounds[name])
        else:
            raise _refusal(argument, f"must hold nothing but {names}", shown(name))
    return feature


def _integer(value: object, argument: str, *, most: int | None = None, unit: str = "") -> int:
    bound = f"1 to {most}{unit}" if most is not None else f"1 or more{unit}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refusal(argument, f"must be a whole number, {bound}", shown(value))
    if not 1 <= value <= (_MAX_INTEGER if most is None else most):
        raise _refusal(argument, f"must be {bound}", shown(value))
    return int(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _boolean(value: object, argument: str) -> bool:
    if not isinstance(value, bool):
        raise _refusal(argument, "must be True or False", shown(value))
    return value


def _unicode(text: str, argument: str) -> str:
    if not _is_unicode(text):
        raise _refusal(argument, "must be valid Unicode text", "a lone surrogate")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(argument: str, bound: str, given: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{argument}` {bound}, got {given}.")


def _encode(body: JsonValue) -> MaskedBytes:
    return MaskedBytes(_JSON.encode(body).encode())


# Names in order, so that the same request has the same bytes.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
