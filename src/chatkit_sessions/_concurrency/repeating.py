"""Run something again and again beside a call, from a task."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager

from .event_loop import under_trio


def repeating(
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
