"""What a process sends to Redis at the same time goes in one round trip, on one connection."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from chatkit_sessions._concurrency.single_flight import CompletionEvent
from chatkit_sessions._concurrency.tasks import PerLoop, TaskEvent, running_time_limit
from chatkit_sessions._concurrency.threads import (
    OverdueError,
    PerProcess,
    ThreadEvent,
    ThreadLimiter,
    run_blocking,
)

from ._redis_commands import Command
from ._redis_connections import MAX_HANGING, THREADS, Sender, does_not_respond

MAX_BATCH: Final = 256
"""Commands in one round trip; more only if one caller has more."""
_PATIENCE: Final = 2
"""How many times its limit a round trip may take before another caller sends."""

Send: TypeAlias = Callable[[], Coroutine[object, None, list[object]]]
Limit: TypeAlias = Callable[[Send], Awaitable[list[object]]]
Finish: TypeAlias = Callable[[Callable[[], Coroutine[object, None, None]]], Awaitable[None]]


class BatchSender(Sender):
    """Sends over another sender what several callers want to send, in one round trip.

    Who finds nobody sending sends at once, in its own thread or task. Who comes meanwhile waits,
    and when the round trip has ended, one of those sends for all of them. So no thread and no task
    has to be kept alive, and a command that is alone costs what it costs without this class.

    There is no lock that an interrupt could leave locked: every step is one atomic operation.

    Args:
        sender: Sends a batch.
        new_event: Makes what callers wait for.
        limit: Awaits a function for a limited time; raises OverdueError when that is over. None:
            the sender limits itself.
        seconds: That time.
        finish: Awaits a function that goes on even if whoever awaits it is cancelled. None: nobody
            can be.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        new_event: Callable[[], CompletionEvent],
        limit: Limit | None,
        seconds: float,
        finish: Finish | None = None,
    ) -> None:
        super().__init__(sender.client, asynchronous=sender.asynchronous)
        self._sender = sender
        self._new_event = new_event
        self._limit = limit
        self._seconds = seconds
        self._finish = finish
        self._waiting: deque[_Caller] = deque()
        self._free: deque[None] = deque([None])
        """Empty while somebody sends."""
        self._turn = _Turn()
        """The latest."""
        self._ended = 0
        """How many round trips have ended."""

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """See `Sender`."""
        caller = _Caller(commands)
        try:
            self._waiting.append(caller)
            if _take(self._free):
                caller.turn = self._turn = _Turn()
            while caller.replies is None:
                if caller.turn is None or caller.is_sent:
                    await self._wait(caller)
                elif self._finish is not None and len(self._waiting) > 1:
                    await self._finish(lambda: self._send_batch(caller))
                else:
                    await self._send_batch(caller)
        finally:
            caller.is_gone = True
            if caller.turn is not None and caller.turn.end():
                self._pass_on()
        return caller.replies

    async def send_apart(self, commands: Sequence[Command]) -> list[object]:
        """See `Sender`: on another connection."""
        if self._limit is None:
            return await self._sender.send(commands)
        try:
            return await self._limit(lambda: self._sender.send(commands))
        except OverdueError:
            return self._overdue(commands)

    async def disconnect_idle(self) -> None:
        """See `Sender`."""
        await self._sender.disconnect_idle()

    async def aclose(self) -> None:
        """See `Sender`."""
        await self._sender.aclose()

    async def _wait(self, caller: "_Caller") -> None:
        """Wait for the replies, or for the turn to send."""
        caller.event = event = self._new_event()
        seen, waits = self._progress_of(caller), 0
        while caller.replies is None and (caller.turn is None or caller.is_sent):
            if await event.wait_for(self._seconds):
                continue
            progress = self._progress_of(caller)
            waits = waits + 1 if progress == seen else 0
            seen = progress
            if waits < _PATIENCE:
                continue
            if caller.is_sent:
                caller.replies = self._overdue(caller.commands)
            elif self._turn.end() or waits >= 2 * _PATIENCE:
                # Whoever has the turn hangs, or was interrupted when it was to be passed on.
                caller.turn = self._turn = _Turn()

    def _progress_of(self, caller: "_Caller") -> object:
        """What changes while others send; they say nothing of a round trip that has begun."""
        return True if caller.is_sent else (self._ended, self._turn)

    async def _send_batch(self, caller: "_Caller") -> None:
        """Send what those want whose turn it is; each of them gets replies, whatever happens."""
        batch: list[_Caller] = []
        try:
            self._fill(batch, MAX_BATCH)
            if not caller.is_sent and not caller.is_gone:  # far behind
                caller.is_sent = True
                batch.append(caller)
            if not batch:
                return
            replies = await self.send_apart([each for one in batch for each in one.commands])
            self._ended += 1
            if does_not_respond(replies):
                # Those who wait by now need not find that out one by one.
                self._fill(batch, sum(len(each.commands) for each in tuple(self._waiting)))
                replies = replies[:1] * sum(len(each.commands) for each in batch)
            left = iter(replies)
            for each in batch:
                each.replies = [next(left) for _ in each.commands]
        finally:
            for each in batch:
                if each.replies is None:
                    # Nobody knows what Redis has done, so it is not sent again.
                    each.replies = _failed(each.commands, ConnectionError("interrupted"))
                each.wake()

    def _overdue(self, commands: Sequence[Command]) -> list[object]:
        return _failed(commands, TimeoutError(f"no reply within {self._seconds:.3g} s"))

    def _fill(self, batch: "list[_Caller]", most: int) -> None:
        """Add those whose turn it is, with about so many commands; those who are gone are not."""
        left = most
        while left > 0 and self._waiting:
            added = len(batch)
            # One step, so that an interrupt loses nobody between the two.
            with suppress(IndexError):
                batch.extend(map(_pop, (self._waiting,)))
            for caller in batch[added:]:
                if caller.is_gone or caller.is_sent:
                    batch.remove(caller)
                else:
                    caller.is_sent = True
                    left -= len(caller.commands)

    def _pass_on(self) -> None:
        """Let one of those who wait send, or whoever comes next."""
        while True:
            following = self._first_waiting()
            if following is not None:
                following.turn = self._turn = _Turn()
                following.wake()
                return
            self._free.append(None)
            if self._first_waiting() is None or not _take(self._free):
                return

    def _first_waiting(self) -> "_Caller | None":
        for each in tuple(self._waiting):
            if not each.is_gone and not each.is_sent:
                return each
        return None


class _Turn:
    """The right to send, which ends once."""

    __slots__ = ("_lasts",)

    def __init__(self) -> None:
        self._lasts: deque[None] = deque([None])

    def end(self) -> bool:
        """End it; False: it has ended already."""
        return _take(self._lasts)


class _Caller:
    """Whoever wants to send, and what becomes of it."""

    __slots__ = ("commands", "event", "is_gone", "is_sent", "replies", "turn")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands: Final = commands
        self.replies: list[object] | None = None
        self.turn: _Turn | None = None
        self.event: CompletionEvent | None = None
        self.is_sent = False
        self.is_gone = False
        """Whether nobody waits for the replies: what is unsent is not sent."""

    def wake(self) -> None:
        """Let it see its replies, or its turn."""
        event = self.event  # set before it looks for either, and read after they are there
        if event is not None:
            event.set()


_pop: Final = deque[_Caller].popleft


def _take(places: deque[None]) -> bool:
    try:
        places.pop()
    except IndexError:
        return False
    return True


def _failed(commands: Sequence[Command], error: Exception) -> list[object]:
    return [error] * len(commands)


_in_progress: Final[set[asyncio.Task[None]]] = set()
"""A loop itself holds its tasks weakly."""


async def finish(send_batch: Callable[[], Coroutine[object, None, None]]) -> None:
    """Await it in a task of its own, which goes on if whoever awaits it is cancelled."""
    task = asyncio.create_task(send_batch())
    _in_progress.add(task)
    task.add_done_callback(_in_progress.discard)
    await asyncio.shield(task)


def for_threads(
    sender: Callable[[], Sender], seconds: float, *, is_own: bool
) -> PerProcess[Sender]:
    """Batches of all threads of a process.

    Args:
        sender: Makes what sends.
        seconds: How long a round trip may take.
        is_own: Whether the connections end it by themselves; otherwise it runs in another thread.
    """

    def make() -> Sender:
        threads = ThreadLimiter(THREADS, hanging=MAX_HANGING)

        async def in_thread(send: Send) -> list[object]:
            replies = threads.run(lambda: run_blocking(send), queue_timeout=None, limit=seconds)
            threads.give_up_hanging()  # where others hang: Redis responds again
            return replies

        limit = None if is_own else in_thread
        return BatchSender(sender(), new_event=ThreadEvent, limit=limit, seconds=seconds)

    return PerProcess(make)


def for_tasks(sender: Callable[[], Sender], seconds: float) -> PerLoop[Sender]:
    """Batches of all tasks of an event loop; the arguments are as above."""

    async def in_running_time(send: Send) -> list[object]:
        async with running_time_limit(seconds):
            return await send()
        raise OverdueError

    def make() -> Sender:
        return BatchSender(
            sender(), new_event=TaskEvent, limit=in_running_time, seconds=seconds, finish=finish
        )

    return PerLoop(make)
