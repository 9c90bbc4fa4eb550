"""asyncio or trio, whichever runs: the few things that the async client needs of them."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import TracebackType
from typing import Generic, Protocol, TypeAlias, TypeVar

from .workers import SLICES


class Closable(Protocol):
    """What belongs to an event loop."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)
_Loop: TypeAlias = tuple[int, object]
"""A process and an event loop in it: after `fork()` the parent's connections are left alone."""


def under_trio() -> bool:
    """Whether trio runs the present task; else asyncio does."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def running_loop() -> object:
    """What stands for the event loop that runs."""
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


class Event(Protocol):
    """What tasks of one event loop wait for."""

    def set(self) -> None: ...

    async def wait(self) -> object: ...


def new_event() -> Event:
    """An event of the running loop."""
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
    """What bounds a call."""

    loop: object
    """As `running_loop` returns it."""

    def end(self) -> None:
        """Cancel what runs inside now, in place of later."""
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
        """Cancel what runs inside now, in place of later."""
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
        """Cancel what runs inside now, in place of later."""
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
        loop = os.getpid(), running_loop()
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
        held = self._held.get((os.getpid(), running_loop()))
        if held is not None:
            await held[1].aclose()

    async def _keep(self, loop: _Loop, value: C) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._held.pop(loop, None)
            await value.aclose()

    def _forget_closed_loops(self) -> None:
        """Loops that were closed without ending their generators can no longer close anything."""
        for held in list(self._held):
            process, loop = held
            closed = isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
            if closed and process == os.getpid():
                self._held.pop(held, None)
