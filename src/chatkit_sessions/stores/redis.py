"""Stores in Redis 5 or later, Redis Cluster or Valkey, for all processes of a backend.

Install redis-py with `pip install "chatkit-sessions[redis]"`.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.tasks import PerLoop, under_trio
from chatkit_sessions._concurrency.threads import PerProcess, run_blocking
from chatkit_sessions._config.validation import as_secret
from chatkit_sessions.errors import ConfigurationError

from ._redis_commands import (
    COMMIT,
    INFO,
    READ,
    Argument,
    Command,
    Keys,
    Script,
    parse_entries,
    parse_names,
    parse_read,
    wait_command,
    warn_of_eviction,
)
from .base import Entry

try:
    import redis
    import redis.asyncio

    from ._redis_batches import for_tasks, for_threads
    from ._redis_connections import (
        OPERATION_TIMEOUT,
        Commands,
        OwnSender,
        RedisStore,
        Sender,
        async_pool_settings,
        check_timeout,
        check_url,
        failure,
        is_unknown_script,
        leads_nowhere,
        pool_settings,
    )
except ModuleNotFoundError as _error:
    raise ImportError(
        'The Redis stores need redis-py: pip install "chatkit-sessions[redis]"'
    ) from _error

__all__ = ["AsyncRedisSessionStore", "RedisSessionStore"]

_NO_ENTRY: Final = ("",)
"""Read for the time alone: a key leads to the group's node of a cluster."""


class RedisSessionStore(RedisStore):
    """A store in Redis, for `ChatKitClient`. Safe to use from several threads.

    Args:
        client: Your redis-py client, `redis.Redis` or `redis.RedisCluster`. The store never closes
            it.
        namespace: Separates applications, stages and tenants in one Redis, such as
            `shop-production`. Stores with the same namespace share the sessions of a user id.
        prefix: The prefix of all keys: letters, digits and `_.:-`; default `chatkit`.
        timeout: Seconds that an operation may take, whatever the client is set to: more than 0, at
            most 1,000,000.
        wait_replicas: How many replicas have to confirm a sign-out; not with a cluster.

    Raises:
        ConfigurationError: The client or one of the settings cannot be used.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = OPERATION_TIMEOUT,
        wait_replicas: int = 0,
    ) -> None:
        super().__init__(
            client,
            asynchronous=False,
            keys=Keys(namespace, prefix),
            timeout=timeout,
            wait_replicas=wait_replicas,
        )
        sender = Sender(cast("Commands", client), asynchronous=False)
        self._redis = _Execution(
            for_threads(lambda: sender, self.timeout, is_own=False)
            if self.limits_itself
            else sender,
            asynchronous=False,
        )
        self._owned: redis.Redis | None = None

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = OPERATION_TIMEOUT,
        wait_replicas: int = 0,
    ) -> Self:
        """Make a store with connections of its own, most often one, which `close` closes.

        Args:
            url: `redis://…`, `rediss://…` (TLS) or `unix://…`, in redis-py's format.
            namespace: See the class.
            prefix: See the class.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.
            wait_replicas: See the class.

        Raises:
            ConfigurationError: The URL or one of the settings cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # validated before there is a pool, which shows the password
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves its options untyped
            check_url(url).get_secret_value(), **pool_settings(check_timeout(timeout))
        )
        owned = redis.Redis.from_pool(pool)
        store = cls(
            owned,
            namespace=namespace,
            prefix=prefix,
            timeout=timeout,
            wait_replicas=wait_replicas,
        )

        def own_sender() -> Sender:
            return OwnSender(cast("Commands", owned), asynchronous=False, seconds=store.timeout)

        sender = for_threads(own_sender, store.timeout, is_own=True)
        store._redis = _Execution(sender, asynchronous=False)
        store._owned = owned
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that `from_url` made; a second call does nothing."""
        if self._owned is not None:
            self._owned.close()

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """See `SessionStore.get`."""
        return self.get_with_time(group, names)[0]

    def get_with_time(self, group: str, names: Sequence[str]) -> tuple[list[Entry | None], float]:
        """Read entries, and the time that `now` returns; see `SessionStore`."""
        return parse_read(
            run_blocking(self._redis.run, READ, self._keys.read_arguments(group, names))
        )

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """Read entries of several groups in one round trip; see `SessionStore`."""
        return parse_entries(run_blocking(self._redis.read, self._keys.read_commands(entries)))

    def names(self, group: str) -> list[str]:
        """See `SessionStore.names`."""
        return parse_names(run_blocking(self._redis.command, *self._keys.names_command(group)))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `SessionStore.commit`."""
        arguments = self._keys.commit_arguments(group, changes, when)
        return run_blocking(self._redis.commit, arguments) == 1

    def commit_or_get(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        *,
        when: Mapping[str, bytes | None],
        names: Sequence[str],
    ) -> tuple[list[Entry | None], float] | None:
        """Commit, or read if a condition does not hold; see `SessionStore`."""
        arguments = self._keys.commit_arguments(group, changes, when, names)
        reply = run_blocking(self._redis.commit, arguments)
        return None if reply == 1 else parse_read(reply)

    def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool:
        """Commit, and wait until replicas have confirmed it; see `SessionStore`."""
        arguments = self._keys.commit_arguments(group, changes, {})
        return run_blocking(self._redis.commit_to, self.wait_replicas, arguments, seconds=seconds)

    def run_script(
        self, script: Script, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """Run a script of this library's on entries of a group."""
        arguments = self._keys.script_arguments(group, names, arguments)
        return run_blocking(self._redis.run, script, arguments)

    def now(self, group: str) -> float:
        """Seconds by the clock of the server that has the group, which `expires_at` counts by."""
        return self.get_with_time(group, _NO_ENTRY)[1]


class AsyncRedisSessionStore(RedisStore):
    """A store in Redis, for `AsyncChatKitClient` under asyncio. Safe to use from several tasks.

    Args:
        client: Your redis-py client, `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`, from
            the event loop that uses the store. The store never closes it.
        namespace: As for `RedisSessionStore`.
        prefix: As for `RedisSessionStore`.
        timeout: As for `RedisSessionStore`.
        wait_replicas: As for `RedisSessionStore`.

    Raises:
        ConfigurationError: The client or one of the settings cannot be used; by
            each use, under trio.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = OPERATION_TIMEOUT,
        wait_replicas: int = 0,
    ) -> None:
        super().__init__(
            client,
            asynchronous=True,
            keys=Keys(namespace, prefix),
            timeout=timeout,
            wait_replicas=wait_replicas,
        )
        sender = Sender(cast("Commands", client), asynchronous=True)
        self._redis = _Execution(
            for_tasks(lambda: sender, self.timeout) if self.limits_itself else sender,
            asynchronous=True,
        )

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = OPERATION_TIMEOUT,
        wait_replicas: int = 0,
    ) -> Self:
        """Make a store with connections of its own, most often one per event loop.

        `aclose` closes them, and so does the end of their event loop.

        Args:
            url: As for `RedisSessionStore.from_url`.
            namespace: As for `RedisSessionStore`.
            prefix: As for `RedisSessionStore`.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.
            wait_replicas: See the class.

        Raises:
            ConfigurationError: The URL or one of the settings cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # validated before there is a pool, which shows the password
        checked = check_url(url)
        settings = async_pool_settings()

        def connect() -> redis.asyncio.Redis:
            pool = redis.asyncio.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- as above
                checked.get_secret_value(), **settings
            )
            return redis.asyncio.Redis.from_pool(pool)

        def own_sender() -> Sender:
            return OwnSender(cast("Commands", connect()), asynchronous=True, seconds=timeout)

        store = cls(
            connect(),
            namespace=namespace,
            prefix=prefix,
            timeout=timeout,
            wait_replicas=wait_replicas,
        )
        # In place of the one that nobody has connected: each event loop needs its own.
        store._redis = _Execution(for_tasks(own_sender, store.timeout), asynchronous=True)
        return store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the running event loop's connections that `from_url` made, if there are any."""
        if isinstance(self._redis.sender, PerLoop):
            await self._redis.sender.aclose()

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """See `AsyncSessionStore.get`."""
        return (await self.get_with_time(group, names))[0]

    async def get_with_time(
        self, group: str, names: Sequence[str]
    ) -> tuple[list[Entry | None], float]:
        """As `RedisSessionStore.get_with_time`."""
        return parse_read(await self._redis.run(READ, self._keys.read_arguments(group, names)))

    async def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """As `RedisSessionStore.get_many`."""
        return parse_entries(await self._redis.read(self._keys.read_commands(entries)))

    async def names(self, group: str) -> list[str]:
        """See `AsyncSessionStore.names`."""
        return parse_names(await self._redis.command(*self._keys.names_command(group)))

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `AsyncSessionStore.commit`."""
        return await self._redis.commit(self._keys.commit_arguments(group, changes, when)) == 1

    async def commit_or_get(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        *,
        when: Mapping[str, bytes | None],
        names: Sequence[str],
    ) -> tuple[list[Entry | None], float] | None:
        """As `RedisSessionStore.commit_or_get`."""
        arguments = self._keys.commit_arguments(group, changes, when, names)
        reply = await self._redis.commit(arguments)
        return None if reply == 1 else parse_read(reply)

    async def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool:
        """As `RedisSessionStore.commit_to_replicas`."""
        arguments = self._keys.commit_arguments(group, changes, {})
        return await self._redis.commit_to(self.wait_replicas, arguments, seconds=seconds)

    async def run_script(
        self, script: Script, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """As `RedisSessionStore.run_script`."""
        arguments = self._keys.script_arguments(group, names, arguments)
        return await self._redis.run(script, arguments)

    async def now(self, group: str) -> float:
        """As `RedisSessionStore.now`."""
        return (await self.get_with_time(group, _NO_ENTRY))[1]


class _Execution:
    """Runs commands and scripts; over a synchronous client, nothing here suspends.

    Args:
        sender: Sends commands: one, or one for each process or event loop.
        asynchronous: Whether it is to be used under asyncio.
    """

    def __init__(
        self, sender: Sender | PerProcess[Sender] | PerLoop[Sender], *, asynchronous: bool
    ) -> None:
        self.sender: Final = sender
        self._asynchronous = asynchronous
        self._is_checked = False

    async def run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """Run a script, which Redis is given if it does not have it."""
        (reply,) = await self._together([("EVALSHA", script.sha, *arguments)])
        if is_unknown_script(reply):
            return await self.command(*script.with_text(arguments))
        return _required(reply)

    async def command(self, *command: Argument) -> object:
        """Run one command."""
        (reply,) = await self._together([command])
        return _required(reply)

    async def commit(self, arguments: Sequence[Argument]) -> object:
        """Run `COMMIT`; the first time, look for a setting that lets Redis forget.

        Returns:
            1 if it has changed the entries; otherwise what `READ` returns, or 0.
        """
        if self._is_checked:
            return await self.run(COMMIT, arguments)
        self._is_checked = True
        committed, info = await self._together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return _required(committed)

    async def commit_to(
        self, replicas: int, arguments: Sequence[Argument], *, seconds: float
    ) -> bool:
        """Run `COMMIT`; return whether that many replicas have confirmed it within the time."""
        wait = wait_command(replicas, seconds)
        replies = await self._together([COMMIT.with_text(arguments), wait], apart=True)
        _, confirmed = map(_required, replies)
        return cast("int", confirmed) >= replicas

    async def read(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands that are sent in one round trip."""
        return [_required(each) for each in await self._together(commands)]

    async def _together(self, commands: Sequence[Command], *, apart: bool = False) -> list[object]:
        """Run commands in one round trip; an error is returned in place of a reply.

        Once more, over new connections, where these lead elsewhere.
        """
        if self._asynchronous and under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        sender = self.sender
        if isinstance(sender, PerLoop):
            sender = await sender.get()
        elif isinstance(sender, PerProcess):
            sender = sender.get()
        send = sender.send_apart if apart else sender.send
        replies = await send(commands)
        if leads_nowhere(replies):
            await sender.disconnect_idle()
            replies = await send(commands)
        return replies


def _required(reply: object) -> object:
    """A reply that is no error.

    Raises:
        SessionStoreError: It is one.
    """
    if isinstance(reply, Exception):
        raise failure(reply)
    return reply
