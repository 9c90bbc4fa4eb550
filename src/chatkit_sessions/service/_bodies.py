"""JSON bodies by the published contract: a session's settings are parsed, sessions are written."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from pydantic import SecretStr

from . import _error_responses as error_responses

if TYPE_CHECKING:
    from ._records import ServiceRecord

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

StateValue: TypeAlias = str | int | float | bool

DEFAULT_LIFETIME: Final = 600
DEFAULT_REQUESTS_PER_MINUTE: Final = 10
_MAX_LIFETIME: Final = 600
_DEFAULT_FILE_SIZE: Final = 512
_MAX_FILE_SIZE: Final = 512
_DEFAULT_FILES: Final = 10
_MAX_STATE_VARIABLES: Final = 64
_MAX_STATE_NAME: Final = 64
_MAX_STATE_TEXT: Final = 10_485_760


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The settings of a create request, with the defaults for omitted ones.

    Attributes:
        user: The end user's id, from the backend.
        workflow_id: The session's workflow.
        workflow_version: The workflow's version; None: the latest deployed one.
        state_variables: The backend's values for the workflow; None if it passed none.
        tracing: Whether the workflow's runs are traced.
        expires_after: The session's lifetime in seconds, 1 to 600.
        max_requests_per_1_minute: The session's rate limit.
        automatic_thread_titling: Whether threads get titles automatically.
        file_upload: Whether users can upload files.
        max_file_size: The most megabytes of a file; None if uploads are off.
        max_files: The most files; None if uploads are off.
        history: Whether users see their earlier threads.
        recent_threads: How many earlier threads users see; None: all.
    """

    user: str
    workflow_id: str
    workflow_version: str | None = None
    state_variables: Mapping[str, StateValue] | None = field(default=None, repr=False)
    tracing: bool = True
    expires_after: int = DEFAULT_LIFETIME
    max_requests_per_1_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    automatic_thread_titling: bool = True
    file_upload: bool = False
    max_file_size: int | None = None
    max_files: int | None = None
    history: bool = True
    recent_threads: int | None = None


def parse_create_body(body: bytes) -> SessionSettings:
    """Parse the body of a create request.

    Args:
        body: The request's body.

    Returns:
        The settings, with the contract's defaults for omitted fields.

    Raises:
        ErrorResponse: The body is not JSON, or breaks the contract.
    """
    fields = _parse_object(
        body, {"user", "workflow", "expires_after", "rate_limits", "chatkit_configuration"}
    )
    user = _user(fields)
    fields.require("workflow")
    workflow = fields.object("workflow", {"id", "version", "state_variables", "tracing"})
    workflow_id = workflow.required_string("id")
    configuration = fields.object(
        "chatkit_configuration", {"automatic_thread_titling", "file_upload", "history"}
    )
    file_upload = configuration.object("file_upload", {"enabled", "max_file_size", "max_files"})
    max_file_size = file_upload.integer("max_file_size", maximum=_MAX_FILE_SIZE)
    max_files = file_upload.integer("max_files")
    can_upload = file_upload.boolean("enabled", default=False)
    history = configuration.object("history", {"enabled", "recent_threads"})
    limits = fields.object("rate_limits", {"max_requests_per_1_minute"})
    return SessionSettings(
        user=user,
        workflow_id=workflow_id,
        workflow_version=workflow.string("version"),
        state_variables=_state_variables(workflow),
        tracing=_enabled(workflow, "tracing"),
        expires_after=_lifetime(fields),
        max_requests_per_1_minute=(
            limits.integer("max_requests_per_1_minute") or DEFAULT_REQUESTS_PER_MINUTE
        ),
        automatic_thread_titling=_enabled(configuration, "automatic_thread_titling"),
        file_upload=can_upload,
        max_file_size=(max_file_size or _DEFAULT_FILE_SIZE) if can_upload else None,
        max_files=(max_files or _DEFAULT_FILES) if can_upload else None,
        history=history.boolean("enabled", default=True),
        recent_threads=history.integer("recent_threads"),
    )


def parse_refresh_body(body: bytes) -> SecretStr:
    """Parse the body of a refresh request.

    Args:
        body: The request's body.

    Returns:
        The client secret to exchange.

    Raises:
        ErrorResponse: The body is not a JSON object with exactly this field.
    """
    return SecretStr(_parse_object(body, {"client_secret"}).required_string("client_secret"))


def parse_sign_out_body(body: bytes) -> str:
    """Parse the body of a request that ends all sessions of a user.

    Args:
        body: The request's body.

    Returns:
        The user.

    Raises:
        ErrorResponse: The body is not a JSON object with exactly this field.
    """
    return _user(_parse_object(body, {"user"}))


def session_object(record: "ServiceRecord", now: datetime, *, client_secret: str) -> JsonValue:
    """Return the session as the API returns it, with every field of the published contract.

    Args:
        record: The session.
        now: The time for its status.
        client_secret: Its secret; empty in responses without the secret.
    """
    settings = record.settings
    variables = settings.state_variables
    return {
        "id": record.id,
        "object": "chatkit.session",
        "client_secret": client_secret,
        "expires_at": record.expires_at,
        "workflow": {
            "id": settings.workflow_id,
            "version": settings.workflow_version,
            "state_variables": None if variables is None else dict(variables),
            "tracing": {"enabled": settings.tracing},
        },
        "user": settings.user,
        "rate_limits": {"max_requests_per_1_minute": settings.max_requests_per_1_minute},
        "max_requests_per_1_minute": settings.max_requests_per_1_minute,
        "status": record.status(now),
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": settings.automatic_thread_titling},
            "file_upload": {
                "enabled": settings.file_upload,
                "max_file_size": settings.max_file_size,
                "max_files": settings.max_files,
            },
            "history": {
                "enabled": settings.history,
                "recent_threads": settings.recent_threads,
            },
        },
    }


def _user(fields: "_Object") -> str:
    user = fields.required_string("user")
    if not user:
        raise error_responses.empty_string("user")
    return user


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object whose fields are read one by one; each error names the field's path."""

    path: str
    fields: Mapping[str, JsonValue] = field(repr=False)

    def require(self, *names: str) -> None:
        for name in names:
            if name not in self.fields:
                raise error_responses.missing_parameter(self.path_of(name))

    def required_string(self, name: str) -> str:
        self.require(name)
        value = self.fields[name]
        if not isinstance(value, str):
            raise error_responses.invalid_type(self.path_of(name), "a string", value)
        return value

    def string(self, name: str) -> str | None:
        return self.required_string(name) if name in self.fields else None

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise error_responses.invalid_type(self.path_of(name), "a boolean", value)
        return value

    def integer(self, name: str, *, maximum: int | None = None) -> int | None:
        if name not in self.fields:
            return None
        value = self.fields[name]
        number = _as_integer(value)
        if number is None:
            raise error_responses.invalid_type(self.path_of(name), "an integer", value)
        # Every integer of the contract is at least 1.
        if number < 1:
            raise error_responses.integer_below_minimum(self.path_of(name), 1, number)
        if maximum is not None and number > maximum:
            raise error_responses.integer_above_maximum(self.path_of(name), maximum, number)
        return number

    def object(self, name: str, known: Collection[str] | None) -> "_Object":
        return _opened(self.path_of(name), self.fields.get(name, {}), known)

    def path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _parse_object(body: bytes, known: Collection[str]) -> _Object:
    try:
        value = decode_json(body)
    except ValueError:
        raise error_responses.malformed_json() from None
    return _opened("", value, known)


def _opened(path: str, value: JsonValue, known: Collection[str] | None) -> _Object:
    """The object at `path`; if `known` is None, its fields may have any name."""
    if not isinstance(value, dict):
        raise error_responses.invalid_type(path, "an object", value)
    opened = _Object(path, value)
    for name in value:
        if known is not None and name not in known:
            raise error_responses.unknown_parameter(opened.path_of(name))
    return opened


def _as_integer(value: JsonValue) -> int | None:
    """The value if it is an integer by JSON Schema: 300.0 is one, true is not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _enabled(parent: _Object, name: str) -> bool:
    return parent.object(name, {"enabled"}).boolean("enabled", default=True)


def _lifetime(fields: _Object) -> int:
    if "expires_after" not in fields.fields:
        return DEFAULT_LIFETIME
    expires_after = fields.object("expires_after", {"anchor", "seconds"})
    anchor = expires_after.required_string("anchor")
    if anchor != "created_at":
        raise error_responses.unsupported_value(
            expires_after.path_of("anchor"), anchor, "created_at"
        )
    expires_after.require("seconds")
    return expires_after.integer("seconds", maximum=_MAX_LIFETIME) or DEFAULT_LIFETIME


def _state_variables(workflow: _Object) -> dict[str, StateValue] | None:
    if "state_variables" not in workflow.fields:
        return None
    variables = workflow.object("state_variables", known=None)
    if len(variables.fields) > _MAX_STATE_VARIABLES:
        raise error_responses.object_above_maximum_properties(
            variables.path, _MAX_STATE_VARIABLES, len(variables.fields)
        )
    return {
        _state_name(variables, name): _state_value(variables, name) for name in variables.fields
    }


def _state_name(variables: _Object, name: str) -> str:
    if len(name) > _MAX_STATE_NAME:
        raise error_responses.string_above_maximum_length(
            variables.path, _MAX_STATE_NAME, len(name)
        )
    return name


def _state_value(variables: _Object, name: str) -> StateValue:
    value = variables.fields[name]
    if value is None or isinstance(value, list | dict):
        raise error_responses.invalid_type(
            variables.path_of(name), "a string, a number or a boolean", value
        )
    if isinstance(value, str) and len(value) > _MAX_STATE_TEXT:
        raise error_responses.string_above_maximum_length(
            variables.path_of(name), _MAX_STATE_TEXT, len(value)
        )
    return value


def decode_json(body: bytes) -> JsonValue:
    """Parse `body` as JSON in UTF-8, strictly: no `NaN`, no number that overflows.

    Raises:
        ValueError: The body is not JSON, or nested too deeply.
    """
    try:
        value: JsonValue = json.loads(
            body.decode(), parse_float=_finite_float, parse_constant=_reject_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def encode_json(value: JsonValue) -> bytes:
    """Return `value` as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"out of range: {text}")
    return number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name}")
