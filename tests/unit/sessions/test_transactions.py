"""What is committed to a store, and on which conditions."""

import dataclasses

from hypothesis import given, strategies as st

from chatkit_sessions import ChatKitSessionResponse
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._sessions.records import StoredRecord
from chatkit_sessions._sessions.snapshot import GENERATION, StoreSnapshot
from chatkit_sessions._sessions.transactions import (
    LEASE,
    acquire_lease,
    evict,
    lease_ttl,
    poll_delay,
    release_lease,
)
from stored_sessions import IDENTITY, RECORD, entry, stored
from support import session_json


class TestEvicting:
    known = StoredRecord(RECORD, 700.0)

    def test_removes_the_secret_if_it_is_still_that_one(self) -> None:
        secret = stored()

        transaction = evict(self.known, secret)

        assert transaction is not None
        assert transaction.group == IDENTITY.group
        assert dict(transaction.changes) == {f"secret:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"secret:{IDENTITY.slot}": secret.value}

    def test_leaves_what_is_not_that_session(self) -> None:
        other = ChatKitSessionResponse.model_validate(session_json(id="cksess_other"))

        assert evict(self.known, stored(other)) is None
        assert evict(self.known, None) is None
        assert evict(self.known, entry("nonsense")) is None

    def test_of_a_session_of_nobody_is_nothing(self) -> None:
        record = dataclasses.replace(RECORD, group=None)

        assert evict(StoredRecord(record, 700.0), stored()) is None


class TestWaiting:
    @given(waits=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
    def test_pauses_are_short_and_vary(self, waits: int, random: float) -> None:
        assert 0.01 <= poll_delay(waits, random=lambda: random) <= 0.25

    def test_pauses_grow(self) -> None:
        pauses = [poll_delay(waits, random=lambda: 0.0) for waits in range(5)]

        assert pauses == sorted(set(pauses))

    def test_a_lease_ends_with_the_call(self) -> None:
        def clock() -> float:
            return 100.0

        assert lease_ttl(Deadline.after(3.0, clock)) == 3.0
        assert lease_ttl(Deadline.after(None, clock)) == LEASE
        assert lease_ttl(Deadline.after(60.0, clock)) == LEASE
        assert lease_ttl(Deadline(clock, 100.0)) == LEASE

    def test_a_lease_is_ended_only_by_who_has_it(self) -> None:
        """Whoever comes back after it has run out must not end another one's."""
        transaction = release_lease(IDENTITY, token=b"me")

        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"lease:{IDENTITY.slot}": b"me"}

    def test_a_lease_depends_on_nobody_having_been_quicker(self) -> None:
        seen = StoreSnapshot(value=b"old", generation=b"7")

        transaction = acquire_lease(IDENTITY, seen, token=b"me", seconds=9.0)

        assert dict(transaction.when) == {
            f"lease:{IDENTITY.slot}": None,
            f"secret:{IDENTITY.slot}": b"old",
            GENERATION: b"7",
        }
        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": entry(b"me", 9.0)}
