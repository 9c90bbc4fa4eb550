"""What is committed to a store, for each step of a session's life."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.models import ChatKitSessionResponse
from chatkit_sessions.stores.base import Entry

from .identity import Identity, name_of_secret
from .records import DAY, SessionRecord, StoredRecord, encode_record
from .snapshot import GENERATION, StoreSnapshot, decode_session, encode_session

LEASE: Final = 10.0
"""Seconds after which a worker that creates a session, and may have died, is waited for no more."""
RECORD: Final = "record"

_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 0.25


class Transaction(NamedTuple):
    """What to commit to a store."""

    group: str
    changes: Mapping[str, Entry | None]
    when: Mapping[str, bytes | None]


class CreatedSession(NamedTuple):
    """A new session, and what its place in the store depends on."""

    session: ChatKitSessionResponse
    record: SessionRecord
    record_group: str
    """The group of its record; names the session in its user's group, too."""
    identity: Identity
    secret_ttl: float
    """Seconds for which its secret works at least."""
    record_ttl: float
    """Seconds for which it is recorded."""
    share: bool
    """Whether its secret is kept, for others to use."""


def acquire_lease(
    identity: Identity, snapshot: StoreSnapshot, *, token: bytes, seconds: float
) -> Transaction:
    """Become the one who creates the next session, unless somebody is or a newer one is there."""
    name = f"lease:{identity.slot}"
    return Transaction(
        identity.group,
        {name: Entry(MaskedBytes(token), seconds)},
        {name: None, f"secret:{identity.slot}": snapshot.value, GENERATION: snapshot.generation},
    )


def lease_ttl(deadline: Deadline) -> float:
    """Seconds for which others may not create: as long as the call can take, at most `LEASE`."""
    return deadline.at_most(LEASE).remaining() or LEASE


def release_lease(identity: Identity, *, token: bytes) -> Transaction:
    """Let others create."""
    name = f"lease:{identity.slot}"
    return Transaction(identity.group, {name: None}, {name: token})


def poll_delay(polls_done: int, *, random: Callable[[], float]) -> float:
    """Seconds before looking again whether another worker has created the session."""
    longest = min(_FIRST_DELAY * 1.5 ** min(polls_done, 60), _LONGEST_DELAY)
    return longest * (1 - random() / 2)


def publish(created: CreatedSession, *, generation: bytes | None) -> Transaction:
    """List a session in its user's group, unless the user signed out in between."""
    identity, session = created.identity, created.session
    changes = _listing(session.id, record_group=created.record_group, ttl=created.record_ttl)
    if created.share:
        changes[f"reused:{identity.slot}"] = Entry(MaskedBytes(b"1"), created.record_ttl)
        changes[f"secret:{identity.slot}"] = None
    if created.share and created.secret_ttl > 0:
        changes[f"secret:{identity.slot}"] = Entry(
            encode_session(identity, session, generation), created.secret_ttl
        )
        known = Entry(MaskedBytes(b"1"), created.secret_ttl)
        changes[name_of_secret(session.client_secret)] = known
    return Transaction(identity.group, changes, {GENERATION: generation})


def list_session(group: str, session_id: str, *, record_group: str, ttl: float) -> Transaction:
    """List a session in its user's group."""
    return Transaction(group, _listing(session_id, record_group=record_group, ttl=ttl), {})


def _listing(session_id: str, *, record_group: str, ttl: float) -> dict[str, Entry | None]:
    listed = Entry(MaskedBytes(session_id.encode()), ttl, listed=True)
    return {f"session:{record_group}": listed}


def sign_out(group: str, *, generation: bytes) -> Transaction:
    """Keep nothing of the user that was begun before now."""
    return Transaction(group, {GENERATION: Entry(MaskedBytes(generation), DAY)}, {})


def record(group: str, stored: StoredRecord) -> Transaction:
    """Store a session's record, in place of the one that is there."""
    return Transaction(group, {RECORD: Entry(encode_record(stored.record), stored.ttl)}, {})


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
