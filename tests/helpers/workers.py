"""Several workers of one backend: clients that share nothing but a store, and a time for all."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, TypeAlias, TypeVar, cast, get_args

import httpx

from chatkit_sessions import ChatKitClient, SessionStoreError
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.tasks import TaskEvent
from chatkit_sessions._concurrency.threads import ThreadEvent, run_blocking
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.entries import Lease
from chatkit_sessions.options import SessionOptions
from chatkit_sessions.stores import Entry, MemorySessionStore, SessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from chatkit_sessions.testing import FakeChatKit, FakeClock
from redis_server import RedisServer
from support import NOON, Blocking, Connect

StoreKind: TypeAlias = Literal["memory", "redis"]
STORE_KINDS: tuple[StoreKind, ...] = get_args(StoreKind)
T = TypeVar("T")


async def as_flow(flow: Coroutine[object, None, T]) -> T:
    """A coroutine as `run_blocking` takes it."""
    return await flow


class Api(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The local API; before it answers a request, whatever a test wants may happen."""

    def __init__(self, fake: FakeChatKit) -> None:
        self._inner = fake.transport()
        self.before: Callable[[httpx.Request], object] = lambda _: None
        self.before_async: Callable[[], Awaitable[None]] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        return self._inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        happens = self.before(request)
        if asyncio.iscoroutine(happens):
            await happens
        if self.before_async is not None:
            await self.before_async()
        return await self._inner.handle_async_request(request)


class Backend:
    """Makes workers of one kind over one kind of store."""

    def __init__(
        self, connect: Connect, store_kind: StoreKind, server: RedisServer | None, stack: ExitStack
    ) -> None:
        self.connect = connect
        self.store_kind = store_kind
        self.server = server
        self._stack = stack
        self.fake = FakeChatKit(clock=FakeClock(start=NOON))
        self.api = Api(self.fake)
        self.led = False
        self.reached = threading.Event()
        self.tasks: list[asyncio.Future[object]] = []
        self.memory = MemorySessionStore(namespace="shop", clock=lambda: connect.time.monotonic)

    @property
    def kind(self) -> str:
        return self.connect.kind

    def store(self, namespace: str = "shop") -> SessionStore:
        """A store of the workers' kind, whatever the type says: the suite speaks to both alike."""
        return cast("SessionStore", self._store_of(namespace))

    def _store_of(self, namespace: str) -> object:
        if self.server is None:
            if namespace == "shop":
                return self.memory
            return MemorySessionStore(
                namespace=namespace, clock=lambda: self.connect.time.monotonic
            )
        if self.kind == "async":
            return aging_async_redis(self.server, namespace)
        return self._stack.enter_context(aging_redis(self.server, namespace))

    def worker(self, *, store: object = None, **options: object) -> ChatKitClient:
        """A client of its own, as another process has it."""
        make = cast("Callable[..., ChatKitClient]", self.connect)
        options = {"api_key": self.fake.api_key, "max_retries": 0, **options}
        worker = make(self.api, store=self.store() if store is None else store, **options)
        client = inner(worker)
        sleep = self._sleep if self.kind == "sync" else self._asleep
        client._sessions.io.runtime = client._sessions.io.runtime._replace(sleep=sleep)
        return worker

    def advance(self, seconds: float) -> None:
        """Let time pass, for the workers, the API and the store."""
        self.connect.time.advance(seconds)
        self.fake.clock.advance(seconds=seconds)
        if self.server is not None:
            self.server.advance(seconds)

    def _sleep(self, seconds: float) -> None:
        self.advance(seconds)

    async def _asleep(self, seconds: float) -> None:
        self.advance(seconds)

    def calls(self, name: str = "") -> list[str]:
        """What the API was asked, such as `cancel`; all of it without a name."""
        paths = [f"{request.method} {request.path}" for request in self.fake.requests]
        return [path for path in paths if path.endswith(name)]

    @property
    def creates(self) -> int:
        return len(self.calls("/chatkit/sessions"))

    def stored(self) -> str:
        """Everything in the store, names and values."""
        if self.server is not None:
            return str(self.server.strings())
        now = self.connect.time.monotonic
        entries = self.memory._entries.items()
        return str({key: bytes(value) for key, (value, end, _) in entries if end > now})

    def overwrite(self, kind: str, value: bytes) -> None:
        """Put that into the one entry of that kind."""
        if self.server is not None:
            self.server.overwrite(f"*:{kind}*", value)
            return
        ((key, (_, end, needed_until)),) = [
            item for item in self.memory._entries.items() if item[0][1].startswith(kind)
        ]
        self.memory._entries[key] = MaskedBytes(value), end, needed_until

    def at_once(self, *calls: Callable[[], object]) -> list[object]:
        """Make calls at the same time; their results or errors.

        After `answer_when_waiting`, the first one leads, and the others begin once it does.
        """
        if self.kind == "sync":
            results: dict[int, object] = {}

            def run(number: int, call: Callable[[], object]) -> None:
                try:
                    results[number] = call()
                except Exception as error:  # noqa: BLE001 -- handed to the test
                    results[number] = error

            threads = [
                threading.Thread(target=run, args=(number, call), daemon=True)
                for number, call in enumerate(calls)
            ]
            threads[0].start()
            assert not self.led or self.reached.wait(60)
            for thread in threads[1:]:
                thread.start()
            for thread in threads:
                thread.join(60)
            return [results[number] for number in range(len(calls))]

        async def main() -> list[object]:
            self.tasks = [asyncio.ensure_future(as_coroutine(calls[0]))]
            while self.led and not self.reached.is_set():  # noqa: ASYNC110 -- of another loop's kind
                await asyncio.sleep(0)
            self.tasks += [asyncio.ensure_future(as_coroutine(call)) for call in calls[1:]]
            return list(await asyncio.gather(*self.tasks, return_exceptions=True))

        return self.run(main)

    def run(self, main: Callable[[], object]) -> list[object]:
        """Run a coroutine function in the loop of the asynchronous workers."""
        runner = cast("asyncio.Runner", self.connect._runner)
        return cast("list[object]", runner.run(main()))  # type: ignore[arg-type]  # a coroutine

    def run_flow(self, flow: Coroutine[object, None, T]) -> T:
        """Run a flow as the workers' kind of client does."""
        if self.kind == "sync":
            return run_blocking(as_flow, flow)
        runner = cast("asyncio.Runner", self.connect._runner)
        return runner.run(flow)

    def begin_to_create(self, worker: ChatKitClient, user: str = "user_1") -> None:
        """Become the one who creates that user's session, and never go on."""
        client = inner(worker)
        identity = client._sessions.request(user, SessionOptions()).identity

        async def begin() -> None:
            registry = client._sessions.registry
            deadline = Deadline.after(None, registry._clock)
            snapshot = await registry.look_up(identity, deadline)
            found = await registry.acquire_lease(identity, snapshot, Lease(b"x"), deadline)
            assert found is None

        self.run_flow(begin())

    def answer_when_waiting(self, worker: ChatKitClient, waiters: int) -> None:
        """Let the API answer only once that many of a worker's calls wait for another one's."""
        single_flight = inner(worker)._sessions.registry.single_flight
        self.led = True
        if self.kind == "sync":
            begun = threading.Semaphore(0)

            class Counted(ThreadEvent):
                def wait(self, timeout: float | None = None) -> bool:
                    begun.release()
                    return super().wait(timeout)

            single_flight._new_event = Counted

            def wait(_: httpx.Request) -> None:
                self.reached.set()
                for _number in range(waiters):
                    assert begun.acquire(timeout=60)
                self.api.before = lambda _: None

            self.api.before = wait
            return
        waiting: list[object] = []

        class ACounted(TaskEvent):
            async def wait_for(self, seconds: float | None) -> bool:
                waiting.append(self)
                return await super().wait_for(seconds)

        single_flight._new_event = ACounted

        async def await_them(_: httpx.Request) -> None:
            self.reached.set()
            while len(waiting) < waiters:  # noqa: ASYNC110 -- whoever waits does not know of us
                await asyncio.sleep(0)
            self.api.before = lambda _: None

        self.api.before = await_them


def aging_redis(server: RedisServer, namespace: str) -> RedisSessionStore:
    """A store whose clock `server.advance` moves, too."""

    class Aging(RedisSessionStore):
        def now(self, group: str) -> float:
            return super().now(group) + server.age

        def get_with_time(
            self, group: str, names: Sequence[str]
        ) -> tuple[list[Entry | None], float]:
            return in_aged_times(super().get_with_time(group, names), server)

        def commit(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
        ) -> bool:
            return super().commit(group, in_real_time(changes, server), when=when)

        def commit_or_get(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
            names: Sequence[str],
        ) -> tuple[list[Entry | None], float] | None:
            changes = in_real_time(changes, server)
            found = super().commit_or_get(group, changes, when=when, names=names)
            return None if found is None else in_aged_times(found, server)

    return Aging.from_url(server.url, namespace=namespace)


def aging_async_redis(server: RedisServer, namespace: str) -> AsyncRedisSessionStore:
    """The same for asynchronous clients."""

    class Aging(AsyncRedisSessionStore):
        async def now(self, group: str) -> float:
            return await super().now(group) + server.age

        async def get_with_time(
            self, group: str, names: Sequence[str]
        ) -> tuple[list[Entry | None], float]:
            return in_aged_times(await super().get_with_time(group, names), server)

        async def commit(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
        ) -> bool:
            return await super().commit(group, in_real_time(changes, server), when=when)

        async def commit_or_get(
            self,
            group: str,
            changes: Mapping[str, Entry | None],
            *,
            when: Mapping[str, bytes | None],
            names: Sequence[str],
        ) -> tuple[list[Entry | None], float] | None:
            changes = in_real_time(changes, server)
            found = await super().commit_or_get(group, changes, when=when, names=names)
            return None if found is None else in_aged_times(found, server)

    return Aging.from_url(server.url, namespace=namespace)


def in_aged_times(
    found: tuple[list[Entry | None], float], server: RedisServer
) -> tuple[list[Entry | None], float]:
    """What is read with the time, by the clock that can be moved."""
    entries, now = found
    return [in_aged_time(entry, server) for entry in entries], now + server.age


def in_real_time(
    changes: Mapping[str, Entry | None], server: RedisServer
) -> dict[str, Entry | None]:
    """The changes by the server's own clock, which cannot be moved."""
    return {
        name: entry
        if entry is None or entry.expires_at is None
        else replace(entry, expires_at=entry.expires_at - server.age)
        for name, entry in changes.items()
    }


def in_aged_time(entry: Entry | None, server: RedisServer) -> Entry | None:
    """What the server returned, by the clock that has moved."""
    if entry is None or entry.expires_at is None:
        return entry
    return replace(entry, expires_at=entry.expires_at + server.age)


def inner(worker: ChatKitClient) -> ChatKitClient:
    """The client itself, without the blocking face."""
    wrapped: object = worker.wrapped if isinstance(worker, Blocking) else worker
    return cast("ChatKitClient", wrapped)


async def as_coroutine(call: Callable[[], object]) -> object:
    """Await what an asynchronous client's method gives."""
    return await cast("asyncio.Future[object]", call())


class FailingStore:
    """A store that can be out, or fails at one of its uses."""

    def __init__(self, store: MemorySessionStore) -> None:
        self.namespace = store.namespace
        self._store = store
        self.out = False
        self.is_full = False
        """Whether every change fails."""
        self.fails_at: int | None = None
        self.repeats = False
        """Whether every change is made twice, and the second one is answered."""
        self.uses = 0

    def use(self) -> MemorySessionStore:
        number, self.uses = self.uses, self.uses + 1
        if self.out or number == self.fails_at:
            raise SessionStoreError("The session store does not answer (out of order).")
        return self._store

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return self.use().get(group, names)

    def names(self, group: str) -> list[str]:
        return self.use().names(group)

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        store = self.use()
        if self.is_full:
            raise SessionStoreError("The session store does not answer (full).")
        if self.repeats:
            store.commit(group, changes, when=when)
        return store.commit(group, changes, when=when)


class AsyncFailingStore:
    """The same for asynchronous clients."""

    def __init__(self, store: FailingStore) -> None:
        self.namespace = store.namespace
        self._store = store

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return self._store.get(group, names)

    async def names(self, group: str) -> list[str]:
        return self._store.names(group)

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        return self._store.commit(group, changes, when=when)
