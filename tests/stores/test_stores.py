"""What every store does: entries that live for a time and change all at once, or not at all."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal, TypeAlias, cast, get_args

import pytest
import redis
import redis.asyncio
from hypothesis import example, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from chatkit_sessions import SessionStoreError
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.stores import AsyncSessionStore, Entry, MemorySessionStore, SessionStore
from chatkit_sessions.stores.memory import Evictions
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from chatkit_sessions.testing import FakeClock
from redis_server import RedisServer, execute
from support import Kind, Time
from troubled_redis import announce, troubled

StoreKind: TypeAlias = Literal["memory", "redis", "async redis"]
KINDS: tuple[StoreKind, ...] = get_args(StoreKind)
NAMES = ("a", "b", "c")


class BlockingStore:
    """An asynchronous store with the face of a synchronous one."""

    def __init__(self, store: AsyncSessionStore, runner: asyncio.Runner) -> None:
        self._store = store
        self._runner = runner

    @property
    def namespace(self) -> str:
        return self._store.namespace

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return self._runner.run(self._store.get(group, names))

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        return self._runner.run(cast("AsyncRedisSessionStore", self._store).get_many(entries))

    def names(self, group: str) -> list[str]:
        return self._runner.run(self._store.names(group))

    def now(self, group: str) -> float:
        return self._runner.run(cast("AsyncRedisSessionStore", self._store).now(group))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return self._runner.run(self._store.commit(group, changes, when=when))


def open_redis(kind: StoreKind, url: str, stack: ExitStack) -> SessionStore:
    if kind == "redis":
        return stack.enter_context(RedisSessionStore.from_url(url, namespace="test"))
    runner = stack.enter_context(asyncio.Runner())
    return BlockingStore(AsyncRedisSessionStore.from_url(url, namespace="test"), runner)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[SessionStore]:
    kind = cast("StoreKind", request.param)
    if kind == "memory":
        yield MemorySessionStore(namespace="test")
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with ExitStack() as stack:
        yield open_redis(kind, server.url, stack)


def entry(value: str | bytes, seconds: float = 600.0, *, listed: bool = False) -> Entry:
    raw = value.encode() if isinstance(value, str) else value
    return Entry(MaskedBytes(raw), seconds, listed)


def values(store: SessionStore, *names: str, group: str = "g") -> list[bytes | None]:
    return [None if found is None else found.value for found in store.get(group, names)]


def read_many(store: SessionStore, *entries: tuple[str, str]) -> list[bytes | None]:
    """The values of entries of several groups."""
    found = cast("RedisSessionStore", store).get_many(entries)
    return [None if each is None else each.value for each in found]


def put(store: SessionStore, name: str, value: Entry, *, group: str = "g") -> None:
    assert store.commit(group, {name: value}, when={})


def test_there_is_nothing_to_begin_with(store: SessionStore) -> None:
    assert store.get("g", ["a", "b"]) == [None, None]
    assert store.names("g") == []
    assert store.namespace == "test"


@pytest.mark.parametrize("value", [b"x", b"", b"\x00\xff\r\n", b"x" * 100_000])
def test_an_entry_is_read_as_it_was_written(store: SessionStore, value: bytes) -> None:
    put(store, "a", entry(value, 600))

    (found,) = store.get("g", ["a"])

    assert found is not None
    assert found.value == value
    assert isinstance(found.value, MaskedBytes)
    assert 590 < found.seconds <= 600


def test_the_store_s_clock_is_the_one_that_entries_expire_by(store: SessionStore) -> None:
    clocked = cast("MemorySessionStore | RedisSessionStore", store)
    put(store, "a", entry("1", 600))

    before = clocked.now("g")
    (found,) = store.get("g", ["a"])
    after = clocked.now("g")

    assert found is not None
    assert found.expires_at is not None
    # To the millisecond.
    assert before - 0.002 <= found.expires_at - found.seconds <= after + 0.002


def test_entries_are_read_in_the_order_of_their_names(store: SessionStore) -> None:
    put(store, "a", entry("1"))
    put(store, "b", entry("2"))

    assert values(store, "b", "x", "a", "b") == [b"2", None, b"1", b"2"]


def test_groups_know_nothing_of_each_other(store: SessionStore) -> None:
    put(store, "a", entry("1", listed=True), group="one")
    put(store, "a", entry("2"), group="two")

    assert values(store, "a", group="one") == [b"1"]
    assert values(store, "a", group="two") == [b"2"]
    assert store.names("one") == ["a"]
    assert store.names("two") == []


def test_an_entry_is_replaced_with_its_time(store: SessionStore) -> None:
    put(store, "a", entry("1", 600))
    put(store, "a", entry("2", 60))

    (found,) = store.get("g", ["a"])

    assert found is not None
    assert found.value == b"2"
    assert found.seconds <= 60


def test_an_entry_can_be_removed_more_than_once(store: SessionStore) -> None:
    put(store, "a", entry("1", listed=True))

    for _ in range(2):
        assert store.commit("g", {"a": None}, when={})

    assert values(store, "a") == [None]
    assert store.names("g") == []


def test_several_entries_change_at_once(store: SessionStore) -> None:
    put(store, "a", entry("1"))

    assert store.commit("g", {"a": None, "b": entry("2"), "c": entry("3")}, when={"a": b"1"})

    assert values(store, "a", "b", "c") == [None, b"2", b"3"]


@pytest.mark.parametrize(
    "when",
    [
        {"a": None},
        {"a": b"2"},
        {"a": b""},
        {"b": b"1"},
        {"b": b""},
        {"a": b"1", "b": b"1"},
        {"b": None, "a": None},
    ],
)
def test_nothing_changes_unless_everything_is_as_expected(
    store: SessionStore, when: dict[str, bytes | None]
) -> None:
    put(store, "a", entry("1", listed=True))

    assert not store.commit("g", {"a": None, "b": entry("2")}, when=when)

    assert values(store, "a", "b") == [b"1", None]
    assert store.names("g") == ["a"]


def test_what_is_expected_may_be_what_changes(store: SessionStore) -> None:
    assert store.commit("g", {"a": entry("1")}, when={"a": None, "b": None})
    assert not store.commit("g", {"a": entry("2")}, when={"a": None})
    assert store.commit("g", {"a": entry("3")}, when={"a": b"1"})

    assert values(store, "a") == [b"3"]


def test_only_listed_entries_are_named(store: SessionStore) -> None:
    put(store, "a", entry("1", listed=True))
    put(store, "b", entry("2"))
    put(store, "c", entry("3", listed=True))

    assert sorted(store.names("g")) == ["a", "c"]
    put(store, "a", entry("1"))
    assert store.names("g") == ["c"]


@pytest.mark.parametrize("store", ["memory", "redis"], indirect=True)
def test_of_many_who_want_the_same_one_gets_it(store: SessionStore) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def try_it(number: int) -> None:
        barrier.wait()
        if store.commit("g", {"lease": entry(str(number))}, when={"lease": None}):
            won.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert values(store, "lease") == [str(won[0]).encode()]


def test_a_value_is_shown_to_nobody(store: SessionStore) -> None:
    put(store, "a", entry("ek_of_somebody"))

    assert "ek_of_somebody" not in f"{store!r} {store.get('g', ['a'])!r}"


def retained(seconds: float) -> Entry:
    """What a session leaves behind for an hour."""
    value = MaskedBytes(b"kept")
    return Entry(value, seconds + 3600, listed=True, retention=3600.0)


class TestInMemory:
    @pytest.fixture
    def time(self) -> Time:
        return Time()

    @pytest.fixture
    def memory(self, time: Time) -> MemorySessionStore:
        return MemorySessionStore(max_entries=3, clock=lambda: time.monotonic)

    def test_an_entry_lives_its_time(self, memory: MemorySessionStore, time: Time) -> None:
        put(memory, "a", entry("1", 10))

        time.advance(9)
        (left,) = memory.get("g", ["a"])
        assert left is not None
        assert (left.value, left.seconds, left.expires_at) == (b"1", 1, memory.now("g") + 1)
        time.advance(1)
        assert memory.get("g", ["a"]) == [None]
        assert memory.commit("g", {}, when={"a": None})

    def test_what_has_lived_its_time_is_removed_with_the_next_change(
        self, memory: MemorySessionStore, time: Time
    ) -> None:
        put(memory, "a", entry("1", 10, listed=True))
        put(memory, "b", entry("2", 20, listed=True))

        time.advance(10)
        put(memory, "c", entry("3"), group="other")

        assert memory.names("g") == ["b"]
        assert "2 entries" in repr(memory)

    def test_an_entry_written_anew_outlives_its_first_time(
        self, memory: MemorySessionStore, time: Time
    ) -> None:
        put(memory, "a", entry("1", 10))
        put(memory, "a", entry("2", 30))

        time.advance(10)
        put(memory, "b", entry("3"))

        assert values(memory, "a") == [b"2"]

    def test_when_it_is_full_what_expires_soonest_makes_room(
        self, memory: MemorySessionStore
    ) -> None:
        for seconds, name in enumerate(("a", "b", "c"), 600):
            put(memory, name, entry(name, seconds, listed=True))
        put(memory, "a", entry("again", 700, listed=True))

        put(memory, "d", entry("d", 601.5))

        assert values(memory, "a", "b", "c", "d") == [b"again", None, b"c", b"d"]
        assert sorted(memory.names("g")) == ["a", "c"]

    def test_what_only_shows_what_has_ended_makes_room_before_that(
        self, memory: MemorySessionStore, time: Time, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(memory, "kept", retained(60))
        put(memory, "a", entry("a", 600))
        put(memory, "b", entry("b", 600))
        time.advance(60)

        put(memory, "c", entry("c", 1))

        assert values(memory, "kept", "a", "b", "c") == [None, b"a", b"b", b"c"]
        assert memory.evicted_seconds("g") == 0
        assert not caplog.records

    def test_it_warns_once_when_what_is_needed_makes_room(
        self, memory: MemorySessionStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(5):
            put(memory, str(number), entry("x", 600 + number))

        (line,) = [record.getMessage() for record in caplog.records]
        assert "one of 3." in line
        assert "`max_entries`" in line
        assert "Redis" in line

    def test_it_says_for_how_long_what_made_room_would_have_been_needed(
        self, memory: MemorySessionStore, time: Time
    ) -> None:
        put(memory, "a", retained(600), group="user")
        put(memory, "b", entry("b", 500), group="other")
        put(memory, "c", entry("c", 700, listed=True))
        put(memory, "d", entry("d", 700, listed=True))
        assert [memory.evicted_seconds(each) for each in ("user", "other")] == [0, 0]

        put(memory, "e", entry("e", 700, listed=True))

        assert [memory.evicted_seconds(each) for each in ("user", "other")] == [600, 0]
        time.advance(599)
        assert memory.evicted_seconds("user") == 1
        time.advance(1)
        assert memory.evicted_seconds("user") == 0

    def test_what_has_lived_its_time_makes_room_before_others(
        self, memory: MemorySessionStore, time: Time
    ) -> None:
        put(memory, "a", entry("a", 600))
        put(memory, "b", entry("b", 10))
        put(memory, "c", entry("c", 600))
        time.advance(10)

        put(memory, "d", entry("d"))

        assert values(memory, "a", "b", "c", "d") == [b"a", None, b"c", b"d"]

    def test_its_own_accounts_do_not_grow_with_the_changes(
        self, memory: MemorySessionStore
    ) -> None:
        for number in range(100):
            put(memory, "a", entry(str(number)))

        assert len(memory._by_end) <= 7
        assert len(memory._by_need) <= 7
        assert values(memory, "a") == [b"99"]

    @given(
        st.lists(
            st.tuples(st.integers(0, 8), st.integers(1, 9), st.integers(0, 3), st.integers(0, 2)),
            max_size=40,
        )
    )
    # "1" is put again with the same end, but is needed longer.
    @example([(1, 5, 1, 0), (0, 5, 0, 1), (1, 4, 0, 0), (2, 4, 0, 0), (3, 4, 0, 0), (4, 4, 0, 0)])
    def test_what_is_needed_longest_stays(self, steps: list[tuple[int, int, int, int]]) -> None:
        """Against a store that looks at everything each time."""
        time = Time()
        memory = MemorySessionStore(max_entries=4, clock=lambda: time.monotonic)
        model: dict[str, tuple[float, float]] = {}
        for name, seconds, retention, wait in steps:
            now = time.monotonic
            put(memory, str(name), Entry(MaskedBytes(b"x"), seconds, retention=retention))
            model = {key: each for key, each in model.items() if each[1] > now}
            model[str(name)] = now + seconds - retention, now + seconds
            ranked = sorted(model, key=lambda key: (*model[key], "g", key))
            model = {key: model[key] for key in ranked[-4:]}

            found = [key for key in map(str, range(9)) if memory.get("g", [key]) != [None]]
            assert found == sorted(model)
            time.advance(wait)

    @given(st.lists(st.tuples(st.text(max_size=2), st.floats(0, 99)), max_size=30))
    def test_never_less_seems_to_be_lost_than_is(self, lost: list[tuple[str, float]]) -> None:
        evictions = Evictions()
        for group, until in lost:
            evictions.add(group, until)

        for group, until in lost:
            assert evictions.seconds_left(group, 0.0) >= until
        assert evictions.seconds_left("another", 100.0) == 0

    @pytest.mark.parametrize(
        "clock", [cast("Callable[[], float]", FakeClock().now), lambda: cast("float", "1")]
    )
    def test_its_clock_returns_seconds(self, clock: Callable[[], float]) -> None:
        with pytest.raises(ValueError, match="clock must return seconds as a number"):
            MemorySessionStore(clock=clock)

    @pytest.mark.parametrize("max_entries", [0, -1, "3"])
    def test_it_has_room_for_something(self, max_entries: int) -> None:
        with pytest.raises(ValueError, match="1 or more"):
            MemorySessionStore(max_entries=max_entries)

    def test_its_own_time_goes_on_by_itself(self) -> None:
        memory = MemorySessionStore()
        put(memory, "a", entry("1", 600))

        (first,), (second,) = memory.get("g", ["a"]), memory.get("g", ["a"])

        assert first is not None
        assert second is not None
        assert second.seconds <= first.seconds < 600.001


GROUPS = st.sampled_from(["g", "h"])
VALUES = st.one_of(st.none(), st.sampled_from([b"", b"1", b"2"]))
# The time that an entry lives never ends at the very moment at which somebody looks.
LIVES = st.sampled_from([20.5, 50.5, 120.5])
CHANGES = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(VALUES, LIVES, st.booleans()), min_size=1, max_size=3
)


class SameHistory(RuleBasedStateMachine):
    """Whatever happens to both, a store in memory and one in Redis tell the same."""

    kind: StoreKind = "redis"
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            execute(client, "FLUSHALL")
        self._stack = ExitStack()
        self.time = Time()
        self.memory = MemorySessionStore(clock=lambda: self.time.monotonic)
        self.redis = open_redis(self.kind, self.server.url, self._stack)

    def teardown(self) -> None:
        self._stack.close()

    @rule(
        group=GROUPS,
        changes=CHANGES,
        when=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    )
    def commit(
        self,
        group: str,
        changes: dict[str, tuple[bytes | None, float, bool]],
        when: dict[str, bytes | None],
    ) -> None:
        entries = {
            name: None if value is None else entry(value, seconds, listed=listed)
            for name, (value, seconds, listed) in changes.items()
        }

        told = [store.commit(group, entries, when=when) for store in (self.memory, self.redis)]

        assert told[0] is told[1]

    @rule(seconds=st.sampled_from([1, 30, 100]))
    def time_passes(self, seconds: int) -> None:
        self.time.advance(seconds)
        self.server.advance(seconds)

    @invariant()
    def both_have_the_same(self) -> None:
        for group in ("g", "h"):
            assert values(self.memory, *NAMES, group=group) == values(
                self.redis, *NAMES, group=group
            )
            live = [
                {name for name in store.names(group) if store.get(group, [name]) != [None]}
                for store in (self.memory, self.redis)
            ]
            assert live[0] == live[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "async redis"])
def test_both_stores_tell_the_same_whatever_happens(
    kind: StoreKind, redis_server: RedisServer
) -> None:
    machine = cast(
        "Callable[[], SameHistory]",
        type("Machine", (SameHistory,), {"kind": kind, "server": redis_server}),
    )
    case = cast("type[RuleBasedStateMachine]", machine).TestCase
    case.settings = settings(max_examples=40, stateful_step_count=20)

    case().runTest()


def test_redis_keeps_no_key_without_a_time_to_live(redis_server: RedisServer) -> None:
    with RedisSessionStore.from_url(redis_server.url, namespace="test") as store:
        put(store, "a", entry("1", 60, listed=True))
        put(store, "b", entry("2", 600, listed=True))
        put(store, "c", entry("3", 60))

    with redis_server.client() as client:
        lives = {key: client.pttl(key) for key in redis_server.all_keys()}
    assert set(lives) == {"chatkit:{g}", "chatkit:{g}:a", "chatkit:{g}:b", "chatkit:{g}:c"}
    assert 60_000 < lives["chatkit:{g}"] <= 600_000
    assert all(milliseconds > 0 for milliseconds in lives.values())


def test_redis_forgets_the_names_of_what_is_gone(redis_server: RedisServer) -> None:
    """A user of years has a list of days."""
    with RedisSessionStore.from_url(redis_server.url, namespace="test") as store:
        put(store, "old", entry("1", 600, listed=True))
        with redis_server.client() as client:
            client.zadd("chatkit:{g}", {"old": 1})

        put(store, "new", entry("2", 600, listed=True))

        assert store.names("g") == ["new"]


def test_an_event_loop_each_has_connections_of_its_own(redis_server: RedisServer) -> None:
    store = AsyncRedisSessionStore.from_url(redis_server.url, namespace="test")

    for expected in (None, b"1"):
        found = asyncio.run(store.get("g", ["a"]))
        assert [each and each.value for each in found] == [expected]
        asyncio.run(store.commit("g", {"a": entry("1")}, when={}))


def test_the_server_is_given_the_scripts_anew_after_it_forgot_them(
    redis_server: RedisServer,
) -> None:
    with RedisSessionStore.from_url(redis_server.url, namespace="test") as store:
        put(store, "a", entry("1"))
        with redis_server.client() as client:
            client.script_flush()

        assert values(store, "a") == [b"1"]
        assert store.commit("g", {"a": None}, when={"a": b"1"})


@pytest.mark.parametrize("kind", KINDS[1:])
class TestEntriesOfSeveralGroups:
    def test_are_read_together(self, redis_server: RedisServer, kind: StoreKind) -> None:
        with ExitStack() as stack:
            store = open_redis(kind, redis_server.url, stack)
            for group in ("g", "h"):
                put(store, "a", entry(group, seconds=60), group=group)

            found = cast("RedisSessionStore", store).get_many([("h", "a"), ("g", "b"), ("g", "a")])

            assert [each and each.value for each in found] == [b"h", None, b"g"]
            assert all(each is None or 0 < each.seconds <= 60 for each in found)

    def test_of_which_one_cannot_be_read_are_an_error(
        self, redis_server: RedisServer, kind: StoreKind
    ) -> None:
        with ExitStack() as stack:
            store = open_redis(kind, redis_server.url, stack)
            with redis_server.client() as client:
                client.lpush("chatkit:{g}:a", "of somebody else")

            with pytest.raises(SessionStoreError, match="WRONGTYPE"):
                read_many(store, ("g", "b"), ("g", "a"))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_cluster_keeps_a_group_on_one_node(redis_cluster: RedisServer, kind: Kind) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(troubled(redis_cluster.port))
        announce(redis_cluster, proxy)
        no_retries = {"host": "127.0.0.1", "port": proxy.port, "retry": Retry(NoBackoff(), 0)}
        store: SessionStore
        if kind == "sync":
            make = cast("Callable[..., redis.RedisCluster]", redis.RedisCluster)
            client = make(**no_retries)
            stack.callback(client.close)
            store = RedisSessionStore(client, namespace="test")
        else:
            amake = cast("Callable[..., redis.asyncio.RedisCluster]", redis.asyncio.RedisCluster)
            runner = stack.enter_context(asyncio.Runner())
            aclient = amake(**{**no_retries, "retry": AsyncRetry(NoBackoff(), 0)})
            stack.callback(lambda: runner.run(aclient.aclose()))
            store = BlockingStore(AsyncRedisSessionStore(aclient, namespace="test"), runner)

        for group in ("g", "h", "i"):
            put(store, "a", entry("1", listed=True), group=group)
            assert store.commit(
                group, {"b": entry("2"), "c": entry("3")}, when={"a": b"1", "b": None}
            )
            assert values(store, "a", "b", "c", group=group) == [b"1", b"2", b"3"]
            assert store.names(group) == ["a"]

        assert read_many(store, *[(group, "b") for group in ("g", "h", "none", "i")]) == [
            *[b"2", b"2"],
            None,
            b"2",
        ]

        if kind == "sync":  # redis-py's asynchronous one leaves connections open that it lost
            proxy.refuse()
            with pytest.raises(SessionStoreError, match="does not respond"):
                store.get("g", ["a"])
