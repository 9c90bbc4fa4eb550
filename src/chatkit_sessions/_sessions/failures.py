"""A failure to create a session, as it lies in a store for those who wait for that session."""

from typing import TYPE_CHECKING, Final, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from chatkit_sessions import errors
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ChatKitError,
    detail_as_dict,
)
from chatkit_sessions.models import ChatKitErrorDetail
from chatkit_sessions.stores.base import Entry

from .records import JSON

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURE_TTL: Final = 3.0
"""Seconds for which a failure is kept for those who wait, unless the API says `retry-after`."""
MAX_RETRY_AFTER: Final = 60.0
"""Seconds for which a `retry-after` keeps everybody from asking."""
SHARED: Final = (APIStatusError, APIConnectionError, APIResponseValidationError)
"""What the API did, or did not; any other error is the caller's own."""


class _StoredFailure(BaseModel):
    """What lies in `failure:<slot>`: the attributes of the error, without the response's body."""

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: str
    """The name of its class."""
    token: str
    """Whose failure it is: two are never the same."""
    message: str
    hint: str
    status_code: int | None = None
    error: ChatKitErrorDetail | None = None
    request_id: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    content_type: str | None = None
    content_length: int | None = None
    answered: bool | None = None
    permanent: bool = False
    session_id: str | None = None


_ATTRIBUTES: Final = _StoredFailure.model_fields.keys() - {"kind", "token"}


def encode_failure(error: ChatKitError, *, token: bytes) -> Entry | None:
    """Encode a failure for the store; None where it is the caller's own and says nothing to others.

    What it holds has been redacted: errors of this library hold no secret.
    """
    if not isinstance(error, SHARED):
        return None
    values = {name: value for name, value in vars(error).items() if name in _ATTRIBUTES}
    if isinstance(error, APIStatusError):
        values["error"] = detail_as_dict(error.error)
    values |= {"kind": type(error).__name__, "token": token.decode()}
    wait: float | None = getattr(error, "retry_after", None)
    seconds = min(wait, MAX_RETRY_AFTER) if wait else FAILURE_TTL
    return Entry(MaskedBytes(JSON.encode(values).encode()), seconds)


def parse_failure(entry: Entry) -> ChatKitError | None:
    """An error of its own for each caller; None where it cannot be read."""
    try:
        stored = _StoredFailure.model_validate_json(entry.value)
    except ValidationError:
        return None
    kind: object = getattr(errors, stored.kind, None)
    if not isinstance(kind, type) or not issubclass(kind, SHARED):
        return None
    values = {name: getattr(stored, name) for name in stored.model_fields_set & _ATTRIBUTES}
    if stored.retry_after is not None:
        values["retry_after"] = min(stored.retry_after, entry.seconds)
    try:
        return cast("Callable[..., ChatKitError]", kind)(**values)
    except TypeError:
        return None
