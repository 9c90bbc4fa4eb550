"""redis-py for the stores: its settings, its clients' kinds, what its failures mean."""

import inspect
import re
import sys
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from time import monotonic
from typing import Final, Protocol, cast

import redis
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from chatkit_sessions._concurrency.threads import OverdueError, ThreadLimiter, interrupt_in
from chatkit_sessions._config.validation import problem_with_timeout
from chatkit_sessions._redaction import MaskedBytes, redact, safe_repr, without_frames
from chatkit_sessions.errors import ConfigurationError, SessionStoreError

from ._redis_commands import Argument, Command, Keys, pack

OPERATION_TIMEOUT: Final = 1.0
"""Seconds that an operation may take: a call goes on without the store then."""
MAX_CONNECTIONS: Final = 40
"""More than one are open where a sign-out waits for replicas, or an operation hangs."""
THREADS: Final = 8
"""For what a synchronous client does without a time limit; most often, one works."""
MAX_HANGING: Final = 32
"""How many more of them may hang."""
MAX_REASON: Final = 500
"""Characters of redis-py's own text in an error."""

# A reply as it came, however the client is set to: values are bytes.
AS_BYTES: Final[dict[str, list[object]]] = {NEVER_DECODE: []}


_CODES: Final[dict[type[Exception], str]] = {
    ReadOnlyError: "READONLY",
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    MovedError: "MOVED",
    AskError: "ASK",
}
"""The more special class comes first."""
_REPLIED: Final = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)
"""What a server itself said; the last three are connection errors to redis-py."""
_TOO_MANY: Final = (
    "max number of clients reached",
    "Too many connections",
    "No connection available.",
)
"""What a server, or a pool of yours, says in a plain connection error."""
_CODE: Final = re.compile(rf"\b({'|'.join(_CODES.values())}|NOREPLICAS)\b")
_HINT: Final = (
    "Check that Redis runs, uses TLS if and only if the URL begins with `rediss://`, accepts the "
    "user and password, permits the commands and has memory left."
)
_A_CLUSTER: Final = (
    "This Redis is a cluster: pass `redis.RedisCluster(host=…)`, or the one of `redis.asyncio`, to "
    "the store instead of a URL or another client."
)
_HINTS: Final = {
    "READONLY": "This server is a replica. Check that the address leads to the primary.",
    "MOVED": _A_CLUSTER,
    "ASK": _A_CLUSTER,
    "CLUSTERDOWN": f"Check that all nodes of the cluster run. {_A_CLUSTER}",
}


class Connection(Protocol):
    """What is used of redis-py's connections; asyncio's are awaited."""

    def send_packed_command(self, command: list[bytes], *, check_health: bool) -> object: ...

    def read_response(self, *, disable_decoding: bool) -> object: ...

    def disconnect(self, **options: bool) -> object: ...


class Pool(Protocol):
    """What is used of redis-py's pools; asyncio's are awaited."""

    def get_connection(self) -> object: ...

    def release(self, connection: Connection) -> object: ...

    def disconnect(self, *, inuse_connections: bool = ...) -> object: ...


class Pipeline(Protocol):
    """Commands that are sent together, on one connection."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def execute(self, *, raise_on_error: bool) -> object: ...


class Commands(Protocol):
    """What is used of redis-py's clients, which type it as anything; asyncio's are awaited."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def pipeline(self, *, transaction: bool) -> Pipeline: ...

    async def aclose(self) -> None: ...


class Sender:
    """Sends commands over a client of redis-py; over a synchronous one, nothing here suspends.

    Args:
        client: The client.
        asynchronous: Whether it is asyncio's.
    """

    def __init__(self, client: Commands, *, asynchronous: bool) -> None:
        self.client: Final = client
        self.asynchronous: Final = asynchronous

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands, in one round trip; an error takes the place of a reply.

        What redis-py raises loses its frames, which hold what was sent and replied, and so does an
        interrupt.
        """
        handled = sys.exception()
        try:
            return await self._send(commands)
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            interrupt = interrupt_in(error, handled=handled)
            raised = without_frames(error)
        except BaseException as error:  # an interrupt, which shows replies, too
            if self.asynchronous:  # a cancellation, which shows none, keeps what it is chained to
                raise
            raise without_frames(error)  # noqa: B904 -- as above
        if interrupt is not None:
            raise without_frames(interrupt)
        return [raised] * len(commands)

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        if isinstance(self.client, redis.asyncio.RedisCluster):
            # Many first commands at once meet a cluster client that is half initialized.
            await self.client.initialize()
        if len(commands) == 1:
            return [masked(await self._end(self.client.execute_command(*commands[0], **AS_BYTES)))]
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command, **AS_BYTES)
        return cast("list[object]", masked(await self._end(pipeline.execute(raise_on_error=False))))

    async def send_apart(self, commands: Sequence[Command]) -> list[object]:
        """`send` commands that take long, for which no other caller should wait."""
        return await self.send(commands)

    async def disconnect_idle(self) -> None:
        """Close the connections that no operation uses; a cluster's client does so itself."""
        only: Pool | None = getattr(self.client, "connection", None)  # of a client with one only
        for each in (only, _pool_of(self.client)):
            if each is not None:
                await self._end(_disconnect(each))

    async def aclose(self) -> None:
        """Close the connections, if they are ours."""

    async def _end(self, result: object) -> object:
        return await cast("Awaitable[object]", result) if self.asynchronous else result


class OwnSender(Sender):
    """The same for a client that we made, over connections that stay with us between commands.

    That costs half. Whatever watches redis-py replaces methods of its clients; these are used then.

    Args:
        client: The client.
        asynchronous: Whether it is asyncio's, where whoever sends limits the time.
        seconds: Otherwise, how long connecting may take, and then all replies together.
    """

    def __init__(self, client: Commands, *, asynchronous: bool, seconds: float) -> None:
        super().__init__(client, asynchronous=asynchronous)
        self._seconds = seconds
        self._threads = ThreadLimiter(THREADS, hanging=MAX_HANGING)
        self._pool = cast("Pool", _pool_of(client))
        self._idle = deque[Connection]()

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        if type(self.client).execute_command not in _UNWATCHED:
            return await super()._send(commands)
        connection = _pop(self._idle)
        if connection is not None:
            try:
                return await self._exchange(connection, commands)
            except RedisConnectionError:
                # The server has closed it meanwhile. Every change may be made twice.
                await self.disconnect_idle()
        return await self._exchange(await self._connect(), commands)

    async def _connect(self) -> Connection:
        if self.asynchronous:
            return cast("Connection", await self._end(self._pool.get_connection()))
        is_wanted = True

        def connect() -> Connection:
            connection = cast("Connection", self._pool.get_connection())
            if not is_wanted:
                self._pool.release(connection)
            return connection

        # In another thread, because nothing else ends a name's resolution.
        try:
            connection = self._threads.run(connect, queue_timeout=None, limit=self._seconds)
        except OverdueError:
            pass
        else:
            self._threads.give_up_hanging()
            return connection
        finally:
            is_wanted = False
        raise TimeoutError(f"no connection within {self._seconds:.3g} s")

    async def aclose(self) -> None:
        """See `Sender`."""
        await self.client.aclose()

    async def disconnect_idle(self) -> None:
        """See `Sender`."""
        while (connection := _pop(self._idle)) is not None:
            await self._drop(connection)

    async def _exchange(self, connection: Connection, commands: Sequence[Command]) -> list[object]:
        replies: list[object] = []
        ends = monotonic() + self._seconds
        try:
            sending = connection.send_packed_command([pack(commands)], check_health=False)
            if self.asynchronous:
                await cast("Awaitable[object]", sending)
            for _ in commands:
                self._check_time(ends)
                try:
                    reading = connection.read_response
                    replies.append(masked(await self._end(reading(disable_decoding=True))))
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            # Also one of a signal handler, or a cancellation: a reply may be left to read.
            await self._drop(connection)
            raise
        self._idle.append(connection)
        return replies

    def _check_time(self, ends: float) -> None:
        # A synchronous connection's own limit is for each piece that arrives.
        if not self.asynchronous and monotonic() > ends:
            raise TimeoutError(f"no reply within {self._seconds:.3g} s")

    async def _drop(self, connection: Connection) -> None:
        await self._end(connection.disconnect(**{"nowait": True} if self.asynchronous else {}))
        await self._end(self._pool.release(connection))


def _is_watched(method: object) -> bool:
    module: str = getattr(method, "__module__", "")
    return hasattr(method, "__wrapped__") or not module.startswith("redis.")


_UNWATCHED: Final = [
    method
    for client in (redis.Redis, redis.asyncio.Redis)
    if not _is_watched(method := cast("object", vars(client).get("execute_command")))
]
"""Their own methods, unless something watches them before this module is imported."""


def _pool_of(client: object) -> Pool | None:
    return getattr(client, "connection_pool", None)


def _pop(connections: deque[Connection]) -> Connection | None:
    try:
        return connections.pop()
    except IndexError:
        return None


def failure(error: Exception) -> SessionStoreError:
    """Translate an exception of redis-py, raised or returned in place of a reply."""
    said = str(error)
    reason = ascii(redact(said[:MAX_REASON]))
    is_silent = not isinstance(error, _REPLIED) and not said.startswith(_TOO_MANY)
    state = "does not respond" if is_silent else "cannot be used"
    return SessionStoreError(
        f"The session store {state} ({type(error).__name__}: {reason}).",
        hint=_HINTS.get(_code_of(error) or "", _HINT),
    )


def masked(reply: object) -> object:
    """A reply without its plain bytes, which may hold a secret: a traceback would show them."""
    if isinstance(reply, list):
        return [masked(each) for each in cast("list[object]", reply)]
    return MaskedBytes(reply) if isinstance(reply, bytes) else reply


def is_unknown_script(reply: object) -> bool:
    """Whether Redis does not have a script yet."""
    return isinstance(reply, NoScriptError)


def does_not_respond(replies: Sequence[object]) -> bool:
    """Whether one error, which is no reply of a server's, stands in place of all replies."""
    first = replies[0]
    failed = isinstance(first, OSError | RedisConnectionError | RedisTimeoutError)
    return failed and first is replies[-1]


def leads_nowhere(replies: Iterable[object]) -> bool:
    """Whether a server says: not here, or not now.

    After a failover, connections stay open to a server that is a replica by then. Whoever connects
    anew may reach another server, to which the name, the proxy or Sentinel leads.
    """
    return any(isinstance(each, Exception) and _code_of(each) is not None for each in replies)


def _code_of(error: Exception) -> str | None:
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    # Redis 6 puts what a command of a script raises behind an `ERR` of the script.
    found = _CODE.search(str(error)) if isinstance(error, ResponseError) else None
    return found and found[0]


def _disconnect(pool: Pool) -> object:
    if "inuse_connections" in inspect.signature(pool.disconnect).parameters:
        return pool.disconnect(inuse_connections=False)
    return pool.disconnect()  # before redis-py 7, a blocking pool takes all, also those in use


def check_client(client: object, *, asynchronous: bool) -> None:
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


def check_timeout(timeout: float | None) -> float:
    """Return the seconds that an operation may take.

    Raises:
        ConfigurationError: The timeout is not a valid number of seconds.
    """
    problem = problem_with_timeout(timeout)
    if timeout is None or problem is not None:
        problem = problem or "must be seconds: a call cannot wait for ever"
        raise ConfigurationError(f"`timeout` {problem}.")
    return timeout


def check_wait_replicas(wait_replicas: object, client: object) -> int:
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


def check_url(url: object) -> SecretStr:
    """Reject a URL that redis-py cannot read, without quoting it: it may hold a password."""
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


# A kept connection that the server has closed meanwhile is made anew, once. That is safe: every
# change that clients make may be made twice. A server that is silent is not asked again.
_RETRIES: Final = 1
_RETRIED: Final = (RedisConnectionError,)


def pool_settings(timeout: float) -> dict[str, object]:
    """The settings of our own connections, as redis-py names them."""
    return {
        # An operation may run in the caller's thread, which nothing else would free.
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), _RETRIES, _RETRIED),
        "timeout": None,  # the clients use no more connections at once than there are
        "max_connections": MAX_CONNECTIONS,
    }


def async_pool_settings() -> dict[str, object]:
    """The same for asyncio, where an operation that takes too long is cancelled.

    redis-py's own limits would end it, too, when the event loop was blocked for a while.
    """
    return {
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": AsyncRetry(NoBackoff(), _RETRIES, _RETRIED),
        "timeout": None,
        "max_connections": MAX_CONNECTIONS,
    }


class RedisStore:
    """The settings of both stores in Redis."""

    def __init__(
        self, client: object, *, asynchronous: bool, keys: Keys, timeout: float, wait_replicas: int
    ) -> None:
        check_client(client, asynchronous=asynchronous)
        self._keys = keys
        self.timeout: float = check_timeout(timeout)
        """Seconds that a call waits for an operation."""
        self.limits_itself: bool = not isinstance(
            client, redis.RedisCluster | redis.asyncio.RedisCluster
        )
        """Whether each operation ends in about that time, however many callers there are."""
        self.wait_replicas: int = check_wait_replicas(wait_replicas, client)
        """How many replicas have to confirm a sign-out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    @property
    def namespace(self) -> str:
        """Separates these sessions from others in the same Redis."""
        return self._keys.namespace
