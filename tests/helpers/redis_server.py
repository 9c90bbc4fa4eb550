"""A real Redis for tests, on a free port of loopback; where none is installed, a named skip."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SERVERS = ("redis-server", "valkey-server")


ACL_RULES = (
    "on >{password} resetkeys ~chatkit:* resetchannels -@all +eval +evalsha +get +set +del "
    "+pttl +pexpire +zadd +zrem +zrange +zremrangebyscore +time +hello +auth"
)
"""What docs/stores.md tells to permit."""


def is_installed() -> bool:
    return any(map(shutil.which, SERVERS))


def find_server() -> str:
    """The program, or a skip that says what is lacking."""
    found = next((path for name in SERVERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of these is installed: {', '.join(SERVERS)}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def execute(client: redis.Redis, *command: str | int) -> bytes:
    """A command that redis-py leaves untyped; its answer as it came, if it is text."""
    run = cast("Callable[..., bytes]", client.execute_command)  # pyright: ignore[reportUnknownMemberType] -- untyped
    return run(*command, NEVER_DECODE=[])


def execute_for_list(client: redis.Redis, *command: str | int) -> list[bytes]:
    """The same where the answer is a list."""
    return cast("list[bytes]", execute(client, *command))


class RedisServer:
    """A server that can be stopped and started again on its port, as empty as it was at first."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._program = program
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.age = 0.0
        """Seconds by which `advance` has let it age."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            self._program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            # A replica that asks is served at once, not after the seconds in which others may ask.
            *("--repl-diskless-sync-delay", "0", *self._options),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 -- our own
        with self.client() as client:
            while True:
                try:
                    execute(client, "PING")
                except redis.BusyLoadingError:
                    continue
                except redis.AuthenticationError:
                    return
                except redis.ConnectionError:
                    if self._process.poll() is not None:
                        raise
                else:
                    return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def suspended(self) -> Generator[None, None, None]:
        """The server takes connections and says nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextmanager
    def client(self) -> Generator[redis.Redis, None, None]:
        no_retries = Retry(NoBackoff(), 0)
        with contextlib.closing(
            redis.Redis(port=self.port, protocol=2, retry=no_retries)
        ) as client:
            yield client

    def advance(self, seconds: float) -> None:
        """Let every key age at once, as if that much time had passed."""
        self.age += seconds
        step = int(seconds * 1000)
        with self.client() as client:
            for key in self.all_keys():
                left = client.pttl(key) - step
                if client.type(key) == b"zset":
                    for name in execute_for_list(client, "ZRANGE", key, 0, -1):
                        client.zincrby(key, -step, name)
                client.pexpire(key, left) if left > 0 else client.delete(key)

    def all_keys(self, pattern: str = "*") -> list[str]:
        with self.client() as client:
            return sorted(key.decode() for key in execute_for_list(client, "KEYS", pattern))

    def strings(self) -> dict[str, bytes]:
        """Every key and value, but for lists of names."""
        with self.client() as client:
            keys = [key for key in self.all_keys() if client.type(key) == b"string"]
            return {key: cast("bytes", client.get(key)) for key in keys}

    def overwrite(self, pattern: str, value: bytes) -> None:
        """Put that into the one key of that pattern, for the time that it has left."""
        (key,) = self.all_keys(pattern)
        with self.client() as client:
            client.set(key, value, keepttl=True)


@contextmanager
def running_redis(*options: str) -> Generator[RedisServer, None, None]:
    """A server with these options of its own."""
    program = find_server()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(program, Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
