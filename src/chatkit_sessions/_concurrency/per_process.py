"""What must not be shared over `fork()`, as gunicorn does with a preloaded application."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One value for each process, made when first needed.

    A child never touches the value of its parent: a socket would be read by both, and a lock may
    be held by a thread that the child does not have. It is kept, so that nothing closes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """This process's value."""
        process = os.getpid()
        value = self._values.get(process)
        # setdefault is atomic: of two threads that come first, both get the same value.
        return value if value is not None else self._values.setdefault(process, self._make())

    def pop(self) -> T | None:
        """Take this process's value out, None where it was never needed."""
        return self._values.pop(os.getpid(), None)
