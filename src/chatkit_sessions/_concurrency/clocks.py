"""The time that a call has, and the clock by which sessions expire."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from chatkit_sessions.errors import APITimeoutError

Timeouts: TypeAlias = tuple[float | None, float | None, float | None, float | None]
"""Seconds to connect, to read, to write and to wait for a free connection."""

CONNECT_TIMEOUT: Final = 5.0
"""The most seconds for each attempt to connect."""
_TOLERANCE: Final = 1.0
"""Seconds by which two clocks may differ before that is a suspension."""


class Deadline(NamedTuple):
    """The moment at which a call ends, with all its requests and waits.

    Attributes:
        clock: A monotonic clock, in seconds.
        end: Its reading at the end of the call; None for no limit.
    """

    clock: Callable[[], float]
    end: float | None

    @classmethod
    def after(cls, seconds: float | None, clock: Callable[[], float]) -> "Deadline":
        """The deadline so many seconds from now; None: no limit."""
        return cls(clock, None if seconds is None else clock() + seconds)

    def at_most(self, seconds: float) -> "Deadline":
        """The earlier one of this deadline and so many seconds from now."""
        end = self.clock() + seconds
        return Deadline(self.clock, end if self.end is None else min(end, self.end))

    def remaining(self) -> float | None:
        """Seconds left, 0 or more; None for no limit."""
        return None if self.end is None else max(0.0, self.end - self.clock())

    def half(self) -> float | None:
        """Half of the seconds left, for a wait that an API call follows; None for no limit."""
        left = self.remaining()
        return None if left is None else left / 2

    @staticmethod
    def error() -> APITimeoutError:
        """The error of a call whose deadline has passed."""
        return APITimeoutError(
            "No complete response came within the time that the call had.",
            hint="Check that the API is reachable, or allow the call more time: `timeout`.",
        )

    def timeouts(self) -> Timeouts:
        """The seconds left, as the timeouts of an HTTP client."""
        left = self.remaining()
        connect = CONNECT_TIMEOUT if left is None else min(CONNECT_TIMEOUT, left)
        return (connect, left, left, left)


class Suspension:
    """Counts the seconds by which a clock has gone on while another one stood still.

    So it shows how long this machine was suspended: sessions expire meanwhile. Linux does not count
    it in CLOCK_MONOTONIC (clock_gettime(2)), and neither does macOS in the clock that Python reads.
    Time limits use the monotonic clock all the same: no call is to time out because a laptop was
    closed.

    Args:
        going_on: Seconds by the clock that goes on. If a wall clock is set forward, that looks the
            same: sessions then expire too early, but never too late.
        standing_still: Seconds by the other one.
    """

    def __init__(self, going_on: Callable[[], float], standing_still: Callable[[], float]) -> None:
        self._going_on = going_on
        self._standing_still = standing_still
        # Replaced in one step: other threads read both.
        self._seen = going_on() - standing_still(), 0.0

    def __call__(self) -> float:
        """Seconds of suspension so far."""
        ahead = self._going_on() - self._standing_still()
        known, seconds = self._seen
        if abs(ahead - known) > _TOLERANCE:
            seconds += max(0.0, ahead - known)
            self._seen = ahead, seconds
        return seconds


def clock_that_goes_on(clock_id: int | None) -> Callable[[], float]:
    """The clock of that number, if this machine has one that counts suspension; else the wall's."""
    return time.time if clock_id is None else lambda: time.clock_gettime(clock_id)


seconds_suspended: Final = Suspension(
    clock_that_goes_on(getattr(time, "CLOCK_BOOTTIME", None)), time.monotonic
)
"""Seconds for which this machine was suspended since the process began."""


def seconds_with_suspension() -> float:
    """Seconds by a clock that never goes back and counts suspension: sessions expire by it."""
    return time.monotonic() + seconds_suspended()
