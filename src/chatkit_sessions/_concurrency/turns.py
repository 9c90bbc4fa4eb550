"""Turns that tasks take, so that no more than some do something at once."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

from .event_loop import running_time_limit, time_limit, under_trio
from .workers import NotStartedError, OverdueError

T = TypeVar("T")


class Turns:
    """For tasks what `Workers` is for threads, in each event loop; under trio, all go at once.

    Args:
        most: How many functions run at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )

    async def run(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        patience: float | None,
        limit: float,
        overdue: Callable[[], object] = lambda: None,
    ) -> T:
        """Await a function when it is its turn.

        Args:
            function: What to await.
            patience: Seconds for the turn to come; None: no limit.
            limit: Seconds for the function, of those in which the event loop runs.
            overdue: Called when the limit is over.

        Raises:
            NotStartedError: The patience is over.
            OverdueError: The limit is over.
        """
        async with await self._take(patience), running_time_limit(limit):
            return await function()
        overdue()
        raise OverdueError

    async def _take(self, patience: float | None) -> AbstractAsyncContextManager[object]:
        if under_trio():
            return nullcontext()
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = asyncio.Semaphore(self._most)
        if not turn.locked():
            await turn.acquire()  # at once
            return _Turn(turn)
        async with time_limit(patience):
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
