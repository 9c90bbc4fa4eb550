"""Services of either kind over either store, with one blocking face and a time that tests move."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier
from typing import TypeVar, cast

from pydantic import SecretStr

from chatkit_sessions import ChatKitClient, ChatKitError, SessionStoreError
from chatkit_sessions.service import AsyncSessionsService, SessionContext, SessionsService
from chatkit_sessions.service._rules import Headers, ServiceRequest, ServiceResponse
from chatkit_sessions.stores import AsyncSessionStore, Entry, MemorySessionStore, SessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import RedisServer
from support import JSON, Blocking, Kind, Time
from workers import StoreKind

API_KEY = "sk-service-0123456789abcdefKEY"
OTHER_KEY = "sk-service-of-another-project-KEY"
SESSIONS = "/v1/chatkit/sessions"
SAVING = {"get_many", "get_with_time", "commit_or_get", "run_script"}
"""Methods that save round trips."""
CHANGING = {"commit_or_get", "run_script"}
"""Those of them that change something."""
T = TypeVar("T")


class CountedStore:
    """A store that counts what it is asked, and that can be unavailable."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.calls: list[str] = []
        self.is_down = False
        self.before_commit: Callable[[], object] = lambda: None
        self.saves_round_trips = isinstance(store, RedisSessionStore)
        """Whether it has what a store may have more for that."""
        self.conflicts = 0
        """How many of the next commits find that another process was first."""
        self.repeats = 0
        """How many of the next changes are made twice: the second reply is returned."""

    @property
    def namespace(self) -> str:
        return self._store.namespace

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        self._called("get")
        return self._store.get(group, names)

    def names(self, group: str) -> list[str]:
        self._called("names")
        return self._store.names(group)

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        self._called("commit")
        before, self.before_commit = self.before_commit, lambda: None
        before()
        if self.finds_conflict():
            return False
        if self.is_repeated():
            self._store.commit(group, changes, when=when)
        return self._store.commit(group, changes, when=when)

    def finds_conflict(self) -> bool:
        conflicts, self.conflicts = self.conflicts, max(0, self.conflicts - 1)
        return conflicts > 0

    def is_repeated(self) -> bool:
        repeats, self.repeats = self.repeats, max(0, self.repeats - 1)
        return repeats > 0

    def now(self, group: str) -> float:
        self._called("now")
        clock = getattr(self._store, "now", None)
        assert callable(clock)
        return float(cast("float", clock(group)))

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name not in SAVING or not self.saves_round_trips:
            raise AttributeError(name)
        method: Callable[..., object] = getattr(self._store, name)

        def call(*arguments: object, **options: object) -> object:
            self._called(name)
            if name in CHANGING and self.is_repeated():
                method(*arguments, **options)
            return method(*arguments, **options)

        return call

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.is_down:
            raise SessionStoreError("The store is down.")


class AwaitedStore:
    """The same for async services, over a store of either kind."""

    def __init__(self, counted: CountedStore, store: AsyncSessionStore | None) -> None:
        self.counted = counted
        self._store = store

    @property
    def namespace(self) -> str:
        return self.counted.namespace

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        if self._store is None:
            return self.counted.get(group, names)
        self.counted._called("get")
        return await self._store.get(group, names)

    async def names(self, group: str) -> list[str]:
        return self.counted.names(group)

    async def now(self, group: str) -> float:
        return self.counted.now(group)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        if name not in SAVING or not self.counted.saves_round_trips:
            raise AttributeError(name)
        method: Callable[..., Awaitable[object]] = getattr(self._store, name)

        async def call(*arguments: object, **options: object) -> object:
            self.counted._called(name)
            if name in CHANGING and self.counted.is_repeated():
                await method(*arguments, **options)
            return await method(*arguments, **options)

        return call

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        if self._store is None:
            return self.counted.commit(group, changes, when=when)
        self.counted._called("commit")
        before, self.counted.before_commit = self.counted.before_commit, lambda: None
        before()
        if self.counted.finds_conflict():
            return False
        if self.counted.is_repeated():
            await self._store.commit(group, changes, when=when)
        return await self._store.commit(group, changes, when=when)


class BlockingService:
    """A service of either kind, asked in the same way."""

    def __init__(
        self, service: SessionsService | AsyncSessionsService, runner: asyncio.Runner | None
    ) -> None:
        self.wrapped = service
        self._runner = runner

    def verify(
        self,
        client_secret: str | SecretStr | None,
        *,
        workflow_id: str | None = None,
        project: str | None = None,
        count: bool | Callable[[], bool | Awaitable[bool]] = True,
    ) -> SessionContext:
        verify = partial(self.wrapped.verify, workflow_id=workflow_id, project=project)
        verified = verify(client_secret, count=cast("bool", count))
        if isinstance(verified, SessionContext):
            return verified
        assert self._runner is not None
        return self._runner.run(verified)

    def sessions_for(self, user: str, *, project: str = "shop") -> list[SessionContext]:
        if isinstance(self.wrapped, SessionsService):
            return self.wrapped.sessions_for(user, project=project)
        assert self._runner is not None
        return self._runner.run(self.wrapped.sessions_for(user, project=project))

    def delete_sessions(self, user: str, *, project: str = "shop") -> None:
        if isinstance(self.wrapped, SessionsService):
            return self.wrapped.delete_sessions(user, project=project)
        assert self._runner is not None
        return self._runner.run(self.wrapped.delete_sessions(user, project=project))

    def handle(self, request: ServiceRequest) -> ServiceResponse:
        if isinstance(self.wrapped, SessionsService):
            return self.wrapped.handle(request)
        assert self._runner is not None
        return self._runner.run(self.wrapped.handle(request))

    def client(
        self, *, workflow_id: str | None = "support", project: str = "default"
    ) -> ChatKitClient:
        client = self.wrapped.client(workflow_id=workflow_id, project=project)
        if isinstance(client, ChatKitClient):
            return client
        assert self._runner is not None
        return cast("ChatKitClient", Blocking(client, self._runner))

    def ask(
        self,
        path: str = SESSIONS,
        content: object = None,
        *,
        key: str = API_KEY,
        method: str = "POST",
    ) -> tuple[int, JSON]:
        """Send a request to one of the routes; its status and its JSON."""
        body = b"" if content is None else json.dumps(content).encode()
        response = self.handle(
            ServiceRequest(method, path, Headers(headers_for(key).items()), body)
        )
        return response.status_code, cast("JSON", json.loads(response.body))

    def create(self, user: str = "ada", *, key: str = API_KEY, **changes: object) -> JSON:
        """A new session, through the route."""
        content = {"user": user, "workflow": {"id": "support"}, **changes}
        status, session = self.ask(content=content, key=key)
        assert status == 200, session
        return session

    def create_secret(self, user: str = "ada", *, limit: int = 10) -> str:
        """The secret of a new session."""
        session = self.create(user, rate_limits={"max_requests_per_1_minute": limit})
        return str(session["client_secret"])


async def maybe_await(value: T | Awaitable[T]) -> T:
    if isinstance(value, Awaitable):
        return await cast("Awaitable[T]", value)
    return value


def all_at_once(service: BlockingService, *calls: Callable[[], object]) -> list[object]:
    """What calls of the service that run at the same time return or raise."""
    if isinstance(service.wrapped, SessionsService):
        barrier = Barrier(len(calls))

        def run(call: Callable[[], object]) -> object:
            barrier.wait()
            try:
                return call()
            except ChatKitError as error:
                return error

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))
    assert service._runner is not None

    async def gather() -> list[object]:
        awaited = (maybe_await(call()) for call in calls)
        return list(await asyncio.gather(*awaited, return_exceptions=True))

    return service._runner.run(gather())


class Services:
    """Makes services that share one store, as processes of a backend do."""

    def __init__(
        self, kind: Kind, store_kind: StoreKind, server: RedisServer | None, stack: ExitStack
    ) -> None:
        self.kind = kind
        self.store_kind = store_kind
        self.server = server
        self.time = Time()
        self._stack = stack
        self._runner = stack.enter_context(asyncio.Runner()) if kind == "async" else None
        plain: SessionStore
        if server is None:
            plain = MemorySessionStore(namespace="shop", clock=lambda: self.time.monotonic)
        else:
            plain = stack.enter_context(RedisSessionStore.from_url(server.url, namespace="shop"))
        self.store = CountedStore(plain)

    def __call__(self, **options: object) -> BlockingService:
        settings = {
            "workflows": {"support"},
            "api_keys": {API_KEY: "shop", OTHER_KEY: "other"},
            "clock": lambda: self.time.now,
            **options,
        }
        if self._runner is None:
            make = cast("Callable[..., SessionsService]", SessionsService)
            return BlockingService(make(self.store, **settings), None)
        make_async = cast("Callable[..., AsyncSessionsService]", AsyncSessionsService)
        return BlockingService(make_async(self._awaited_store(), **settings), self._runner)

    def _awaited_store(self) -> AwaitedStore:
        if self.server is None:
            return AwaitedStore(self.store, None)
        assert self._runner is not None
        redis = AsyncRedisSessionStore.from_url(self.server.url, namespace="shop")
        runner = self._runner
        self._stack.callback(lambda: runner.run(redis.aclose()))
        return AwaitedStore(self.store, redis)

    def advance(self, seconds: float) -> None:
        """Let time pass, for the services and for the store."""
        self.time.advance(seconds)
        if self.server is not None:
            self.server.advance(seconds)

    def stored(self) -> str:
        """Everything that the store holds."""
        if self.server is not None:
            return repr(self.server.strings())
        memory = cast("MemorySessionStore", self.store._store)
        return repr({key: bytes(value) for key, (value, *_) in memory._entries.items()})


def headers_for(key: str) -> dict[str, str]:
    return {
        "authorization": f"Bearer {key}",
        "openai-beta": "chatkit_beta=v1",
        "content-type": "application/json",
    }
