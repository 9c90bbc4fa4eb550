"""How requests are counted in a store that knows nothing of them."""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions import ChatKitClient
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import (
    REQUESTS,
    SPAN,
    WINDOW,
    RequestCounts,
    count_request,
    uncount_request,
)
from chatkit_sessions.stores import Entry, MemorySessionStore
from support import Blocking, Connect, Script, Time, ok
from workers import AsyncFailingStore, Backend, FailingStore, inner

if TYPE_CHECKING:
    from chatkit_sessions._client.sessions import Admission


class Store:
    """One entry, by its own clock, which it may show."""

    def __init__(self, *, shows_clock: bool = True, delay: float = 0.0) -> None:
        self.now = 1_000.0
        self.entry: Entry | None = None
        self.ends = 0.0
        self.shows_clock = shows_clock
        self.delay = delay
        """Seconds between reading and committing."""

    def request(self, limit: int) -> float:
        entry = self.entry
        if entry is not None:
            left = self.ends - self.now
            shown = self.ends if self.shows_clock else None
            entry = Entry(entry.value, left, expires_at=shown) if left > 0 else None
        counted = count_request(entry, limit=limit)
        if not isinstance(counted, Entry):
            return counted
        self.now += self.delay
        self.entry = counted
        at = counted.expires_at
        self.ends = self.now + counted.seconds if at is None else at
        return 0.0


WAITS = st.lists(st.one_of(st.floats(0, 2), st.floats(0, 90)), max_size=80)
EXACT = 0.001
"""Of the seconds that are stored."""


@given(limit=st.integers(1, 8), waits=WAITS, shows_clock=st.booleans())
def test_no_minute_has_more_requests_than_the_limit_and_each_counts_a_second_longer_at_most(
    *, limit: int, waits: list[float], shows_clock: bool
) -> None:
    store, admitted = Store(shows_clock=shows_clock), list[float]()

    for wait in waits:
        store.now += wait
        seconds = store.request(limit)

        def in_the_last(window: float) -> int:
            return sum(store.now - moment < window for moment in admitted)

        if seconds == 0:
            assert in_the_last(WINDOW - EXACT) < limit
            admitted.append(store.now)
        else:
            assert in_the_last(WINDOW + SPAN + EXACT) >= limit
            assert 0 < seconds <= WINDOW + SPAN


@given(limit=st.integers(1, 8), waits=WAITS, shows_clock=st.booleans())
def test_whoever_waits_as_long_as_told_is_admitted(
    *, limit: int, waits: list[float], shows_clock: bool
) -> None:
    store = Store(shows_clock=shows_clock)

    for wait in waits:
        store.now += wait
        seconds = store.request(limit)
        if seconds:
            store.now += seconds + EXACT
            assert store.request(limit) == 0


@pytest.mark.parametrize("limit", [10_000, 1_000_000])
def test_the_space_does_not_grow_with_the_requests(limit: int) -> None:
    store = Store()

    for _ in range(10_000):
        store.now += 0.02
        store.request(limit)

    assert store.entry is not None
    assert len(store.entry.value.split()) <= 61


def test_time_between_reading_and_committing_does_not_make_requests_count_longer() -> None:
    store, admitted = Store(delay=0.4), list[float]()

    for _ in range(1_000):
        store.now += 0.1
        assert store.request(1_000) == 0
        admitted.append(store.now)
        assert store.entry is not None
        counted = sum(int(pair.split(b"*")[1]) for pair in store.entry.value.split())
        assert counted <= sum(store.now - each < WINDOW + SPAN + store.delay for each in admitted)


def test_an_entry_that_counts_each_request_by_itself_is_still_counted() -> None:
    """As 0.10.0 wrote it."""
    entry = Entry(MaskedBytes(b"0.000 1.204 30.500"), 59.0)

    assert not isinstance(count_request(entry, limit=3), Entry)
    assert isinstance(count_request(entry, limit=4), Entry)


def test_a_request_is_taken_out_again() -> None:
    store = Store()
    store.request(2)
    store.request(2)
    assert store.entry is not None

    store.entry = uncount_request(store.entry)

    assert store.request(2) == 0
    assert store.request(2) > 0
    nothing = uncount_request(Entry(MaskedBytes(b"0*1"), 61))
    assert nothing.value == uncount_request(nothing).value == b""


@given(st.binary(max_size=40), st.floats(0.001, 1000), st.integers(1, 3))
def test_whatever_lies_there_the_answer_makes_sense(
    value: bytes, seconds: float, limit: int
) -> None:
    counted = count_request(Entry(MaskedBytes(value), seconds), limit=limit)

    if isinstance(counted, Entry):
        assert 0 < counted.seconds <= max(seconds, WINDOW + SPAN)
    else:
        assert 0 < counted <= WINDOW + SPAN


def test_a_lower_limit_counts_what_was_admitted_before() -> None:
    store = Store()
    for _ in range(3):
        store.request(3)
        store.now += 10

    assert store.request(2) == pytest.approx(41)


def admit(client: ChatKitClient, *, limit: int) -> object:
    """Count one more request, as the endpoint does; to be awaited of an async client."""
    kind: object = client  # the async client has the same face here
    if isinstance(kind, ChatKitClient):
        return run_blocking(client._sessions.admit, "ada", RequestCounts(limit)).wait
    admission = client._sessions.admit("ada", RequestCounts(limit))
    return kind._runner.run(admission).wait if isinstance(kind, Blocking) else wait_of(admission)


async def wait_of(admission: object) -> float:
    return (await cast("Awaitable[Admission]", admission)).wait


def test_what_is_counted_at_once_counts_in_every_worker(backend: Backend) -> None:
    workers = [inner(backend.worker()) for _ in range(3)]

    calls = [partial(admit, worker, limit=4) for worker in workers * 3]
    seconds = backend.at_once(*calls)

    assert seconds.count(0.0) == 4
    assert all(isinstance(each, float) and 0 < each <= 61 for each in seconds if each != 0.0)


class OvertakenStore(FailingStore):
    """A store in which somebody else counts between a look and a change, some times."""

    others = 1

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        store = self.use()
        if self.others:
            self.others -= 1
            counted = count_request(store.get(group, [REQUESTS])[0], limit=10)
            assert isinstance(counted, Entry)
            assert store.commit(group, {REQUESTS: counted}, when={})
        return store.commit(group, changes, when=when)


def store_of(connect: Connect, store: FailingStore) -> object:
    return store if connect.kind == "sync" else AsyncFailingStore(store)


@pytest.mark.parametrize(("others", "admitted"), [(1, True), (2, True), (3, False)])
def test_a_request_that_is_overtaken_is_counted_all_the_same(
    connect: Connect, time: Time, *, others: int, admitted: bool
) -> None:
    store = OvertakenStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    store.others = others
    client = connect(Script([ok()]), store=store_of(connect, store))

    seconds = cast("float", admit(client, limit=3))

    assert (seconds == 0) == admitted
    then = [cast("float", admit(client, limit=3)) == 0 for _ in range(3)]
    assert then.count(True) == 3 - others - admitted


@pytest.mark.parametrize("use", [0, 1])
def test_a_store_that_fails_once_is_asked_again(connect: Connect, time: Time, use: int) -> None:
    store = FailingStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    store.fails_at = use
    client = connect(Script([ok()]), store=store_of(connect, store))

    assert [admit(client, limit=1) == 0, admit(client, limit=1) == 0] == [True, False]


def test_a_process_counts_for_itself_while_the_store_is_out(connect: Connect, time: Time) -> None:
    store = FailingStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    store.out = True
    client = connect(Script([ok()]), store=store_of(connect, store))

    assert [admit(client, limit=2) == 0 for _ in range(4)] == [True, True, False, False]


def test_a_process_counts_for_itself_where_the_store_cannot_be_changed(
    connect: Connect, time: Time
) -> None:
    """As a Redis that is full, or a replica."""
    store = FailingStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    store.is_full = True
    client = connect(Script([ok()]), store=store_of(connect, store))

    assert [admit(client, limit=2) == 0 for _ in range(4)] == [True, True, False, False]
