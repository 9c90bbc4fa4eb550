"""Each user's requests to this process in the last minute."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from chatkit_sessions._concurrency.per_process import PerProcess

WINDOW: Final = 60.0
"""Seconds that a request counts."""
MAX_USERS: Final = 10_000
"""Users that are counted; the one with the oldest request makes room."""


class RequestCounts:
    """The requests that this process admitted: never more than the store has counted.

    A user over this limit is also over the store's. So excessive requests use none of the store's
    connections.

    Args:
        limit: Requests for each minute, 1 or more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = PerProcess(threading.Lock)
        self._moments: OrderedDict[str, list[float]] = OrderedDict()

    def admit(self, user: str, clock: Callable[[], float]) -> float:
        """Count one more request, if there is room; return the seconds until there is."""
        with self._lock.get():
            now = clock()
            moments = [each for each in self._moments.get(user, ()) if now - each < WINDOW]
            if len(moments) >= self._limit:
                return moments[0] + WINDOW - now
            self._moments[user] = [*moments, now]
            self._moments.move_to_end(user)
            if len(self._moments) > MAX_USERS:
                self._moments.popitem(last=False)
            return 0.0

    def take_back(self, user: str) -> None:
        """Uncount the last request, which the store did not admit."""
        with self._lock.get():
            moments = self._moments.get(user)
            if moments:
                moments.pop()
