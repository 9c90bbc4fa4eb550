"""What interrupts a call: an exception that a signal handler raises while the call is under way.

Task queues limit a task's time in this way, and their exceptions are ordinary ones: Celery's
SoftTimeLimitExceeded, RQ's JobTimeoutException. No class tells them from what was interrupted.
"""

import functools
import signal
from collections.abc import Iterator
from traceback import walk_tb
from types import CodeType


def interrupt_in(error: BaseException, *, handled: BaseException | None) -> BaseException | None:
    """Find the exception of a signal handler: `error` itself, or what it was made of.

    A handler's TimeoutError looks like the socket's own, and HTTP clients make theirs of it.

    Args:
        error: What came out of the interrupted code.
        handled: `sys.exception()` before that code ran: a call that is made where an interrupt is
            handled is not interrupted itself.
    """
    handlers = set(_codes_of_handlers())
    origin: BaseException | None = error
    seen: set[int] = set()  # an exception that is raised again may lead back to itself
    while origin is not None and origin is not handled and id(origin) not in seen:
        if any(frame.f_code in handlers for frame, _ in walk_tb(origin.__traceback__)):
            return origin
        seen.add(id(origin))
        origin = origin.__cause__ or origin.__context__
    return None


def _codes_of_handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for function in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 -- its code
            code: object = getattr(function, "__code__", None)  # a bound method has its function's
            if isinstance(code, CodeType):
                yield code
