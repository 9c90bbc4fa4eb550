"""How long this machine was suspended: sessions expire meanwhile, and monotonic clocks stand still.

Linux does not count it in CLOCK_MONOTONIC (clock_gettime(2)), and neither does macOS in the clock
that Python reads. Time limits use the monotonic clock all the same: no call is to time out because
a laptop was closed.
"""

import time
from collections.abc import Callable
from typing import Final

_TOLERANCE: Final = 1.0
"""Seconds by which two clocks may differ before that is a suspension."""


class Suspension:
    """Counts the seconds by which a clock has gone on while another one stood still.

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
