"""What a store holds of an identity at one moment, and how a shared session lies there."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks
from chatkit_sessions.errors import APIStatusError, SessionDeletedError
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitErrorResponse,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
)
from chatkit_sessions.stores.base import Entry

from .failures import parse_failure
from .identity import Identity, name_of_secret
from .records import JSON, record_schema

GENERATION: Final = "generation"


class _StoredSession(BaseModel):
    """What lies in `secret:<slot>`."""

    model_config = ConfigDict(frozen=True, defer_build=True, hide_input_in_errors=True)

    identity: str
    session: ChatKitSessionResponse
    generation: str | None = None
    """The user's generation when it was put there."""


_PARSED: Final[tuple[type[BaseModel], ...]] = (
    ChatKitSessionResponse,
    ChatKitSessionInfo,
    CancelledSession,
    ChatKitErrorResponse,
    ChatKitWorkflow,
    _StoredSession,
)
_building: Final = PerProcess(threading.Lock)


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """A store's content for one identity at one moment."""

    session: ChatKitSessionResponse | None = None
    """None if it is missing, unreadable, or another identity's."""
    works_until: float = 0.0
    """When the session's secret may stop working, by this process's expiry clock."""
    value: bytes | None = field(default=None, repr=False)
    """The stored bytes, readable or not."""
    generation: bytes | None = None
    reused: bool = False
    """Whether sessions of this identity are shared."""
    lease: bytes | None = None
    """The token of the worker that creates the next session."""
    failure: Entry | None = None
    """Why the last one could not be created."""
    presented_is_shared: bool = False
    """Whether the secret that is presented for a refresh is that of a shared session."""
    reachable: bool = True
    """Whether the store responded at all."""

    def usable(
        self, min_remaining: float, *, now: float, instead_of: SecretStr | None = None
    ) -> ChatKitSessionResponse | None:
        """The session, if it works for that many seconds and has another secret than that."""
        seconds = self.works_until - now
        if self.session is None or seconds <= 0 or seconds < min_remaining:
            return None
        return None if self.session.client_secret == instead_of else self.session

    def newer_than(
        self,
        last: "StoreSnapshot",
        *,
        first: "StoreSnapshot",
        now: float,
        instead_of: SecretStr | None,
    ) -> ChatKitSessionResponse | None:
        """The session that another caller created since the `last` snapshot, however long it lasts.

        Raises:
            SessionDeletedError: The user's sessions were deleted since the `first` snapshot.
            ChatKitError: Another caller failed to create one since then.
        """
        if self.generation is not None and self.generation != first.generation:
            raise sessions_deleted_error()
        if self.failure is not None and self.failure.value != _value(first.failure):
            failure = parse_failure(self.failure)
            if failure is not None:
                raise failure
        if self.value == last.value:
            return None
        return self.usable(0.0, now=now, instead_of=instead_of)

    def check_rate_limit(self) -> None:
        """Create nothing while the API has asked everybody to wait.

        Raises:
            APIStatusError: The last failure, with what is left of its `retry_after`.
        """
        failure = None if self.failure is None else parse_failure(self.failure)
        if isinstance(failure, APIStatusError) and failure.retry_after is not None:
            raise failure


def build_schemas() -> None:
    """Build what parses responses and stored entries, when a client is made.

    In its first calls, several threads would build at once, and pydantic imports modules meanwhile,
    for which a child of `fork()` would wait forever if a thread of its parent was in between.
    """
    with _building.get():
        record_schema()
        for model in _PARSED:
            model.model_rebuild()


def snapshot_names(identity: Identity, presented: SecretStr | None = None) -> tuple[str, ...]:
    """The names that `parse_snapshot` needs."""
    slot = identity.slot
    names = (f"secret:{slot}", f"reused:{slot}", f"lease:{slot}", f"failure:{slot}", GENERATION)
    return names if presented is None else (*names, name_of_secret(presented))


def parse_generation(entries: list[Entry | None]) -> StoreSnapshot:
    """Parse `GENERATION` alone: all that a session which is not shared depends on."""
    (generation,) = entries
    return StoreSnapshot(generation=_value(generation))


def parse_snapshot(
    identity: Identity, entries: list[Entry | None], *, asked_at: float
) -> StoreSnapshot:
    """Parse the entries of `snapshot_names`.

    Args:
        identity: Whose entries.
        entries: What the store returned.
        asked_at: When it was asked, by this process's expiry clock.
    """
    secret, reused, lease, failure, last_sign_out, *presented = entries
    generation = _value(last_sign_out)
    stored = None if secret is None else decode_session(secret.value)
    # A session from before the last sign-out does not count, from that moment on.
    usable = (
        stored is not None
        and stored.identity == identity.description
        # The identity binds the user; that the session is theirs, too, costs a forger more.
        and stored.session.user in {None, identity.user}
        and (generation is None or stored.generation == _text(generation))
    )
    return StoreSnapshot(
        session=stored.session if stored is not None and usable else None,
        works_until=0.0 if secret is None else asked_at + secret.seconds,
        value=_value(secret),
        generation=generation,
        reused=reused is not None or secret is not None,
        lease=_value(lease),
        failure=failure,
        presented_is_shared=any(presented),
    )


def _value(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.value


def _text(generation: bytes | None) -> str | None:
    return None if generation is None else generation.decode(errors="replace")


def sessions_deleted_error() -> SessionDeletedError:
    """The error for a call that was under way when the user's sessions were deleted."""
    return SessionDeletedError(
        "The user's sessions were deleted while this call was under way.",
        hint="Ask again only if the user has signed in again since.",
    )


@hidden_from_tracebacks
def encode_session(
    identity: Identity, session: ChatKitSessionResponse, generation: bytes | None
) -> MaskedBytes:
    """Encode a session, secret included, for `secret:<slot>`."""
    # Not by the models' own dump, which masks the secret. No variable holds it.
    return MaskedBytes(
        JSON.encode(
            {
                "identity": identity.description,
                "session": _plain(session),
                "generation": _text(generation),
            }
        ).encode()
    )


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, BaseModel):
        return value
    values = {name: getattr(value, name) for name in type(value).model_fields}
    # The workflow's state may be large and confidential; the caller knows it.
    return {
        name: _plain(field)
        for name, field in values.items()
        if field is not None and name != "state_variables"
    }


@lru_cache(maxsize=256)  # a page load asks for what the last one asked for
def decode_session(value: bytes) -> _StoredSession | None:
    """Decode what lies in `secret:<slot>`; None where it cannot be read."""
    try:
        return _StoredSession.model_validate_json(value)
    except ValidationError:
        return None
