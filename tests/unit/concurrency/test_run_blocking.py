"""A flow whose steps block runs to its end without an event loop."""

import _thread
import asyncio
import signal
import warnings
from collections.abc import Coroutine, Iterator
from itertools import starmap
from operator import itemgetter

import pytest

from chatkit_sessions._concurrency.threads import run_blocking


async def step(value: int) -> int:
    return value


def test_a_flow_returns_what_its_steps_return() -> None:
    async def flow() -> int:
        return await step(1) + await step(2)

    assert run_blocking(flow) == 3


@pytest.mark.parametrize(
    "error",
    [RuntimeError("of a step"), KeyboardInterrupt(), SystemExit(3), StopIteration("of a function")],
)
def test_an_exception_propagates_unchanged(error: BaseException) -> None:
    ended: list[str] = []

    async def flow() -> None:
        try:
            raise error
        finally:
            await step(1)
            ended.append("in order")

    with pytest.raises(type(error)) as caught:
        run_blocking(flow)

    assert caught.value is error
    assert caught.value.__cause__ is None
    assert ended == ["in order"]


def test_an_exception_before_the_first_step_propagates_unchanged() -> None:
    error = TypeError("of the arguments")

    def flow() -> Coroutine[object, None, int]:
        raise error

    with pytest.raises(TypeError) as caught:
        run_blocking(flow)

    assert caught.value is error


def test_a_flow_that_waits_for_an_event_loop_is_closed_and_reported() -> None:
    ended: list[str] = []

    async def flow() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append("closed")

    with pytest.raises(RuntimeError, match="waits for an event loop"):
        run_blocking(flow)

    assert ended == ["closed"]


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_a_signal_before_the_first_step_leaves_no_coroutine_unawaited() -> None:
    """The signal arrives within the call of C that makes the coroutine: its handler runs after."""
    made = starmap(step, [(1,)])
    arrived = map(_thread.interrupt_main, [signal.SIGINT])
    make = map(itemgetter(0), zip(made, arrived, strict=True)).__next__

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            run_blocking(make)

    assert not caught


def test_arguments_are_passed_by_position_and_by_name() -> None:
    async def flow(first: int, *, second: int) -> tuple[int, int]:
        return first, second

    assert run_blocking(flow, 1, second=2) == (1, 2)
