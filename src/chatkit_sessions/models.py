"""What the ChatKit sessions API returns, as frozen pydantic models.

Only what a caller cannot do without is required; every other field of the published contract is
optional, fields that the contract does not know are kept in `model_extra`, and a `status` that it
does not know is kept as it is: a server that learns something new must not break this library.
"""

import builtins
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import ClassVar, Final, Literal, cast

from pydantic import (
    BaseModel,
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

from ._moment import Moment
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


class BrowserSession(TypedDict):
    """What the web page needs: your endpoint's response to the ChatKit widget."""

    client_secret: str
    """The secret in plain text: for the browser of the session's user and nobody else."""
    expires_at: str
    """ISO 8601 in UTC, such as `2026-11-22T10:00:00Z`."""
    session_id: str


class _Model(BaseModel):
    """Frozen, keeps unknown fields, and shows none of them in its repr."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", hide_input_in_errors=True
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
        """Mask what is shaped like a secret; unknown fields also by their names."""
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
    """The inner part of an error response."""

    message: str
    type: str
    param: str | None = None
    """The argument at fault, where the API names one."""
    code: str | None = None
    """A short name of the case, such as `invalid_api_key`, where the API gives one."""


class ChatKitErrorResponse(_Model):
    """An error response of the API: `{"error": {"message": …, "type": …}}`."""

    error: ChatKitErrorDetail


class ChatKitWorkflowTracing(_Model):
    """Whether the workflow's runs are traced."""

    enabled: bool | None = None


class ChatKitWorkflow(_Model):
    """The workflow behind a session."""

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
    """Whether threads get their titles by themselves."""

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
    """What both views of a session have."""

    id: str = Field(min_length=1)
    expires_at: Moment
    object: str | None = None
    status: str | None = None
    user: str | None = None
    workflow: ChatKitWorkflow | None = None
    max_requests_per_1_minute: int | None = None
    rate_limits: ChatSessionRateLimits | None = Field(default=None, repr=False)
    chatkit_configuration: ChatSessionChatKitConfiguration | None = Field(default=None, repr=False)
    request_id: str | None = None
    answered_at: Moment | None = Field(default=None, repr=False)

    def expires_in(self, *, now: datetime | None = None) -> float:
        """Return how long the session still lasts.

        Args:
            now: The moment to count from, with a time zone; left out: the present. Tests pass
                their own, such as `FakeChatKit().clock.now()`.

        Returns:
            Seconds; zero or less once the session has expired.
        """
        return (self.expires_at - (now or datetime.now(UTC))).total_seconds()

    def is_expired(self, *, now: datetime | None = None) -> bool:
        """Return whether the session has expired; `now` as for `expires_in`."""
        return self.expires_in(now=now) <= 0


class ChatKitSessionResponse(_Session):
    """A session with its secret, as create and refresh return it.

    `repr`, `str` and JSON dumps mask the secret; `for_browser()` is the one place that unwraps it.

    Attributes:
        id: The session's id, such as `cksess_…`: pass it to `get_session` and `delete_session`.
        client_secret: What the widget authenticates with. Never empty.
        expires_at: When the secret stops working, in UTC.
        object: `chatkit.session`.
        status: `active`, `expired` or `cancelled`; a value that the contract does not know is kept.
        user: The user that the session was created for.
        workflow: The workflow behind the session.
        max_requests_per_1_minute: The same as in `rate_limits`.
        rate_limits: The limit in force.
        chatkit_configuration: The widget's features in force.
        request_id: The API's name of the request, for OpenAI's support.
        answered_at: What the API's own clock said when it responded (the `Date` header):
            `expires_at - answered_at` is how long the secret works, whatever this machine's clock
            says. None where the response had no such header.
    """

    client_secret: SecretStr

    @field_validator("client_secret")
    @classmethod
    def _refuse_a_secret_that_is_none(cls, secret: SecretStr) -> SecretStr:
        plain = secret.get_secret_value()
        if not plain.strip():
            raise ValueError("must not be empty")
        if is_masked(plain):
            raise ValueError("is masked: it was read from a dump, not from the API")
        return secret

    def __repr__(self) -> str:
        return mask(super().__repr__(), [self.client_secret])

    def __str__(self) -> str:
        return mask(super().__str__(), [self.client_secret])

    @model_serializer(mode="wrap")
    def _mask_the_secret(self, dump: SerializerFunctionWrapHandler) -> dict[str, builtins.object]:
        """A server may repeat the secret anywhere, in nested and in known fields too."""
        dumped = self._mask_secrets(dump)
        return {name: mask_json(value, [self.client_secret]) for name, value in dumped.items()}

    def for_browser(self) -> BrowserSession:
        """Unwrap the secret for the user's browser.

        Returns:
            `client_secret`, `expires_at` (ISO 8601 in UTC, whole seconds) and `session_id`, ready
            to be sent as JSON. Send it with `Cache-Control: no-store`, and do not log it.
        """
        return {
            "client_secret": self.client_secret.get_secret_value(),
            "expires_at": self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "session_id": self.id,
        }


class ChatKitSessionInfo(_Session):
    """A session without its secret, as `get_session` returns it.

    The attributes are those of `ChatKitSessionResponse` without `client_secret`, and:

    Attributes:
        status: Worked out against the clock: an `active` session that has passed its `expires_at`
            is `expired`. None where nobody said.
        source: `api` where the server returned it; `record` where the server has no route for
            reading and it comes from what this client, or one sharing its store, recorded.
    """

    source: Literal["api", "record"]

    @model_validator(mode="before")
    @classmethod
    def _drop_the_secret(cls, data: builtins.object) -> builtins.object:
        if not isinstance(data, dict):
            return data
        fields = cast("dict[str, builtins.object]", data)
        return {name: value for name, value in fields.items() if name != "client_secret"}


class CancelledSession(_Model):
    """What cancelling returns: the full session, or on some servers hardly more than its id."""

    id: str = Field(min_length=1)
    status: str | None = None
    expires_at: Moment | None = None
    user: str | None = None
    workflow: ChatKitWorkflow | None = None

    @field_validator("status")
    @classmethod
    def _refuse_active(cls, status: str | None) -> str | None:
        if status == "active":
            raise ValueError("must not be active after cancelling")
        return status


def _field_names(model: type[BaseModel]) -> frozenset[str]:
    names = frozenset(model.model_fields)
    return names.union(*(_field_names(each) for each in model.__subclasses__()))


FIELD_NAMES: Final = _field_names(_Model)
"""The name of every field that this library knows; other names are a server's own."""
