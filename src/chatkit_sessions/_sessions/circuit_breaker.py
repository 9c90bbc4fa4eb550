"""Whether a session store is worth asking."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from chatkit_sessions._concurrency.per_process import PerProcess
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

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._failures = 0
        self._failed_at = float("-inf")
        self._next_attempt: float | None = None

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

    def now(self) -> float:
        """The clock's reading, for `record_failure`."""
        return self._clock()

    def record_failure(self, error: SessionStoreError, *, begun: float) -> None:
        """An operation that began at that time has failed."""
        with self._lock.get():  # of many threads that fail at once, one logs
            if begun < self._failed_at:
                return  # it has seen the same trouble as one that is counted
            self._failed_at = self._clock()
            self._failures += 1
            if self._failures < FAILURES:
                return
            begins = self._next_attempt is None
            self._next_attempt = self._failed_at + RETRY_STORE_AFTER
        if begins:
            logger.warning(
                "%s Until it does, sessions are created without it. Hint: %s",
                error.message,
                error.hint,
            )

    def record_success(self) -> bool:
        """The store responded; returns whether that ends an outage."""
        if not self._failures:
            return False
        with self._lock.get():
            ends, self._next_attempt = self._next_attempt is not None, None
            self._failures = 0
        if ends:
            logger.info("The session store responds again.")
        return ends
