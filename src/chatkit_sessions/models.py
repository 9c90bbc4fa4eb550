"""What the ChatKit sessions API returns, as frozen pydantic models.

A change of the server must not break this library. So only the fields that a caller needs are
required, unknown fields are kept in `model_extra`, and an unknown `status` is kept as it is.
"""

import builtins
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

# Not typing's: pydantic, and so FastAPI, takes only this one as a response type on Python 3.11.
from typing_extensions import TypedDict

from ._redaction import (
    MASK,
    hidden_from_tracebacks,
    is_masked,
    mask,
    mask_json,
    names_a_secret,
    redact,
    redact_json,
)
from .options import (  # for those who look for them here
    FileUpload as FileUpload,
    History as History,
    StateVariable as StateVariable,
)

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2101, 1, 1, tzinfo=UTC)


def parse_timestamp(value: object) -> datetime:
    """Read Unix seconds, as the contract has them, or ISO 8601, as compatible servers send it.

    Raises:
        ValueError: The value is neither, or lies outside the years 2000 to 2100.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | datetime):
        raise ValueError("must be Unix seconds or an ISO 8601 string")  # noqa: TRY004 -- pydantic turns only a ValueError into its own error
    try:
        timestamp = _to_utc(value)
    except (ValueError, OverflowError, OSError):
        raise ValueError("must be a date that exists") from None
    if not _EARLIEST <= timestamp < _LATEST:
        raise ValueError("must lie in the years 2000 to 2100")
    return timestamp


def _to_utc(value: float | str | datetime) -> datetime:
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError
        return datetime.fromtimestamp(value, UTC)
    timestamp = datetime.fromisoformat(value) if isinstance(value, str) else value
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


Timestamp: TypeAlias = Annotated[datetime, BeforeValidator(parse_timestamp)]


class BrowserSession(TypedDict):
    """The endpoint's response to the page."""

    client_secret: str
    """The secret in plain text. Send it to the user's browser only."""
    expires_at: str
    """ISO 8601 in UTC, such as `2026-11-22T10:00:00Z`."""
    session_id: str


class _Model(BaseModel):
    """Frozen, keeps unknown fields, and shows none of them in its repr."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", hide_input_in_errors=True, defer_build=True
    )

    @hidden_from_tracebacks
    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        declared = type(self).model_fields
        return [
            (name, redact(value) if isinstance(value, str) else value)
            for name, value in super().__repr_args__()
            if name in declared
        ]

    @model_serializer(mode="wrap")
    def _mask_secrets(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Mask text that looks like a secret, and unknown fields whose names suggest one."""
        unknown = self.model_extra or {}
        dumped: dict[str, object] = dump(self)
        for name, value in dumped.items():
            if name in unknown:
                hidden = value is not None and names_a_secret(name)
                dumped[name] = MASK if hidden else redact_json(value)
            elif isinstance(value, str):
                dumped[name] = redact(value)
        return dumped


class ChatKitErrorDetail(_Model):
    """The `error` object of an error response."""

    message: str
    type: str
    param: str | None = None
    """The invalid argument, if the API names one."""
    code: str | None = None
    """The error code, such as `invalid_api_key`, if the API returns one."""


class ChatKitErrorResponse(_Model):
    """An error response of the API: `{"error": {"message": …, "type": …}}`."""

    error: ChatKitErrorDetail


class ChatKitWorkflowTracing(_Model):
    """Whether the workflow's runs are traced."""

    enabled: bool | None = None


class ChatKitWorkflow(_Model):
    """The workflow of a session."""

    id: str
    version: str | None = None
    """None: the latest deployed version."""
    state_variables: dict[str, StateVariable] | None = Field(default=None, repr=False)
    tracing: ChatKitWorkflowTracing | None = None

    @field_serializer("state_variables")
    def _mask_state(
        self, state: dict[str, StateVariable] | None
    ) -> dict[str, StateVariable] | None:
        return cast("dict[str, StateVariable] | None", redact_json(state))


class ChatSessionRateLimits(_Model):
    """The limit in force for a session."""

    max_requests_per_1_minute: int | None = None


class ChatSessionAutomaticThreadTitling(_Model):
    """Whether threads get titles automatically."""

    enabled: bool | None = None


class ChatSessionFileUpload(_Model):
    """The file uploads in force for a session."""

    enabled: bool | None = None
    max_file_size: int | None = None
    """Megabytes."""
    max_files: int | None = None


class ChatSessionHistory(_Model):
    """The chat history in force for a session."""

    enabled: bool | None = None
    recent_threads: int | None = None
    """None: all of them."""


class ChatSessionChatKitConfiguration(_Model):
    """The widget's features in force for a session."""

    automatic_thread_titling: ChatSessionAutomaticThreadTitling | None = None
    file_upload: ChatSessionFileUpload | None = None
    history: ChatSessionHistory | None = None


class _Session(_Model):
    """The fields that both views of a session have."""

    id: str = Field(min_length=1)
    expires_at: Timestamp
    object: str | None = None
    status: str | None = None
    user: str | None = None
    workflow: ChatKitWorkflow | None = None
    max_requests_per_1_minute: int | None = None
    rate_limits: ChatSessionRateLimits | None = Field(default=None, repr=False)
    chatkit_configuration: ChatSessionChatKitConfiguration | None = Field(default=None, repr=False)
    request_id: str | None = None
    answered_at: Timestamp | None = Field(default=None, repr=False)

    def expires_in(self, *, now: datetime | None = None) -> float:
        """Return how long the session still lasts.

        Args:
            now: The current time, with a time zone; default: this machine's clock. A test may pass
                `FakeChatKit().clock.now()`.

        Returns:
            Seconds; zero or less if the session has expired.
        """
        return (self.expires_at - (now or datetime.now(UTC))).total_seconds()

    def is_expired(self, *, now: datetime | None = None) -> bool:
        """Return whether the session has expired; `now` as for `expires_in`."""
        return self.expires_in(now=now) <= 0


class ChatKitSessionResponse(_Session):
    """A session with its secret, as returned by create and refresh.

    `for_browser()` is the only method that exposes the secret; `repr`, `str` and dumps mask it.

    Attributes:
        id: The session's id, such as `cksess_…`, for `get_session` and `delete_session`.
        client_secret: The widget authenticates with this secret. Never empty.
        expires_at: When the secret stops working, in UTC.
        object: `chatkit.session`.
        status: `active`, `expired` or `cancelled`; unknown values are kept.
        user: The user of the session.
        workflow: The workflow of the session.
        max_requests_per_1_minute: The limit, as in `rate_limits`.
        rate_limits: The limit in force.
        chatkit_configuration: The widget's features in force.
        request_id: The API's id of the request, for OpenAI's support.
        answered_at: The time of the response by the API's clock (its `Date` header); None without
            one. `expires_at - answered_at` is how long the secret works, even if this machine's
            clock is wrong.
    """

    client_secret: SecretStr

    @field_validator("client_secret")
    @classmethod
    def _reject_unusable_secret(cls, secret: SecretStr) -> SecretStr:
        # No variable: a traceback would show it.
        if not secret.get_secret_value().strip():
            raise ValueError("must not be empty")
        if is_masked(secret.get_secret_value()):
            raise ValueError("is masked: it was read from a dump, not from the API")
        return secret

    def __repr__(self) -> str:
        return mask(super().__repr__(), [self.client_secret])

    def __str__(self) -> str:
        return mask(super().__str__(), [self.client_secret])

    @model_serializer(mode="wrap")
    def _mask_secret_everywhere(
        self, dump: SerializerFunctionWrapHandler
    ) -> dict[str, builtins.object]:
        """Mask the secret in every field: a server may repeat it anywhere."""
        dumped = self._mask_secrets(dump)
        return {name: mask_json(value, [self.client_secret]) for name, value in dumped.items()}

    def for_browser(self) -> BrowserSession:
        """Return what the user's browser needs, with the secret in plain text.

        Send the result as JSON with `Cache-Control: no-store`. Do not log it.

        Returns:
            `client_secret`, `expires_at` (ISO 8601 in UTC, whole seconds) and `session_id`.
        """
        return {
            "client_secret": self.client_secret.get_secret_value(),
            "expires_at": self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "session_id": self.id,
        }


class ChatKitSessionInfo(_Session):
    """A session without its secret, as returned by `get_session`.

    The attributes are those of `ChatKitSessionResponse`, except `client_secret`, and:

    Attributes:
        status: As of now: an `active` session past its `expires_at` is `expired`. None if unknown.
        source: `api` if the server returned the session; `record` if the server has no route to
            read it, and this client, or one sharing its store, recorded it.
    """

    source: Literal["api", "record"]

    @model_validator(mode="before")
    @classmethod
    def _drop_secret(cls, data: builtins.object) -> builtins.object:
        if not isinstance(data, dict):
            return data
        fields = cast("dict[str, builtins.object]", data)
        return {name: value for name, value in fields.items() if name != "client_secret"}


class CancelledSession(_Model):
    """The response to a cancel: the full session, or on some servers little more than its id."""

    id: str = Field(min_length=1)
    status: str | None = None
    expires_at: Timestamp | None = None
    user: str | None = None
    workflow: ChatKitWorkflow | None = None

    @field_validator("status")
    @classmethod
    def _reject_active(cls, status: str | None) -> str | None:
        if status == "active":
            raise ValueError("must not be active after cancelling")
        return status


def _below(model: type[_Model]) -> list[type[_Model]]:
    return [kind for each in model.__subclasses__() for kind in (each, *_below(each))]


MODELS: Final = tuple(_below(_Model))
"""Every model of this module."""
FIELD_NAMES: Final = frozenset[str]().union(*(each.model_fields for each in MODELS))
"""The names of all fields that this library knows."""
