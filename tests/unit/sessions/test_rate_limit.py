"""How requests are counted in a store that knows nothing of them."""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import cast

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions import ChatKitClient
from chatkit_sessions._client.flow import Admission
from chatkit_sessions._concurrency.run import run_blocking
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import REQUESTS, WINDOW, count_request
from chatkit_sessions.stores import Entry, MemorySessionStore
from support import Connect, Script, Time, ok
from workers import AsyncFailingStore, Backend, FailingStore, inner


class Store:
    """One entry, by its own clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._entry: Entry | None = None
        self._put_at = 0.0

    def request(self, limit: int) -> float:
        entry = self._entry
        if entry is not None:
            left = entry.seconds - (self.now - self._put_at)
            entry = Entry(entry.value, left) if left > 0 else None
        counted = count_request(entry, limit=limit)
        if not isinstance(counted, Entry):
            return counted
        self._entry, self._put_at = counted, self.now
        return 0.0


@given(st.integers(1, 5), st.lists(st.integers(0, 90), max_size=60))
def test_no_minute_has_more_requests_than_the_limit(limit: int, waits: list[int]) -> None:
    store, admitted = Store(), list[float]()

    for wait in waits:
        store.now += wait
        seconds = store.request(limit)

        in_the_last_minute = [moment for moment in admitted if store.now - moment < WINDOW]
        if seconds == 0:
            assert len(in_the_last_minute) < limit
            admitted.append(store.now)
        else:
            assert len(in_the_last_minute) == limit
            assert seconds == pytest.approx(WINDOW - (store.now - in_the_last_minute[0]), abs=0.1)


@given(st.integers(1, 5), st.lists(st.integers(0, 90), max_size=60))
def test_whoever_waits_as_long_as_told_is_admitted(limit: int, waits: list[int]) -> None:
    store = Store()

    for wait in waits:
        store.now += wait
        seconds = store.request(limit)
        if seconds:
            store.now += seconds + 0.1
            assert store.request(limit) == 0


@given(st.binary(max_size=40), st.floats(0.001, 1000), st.integers(1, 3))
def test_whatever_lies_there_the_answer_makes_sense(
    value: bytes, seconds: float, limit: int
) -> None:
    counted = count_request(Entry(MaskedBytes(value), seconds), limit=limit)

    if isinstance(counted, Entry):
        assert counted.seconds == WINDOW
        assert len(counted.value.split()) <= limit
    else:
        assert 0 < counted <= WINDOW


def test_a_lower_limit_counts_what_was_admitted_before() -> None:
    store = Store()
    for _ in range(3):
        store.request(3)
        store.now += 10

    assert store.request(2) == pytest.approx(40)


def admit(client: ChatKitClient, *, limit: int) -> object:
    """Count one more request, as the endpoint does; to be awaited of an async client."""
    kind: object = client  # the async client has the same face here
    if isinstance(kind, ChatKitClient):
        return run_blocking(client._admit, "ada", limit=limit).wait
    admission: object = client._admit("ada", limit=limit)
    return admission.wait if isinstance(admission, Admission) else wait_of(admission)


async def wait_of(admission: object) -> float:
    return (await cast("Awaitable[Admission]", admission)).wait


def test_what_is_counted_at_once_counts_in_every_worker(backend: Backend) -> None:
    workers = [inner(backend.worker()) for _ in range(3)]

    calls = [partial(admit, worker, limit=4) for worker in workers * 3]
    seconds = backend.at_once(*calls)

    assert seconds.count(0.0) == 4
    assert all(isinstance(each, float) and 59 < each <= 60 for each in seconds if each != 0.0)


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
