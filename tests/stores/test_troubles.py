"""A Redis in trouble, whoever made its client: every call ends, and none blames the API."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Literal, TypeAlias, cast, get_args

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, SessionStoreError
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    EndpointRequest,
    EndpointResponse,
)
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import RedisServer, execute, free_port, running_redis
from support import Blocking, Connect
from troubled_redis import TroubledRedis, announce, troubled
from workers import Backend, inner

Trouble: TypeAlias = Literal["refuses", "is silent", "is slow"]
Make: TypeAlias = Literal["from_url", "own client", "cluster"]
TIMEOUT = 0.25
"""Seconds in which a Redis has to respond."""
HURRY = 0.05
"""The same where none does."""
AT_ONCE = Retry(NoBackoff(), 3)
"""As often as redis-py's own, without its seconds between."""

GOES_ON: dict[str, Callable[[ChatKitClient], object]] = {
    "create": lambda chatkit: chatkit.create_session("user_1"),
    "get or create": lambda chatkit: chatkit.get_or_create_session("user_1"),
    "refresh": lambda chatkit: chatkit.refresh_session("ek_of_before", user="user_1"),
}
NEEDS_THE_STORE: dict[str, Callable[[ChatKitClient], object]] = {
    "get": lambda chatkit: chatkit.get_session("cksess_1"),
    "list": lambda chatkit: chatkit.sessions_for("user_1"),
    "sign out": lambda chatkit: chatkit.delete_sessions("user_1"),
}


@pytest.fixture(params=get_args(Make))
def made(request: pytest.FixtureRequest) -> Make:
    return cast("Make", request.param)


@pytest.fixture
def timeout() -> float:
    return TIMEOUT


@pytest.fixture
def server(request: pytest.FixtureRequest, made: Make) -> RedisServer:
    server: RedisServer = request.getfixturevalue(
        "redis_cluster" if made == "cluster" else "redis_server"
    )
    return server


@pytest.fixture
def proxy(server: RedisServer, made: Make) -> Iterator[TroubledRedis]:
    with troubled(server.port) as proxy:
        if made == "cluster":
            announce(server, proxy)
        yield proxy


@pytest.fixture
def worker(
    connect: Connect, proxy: TroubledRedis, server: RedisServer, made: Make, timeout: float
) -> Iterator[ChatKitClient]:
    with ExitStack() as stack:
        backend = Backend(connect, "redis", server, stack)
        worker = backend.worker(store=store_of(backend, proxy, made, timeout, stack))
        stack.callback(lambda: close(worker))
        stack.callback(lambda: end_overdue_operations(worker, proxy))
        yield worker


def store_of(
    backend: Backend, proxy: TroubledRedis, made: Make, timeout: float, stack: ExitStack
) -> object:
    url = f"redis://127.0.0.1:{proxy.port}/0"
    if made == "from_url":
        store_type = RedisSessionStore if backend.kind == "sync" else AsyncRedisSessionStore
        return store_type.from_url(url, namespace="shop", timeout=timeout)
    options = {"host": "127.0.0.1", "port": proxy.port}
    if made == "cluster" and backend.kind == "sync":
        make = cast("Callable[..., redis.RedisCluster]", redis.RedisCluster)
        cluster = make(**options, socket_timeout=None, retry=AT_ONCE)
        stack.callback(cluster.close)
        return RedisSessionStore(cluster, namespace="shop", timeout=timeout)
    if made == "cluster":
        amake = cast("Callable[..., redis.asyncio.RedisCluster]", redis.asyncio.RedisCluster)
        acluster = amake(**options, socket_timeout=60)
        stack.callback(lambda: backend.run_flow(acluster.aclose()))
        return AsyncRedisSessionStore(acluster, namespace="shop", timeout=timeout)
    if backend.kind == "sync":
        client = redis.Redis(port=proxy.port, socket_timeout=None, retry=AT_ONCE)
        stack.callback(client.close)
        return RedisSessionStore(client, namespace="shop", timeout=timeout)
    # Its own limit is a long one, and it asks again.
    asynchronous = redis.asyncio.Redis(port=proxy.port, socket_timeout=60)
    stack.callback(lambda: backend.run_flow(asynchronous.aclose()))
    return AsyncRedisSessionStore(asynchronous, namespace="shop", timeout=timeout)


def end_overdue_operations(worker: ChatKitClient, proxy: TroubledRedis) -> None:
    """Let operations that were given up end now: they would connect again during later tests."""
    proxy.refuse()
    state = inner(worker)._sessions.registry._access.state
    for executor in (state.executor, state.leaders_executor, state.probe_executor):
        limiter = executor._threads.get()
        for job in limiter._lost + limiter._hanging:
            assert job.is_over or job.wait_for_end(60)


def close(worker: ChatKitClient) -> None:
    """Close what belongs to the event loop."""
    store = inner(worker)._sessions.registry._access.store
    if isinstance(worker, Blocking) and isinstance(store, AsyncRedisSessionStore):
        worker._runner.run(store.aclose())
    elif isinstance(store, RedisSessionStore):
        store.close()


def warm_up(worker: ChatKitClient, caplog: pytest.LogCaptureFixture) -> None:
    """Let the store connect and respond; on a busy machine, it may not do so within its limit."""
    while True:
        with suppress(SessionStoreError):
            worker.sessions_for("user_0")
            break
    caplog.clear()


def bring(trouble: Trouble, proxy: TroubledRedis) -> None:
    if trouble == "refuses":
        proxy.refuse()
    elif trouble == "is silent":
        proxy.is_silent = True


@pytest.mark.parametrize("warm", [False, True], ids=["from the beginning", "in mid-flight"])
@pytest.mark.parametrize("trouble", ["refuses", "is silent"])
@pytest.mark.parametrize("timeout", [HURRY])
class TestARedisThatDoesNotRespond:
    @pytest.mark.parametrize("call", GOES_ON.values(), ids=GOES_ON)
    def test_costs_nobody_a_session(
        self,
        worker: ChatKitClient,
        proxy: TroubledRedis,
        trouble: Trouble,
        call: Callable[[ChatKitClient], object],
        caplog: pytest.LogCaptureFixture,
        *,
        warm: bool,
    ) -> None:
        if warm:
            warm_up(worker, caplog)
            worker.get_or_create_session("user_0")
        bring(trouble, proxy)

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            for _ in range(3):
                call(worker)

        (told,) = caplog.records
        assert "The session store does not respond" in told.getMessage()
        assert "Check that Redis" in told.getMessage()

    @pytest.mark.parametrize("call", NEEDS_THE_STORE.values(), ids=NEEDS_THE_STORE)
    def test_is_what_a_call_fails_with_that_needs_it(
        self,
        worker: ChatKitClient,
        proxy: TroubledRedis,
        trouble: Trouble,
        call: Callable[[ChatKitClient], object],
        caplog: pytest.LogCaptureFixture,
        *,
        warm: bool,
    ) -> None:
        if warm:
            warm_up(worker, caplog)
            worker.get_or_create_session("user_0")
        bring(trouble, proxy)

        with pytest.raises(SessionStoreError, match=r"does not respond|stopped responding"):
            call(worker)


def test_a_slow_redis_is_waited_for(
    worker: ChatKitClient, proxy: TroubledRedis, caplog: pytest.LogCaptureFixture
) -> None:
    worker.get_or_create_session("user_0")
    proxy.delay = TIMEOUT / 5

    with caplog.at_level(logging.WARNING, "chatkit_sessions"):
        session = worker.get_or_create_session("user_1")
        assert worker.get_or_create_session("user_1") == session
        worker.delete_sessions("user_1")
        proxy.delay = 0.0

    assert caplog.records == []
    assert [info.status for info in worker.sessions_for("user_1")] == ["cancelled"]


@pytest.fixture(scope="session")
def _other_redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.mark.parametrize("made", ["from_url", "own client"])
class TestAFailover:
    """The name leads to another server, and the one of before goes on as its replica."""

    @pytest.fixture
    def fail_over(
        self, proxy: TroubledRedis, redis_server: RedisServer, _other_redis: RedisServer
    ) -> Iterator[Callable[[], None]]:
        def fail_over() -> None:
            with redis_server.client() as client:
                execute(client, "REPLICAOF", "127.0.0.1", _other_redis.port)
            proxy.server_port = _other_redis.port

        yield fail_over
        with redis_server.client() as client, _other_redis.client() as other:
            execute(client, "REPLICAOF", "NO", "ONE")
            execute(other, "FLUSHALL")

    def test_costs_nobody_a_sign_out(
        self,
        worker: ChatKitClient,
        fail_over: Callable[[], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        worker.get_or_create_session("user_0")
        fail_over()

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            worker.delete_sessions("user_0")
            session = worker.get_or_create_session("user_1")

        assert worker.get_or_create_session("user_1") == session
        assert caplog.records == []


@pytest.mark.parametrize("made", ["from_url", "own client"])
def test_a_server_that_takes_no_writes_is_one_outage(
    worker: ChatKitClient,
    connect: Connect,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A replica still answers reads: they neither end the outage nor begin another."""
    breaker = inner(worker)._sessions.registry._state.circuit_breaker
    breaker._clock = lambda: connect.time.monotonic
    worker.get_or_create_session("user_0")
    caplog.set_level(logging.INFO, "chatkit_sessions")

    with redis_server.client() as client:
        execute(client, "REPLICAOF", "127.0.0.1", free_port())
        try:
            for number in range(4):
                worker.get_or_create_session(f"user_{number}")
                connect.time.advance(1.1)
            (told,) = caplog.records
            assert "Check that the address leads to the primary." in told.getMessage()
        finally:
            execute(client, "REPLICAOF", "NO", "ONE")

    worker.get_or_create_session("user_5")
    session = worker.get_or_create_session("user_5")
    assert worker.get_or_create_session("user_5") == session
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]


class TestTheEndpoint:
    """It counts requests in the store before it makes a call."""

    CREATE = ("POST", "/session", b"")
    REFRESH = ("POST", "/session/refresh", b'{"currentClientSecret": "ek_of_before"}')
    READ = ("GET", "/session/cksess_1", b"")
    SIGN_OUT = ("DELETE", "/session", b"")

    @pytest.mark.parametrize("warm", [False, True], ids=["from the beginning", "in mid-flight"])
    @pytest.mark.parametrize("trouble", ["refuses", "is silent"])
    @pytest.mark.parametrize("timeout", [HURRY])
    def test_goes_on_without_a_redis_that_does_not_respond(
        self,
        worker: ChatKitClient,
        proxy: TroubledRedis,
        trouble: Trouble,
        caplog: pytest.LogCaptureFixture,
        *,
        warm: bool,
    ) -> None:
        ask = asking(worker)
        if warm:
            warm_up(worker, caplog)
            assert ask(*self.CREATE).status_code == 200
        bring(trouble, proxy)

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            told = [ask(*each) for each in (self.CREATE, self.CREATE, self.REFRESH)]

        assert [each.status_code for each in told] == [200] * 3
        (warning,) = [each.getMessage() for each in caplog.records]
        assert "The session store does not respond" in warning
        assert [ask(*each).status_code for each in (self.READ, self.SIGN_OUT)] == [503, 503]

    def test_waits_for_a_slow_redis(
        self, worker: ChatKitClient, proxy: TroubledRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        ask = asking(worker)
        ask(*self.CREATE)
        proxy.delay = TIMEOUT / 5

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            told = [ask(*each) for each in (self.CREATE, self.REFRESH)]

        assert [each.status_code for each in told] == [200, 200]
        assert caplog.records == []


def asking(worker: ChatKitClient) -> Callable[[str, str, bytes], EndpointResponse]:
    """An endpoint that reuses sessions, over a worker."""
    client: object = inner(worker)
    settings = {"reuse": True, "session_by_id": True}
    if isinstance(client, AsyncChatKitClient):
        make = cast("Callable[..., AsyncChatKitEndpoint]", AsyncChatKitEndpoint)
        asynchronous = make(client, **settings)
        runner = cast("Blocking", worker)._runner
        return lambda method, path, body: runner.run(
            asynchronous.handle(request_of(method, path, body), user="user_1")
        )
    endpoint = cast("Callable[..., ChatKitEndpoint]", ChatKitEndpoint)(client, **settings)
    return lambda method, path, body: endpoint.handle(request_of(method, path, body), user="user_1")


def request_of(method: str, path: str, body: bytes) -> EndpointRequest:
    headers = {"content-type": "application/json", "sec-fetch-site": "same-origin"}
    url = f"https://shop.example{path}"
    return EndpointRequest(method=method, path=path, url=url, headers=headers, body=body)


@pytest.mark.parametrize("made", ["from_url", "own client"])
def test_what_was_created_meanwhile_is_ended_by_another_worker_s_sign_out(
    worker: ChatKitClient, proxy: TroubledRedis, connect: Connect, redis_server: RedisServer
) -> None:
    """Once the store responds again, and this worker has made its next call."""
    breaker = inner(worker)._sessions.registry._state.circuit_breaker
    breaker._clock = lambda: connect.time.monotonic
    worker.get_or_create_session("user_0")
    proxy.is_silent = True
    sessions = [worker.create_session("user_1"), worker.get_or_create_session("user_1")]
    proxy.is_silent = False
    connect.time.advance(1)

    worker.get_or_create_session("user_0")
    worker.get_or_create_session("user_0")

    with ExitStack() as stack:
        other = Backend(connect, "redis", redis_server, stack).worker()
        assert {info.id for info in other.sessions_for("user_1")} == {each.id for each in sessions}
