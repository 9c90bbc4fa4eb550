"""Run a flow that never suspends, for synchronous code."""

from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def run_blocking(flow: Coroutine[object, None, T]) -> T:
    """Run a flow whose steps all block, without an event loop.

    Args:
        flow: A coroutine that never suspends; one step takes it to its end.

    Returns:
        What the flow returns; its exceptions propagate unchanged.

    Raises:
        RuntimeError: The flow suspended: one of its steps waits for an event loop.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()
    raise RuntimeError("A step of a synchronous call waits for an event loop.")
