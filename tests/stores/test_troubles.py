"""A Redis in trouble, whoever made its client: every call ends, and none blames the API."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal, TypeAlias, cast, get_args

import pytest
import redis
import redis.asyncio

from chatkit_sessions import ChatKitClient, SessionStoreError
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import RedisServer
from support import Blocking, Connect
from troubled_redis import TroubledRedis, troubled
from workers import Backend, inner

Trouble: TypeAlias = Literal["refuses", "is silent", "is slow"]
Make: TypeAlias = Literal["from_url", "own client"]
TIMEOUT = 0.15

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


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TroubledRedis]:
    with troubled(redis_server.port) as proxy:
        yield proxy


@pytest.fixture(params=get_args(Make))
def worker(
    request: pytest.FixtureRequest,
    connect: Connect,
    proxy: TroubledRedis,
    redis_server: RedisServer,
) -> Iterator[ChatKitClient]:
    with ExitStack() as stack:
        backend = Backend(connect, "redis", redis_server, stack)
        made = cast("Make", request.param)
        worker = backend.worker(store=store_of(backend, proxy, made, stack))
        stack.callback(lambda: close(worker))
        yield worker


def store_of(backend: Backend, proxy: TroubledRedis, made: Make, stack: ExitStack) -> object:
    url = f"redis://127.0.0.1:{proxy.port}/0"
    if made == "from_url":
        store_type = RedisSessionStore if backend.kind == "sync" else AsyncRedisSessionStore
        return store_type.from_url(url, namespace="shop", timeout=TIMEOUT)
    if backend.kind == "sync":
        client = redis.Redis(port=proxy.port, socket_timeout=None)
        stack.callback(client.close)
        return RedisSessionStore(client, namespace="shop", timeout=TIMEOUT)
    # Its own limit is a long one, and it asks again; who closes it, does so in its loop.
    asynchronous = redis.asyncio.Redis(port=proxy.port, socket_timeout=60)
    return AsyncRedisSessionStore(asynchronous, namespace="shop", timeout=TIMEOUT)


def close(worker: ChatKitClient) -> None:
    """Close what belongs to the event loop, and what a user would close."""
    store = inner(worker)._registry._access.store
    if isinstance(worker, Blocking) and isinstance(store, AsyncRedisSessionStore):
        worker._runner.run(store.aclose())
        if isinstance(store._redis.client, redis.asyncio.Redis):
            worker._runner.run(store._redis.client.aclose())
    elif isinstance(store, RedisSessionStore):
        store.close()


def bring(trouble: Trouble, proxy: TroubledRedis) -> None:
    if trouble == "refuses":
        proxy.refuse()
    elif trouble == "is silent":
        proxy.is_silent = True


@pytest.mark.parametrize("warm", [False, True], ids=["from the beginning", "in mid-flight"])
@pytest.mark.parametrize("trouble", ["refuses", "is silent"])
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
        *,
        warm: bool,
    ) -> None:
        if warm:
            worker.get_or_create_session("user_0")
        bring(trouble, proxy)

        with pytest.raises(SessionStoreError, match="does not respond"):
            call(worker)


def test_a_slow_redis_is_waited_for(
    worker: ChatKitClient, proxy: TroubledRedis, caplog: pytest.LogCaptureFixture
) -> None:
    worker.get_or_create_session("user_0")
    proxy.delay = TIMEOUT / 3

    with caplog.at_level(logging.WARNING, "chatkit_sessions"):
        session = worker.get_or_create_session("user_1")
        assert worker.get_or_create_session("user_1") == session
        worker.delete_sessions("user_1")

    assert caplog.records == []
    assert [info.status for info in worker.sessions_for("user_1")] == ["cancelled"]


def test_what_was_created_meanwhile_is_ended_by_another_worker_s_sign_out(
    worker: ChatKitClient, proxy: TroubledRedis, connect: Connect, redis_server: RedisServer
) -> None:
    """Once the store responds again, and this worker has made its next call."""
    breaker = inner(worker)._registry._state.circuit_breaker
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
