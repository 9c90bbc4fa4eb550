"""What is kept of sessions in a store, as plain values, and what follows from what is found there.

A user's group holds

    secret:<slot>       the session that `get_or_create_session` hands out, until it expires
    reused:<slot>       that there was one, for a day longer: a refresh then replaces it
    shared:<secret>     that a secret, told by its digest, is one of those
    lease:<slot>        who creates the next one at the moment
    session:<id>        which sessions the user has, for a day after their expiry
    generation          which sign-out came last: what was begun before it must not be kept
    requests            when the last minute's requests were, of the endpoint's

and a session's group `record`: what `get_session` can tell of it, without secret or state.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache, lru_cache
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from chatkit_sessions._concurrency.per_process import PerProcess
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.errors import SessionDeletedError, SessionStoreError
from chatkit_sessions.models import ChatKitSessionResponse
from chatkit_sessions.stores.base import Entry

from .identity import Identity, name_of_secret

DAY: Final = 86_400.0
"""Seconds for which a session is known after its expiry; by then nobody can have a use for it."""
LEASE: Final = 10.0
"""Seconds after which a worker that creates a session, and may have died, is waited for no more."""
RETRY_STORE_AFTER: Final = 1.0
"""Seconds between two attempts to use a store that did not answer."""

GENERATION: Final = "generation"
RECORD: Final = "record"

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25

_JSON: Final = json.JSONEncoder(separators=(",", ":"))

logger: Final = logging.getLogger("chatkit_sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session, as last seen."""

    id: str
    user: str | None
    workflow_id: str | None
    workflow_version: str | None
    expires_at: datetime
    """With a time zone."""
    status: str | None
    group: str | None = None
    """Where its user's entries are; None: nobody knows whose it is."""
    slot: str | None = None
    """Where its secret may lie; None: nowhere."""


_FIELDS_OF_A_RECORD: Final = tuple(each.name for each in fields(SessionRecord))


class _StoredSession(BaseModel):
    """What lies in `secret:<slot>`."""

    model_config = ConfigDict(frozen=True, defer_build=True, hide_input_in_errors=True)

    identity: str
    session: ChatKitSessionResponse
    generation: str | None = None
    """The user's generation when it was put there."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a store had about an identity at one moment."""

    session: ChatKitSessionResponse | None = None
    """None where there is none, or what is there cannot be read or is another identity's."""
    seconds: float = 0.0
    """How long the session's secret still works."""
    value: bytes | None = None
    """What was there, readable or not."""
    generation: bytes | None = None
    reused: bool = False
    lease: bytes | None = None
    presented_is_shared: bool = False
    """Whether the secret that is presented for a refresh is that of a session handed out."""
    reachable: bool = True
    """Whether the store answered at all."""

    def may_refresh(self, presented: SecretStr) -> bool:
        """Whether to ask the API to refresh the secret, and not for a new session at once.

        A refreshed session keeps its options, and the presented secret may stop working. So where
        sessions are shared, only the one that is to be replaced is refreshed; one of other options
        goes on, for those who share it, and does not become what is shared here.
        """
        if self.session is not None and self.session.client_secret == presented:
            return True
        return not self.reused and not self.presented_is_shared

    def usable(
        self, min_remaining: float, *, instead_of: SecretStr | None = None
    ) -> ChatKitSessionResponse | None:
        """The session, if it works for that many seconds and has another secret than that."""
        if self.session is None or self.seconds < min_remaining:
            return None
        return None if self.session.client_secret == instead_of else self.session

    def newer_than(
        self, seen: "Found", *, begun: "Found", instead_of: SecretStr | None
    ) -> ChatKitSessionResponse | None:
        """The session that somebody else has made since `seen`, whatever it has left.

        Raises:
            SessionDeletedError: The user's sessions were deleted since `begun`.
        """
        if self.generation is not None and self.generation != begun.generation:
            raise deleted_meanwhile()
        return None if self.value == seen.value else self.usable(0.0, instead_of=instead_of)


NOTHING_FOUND: Final = Found(reachable=False)


def names_to_look_up(identity: Identity, presented: SecretStr | None = None) -> tuple[str, ...]:
    """What `found` needs."""
    slot = identity.slot
    names = (f"secret:{slot}", f"reused:{slot}", f"lease:{slot}", GENERATION)
    return names if presented is None else (*names, name_of_secret(presented))


def found_generation(entries: list[Entry | None]) -> Found:
    """Make sense of `GENERATION` alone: all that a session which is not shared depends on."""
    (last_sign_out,) = entries
    return Found(generation=_value(last_sign_out))


def found(identity: Identity, entries: list[Entry | None]) -> Found:
    """Make sense of what was looked up."""
    secret, reused, lease, last_sign_out, *presented = entries
    generation = _value(last_sign_out)
    stored = None if secret is None else _decode_session(secret.value)
    # One of before the last sign-out is none, from the moment of that on.
    usable = (
        stored is not None
        and stored.identity == identity.description
        and (generation is None or stored.generation == _text(generation))
    )
    return Found(
        session=stored.session if stored is not None and usable else None,
        seconds=0.0 if secret is None else secret.seconds,
        value=_value(secret),
        generation=generation,
        reused=reused is not None or secret is not None,
        lease=_value(lease),
        presented_is_shared=any(presented),
    )


def _value(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.value


def _text(generation: bytes | None) -> str | None:
    return None if generation is None else generation.decode(errors="replace")


def deleted_meanwhile() -> SessionDeletedError:
    """What ends a call that was begun before the user's sessions were deleted."""
    return SessionDeletedError(
        "The user's sessions were deleted while this call was under way.",
        hint="Ask again only if the user has signed in again since.",
    )


def lease(identity: Identity, seen: Found, *, token: bytes, seconds: float) -> "Transaction":
    """Become the one who creates the next session, unless somebody is or a newer one is there."""
    name = f"lease:{identity.slot}"
    return Transaction(
        identity.group,
        {name: Entry(MaskedBytes(token), seconds)},
        {name: None, f"secret:{identity.slot}": seen.value, GENERATION: seen.generation},
    )


def lease_seconds(deadline: Deadline) -> float:
    """How long to keep others from creating: the call does not take longer, or is given up."""
    return deadline.at_most(LEASE).remaining() or LEASE


def end_of_lease(identity: Identity, *, token: bytes) -> "Transaction":
    """Let others create."""
    name = f"lease:{identity.slot}"
    return Transaction(identity.group, {name: None}, {name: token})


def pause(waits_done: int, *, random: Callable[[], float]) -> float:
    """Seconds to wait before looking again whether another worker has created the session."""
    longest = min(_FIRST_PAUSE * 1.5 ** min(waits_done, 60), _LONGEST_PAUSE)
    return longest * (1 - random() / 2)


class Transaction(NamedTuple):
    """What to commit to a store."""

    group: str
    changes: Mapping[str, Entry | None]
    when: Mapping[str, bytes | None]


class Created(NamedTuple):
    """A new session, and what its place in the store depends on."""

    session: ChatKitSessionResponse
    record: SessionRecord
    place: str
    """Where its record lies; names it in its user's group, too."""
    identity: Identity
    seconds: float
    """How long its secret works at least."""
    kept: float
    """How long it is known."""
    share: bool
    """Whether its secret is kept, for others to use."""


def publication(created: Created, *, generation: bytes | None) -> Transaction:
    """Make a session known to its user's group, unless a sign-out came in between."""
    identity = created.identity
    listed = Entry(MaskedBytes(created.session.id.encode()), created.kept, listed=True)
    changes: dict[str, Entry | None] = {f"session:{created.place}": listed}
    if created.share:
        changes[f"reused:{identity.slot}"] = Entry(MaskedBytes(b"1"), created.kept)
        changes[f"secret:{identity.slot}"] = None
    if created.share and created.seconds > 0:
        session = created.session
        value = MaskedBytes(_encode_session(identity, session, generation))
        changes[f"secret:{identity.slot}"] = Entry(value, created.seconds)
        changes[name_of_secret(session.client_secret)] = Entry(MaskedBytes(b"1"), created.seconds)
    return Transaction(identity.group, changes, {GENERATION: generation})


def sign_out(group: str, *, generation: bytes) -> Transaction:
    """Let nothing be kept of the user that was begun before now."""
    return Transaction(group, {GENERATION: Entry(MaskedBytes(generation), DAY)}, {})


def recording(place: str, record: SessionRecord, seconds: float) -> Transaction:
    """Keep what is known of a session."""
    told = {name: getattr(record, name) for name in _FIELDS_OF_A_RECORD}
    told["expires_at"] = record.expires_at.isoformat()
    entry = Entry(MaskedBytes(_JSON.encode(told).encode()), seconds)
    return Transaction(place, {RECORD: entry}, {})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a session."""

    record: SessionRecord
    kept: float
    """Seconds for which it is known."""

    @property
    def may_work(self) -> bool:
        """Whether its secret may still work."""
        return self.record.status not in {"cancelled", "expired"}


def session_ids(listed: Iterable[Entry | None], *, ended: bool) -> list[str]:
    """The sessions that a user's group lists, with or without those that have expired."""
    return [
        entry.value.decode(errors="replace")
        for entry in listed
        if entry is not None and (ended or entry.seconds > DAY)
    ]


def read_record(entry: Entry | None, session_id: str) -> Known | None:
    """What is known of that session; None where there is nothing that can be read."""
    if entry is None:
        return None
    try:
        record = _records().validate_json(entry.value)
    except ValidationError:
        return None
    readable = record.id == session_id and record.expires_at.tzinfo is not None
    return Known(record, entry.seconds) if readable else None


@cache  # made when first needed
def _records() -> TypeAdapter[SessionRecord]:
    return TypeAdapter(SessionRecord)


def taking_out(known: Known, secret: Entry | None) -> Transaction | None:
    """See to it that nobody is handed this session any more; None: nobody is."""
    record = known.record
    if secret is None or record.group is None:
        return None
    stored = _decode_session(secret.value)
    if stored is None or stored.session.id != record.id:
        return None
    name = f"secret:{record.slot}"
    return Transaction(record.group, {name: None}, {name: secret.value})


def works_for(session: ChatKitSessionResponse, *, asked_for: float, elapsed: float) -> float:
    """Seconds for which a new session's secret works at least, told by no clock but the API's own.

    Args:
        session: As the API answered it.
        asked_for: Seconds that were asked for, or that the API gives if none were.
        elapsed: Seconds since the request was sent, by this machine's monotonic clock.
    """
    return min(asked_for, _lasts(session, asked_for)) - elapsed


def known_for(session: ChatKitSessionResponse, *, asked_for: float) -> float:
    """Seconds for which a new session is known: a day longer than its secret can work."""
    return min(max(asked_for, _lasts(session, asked_for)), DAY) + DAY


def _lasts(session: ChatKitSessionResponse, asked_for: float) -> float:
    if session.answered_at is None:
        return asked_for
    return (session.expires_at - session.answered_at).total_seconds()


def _encode_session(
    identity: Identity, session: ChatKitSessionResponse, generation: bytes | None
) -> bytes:
    # Not by the models' own dump, which masks the secret. No variable holds it.
    return _JSON.encode(
        {
            "identity": identity.description,
            "session": _plain(session),
            "generation": _text(generation),
        }
    ).encode()


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, BaseModel):
        return value
    told = {name: getattr(value, name) for name in type(value).model_fields}
    # The workflow's state may be large, and confidential; who asks for the session knows it.
    return {
        name: _plain(field)
        for name, field in told.items()
        if field is not None and name != "state_variables"
    }


@lru_cache(maxsize=256)  # a page load asks for what the last one asked for
def _decode_session(value: bytes) -> _StoredSession | None:
    try:
        return _StoredSession.model_validate_json(value)
    except ValidationError:
        return None


class Health:
    """Whether a store is worth asking; an outage is logged once, when it begins.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._next_attempt: float | None = None

    def may_ask(self) -> bool:
        """Whether to ask; while the store is out, one call a second or so finds out if it is."""
        next_attempt = self._next_attempt
        if next_attempt is None:
            return True
        now = self._clock()
        if now < next_attempt:
            return False
        self._next_attempt = now + RETRY_STORE_AFTER
        return True

    def failed(self, error: SessionStoreError) -> None:
        """The store did not answer."""
        with self._lock.get():  # of many threads that fail at once, one tells
            begins = self._next_attempt is None
            self._next_attempt = self._clock() + RETRY_STORE_AFTER
        if begins:
            logger.warning("%s Until it does, sessions are created without it.", error.message)

    def answered(self) -> None:
        """The store answered."""
        if self._next_attempt is not None:
            self._next_attempt = None
            logger.info("The session store answers again.")
