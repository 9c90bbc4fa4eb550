"""What is kept of a session without its secret, and how that becomes what a caller sees."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from chatkit_sessions._api.create_body import MAX_EXPIRES_AFTER
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
)
from chatkit_sessions.stores.base import Entry

WHOLE_SECOND: Final = 1.0
"""Seconds by which the API's times, in whole seconds, may say too much."""
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
        """When the store returned it, by the store's clock: it keeps a record for a day longer.

        Less if the API's own times in whole seconds, or a bound of its, made that day longer.
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
    session: ChatKitSessionResponse, *, user: str, workflow_id: str, group: str, slot: str | None
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
    """Work the status out against the clock: no server reports that a session has expired."""
    if info.status in {None, "active"} and info.is_expired(now=now):
        return info.model_copy(update={"status": "expired"})
    return info


class Timed(Protocol):
    """What a session's lifetime is worked out of."""

    @property
    def expires_at(self) -> datetime: ...
    @property
    def answered_at(self) -> datetime | None: ...


def secret_lifetime(session: Timed, *, asked_for: float, elapsed: float) -> float:
    """Seconds for which a new session's secret works at least, by no clock but the API's own.

    Args:
        session: As the API returned it.
        asked_for: Seconds that were asked for, or the API's default.
        elapsed: Seconds since the request was sent, by this process's expiry clock.
    """
    return min(asked_for, _lifetime(session, asked_for)) - WHOLE_SECOND - elapsed


def record_ttl(session: Timed, *, asked_for: float) -> float:
    """Seconds for which a new session is recorded: a day longer than its secret can work."""
    return min(max(asked_for, _lifetime(session, asked_for)), DAY) + DAY


def _lifetime(session: Timed, asked_for: float) -> float:
    if session.answered_at is None:
        return asked_for
    return (session.expires_at - session.answered_at).total_seconds()
