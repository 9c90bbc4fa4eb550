"""Workers over a real Redis: many at once, killed, and whatever happens to the server meanwhile."""

import asyncio
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import httpx
import pytest
import redis
import redis.asyncio

from chatkit_sessions import (
    ChatKitClient,
    ChatKitSessionResponse,
    ConfigurationError,
    SessionStoreError,
)
from chatkit_sessions._sessions.entries import LEASE
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from chatkit_sessions.testing import FakeChatKit, FakeServer
from redis_server import ACL_RULES, RedisServer, execute, running_redis
from support import Blocking, Connect, Kind
from workers import Backend, inner

WORKER = Path(__file__).parents[1] / "helpers/redis_worker.py"
PASSWORD = "s3cr3t-of-redis"


@contextmanager
def processes(
    count: int,
    server: FakeServer,
    redis_server: RedisServer,
    *,
    threads: int,
    users: int,
    timeout: float = 60,
) -> Generator[list[subprocess.Popen[str]], None, None]:
    """Workers in processes of their own, every other one asynchronous, ready to be told to go."""
    command = [sys.executable, str(WORKER), server.url, server.api_key, redis_server.url]
    command += [str(threads), str(users), str(timeout)]
    workers = [
        subprocess.Popen(  # noqa: S603 -- our own script
            [*command, "async" if number % 2 else "sync"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for worker in workers:
            assert cast("IO[str]", worker.stdout).readline() == "ready\n"
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def go(worker: subprocess.Popen[str]) -> None:
    stdin = cast("IO[str]", worker.stdin)
    stdin.write("go\n")
    stdin.flush()


def told(worker: subprocess.Popen[str]) -> list[tuple[str, str]]:
    answers: list[list[str]] = json.loads(cast("IO[str]", worker.stdout).readline())
    return [(user, session_id) for user, session_id in answers]


def ask_all(workers: list[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    for worker in workers:
        go(worker)
    return [answer for worker in workers for answer in told(worker)]


@pytest.mark.slow
def test_eight_processes_of_fifty_callers_make_one_create_for_each_user(
    fake: FakeChatKit, server: FakeServer, redis_server: RedisServer
) -> None:
    """With the default settings, threads and tasks together, however busy the machine is."""
    with processes(8, server, redis_server, threads=50, users=20) as workers:
        cold = ask_all(workers)
        kinds = kinds_of_keys(redis_server)
        warm = ask_all(workers)

    assert len(cold) == 400
    assert len(set(cold)) == 20
    assert {user for user, _ in cold} == {f"user_{number}" for number in range(20)}
    assert set(warm) == set(cold)
    fake.assert_created(times=20)
    assert kinds == {
        "": 20,
        "record": 20,
        "reused": 20,
        "secret": 20,
        "session": 20,
        "shared": 20,
    }


@pytest.mark.slow
def test_a_failure_is_one_for_all_processes(
    fake: FakeChatKit, server: FakeServer, redis_server: RedisServer
) -> None:
    fake.fail_next(status_code=500, times=3)
    with processes(4, server, redis_server, threads=10, users=1) as workers:
        answers = ask_all(workers)

    assert set(answers) == {("user_0", "InternalServerError")}
    assert len(fake.requests) == 3, "a call, and its two retries"


@pytest.mark.slow
def test_no_session_outlives_a_sign_out_after_one_during_a_herd(
    fake: FakeChatKit, server: FakeServer, redis_server: RedisServer
) -> None:
    users = 5
    with (
        processes(4, server, redis_server, threads=25, users=users) as workers,
        RedisSessionStore.from_url(redis_server.url, namespace="shop") as store,
        ChatKitClient(
            api_key=server.api_key,
            workflow_id=server.workflow_id,
            base_url=server.url,
            store=store,
        ) as chatkit,
    ):
        for worker in workers:
            go(worker)
        while not fake.requests:
            pass
        for number in range(users):
            chatkit.delete_sessions(f"user_{number}")
        outcomes = {outcome for worker in workers for _, outcome in told(worker)}
        for number in range(users):
            chatkit.delete_sessions(f"user_{number}")

    assert outcomes <= {*fake.sessions, "SessionDeletedError"}
    assert {session.status for session in fake.sessions.values()} == {"cancelled"}


def kinds_of_keys(redis_server: RedisServer) -> dict[str, int]:
    """How many keys there are of each kind; a lease or anything else left behind would show."""
    kinds = [key.split("}")[1].strip(":").split(":")[0] for key in redis_server.all_keys()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_lost_while_creating_keeps_the_others_for_its_lease_at_most(
    fake: FakeChatKit, server: FakeServer, redis_server: RedisServer, number: signal.Signals
) -> None:
    fake.fail_next(fault="hang")
    with (
        processes(1, server, redis_server, threads=1, users=1) as (worker,),
        RedisSessionStore.from_url(redis_server.url, namespace="shop") as store,
        ChatKitClient(
            api_key=server.api_key,
            workflow_id=server.workflow_id,
            base_url=server.url,
            store=store,
            timeout=3 * LEASE,
        ) as chatkit,
        redis_server.client() as client,
    ):
        go(worker)
        while not fake.requests:
            pass
        worker.send_signal(number)
        os.waitpid(worker.pid, os.WUNTRACED)
        assert kinds_of_keys(redis_server) == {"lease": 1}
        (lease,) = redis_server.all_keys()
        assert 0 < client.pttl(lease) <= LEASE * 1000
        client.pexpire(lease, 50)  # as if the rest of it were over

        session = chatkit.get_or_create_session("user_0")

    assert fake.sessions[session.id].status == "active"
    assert kinds_of_keys(redis_server) == {
        "": 1,
        "record": 1,
        "reused": 1,
        "secret": 1,
        "session": 1,
        "shared": 1,
    }


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may stop."""
    with running_redis() as server:
        yield server


@pytest.fixture
def shop(connect: Connect, own_redis: RedisServer) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield Backend(connect, "redis", own_redis, stack)


def impatient(backend: Backend) -> ChatKitClient:
    """A worker that asks a store that was out again at once."""
    worker = backend.worker()
    inner(worker)._sessions.registry._state.circuit_breaker._clock = lambda: (
        backend.connect.time.monotonic
    )
    return worker


class TestARedis:
    def test_that_is_stopped_and_started_meanwhile_costs_nobody_a_session(
        self, shop: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert shop.server is not None
        worker = impatient(shop)
        worker.get_or_create_session("user_0")
        stop, start = shop.server.stop, shop.server.start

        def happen(_: httpx.Request) -> None:
            shop.api.before = lambda _: None
            stop()

        shop.api.before = happen
        with caplog.at_level(logging.WARNING):
            first = worker.get_or_create_session("user_1")
            assert worker.get_or_create_session("user_1") == first
        assert len(caplog.records) == 1

        start()
        shop.connect.time.advance(1)
        again = worker.get_or_create_session("user_1")
        assert worker.get_or_create_session("user_1") == again
        assert worker.get_or_create_session("user_0").status == "active"
        assert "lease" not in kinds_of_keys(shop.server)

    def test_that_comes_back_before_the_answer_is_used_again(self, shop: Backend) -> None:
        """Nothing is left of what was there before, not even the scripts."""
        server = shop.server
        assert server is not None
        worker = impatient(shop)

        def happen(_: httpx.Request) -> None:
            shop.api.before = lambda _: None
            server.stop()
            server.start()

        shop.api.before = happen
        first = worker.get_or_create_session("user_1")

        assert shop.worker().get_or_create_session("user_1") == first
        assert "lease" not in kinds_of_keys(server)

    def test_that_is_full_costs_nobody_a_session(
        self, shop: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert shop.server is not None
        worker = impatient(shop)
        before = worker.get_or_create_session("user_0")
        with shop.server.client() as client:
            execute(client, "CONFIG SET", "maxmemory", 1)
        keys = shop.server.all_keys()

        with caplog.at_level(logging.WARNING):
            first = worker.get_or_create_session("user_1")

        assert isinstance(first, ChatKitSessionResponse)
        assert "OutOfMemoryError" in caplog.text
        assert shop.server.all_keys() == keys
        shop.connect.time.advance(1)
        assert worker.get_or_create_session("user_0") == before

    def test_that_hangs_costs_nobody_a_session(self, shop: Backend) -> None:
        server = shop.server
        assert server is not None
        store_type = AsyncRedisSessionStore if shop.kind == "async" else RedisSessionStore
        store = store_type.from_url(server.url, namespace="shop", timeout=0.05)
        worker = shop.worker(store=store)
        worker.get_or_create_session("user_0")

        with server.suspended():
            session = worker.get_or_create_session("user_1")
            with pytest.raises(SessionStoreError):
                worker.sessions_for("user_1")

        assert session.user == "user_1"

    def test_that_wants_another_password_costs_nobody_a_session(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running_redis("--requirepass", PASSWORD) as server, ExitStack() as stack:
            backend = Backend(connect, "redis", server, stack)
            worker = backend.worker(store=self.store(backend, f":wrong-{PASSWORD}"))
            with caplog.at_level(logging.DEBUG):
                session = worker.get_or_create_session("user_1")
            assert session.user == "user_1"
            assert "AuthenticationError" in caplog.text
            assert PASSWORD not in caplog.text

            worker = backend.worker(store=self.store(backend, f":{PASSWORD}"))
            first = worker.get_or_create_session("user_1")
            assert worker.get_or_create_session("user_1") == first

    def test_may_permit_nothing_but_what_is_needed(self, shop: Backend) -> None:
        """The rules in docs/stores.md."""
        assert shop.server is not None
        with shop.server.client() as client:
            rules = ACL_RULES.format(password=PASSWORD).split()
            execute(client, "ACL", "SETUSER", "chatkit", *rules)
        worker = shop.worker(store=self.store(shop, f"chatkit:{PASSWORD}"))

        session = worker.get_or_create_session("user_1")

        assert worker.get_or_create_session("user_1") == session
        worker.refresh_session(session.client_secret, user="user_1")
        assert len(worker.sessions_for("user_1")) == 2
        worker.delete_sessions("user_1")
        assert {info.status for info in worker.sessions_for("user_1")} == {"cancelled"}

    def store(self, backend: Backend, credentials: str) -> object:
        assert backend.server is not None
        url = f"redis://{credentials}@127.0.0.1:{backend.server.port}/0"
        store_type = AsyncRedisSessionStore if backend.kind == "async" else RedisSessionStore
        return store_type.from_url(url, namespace="shop")


class TestAClientOfOnesOwn:
    @pytest.mark.parametrize("decode", [False, True])
    def test_serves_whatever_it_is_set_to(
        self, connect: Connect, redis_server: RedisServer, *, decode: bool
    ) -> None:
        with ExitStack() as stack:
            backend = Backend(connect, "redis", redis_server, stack)
            store: object
            if backend.kind == "sync":
                client = redis.Redis(port=redis_server.port, decode_responses=decode)
                stack.callback(client.close)
                store = RedisSessionStore(client, namespace="shop", prefix="my:own")
            else:
                asynchronous = redis.asyncio.Redis(port=redis_server.port, decode_responses=decode)
                stack.callback(lambda: cast("Blocking", worker)._runner.run(asynchronous.aclose()))
                theirs = AsyncRedisSessionStore(asynchronous, namespace="shop", prefix="my:own")
                stack.callback(lambda: cast("Blocking", worker)._runner.run(theirs.aclose()))
                store = theirs
            worker = backend.worker(store=store)

            first = worker.get_or_create_session("user_1")

            assert worker.get_or_create_session("user_1") == first
            assert len(worker.sessions_for("user_1")) == 1
            assert all(key.startswith("my:own:{") for key in redis_server.all_keys())

    def test_is_not_closed_with_the_store(self, redis_server: RedisServer) -> None:
        with redis_server.client() as client:
            with RedisSessionStore(client, namespace="shop") as store:
                assert store.get("g", ["a"]) == [None]
            store.close()
            assert execute(client, "PING")


class TestWhatIsNoClient:
    @pytest.mark.parametrize(
        ("client", "told"),
        [
            ("redis://:s3cr3t-of-redis@localhost", "not a URL"),
            (object(), "not an object"),
            (redis.Redis, "takes a redis"),
            (None, "not None"),
        ],
    )
    @pytest.mark.parametrize("store_type", [RedisSessionStore, AsyncRedisSessionStore])
    def test_is_refused(
        self, store_type: type[RedisSessionStore], client: redis.Redis, told: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=told) as caught:
            store_type(client, namespace="shop")

        assert PASSWORD not in str(caught.value)

    def test_is_refused_if_it_is_one_for_the_other_store(self) -> None:
        synchronous = redis.Redis.from_url("redis://localhost")  # pyright: ignore[reportUnknownMemberType] -- untyped
        asynchronous = redis.asyncio.Redis.from_url("redis://localhost")  # pyright: ignore[reportUnknownMemberType] -- untyped

        with pytest.raises(ConfigurationError, match="which is asynchronous"):
            RedisSessionStore(cast("redis.Redis", asynchronous), namespace="shop")
        with pytest.raises(ConfigurationError, match="which is synchronous"):
            AsyncRedisSessionStore(cast("redis.asyncio.Redis", synchronous), namespace="shop")


class TestSettings:
    @pytest.fixture(params=[RedisSessionStore, AsyncRedisSessionStore])
    def store_type(self, request: pytest.FixtureRequest) -> type[RedisSessionStore]:
        return cast("type[RedisSessionStore]", request.param)

    @pytest.mark.parametrize("namespace", ["", " ", "a\nb", None, 5])
    def test_need_a_namespace(self, store_type: type[RedisSessionStore], namespace: str) -> None:
        with pytest.raises(ConfigurationError, match="`namespace` must be") as caught:
            store_type.from_url(f"redis://:{PASSWORD}@localhost", namespace=namespace)

        own_frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert PASSWORD not in str([frame.locals for frame in own_frames.stack[1:]])

    @pytest.mark.parametrize("prefix", ["", "a b", "a{b}", None])
    def test_have_a_plain_prefix(self, store_type: type[RedisSessionStore], prefix: str) -> None:
        with pytest.raises(ConfigurationError, match="`prefix` must consist"):
            store_type.from_url("redis://localhost", namespace="shop", prefix=prefix)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            f"http://:{PASSWORD}@localhost",
            f"redis://:{PASSWORD}#@localhost:port/0",
            f"redis://user:{PASSWORD}@localhost:99999999/0",
            f"localhost:{PASSWORD}",
            5,
            None,
        ],
    )
    def test_refuse_a_url_without_quoting_it(
        self, store_type: type[RedisSessionStore], url: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="`url` must be redis://") as caught:
            store_type.from_url(url, namespace="shop")

        assert PASSWORD not in "".join(
            traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        ).replace(repr(url), "")

    def test_show_no_password(self, store_type: type[RedisSessionStore]) -> None:
        store = store_type.from_url(f"rediss://:{PASSWORD}@localhost", namespace="shop")

        assert repr(store) == f"{store_type.__name__}(namespace='shop')"

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", None, True])
    def test_need_a_timeout(self, store_type: type[RedisSessionStore], timeout: float) -> None:
        with pytest.raises(ConfigurationError, match="`timeout` must be"):
            store_type.from_url("redis://localhost", namespace="shop", timeout=timeout)


def test_an_error_holds_nothing_of_what_was_stored(
    connect: Connect, redis_server: RedisServer
) -> None:
    """Not even where a report prints the local variables of our frames."""
    with ExitStack() as stack:
        backend = Backend(connect, "redis", redis_server, stack)
        worker = backend.worker()
        session = worker.get_or_create_session("user_1")
        with redis_server.client() as client:
            for key in redis_server.all_keys():
                client.delete(key)
                client.lpush(key, "of another type")

        with pytest.raises(SessionStoreError, match="WRONGTYPE") as caught:
            worker.sessions_for("user_1")

    assert caught.value.__context__ is None
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert session.client_secret.get_secret_value() not in shown
    assert "Check that Redis runs" in str(caught.value)


def test_without_redis_py_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("redis", "_redis_senders"):
        monkeypatch.delitem(sys.modules, f"chatkit_sessions.stores.{name}")

    with pytest.raises(ImportError, match=r'pip install "chatkit-sessions\[redis\]"'):
        importlib.import_module("chatkit_sessions.stores.redis")


def test_importing_the_stores_imports_no_redis() -> None:
    script = "import chatkit_sessions.stores, sys; sys.exit('redis' in sys.modules)"

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)  # noqa: S603 -- our own


@pytest.mark.parametrize("kind", ["async"])
def test_trio_is_told_that_it_cannot_use_redis(kind: str) -> None:
    import trio  # noqa: PLC0415 -- beside what it shows

    store = AsyncRedisSessionStore.from_url("redis://localhost:1", namespace="shop")

    async def main() -> None:
        await store.get("g", ["a"])

    assert kind == "async"
    with pytest.raises(ConfigurationError, match="under asyncio, not under trio"):
        trio.run(main)


def test_a_store_closes_its_connections(kind: Kind, own_redis: RedisServer) -> None:
    async def use() -> None:
        async with AsyncRedisSessionStore.from_url(own_redis.url, namespace="shop") as store:
            await store.get("g", ["a"])
        await store.aclose()
        assert connections() == 1

    def connections() -> int:
        """Our own one, which asks, included."""
        with own_redis.client() as client:
            return len(execute(client, "CLIENT", "LIST").splitlines())

    if kind == "async":
        asyncio.run(use())
        return
    with RedisSessionStore.from_url(own_redis.url, namespace="shop") as store:
        store.get("g", ["a"])
        assert connections() == 2
    store.close()
    assert connections() == 1
