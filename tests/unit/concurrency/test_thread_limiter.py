"""Threads for functions that may hang."""

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from chatkit_sessions._concurrency.threads import (
    MOST_LOST,
    SLICES,
    NotStartedError,
    OverdueError,
    ThreadLimiter,
    _Job,
)

NO_TIME = 0.01


def at_once(count: int, call: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_a_function_runs_in_another_thread_with_the_caller_s_context() -> None:
    limiter = ThreadLimiter(1)
    variable = contextvars.ContextVar[str]("variable", default="")
    variable.set("of the caller")

    told = limiter.run(
        lambda: (variable.get(), threading.current_thread()), queue_timeout=None, limit=60
    )

    assert told[0] == "of the caller"
    assert told[1] is not threading.current_thread()
    assert told[1].daemon


def test_what_a_function_raises_is_raised() -> None:
    def fail() -> None:
        raise LookupError("of its own")

    with pytest.raises(LookupError, match="of its own"):
        ThreadLimiter(1).run(fail, queue_timeout=60, limit=60)


def test_threads_are_used_again() -> None:
    limiter = ThreadLimiter(8)

    told = {limiter.run(threading.current_thread, queue_timeout=60, limit=60) for _ in range(20)}

    assert len(told) <= 2


def test_no_more_functions_run_at_once_than_there_may() -> None:
    limiter, lock = ThreadLimiter(3), threading.Lock()
    running = most = 0

    def run() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    at_once(30, lambda: [limiter.run(run, queue_timeout=None, limit=60) for _ in range(20)])

    assert 1 <= most <= 3


def test_waiting_for_a_thread_does_not_count() -> None:
    """Whoever comes when all are busy waits for longer than a function may take."""
    limiter, go_on = ThreadLimiter(1), threading.Event()
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(60)

    holder = threading.Thread(target=lambda: limiter.run(hold, queue_timeout=None, limit=60))
    holder.start()
    assert begun.wait(60)

    with pytest.raises(NotStartedError):
        limiter.run(lambda: None, queue_timeout=NO_TIME, limit=NO_TIME)
    go_on.set()
    holder.join(60)

    assert limiter.run(lambda: "done", queue_timeout=None, limit=60) == "done"


def test_a_function_that_hangs_is_left_and_another_thread_takes_its_place() -> None:
    limiter, go_on = ThreadLimiter(1), threading.Event()
    hanging: list[threading.Thread] = []

    def hang() -> None:
        hanging.append(threading.current_thread())
        go_on.wait(60)

    with pytest.raises(OverdueError):
        limiter.run(hang, queue_timeout=None, limit=NO_TIME)
    with pytest.raises(OverdueError):  # no more threads are lost
        limiter.run(lambda: None, queue_timeout=None, limit=NO_TIME)
    go_on.set()
    hanging[0].join(60)

    assert not hanging[0].is_alive()
    told = limiter.run(threading.current_thread, queue_timeout=None, limit=60)
    assert told is not hanging[0]


def test_whoever_finds_too_many_hanging_waits_for_one_of_them_to_end() -> None:
    limiter, go_on = ThreadLimiter(1), threading.Event()
    with pytest.raises(OverdueError):
        limiter.run(lambda: go_on.wait(60), queue_timeout=None, limit=NO_TIME)
    (hanging,) = limiter._hanging
    end = hanging.wait_for_end

    def let_go(seconds: float) -> bool:
        go_on.set()
        return end(60 + seconds)

    vars(hanging)["wait_for_end"] = let_go

    assert limiter.run(lambda: "done", queue_timeout=None, limit=60) == "done"


def test_what_hangs_is_given_up_but_not_without_end() -> None:
    limiter, go_on = ThreadLimiter(1), threading.Event()
    for _ in range(MOST_LOST):
        with pytest.raises(OverdueError):
            limiter.run(lambda: go_on.wait(60), queue_timeout=None, limit=NO_TIME)
        limiter.give_up_hanging()

    with pytest.raises(OverdueError):
        limiter.run(lambda: "never", queue_timeout=None, limit=NO_TIME)

    go_on.set()
    assert limiter.run(lambda: "done", queue_timeout=None, limit=60) == "done"


def test_that_a_function_takes_too_long_is_noted_before_the_next_one_begins() -> None:
    limiter, go_on = ThreadLimiter(1, hanging=2), threading.Event()
    noted: list[str] = []
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(60)

    def wait_for_it() -> None:
        with suppress(OverdueError):
            limiter.run(
                hang, queue_timeout=None, limit=0.1, overdue=lambda: noted.append("overdue")
            )

    first = threading.Thread(target=wait_for_it)
    first.start()
    assert begun.wait(60)
    limiter.run(lambda: noted.append("begun"), queue_timeout=None, limit=60)
    go_on.set()
    first.join(60)

    assert noted == ["overdue", "begun"]


@pytest.mark.parametrize(("queue_timeout", "timeout"), [(None, -1), (7.0, 7.0)])
def test_a_job_that_nobody_has_begun_is_waited_for_in_one_go(
    queue_timeout: float | None, timeout: float
) -> None:
    waits: list[float] = []

    class Begun:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            return False

    job = _Job(lambda: None)
    vars(job)["_begun"] = Begun()

    assert not job.wait(queue_timeout=queue_timeout, limit=60)
    assert waits == [timeout]


def test_the_limit_of_a_job_is_counted_in_parts_from_when_it_begins() -> None:
    waits: list[float] = []

    class Lock:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            return len(waits) == 4

        def release(self) -> None: ...

    job = _Job(lambda: None)
    job.run(threading.current_thread())
    vars(job)["_ended"] = Lock()

    assert job.wait(queue_timeout=None, limit=60)
    assert waits == [60 / SLICES] * 4
