"""How long an operation of a store can take, whoever made its connections."""

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from chatkit_sessions._concurrency.threads import (
    NotStartedError,
    OverdueError,
    PerProcess,
    ThreadLimiter,
)
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions.errors import SessionStoreError
from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore

if TYPE_CHECKING:
    from chatkit_sessions._concurrency.tasks import TaskLimiter

T = TypeVar("T")

DEFAULT_LIMIT: Final = 1.0
"""Seconds for an operation of an async store that has no `timeout` of its own."""
AT_ONCE: Final = 32
"""Operations at once, in an event loop or in all threads."""
LEADERS_AT_ONCE: Final = 8
"""As many more of those that others wait for. A store makes a connection for each of both."""
_CHECK_REDIS: Final = "Check that Redis runs, can be reached from here and is not overloaded."


class StoreBusyError(SessionStoreError):
    """The operation did not begin in time, which says nothing about the store."""


class OutageBeganError(StoreBusyError):
    """An outage began while the operation waited for its turn: it is one for a probe now."""


class Attempt(Protocol):
    """What notes the beginning and the end of an operation."""

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def fail(self, error: SessionStoreError) -> None:
        """The operation takes too long. Called before another one takes its turn."""
        ...


class Bounds:
    """Runs the operations of one store: some at once, each for a limited time.

    An operation has as long as the store's `timeout`, but no more than half of what the call has
    left: the API must be reached all the same. Waiting for its turn does not count, and neither
    does time in which this process did not run.

    A store of plain functions that has no `timeout` (one in memory, or a user's own) runs in the
    caller's thread, and bounds itself.

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
        """Seconds that an operation may take; None: it bounds itself."""

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
