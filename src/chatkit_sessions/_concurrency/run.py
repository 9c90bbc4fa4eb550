"""Run a flow that never suspends, for synchronous code."""

from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def run_blocking(
    flow: Callable[P, Coroutine[object, None, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a flow whose steps all block, without an event loop.

    Args:
        flow: A coroutine function that never suspends: one step takes it to its end. It is called
            here and not by the caller, so that a signal's exception cannot come in between and
            leave a coroutine that nobody awaits.
        args: The flow's arguments.
        kwargs: The flow's arguments.

    Returns:
        What the flow returns; its exceptions propagate unchanged.

    Raises:
        RuntimeError: The flow suspended: one of its steps waits for an event loop.
    """
    coroutine = None
    try:
        coroutine = flow(*args, **kwargs)
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RuntimeError as error:
        # What Python makes of a StopIteration that leaves a coroutine (PEP 479).
        if isinstance(error.__cause__, StopIteration):
            raise error.__cause__ from None
        raise
    else:
        raise RuntimeError("A step of a synchronous call waits for an event loop.")
    finally:
        if coroutine is not None:
            coroutine.close()
