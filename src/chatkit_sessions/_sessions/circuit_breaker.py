"""Whether a session store is worth asking."""

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions.errors import SessionStoreError

RETRY_STORE_AFTER: Final = 1.0
"""Seconds between two attempts to use a store during an outage."""
FAILURES: Final = 2
"""Failures, one after the other, that make an outage."""

logger: Final = logging.getLogger("chatkit_sessions")


class CircuitBreaker:
    """Skips a store during an outage, which is logged once when it begins and once when it ends.

    A single failure is no outage, and neither are many at the same moment: a connection may have
    broken, or this machine may have been busy. The operation is tried again, and fails again.

    Operations are numbered as they begin: one that began earlier says nothing of what came later.
    Where a write has failed, only a write that succeeds tells that the outage is over: a replica
    still responds to reads.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._numbers = itertools.count(1)
        self.latest = 0
        """The number of the latest operation that has begun."""
        self._failures = 0
        self._counted_until = 0
        """The latest operation when a failure was counted."""
        self._last_failed = 0
        """The latest operation that has failed."""
        self._next_attempt: float | None = None
        self._is_told = False
        """Whether the log has the beginning of an outage, and not its end."""
        self._takes_no_writes = False

    @property
    def is_open(self) -> bool:
        """Whether there is an outage."""
        return self._next_attempt is not None

    def allows_request(self) -> bool:
        """Whether to ask; during an outage one call a second or so finds out if it is over."""
        next_attempt = self._next_attempt
        if next_attempt is None:
            return True
        now = self._clock()
        if now < next_attempt:
            return False
        self._next_attempt = now + RETRY_STORE_AFTER
        return True

    def begin(self) -> int:
        """Number an operation that begins now."""
        self.latest = number = next(self._numbers)
        return number

    def has_failed_since(self, latest: int) -> bool:
        """Whether an operation has failed that began when that one was the latest, or later."""
        return self._last_failed > latest

    def record_failure(
        self, error: SessionStoreError, number: int, *, writes: bool = False
    ) -> bool:
        """An operation has failed; return whether that begins an outage."""
        with self._lock.get():  # of many threads that fail at once, one logs
            self._takes_no_writes |= writes
            self._last_failed = max(self._last_failed, number)
            if number <= self._counted_until:
                return False  # it has seen the same trouble as one that is counted
            self._counted_until = self.latest
            self._failures += 1
            if self._failures < FAILURES:
                return False
            self._next_attempt = self._clock() + RETRY_STORE_AFTER
            begins, self._is_told = not self._is_told, True
        if begins:
            logger.warning(
                "%s Until it does, clients create sessions that they cannot share, and a service "
                "responds with 503. Hint: %s",
                error.message,
                error.hint,
            )
        return begins

    def record_success(self, number: int, *, writes: bool = True) -> bool:
        """The store responded; return whether that ends an outage."""
        if not (self._failures or self._is_told) or number <= self._last_failed:
            return False  # an operation may succeed after it was given up
        with self._lock.get():
            self._next_attempt = None
            self._failures = 0
            if self._takes_no_writes and not writes:
                return False
            self._takes_no_writes = False
            ends, self._is_told = self._is_told, False
        if ends:
            logger.info("The session store responds again.")
        return ends
