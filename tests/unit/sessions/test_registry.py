"""What is kept of sessions that a store does not learn of at once."""

import asyncio
import threading
from collections.abc import Mapping, Sequence

import pytest

from chatkit_sessions import InternalServerError, SessionStoreError
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import ThreadEvent, run_blocking
from chatkit_sessions._sessions.entries import Lease, StoreSnapshot
from chatkit_sessions._sessions.registry import Registry
from chatkit_sessions._sessions.store_access import AT_ONCE, StoreExecutor
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.stores.base import Transaction
from stored_sessions import IDENTITY, SESSION, created


def clock() -> float:
    return 100.0


NO_LIMIT = Deadline(clock, None)
FIRST = StoreSnapshot()


class Store(MemorySessionStore):
    """Fails at some commits, or does something else instead."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        super().__init__(namespace="shop", clock=clock)
        self.outcomes = list(outcomes)
        self.conflicts = 0

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        if self.conflicts:
            self.conflicts -= 1
            return False
        return super().commit(group, changes, when=when)


OUT: BaseException | None = SessionStoreError("The session store does not respond.")


def kept(registry: Registry) -> list[str]:
    return [*registry._state.unpublished]


def test_a_session_whose_call_is_cancelled_is_kept() -> None:
    registry = Registry(Store(KeyboardInterrupt()), clock, ThreadEvent)

    with pytest.raises(KeyboardInterrupt):
        run_blocking(registry.publish, created(), NO_LIMIT, snapshot=FIRST)

    assert kept(registry) == [SESSION.id]
    assert run_blocking(registry.publish_unpublished, NO_LIMIT) == []
    assert kept(registry) == []


def test_a_session_that_is_recorded_and_not_listed_is_kept() -> None:
    registry = Registry(Store(None, OUT, OUT), clock, ThreadEvent)

    assert run_blocking(registry.publish, created(), NO_LIMIT, snapshot=FIRST)

    assert kept(registry) == [SESSION.id]


def test_what_cannot_be_published_stays() -> None:
    store = Store()
    registry = Registry(store, clock, ThreadEvent)
    registry._state.defer_publication(created(), FIRST)
    store.outcomes = [OUT, OUT]

    assert run_blocking(registry.publish_unpublished, NO_LIMIT) == []

    assert kept(registry) == [SESSION.id]
    assert not registry.has_unpublished, "not while the store is out"


def test_what_another_call_publishes_is_left_to_it() -> None:
    class Taken(dict[object, object]):
        def pop(self, *_: object) -> None:
            return None

    registry = Registry(Store(), clock, ThreadEvent)
    vars(registry._state)["unpublished"] = Taken({SESSION.id: (created(), FIRST)})

    assert run_blocking(registry.publish_unpublished, NO_LIMIT) == []


def test_requests_are_counted_without_the_store_even_if_others_count_too() -> None:
    registry = Registry(Store(OUT, OUT), clock, ThreadEvent)
    stand_in = Store()
    stand_in.conflicts = 2
    registry._state.stand_in = stand_in

    assert run_blocking(registry.admit, IDENTITY.group, NO_LIMIT, limit=1) == 0
    assert stand_in.conflicts == 0


def test_requests_are_counted_without_a_store_that_takes_no_writes() -> None:
    store = Store(OUT, OUT, OUT)
    registry = Registry(store, clock, ThreadEvent)
    registry.requires_store = True  # for reading, which works

    assert run_blocking(registry.admit, IDENTITY.group, NO_LIMIT, limit=1) == 0
    assert store.outcomes == [OUT], "it is not asked again"


def test_a_lease_is_renewed_and_released() -> None:
    store, lease = Store(), Lease(b"me")
    registry = Registry(store, clock, ThreadEvent)
    assert run_blocking(registry.acquire_lease, IDENTITY, FIRST, lease, NO_LIMIT) is None

    run_blocking(registry.renew_lease, IDENTITY, lease)
    assert run_blocking(registry.look_up, IDENTITY, NO_LIMIT).lease == b"me"
    run_blocking(
        registry.release_lease, IDENTITY, lease, error=InternalServerError("", status_code=500)
    )

    found = run_blocking(registry.look_up, IDENTITY, NO_LIMIT)
    assert found.lease is None
    assert found.failure is not None


def test_a_lease_is_renewed_and_its_session_published_past_a_crowd_that_polls_for_it() -> None:
    class Crowded:
        """A store in which every look-up takes until the end of the test."""

        namespace = "shop"
        timeout = 60.0

        def __init__(self) -> None:
            self.looks = 0
            self.committed: list[str] = []
            self.end = asyncio.Event()

        async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
            del group
            self.looks += 1
            await self.end.wait()
            return [None for _ in names]

        async def names(self, group: str) -> list[str]:
            return [group]

        async def commit(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
        ) -> bool:
            del group, when
            self.committed += changes
            return True

    async def main() -> None:
        store, lease = Crowded(), Lease(b"me")
        registry = Registry(store, clock, ThreadEvent)
        crowd = [
            asyncio.create_task(registry.look_up(IDENTITY, NO_LIMIT)) for _ in range(2 * AT_ONCE)
        ]
        await asyncio.sleep(0)
        assert store.looks == AT_ONCE, "the others wait for their turn"

        await registry.renew_lease(IDENTITY, lease)
        assert await registry.publish(created(), NO_LIMIT, snapshot=FIRST, lease=lease)
        await registry.release_lease(IDENTITY, lease, error=None)

        assert store.looks == AT_ONCE
        assert f"lease:{IDENTITY.slot}" in store.committed
        assert f"secret:{IDENTITY.slot}" in store.committed
        store.end.set()
        await asyncio.gather(*crowd)

    asyncio.run(main())


def test_a_crowd_of_tasks_that_waits_for_its_turn_learns_of_an_outage_from_the_first() -> None:
    class Silent:
        namespace = "shop"
        timeout = 0.01
        looks = 0

        async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
            self.looks += 1
            await asyncio.Event().wait()
            raise AssertionError(group, names)

        async def names(self, group: str) -> list[str]:
            return [group]

        async def commit(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
        ) -> bool:
            return bool(group and changes and when)

    async def main() -> None:
        store = Silent()
        registry = Registry(store, clock, ThreadEvent)
        crowd = [registry.look_up(IDENTITY, NO_LIMIT) for _ in range(10 * AT_ONCE)]

        assert {found.reachable for found in await asyncio.gather(*crowd)} == {False}
        assert store.looks <= 3 * AT_ONCE

    asyncio.run(main())


def test_a_crowd_of_threads_that_waits_for_its_turn_learns_of_an_outage_from_the_first() -> None:
    end = threading.Event()

    class Silent(Store):
        timeout = 0.05
        looks = 0

        def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
            self.looks += 1
            assert end.wait(60)
            return super().get(group, names)

    store, found = Silent(), list[StoreSnapshot]()
    registry = Registry(store, clock, ThreadEvent)
    vars(registry._state)["executor"] = StoreExecutor(store, 4)
    crowd = [
        threading.Thread(
            target=lambda: found.append(run_blocking(registry.look_up, IDENTITY, NO_LIMIT))
        )
        for _ in range(80)
    ]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join(60)

    assert [each.reachable for each in found] == 80 * [False]
    assert store.looks <= 20
    end.set()


def test_a_probe_of_an_outage_asks_the_store() -> None:
    store = Store(OUT, OUT)
    registry = Registry(store, clock, ThreadEvent)
    assert run_blocking(registry.admit, IDENTITY.group, NO_LIMIT, limit=1) == 0, "it is out now"

    change = Transaction(IDENTITY.group, {}, {})
    assert run_blocking(registry._access.commit, change, NO_LIMIT)

    assert not registry._state.circuit_breaker.is_open


def test_a_sign_out_of_an_outage_is_seen_by_what_could_not_be_published() -> None:
    registry = Registry(Store(OUT, OUT), clock, ThreadEvent)
    assert run_blocking(registry.admit, IDENTITY.group, NO_LIMIT, limit=1) == 0, "it is out now"
    registry.sign_out_without_store(IDENTITY.group, generation=b"1")

    assert not run_blocking(registry.publish, created(), NO_LIMIT, snapshot=FIRST)
    assert kept(registry) == []


def test_a_call_without_time_left_is_no_outage() -> None:
    class Bounded(Store):
        timeout = 1.0

    registry = Registry(Bounded(), clock, ThreadEvent)

    assert run_blocking(registry.publish, created(), Deadline(clock, clock()), snapshot=FIRST)

    assert kept(registry) == [SESSION.id]
    assert registry.has_unpublished
