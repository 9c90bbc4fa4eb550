"""What lies in a store: records, shared sessions, failures and leases, and the changes of them."""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Final, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from chatkit_sessions import errors
from chatkit_sessions._api.arguments import MAX_EXPIRES_AFTER
from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ChatKitError,
    SessionDeletedError,
    detail_as_dict,
)
from chatkit_sessions.models import (
    MODELS,
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
)
from chatkit_sessions.stores.base import Entry, Transaction, value_of

from .identity import Identity, name_of_secret

WHOLE_SECOND: Final = 1.0
"""Seconds by which the API's times may be too late: they are in whole seconds."""
DAY: Final = 86_400.0
"""Seconds for which a record is kept after the session's expiry."""

JSON: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session, in its recorded state.

    Releases read each other's records: a name may only be added, and with a default.
    """

    id: str
    user: str | None = None
    workflow_id: str | None = None
    workflow_version: str | None = None
    expires_at: datetime
    """With a time zone."""
    status: str | None = None
    group: str | None = None
    """The group of its user's entries; None if the user is unknown."""
    slot: str | None = None
    """The slot of its secret; None if it is not shared."""


_FIELDS: Final = tuple(each.name for each in fields(SessionRecord))


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record in a store."""

    record: SessionRecord
    ttl: float
    """Seconds until it expires."""

    @property
    def read_at(self) -> datetime:
        """When the store returned the record, by the store's clock.

        A store keeps a record for a day after its expiry. The time is too early if whole seconds,
        or a bound of the API's, made that day longer.
        """
        return self.record.expires_at - timedelta(seconds=self.ttl - DAY)

    @property
    def may_be_active(self) -> bool:
        """Whether the session's secret may still work."""
        return self.record.status not in {"cancelled", "expired"}


def encode_record(record: SessionRecord) -> MaskedBytes:
    """Encode a record for the store."""
    values = {name: getattr(record, name) for name in _FIELDS}
    values["expires_at"] = record.expires_at.isoformat()
    return MaskedBytes(JSON.encode(values).encode())


def parse_record(entry: Entry | None, session_id: str) -> StoredRecord | None:
    """Decode a session's record; None if it is missing or unreadable."""
    if entry is None:
        return None
    try:
        record = record_schema().validate_json(entry.value)
    except ValidationError:
        return None
    readable = record.id == session_id and record.expires_at.tzinfo is not None
    return StoredRecord(record, entry.seconds) if readable else None


@cache  # made when first needed
def record_schema() -> TypeAdapter[SessionRecord]:
    """What parses a record."""
    return TypeAdapter(SessionRecord)


def session_ids(listed: Iterable[Entry | None], *, ended: bool) -> list[str]:
    """The sessions that a user's group lists, with or without those that have expired."""
    values = [
        entry.value for entry in listed if entry is not None and (ended or entry.seconds > DAY)
    ]
    ids = [value.decode(errors="surrogateescape") for value in values]
    return [each for each in ids if each.strip() and each.isprintable()]


def record_of_created(
    session: ChatKitSessionResponse,
    *,
    user: str,
    workflow_id: str,
    group: str | None = None,
    slot: str | None = None,
) -> SessionRecord:
    """The record of a new session; what the server does not repeat comes from the request."""
    workflow = session.workflow or ChatKitWorkflow(id=workflow_id)
    return SessionRecord(
        id=session.id,
        user=session.user or user,
        workflow_id=workflow.id,
        workflow_version=workflow.version,
        expires_at=session.expires_at,
        status=session.status,
        group=group,
        slot=slot,
    )


def record_of_cancelled(
    cancelled: CancelledSession, stored: StoredRecord | None, *, now: datetime
) -> StoredRecord:
    """The record of a cancelled session, in place of what was stored of it."""
    status = cancelled.status or "cancelled"
    if stored is not None:
        return StoredRecord(replace(stored.record, status=status), stored.ttl)
    # Where the response does not say, the contract bounds how long a session can last.
    latest = now + timedelta(seconds=MAX_EXPIRES_AFTER)
    record = SessionRecord(
        id=cancelled.id,
        user=cancelled.user,
        workflow_id=cancelled.workflow.id if cancelled.workflow else None,
        workflow_version=cancelled.workflow.version if cancelled.workflow else None,
        expires_at=cancelled.expires_at or latest,
        status=status,
    )
    return StoredRecord(record, MAX_EXPIRES_AFTER + DAY)


def info_from_record(record: SessionRecord) -> ChatKitSessionInfo:
    """What `get_session` returns of a record, with its recorded status."""
    workflow = record.workflow_id and ChatKitWorkflow(
        id=record.workflow_id, version=record.workflow_version
    )
    return ChatKitSessionInfo(
        id=record.id,
        user=record.user,
        workflow=workflow or None,
        expires_at=record.expires_at,
        status=record.status,
        source="record",
    )


def with_current_status(info: ChatKitSessionInfo, *, now: datetime) -> ChatKitSessionInfo:
    """Set the status by the clock: no server reports that a session has expired."""
    if info.status in {None, "active"} and info.is_expired(now=now):
        return info.model_copy(update={"status": "expired"})
    return info


def secret_lifetime(session: ChatKitSessionResponse, *, asked_for: float, elapsed: float) -> float:
    """Seconds for which a new session's secret works at least, by no clock but the API's own.

    Args:
        session: As the API returned it.
        asked_for: Seconds that were asked for, or the API's default.
        elapsed: Seconds since the request was sent, by this process's expiry clock.
    """
    return min(asked_for, _lifetime(session, asked_for)) - WHOLE_SECOND - elapsed


def record_ttl(session: ChatKitSessionResponse, *, asked_for: float) -> float:
    """Seconds for which a new session is recorded: a day longer than its secret can work."""
    return min(max(asked_for, _lifetime(session, asked_for)), DAY) + DAY


def _lifetime(session: ChatKitSessionResponse, asked_for: float) -> float:
    if session.answered_at is None:
        return asked_for
    return (session.expires_at - session.answered_at).total_seconds()


FAILURE_TTL: Final = 3.0
"""Seconds for which a failure is kept for those who wait, unless the API says `retry-after`."""
MAX_RETRY_AFTER: Final = 60.0
"""Seconds for which a `retry-after` keeps everybody from asking."""
SHARED_ERRORS: Final = (APIStatusError, APIConnectionError, APIResponseValidationError)
"""Errors that concern all callers: of the API's response, or without one."""


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
    if not isinstance(error, SHARED_ERRORS):
        return None
    values = {name: value for name, value in vars(error).items() if name in _ATTRIBUTES}
    if isinstance(error, APIStatusError):
        values["error"] = detail_as_dict(error.error)
    values |= {"kind": type(error).__name__, "token": token.decode()}
    wait: float | None = getattr(error, "retry_after", None)
    seconds = min(wait, MAX_RETRY_AFTER) if wait else FAILURE_TTL
    return Entry(MaskedBytes(JSON.encode(values).encode()), seconds)


def parse_failure(entry: Entry) -> ChatKitError | None:
    """Decode a failure, as a new error for each caller; None if it is unreadable."""
    try:
        stored = _StoredFailure.model_validate_json(entry.value)
    except ValidationError:
        return None
    kind: object = getattr(errors, stored.kind, None)
    if not isinstance(kind, type) or not issubclass(kind, SHARED_ERRORS):
        return None
    values = {name: getattr(stored, name) for name in stored.model_fields_set & _ATTRIBUTES}
    if stored.retry_after is not None:
        values["retry_after"] = min(stored.retry_after, entry.seconds)
    try:
        return cast("Callable[..., ChatKitError]", kind)(**values)
    except TypeError:
        return None


GENERATION: Final = "generation"


class _StoredSession(BaseModel):
    """What lies in `secret:<slot>`."""

    model_config = ConfigDict(frozen=True, defer_build=True, hide_input_in_errors=True)

    identity: str
    session: ChatKitSessionResponse
    generation: str | None = None
    """The user's generation when it was put there."""


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
    is_complete: bool = True
    """Whether all entries were read, and not only the session and the generation."""
    clock_offset: float | None = None
    """As that of a `Lease`."""

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
        if self.failure is not None and self.failure.value != value_of(first.failure):
            failure = parse_failure(self.failure)
            if failure is not None:
                raise failure
        if self.value == last.value:
            return None
        return self.usable(0.0, now=now, instead_of=instead_of)

    def check_rate_limit(self) -> None:
        """Reject a call while the API asks everybody to wait.

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
    built: list[type[BaseModel]] = [*MODELS, _StoredSession]
    with _building.get():
        record_schema()
        for model in built:
            model.model_rebuild()


def snapshot_names(identity: Identity, presented: SecretStr | None = None) -> tuple[str, ...]:
    """The names that `parse_snapshot` needs."""
    slot = identity.slot
    names = (f"secret:{slot}", f"reused:{slot}", f"lease:{slot}", f"failure:{slot}", GENERATION)
    return names if presented is None else (*names, name_of_secret(presented))


def parse_generation(entries: list[Entry | None]) -> StoreSnapshot:
    """Parse `GENERATION` alone: all that a session which is not shared depends on."""
    (generation,) = entries
    return StoreSnapshot(generation=value_of(generation))


def parse_snapshot(
    identity: Identity,
    entries: Sequence[Entry | None],
    *,
    asked_at: float,
    clock_offset: float | None = None,
    is_complete: bool = True,
) -> StoreSnapshot:
    """Parse the entries of `snapshot_names`.

    Args:
        identity: Whose entries.
        entries: What the store returned.
        asked_at: When it was asked, by this process's expiry clock.
        clock_offset: As that of a `Lease`.
        is_complete: Whether all entries were read, and not only the session and the generation.
    """
    secret, reused, lease, failure, last_sign_out, *presented = entries
    generation = value_of(last_sign_out)
    stored = None if secret is None else decode_session(secret.value)
    # A session from before the last sign-out does not count, from that moment on.
    usable = (
        stored is not None
        and stored.identity == identity.description
        # The identity names the user. To check the session's user, too, makes forging harder.
        and stored.session.user in {None, identity.user}
        and (generation is None or stored.generation == _text(generation))
    )
    return StoreSnapshot(
        session=stored.session if stored is not None and usable else None,
        works_until=0.0 if secret is None else asked_at + secret.seconds,
        value=value_of(secret),
        generation=generation,
        reused=reused is not None or secret is not None,
        lease=value_of(lease),
        failure=failure,
        presented_is_shared=any(presented),
        clock_offset=clock_offset,
        is_complete=is_complete,
    )


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
                "session": _unmasked(session),
                "generation": _text(generation),
            }
        ).encode()
    )


def _unmasked(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, BaseModel):
        return value
    values = {name: getattr(value, name) for name in type(value).model_fields}
    # The workflow's state may be large and confidential; the caller knows it.
    return {
        name: _unmasked(field)
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


LEASE: Final = 8.0
"""Seconds that others wait if a worker dies while it creates a session.

A process that has too much to do renews late: others must not create sessions because of that.
"""
RENEW_EVERY: Final = 1.0
"""Seconds after which a worker renews its lease."""
RECORD: Final = "record"

_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 0.25
_LONGEST_PAUSE: Final = 1.0
_PER_LOOK: Final = 4.0


class CreatedSession(NamedTuple):
    """A new session, and what its place in the store depends on."""

    session: ChatKitSessionResponse
    record: SessionRecord
    record_group: str
    """The group of its record; names the session in its user's group, too."""
    identity: Identity
    works_until: float
    """When its secret may stop working, by this process's expiry clock."""
    record_ttl: float
    """Seconds for which it is recorded."""
    share: bool
    """Whether its secret is stored, for others to use."""


class Lease(NamedTuple):
    """The right to create the next session of an identity, which ends by itself."""

    token: bytes
    """Names who has it."""
    clock_offset: float | None = None
    """What to add to this process's expiry clock for the store's, or a little less; None: the
    store's clock cannot be read."""


def acquire_lease(identity: Identity, snapshot: StoreSnapshot, lease: Lease) -> Transaction:
    """Acquire the lease to create a session, unless it is taken or a newer session exists."""
    name = f"lease:{identity.slot}"
    return Transaction(
        identity.group,
        {name: Entry(MaskedBytes(lease.token), LEASE)},
        {name: None, f"secret:{identity.slot}": snapshot.value, GENERATION: snapshot.generation},
    )


def renew_lease(identity: Identity, lease: Lease) -> Transaction:
    """Renew the lease, unless another worker has it by now."""
    name = f"lease:{identity.slot}"
    return Transaction(
        identity.group, {name: Entry(MaskedBytes(lease.token), LEASE)}, {name: lease.token}
    )


def release_lease(identity: Identity, lease: Lease, *, failure: Entry | None) -> Transaction:
    """Let others create; with a failure, those who have waited share it."""
    name = f"lease:{identity.slot}"
    changes: dict[str, Entry | None] = {name: None}
    if failure is not None:
        changes[f"failure:{identity.slot}"] = failure
    return Transaction(identity.group, changes, {name: lease.token})


def poll_delay(polls_done: int, *, took: float, random: Callable[[], float]) -> float:
    """Seconds before looking again whether another worker has created the session.

    Where looking takes long, because this machine or the store is overloaded, there is less of it:
    whoever creates the sessions needs the time.
    """
    longest = min(_FIRST_DELAY * 1.5 ** min(polls_done, 60), _LONGEST_DELAY)
    return longest * (1 - random() / 2) + min(_PER_LOOK * took, _LONGEST_PAUSE)


def publish(
    created: CreatedSession,
    *,
    generation: bytes | None,
    lease: Lease | None,
    now: float,
    is_lease_over: bool = False,
) -> Transaction:
    """List a session in its user's group, unless the user signed out in between.

    Args:
        created: The session. Its secret is stored if it is shared and works at `now`.
        generation: The last sign-out when the call began.
        lease: The lease to create it, which ends now; None without one.
        now: The time by this process's expiry clock.
        is_lease_over: Whether the lease has ended, and nobody may have taken it since.
    """
    slot, session = created.identity.slot, created.session
    changes = _listing(session.id, record_group=created.record_group, ttl=created.record_ttl)
    when: dict[str, bytes | None] = {GENERATION: generation}
    if created.share:
        changes[f"reused:{slot}"] = Entry(MaskedBytes(b"1"), created.record_ttl, retention=DAY)
        changes[f"secret:{slot}"] = None
    if created.share and lease is not None:
        changes[f"lease:{slot}"] = None
        when[f"lease:{slot}"] = None if is_lease_over else lease.token
    if created.share and created.works_until > now:
        seconds = created.works_until - now
        offset = None if lease is None else lease.clock_offset
        # The store may make the change at any time after now.
        expires_at = None if offset is None else created.works_until + offset
        changes[f"secret:{slot}"] = Entry(
            encode_session(created.identity, session, generation),
            seconds,
            listed=True,
            expires_at=expires_at,
        )
        mark = Entry(MaskedBytes(b"1"), seconds, expires_at=expires_at)
        changes[name_of_secret(session.client_secret)] = mark
    return Transaction(created.identity.group, changes, when)


def list_session(group: str, session_id: str, *, record_group: str, ttl: float) -> Transaction:
    """List a session in its user's group."""
    return Transaction(group, _listing(session_id, record_group=record_group, ttl=ttl), {})


def _listing(session_id: str, *, record_group: str, ttl: float) -> dict[str, Entry | None]:
    listed = Entry(MaskedBytes(session_id.encode()), ttl, listed=True, retention=DAY)
    return {f"session:{record_group}": listed}


class Publication(NamedTuple):
    """An attempt to publish a session."""

    created: CreatedSession
    first: StoreSnapshot
    """What the store held when the call began."""
    generation: bytes | None
    """The last sign-out."""
    lease: Lease | None = None
    is_lease_over: bool = False
    is_deleted: bool = False
    """Whether the user has signed out since the call began."""

    def transaction(self, now: float) -> Transaction:
        """What to commit."""
        return publish(
            self.created,
            generation=self.generation,
            lease=self.lease,
            now=now,
            is_lease_over=self.is_lease_over,
        )

    def after_conflict(self, found: StoreSnapshot) -> "Publication | None":
        """The next attempt where the store holds something else; None: it is published already."""
        created, is_deleted, is_lease_over = self.created, self.is_deleted, False
        if found.generation is not None and found.generation != self.generation:
            # Not shared but listed: the next sign-out ends it if cancelling fails.
            created, is_deleted = created._replace(share=False), True
        if self.lease is not None and found.lease != self.lease.token:
            if found.session is not None and found.session.id == created.session.id:
                return None  # a commit that was repeated
            is_lease_over = found.lease is None and found.value == self.first.value
            if not is_lease_over:
                created = created._replace(share=False)  # somebody else creates one, or has
        return self._replace(
            created=created,
            generation=found.generation,
            is_lease_over=is_lease_over,
            is_deleted=is_deleted,
        )


def sign_out(group: str, names: Iterable[str], *, generation: bytes) -> Transaction:
    """End what the user's group shares, and every creation that began before now.

    Args:
        group: The user's group.
        names: The names that it lists.
        generation: The name of this sign-out.
    """
    changes: dict[str, Entry | None] = {name: None for name in names if name.startswith("secret:")}
    # Needed as long as a call may last that has begun before.
    mark = Entry(MaskedBytes(generation), DAY, retention=DAY - MAX_EXPIRES_AFTER)
    changes[GENERATION] = mark
    return Transaction(group, changes, {})


def store_record(group: str, stored: StoredRecord) -> Transaction:
    """Store a session's record, in place of the one that is there."""
    entry = Entry(encode_record(stored.record), stored.ttl, retention=DAY)
    return Transaction(group, {RECORD: entry}, {})


def remove_record(group: str) -> Transaction:
    """Remove a session's record."""
    return Transaction(group, {RECORD: None}, {})


def remove_secret(stored: StoredRecord, secret: Entry | None) -> Transaction | None:
    """Stop returning this session to callers; None: it is not shared any more."""
    session_record = stored.record
    if secret is None or session_record.group is None:
        return None
    shared = decode_session(secret.value)
    if shared is None or shared.session.id != session_record.id:
        return None
    name = f"secret:{session_record.slot}"
    return Transaction(session_record.group, {name: None}, {name: secret.value})
