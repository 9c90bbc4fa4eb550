"""asyncio or trio, whichever runs: the few things that the async client needs of them."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeAlias, TypeVar


class Closable(Protocol):
    """What belongs to an event loop."""

    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)
_Loop: TypeAlias = tuple[int, object]
"""A process and an event loop in it: after `fork()` the parent's connections are left alone."""


def _under_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def _running_loop() -> object:
    if _under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


async def sleep(seconds: float) -> None:
    """Let that many seconds pass."""
    if _under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncGenerator[None, None]:
    """Cancel what runs inside after that many seconds, and raise TimeoutError."""
    if _under_trio():
        import trio  # noqa: PLC0415 -- only where it is in use already

        with trio.move_on_after(float("inf") if seconds is None else seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise TimeoutError
    else:
        async with asyncio.timeout(seconds):
            yield


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
        loop = os.getpid(), _running_loop()
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
        held = self._held.get((os.getpid(), _running_loop()))
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
