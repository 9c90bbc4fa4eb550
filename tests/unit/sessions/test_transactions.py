"""What is committed to a store, and on which conditions."""

import dataclasses

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions import ChatKitSessionResponse
from chatkit_sessions._sessions.entries import (
    GENERATION,
    LEASE,
    RENEW_EVERY,
    Lease,
    Publication,
    StoredRecord,
    StoreSnapshot,
    acquire_lease,
    parse_snapshot,
    poll_delay,
    release_lease,
    remove_secret,
    renew_lease,
    snapshot_names,
)
from chatkit_sessions.stores import MemorySessionStore
from stored_sessions import IDENTITY, RECORD, RECORD_GROUP, SESSION, created, entry, stored
from support import session_json


class TestEvicting:
    known = StoredRecord(RECORD, 700.0)

    def test_removes_the_secret_if_it_is_still_that_one(self) -> None:
        secret = stored()

        transaction = remove_secret(self.known, secret)

        assert transaction is not None
        assert transaction.group == IDENTITY.group
        assert dict(transaction.changes) == {f"secret:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"secret:{IDENTITY.slot}": secret.value}

    def test_leaves_what_is_not_that_session(self) -> None:
        other = ChatKitSessionResponse.model_validate(session_json(id="cksess_other"))

        assert remove_secret(self.known, stored(other)) is None
        assert remove_secret(self.known, None) is None
        assert remove_secret(self.known, entry("nonsense")) is None

    def test_of_a_session_of_nobody_is_nothing(self) -> None:
        record = dataclasses.replace(RECORD, group=None)

        assert remove_secret(StoredRecord(record, 700.0), stored()) is None


class TestWaiting:
    @given(waits=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
    def test_pauses_are_short_and_vary(self, waits: int, random: float) -> None:
        assert 0.01 <= poll_delay(waits, took=0.0, random=lambda: random) <= 0.25

    def test_pauses_grow(self) -> None:
        pauses = [poll_delay(waits, took=0.0, random=lambda: 0.0) for waits in range(5)]

        assert pauses == sorted(set(pauses))

    def test_pauses_are_longer_where_looking_takes_long(self) -> None:
        def pause(took: float) -> float:
            return poll_delay(60, took=took, random=lambda: 0.0)

        assert pause(0.0) < pause(0.01) < pause(0.2) < LEASE
        assert pause(1.0) == pause(100.0) < LEASE, "a dead worker is noticed all the same"

    def test_a_lease_is_ended_only_by_who_has_it(self) -> None:
        """Whoever comes back after it has run out must not end another one's."""
        transaction = release_lease(IDENTITY, Lease(b"me"), failure=None)

        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"lease:{IDENTITY.slot}": b"me"}

    def test_a_lease_depends_on_nobody_having_been_quicker(self) -> None:
        seen = StoreSnapshot(value=b"old", generation=b"7")

        transaction = acquire_lease(IDENTITY, seen, Lease(b"me"))

        assert dict(transaction.when) == {
            f"lease:{IDENTITY.slot}": None,
            f"secret:{IDENTITY.slot}": b"old",
            GENERATION: b"7",
        }
        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": entry(b"me", LEASE)}

    def test_a_lease_is_renewed_only_by_who_has_it_and_in_good_time(self) -> None:
        transaction = renew_lease(IDENTITY, Lease(b"me"))

        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": entry(b"me", LEASE)}
        assert dict(transaction.when) == {f"lease:{IDENTITY.slot}": b"me"}
        assert RENEW_EVERY * 2 < LEASE

    def test_a_failure_is_left_where_the_lease_was(self) -> None:
        failure = entry("failure", 3.0)

        transaction = release_lease(IDENTITY, Lease(b"me"), failure=failure)

        assert transaction.changes[f"failure:{IDENTITY.slot}"] == failure
        assert transaction.changes[f"lease:{IDENTITY.slot}"] is None


class TestPublishing:
    lease = Lease(b"me", clock_offset=5_000.0)
    first = StoreSnapshot(generation=b"1", value=b"old")
    attempt = Publication(created(works_until=700.0), first, b"1", lease)

    def test_depends_on_the_lease_and_ends_it(self) -> None:
        transaction = self.attempt.transaction(100.0)

        lease = f"lease:{IDENTITY.slot}"
        assert dict(transaction.when) == {lease: b"me", GENERATION: b"1"}
        assert transaction.changes[lease] is None

    @given(
        lifetime=st.floats(-10, 600),
        committed_after=st.floats(0, 1_000),
        offset=st.floats(-1e6, 1e6),
        read_after=st.floats(0, 1_000),
    )
    def test_late_prolongs_nothing(
        self, lifetime: float, committed_after: float, offset: float, read_after: float
    ) -> None:
        """However late the store makes the change, and answers, nobody is given an expired one."""
        now = 1000.0
        clock = now
        store = MemorySessionStore(clock=lambda: clock + offset)
        lease = Lease(b"me", clock_offset=offset)
        store.commit(IDENTITY.group, {f"lease:{IDENTITY.slot}": entry(b"me", 9_999.0)}, when={})
        attempt = Publication(created(works_until=now + lifetime), StoreSnapshot(), None, lease)
        group, changes, when = attempt.transaction(now)

        clock += committed_after
        assert store.commit(group, changes, when=when)
        asked_at = clock
        clock += read_after
        entries = store.get(group, snapshot_names(IDENTITY))
        snapshot = parse_snapshot(IDENTITY, entries, asked_at=asked_at)

        if snapshot.usable(0.0, now=clock) is not None:
            assert clock < now + lifetime + 1e-6

    def test_is_tried_again_where_the_lease_has_ended_and_nobody_has_it(self) -> None:
        found = StoreSnapshot(generation=b"1", value=b"old")

        again = self.attempt.after_conflict(found)

        assert again is not None
        assert again.created.share
        assert again.transaction(100.0).when[f"lease:{IDENTITY.slot}"] is None

    @pytest.mark.parametrize(
        "found",
        [
            StoreSnapshot(generation=b"1", value=b"old", lease=b"other"),
            StoreSnapshot(generation=b"1", value=b"other"),
        ],
    )
    def test_leaves_the_secret_of_whoever_was_quicker(self, found: StoreSnapshot) -> None:
        again = self.attempt.after_conflict(found)

        assert again is not None
        assert not again.is_deleted
        assert [*again.transaction(100.0).changes] == [f"session:{RECORD_GROUP}"]

    def test_that_was_repeated_is_done(self) -> None:
        found = StoreSnapshot(generation=b"1", session=SESSION, value=b"new")

        assert self.attempt.after_conflict(found) is None

    def test_is_only_listed_after_a_sign_out(self) -> None:
        found = StoreSnapshot(generation=b"2", lease=b"me")

        again = self.attempt.after_conflict(found)

        assert again is not None
        assert again.is_deleted
        transaction = again.transaction(100.0)
        assert dict(transaction.when) == {GENERATION: b"2"}
        assert [*transaction.changes] == [f"session:{RECORD_GROUP}"]
