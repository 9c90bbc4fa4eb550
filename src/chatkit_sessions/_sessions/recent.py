"""New sessions that a client's own store records only when they are read.

Most sessions are never read by the process that created them. Their records and digests are made
at the first read, or when their user signs out.
"""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions.models import ChatKitSessionResponse, ChatKitWorkflow
from chatkit_sessions.stores.base import Transaction
from chatkit_sessions.stores.memory import MemorySessionStore

from . import entries as transactions
from .entries import DAY, SessionRecord, StoredRecord, record_ttl
from .identity import Scope

_LIMIT: Final = 15_000
"""As many as the store holds, of which each takes two entries."""

_Owner: TypeAlias = tuple[str, str]
"""A scope and a user in it."""


class Creation:
    """A call that creates a session; whether its user has signed out since it began."""

    __slots__ = ("owner", "signed_out")

    def __init__(self, owner: _Owner) -> None:
        self.owner: Final = owner
        self.signed_out = False


class _Recent(NamedTuple):
    """A new session without its secret."""

    scope: Scope
    user: str
    id: str
    shown_user: str
    workflow: ChatKitWorkflow
    expires_at: datetime
    status: str | None
    answered_at: datetime | None
    lifetime: float
    """Seconds that were asked for, or the API's default."""
    added: float


class RecentSessions:
    """New sessions of one process; safe to use from several threads and event loops.

    Args:
        store: The client's own.
        clock: What the store's entries expire by.
    """

    def __init__(self, store: MemorySessionStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._sessions: dict[_Owner, _Recent] = {}  # by scope and id, the oldest first
        self._of_user: dict[_Owner, dict[str, None]] = {}
        self._in_progress: dict[Creation, None] = {}  # changed in single steps, without the lock

    def begin(self, scope: Scope, user: str) -> Creation:
        """Begin to create a session; `end` has to follow."""
        creation = Creation((scope.text, user))
        self._in_progress[creation] = None
        return creation

    def end(self, creation: Creation) -> None:
        """End what `begin` has begun."""
        self._in_progress.pop(creation, None)

    def add(
        self,
        creation: Creation,
        session: ChatKitSessionResponse,
        *,
        scope: Scope,
        user: str,
        workflow_id: str,
        lifetime: float,
    ) -> bool:
        """Remember a new session; False: its user has signed out since the call began."""
        now = self._clock()
        recent = _Recent(
            scope=scope,
            user=user,
            id=session.id,
            shown_user=session.user or user,
            workflow=session.workflow or ChatKitWorkflow(id=workflow_id),
            expires_at=session.expires_at,
            status=session.status,
            answered_at=session.answered_at,
            lifetime=lifetime,
            added=now,
        )
        with self._lock.get():
            if creation.signed_out:
                return False
            self._forget(scope, session.id)
            self._sessions[scope.text, session.id] = recent
            self._of_user.setdefault((scope.text, user), {})[session.id] = None
            oldest = next(iter(self._sessions.values()))
            if oldest.added + 2 * DAY <= now:
                self._forget(oldest.scope, oldest.id)
            elif len(self._sessions) > _LIMIT:
                # The store says whether a sign-out may miss it.
                needed = record_ttl(oldest, asked_for=oldest.lifetime) - DAY
                if oldest.added + needed > now:
                    self._publish(oldest.scope, [oldest.id])
                else:
                    self._forget(oldest.scope, oldest.id)
        return True

    def publish_session(self, scope: Scope, session_id: str) -> None:
        """Put a session into the store, if it is remembered here."""
        with self._lock.get():
            self._publish(scope, [session_id])

    def publish_user(self, scope: Scope, user: str) -> None:
        """Put a user's sessions into the store."""
        with self._lock.get():
            self._publish(scope, list(self._of_user.get((scope.text, user), ())))

    def sign_out(self, scope: Scope, user: str) -> None:
        """Put a user's sessions into the store, and let none that is being created follow."""
        with self._lock.get():
            self._publish(scope, list(self._of_user.get((scope.text, user), ())))
            for creation in list(self._in_progress):
                if creation.owner == (scope.text, user):
                    creation.signed_out = True

    def _publish(self, scope: Scope, session_ids: Iterable[str]) -> None:
        """Under the lock, so that a session is always in one place."""
        now = self._clock()
        for session_id in session_ids:
            recent = self._forget(scope, session_id)
            if recent is not None:
                for group, changes, when in _transactions(recent, age=now - recent.added):
                    self._store.commit(group, changes, when=when)

    def _forget(self, scope: Scope, session_id: str) -> _Recent | None:
        recent = self._sessions.pop((scope.text, session_id), None)
        if recent is not None:
            owner = scope.text, recent.user
            del self._of_user[owner][session_id]
            if not self._of_user[owner]:
                del self._of_user[owner]
        return recent


def _transactions(recent: _Recent, *, age: float) -> list[Transaction]:
    scope = recent.scope
    group = scope.group_of_user(recent.user)
    record = SessionRecord(
        id=recent.id,
        user=recent.shown_user,
        workflow_id=recent.workflow.id,
        workflow_version=recent.workflow.version,
        expires_at=recent.expires_at,
        status=recent.status,
        group=group,
    )
    seconds = record_ttl(recent, asked_for=recent.lifetime) - age
    if seconds <= 0:
        return []
    record_group = scope.group_of_session(recent.id)
    return [
        transactions.store_record(record_group, StoredRecord(record, seconds)),
        transactions.list_session(group, recent.id, record_group=record_group, ttl=seconds),
    ]
