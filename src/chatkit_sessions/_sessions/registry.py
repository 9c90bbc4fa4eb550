"""A store as the clients use it: `snapshot` and `transactions`, read and committed."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.single_flight import SettableEvent, SingleFlight
from chatkit_sessions.errors import SessionStoreError
from chatkit_sessions.stores.base import AsyncSessionStore, Entry, SessionStore

from . import transactions
from .circuit_breaker import CircuitBreaker
from .identity import Identity, Scope
from .rate_limit import REQUESTS, count_request
from .recent import RecentSessions
from .records import StoredRecord, parse_record, session_ids
from .snapshot import (
    GENERATION,
    UNREACHABLE,
    StoreSnapshot,
    parse_generation,
    parse_snapshot,
    snapshot_names,
)
from .transactions import RECORD, CreatedSession, Transaction

E = TypeVar("E", bound=SettableEvent)


class Registry(Generic[E]):
    """What both clients ask of a store; over a store of plain functions nothing here suspends.

    Creating a session uses the store as far as it responds: where it does not, `look_up` says so
    and the rest is left undone. Everything else raises SessionStoreError.

    Args:
        store: Where everything lies.
        clock: A monotonic clock, in seconds.
        new_event: Makes what callers in one process wait for.
        recent: What a client's own store learns of later; None: the store is the user's.
    """

    def __init__(
        self,
        store: SessionStore | AsyncSessionStore,
        clock: Callable[[], float],
        new_event: Callable[[], E],
        *,
        recent: RecentSessions | None = None,
    ) -> None:
        self._given = store
        self._store = _awaitable(store)
        self._clock = clock
        self._circuit_breaker = CircuitBreaker(clock)
        self._new_event = new_event
        self.single_flight = SingleFlight(new_event)
        self.recent = recent

    def of(self, store: SessionStore | AsyncSessionStore) -> "Registry[E]":
        """The registry of that store: this one, if it is the same."""
        return self if store is self._given else Registry(store, self._clock, self._new_event)

    async def look_up_generation(self, identity: Identity) -> StoreSnapshot:
        """Read the last sign-out, before a session is created that is not shared."""
        entries = await self._get_if_reachable(identity.group, [GENERATION])
        return UNREACHABLE if entries is None else parse_generation(entries)

    async def look_up(
        self, identity: Identity, *, presented: SecretStr | None = None
    ) -> StoreSnapshot:
        """Read what there is of an identity, and of the secret that is presented."""
        names = snapshot_names(identity, presented)
        entries = await self._get_if_reachable(identity.group, names)
        return UNREACHABLE if entries is None else parse_snapshot(identity, entries)

    async def acquire_lease(
        self, identity: Identity, snapshot: StoreSnapshot, *, token: bytes, seconds: float
    ) -> StoreSnapshot | None:
        """Become the one who creates; None: done. Otherwise what there is by now."""
        lease = transactions.acquire_lease(identity, snapshot, token=token, seconds=seconds)
        if await self._commit(lease):
            return None
        now = await self.look_up(identity)
        return None if now.lease == token else now

    async def release_lease(self, identity: Identity, *, token: bytes) -> None:
        """Let others create."""
        await self._commit(transactions.release_lease(identity, token=token))

    async def publish(self, created: CreatedSession, *, snapshot: StoreSnapshot) -> bool:
        """Record and list a new session; False: the user signed out since the snapshot."""
        if not snapshot.reachable:
            # Nobody knows whether the user signed out in between: the session is listed, for the
            # next sign-out to end, but not shared.
            snapshot = await self.look_up(created.identity)
            created = created._replace(share=False)
        stored = StoredRecord(created.record, created.record_ttl)
        await self._commit(transactions.record(created.record_group, stored))
        generation = snapshot.generation
        while await self._commit(transactions.publish(created, generation=generation)) is False:
            now = await self.look_up(created.identity)
            if now.generation is not None and now.generation != snapshot.generation:
                # Not shared but listed: the next sign-out ends it if cancelling fails.
                created = created._replace(share=False)
                await self._commit(transactions.publish(created, generation=now.generation))
                return False
            generation = now.generation
        return True

    async def record(self, scope: Scope, session_id: str) -> StoredRecord | None:
        """Read a session's record."""
        if self.recent is not None:
            self.recent.publish_session(scope, session_id)
        (entry,) = await self._get(scope.group_of_session(session_id), [RECORD])
        return parse_record(entry, session_id)

    async def records(self, scope: Scope, user: str, *, ended: bool) -> list[StoredRecord]:
        """Read the records of a user's sessions, with or without those that have expired."""
        if self.recent is not None:
            self.recent.publish_user(scope, user)
        group = scope.group_of_user(user)
        try:
            names = await self._store.names(group)
        except SessionStoreError as error:
            self._circuit_breaker.record_failure(error)
            raise
        listed = await self._get(group, names) if names else []
        records = [await self.record(scope, each) for each in session_ids(listed, ended=ended)]
        return [each for each in records if each is not None]

    async def keep(self, scope: Scope, stored: StoredRecord) -> None:
        """Store a session's record in place of the one that is there."""
        group = scope.group_of_session(stored.record.id)
        await self._commit_or_raise(transactions.record(group, stored))

    async def forget(self, scope: Scope, session_id: str) -> None:
        """Remove a session's record, if the store responds."""
        if self.recent is not None:
            self.recent.publish_session(scope, session_id)
        await self._commit(transactions.forget(scope.group_of_session(session_id)))

    async def evict(self, stored: StoredRecord) -> None:
        """Stop returning this session to callers."""
        record = stored.record
        if record.group is None or record.slot is None:
            return
        (secret,) = await self._get(record.group, [f"secret:{record.slot}"])
        transaction = transactions.evict(stored, secret)
        if transaction is not None:
            await self._commit_or_raise(transaction)  # if it fails, another session is there by now

    async def sign_out(self, scope: Scope, user: str, *, generation: bytes) -> None:
        """Keep nothing of the user that was begun before now."""
        if self.recent is not None:
            self.recent.sign_out(scope, user)
        group = scope.group_of_user(user)
        await self._commit_or_raise(transactions.sign_out(group, generation=generation))

    async def admit(self, group: str, *, limit: int) -> float | None:
        """Count one more request of a user.

        Returns:
            0.0 where the request is admitted, otherwise the seconds until the next one is; None
            where the store does not respond.
        """
        counted: bool | None = False
        while counted is False:  # as long as others count, too; at most `limit` of them can
            entries = await self._get_if_reachable(group, [REQUESTS])
            if entries is None:
                return None
            (entry,) = entries
            count = count_request(entry, limit=limit)
            if not isinstance(count, Entry):
                return count
            before = {REQUESTS: None if entry is None else entry.value}
            counted = await self._commit(Transaction(group, {REQUESTS: count}, before))
        return 0.0 if counted else None

    async def _get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        try:
            entries = await self._store.get(group, names)
        except SessionStoreError as error:
            self._circuit_breaker.record_failure(error)
            raise
        self._circuit_breaker.record_success()
        return entries

    async def _commit_or_raise(self, transaction: Transaction) -> bool:
        group, changes, when = transaction
        try:
            committed = await self._store.commit(group, changes, when=when)
        except SessionStoreError as error:
            self._circuit_breaker.record_failure(error)
            raise
        self._circuit_breaker.record_success()
        return committed

    # What creating a session asks; None: the store does not respond, or did not a moment ago.

    async def _get_if_reachable(
        self, group: str, names: Sequence[str]
    ) -> list[Entry | None] | None:
        if not self._circuit_breaker.allows_request():
            return None
        try:
            return await self._get(group, names)
        except SessionStoreError:
            return None  # logged already

    async def _commit(self, transaction: Transaction) -> bool | None:
        if not self._circuit_breaker.allows_request():
            return None
        try:
            return await self._commit_or_raise(transaction)
        except SessionStoreError:
            return None  # logged already


def _awaitable(store: SessionStore | AsyncSessionStore) -> AsyncSessionStore:
    if inspect.iscoroutinefunction(store.get):
        return cast("AsyncSessionStore", store)
    return _AwaitableStore(cast("SessionStore", store))


class _AwaitableStore:
    """A store of plain functions with the interface of an async one; it never suspends."""

    def __init__(self, store: SessionStore) -> None:
        self.namespace = store.namespace
        self._store = store

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return self._store.get(group, names)

    async def names(self, group: str) -> list[str]:
        return self._store.names(group)

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return self._store.commit(group, changes, when=when)
