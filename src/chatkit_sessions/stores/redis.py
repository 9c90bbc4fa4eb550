"""Stores in Redis 5 or later, Redis Cluster or Valkey, for all processes of a backend.

Install redis-py with `pip install "chatkit-sessions[redis]"`.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from chatkit_sessions._concurrency.tasks import PerLoop, under_trio
from chatkit_sessions._concurrency.threads import PerProcess, run_blocking
from chatkit_sessions._config.validation import as_secret, concealed, problem_with_timeout
from chatkit_sessions._redaction import hidden_from_tracebacks, safe_repr
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
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    from ._redis_senders import (
        Commands,
        OwnSender,
        Sender,
        failure,
        for_tasks,
        for_threads,
        is_unknown_script,
        leads_nowhere,
    )
except ModuleNotFoundError as _error:
    raise ImportError(
        'The Redis stores need redis-py: pip install "chatkit-sessions[redis]"'
    ) from _error

__all__ = ["AsyncRedisSessionStore", "RedisSessionStore"]

OPERATION_TIMEOUT: Final = 1.0
"""Seconds that an operation may take: a call goes on without the store then."""
MAX_CONNECTIONS: Final = 40
"""More than one are open where a sign-out waits for replicas, or an operation hangs."""
_DATABASE: Final = re.compile(r"/?[0-9]*/?")
_NO_ENTRY: Final = ("",)
"""Read for the time alone: a key leads to the group's node of a cluster."""
# A kept connection that the server has closed meanwhile is made anew, once. That is safe: every
# change that clients make may be made twice. A server that is silent is not asked again.
_RETRIES: Final = 1
_RETRIED: Final = (RedisConnectionError,)


class _RedisStore:
    """The settings of both stores in Redis."""

    def __init__(
        self, client: object, *, asynchronous: bool, keys: Keys, timeout: float, wait_replicas: int
    ) -> None:
        _validate_client(client, asynchronous=asynchronous)
        self._keys = keys
        self.timeout: float = _validate_timeout(timeout)
        """Seconds that a call waits for an operation."""
        self.limits_itself: bool = not isinstance(
            client, redis.RedisCluster | redis.asyncio.RedisCluster
        )
        """Whether each operation ends in about that time, however many callers there are."""
        self.wait_replicas: int = _validate_wait_replicas(wait_replicas, client)
        """How many replicas have to confirm a sign-out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    @property
    def namespace(self) -> str:
        """Separates these sessions from others in the same Redis."""
        return self._keys.namespace


class RedisSessionStore(_RedisStore):
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
        client = concealed(client)  # it may be a URL
        super().__init__(
            client,
            asynchronous=False,
            keys=Keys(namespace, prefix),
            timeout=timeout,
            wait_replicas=wait_replicas,
        )
        sender = Sender(cast("Commands", client), asynchronous=False)
        self._redis = _Operations(
            self._keys,
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
            namespace: Separates applications, stages and tenants in one Redis, such as
                `shop-production`. Stores with the same namespace share the sessions of a user id.
            prefix: The prefix of all keys: letters, digits and `_.:-`; default `chatkit`.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.
            wait_replicas: How many replicas have to confirm a sign-out.

        Raises:
            ConfigurationError: The URL or one of the settings cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # validated before there is a pool, which shows the password
        checked = _validate_url(url)
        settings = _pool_settings(_validate_timeout(timeout), Retry)
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves its options untyped
            checked.get_secret_value(), **settings
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
        store._redis = _Operations(store._keys, sender, asynchronous=False)
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
        """Read entries, all at one moment; see `SessionStore`."""
        return self.get_with_time(group, names)[0]

    def get_with_time(self, group: str, names: Sequence[str]) -> tuple[list[Entry | None], float]:
        """Read entries, and the time that `now` returns; see `SessionStore`."""
        return run_blocking(self._redis.get_with_time, group, names)

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """Read entries of several groups in one round trip; see `SessionStore`."""
        return run_blocking(self._redis.get_many, entries)

    def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; see `SessionStore`."""
        return run_blocking(self._redis.names, group)

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold; see `SessionStore`."""
        return run_blocking(self._redis.commit, group, changes, when)

    def commit_or_get(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        *,
        when: Mapping[str, bytes | None],
        names: Sequence[str],
    ) -> tuple[list[Entry | None], float] | None:
        """Commit, or read if a condition does not hold; see `SessionStore`."""
        return run_blocking(self._redis.commit_or_get, group, changes, when, names)

    def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool:
        """Commit, and wait until replicas have confirmed it; see `SessionStore`."""
        replicas = self.wait_replicas
        return run_blocking(self._redis.commit_to_replicas, replicas, group, changes, seconds)

    def run_script(
        self, script: Script, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """Run a script of this library's on entries of a group."""
        return run_blocking(self._redis.run_script, script, group, names, arguments)

    def now(self, group: str) -> float:
        """Seconds by the clock of the server that has the group, which `expires_at` counts by."""
        return self.get_with_time(group, _NO_ENTRY)[1]


class AsyncRedisSessionStore(_RedisStore):
    """A store in Redis, for `AsyncChatKitClient` under asyncio. Safe to use from several tasks.

    Args:
        client: Your redis-py client, `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`, from
            the event loop that uses the store. The store never closes it.
        namespace: Separates applications, stages and tenants in one Redis, such as
            `shop-production`. Stores with the same namespace share the sessions of a user id.
        prefix: The prefix of all keys: letters, digits and `_.:-`; default `chatkit`.
        timeout: Seconds that an operation may take, whatever the client is set to: more than 0, at
            most 1,000,000.
        wait_replicas: How many replicas have to confirm a sign-out; not with a cluster.

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
        client = concealed(client)  # it may be a URL
        super().__init__(
            client,
            asynchronous=True,
            keys=Keys(namespace, prefix),
            timeout=timeout,
            wait_replicas=wait_replicas,
        )
        sender = Sender(cast("Commands", client), asynchronous=True)
        self._redis = _Operations(
            self._keys,
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
            url: `redis://…`, `rediss://…` (TLS) or `unix://…`, in redis-py's format.
            namespace: Separates applications, stages and tenants in one Redis, such as
                `shop-production`. Stores with the same namespace share the sessions of a user id.
            prefix: The prefix of all keys: letters, digits and `_.:-`; default `chatkit`.
            timeout: Seconds that an operation may take, connecting included: more than 0, at most
                1,000,000.
            wait_replicas: How many replicas have to confirm a sign-out.

        Raises:
            ConfigurationError: The URL or one of the settings cannot be used.
        """
        url = as_secret(url)  # local variables are part of tracebacks
        Keys(namespace, prefix)  # validated before there is a pool, which shows the password
        checked = _validate_url(url)
        settings = _pool_settings(None, AsyncRetry)

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
        sender = for_tasks(own_sender, store.timeout)
        store._redis = _Operations(store._keys, sender, asynchronous=True)
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
        """Read entries, all at one moment; see `SessionStore`."""
        return (await self.get_with_time(group, names))[0]

    async def get_with_time(
        self, group: str, names: Sequence[str]
    ) -> tuple[list[Entry | None], float]:
        """Read entries, and the time that `now` returns; see `SessionStore`."""
        return await self._redis.get_with_time(group, names)

    async def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """Read entries of several groups in one round trip; see `SessionStore`."""
        return await self._redis.get_many(entries)

    async def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; see `SessionStore`."""
        return await self._redis.names(group)

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold; see `SessionStore`."""
        return await self._redis.commit(group, changes, when)

    async def commit_or_get(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        *,
        when: Mapping[str, bytes | None],
        names: Sequence[str],
    ) -> tuple[list[Entry | None], float] | None:
        """Commit, or read if a condition does not hold; see `SessionStore`."""
        return await self._redis.commit_or_get(group, changes, when, names)

    async def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool:
        """Commit, and wait until replicas have confirmed it; see `SessionStore`."""
        return await self._redis.commit_to_replicas(self.wait_replicas, group, changes, seconds)

    async def run_script(
        self, script: Script, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """Run a script of this library's on entries of a group."""
        return await self._redis.run_script(script, group, names, arguments)

    async def now(self, group: str) -> float:
        """Seconds by the clock of the server that has the group, which `expires_at` counts by."""
        return (await self.get_with_time(group, _NO_ENTRY))[1]


class _Operations:
    """What a store does, for both stores; over a synchronous client, nothing here suspends.

    Args:
        keys: The keys of entries.
        sender: Sends commands: one, or one for each process or event loop.
        asynchronous: Whether it is to be used under asyncio.
    """

    def __init__(
        self,
        keys: Keys,
        sender: Sender | PerProcess[Sender] | PerLoop[Sender],
        *,
        asynchronous: bool,
    ) -> None:
        self._keys = keys
        self.sender: Final = sender
        self._asynchronous = asynchronous
        self._is_checked = False

    async def get_with_time(
        self, group: str, names: Sequence[str]
    ) -> tuple[list[Entry | None], float]:
        """See `SessionStore`."""
        return parse_read(await self._run(READ, self._keys.read_arguments(group, names)))

    async def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        """See `SessionStore`."""
        replies = await self._together(self._keys.read_commands(entries))
        return parse_entries([_required(each) for each in replies])

    async def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; see `SessionStore`."""
        return parse_names(await self._command(self._keys.names_command(group)))

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold; see `SessionStore`."""
        return await self._commit(self._keys.commit_arguments(group, changes, when)) == 1

    async def commit_or_get(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        when: Mapping[str, bytes | None],
        names: Sequence[str],
    ) -> tuple[list[Entry | None], float] | None:
        """See `SessionStore`."""
        reply = await self._commit(self._keys.commit_arguments(group, changes, when, names))
        return None if reply == 1 else parse_read(reply)

    async def commit_to_replicas(
        self, replicas: int, group: str, changes: Mapping[str, Entry | None], seconds: float
    ) -> bool:
        """See `SessionStore`."""
        commit = COMMIT.with_text(self._keys.commit_arguments(group, changes, {}))
        replies = await self._together([commit, wait_command(replicas, seconds)], apart=True)
        _, confirmed = map(_required, replies)
        return cast("int", confirmed) >= replicas

    async def run_script(
        self, script: Script, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """Run a script of this library's on entries of a group."""
        return await self._run(script, self._keys.script_arguments(group, names, arguments))

    async def _run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """Run a script, which Redis is given if it does not have it."""
        (reply,) = await self._together([("EVALSHA", script.sha, *arguments)])
        if is_unknown_script(reply):
            return await self._command(script.with_text(arguments))
        return _required(reply)

    async def _command(self, command: Command) -> object:
        (reply,) = await self._together([command])
        return _required(reply)

    async def _commit(self, arguments: Sequence[Argument]) -> object:
        """Run `COMMIT`; the first time, look for a setting that lets Redis forget.

        Returns:
            1 if it has changed the entries; otherwise what `READ` returns, or 0.
        """
        if self._is_checked:
            return await self._run(COMMIT, arguments)
        self._is_checked = True
        committed, info = await self._together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return _required(committed)

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


def _validate_client(client: object, *, asynchronous: bool) -> None:
    """Reject anything but a client of redis-py of the right kind.

    Raises:
        ConfigurationError: It is not a client, or sync where async is expected, or vice versa.
    """
    store, kind = "RedisSessionStore", "redis.Redis or redis.RedisCluster"
    if asynchronous:
        store, kind = "AsyncRedisSessionStore", "redis.asyncio.Redis or redis.asyncio.RedisCluster"
    execute: object = getattr(client, "execute_command", None)
    if not callable(execute) or isinstance(client, type):
        hint = f"Pass a URL to {store}.from_url." if isinstance(client, str | SecretStr) else None
        given = "a URL" if isinstance(client, str | SecretStr) else safe_repr(client)
        raise ConfigurationError(f"{store} takes a {kind}, not {given}.", hint=hint)
    if inspect.iscoroutinefunction(execute) != asynchronous:
        module, name = type(client).__module__, type(client).__name__
        raise ConfigurationError(
            f"{store} takes a {kind}, not a {module}.{name}, which is "
            f"{'synchronous' if asynchronous else 'asynchronous'}."
        )


def _validate_timeout(timeout: float | None) -> float:
    """Return the seconds that an operation may take.

    Raises:
        ConfigurationError: The timeout is not a valid number of seconds.
    """
    problem = problem_with_timeout(timeout)
    if timeout is None or problem is not None:
        problem = problem or "must be seconds: a call cannot wait for ever"
        raise ConfigurationError(f"`timeout` {problem}.")
    return timeout


def _validate_wait_replicas(wait_replicas: object, client: object) -> int:
    """Return how many replicas a sign-out waits for.

    Raises:
        ConfigurationError: The number is invalid, or the client is a cluster's.
    """
    if not isinstance(wait_replicas, int) or isinstance(wait_replicas, bool) or wait_replicas < 0:
        raise ConfigurationError(
            f"`wait_replicas` must be an integer, 0 or more, got {safe_repr(wait_replicas)}."
        )
    if wait_replicas and isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        raise ConfigurationError(
            "`wait_replicas` is for one master and its replicas, not a cluster."
        )
    return wait_replicas


def _validate_url(url: object) -> SecretStr:
    """Reject a URL that redis-py cannot read, without quoting it: it may hold a password."""
    if isinstance(url, SecretStr) and _is_url(url):
        return url
    raise ConfigurationError(
        "`url` must be redis://, rediss:// or unix://, such as rediss://user:password@host:6379/0; "
        "in a password, characters other than letters, digits, `-`, `.`, `_` and `~` are "
        "percent-encoded. After the host there is nothing but the number of a database."
    )


@hidden_from_tracebacks
def _is_url(masked: SecretStr) -> bool:
    url = masked.get_secret_value()
    try:
        parse_url(url)
        parts = urlsplit(url)
    except ValueError:  # whose text quotes the URL
        return False
    # Of another path redis-py takes the database 0, and white space it finds too late.
    return url == url.strip() and (
        parts.scheme == "unix" or _DATABASE.fullmatch(parts.path) is not None
    )


def _pool_settings(
    timeout: float | None, retry: type[Retry] | type[AsyncRetry]
) -> dict[str, object]:
    """The settings of our own connections, as redis-py names them.

    Args:
        timeout: Seconds to connect, and for each piece of a reply: an operation may run in the
            caller's thread, which nothing else would free. None under asyncio, where an operation
            that takes too long is cancelled: redis-py would end it, too, when the event loop was
            blocked for a while.
        retry: redis-py's class, of the client's kind.
    """
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": retry(NoBackoff(), _RETRIES, _RETRIED),
        "timeout": None,  # the clients use no more connections at once than there are
        "max_connections": MAX_CONNECTIONS,
    }
