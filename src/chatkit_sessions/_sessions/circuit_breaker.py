"""Whether a session store is worth asking."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from chatkit_sessions._concurrency.per_process import PerProcess
from chatkit_sessions.errors import SessionStoreError

RETRY_STORE_AFTER: Final = 1.0
"""Seconds between two attempts to use a store that did not respond."""

logger: Final = logging.getLogger("chatkit_sessions")


class CircuitBreaker:
    """Skips a store during an outage, which is logged once when it begins and once when it ends.

    Args:
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        self._next_attempt: float | None = None

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

    def record_failure(self, error: SessionStoreError) -> None:
        """The store did not respond."""
        with self._lock.get():  # of many threads that fail at once, one logs
            begins = self._next_attempt is None
            self._next_attempt = self._clock() + RETRY_STORE_AFTER
        if begins:
            logger.warning("%s Until it does, sessions are created without it.", error.message)

    def record_success(self) -> None:
        """The store responded."""
        if self._next_attempt is not None:
            self._next_attempt = None
            logger.info("The session store responds again.")
