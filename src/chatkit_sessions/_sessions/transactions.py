"""The changes that are committed to a store, for each step of a session."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from chatkit_sessions._api.create_body import MAX_EXPIRES_AFTER
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.models import ChatKitSessionResponse
from chatkit_sessions.stores.base import Entry, Transaction

from .identity import Identity, name_of_secret
from .records import DAY, SessionRecord, StoredRecord, encode_record
from .snapshot import GENERATION, StoreSnapshot, decode_session, encode_session

LEASE: Final = 3.0
"""Seconds that others wait if a worker dies while it creates a session."""
RENEW_EVERY: Final = LEASE / 3
"""Seconds after which a worker renews its lease."""
RECORD: Final = "record"

_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 0.25
_PER_LOOK: Final = 4.0


class CreatedSession(NamedTuple):
    """A new session, and what its place in the store depends on."""

    session: ChatKitSessionResponse
    record: SessionRecord
    record_group: str
    """The group of its record; names the session in its user's group, too."""
    identity: Identity
    works_until: float
    """When its secret may stop to work, by this process's expiry clock."""
    record_ttl: float
    """Seconds for which it is recorded."""
    share: bool
    """Whether its secret is kept, for others to use."""


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
    return longest * (1 - random() / 2) + min(_PER_LOOK * took, LEASE / 3)


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
    """Keep nothing of the user that was begun before now; `names` are those of the group's list."""
    changes: dict[str, Entry | None] = {name: None for name in names if name.startswith("secret:")}
    # Needed as long as a call may last that has begun before.
    mark = Entry(MaskedBytes(generation), DAY, retention=DAY - MAX_EXPIRES_AFTER)
    changes[GENERATION] = mark
    return Transaction(group, changes, {})


def record(group: str, stored: StoredRecord) -> Transaction:
    """Store a session's record, in place of the one that is there."""
    entry = Entry(encode_record(stored.record), stored.ttl, retention=DAY)
    return Transaction(group, {RECORD: entry}, {})


def forget(group: str) -> Transaction:
    """Remove a session's record."""
    return Transaction(group, {RECORD: None}, {})


def evict(stored: StoredRecord, secret: Entry | None) -> Transaction | None:
    """Stop returning this session to callers; None: it is not shared any more."""
    session_record = stored.record
    if secret is None or session_record.group is None:
        return None
    shared = decode_session(secret.value)
    if shared is None or shared.session.id != session_record.id:
        return None
    name = f"secret:{session_record.slot}"
    return Transaction(session_record.group, {name: None}, {name: secret.value})
