"""What clients ask of a store, and what it has not got yet: until it is read, or in an outage."""

import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from pydantic import SecretStr

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.single_flight import Batches, CompletionEvent, SingleFlight
from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions.errors import ChatKitError, SessionStoreError
from chatkit_sessions.events import OnEvent
from chatkit_sessions.models import ChatKitSessionResponse
from chatkit_sessions.stores.base import (
    AsyncSessionStore,
    Entry,
    SessionStore,
    Transaction,
    value_of,
)
from chatkit_sessions.stores.memory import MemorySessionStore

from . import entries as transactions
from .entries import (
    DAY,
    GENERATION,
    RECORD,
    RENEW_EVERY,
    CreatedSession,
    Lease,
    Publication,
    StoredRecord,
    StoreSnapshot,
    encode_failure,
    parse_generation,
    parse_record,
    parse_snapshot,
    record_of_created,
    record_ttl,
    session_ids,
    snapshot_names,
)
from .identity import Identity, Scope
from .rate_limit import REQUESTS, count_request
from .store_access import StoreAccess, evicted_error, not_confirmed_error

T = TypeVar("T")

MAX_RECENT: Final = 15_000
"""Sessions that `RecentSessions` remembers: as many as a store holds, with two entries each."""
MAX_PUBLISHED_AT_ONCE: Final = 50
"""Sessions of an outage that one call publishes."""
RELEASE_TIMEOUT: Final = 1.0
"""Seconds that a call whose time may be up still takes to let others create."""


class Creation:
    """A call that creates a session; whether its user has signed out since it began."""

    __slots__ = ("scope", "signed_out", "user")

    def __init__(self, scope: Scope, user: str) -> None:
        self.scope: Final = scope
        self.user: Final = user
        self.signed_out = False


class _Recent(NamedTuple):
    """A new session without its secret; its record has no group yet, whose name is a digest."""

    scope: Scope
    user: str
    stored: StoredRecord
    added: float
    """When it was added; its record expires `stored.ttl` seconds later."""


class RecentSessions:
    """New sessions that a client's own store records only when they are read.

    Most sessions are never read by the process that created them. Their digests and entries are
    made at the first read, or when their user signs out. Safe to use from several threads and event
    loops.

    Args:
        store: The client's own.
        clock: What the store's entries expire by.
    """

    def __init__(self, store: MemorySessionStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._sessions: dict[tuple[str, str], _Recent] = {}  # by scope and id, the oldest first
        self._of_user: dict[tuple[str, str], dict[str, None]] = {}
        self._in_progress: dict[Creation, None] = {}  # changed in single steps, without the lock

    def begin(self, scope: Scope, user: str) -> Creation:
        """Begin to create a session; `end` has to follow."""
        creation = Creation(scope, user)
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
        workflow_id: str,
        asked_for: float,
    ) -> bool:
        """Remember a new session; False: its user has signed out since the call began.

        Args:
            creation: The call.
            session: As the API returned it.
            workflow_id: The workflow that was asked for.
            asked_for: The seconds that were asked for, or the API's default.
        """
        now, scope, user = self._clock(), creation.scope, creation.user
        record = record_of_created(session, user=user, workflow_id=workflow_id)
        stored = StoredRecord(record, record_ttl(session, asked_for=asked_for))
        with self._lock.get():
            if creation.signed_out:
                return False
            # An interrupt loses no session: it is listed before it is there.
            self._of_user.setdefault((scope.text, user), {})[session.id] = None
            self._sessions[scope.text, session.id] = _Recent(scope, user, stored, now)
            oldest = next(iter(self._sessions.values()))
            if oldest.added + 2 * DAY <= now:
                self._forget(oldest.scope, oldest.stored.record.id)
            elif len(self._sessions) > MAX_RECENT:
                # Listed while its secret may work: the store says whether a sign-out may miss it.
                if oldest.added + oldest.stored.ttl - DAY > now:
                    self._publish(oldest.scope, [oldest.stored.record.id])
                else:
                    self._forget(oldest.scope, oldest.stored.record.id)
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
                if (creation.scope.text, creation.user) == (scope.text, user):
                    creation.signed_out = True

    def _publish(self, scope: Scope, session_ids: Iterable[str]) -> None:
        """Under the lock, and stored before they are forgotten, so that an interrupt loses none."""
        now = self._clock()
        for session_id in session_ids:
            recent = self._sessions.get((scope.text, session_id))
            ttl = 0.0 if recent is None else recent.added + recent.stored.ttl - now
            if recent is not None and ttl > 0:
                group = scope.group_of_user(recent.user)
                at = scope.group_of_session(session_id)
                stored = StoredRecord(replace(recent.stored.record, group=group), ttl)
                for place, changes, when in (
                    transactions.store_record(at, stored),
                    transactions.list_session(group, session_id, record_group=at, ttl=ttl),
                ):
                    self._store.commit(place, changes, when=when)
            self._forget(scope, session_id)

    def _forget(self, scope: Scope, session_id: str) -> None:
        recent = self._sessions.pop((scope.text, session_id), None)
        if recent is not None:
            owner = scope.text, recent.user
            del self._of_user[owner][session_id]
            if not self._of_user[owner]:
                del self._of_user[owner]


class Registry:
    """What both clients ask of a store; over a store of plain functions nothing here suspends.

    During an outage, sessions are still created: a store in memory takes the store's place, and
    sessions that cannot be published are published when the store responds again. None of this
    raises SessionStoreError, unless `requires_store` is set. Reading records and signing out
    do: only the store knows.

    Args:
        store: The client's.
        clock: Seconds by which sessions expire.
        new_event: Makes what callers in one process wait for.
        recent: The sessions that the client's own store records later; None: the user's store.
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
        self._access: Final = StoreAccess(store, on_event)
        self._state: Final = self._access.state
        self._clock: Final = clock
        self._new_event: Final = new_event
        self.recent: Final = recent
        self.requires_store = False
        """Whether calls raise SessionStoreError in an outage: the server needs the store, too."""
        self.single_flight: SingleFlight[ChatKitSessionResponse] = SingleFlight(new_event)
        self.look_ups: Batches[StoreSnapshot] = Batches(new_event)
        self.suspends: Final = not isinstance(store, MemorySessionStore)
        """Whether reading takes long enough to be shared."""

    def for_store(self, store: SessionStore | AsyncSessionStore) -> "Registry":
        """The registry of that store: this one, if it is the same."""
        if store is self._access.store:
            return self
        return Registry(store, self._clock, self._new_event, on_event=self._access.on_event)

    # What there is

    async def look_up_generation(self, identity: Identity, deadline: Deadline) -> StoreSnapshot:
        """Read the last sign-out, before a session is created that is not shared."""
        entries = await self._try_get(identity.group, [GENERATION], deadline)
        if entries is not None:
            return parse_generation(entries)
        entries = self._state.stand_in.get(identity.group, [GENERATION])
        return replace(parse_generation(entries), reachable=False)

    async def look_up_session(self, identity: Identity, deadline: Deadline) -> StoreSnapshot:
        """Read the shared session: all that a caller needs to reuse it."""
        names = snapshot_names(identity)
        asked_at = self._clock()
        entries = await self._try_get(identity.group, [names[0], names[-1]], deadline)
        if entries is None:
            return self.look_up_without_store(identity)
        secret, generation = entries
        found = [secret, None, None, None, generation]
        return parse_snapshot(identity, found, asked_at=asked_at, is_complete=False)

    async def look_up(
        self, identity: Identity, deadline: Deadline, *, presented: SecretStr | None = None
    ) -> StoreSnapshot:
        """Read all entries of an identity, and of the secret that is presented."""
        names = snapshot_names(identity, presented)
        asked_at = self._clock()
        access = self._access
        found = await self._try_read(lambda: access.get_with_time(identity.group, names, deadline))
        if found is None:
            return self.look_up_without_store(identity, presented=presented)
        return self._parse(identity, *found, asked_at)

    def look_up_without_store(
        self, identity: Identity, *, presented: SecretStr | None = None
    ) -> StoreSnapshot:
        """Read what this process has created during the outage."""
        names = snapshot_names(identity, presented)
        entries = self._state.stand_in.get(identity.group, names)
        snapshot = parse_snapshot(identity, entries, asked_at=self._clock())
        return replace(snapshot, reachable=False)

    # The right to create

    async def acquire_lease(
        self, identity: Identity, snapshot: StoreSnapshot, lease: Lease, deadline: Deadline
    ) -> StoreSnapshot | None:
        """Acquire the lease to create a session; if it is taken, return what the store holds."""
        transaction = transactions.acquire_lease(identity, snapshot, lease)
        return await self._commit_or_look_up(identity, transaction, deadline)

    async def with_clock(self, identity: Identity, lease: Lease, deadline: Deadline) -> Lease:
        """The lease, with the offset between the store's clock and this process's."""
        if lease.clock_offset is not None:
            return lease
        now = await self._access.try_store(lambda: self._access.now(identity.group, deadline))
        return lease if now is None else lease._replace(clock_offset=now - self._clock())

    async def renew_lease(self, identity: Identity, lease: Lease) -> None:
        """Renew the lease."""
        deadline = Deadline.after(RENEW_EVERY, self._clock)
        await self._try_commit(transactions.renew_lease(identity, lease), deadline, leads=True)

    async def release_lease(
        self, identity: Identity, lease: Lease, *, error: BaseException | None
    ) -> None:
        """Let others create, unless they share this failure."""
        failure = None
        if isinstance(error, ChatKitError):
            failure = encode_failure(error, token=lease.token)
        transaction = transactions.release_lease(identity, lease, failure=failure)
        deadline = Deadline.after(RELEASE_TIMEOUT, self._clock)
        await self._try_commit(transaction, deadline, leads=True)

    # Sessions that have been created

    async def publish(
        self,
        created: CreatedSession,
        deadline: Deadline,
        *,
        snapshot: StoreSnapshot,
        lease: Lease | None = None,
    ) -> bool:
        """Record and list a new session; False: the user signed out since the snapshot."""
        try:
            published = await self._publish(created, deadline, snapshot=snapshot, lease=lease)
        except BaseException:  # the call is cancelled
            self._state.defer_publication(created, snapshot)
            raise
        return self._defer_publication(created, snapshot) if published is None else published

    async def publish_unpublished(self, deadline: Deadline) -> list[str]:
        """Publish what was created while the store was out.

        Returns:
            The ids of sessions whose user has signed out meanwhile.
        """
        deleted: list[str] = []
        unpublished = self._state.unpublished
        for session_id in list(islice(unpublished, MAX_PUBLISHED_AT_ONCE)):
            found = unpublished.pop(session_id, None)
            if found is None:
                continue  # another call publishes it
            created, snapshot = found
            published: bool | None = None
            try:
                published = await self._publish(created, deadline, snapshot=snapshot, lease=None)
            finally:
                if published is None:
                    self._state.defer_publication(created, snapshot)
            if published is None:
                break
            if not published:
                deleted.append(session_id)
        return deleted

    async def _publish(
        self,
        created: CreatedSession,
        deadline: Deadline,
        *,
        snapshot: StoreSnapshot,
        lease: Lease | None,
    ) -> bool | None:
        """As `publish`; None: the store does not respond."""
        if lease is None:
            # Somebody else may have created the session to share: this one is only listed, for the
            # next sign-out to end.
            created = created._replace(share=False)
        if not snapshot.reachable:  # nobody knows whether the user signed out in between
            snapshot = await self.look_up(created.identity, deadline)
        stored = StoredRecord(created.record, created.record_ttl)
        record = transactions.store_record(created.record_group, stored)
        leads = lease is not None
        if not snapshot.reachable or await self._try_commit(record, deadline, leads=leads) is None:
            return None
        attempt = Publication(created, snapshot, snapshot.generation, lease)
        while True:
            found = await self._commit_or_look_up(
                created.identity, attempt.transaction(self._clock()), deadline, leads=leads
            )
            if found is not None and not found.reachable:
                return None
            following = None if found is None else attempt.after_conflict(found)
            if following is None:
                return not attempt.is_deleted
            attempt = following

    def _defer_publication(self, created: CreatedSession, snapshot: StoreSnapshot) -> bool:
        """Remember a session that cannot be published now; False: the user has signed out."""
        if not self._state.circuit_breaker.is_open:
            self._state.defer_publication(created, snapshot)
            return True
        generation = None if snapshot.reachable else snapshot.generation
        group, changes, when = transactions.publish(
            created, generation=generation, lease=None, now=self._clock()
        )
        if not self._state.stand_in.commit(group, changes, when=when):
            return False
        self._state.defer_publication(created, snapshot)
        return True

    @property
    def has_unpublished(self) -> bool:
        """Whether the store is to learn of some sessions, and responds."""
        return bool(self._state.unpublished) and not self._state.circuit_breaker.is_open

    def hide_unpublished(self, session_id: str) -> None:
        """Stop returning this session, if it was created during an outage."""
        found = self._state.unpublished.get(session_id)
        if found is not None:
            identity = found[0].identity
            self._state.stand_in.commit(identity.group, {f"secret:{identity.slot}": None}, when={})

    def drop_unpublished(self, session_id: str) -> None:
        """Forget a session that has ended: the store need not learn of it."""
        self._state.unpublished.pop(session_id, None)

    def sign_out_without_store(self, group: str, *, generation: bytes) -> list[str]:
        """Stop returning what this process has created for a user during an outage.

        Returns:
            The ids of those sessions.
        """
        if self._state.circuit_breaker.is_open:
            stand_in = self._state.stand_in
            names = stand_in.names(group)
            _, changes, when = transactions.sign_out(group, names, generation=generation)
            stand_in.commit(group, changes, when=when)
        every = [created for created, _ in list(self._state.unpublished.values())]
        return [each.session.id for each in every if each.identity.group == group]

    # Requests of an endpoint

    async def admit(self, group: str, deadline: Deadline, *, limit: int) -> float:
        """Count one more request of a user; return the seconds until it may be made.

        During an outage, this process counts for itself.
        """
        stand_in, is_out = self._state.stand_in, False
        while True:  # as long as others count, too; at most `limit` of them can
            entries = None if is_out else await self._try_get(group, [REQUESTS], deadline)
            (entry,) = stand_in.get(group, [REQUESTS]) if entries is None else entries
            count = count_request(entry, limit=limit)
            if not isinstance(count, Entry):
                return count
            counted = Transaction(group, {REQUESTS: count}, {REQUESTS: value_of(entry)})
            if entries is None:
                committed: bool | None = stand_in.commit(group, counted.changes, when=counted.when)
            else:
                committed = await self._try_commit(counted, deadline)
            if committed:
                return 0.0
            is_out = committed is None

    async def _commit_or_look_up(
        self,
        identity: Identity,
        transaction: Transaction,
        deadline: Deadline,
        *,
        leads: bool = False,
    ) -> StoreSnapshot | None:
        """Make changes; return what the store holds if a condition fails, or during an outage."""
        access, names, asked_at = self._access, snapshot_names(identity), self._clock()
        found = await access.try_store(
            lambda: access.commit_or_get(transaction, names, deadline, leads=leads)
        )
        if found is None:
            return self.look_up_without_store(identity)
        return None if found[0] is None else self._parse(identity, found[0], found[1], asked_at)

    def _parse(
        self,
        identity: Identity,
        entries: Sequence[Entry | None],
        now: float | None,
        asked_at: float,
    ) -> StoreSnapshot:
        offset = None if now is None else now - self._clock()
        return parse_snapshot(identity, entries, asked_at=asked_at, clock_offset=offset)

    # Records of sessions: these raise SessionStoreError

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
        await self._access.commit(transactions.store_record(group, stored), deadline)

    async def forget_record(self, scope: Scope, session_id: str, deadline: Deadline) -> None:
        """Remove a session's record, if the store responds."""
        if self.recent is not None:
            self.recent.publish_session(scope, session_id)
        group = scope.group_of_session(session_id)
        await self._try_commit(transactions.remove_record(group), deadline)

    async def evict(self, stored: StoredRecord, deadline: Deadline) -> None:
        """Stop returning this session to callers."""
        record = stored.record
        if record.group is None or record.slot is None:
            return
        (secret,) = await self._access.get(record.group, [f"secret:{record.slot}"], deadline)
        transaction = transactions.remove_secret(stored, secret)
        if transaction is not None:
            # If it is not committed, another session is there by now.
            await self._access.commit(transaction, deadline)

    # Signing out: these, too

    async def sign_out(
        self, scope: Scope, user: str, deadline: Deadline, *, generation: bytes
    ) -> tuple[dict[str, StoredRecord | None], SessionStoreError | None]:
        """End what the store shares of a user, and every creation that began before now.

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

    # Each returns None if the store does not respond, unless it is required for reading

    async def _try_get(
        self, group: str, names: Sequence[str], deadline: Deadline
    ) -> list[Entry | None] | None:
        return await self._try_read(lambda: self._access.get(group, names, deadline))

    async def _try_read(self, read: Callable[[], Awaitable[T]]) -> T | None:
        return await (read() if self.requires_store else self._access.try_store(read))

    async def _try_commit(
        self, transaction: Transaction, deadline: Deadline, *, leads: bool = False
    ) -> bool | None:
        return await self._access.try_store(
            lambda: self._access.commit(transaction, deadline, leads=leads)
        )


def _records_of(scope: Scope, ids: Iterable[str]) -> list[tuple[str, str]]:
    """Where the records of sessions are."""
    return [(scope.group_of_session(each), RECORD) for each in ids]
