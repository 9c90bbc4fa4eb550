"""One client, one workload: makes the calls and prints, as JSON, how long they took.

A process of its own, so that nothing of another client is in the way.
"""

import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from environment import permit_open_files
from speed_contenders import ASYNC, SYNC, AsyncCreate, Create
from speed_start import KEY, USER, WORKFLOW

Kind: TypeAlias = Literal["one by one", "in turns", "threads", "tasks", "second client"]
Measures: TypeAlias = dict[str, float]
"""What was measured, by its unit."""

WARM_UP_CALLS: Final = 200
CALLS: Final = 2000
SECONDS: Final = 3.0
LIMIT: Final = 40.0
"""Seconds within which a client has to get somewhere."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do.

    Attributes:
        kind: The workload.
        contender: Whose client.
        url: The API's root.
        in_flight: How many calls at once.
    """

    kind: Kind
    contender: str
    url: str
    in_flight: int


class TooSlowError(Exception):
    """Too few calls ended to measure anything."""


def main() -> None:
    """Read a task from the command line, print its measures and end at once."""
    task = Task(**json.loads(sys.argv[1]))
    permit_open_files()
    print(json.dumps(WORKLOADS[task.kind](task)), flush=True)
    os._exit(0)  # without waiting for the calls that are in flight


# One by one ---------------------------------------------------------------------------------------


def one_by_one(task: Task) -> Measures:
    """The median time of a call, on a connection that stays open."""
    create = SYNC[task.contender](task.url)
    for _ in range(WARM_UP_CALLS):
        create()
    return {"ms": 1000 * statistics.median(seconds_of(create) for _ in range(CALLS))}


def in_turns(task: Task) -> Measures:
    """As many calls as each line of the standard input says, one by one; a line with their times.

    So that several clients can take turns that are so short that a noise disturbs all of them.
    """
    create = SYNC[task.contender](task.url)
    for _ in range(WARM_UP_CALLS):
        create()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([seconds_of(create) for _ in range(int(line))]), flush=True)
    return {}


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# Threads ------------------------------------------------------------------------------------------


def in_threads(task: Task) -> Measures:
    """Calls per second of many threads with one client."""
    create = SYNC[task.contender](task.url)
    callers = [Caller(create) for _ in range(task.in_flight)]
    for caller in callers:
        caller.start()
    count_calls(callers, enough=task.in_flight)
    start, before = time.perf_counter(), count_calls(callers)
    time.sleep(SECONDS)
    end, after = time.perf_counter(), count_calls(callers)
    return {"calls/s": (after - before) / (end - start)}


class Caller(threading.Thread):
    """Calls and counts, again and again."""

    def __init__(self, create: Create) -> None:
        super().__init__(daemon=True)
        self._create = create
        self.calls = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Go on until something fails or the process ends."""
        try:
            while True:
                self._create()
                self.calls += 1
        except Exception as error:  # noqa: BLE001 -- raised by the main thread
            self.failure = error


def count_calls(callers: list[Caller], enough: int = 0) -> int:
    """How many calls have ended, waiting for enough of them; raises what a caller met."""
    deadline = time.monotonic() + LIMIT
    while True:
        if failure := next((caller.failure for caller in callers if caller.failure), None):
            raise failure
        calls = sum(caller.calls for caller in callers)
        if calls >= enough:
            return calls
        if time.monotonic() > deadline:
            raise TooSlowError(f"{calls} calls in {LIMIT:.0f} s")
        time.sleep(0.05)


# Tasks --------------------------------------------------------------------------------------------


def in_tasks(task: Task) -> Measures:
    """Calls per second, and processor time per call, of many tasks with one client."""
    return asyncio.run(load(task))


async def load(task: Task) -> Measures:
    """Keep calls in flight, and measure over whole waves of them."""
    waves = Waves(ASYNC[task.contender](task.url), task.in_flight)
    callers = [asyncio.create_task(waves.call()) for _ in range(task.in_flight)]
    start = await waves.next()  # the first one opens connections
    while (end := await waves.next()).clock - start.clock < SECONDS:
        pass
    for caller in callers:
        caller.cancel()
    calls = end.calls - start.calls
    return {
        "calls/s": calls / (end.clock - start.clock),
        "CPU µs": 1e6 * (end.cpu - start.cpu) / calls,
    }


@dataclass(frozen=True, slots=True)
class Mark:
    """The moment when a wave was complete."""

    calls: int
    clock: float
    cpu: float


class Waves:
    """Counts calls in waves, of as many calls as are in flight.

    Calls that start together end together. A window of time would hold the last wave or not; one
    from wave to wave is exact.
    """

    def __init__(self, create: AsyncCreate, size: int) -> None:
        self._create = create
        self._size = size
        self._calls = 0
        self._marks: asyncio.Queue[Mark | Exception] = asyncio.Queue()

    async def call(self) -> None:
        """Call and count, again and again."""
        try:
            while True:
                await self._create()
                self._calls += 1
                if self._calls % self._size == 0:
                    mark = Mark(self._calls, time.perf_counter(), time.process_time())
                    self._marks.put_nowait(mark)
        except Exception as error:  # noqa: BLE001 -- raised by `next`
            self._marks.put_nowait(error)

    async def next(self) -> Mark:
        """Wait for the next wave to be complete."""
        try:
            mark = await asyncio.wait_for(self._marks.get(), LIMIT)
        except TimeoutError:
            raise TooSlowError(f"{self._calls} calls, then {LIMIT:.0f} s without a wave") from None
        if isinstance(mark, Exception):
            raise mark
        return mark


# A second client ----------------------------------------------------------------------------------


def second_client(task: Task) -> Measures:
    """How long another client takes in a process that has used one."""
    from chatkit_sessions import ChatKitClient  # noqa: PLC0415 -- the other workloads may not need it

    def make() -> ChatKitClient:
        return ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=task.url)

    first = make()
    first.create_session(USER)
    start = time.perf_counter()
    second = make()
    made = time.perf_counter() - start
    second.create_session(USER)
    used = time.perf_counter() - start
    return {"ms": 1000 * made, "ms with a session": 1000 * used}


WORKLOADS: Final[dict[Kind, Callable[[Task], Measures]]] = {
    "one by one": one_by_one,
    "in turns": in_turns,
    "threads": in_threads,
    "tasks": in_tasks,
    "second client": second_client,
}


if __name__ == "__main__":
    main()
