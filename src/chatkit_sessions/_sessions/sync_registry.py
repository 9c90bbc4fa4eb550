"""What is known of sessions, in a store: `_registry`, asked and carried out."""

import threading
from collections.abc import Callable, Sequence

from pydantic import SecretStr

from chatkit_sessions._concurrency.single_flight import Flights
from chatkit_sessions.errors import SessionStoreError
from chatkit_sessions.stores.base import Entry, SessionStore

from .identity import Identity, Scope
from .rate_limit import REQUESTS, count_request
from .records import (
    GENERATION,
    NOTHING_FOUND,
    RECORD,
    Created,
    Found,
    Health,
    Known,
    SessionRecord,
    Transaction,
    end_of_lease,
    found,
    found_generation,
    lease,
    names_to_look_up,
    publication,
    read_record,
    recording,
    session_ids,
    sign_out,
    taking_out,
)


class Registry:
    """A store as the client uses it.

    What creating a session needs is done as far as the store answers; where it does not, `look_up`
    says so and the rest is left undone. Everything else raises SessionStoreError.

    Args:
        store: Where everything lies.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, store: SessionStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._health = Health(clock)
        self.flights = Flights(threading.Event)

    def of(self, store: SessionStore) -> "Registry":
        """The registry of that store: this one, if it is the same."""
        return self if store is self._store else Registry(store, self._clock)

    def begin(self, identity: Identity) -> Found:
        """Tell which sign-out came last, before a session is created that is not shared."""
        entries = self._get_if_reachable(identity.group, [GENERATION])
        return NOTHING_FOUND if entries is None else found_generation(entries)

    def look_up(self, identity: Identity, *, presented: SecretStr | None = None) -> Found:
        """Tell what there is of an identity, and of the secret that is presented."""
        names = names_to_look_up(identity, presented)
        entries = self._get_if_reachable(identity.group, names)
        return NOTHING_FOUND if entries is None else found(identity, entries)

    def acquire(
        self, identity: Identity, seen: Found, *, token: bytes, seconds: float
    ) -> Found | None:
        """Become the one who creates; None: done. Otherwise what there is by now."""
        if self._commit(lease(identity, seen, token=token, seconds=seconds)):
            return None
        now = self.look_up(identity)
        return None if now.lease == token else now

    def release(self, identity: Identity, *, token: bytes) -> None:
        """Let others create."""
        self._commit(end_of_lease(identity, token=token))

    def publish(self, created: Created, *, begun: Found) -> bool:
        """Make a new session known; False: the user's sessions were deleted since `begun`."""
        if not begun.reachable:
            # Whether a sign-out came in between cannot be told: the session is made known, for the
            # next one to end it, but not handed out again.
            begun, created = self.look_up(created.identity), created._replace(share=False)
        self._commit(recording(created.place, created.record, created.kept))
        generation = begun.generation
        while self._commit(publication(created, generation=generation)) is False:
            now = self.look_up(created.identity)
            if now.generation is not None and now.generation != begun.generation:
                # Not to be handed out, but known: the next sign-out ends it if cancelling fails.
                created = created._replace(share=False)
                self._commit(publication(created, generation=now.generation))
                return False
            generation = now.generation
        return True

    def record(self, scope: Scope, session_id: str) -> Known | None:
        """Tell what is known of a session."""
        (entry,) = self._get(scope.group_of_session(session_id), [RECORD])
        return read_record(entry, session_id)

    def records(self, scope: Scope, group: str, *, ended: bool) -> list[Known]:
        """Tell what is known of a user's sessions, with or without those that have expired."""
        try:
            names = self._store.names(group)
        except SessionStoreError as error:
            self._health.failed(error)
            raise
        listed = self._get(group, names) if names else []
        known = [self.record(scope, session_id) for session_id in session_ids(listed, ended=ended)]
        return [each for each in known if each is not None]

    def keep(self, scope: Scope, record: SessionRecord, seconds: float) -> None:
        """Keep what is known of a session in place of what was."""
        place = scope.group_of_session(record.id)
        self._commit_surely(recording(place, record, seconds))

    def forget(self, scope: Scope, session_id: str) -> None:
        """Know nothing of a session any more, if the store answers."""
        self._commit(Transaction(scope.group_of_session(session_id), {RECORD: None}, {}))

    def take_out(self, known: Known) -> None:
        """See to it that nobody is handed this session any more."""
        record = known.record
        if record.group is None or record.slot is None:
            return
        (secret,) = self._get(record.group, [f"secret:{record.slot}"])
        transaction = taking_out(known, secret)
        if transaction is not None:
            self._commit_surely(transaction)  # if it fails, another session is there by now

    def sign_out(self, group: str, *, generation: bytes) -> None:
        """Let nothing be kept of the user that was begun before now."""
        self._commit_surely(sign_out(group, generation=generation))

    def admit(self, group: str, *, limit: int) -> float | None:
        """Count one more request of a user.

        Returns:
            0.0 where it is admitted, otherwise the seconds until the next one is; None where the
            store does not answer.
        """
        counted: bool | None = False
        while counted is False:  # as long as others count, too; at most `limit` of them can
            found = self._get_if_reachable(group, [REQUESTS])
            if found is None:
                return None
            entry = found[0]
            count = count_request(entry, limit=limit)
            if not isinstance(count, Entry):
                return count
            before = {REQUESTS: None if entry is None else entry.value}
            counted = self._commit(Transaction(group, {REQUESTS: count}, before))
        return 0.0 if counted else None

    def _get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        try:
            entries = self._store.get(group, names)
        except SessionStoreError as error:
            self._health.failed(error)
            raise
        self._health.answered()
        return entries

    def _commit_surely(self, transaction: Transaction) -> bool:
        group, changes, when = transaction
        try:
            committed = self._store.commit(group, changes, when=when)
        except SessionStoreError as error:
            self._health.failed(error)
            raise
        self._health.answered()
        return committed

    # Where creating a session asks; None: the store does not answer, or did not a moment ago.

    def _get_if_reachable(self, group: str, names: Sequence[str]) -> list[Entry | None] | None:
        if not self._health.may_ask():
            return None
        try:
            return self._get(group, names)
        except SessionStoreError:
            return None  # told already

    def _commit(self, transaction: Transaction) -> bool | None:
        if not self._health.may_ask():
            return None
        try:
            return self._commit_surely(transaction)
        except SessionStoreError:
            return None  # told already
