"""Run something again and again beside a call, from a thread."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Repeater:
    """Calls functions from one daemon thread, which ends when there are none any more.

    Args:
        sleep: Lets that many seconds pass; for tests.
    """

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._functions: dict[object, Callable[[], object]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def repeating(self, function: Callable[[], object], seconds: float) -> Generator[None]:
        """Call a function about every so many seconds; it must not raise."""
        key = object()
        try:
            self._functions[key] = function
            if self._thread is None or not self._thread.is_alive():
                name = "chatkit-sessions-lease"
                thread = threading.Thread(target=self._run, args=(seconds,), name=name, daemon=True)
                self._thread = thread
                thread.start()
            yield
        finally:
            self._functions.pop(key, None)

    def _run(self, seconds: float) -> None:
        while True:
            self._sleep(seconds)
            if not self._functions:
                self._thread = None
                # A caller from now on starts another thread; one just before does not.
                if not self._functions:
                    return
            for function in list(self._functions.values()):
                function()
