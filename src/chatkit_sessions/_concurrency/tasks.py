"""Tasks under asyncio or trio, whichever runs: limits, events, and what ends with a loop."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
    nullcontext,
)
from types import TracebackType
from typing import Generic, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from .threads import SLICES, NotStartedError, OverdueError, process


class Closable(Protocol):
    """A value that is closed when its event loop ends."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)
T = TypeVar("T")
_Loop: TypeAlias = tuple[int, object]
"""A process and an event loop in it: after `fork()` the parent's connections are left alone."""


def under_trio() -> bool:
    """Whether trio runs the present task; else asyncio does."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def running_loop() -> object:
    """An object that identifies the running event loop."""
    if under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


async def sleep(seconds: float) -> None:
    """Let that many seconds pass."""
    if under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class TaskEvent:
    """An event that tasks of one event loop wait for."""

    def __init__(self) -> None:
        self._event: _LoopEvent = _new_event()

    def set(self) -> None:
        """See `CompletionEvent`."""
        self._event.set()

    async def wait_for(self, seconds: float | None) -> bool:
        """See `CompletionEvent`."""
        async with time_limit(seconds):
            await self._event.wait()
            return True
        return False


class _LoopEvent(Protocol):
    def set(self) -> None: ...

    async def wait(self) -> object: ...


def _new_event() -> _LoopEvent:
    if under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        return trio.Event()
    return asyncio.Event()


def shielded() -> AbstractContextManager[object]:
    """Finish what runs inside even if the task is cancelled meanwhile.

    Only trio needs it: what is used inside does not let asyncio take over.
    """
    if under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        return trio.CancelScope(shield=True)
    return nullcontext()


class Limit(Protocol):
    """A limit that can also be ended early."""

    loop: object
    """As `running_loop` returns it."""

    def end(self) -> None:
        """Cancel what runs inside at once."""
        ...


def time_limit(seconds: float | None) -> AbstractAsyncContextManager[Limit, bool]:
    """Cancel what runs inside after that many seconds, or when the limit's `end` is called.

    What follows the block then runs; otherwise nothing but the block's own result or error leaves.
    """
    return TrioLimit(seconds) if under_trio() else AsyncioLimit(seconds)


class AsyncioLimit:
    """See `time_limit`."""

    __slots__ = ("_timeout", "loop")

    def __init__(self, seconds: float | None) -> None:
        self.loop: object = running_loop()
        self._timeout = asyncio.timeout(seconds)

    def end(self) -> None:
        """Cancel what runs inside at once."""
        if not self._timeout.expired():
            self._timeout.reschedule(0.0)

    async def __aenter__(self) -> Limit:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            await self._timeout.__aexit__(exc_type, exc_value, traceback)
        except TimeoutError:
            return True
        return False


def running_time_limit(seconds: float) -> AbstractAsyncContextManager[Limit, bool]:
    """The same, counted in time for which the event loop runs.

    A loop that something blocks, or that has too much to do, has not waited for what runs inside.
    Under trio, all time counts.
    """
    return TrioLimit(seconds) if under_trio() else RunningLimit(seconds)


class RunningLimit(AsyncioLimit):
    """See `running_time_limit`."""

    __slots__ = ("_left", "_part", "_timer")

    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self._left = SLICES
        self._part = seconds / SLICES

    async def __aenter__(self) -> Limit:
        await super().__aenter__()
        self._wait()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._timer.cancel()
        return await super().__aexit__(exc_type, exc_value, traceback)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._part, self._count)

    def _count(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._wait()
        else:
            self.end()


class TrioLimit:
    """See `time_limit`."""

    def __init__(self, seconds: float | None) -> None:
        import trio  # noqa: PLC0415 -- only where it is in use already

        self.loop: object = running_loop()
        self._scope = trio.move_on_after(float("inf") if seconds is None else seconds)

    def end(self) -> None:
        """Cancel what runs inside at once."""
        self._scope.cancel()

    async def __aenter__(self) -> Limit:
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return bool(self._scope.__exit__(exc_type, exc_value, traceback))


class PerLoop(Generic[C]):
    """One value for each event loop, made when first needed and closed when the loop ends.

    A connection belongs to the loop that opened it, and frameworks run one client in several loops
    in turn. An asynchronous generator that hangs at its `yield` is what a loop closes at its end
    (PEP 525: `asyncio.run`, trio and pytest's plugins all do), so each value is held by one.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._held: dict[_Loop, tuple[C, AsyncGenerator[None, None]]] = {}

    async def get(self) -> C:
        """The running loop's value."""
        loop = process.number, running_loop()
        held = self._held.get(loop)
        if held is None:
            self._forget_closed_loops()
            value = self._make()
            keeper = self._keep(loop, value)
            held = self._held[loop] = value, keeper
            await anext(keeper)
        return held[0]

    async def aclose(self) -> None:
        """Close the running loop's value; those of other loops are closed as these end."""
        held = self._held.get((process.number, running_loop()))
        if held is not None:
            await held[1].aclose()

    async def _keep(self, loop: _Loop, value: C) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._held.pop(loop, None)
            await value.aclose()
            await sleep(0)  # asyncio closes sockets on its next turn

    def _forget_closed_loops(self) -> None:
        """Loops that were closed without ending their generators can no longer close anything."""
        for held in list(self._held):
            number, loop = held
            closed = isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
            if closed and number == process.number:
                self._held.pop(held, None)


class TaskLimiter:
    """Runs at most some functions at once in each event loop; under trio, all of them.

    Args:
        most: How many functions run at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    async def run(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        queue_timeout: float | None,
        limit: float,
        overdue: Callable[[], object] = lambda: None,
    ) -> T:
        """Await a function when it is its turn.

        Args:
            function: What to await.
            queue_timeout: Seconds for the turn to come; None: no limit.
            limit: Seconds for the function, of those in which the event loop runs.
            overdue: Called when the limit is over.

        Raises:
            NotStartedError: The turn did not come in time.
            OverdueError: The limit is over.
        """
        async with await self._take(queue_timeout), running_time_limit(limit):
            return await function()
        overdue()
        raise OverdueError

    async def _take(self, queue_timeout: float | None) -> AbstractAsyncContextManager[object]:
        if under_trio():
            return nullcontext()
        loop = asyncio.get_running_loop()
        turn = self._semaphores.get(loop)
        if turn is None:
            turn = self._semaphores[loop] = asyncio.Semaphore(self._most)
        if not turn.locked():
            await turn.acquire()  # at once
            return _Turn(turn)
        async with time_limit(queue_timeout):
            await turn.acquire()
            return _Turn(turn)
        raise NotStartedError


class _Turn(AbstractAsyncContextManager[None]):
    def __init__(self, turn: asyncio.Semaphore) -> None:
        self._turn = turn

    async def __aexit__(self, *_: object) -> None:
        self._turn.release()


async def for_each(
    function: Callable[[T], Coroutine[object, None, object]], items: Iterable[T], *, most: int
) -> None:
    """Await a function with each item, in several tasks at once, which all end with this call.

    What the function raises is raised here, and ends the others.

    Args:
        function: Awaited with each item.
        items: What to call it with.
        most: How many tasks work at once.
    """
    left = deque(items)

    async def work() -> None:
        while left:
            await function(left.popleft())

    tasks = range(min(most, len(left)))
    try:
        if under_trio():
            import trio  # noqa: PLC0415 -- only where it is in use already

            async with trio.open_nursery() as nursery:
                for _ in tasks:
                    nursery.start_soon(work)
        else:
            async with asyncio.TaskGroup() as group:
                for _ in tasks:
                    group.create_task(work())
    except BaseExceptionGroup as raised:
        first = raised.exceptions[0]
    else:
        return
    raise first


def heartbeat(
    function: Callable[[], Awaitable[object]], seconds: float
) -> AbstractContextManager[None]:
    """Call a function every so many seconds, from a task beside the running one."""
    return _under_trio(function, seconds) if under_trio() else _under_asyncio(function, seconds)


@contextmanager
def _under_asyncio(function: Callable[[], Awaitable[object]], seconds: float) -> Generator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            await function()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()


@contextmanager
def _under_trio(function: Callable[[], Awaitable[object]], seconds: float) -> Generator[None]:
    import trio  # noqa: PLC0415 -- only where it is in use already

    scope = trio.CancelScope()

    async def repeat() -> None:
        with scope:
            while True:
                await trio.sleep(seconds)
                await function()

    trio.lowlevel.spawn_system_task(repeat)
    try:
        yield
    finally:
        scope.cancel()
