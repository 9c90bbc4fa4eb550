"""redis-py for the stores: its settings, its clients' kinds, what its failures mean."""

import inspect
from typing import Final, Protocol

import redis
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.exceptions import ConnectionError as RedisConnectionError, NoScriptError
from redis.retry import Retry

from chatkit_sessions._concurrency.interrupts import interrupt_in
from chatkit_sessions._config.validation import problem_with_timeout
from chatkit_sessions._redaction import redact, safe_repr, without_frames
from chatkit_sessions.errors import ConfigurationError, SessionStoreError

from ._redis_commands import Argument, Keys

DEFAULT_TIMEOUT: Final = 1.0
"""Seconds that an operation may take: a call goes on without the store then."""
MAX_CONNECTIONS: Final = 40
MAX_REASON: Final = 500
"""Characters of redis-py's own text in an error."""

# A reply as it came, however the client is set to: values are bytes.
AS_BYTES: Final[dict[str, list[object]]] = {NEVER_DECODE: []}


class Pipeline(Protocol):
    """Commands that are sent together, on one connection."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def execute(self, *, raise_on_error: bool) -> list[object]: ...


class Commands(Protocol):
    """What is used of redis-py's clients, which type it as anything."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def pipeline(self, *, transaction: bool) -> Pipeline: ...


class AsyncPipeline(Protocol):
    """The same as `Pipeline` for asyncio."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    async def execute(self, *, raise_on_error: bool) -> list[object]: ...


class AsyncCommands(Protocol):
    """The same as `Commands` for asyncio."""

    async def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def pipeline(self, *, transaction: bool) -> AsyncPipeline: ...

    async def aclose(self) -> None: ...


def failure(error: Exception, *, handled: BaseException | None = None) -> BaseException | None:
    """To be raised outside the `except`: redis-py's frames hold what was sent.

    Returns:
        None where Redis does not know the script yet, and is to be given it. What interrupts the
        call stays what it is.
    """
    if isinstance(error, NoScriptError):
        return None
    interrupt = interrupt_in(error, handled=handled)
    if interrupt is not None:
        return without_frames(interrupt)
    reason = ascii(redact(str(error)[:MAX_REASON]))
    return SessionStoreError(
        f"The session store does not respond ({type(error).__name__}: {reason}).",
        hint="Check that Redis runs, accepts the user and password, permits the commands and has "
        "memory left.",
    )


def check_client(client: object, *, asynchronous: bool) -> None:
    """Refuse what is no client of redis-py, or one of the other kind.

    Raises:
        ConfigurationError: It is none.
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
        ConfigurationError: It is no number of seconds.
    """
    problem = problem_with_timeout(timeout)
    if timeout is None or problem is not None:
        problem = problem or "must be seconds: a call cannot wait for ever"
        raise ConfigurationError(f"`timeout` {problem}.")
    return timeout


def check_wait_replicas(wait_replicas: object, client: object) -> int:
    """Return how many replicas a sign-out waits for.

    Raises:
        ConfigurationError: It is no such number, or the client is a cluster's.
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


# A kept connection that the server has closed meanwhile is made anew, once. That is safe: every
# change that clients make may be made twice. A server that is silent is not asked again.
_RETRIES: Final = 1
_RETRIED: Final = (RedisConnectionError,)


def pool_settings(timeout: float) -> dict[str, object]:
    """redis-py's words for the settings of connections of our own."""
    return {
        # The clients wait no longer than `timeout`; this frees the thread that they have left.
        "socket_timeout": 2 * timeout,
        "socket_connect_timeout": 2 * timeout,
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
    """What both stores in Redis are set to."""

    def __init__(
        self, client: object, *, asynchronous: bool, keys: Keys, timeout: float, wait_replicas: int
    ) -> None:
        check_client(client, asynchronous=asynchronous)
        self._keys = keys
        self.timeout: float = check_timeout(timeout)
        """Seconds that a call waits for an operation."""
        self.wait_replicas: int = check_wait_replicas(wait_replicas, client)
        """How many replicas have to confirm a sign-out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    @property
    def namespace(self) -> str:
        """What keeps sessions apart from others in the same Redis."""
        return self._keys.namespace
