"""A store as the clients use it: its `entries`, read and committed."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from chatkit_sessions._concurrency.single_flight import Batches, CompletionEvent, SingleFlight
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions.errors import SessionStoreError
from chatkit_sessions.events import OnEvent
from chatkit_sessions.stores.base import AsyncSessionStore, Entry, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from . import entries as transactions
from .access import evicted_error, not_confirmed_error
from .entries import RECORD, StoredRecord, parse_record, session_ids
from .identity import Scope
from .recent import RecentSessions
from .shared import StoreWithFallback

if TYPE_CHECKING:
    from chatkit_sessions.models import ChatKitSessionResponse

    from .entries import StoreSnapshot


class Registry(StoreWithFallback):
    """What both clients ask of a store; over a store of plain functions nothing here suspends.

    What only the store can tell raises SessionStoreError; for the rest see `StoreWithFallback`.

    Args:
        store: Where everything lies.
        clock: Seconds by which sessions expire.
        new_event: Makes what callers in one process wait for.
        recent: What a client's own store learns of later; None: the store is the user's.
        on_event: The client's.
    """

    def __init__(
        self,
        store: SessionStore | AsyncSessionStore,
        clock: Callable[[], float],
        new_event: Callable[[], CompletionEvent],
        *,
        recent: RecentSessions | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        super().__init__(store, clock, on_event)
        self._new_event = new_event
        self.recent = recent
        self.single_flight: SingleFlight[ChatKitSessionResponse] = SingleFlight(new_event)
        self.look_ups: Batches[StoreSnapshot] = Batches(new_event)
        self.suspends: Final = not isinstance(store, MemorySessionStore)
        """Whether reading takes long enough to be shared."""

    def for_store(self, store: SessionStore | AsyncSessionStore) -> "Registry":
        """The registry of that store: this one, if it is the same."""
        if store is self._access.store:
            return self
        return Registry(store, self._clock, self._new_event, on_event=self._access.on_event)

    # What is known of sessions

    async def record(
        self, scope: Scope, session_id: str, deadline: Deadline
    ) -> StoredRecord | None:
        """Read a session's record."""
        if self.recent is not None:
            self.recent.publish_session(scope, session_id)
        group = scope.group_of_session(session_id)
        (entry,) = await self._access.get(group, [RECORD], deadline)
        return parse_record(entry, session_id)

    async def records(self, scope: Scope, user: str, deadline: Deadline) -> list[StoredRecord]:
        """Read the records of a user's sessions."""
        if self.recent is not None:
            self.recent.publish_user(scope, user)
        listed = await self._listed(scope.group_of_user(user), deadline)
        ids = session_ids(listed, ended=True)
        entries = await self._access.get_many(_records_of(scope, ids), deadline)
        records = map(parse_record, entries, ids)
        return [each for each in records if each is not None]

    async def save_record(self, scope: Scope, stored: StoredRecord, deadline: Deadline) -> None:
        """Store a session's record in place of the one that is there."""
        group = scope.group_of_session(stored.record.id)
        await self._access.commit(transactions.record(group, stored), deadline)

    async def forget(self, scope: Scope, session_id: str, deadline: Deadline) -> None:
        """Remove a session's record, if the store responds."""
        if self.recent is not None:
            self.recent.publish_session(scope, session_id)
        group = scope.group_of_session(session_id)
        await self._try_commit(transactions.forget(group), deadline)

    async def evict(self, stored: StoredRecord, deadline: Deadline) -> None:
        """Stop returning this session to callers."""
        record = stored.record
        if record.group is None or record.slot is None:
            return
        (secret,) = await self._access.get(record.group, [f"secret:{record.slot}"], deadline)
        transaction = transactions.evict(stored, secret)
        if transaction is not None:
            # If it is not committed, another session is there by now.
            await self._access.commit(transaction, deadline)

    # Signing out

    async def sign_out(
        self, scope: Scope, user: str, deadline: Deadline, *, generation: bytes
    ) -> tuple[dict[str, StoredRecord | None], SessionStoreError | None]:
        """Keep nothing of the user that was begun before now.

        Returns:
            The sessions that may be active, by id, with or without a record; and why there may be
            some again after a failover.
        """
        if self.recent is not None:
            self.recent.sign_out(scope, user)
        group = scope.group_of_user(user)
        names = await self._access.names(group, deadline)
        sign_out = transactions.sign_out(group, names, generation=generation)
        is_confirmed = await self._access.commit_to_replicas(sign_out, deadline)
        # Again: a session that was published until then is listed by now, and none is after it.
        ids = session_ids(await self._listed(group, deadline), ended=False)
        records = _records_of(scope, ids)
        entries = await self._access.try_store(lambda: self._access.get_many(records, deadline))
        stored = dict(zip(ids, map(parse_record, entries or [None] * len(ids), ids), strict=True))
        active = {id_: each for id_, each in stored.items() if each is None or each.may_be_active}
        return active, None if is_confirmed else not_confirmed_error()

    async def check_list(self, scope: Scope, user: str, deadline: Deadline) -> None:
        """Check that the list of a user's sessions is complete, as far as this process knows.

        Raises:
            SessionStoreError: A full store has removed some of it.
        """
        group = scope.group_of_user(user)
        if await self._access.has_evicted(group, deadline, now=self._clock()):
            raise evicted_error()

    async def _listed(self, group: str, deadline: Deadline) -> list[Entry | None]:
        """What the group lists of sessions."""
        names = await self._access.names(group, deadline)
        sessions = [name for name in names if name.startswith("session:")]
        return await self._access.get(group, sessions, deadline) if sessions else []


def _records_of(scope: Scope, ids: Iterable[str]) -> list[tuple[str, str]]:
    """Where the records of sessions are."""
    return [(scope.group_of_session(each), RECORD) for each in ids]
