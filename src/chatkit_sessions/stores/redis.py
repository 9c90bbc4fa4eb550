"""Stores in Redis 5 or later, Redis Cluster or Valkey, for all processes of a backend.

Install redis-py with `pip install "chatkit-sessions[redis]"`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.event_loop import PerLoop, under_trio
from chatkit_sessions._config.validation import as_secret
from chatkit_sessions.errors import ConfigurationError

from ._redis_commands import COMMIT, NOW, READ, Argument, Keys, Script, parse_names, parse_now
from .base import Entry

try:
    import redis
    import redis.asyncio

    from ._redis_connections import (
        AS_BYTES,
        DEFAULT_TIMEOUT,
        NO_SCRIPT,
        AsyncCommands,
        Commands,
        async_pool_settings,
        check_client,
        check_timeout,
        check_url,
        failure,
        pool_settings,
    )
except ModuleNotFoundError as _error:
    raise ImportError(
        'The Redis stores need redis-py: pip install "chatkit-sessions[redis]"'
    ) from _error

__all__ = ["AsyncRedisSessionStore", "RedisSessionStore"]


class RedisSessionStore:
    """A store in Redis, for `ChatKitClient`. Safe to use from several threads.

    Args:
        client: Your redis-py client, `redis.Redis` or `redis.RedisCluster`. The store never closes
            it.
        namespace: Separates applications, stages and tenants in one Redis, such as
            `shop-production`. Stores with the same namespace share the sessions of a user id.
        prefix: The prefix of all keys: letters, digits and `_.:-`; default `chatkit`.
        timeout: Seconds that an operation may take, whatever the client is set to: more than 0, at
            most 1,000,000.

    Raises:
        ConfigurationError: The client, the namespace, the prefix or the timeout cannot be used.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        check_client(client, asynchronous=False)
        self._keys = Keys(namespace, prefix)
        self._client = cast("Commands", client)
        self._owned: redis.Redis | None = None
        self.timeout: float = check_timeout(timeout)
        """Seconds that a call waits for an operation."""

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Self:
        """Make a store with at most 32 connections, which `close` closes.

        Args:
            url: `redis://…`, `rediss://…` (TLS) or `unix://…`, in redis-py's format.
            namespace: See the class.
            prefix: See the class.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # validated before there is a pool, which shows the password
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves its options untyped
            check_url(url).get_secret_value(), **pool_settings(check_timeout(timeout))
        )
        owned = redis.Redis.from_pool(pool)
        store = cls(owned, namespace=namespace, prefix=prefix, timeout=timeout)
        store._owned = owned
        return store

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

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

    @property
    def namespace(self) -> str:
        """What keeps sessions apart from others in the same Redis."""
        return self._keys.namespace

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """See `SessionStore.get`."""
        return self._keys.parse_entries(self._run(READ, self._keys.read_arguments(group, names)))

    def names(self, group: str) -> list[str]:
        """See `SessionStore.names`."""
        return parse_names(self._execute("ZRANGE", self._keys.list_key(group), 0, -1))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `SessionStore.commit`."""
        return self._run(COMMIT, self._keys.commit_arguments(group, changes, when)) == 1

    def now(self, group: str) -> float:
        """Seconds by the clock of the server that has the group, which `expires_at` counts by."""
        return parse_now(self._run(NOW, self._keys.now_arguments(group)))

    def _run(self, script: Script, arguments: Sequence[Argument]) -> object:
        reply = self._execute("EVALSHA", script.sha, *arguments)
        return self._execute("EVAL", script.text, *arguments) if reply is NO_SCRIPT else reply

    def _execute(self, *command: Argument) -> object:
        try:
            return self._client.execute_command(*command, **AS_BYTES)
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            told = failure(error)
        if told is None:
            return NO_SCRIPT
        raise told


class AsyncRedisSessionStore:
    """A store in Redis, for `AsyncChatKitClient` under asyncio. Safe to use from several tasks.

    Args:
        client: Your redis-py client, `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`, from
            the event loop that uses the store. The store never closes it.
        namespace: As for `RedisSessionStore`.
        prefix: As for `RedisSessionStore`.
        timeout: As for `RedisSessionStore`.

    Raises:
        ConfigurationError: The client, the namespace, the prefix or the timeout cannot be used; by
            each use, under trio.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        check_client(client, asynchronous=True)
        self._keys = Keys(namespace, prefix)
        self._client: AsyncCommands | PerLoop[AsyncCommands] = cast("AsyncCommands", client)
        self._cluster = client if isinstance(client, redis.asyncio.RedisCluster) else None
        self.timeout: float = check_timeout(timeout)
        """Seconds that a call waits for an operation."""

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Self:
        """Make a store with at most 32 connections per event loop.

        `aclose` closes them, and so does the end of their event loop.

        Args:
            url: As for `RedisSessionStore.from_url`.
            namespace: As for `RedisSessionStore`.
            prefix: As for `RedisSessionStore`.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
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

        store = cls(connect(), namespace=namespace, prefix=prefix, timeout=timeout)
        # In place of the one that nobody has connected: each event loop needs its own.
        store._client = PerLoop(cast("Callable[[], AsyncCommands]", connect))
        return store

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

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
        if isinstance(self._client, PerLoop):
            await self._client.aclose()

    @property
    def namespace(self) -> str:
        """What keeps sessions apart from others in the same Redis."""
        return self._keys.namespace

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """See `AsyncSessionStore.get`."""
        return self._keys.parse_entries(
            await self._run(READ, self._keys.read_arguments(group, names))
        )

    async def names(self, group: str) -> list[str]:
        """See `AsyncSessionStore.names`."""
        return parse_names(await self._execute("ZRANGE", self._keys.list_key(group), 0, -1))

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `AsyncSessionStore.commit`."""
        return await self._run(COMMIT, self._keys.commit_arguments(group, changes, when)) == 1

    async def now(self, group: str) -> float:
        """As `RedisSessionStore.now`."""
        return parse_now(await self._run(NOW, self._keys.now_arguments(group)))

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> object:
        reply = await self._execute("EVALSHA", script.sha, *arguments)
        if reply is NO_SCRIPT:
            return await self._execute("EVAL", script.text, *arguments)
        return reply

    async def _execute(self, *command: Argument) -> object:
        if under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        client = await self._client.get() if isinstance(self._client, PerLoop) else self._client
        try:
            if self._cluster is not None:
                # Many first commands at once meet a cluster client that is half initialized.
                await self._cluster.initialize()
            return await client.execute_command(*command, **AS_BYTES)
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            told = failure(error)
        if told is None:
            return NO_SCRIPT
        raise told
