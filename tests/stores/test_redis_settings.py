"""How a Redis is set up: with replicas, with a policy that forgets, for Django's cache, too."""

import contextlib
import importlib
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import pytest
import redis
import redis.asyncio
from django.core.cache import caches
from django.test import override_settings
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)

from chatkit_sessions import ChatKitClient, ConfigurationError, SessionStoreError
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions.stores._redis_commands import wait_command
from chatkit_sessions.stores._redis_senders import Commands, Sender, failure, leads_nowhere
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import ACL_RULES, RedisServer, execute, execute_for_list, running_redis
from support import Connect, Kind
from workers import Backend

if TYPE_CHECKING:
    from chatkit_sessions.stores import SessionStore


@pytest.mark.parametrize(
    "said",
    [
        redis.ResponseError("DB index is out of range"),
        redis.AuthenticationError("invalid username-password pair or user is disabled."),
        redis.OutOfMemoryError("command not allowed"),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.ConnectionError("Too many connections"),
    ],
    ids=lambda said: type(said).__name__,
)
def test_what_a_server_says_is_not_called_silence(said: Exception) -> None:
    assert "store cannot be used (" in str(failure(said))


def test_a_server_with_too_many_clients_is_not_called_silent(redis_server: RedisServer) -> None:
    store = RedisSessionStore.from_url(redis_server.url, namespace="shop")
    with redis.Redis(port=redis_server.port) as client:
        execute(client, "CONFIG", "SET", "maxclients", 1)
        try:
            with pytest.raises(SessionStoreError, match=r"cannot be used .*max number of clients"):
                store.get("group", ["name"])
        finally:
            execute(client, "CONFIG", "SET", "maxclients", 10_000)


@pytest.mark.parametrize(
    "said",
    [
        redis.AuthenticationError("Authentication required."),
        redis.ResponseError("NOAUTH Authentication required."),
        redis.ResponseError(
            "HELLO must be called with the client already authenticated, otherwise …"
        ),
        redis.ResponseError("WRONGPASS invalid username-password pair or user is disabled."),
    ],
)
def test_a_server_that_wants_a_password_is_hinted_at(said: Exception) -> None:
    assert failure(said).hint.startswith("Redis wants a password, or another one: ")


@pytest.mark.parametrize("store", [RedisSessionStore, AsyncRedisSessionStore])
@pytest.mark.parametrize(
    "url", [" redis://h", "redis://h ", "redis://h/abc", "redis://h/0/1", "redis://h:x", "http://h"]
)
def test_a_url_that_would_lead_elsewhere_is_rejected(
    store: type[RedisSessionStore | AsyncRedisSessionStore], url: str
) -> None:
    with pytest.raises(ConfigurationError, match="`url` must be redis://"):
        store.from_url(url, namespace="shop")


@pytest.mark.parametrize("path", ["", "/", "/0", "/15", "/2/", "?db=3"])
def test_the_number_of_a_database_is_part_of_a_url(path: str) -> None:
    RedisSessionStore.from_url(f"redis://h{path}", namespace="shop").close()
    RedisSessionStore.from_url("unix:///run/redis.sock", namespace="shop").close()


def test_a_server_without_tls_is_hinted_at() -> None:
    silent = failure(TimeoutError("no connection within 1 s"))

    assert "store does not respond (" in str(silent)
    assert "TLS if and only if the URL begins with `rediss://`" in silent.hint


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, which it may set up."""
    with running_redis() as server:
        yield server


@pytest.fixture
def backend(connect: Connect, server: RedisServer) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield Backend(connect, "redis", server, stack)


def store_of(kind: str, url: str, **options: object) -> object:
    store_type = RedisSessionStore if kind == "sync" else AsyncRedisSessionStore
    return cast("Callable[..., SessionStore]", store_type.from_url)(
        url, namespace="shop", **options
    )


class TestAServerThatSaysNotHere:
    """Its connections are dropped, and the operation is tried once more."""

    @pytest.mark.parametrize(
        "error",
        [
            ReadOnlyError("You can't write against a read only replica."),
            redis.ResponseError("ERR Error running script: @user_script: 5: -READONLY You can't"),
            redis.BusyLoadingError("Redis is loading the dataset in memory"),
            MasterDownError("Link with MASTER is down"),
            ClusterDownError("Hash slot not served"),
            TryAgainError("Multiple keys request during rehashing of slot"),
            MovedError("15495 127.0.0.1:7001"),
            AskError("15495 127.0.0.1:7001"),
            redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        ],
        ids=lambda error: str(error)[:20],
    )
    def test_is_known_by_its_error(self, error: Exception) -> None:
        assert leads_nowhere([1, b"value", error])

    @pytest.mark.parametrize(
        "reply",
        [
            None,
            1,
            [b"READONLY"],
            redis.ConnectionError("READONLY"),
            redis.ResponseError("WRONGTYPE"),
        ],
    )
    def test_is_not_seen_in_anything_else(self, reply: object) -> None:
        assert not leads_nowhere([reply])

    def test_is_a_hint(self) -> None:
        moved = failure(MovedError("15495 127.0.0.1:7001"))
        read_only = failure(ReadOnlyError("You can't write"))

        assert "redis.RedisCluster(host=…)" in moved.hint
        assert "address leads to the primary" in read_only.hint

    def test_is_left_by_a_client_of_one_connection(self, server: RedisServer) -> None:
        with redis.Redis(port=server.port, single_connection_client=True) as client:
            before = execute(client, "CLIENT", "ID")
            run_blocking(Sender(cast("Commands", client), asynchronous=False).disconnect_idle)

            assert execute(client, "CLIENT", "ID") != before

    def test_is_left_by_a_pool_that_cannot_spare_what_is_in_use(self) -> None:
        """As before redis-py 7."""

        class Pool:
            disconnected = 0

            def disconnect(self) -> None:
                self.disconnected += 1

        class Client:
            connection_pool = Pool()

        sender = Sender(cast("Commands", Client()), asynchronous=False)
        run_blocking(sender.disconnect_idle)

        assert Client.connection_pool.disconnected == 1


class TestReplicas:
    @pytest.fixture
    def replica(self, server: RedisServer) -> Iterator[RedisServer]:
        with running_redis("--replicaof", f"127.0.0.1 {server.port}") as replica:
            with replica.client() as client:
                while b"connected" not in execute_for_list(client, "ROLE"):
                    pass
            yield replica

    def worker(self, backend: Backend, *, timeout: float, wait_replicas: int) -> ChatKitClient:
        assert backend.server is not None
        store = store_of(
            backend.kind, backend.server.url, timeout=timeout, wait_replicas=wait_replicas
        )
        return backend.worker(store=store)

    def test_have_a_sign_out_before_it_returns(
        self, backend: Backend, replica: RedisServer
    ) -> None:
        worker = self.worker(backend, timeout=20, wait_replicas=1)
        session = worker.get_or_create_session("user_1")

        worker.delete_sessions("user_1")

        assert len(replica.all_keys("*:generation")) == 1
        assert replica.all_keys("*:secret:*") == []
        assert backend.fake.sessions[session.id].status == "cancelled"
        assert worker.get_or_create_session("user_1").id != session.id

    def test_that_do_not_confirm_are_an_error_after_all_is_cancelled(
        self, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = self.worker(backend, timeout=20, wait_replicas=1)
        hurried = self.worker(backend, timeout=0.6, wait_replicas=1)
        session = worker.get_or_create_session("user_1")

        with pytest.raises(SessionStoreError, match="Too few replicas") as caught:
            hurried.delete_sessions("user_1")

        assert backend.fake.sessions[session.id].status == "cancelled"
        assert "cancelled" in caught.value.hint
        assert caplog.records == [], "the store is not out"
        assert worker.get_or_create_session("user_1").id != session.id

    def test_are_waited_for_no_longer_than_the_call_lasts(self, backend: Backend) -> None:
        worker = self.worker(backend, timeout=600, wait_replicas=1)

        with pytest.raises(SessionStoreError, match="Too few replicas"):
            worker.delete_sessions("user_1", timeout=1)

    @pytest.mark.parametrize(("seconds", "milliseconds"), [(0.0004, 1), (0.25, 250)])
    def test_are_never_waited_for_without_end(self, seconds: float, milliseconds: int) -> None:
        assert wait_command(1, seconds) == ("WAIT", 1, milliseconds)

    def test_that_may_not_be_waited_for_are_an_error(
        self, backend: Backend, server: RedisServer
    ) -> None:
        with server.client() as client:
            execute(client, "ACL", "SETUSER", "limited", *ACL_RULES.format(password="p").split())
        url = server.url.replace("//", "//limited:p@")
        worker = backend.worker(store=store_of(backend.kind, url, timeout=20, wait_replicas=1))

        with pytest.raises(SessionStoreError, match="wait"):
            worker.delete_sessions("user_1")

    @pytest.mark.parametrize("number", [-1, 1.0, True, None, "1"])
    def test_are_a_number(self, kind: Kind, number: object) -> None:
        with pytest.raises(ConfigurationError, match="`wait_replicas` must be an integer"):
            store_of(kind, "redis://127.0.0.1:1", wait_replicas=number)

    def test_of_a_cluster_cannot_be_waited_for(self, kind: Kind) -> None:
        if kind == "sync":
            client: object = object.__new__(redis.RedisCluster)
            make = cast("Callable[..., object]", RedisSessionStore)
        else:
            amake = cast("Callable[..., object]", redis.asyncio.RedisCluster)
            client = amake(host="127.0.0.1", port=1)
            make = cast("Callable[..., object]", AsyncRedisSessionStore)

        with pytest.raises(ConfigurationError, match="not a cluster"):
            make(client, namespace="shop", wait_replicas=1)


class TestAPolicyThatForgets:
    @pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
    def test_is_warned_of_once(
        self,
        backend: Backend,
        server: RedisServer,
        caplog: pytest.LogCaptureFixture,
        policy: str,
    ) -> None:
        with server.client() as client:
            execute(client, "CONFIG", "SET", "maxmemory-policy", policy)
        store = store_of(backend.kind, server.url, timeout=20)
        workers = [backend.worker(store=store), backend.worker(store=store)]

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            for worker in workers:
                first = worker.get_or_create_session("user_1")
                assert worker.get_or_create_session("user_1") == first
                worker.delete_sessions("user_1")

        (told,) = caplog.records
        assert told.levelname == "WARNING"
        assert f"(maxmemory-policy {policy})" in told.getMessage()
        assert "Set maxmemory-policy to noeviction" in told.getMessage()

    @pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
    def test_is_no_other(
        self,
        backend: Backend,
        server: RedisServer,
        caplog: pytest.LogCaptureFixture,
        policy: str,
    ) -> None:
        with server.client() as client:
            execute(client, "CONFIG", "SET", "maxmemory-policy", policy)

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            backend.worker().get_or_create_session("user_1")

        assert caplog.records == []

    def test_is_not_asked_for_where_that_is_not_permitted(
        self, backend: Backend, server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with server.client() as client:
            execute(client, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            execute(client, "ACL", "SETUSER", "limited", *ACL_RULES.format(password="p").split())
        url = server.url.replace("//", "//limited:p@")
        worker = backend.worker(store=store_of(backend.kind, url, timeout=20))

        with caplog.at_level(logging.WARNING, "chatkit_sessions"):
            first = worker.get_or_create_session("user_1")
            assert worker.get_or_create_session("user_1") == first

        assert caplog.records == []


class TestDjangosCache:
    @pytest.mark.parametrize("kind", ["sync"])
    def test_shares_its_redis_with_the_store_and_the_application(
        self, backend: Backend, server: RedisServer
    ) -> None:
        django_redis = pytest.importorskip("django_redis")
        importlib.import_module("endpoint_apps")  # sets Django up
        cached = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
        with override_settings(CACHES={"default": cached}), ExitStack() as stack:
            client = django_redis.get_redis_connection("default")
            stack.callback(client.connection_pool.disconnect)
            own = stack.enter_context(
                contextlib.closing(redis.Redis(port=server.port, decode_responses=True))
            )
            workers = [
                backend.worker(store=RedisSessionStore(each, namespace="shop"))
                for each in (client, own)
            ]
            caches["default"].set("of the cache", {"of": "Django"})
            own.set("of the application", "ä")

            session = workers[0].get_or_create_session("user_1")

            assert workers[1].get_or_create_session("user_1") == session
            workers[1].delete_sessions("user_1")
            assert {info.status for info in workers[0].sessions_for("user_1")} == {"cancelled"}
            assert caches["default"].get("of the cache") == {"of": "Django"}
            assert own.get("of the application") == "ä"


def test_what_a_signal_handler_raises_in_redis_py_comes_out_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class TimeIsUpError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise TimeIsUpError

    def wait(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    client = redis.Redis()
    monkeypatch.setattr(client, "execute_command", wait)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(TimeIsUpError):
            RedisSessionStore(client, namespace="shop").get("group", ["name"])
    finally:
        signal.signal(signal.SIGTERM, before)
