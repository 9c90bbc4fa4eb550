"""One store as clients and services use it: within time limits, and skipped during an outage."""

import inspect
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import (
    NotStartedError,
    OverdueError,
    PerProcess,
    ThreadLimiter,
)
from chatkit_sessions._redaction import safe_repr, type_of
from chatkit_sessions.errors import ConfigurationError, SessionStoreError
from chatkit_sessions.events import OnEvent, report
from chatkit_sessions.stores._redis_commands import Script
from chatkit_sessions.stores.base import AsyncSessionStore, Entry, SessionStore, Transaction
from chatkit_sessions.stores.memory import Evictions, MemorySessionStore

if TYPE_CHECKING:
    from chatkit_sessions._concurrency.tasks import TaskLimiter

    from .entries import CreatedSession, StoreSnapshot

T = TypeVar("T")

DEFAULT_LIMIT: Final = 1.0
"""Seconds for an operation of an async store that has no `timeout` of its own."""
AT_ONCE: Final = 32
"""Operations at once, in an event loop or in all threads."""
LEADERS_AT_ONCE: Final = 8
"""Further operations at once, of callers that others wait for. Each may take a connection."""
_CHECK_REDIS: Final = "Check that Redis runs, can be reached from here and is not overloaded."
MAX_UNPUBLISHED: Final = 1_000
"""Sessions that are remembered during an outage; the oldest make room."""

_MAX_ENTRIES_READ: Final = 1_000
"""Entries that are read in one operation, whose time is limited."""

_SHORTCUTS: Final = {
    "get_with_time": ("get",),
    "get_many": ("get",),
    "commit_or_get": ("get", "commit"),
    "run_script": ("get", "commit"),
}
"""What a store may have to save round trips, and the methods that it does without."""

RETRY_STORE_AFTER: Final = 1.0
"""Seconds between two attempts to use a store during an outage."""
FAILURES: Final = 2
"""Failures, one after the other, that make an outage."""

logger: Final = logging.getLogger("chatkit_sessions")


def validate_store(store: object, *, owner: str, awaits: bool) -> None:
    """Reject anything but a store, and an async store where a sync one is expected.

    Args:
        store: The store.
        owner: The class that uses it, for the message.
        awaits: Whether that class is async. A `MemorySessionStore`, which never waits, suits both.

    Raises:
        ConfigurationError: A method is missing, or is sync where async is expected, or vice versa.
    """
    asynchronous = awaits and not isinstance(store, MemorySessionStore)
    methods = [getattr(store, name, None) for name in ("get", "names", "commit")]
    if not all(callable(method) for method in methods) or isinstance(store, type):
        is_text = isinstance(store, str | SecretStr)
        kind = "AsyncRedisSessionStore" if awaits else "RedisSessionStore"
        raise ConfigurationError(
            "`store` must be a session store, such as those of chatkit_sessions.stores, "
            f"not {type_of(store)}.",
            hint=f"Pass the URL to `{kind}.from_url`, and `store` what that returns."
            if is_text
            else None,
        )
    if any(inspect.iscoroutinefunction(method) != asynchronous for method in methods):
        raise ConfigurationError(
            f"{type(store).__name__} is a store for {'plain' if asynchronous else 'async'} code; "
            f"{owner} needs one whose methods are {'async' if asynchronous else 'plain'} functions."
        )
    namespace: object = getattr(store, "namespace", None)
    if not isinstance(namespace, str):
        raise ConfigurationError(
            f"The store's `namespace` must be a string, not {safe_repr(namespace)}."
        )


class ScriptCall(NamedTuple):
    """The arguments of `RedisSessionStore.run_script`."""

    script: Script
    group: str
    names: Sequence[str]
    arguments: Sequence[str | bytes | int]


class StoreState:
    """What this process knows of one store, whichever clients and services it is given to.

    Args:
        store: That store; it is not kept.
    """

    def __init__(self, store: SessionStore | AsyncSessionStore) -> None:
        self.circuit_breaker: Final = CircuitBreaker(time.monotonic)
        self.executor: Final = StoreExecutor(store)
        # Apart: a lease that is renewed behind a crowd that polls for it would run out.
        self.leaders_executor: Final = StoreExecutor(store, LEADERS_AT_ONCE)
        self.probe_executor: Final = StoreExecutor(store, 1, hanging=AT_ONCE)
        """During an outage, one operation finds out whether it is over; others wait for that."""
        self.stand_in = MemorySessionStore()
        """Takes the store's place during an outage, and is emptied when that is over."""
        self.unpublished: Final[dict[str, tuple[CreatedSession, StoreSnapshot]]] = {}
        """Sessions, by id, to publish when the store responds again."""
        self.evictions: Final = Evictions()
        """Sessions of `unpublished` that have made room, by the expiry clock of their client."""

    def defer_publication(self, created: "CreatedSession", snapshot: "StoreSnapshot") -> None:
        """Remember a session that could not be published."""
        self.unpublished[created.session.id] = created, snapshot
        # Listed in one step: other threads change the dictionary meanwhile.
        for oldest in list(
            islice(self.unpublished, max(0, len(self.unpublished) - MAX_UNPUBLISHED))
        ):
            lost = self.unpublished.pop(oldest, None)
            if lost is not None:
                self.evictions.add(lost[0].identity.group, lost[0].works_until)

    def end_outage(self) -> None:
        """Forget what took the store's place, and give up what still waits for it."""
        self.stand_in = MemorySessionStore()
        for executor in (self.executor, self.leaders_executor, self.probe_executor):
            executor.give_up_hanging()


_states: Final[WeakKeyDictionary[object, StoreState]] = WeakKeyDictionary()


def state_of(store: SessionStore | AsyncSessionStore) -> StoreState:
    """What this process knows of a store; nothing yet where it is seen for the first time."""
    new = StoreState(store)
    try:
        return _states.setdefault(store, new)
    except TypeError:  # a user's own, which cannot be a key
        return new


class StoreAccess:
    """Reads and changes a store.

    Args:
        store: Whose entries.
        on_event: The function that a client or service reports outages to.
    """

    def __init__(
        self, store: SessionStore | AsyncSessionStore, on_event: OnEvent | None = None
    ) -> None:
        self.store: Final = store
        self.on_event: Final = on_event
        self.state: Final = state_of(store)
        self._bypasses: Final = [
            name for name in _SHORTCUTS if _is_bypass(type(store), name, _SHORTCUTS[name])
        ]

    def _shortcut(self, name: str) -> Callable[..., Any] | None:
        """A method that saves round trips; None where the store has none to be used.

        It is no part of the protocols: whoever asks for it names its type.
        """
        return None if name in self._bypasses else getattr(self.store, name, None)

    # Each is tried twice, or once in an outage, and raises SessionStoreError if it fails again

    async def get(self, group: str, names: Sequence[str], deadline: Deadline) -> list[Entry | None]:
        """Read entries."""
        return await self._run(lambda: self.store.get(group, names), deadline)

    async def get_with_time(
        self, group: str, names: Sequence[str], deadline: Deadline
    ) -> tuple[list[Entry | None], float | None]:
        """Read entries, and the time as `now` if that takes no other round trip; None: it does."""
        read: Callable[..., tuple[list[Entry | None], float]] | None
        read = self._shortcut("get_with_time")
        if read is None:
            return await self.get(group, names, deadline), None
        return await self._run(lambda: read(group, names), deadline)

    async def get_many(
        self, entries: Sequence[tuple[str, str]], deadline: Deadline
    ) -> list[Entry | None]:
        """Read entries of several groups, each named by its group and its name."""
        read: Callable[[object], list[Entry | None]] | None = self._shortcut("get_many")
        if read is not None:
            # In parts: a user with thousands of sessions is no outage.
            starts = range(0, len(entries), _MAX_ENTRIES_READ)
            parts = [entries[start : start + _MAX_ENTRIES_READ] for start in starts]
            return [
                entry for part in parts for entry in await self._run(partial(read, part), deadline)
            ]
        return [(await self.get(group, [name], deadline))[0] for group, name in entries]

    async def names(self, group: str, deadline: Deadline) -> list[str]:
        """Read the names of listed entries."""
        return await self._run(lambda: self.store.names(group), deadline)

    async def commit(
        self, transaction: Transaction, deadline: Deadline, *, leads: bool = False
    ) -> bool:
        """Change entries. They may be changed twice, or even if this fails.

        Args:
            transaction: The changes.
            deadline: The call's.
            leads: Whether callers in other processes wait for this one.
        """
        group, changes, when = transaction
        return await self._run(
            lambda: self.store.commit(group, changes, when=when), deadline, leads=leads, writes=True
        )

    async def commit_or_get(
        self,
        transaction: Transaction,
        names: Sequence[str],
        deadline: Deadline,
        *,
        leads: bool = False,
    ) -> tuple[list[Entry | None] | None, float | None]:
        """Change entries, or read some if a condition does not hold.

        Returns:
            As `get_with_time`; no entries if the changes are made.
        """
        group, changes, when = transaction
        run: Callable[..., tuple[list[Entry | None], float] | None] | None
        run = self._shortcut("commit_or_get")
        if run is not None:
            found = await self._run(
                lambda: run(group, changes, when=when, names=names),
                deadline,
                leads=leads,
                writes=True,
            )
            return (None, None) if found is None else found
        if await self.commit(transaction, deadline, leads=leads):
            return None, None
        return await self.get_with_time(group, names, deadline)

    async def run_script(
        self, call: ScriptCall, deadline: Deadline
    ) -> list[bytes | int | None] | None:
        """Run a script that changes entries; None where the store runs none."""
        run: Callable[..., object] | None = self._shortcut("run_script")
        if run is None:
            return None
        reply = await self._run(lambda: run(*call), deadline, writes=True)
        return cast("list[bytes | int | None]", reply)

    @property
    def waits_for_replicas(self) -> bool:
        """Whether a sign-out waits until replicas have confirmed it."""
        return bool(getattr(self.store, "wait_replicas", 0))

    async def commit_to_replicas(self, transaction: Transaction, deadline: Deadline) -> bool:
        """Make changes without conditions; False: too few replicas have confirmed them in time."""
        if not self.waits_for_replicas:
            await self.commit(transaction, deadline)
            return True
        group, changes, _ = transaction
        # No part of the protocols: a store with `wait_replicas` has it.
        commit: Callable[..., bool | Awaitable[bool]] = cast("Any", self.store).commit_to_replicas

        def wait() -> bool | Awaitable[bool]:
            # Half of the limit: the reply has to come within it.
            return commit(group, changes, seconds=self.state.executor.limit(deadline) / 2)

        return await self._run(wait, deadline, writes=True)

    async def has_evicted(self, group: str, deadline: Deadline, *, now: float) -> bool:
        """Whether something listed of the group that was still needed has made room.

        Args:
            group: The group.
            deadline: The call's.
            now: The time by the client's expiry clock.
        """
        if self.state.evictions.seconds_left(group, now) > 0:
            return True
        left: Callable[[str], float | Awaitable[float]] | None
        left = getattr(self.store, "evicted_seconds", None)
        return left is not None and await self._run(lambda: left(group), deadline) > 0

    async def now(self, group: str, deadline: Deadline) -> float | None:
        """Seconds by the clock of the store, for one who leads; None if it has none to be read."""
        clock: Callable[[str], float | Awaitable[float]] | None = getattr(self.store, "now", None)
        return (
            None if clock is None else await self._run(lambda: clock(group), deadline, leads=True)
        )

    async def try_store(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Do one of these if the store responds; None if it does not, or did not a moment ago."""
        if not self.state.circuit_breaker.allows_request():
            return None
        try:
            return await operation()
        except SessionStoreError:
            return None  # logged already, if it is an outage

    async def _run(
        self,
        operation: Callable[[], T | Awaitable[T]],
        deadline: Deadline,
        *,
        leads: bool = False,
        writes: bool = False,
    ) -> T:
        state = self.state
        breaker = state.circuit_breaker
        arrived, is_repeated = breaker.latest, False
        while True:
            attempt = Attempt(state, arrived, self.on_event, writes=writes)
            executor = state.leaders_executor if leads else state.executor
            if attempt.is_probe:
                executor = state.probe_executor
            try:
                return await executor.run(operation, deadline, attempt)
            except SessionStoreError as error:
                is_final = isinstance(error, StoreBusyError) or breaker.is_open
                if is_repeated or (is_final and not isinstance(error, OutageBeganError)):
                    raise
            is_repeated = True


def _is_bypass(store: type, shortcut: str, replaced: Sequence[str]) -> bool:
    """Whether a subclass overrides one of the methods, such as to encrypt, but not the shortcut."""
    names = (shortcut, *replaced)
    latest = next(
        (each for each in store.__mro__ if not vars(each).keys().isdisjoint(names)), object
    )
    return shortcut not in vars(latest) and hasattr(latest, shortcut)


class Attempt:
    """One attempt at an operation, from its turn to its end; see `StoreExecutor.run`."""

    def __init__(
        self, state: StoreState, arrived: int, on_event: OnEvent | None, *, writes: bool
    ) -> None:
        self._state = state
        self._on_event = on_event
        self._writes = writes
        self._arrived = arrived
        self._number = 0
        self.is_probe: Final = state.circuit_breaker.is_open

    def __enter__(self) -> None:
        breaker = self._state.circuit_breaker
        if breaker.is_open:
            # An operation that began before the call arrived says nothing about the store now.
            if breaker.has_failed_since(self._arrived):
                raise outage_error()
            if not self.is_probe:
                raise OutageBeganError("The session store stopped responding.")
        self._number = breaker.begin()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_value is None:
            if self._state.circuit_breaker.record_success(self._number, writes=self._writes):
                self._state.end_outage()
                report(self._on_event, "store", "recovered")
        elif isinstance(exc_value, SessionStoreError):
            self.fail(exc_value)

    def fail(self, error: SessionStoreError) -> None:
        """Note that the operation takes too long, before another one takes its turn."""
        breaker = self._state.circuit_breaker
        number = self._number or breaker.begin()
        if breaker.record_failure(error, number, writes=self._writes):
            report(self._on_event, "store", "outage")


class CircuitBreaker:
    """Skips a store during an outage, which is logged once when it begins and once when it ends.

    A single failure is no outage, and neither are many at the same moment: a connection may have
    broken, or this machine may have been busy. The operation is tried again, and fails again.

    Operations are numbered as they begin: one that began earlier says nothing of what came later.
    Where a write has failed, only a write that succeeds ends the outage: a replica
    still responds to reads.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._numbers = itertools.count(1)
        self.latest = 0
        """The number of the latest operation that has begun."""
        self._failures = 0
        self._counted_until = 0
        """The latest operation when a failure was counted."""
        self._last_failed = 0
        """The latest operation that has failed."""
        self._next_attempt: float | None = None
        self._is_logged = False
        """Whether the log has the beginning of an outage, and not its end."""
        self._takes_no_writes = False

    @property
    def is_open(self) -> bool:
        """Whether there is an outage."""
        return self._next_attempt is not None

    def allows_request(self) -> bool:
        """Whether to ask; during an outage one call a second or so finds out if it is over."""
        next_attempt = self._next_attempt
        if next_attempt is None:
            return True
        now = self._clock()
        if now < next_attempt:
            return False
        self._next_attempt = now + RETRY_STORE_AFTER
        return True

    def begin(self) -> int:
        """Number an operation that begins now."""
        self.latest = number = next(self._numbers)
        return number

    def has_failed_since(self, latest: int) -> bool:
        """Whether an operation has failed that began when that one was the latest, or later."""
        return self._last_failed > latest

    def record_failure(
        self, error: SessionStoreError, number: int, *, writes: bool = False
    ) -> bool:
        """An operation has failed; return whether that begins an outage."""
        with self._lock.get():  # of many threads that fail at once, one logs
            self._takes_no_writes |= writes
            self._last_failed = max(self._last_failed, number)
            if number <= self._counted_until:
                return False  # the same trouble as a failure that is counted
            self._counted_until = self.latest
            self._failures += 1
            if self._failures < FAILURES:
                return False
            self._next_attempt = self._clock() + RETRY_STORE_AFTER
            begins, self._is_logged = not self._is_logged, True
        if begins:
            logger.warning(
                "%s Until it does, clients create sessions that they cannot share, and a service "
                "responds with 503. Hint: %s",
                error.message,
                error.hint,
            )
        return begins

    def record_success(self, number: int, *, writes: bool = True) -> bool:
        """The store responded; return whether that ends an outage."""
        if not (self._failures or self._is_logged) or number <= self._last_failed:
            return False  # an operation may succeed after it was given up
        with self._lock.get():
            self._next_attempt = None
            self._failures = 0
            if self._takes_no_writes and not writes:
                return False
            self._takes_no_writes = False
            ends, self._is_logged = self._is_logged, False
        if ends:
            logger.info("The session store responds again.")
        return ends


class StoreBusyError(SessionStoreError):
    """The operation did not begin in time, which says nothing about the store."""


class OutageBeganError(StoreBusyError):
    """An outage began while the operation waited for its turn: it is one for a probe now."""


class StoreExecutor:
    """Runs the operations of one store: some at once, each for a limited time.

    An operation has as long as the store's `timeout`, but no more than half of what the call has
    left: the API must be reached all the same. Waiting for its turn does not count, and neither
    does time in which this process did not run.

    A store of plain functions that has no `timeout` (one in memory, or a user's own) runs in the
    caller's thread, and limits itself. So does a store in Redis, with as many operations at once as
    there are: it sends them together. Only one that has less time than `timeout` has a limit here.

    Args:
        store: Whose operations; it is not kept.
        at_once: How many run at the same time.
        hanging: How many more threads may be lost to operations that hang; None: `at_once`.
    """

    def __init__(
        self,
        store: SessionStore | AsyncSessionStore,
        at_once: int = AT_ONCE,
        *,
        hanging: int | None = None,
    ) -> None:
        self._tasks = _task_limiter(at_once) if inspect.iscoroutinefunction(store.get) else None
        self._threads = PerProcess(lambda: ThreadLimiter(at_once, hanging=hanging))
        self._limits_itself: bool = getattr(store, "limits_itself", False)
        timeout: float | None = getattr(store, "timeout", None)
        if timeout is None and self._tasks is not None:
            timeout = DEFAULT_LIMIT
        self.timeout: Final = timeout
        """Seconds that an operation may take; None: the store limits itself."""

    async def run(
        self, operation: Callable[[], T | Awaitable[T]], deadline: Deadline, attempt: Attempt
    ) -> T:
        """Run an operation of the store.

        Args:
            operation: What to run.
            deadline: The call's.
            attempt: Entered when it is the operation's turn; may refuse it.

        Raises:
            StoreBusyError: It did not begin.
            SessionStoreError: It took too long, or failed.
        """
        if self.timeout is None:
            with attempt:
                return cast("T", operation())
        queue_timeout = deadline.half()
        if queue_timeout == 0:
            raise _busy()
        limit = self.timeout if queue_timeout is None else min(self.timeout, queue_timeout)
        if self._limits_itself and limit == self.timeout:
            with attempt:
                result = operation()
                return (
                    await cast("Awaitable[T]", result)
                    if self._tasks is not None
                    else cast("T", result)
                )

        def fail() -> None:
            attempt.fail(_overdue(limit))

        try:
            if self._tasks is not None:
                awaiting = _awaiting(cast("Callable[[], Awaitable[T]]", operation), attempt)
                return await self._tasks.run(
                    awaiting, queue_timeout=queue_timeout, limit=limit, overdue=fail
                )
            blocking = _blocking(cast("Callable[[], T]", operation), attempt)
            run = self._threads.get().run
            return run(blocking, queue_timeout=queue_timeout, limit=limit, overdue=fail)
        except NotStartedError:
            error: SessionStoreError = _busy()
        except OverdueError:
            error = _overdue(limit)
        raise error

    def give_up_hanging(self) -> None:
        """Go on without the threads that hang, because the store responds again."""
        self._threads.get().give_up_hanging()

    def limit(self, deadline: Deadline) -> float:
        """Seconds that an operation may take now."""
        timeout = DEFAULT_LIMIT if self.timeout is None else self.timeout
        queue_timeout = deadline.half()
        return timeout if queue_timeout is None else min(timeout, queue_timeout)


def _blocking(operation: Callable[[], T], attempt: Attempt) -> Callable[[], T]:
    def run() -> T:
        with attempt:
            return operation()

    return run


def _awaiting(
    operation: Callable[[], Awaitable[T]], attempt: Attempt
) -> Callable[[], Awaitable[T]]:
    async def run() -> T:
        with attempt:
            return await operation()

    return run


def _task_limiter(at_once: int) -> "TaskLimiter":
    from chatkit_sessions._concurrency.tasks import TaskLimiter  # noqa: PLC0415 -- it needs asyncio

    return TaskLimiter(at_once)


def outage_error() -> StoreBusyError:
    """The error for a call that waited for its turn while another call found the store out."""
    return StoreBusyError(
        "The session store stopped responding while the call waited to use it.",
        hint=_CHECK_REDIS,
    )


def _busy() -> StoreBusyError:
    return StoreBusyError(
        "The call had no time left to ask the session store.",
        hint="This process has more to do than it can, or the call has a short `timeout`.",
    )


def _overdue(seconds: float) -> SessionStoreError:
    return SessionStoreError(
        f"The session store does not respond within {seconds:.3g} s.",
        hint=_CHECK_REDIS,
    )


def evicted_error() -> SessionStoreError:
    """The error of a sign-out that may have missed a session."""
    return SessionStoreError(
        "The session store was full and has removed what it knew of this or another user: the "
        "sign-out may have missed a session.",
        hint="The sessions that the store still knows are cancelled. One that it does not know "
        "ends when it expires. Make the store's `max_entries` greater, or use a Redis store.",
    )


def not_confirmed_error() -> SessionStoreError:
    """The error of a sign-out that a failover may undo."""
    return SessionStoreError(
        "Too few replicas of the session store confirmed the sign-out in time.",
        hint="The sessions are cancelled, but a failover may undo the sign-out: delete the user's "
        "sessions again, and check that the replicas are connected.",
    )
