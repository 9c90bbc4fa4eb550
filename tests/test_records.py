"""What is remembered of sessions, for how long, and what makes room."""

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatkit_sessions._records import KEPT_AFTER_EXPIRY, MemoryRecords, SessionRecord

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SCOPE = "org/proj"


def record(name: str, *, expires_in: float = 600, status: str = "active") -> SessionRecord:
    return SessionRecord(
        id=name,
        user="user_1",
        workflow_id="wf_1",
        workflow_version=None,
        expires_at=NOW + timedelta(seconds=expires_in),
        status=status,
    )


def known(records: MemoryRecords, *names: str, now: datetime = NOW) -> set[str]:
    return {name for name in names if records.get(SCOPE, name, now=now) is not None}


def test_a_record_is_kept_and_returned() -> None:
    records = MemoryRecords()
    records.put(SCOPE, record("a"), now=NOW)

    assert records.get(SCOPE, "a", now=NOW) == record("a")
    assert records.get(SCOPE, "b", now=NOW) is None


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record("a"), "status", "cancelled")  # noqa: B010 -- the type checker knows better


def test_a_record_replaces_the_earlier_one_of_the_same_session() -> None:
    records = MemoryRecords()
    records.put(SCOPE, record("a"), now=NOW)
    records.put(SCOPE, record("a", status="cancelled"), now=NOW)

    found = records.get(SCOPE, "a", now=NOW)

    assert found is not None
    assert found.status == "cancelled"


def test_a_record_can_be_forgotten_more_than_once() -> None:
    records = MemoryRecords()
    records.put(SCOPE, record("a"), now=NOW)

    records.delete(SCOPE, "a")
    records.delete(SCOPE, "a")

    assert records.get(SCOPE, "a", now=NOW) is None


def test_scopes_do_not_see_each_other() -> None:
    records = MemoryRecords()
    records.put("one", record("a"), now=NOW)
    records.put("two", record("a", status="cancelled"), now=NOW)

    records.delete("one", "a")

    assert records.get("one", "a", now=NOW) is None
    assert records.get("two", "a", now=NOW) == record("a", status="cancelled")
    assert records.get("three", "a", now=NOW) is None


@pytest.mark.parametrize(
    ("since_expiry", "kept"),
    [
        (timedelta(0), True),
        (timedelta(hours=24) - timedelta(microseconds=1), True),
        (timedelta(hours=24), False),
        (timedelta(days=30), False),
    ],
    ids=["at-expiry", "just-within-a-day", "a-day", "a-month"],
)
def test_a_record_is_gone_a_day_after_its_session_expired(
    since_expiry: timedelta, *, kept: bool
) -> None:
    records = MemoryRecords()
    records.put(SCOPE, record("a", expires_in=600), now=NOW)

    found = records.get(SCOPE, "a", now=NOW + timedelta(seconds=600) + since_expiry)

    assert (found is not None) is kept


def test_a_record_that_is_gone_does_not_come_back_with_an_earlier_clock() -> None:
    records = MemoryRecords()
    records.put(SCOPE, record("a", expires_in=0), now=NOW)

    assert records.get(SCOPE, "a", now=NOW + KEPT_AFTER_EXPIRY) is None
    assert records.get(SCOPE, "a", now=NOW) is None


class TestBound:
    def test_the_oldest_makes_room(self) -> None:
        records = MemoryRecords(max_records=2)
        for name in "abc":
            records.put(SCOPE, record(name), now=NOW)

        assert known(records, "a", "b", "c") == {"b", "c"}

    def test_expired_sessions_make_room_before_the_oldest(self) -> None:
        records = MemoryRecords(max_records=3)
        records.put(SCOPE, record("oldest", expires_in=600), now=NOW)
        records.put(SCOPE, record("short", expires_in=10), now=NOW)
        records.put(SCOPE, record("newest", expires_in=600), now=NOW)

        records.put(SCOPE, record("another"), now=NOW + timedelta(seconds=10))

        assert known(records, "oldest", "short", "newest", "another") == {
            "oldest",
            "newest",
            "another",
        }

    def test_expired_sessions_are_found_again_and_again(self) -> None:
        records = MemoryRecords(max_records=2)
        records.put(SCOPE, record("old", expires_in=10_000), now=NOW)
        for n in range(5):
            now = NOW + timedelta(seconds=100 * n)
            records.put(SCOPE, record(f"short-{n}", expires_in=100 * n + 50), now=now)

        assert known(records, "old", "short-3", "short-4") == {"old", "short-4"}

    def test_a_replaced_record_counts_once(self) -> None:
        records = MemoryRecords(max_records=2)
        records.put(SCOPE, record("a"), now=NOW)
        records.put(SCOPE, record("b"), now=NOW)
        records.put(SCOPE, record("b", status="cancelled"), now=NOW)

        assert known(records, "a", "b") == {"a", "b"}

    def test_a_replaced_record_is_a_new_one(self) -> None:
        records = MemoryRecords(max_records=2)
        for name in ("a", "b", "a", "c"):
            records.put(SCOPE, record(name), now=NOW)

        assert known(records, "a", "b", "c") == {"a", "c"}

    def test_scopes_share_the_room(self) -> None:
        records = MemoryRecords(max_records=1)
        records.put("one", record("a"), now=NOW)
        records.put("two", record("b"), now=NOW)

        assert records.get("one", "a", now=NOW) is None

    def test_the_usual_room_is_for_ten_thousand(self) -> None:
        records = MemoryRecords()
        for n in range(10_001):
            records.put(SCOPE, record(str(n)), now=NOW)

        assert known(records, "0", "1", "10000") == {"1", "10000"}

    @pytest.mark.parametrize("room", [0, -1])
    def test_there_is_room_for_one_or_it_says_so(self, room: int) -> None:
        with pytest.raises(ValueError, match="max_records"):
            MemoryRecords(max_records=room)


def in_threads(number: int, work: Callable[[int], None]) -> list[BaseException]:
    failures: list[BaseException] = []
    start = threading.Barrier(number)

    def run(n: int) -> None:
        start.wait()
        try:
            work(n)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the test wants to know
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_sixty_four_threads_do_not_disturb_each_other() -> None:
    records = MemoryRecords(max_records=64 * 40)

    def work(n: int) -> None:
        for i in range(40):
            name = f"{n}-{i}"
            records.put(SCOPE, record(name), now=NOW)
            assert records.get(SCOPE, name, now=NOW) is not None
            if i % 2:
                records.delete(SCOPE, name)

    assert in_threads(64, work) == []
    kept = {f"{n}-{i}" for n in range(64) for i in range(0, 40, 2)}
    assert known(records, *kept) == kept


def test_sixty_four_threads_never_overfill_it() -> None:
    records = MemoryRecords(max_records=10)

    def work(n: int) -> None:
        for i in range(40):
            expires_in = -1 if i % 3 else 600
            records.put(SCOPE, record(f"{n}-{i}", expires_in=expires_in), now=NOW)
            records.get(SCOPE, f"{n}-{i}", now=NOW + timedelta(days=i))

    assert in_threads(64, work) == []
    assert len(known(records, *(f"{n}-{i}" for n in range(64) for i in range(40)))) <= 10


class AgainstANaiveModel(RuleBasedStateMachine):
    """The same calls on the records and on a plain list, with a clock that only goes forward."""

    room = 3
    names = st.sampled_from("abcde")
    scopes = st.sampled_from(["one", "two"])

    def __init__(self) -> None:
        super().__init__()
        self.records = MemoryRecords(max_records=self.room)
        self.now = NOW
        self.model: list[tuple[str, SessionRecord]] = []  # oldest first

    def is_gone(self, kept: SessionRecord) -> bool:
        return self.now >= kept.expires_at + timedelta(hours=24)

    @rule(scope=scopes, name=names, lasts=st.integers(-100, 700))
    def put(self, scope: str, name: str, lasts: int) -> None:
        since_start = (self.now - NOW).total_seconds()
        new = record(name, expires_in=since_start + lasts)
        self.records.put(scope, new, now=self.now)

        others = [(s, kept) for s, kept in self.model if (s, kept.id) != (scope, name)]
        if len(others) >= self.room:
            others = [(s, kept) for s, kept in others if kept.expires_at > self.now]
        self.model = [*others, (scope, new)][-self.room :]

    @rule(scope=scopes, name=names)
    def delete(self, scope: str, name: str) -> None:
        self.records.delete(scope, name)

        self.model = [(s, kept) for s, kept in self.model if (s, kept.id) != (scope, name)]

    @rule(seconds=st.one_of(st.integers(0, 900), st.just(86_400)))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(scope=scopes, name=names)
    def get(self, scope: str, name: str) -> None:
        expected = next((kept for s, kept in self.model if (s, kept.id) == (scope, name)), None)
        if expected is not None and self.is_gone(expected):
            self.model.remove((scope, expected))
            expected = None

        assert self.records.get(scope, name, now=self.now) == expected

    @invariant()
    def it_is_never_overfull(self) -> None:
        assert len(self.records._records) == len(self.model) <= self.room


TestAgainstANaiveModel = AgainstANaiveModel.TestCase
TestAgainstANaiveModel.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
