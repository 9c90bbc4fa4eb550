"""Stores in Redis 5 or later, Redis Cluster or Valkey, for all processes of a backend.

They need redis-py: `pip install "chatkit-sessions[redis]"`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.event_loop import PerLoop, under_trio
from chatkit_sessions._config.validation import as_secret, problem_with_timeout
from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError, SessionStoreError

from ._redis_commands import COMMIT, READ, Argument, Keys, Script, parse_names
from .base import Entry

try:
    import redis
    import redis.asyncio
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.client import NEVER_DECODE
    from redis.exceptions import (
        ConnectionError as RedisConnectionError,
        NoScriptError,
        RedisClusterException,
        RedisError,
    )
    from redis.retry import Retry
except ModuleNotFoundError as _error:
    raise ImportError(
        'The Redis stores need redis-py: pip install "chatkit-sessions[redis]"'
    ) from _error

__all__ = ["AsyncRedisSessionStore", "RedisSessionStore"]

DEFAULT_TIMEOUT: Final = 1.0
"""Seconds that connecting, and each reply, may take: a call goes on without the store then."""
MAX_CONNECTIONS: Final = 32

# What redis-py raises of a cluster is no RedisError.
_TROUBLES: Final = (RedisError, RedisClusterException, OSError)
_NO_SCRIPT: Final = object()
"""In place of a reply: Redis has not been given the script."""
# A reply as it came, however the client is set to: values are bytes.
_AS_BYTES: Final[dict[str, list[object]]] = {NEVER_DECODE: []}


class _Commands(Protocol):
    """What is used of redis-py's clients, which type it as anything."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...


class _AsyncCommands(Protocol):
    """The same of its asyncio clients."""

    async def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    async def aclose(self) -> None: ...


def _failure(error: Exception) -> SessionStoreError | None:
    """To be raised outside the `except`: redis-py's frames hold what was sent.

    Returns:
        None where Redis does not know the script yet, and is to be given it.
    """
    if isinstance(error, NoScriptError):
        return None
    return SessionStoreError(
        f"The session store does not answer ({type(error).__name__}: {safe_repr(str(error))}).",
        hint="Check that Redis runs, takes the user and password, permits the commands and has "
        "memory left.",
    )


def _settings(timeout: float | None, retry: object) -> dict[str, object]:
    """redis-py's words for them."""
    if timeout is None or problem_with_timeout(timeout) is not None:
        problem = problem_with_timeout(timeout) or "must be seconds: a call cannot wait for ever"
        raise ConfigurationError(f"`timeout` {problem}.")
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry,
        "timeout": 5 * timeout,  # to wait for a connection that others use
        "max_connections": MAX_CONNECTIONS,
    }


# A kept connection that the server has closed meanwhile is made anew, once. That is safe: every
# change that clients make may be made twice. A server that is silent is not asked again.
_RETRIES: Final = 1
_RETRIED: Final = (RedisConnectionError,)


def _check_url(url: object) -> SecretStr:
    """Refuse a URL that redis-py cannot read, without a word of it: it may hold a password."""
    if isinstance(url, SecretStr):
        try:
            parse_url(url.get_secret_value())
        except ValueError:
            pass  # its text quotes the URL
        else:
            return url
    raise ConfigurationError(
        "`url` must be redis://, rediss:// or unix://, such as rediss://user:password@host:6379/0; "
        "in a password, characters other than letters, digits, `-`, `.`, `_` and `~` are "
        "percent-encoded."
    )


class RedisSessionStore:
    """A store in Redis, for `ChatKitClient`. Safe to use from several threads.

    Args:
        client: A redis-py client of yours, `redis.Redis` or `redis.RedisCluster`; never closed.
        namespace: What keeps the sessions of this application, its stage and its tenant apart from
            others in the same Redis, such as `shop-production`: who has the same one, and may have
            users of the same id, shares their sessions.
        prefix: What keys begin with: letters, digits and `_.:-`.

    Raises:
        ConfigurationError: The namespace or the prefix cannot be used.
    """

    def __init__(
        self, client: redis.Redis | redis.RedisCluster, *, namespace: str, prefix: str = "chatkit"
    ) -> None:
        self._keys = Keys(namespace, prefix)
        self._client = cast("_Commands", client)
        self._owned: redis.Redis | None = None

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Self:
        """Make a store with connections of its own, at most 32; `close` closes them.

        Args:
            url: `redis://…`, `rediss://…` (TLS) or `unix://…`, as redis-py takes it.
            namespace: See the class.
            prefix: See the class.
            timeout: Seconds that connecting, and each reply, may take: more than 0, at most
                1,000,000; left out: 1.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # refused before there is a pool, which shows the password
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves its options untyped
            _check_url(url).get_secret_value(),
            **_settings(timeout, Retry(NoBackoff(), _RETRIES, _RETRIED)),
        )
        owned = redis.Redis.from_pool(pool)
        store = cls(owned, namespace=namespace, prefix=prefix)
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
        """Close the connections that `from_url` made. Closing twice is harmless."""
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

    def _run(self, script: Script, arguments: Sequence[Argument]) -> object:
        reply = self._execute("EVALSHA", script.sha, *arguments)
        return self._execute("EVAL", script.text, *arguments) if reply is _NO_SCRIPT else reply

    def _execute(self, *command: Argument) -> object:
        try:
            return self._client.execute_command(*command, **_AS_BYTES)
        except _TROUBLES as error:
            failure = _failure(error)
        if failure is None:
            return _NO_SCRIPT
        raise failure


class AsyncRedisSessionStore:
    """A store in Redis, for `AsyncChatKitClient` under asyncio. Safe to use from several tasks.

    Args:
        client: An asyncio client of redis-py of yours, `redis.asyncio.Redis` or
            `redis.asyncio.RedisCluster`, of the event loop that uses the store; never closed.
        namespace: As for `RedisSessionStore`.
        prefix: As for `RedisSessionStore`.

    Raises:
        ConfigurationError: The namespace or the prefix cannot be used; by each use, under trio.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        *,
        namespace: str,
        prefix: str = "chatkit",
    ) -> None:
        self._keys = Keys(namespace, prefix)
        self._client: _AsyncCommands | PerLoop[_AsyncCommands] = cast("_AsyncCommands", client)

    @classmethod
    def from_url(
        cls,
        url: str | SecretStr,
        *,
        namespace: str,
        prefix: str = "chatkit",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Self:
        """Make a store with connections of its own, at most 32 for each event loop.

        They are closed by `aclose`, and when their event loop ends.

        Args:
            url: As for `RedisSessionStore.from_url`.
            namespace: As for `RedisSessionStore`.
            prefix: As for `RedisSessionStore`.
            timeout: Seconds that connecting, and each reply, may take: more than 0, at most
                1,000,000; left out: 1.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # refused before there is a pool, which shows the password
        checked = _check_url(url)
        settings = _settings(timeout, AsyncRetry(NoBackoff(), _RETRIES, _RETRIED))

        def connect() -> redis.asyncio.Redis:
            pool = redis.asyncio.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- as above
                checked.get_secret_value(), **settings
            )
            return redis.asyncio.Redis.from_pool(pool)

        store = cls(connect(), namespace=namespace, prefix=prefix)
        # In place of the one that nobody has connected: each event loop needs its own.
        store._client = PerLoop(cast("Callable[[], _AsyncCommands]", connect))
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

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> object:
        reply = await self._execute("EVALSHA", script.sha, *arguments)
        if reply is _NO_SCRIPT:
            return await self._execute("EVAL", script.text, *arguments)
        return reply

    async def _execute(self, *command: Argument) -> object:
        if under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        client = await self._client.get() if isinstance(self._client, PerLoop) else self._client
        try:
            return await client.execute_command(*command, **_AS_BYTES)
        except _TROUBLES as error:
            failure = _failure(error)
        if failure is None:
            return _NO_SCRIPT
        raise failure
