"""What this backend saw of its sessions, for servers that have no route to read one.

A record holds no secret and no state variable. It answers until 24 hours after the session's
expiry; by then nobody can have a use for it.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from ._per_process import PerProcess

KEPT_AFTER_EXPIRY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session, as last seen."""

    id: str
    user: str | None
    workflow_id: str | None
    workflow_version: str | None
    expires_at: datetime
    status: str | None


class SessionRecords(Protocol):
    """Where records live. `scope` keeps apart what one client sees of another's."""

    def get(self, scope: str, session_id: str, *, now: datetime) -> SessionRecord | None:
        """Return the record, None where there is none or it is too old."""
        ...

    def put(self, scope: str, record: SessionRecord, *, now: datetime) -> None:
        """Keep the record in place of an earlier one of the same session."""
        ...

    def delete(self, scope: str, session_id: str) -> None:
        """Forget the record, if there is one."""
        ...


class MemoryRecords:
    """Records in this process, bounded, safe for threads.

    When it is full, sessions that have expired make room first, then the oldest records.

    Args:
        max_records: How many to keep, 1 or more.
    """

    def __init__(self, max_records: int = 10_000) -> None:
        if max_records < 1:
            raise ValueError(f"max_records must be 1 or more, got {max_records}")
        self._max_records = max_records
        self._records: OrderedDict[tuple[str, str], SessionRecord] = OrderedDict()
        self._lock = PerProcess(threading.Lock)
        # No record expires before this moment, so that a full book is not searched in vain.
        self._next_expiry: datetime | None = None

    def get(self, scope: str, session_id: str, *, now: datetime) -> SessionRecord | None:
        """Return the record, None where there is none or it is too old."""
        with self._lock.get():
            record = self._records.get((scope, session_id))
            if record is not None and now >= record.expires_at + KEPT_AFTER_EXPIRY:
                del self._records[scope, session_id]
                return None
            return record

    def put(self, scope: str, record: SessionRecord, *, now: datetime) -> None:
        """Keep the record in place of an earlier one of the same session."""
        with self._lock.get():
            self._records.pop((scope, record.id), None)
            if len(self._records) >= self._max_records:
                self._make_room(now)
            self._records[scope, record.id] = record
            if self._next_expiry is None or record.expires_at < self._next_expiry:
                self._next_expiry = record.expires_at

    def delete(self, scope: str, session_id: str) -> None:
        """Forget the record, if there is one."""
        with self._lock.get():
            self._records.pop((scope, session_id), None)

    def _make_room(self, now: datetime) -> None:
        if self._next_expiry is not None and now >= self._next_expiry:
            live = [item for item in self._records.items() if item[1].expires_at > now]
            self._records = OrderedDict(live)
            self._next_expiry = min((record.expires_at for _, record in live), default=None)
        while len(self._records) >= self._max_records:
            self._records.popitem(last=False)
