"""Threads, and the process that they run in: blocking flows, limits, forks and signals."""

import functools
import inspect
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from traceback import walk_tb
from types import CodeType, CoroutineType
from typing import Final, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

SLICES: Final = 10
"""A limit is counted in this many parts. A process that the machine does not run for a while loses
one part at the most, and not the whole limit."""
MOST_LOST: Final = 10
"""The most threads that are given up in all, as a multiple of those that may hang at once."""

_send: Final = cast("Callable[[object, None], object]", vars(CoroutineType)["send"])


class _Process:
    """The id of this process, read once: a system call for each use is slow."""

    def __init__(self) -> None:
        self.read_number()
        at_fork: Callable[..., object] = getattr(os, "register_at_fork", dict)  # not on Windows
        at_fork(after_in_child=self.read_number)

    def read_number(self) -> None:
        """Read the id, and again in a child."""
        self.number = os.getpid()


process: Final = _Process()


class PerProcess(Generic[T]):
    """One value for each process, made when first needed.

    A child never touches the value of its parent: a socket would be read by both, and a lock may
    be held by a thread that the child does not have. It is kept, so that nothing closes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """This process's value."""
        value = self._values.get(process.number)
        # setdefault is atomic: of two threads that come first, both get the same value.
        return value if value is not None else self._values.setdefault(process.number, self._make())

    def pop(self) -> T | None:
        """Take this process's value out, None where it was never needed."""
        return self._values.pop(process.number, None)


def run_blocking(
    flow: Callable[P, Coroutine[object, None, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a flow whose steps all block, without an event loop.

    Args:
        flow: A coroutine function that never suspends: one step takes it to its end. It is called
            here and not by the caller, so that no coroutine waits for its first step.
        args: The flow's arguments.
        kwargs: The flow's arguments.

    Returns:
        What the flow returns; its exceptions propagate unchanged.

    Raises:
        RuntimeError: The flow suspended: one of its steps waits for an event loop.
    """
    made = iter(functools.partial(flow, *args, **kwargs), None)
    try:
        # In one call of C: between two of Python's, a signal's exception would lose the coroutine.
        next(map(_send, made, (None,)))
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RuntimeError as error:
        # What Python makes of a StopIteration that leaves a coroutine (PEP 479).
        if isinstance(error.__cause__, StopIteration):
            raise error.__cause__ from None
        raise
    raise RuntimeError("A step of a synchronous call waits for an event loop.")


async def maybe_await(value: T | Awaitable[T]) -> T:
    """Await a value if it is awaitable, such as the result of the application's function."""
    return cast("T", await value if inspect.isawaitable(value) else value)


class ThreadEvent(threading.Event):
    """An event that threads wait for."""

    async def wait_for(self, seconds: float | None) -> bool:
        """See `CompletionEvent`."""
        return self.wait(seconds)


class NotStartedError(Exception):
    """The function's turn did not come in time."""


class OverdueError(Exception):
    """The function took longer than it may; its thread goes on, and its result is dropped."""


class ThreadLimiter:
    """At most so many daemon threads, besides those that are lost to functions that hang.

    There is no lock that an interrupt could leave locked: every step is one atomic operation.

    Args:
        most: How many functions run at once.
        hanging: How many functions may hang before others wait for one of them. None: `most`.
    """

    def __init__(self, most: int, *, hanging: int | None = None) -> None:
        self._most = most
        self._most_hanging = most if hanging is None else hanging
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._idle: deque[None] = deque()
        """One element for each waiting thread that no job in the queue is for."""
        self._threads: set[threading.Thread] = set()
        self._hanging: list[_Job] = []
        self._lost: list[_Job] = []
        """Functions that hang and were given up."""

    def run(
        self,
        function: Callable[[], T],
        *,
        queue_timeout: float | None,
        limit: float,
        overdue: Callable[[], object] = lambda: None,
    ) -> T:
        """Run a function in a thread.

        Args:
            function: What to run, with the caller's context variables.
            queue_timeout: Seconds for a thread to become free; None: no limit.
            limit: Seconds for the function.
            overdue: Called when the limit is over, before another function takes its place.

        Returns:
            What the function returns; its exceptions propagate unchanged.

        Raises:
            NotStartedError: No thread became free in time.
            OverdueError: The limit is over, or too many functions hang already.
        """
        if len(self._hanging) >= self._most_hanging and not self._wait_for_hanging(limit):
            overdue()
            raise OverdueError
        job = _Job(function)
        self._submit(job)
        if not job.wait(queue_timeout=queue_timeout, limit=limit) and job.decide():
            if job.thread is None:
                raise NotStartedError
            overdue()
            self._hanging.append(job)
            self._threads.discard(job.thread)
            if not self._jobs.empty():
                self._start_thread()
            raise OverdueError
        return cast("T", job.result())

    def give_up_hanging(self) -> None:
        """Let functions run in place of those that hang, because others end again."""
        lost = [each for each in self._lost + self._hanging if not each.is_over]
        if len(lost) < MOST_LOST * self._most_hanging:
            self._lost, self._hanging = lost, []

    def _wait_for_hanging(self, limit: float) -> bool:
        """Wait until fewer functions hang; return whether they do."""
        for _ in range(SLICES):
            hanging = self._hanging = [each for each in self._hanging if not each.is_over]
            if len(hanging) < self._most_hanging:
                return True
            hanging[0].wait_for_end(limit / SLICES)
        return False

    def _submit(self, job: "_Job") -> None:
        self._jobs.put(job)
        try:
            self._idle.pop()
        except IndexError:
            self._start_thread()

    def _start_thread(self) -> None:
        if len(self._threads) < self._most:
            name = "chatkit-sessions-store"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            job = self._next()
            if not job.run(thread):  # another thread may have taken this one's place
                self._threads.discard(thread)
                return
            del job  # an idle thread holds nothing

    def _next(self) -> "_Job":
        try:
            return self._jobs.get_nowait()
        except Empty:
            self._idle.append(None)
            return self._jobs.get()


class _Job:
    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._context = copy_context()
        self._outcome: tuple[object] | BaseException = NotStartedError()
        self._begun = threading.Lock()
        self._begun.acquire()
        self._ended = threading.Lock()
        self._ended.acquire()
        self._wanted: list[None] = [None]  # until it is decided
        self.thread: threading.Thread | None = None
        self.is_over = False

    def run(self, thread: threading.Thread) -> bool:
        """Run in that thread; return whether the thread is needed for other jobs."""
        if not self._wanted:
            return True
        self.thread = thread
        self._begun.release()
        try:
            self._outcome = (self._context.run(self._function),)
        except BaseException as error:  # noqa: BLE001 -- raised again where the result is wanted
            self._outcome = error
        self.is_over = True
        is_wanted = self.decide()
        self._ended.release()
        return is_wanted

    def wait(self, *, queue_timeout: float | None, limit: float) -> bool:
        """Wait until it has ended; the limit counts from when it starts."""
        # In one go: thousands of callers that look ten times a second would be all that runs.
        if not self._begun.acquire(timeout=-1 if queue_timeout is None else queue_timeout):
            return False
        return any(self.wait_for_end(limit / SLICES) for _ in range(SLICES))

    def wait_for_end(self, seconds: float) -> bool:
        """Wait that long; True for the first who sees the end."""
        return self._ended.acquire(timeout=seconds)

    def decide(self) -> bool:
        """Decide between two outcomes: ended, or given up; False: that is decided already."""
        try:
            self._wanted.pop()
        except IndexError:
            return False
        return True

    def result(self) -> object:
        outcome, self._outcome = self._outcome, NotStartedError()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome[0]


def for_each(function: Callable[[T], object], items: Iterable[T], *, most: int) -> None:
    """Call a function with each item, in several threads at once; the caller's is one of them.

    The threads end with this call; if it is interrupted, after the items that they have begun.
    What the function raises is raised here, and nothing begins after it.

    Args:
        function: Called with each item, and with the caller's context variables.
        items: What to call it with.
        most: How many threads work at once.
    """
    left = deque(items)
    raised: list[BaseException] = []

    def work() -> None:
        while True:
            try:
                item = left.popleft()
            except IndexError:
                return
            function(item)

    def help_out() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- raised below
            left.clear()
            raised.append(error)

    helpers: list[threading.Thread] = []
    try:
        with suppress(RuntimeError):  # the machine or the interpreter's end permits no more threads
            for _ in range(min(most, len(left)) - 1):
                name = "chatkit-sessions-each"
                context = copy_context()
                helper = threading.Thread(
                    target=context.run, args=(help_out,), name=name, daemon=True
                )
                helper.start()
                helpers.append(helper)
        work()
        for helper in helpers:
            helper.join()
    finally:
        left.clear()
    if raised:
        raise raised[0]


class Heartbeat:
    """Calls functions from one daemon thread, which ends when there are none any more.

    Args:
        sleep: Lets that many seconds pass; for tests.
    """

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._functions: dict[object, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self, function: Callable[[], object], seconds: float) -> Generator[None]:
        """Call a function about every so many seconds meanwhile; it must not raise."""
        key = object()
        try:
            self._functions[key] = function
            if self._thread is None or not self._thread.is_alive():
                name = "chatkit-sessions-lease"
                thread = threading.Thread(target=self._run, args=(seconds,), name=name, daemon=True)
                self._thread = thread
                thread.start()
            yield
        finally:
            self._functions.pop(key, None)

    def _run(self, seconds: float) -> None:
        while True:
            self._sleep(seconds)
            if not self._functions:
                self._thread = None
                # A caller from now on starts another thread; one just before does not.
                if not self._functions:
                    return
            for key, function in list(self._functions.items()):
                if key in self._functions:  # it may have ended while others ran
                    function()


# What interrupts a call is an exception that a signal handler raises while the call is under way.
# Task queues limit a task's time in this way, and their exceptions are ordinary ones: Celery's
# SoftTimeLimitExceeded, RQ's JobTimeoutException. No class tells them from what was interrupted.


def interrupt_in(error: BaseException, *, handled: BaseException | None) -> BaseException | None:
    """Find the exception of a signal handler: `error` itself, or one of its causes.

    A handler's TimeoutError looks like the socket's own, and HTTP clients make theirs of it.

    Args:
        error: What came out of the interrupted code.
        handled: `sys.exception()` before that code ran: a call that is made where an interrupt is
            handled is not interrupted itself.
    """
    origin: BaseException | None = error
    seen: set[int] = set()  # an exception that is raised again may lead back to itself
    while origin is not None and origin is not handled and id(origin) not in seen:
        if raised_by_handler(origin):
            return origin
        seen.add(id(origin))
        origin = origin.__cause__ or origin.__context__
    return None


def raised_by_handler(error: BaseException) -> bool:
    """Whether a signal handler raised this very exception."""
    handlers = set(_codes_of_handlers())
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))


def _codes_of_handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for function in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 -- its code
            code: object = getattr(function, "__code__", None)  # a bound method has its function's
            if isinstance(code, CodeType):
                yield code
