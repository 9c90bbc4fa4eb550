"""Stores in Redis 5 or later, Redis Cluster or Valkey, for all processes of a backend.

They need redis-py: `pip install "chatkit-sessions[redis]"`.

A group's keys have one hash tag, so that they lie on one node of a cluster:

    <prefix>:{<group>}:<name>       an entry, with its time to live
    <prefix>:{<group>}              the names of listed entries, by when they end
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.event_loop import PerLoop, under_trio
from chatkit_sessions._config.settings import as_secret, flaw_of_timeout
from chatkit_sessions._redaction import MaskedBytes, shown
from chatkit_sessions.errors import ConfigurationError, SessionStoreError

from .base import Entry

try:
    import redis
    import redis.asyncio
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.client import NEVER_DECODE
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import NoScriptError, RedisClusterException, RedisError
    from redis.retry import Retry
except ModuleNotFoundError as _error:
    raise ImportError(
        'The Redis stores need redis-py: pip install "chatkit-sessions[redis]"'
    ) from _error

__all__ = ["AsyncRedisSessionStore", "RedisSessionStore"]

DEFAULT_TIMEOUT: Final = 1.0
"""Seconds that connecting, and each answer, may take: a call goes on without the store then."""
MAX_CONNECTIONS: Final = 32

_Argument: TypeAlias = str | bytes | int
# What redis-py raises of a cluster is no RedisError.
_TROUBLES: Final = (RedisError, RedisClusterException, OSError)
_NO_SCRIPT: Final = object()
"""In place of an answer: Redis has not been given the script."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:\-]+")
# An answer as it came, whatever the client is set to: values are bytes.
_AS_BYTES: Final[dict[str, list[object]]] = {NEVER_DECODE: []}


class _Commands(Protocol):
    """What is used of redis-py's clients, which type it as anything."""

    def execute_command(self, *arguments: _Argument, **options: object) -> object: ...


class _AsyncCommands(Protocol):
    """The same of its asyncio clients."""

    async def execute_command(self, *arguments: _Argument, **options: object) -> object: ...

    async def aclose(self) -> None: ...


class _Script(NamedTuple):
    text: str
    sha: str


def _script(text: str) -> _Script:
    # SHA-1 is how Redis names scripts.
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_READ: Final = _script("""
local found = {}
for i, key in ipairs(KEYS) do
  found[2 * i - 1] = redis.call('GET', key)
  found[2 * i] = redis.call('PTTL', key)
end
return found
""")

# KEYS: the list of names, those that have to be what they were, those that change.
# ARGV: how many conditions, each as 'is' and the value or 'absent' and nothing, then the changes,
# each as name, milliseconds (nothing: remove it), value, and 'listed' or nothing.
_COMMIT: Final = _script("""
local conditions = tonumber(ARGV[1])
for i = 1, conditions do
  local expected = ARGV[2 * i] == 'is' and ARGV[2 * i + 1]
  if redis.call('GET', KEYS[1 + i]) ~= expected then return 0 end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = 2 * conditions + 2
for i = 2 + conditions, #KEYS do
  local name, milliseconds, value, listed = unpack(ARGV, at, at + 3)
  at = at + 4
  if milliseconds == '' then
    redis.call('DEL', KEYS[i])
  else
    redis.call('SET', KEYS[i], value, 'PX', milliseconds)
  end
  if listed == 'listed' then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    redis.call('ZADD', KEYS[1], now + milliseconds, name)
    if redis.call('PTTL', KEYS[1]) < tonumber(milliseconds) then
      redis.call('PEXPIRE', KEYS[1], milliseconds)
    end
  else
    redis.call('ZREM', KEYS[1], name)
  end
end
return 1
""")


class _Keys:
    """Where entries lie, and how they are asked for and changed; no connection here."""

    def __init__(self, namespace: object, prefix: object) -> None:
        if not isinstance(namespace, str) or not namespace.strip() or not namespace.isprintable():
            raise ConfigurationError(
                "`namespace` must be a string that names the application, its stage and its "
                f"tenant, such as 'shop-production', got {shown(namespace)}."
            )
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"`prefix` must consist of letters, digits and `_.:-`, got {shown(prefix)}."
            )
        self.namespace: Final = namespace
        self._prefix = prefix

    def list_of(self, group: str) -> str:
        return f"{self._prefix}:{{{group}}}"

    def reading(self, group: str, names: Sequence[str]) -> list[_Argument]:
        """What follows the script in the command."""
        return [len(names), *self._keys(group, names)]

    def read(self, answer: object) -> list[Entry | None]:
        found = cast("list[bytes | int | None]", answer)
        return [_entry(*pair) for pair in zip(found[::2], found[1::2], strict=True)]

    def committing(
        self, group: str, changes: Mapping[str, Entry | None], when: Mapping[str, bytes | None]
    ) -> list[_Argument]:
        """What follows the script in the command."""
        arguments: list[_Argument] = [
            1 + len(when) + len(changes),
            self.list_of(group),
            *self._keys(group, when),
            *self._keys(group, changes),
            len(when),
        ]
        for expected in when.values():
            arguments += ["absent", ""] if expected is None else ["is", expected]
        for name, entry in changes.items():
            if entry is None:
                arguments += [name, "", "", ""]
            else:
                milliseconds = max(1, math.floor(entry.seconds * 1000))
                listed = "listed" if entry.listed else ""
                arguments += [name, milliseconds, entry.value, listed]
        return arguments

    def _keys(self, group: str, names: Sequence[str] | Mapping[str, object]) -> list[str]:
        return [f"{self._prefix}:{{{group}}}:{name}" for name in names]


def _entry(value: bytes | int | None, milliseconds: bytes | int | None) -> Entry | None:
    if not isinstance(value, bytes) or not isinstance(milliseconds, int) or milliseconds <= 0:
        return None
    return Entry(MaskedBytes(value), milliseconds / 1000)


def _names(answer: object) -> list[str]:
    return [name.decode() for name in cast("list[bytes]", answer)]


def _failure(error: Exception) -> SessionStoreError | None:
    """To be raised outside the `except`: redis-py's frames hold what was sent.

    Returns:
        None where Redis does not know the script yet, and is to be given it.
    """
    if isinstance(error, NoScriptError):
        return None
    return SessionStoreError(
        f"The session store does not answer ({type(error).__name__}: {shown(str(error))}).",
        hint="Check that Redis runs, takes the user and password, permits the commands and has "
        "memory left.",
    )


def _settings(timeout: float | None, retry: object) -> dict[str, object]:
    """redis-py's words for them."""
    if timeout is None or flaw_of_timeout(timeout) is not None:
        flaw = flaw_of_timeout(timeout) or "must be seconds: a call cannot wait for ever"
        raise ConfigurationError(f"`timeout` {flaw}.")
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
        self._keys = _Keys(namespace, prefix)
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
            timeout: Seconds that connecting, and each answer, may take: more than 0, at most
                1,000,000; left out: 1.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        _Keys(namespace, prefix)  # refused before there is a pool, which shows the password
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
        return self._keys.read(self._run(_READ, self._keys.reading(group, names)))

    def names(self, group: str) -> list[str]:
        """See `SessionStore.names`."""
        return _names(self._execute("ZRANGE", self._keys.list_of(group), 0, -1))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `SessionStore.commit`."""
        return self._run(_COMMIT, self._keys.committing(group, changes, when)) == 1

    def _run(self, script: _Script, arguments: Sequence[_Argument]) -> object:
        answer = self._execute("EVALSHA", script.sha, *arguments)
        return self._execute("EVAL", script.text, *arguments) if answer is _NO_SCRIPT else answer

    def _execute(self, *command: _Argument) -> object:
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
        self._keys = _Keys(namespace, prefix)
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
            timeout: Seconds that connecting, and each answer, may take: more than 0, at most
                1,000,000; left out: 1.

        Raises:
            ConfigurationError: The URL, the namespace, the prefix or the timeout cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        _Keys(namespace, prefix)  # refused before there is a pool, which shows the password
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
        return self._keys.read(await self._run(_READ, self._keys.reading(group, names)))

    async def names(self, group: str) -> list[str]:
        """See `AsyncSessionStore.names`."""
        return _names(await self._execute("ZRANGE", self._keys.list_of(group), 0, -1))

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `AsyncSessionStore.commit`."""
        return await self._run(_COMMIT, self._keys.committing(group, changes, when)) == 1

    async def _run(self, script: _Script, arguments: Sequence[_Argument]) -> object:
        answer = await self._execute("EVALSHA", script.sha, *arguments)
        if answer is _NO_SCRIPT:
            return await self._execute("EVAL", script.text, *arguments)
        return answer

    async def _execute(self, *command: _Argument) -> object:
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
