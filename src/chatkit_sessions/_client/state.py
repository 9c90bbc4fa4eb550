"""What a client holds beside its settings: whether it is open, its runtime, what it has learned."""

import hashlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from chatkit_sessions._concurrency.suspension import seconds_suspended
from chatkit_sessions.events import OnEvent


class Route(Enum):
    """Routes that the contract does not have and only some servers offer."""

    REFRESH = "refresh"
    GET = "get"


class Lifetime:
    """Whether a client is open; one from `with_options` closes with the one it came from.

    A `with` block opens a closed client: the lifespan of an application may run for each test, or
    for each invocation of a function, also several at the same time.
    """

    def __init__(self, parent: "Lifetime | None" = None) -> None:
        self._parent = parent
        self._closed = False
        self._opened_parent = False
        self._blocks: list[None] = []
        """One for each block that runs now; appending and removing are atomic."""

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._closed or (self._parent is not None and self._parent.closed)

    def enter(self) -> None:
        """Begin a block."""
        self._blocks.append(None)
        if self._parent is not None and self._parent.closed:
            self._parent.enter()
            self._opened_parent = True
        self._closed = False

    def leave(self) -> bool:
        """End a block; return whether it was the last one, with which the client closes."""
        if self._blocks:  # closing has removed them
            self._blocks.pop()
        return not self._blocks

    def close(self) -> bool:
        """Close the client; return whether its connections are its own and close with it."""
        self._closed = True
        self._blocks.clear()
        if self._parent is None:
            return True
        opened_parent, self._opened_parent = self._opened_parent, False
        return opened_parent and self._parent.leave() and self._parent.close()


class Runtime(NamedTuple):
    """Time and chance as a client uses them; the test kit puts its own in their place."""

    sleep: Callable[[float], Awaitable[object] | None]
    """Lets that many seconds pass: a function that blocks or, in the async client, is awaited."""
    monotonic: Callable[[], float]
    random: Callable[[], float]
    """Returns a number from 0 up to but not including 1."""
    now: Callable[[], datetime]
    suspended: Callable[[], float]
    """Seconds for which the machine was suspended, which `monotonic` does not count."""
    on_event: OnEvent | None = None

    def expiry_clock(self) -> float:
        """Seconds by the clock that sessions expire by."""
        return self.monotonic() + self.suspended()


class SharedState:
    """What the clients on one set of connections have learned, in common."""

    def __init__(self) -> None:
        self.missing_until: Final[dict[Route, float]] = {}
        """Until when, by the monotonic clock, the server is known to lack a route."""
        self._callables: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    def scope_of_key(self, key: object) -> str:
        """Equal for the same key, or the same function that returns it; reveals nothing of it."""
        if isinstance(key, SecretStr):
            return hashlib.sha256(key.get_secret_value().encode()).hexdigest()
        new = f"callable {os.urandom(8).hex()}"
        try:
            return self._callables.setdefault(key, new)
        except TypeError:  # a callable that cannot be hashed or weakly referred to
            return new


def system_runtime(sleep: Callable[[float], Awaitable[object] | None]) -> Runtime:
    """Time and chance of this machine, looked up now: tests may have put others in their place."""
    return Runtime(
        sleep, time.monotonic, random.random, lambda: datetime.now(UTC), seconds_suspended
    )
