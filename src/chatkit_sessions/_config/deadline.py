"""The time that a call has, with all its requests and waits."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from chatkit_sessions.errors import APITimeoutError

Timeouts: TypeAlias = tuple[float | None, float | None, float | None, float | None]
"""Seconds to connect, to read, to write and to wait for a free connection."""

CONNECT_TIMEOUT: Final = 5.0
"""The most seconds for each attempt to connect."""


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
        return None if self.end is None else max(0.0, self.end - self.clock()) / 2

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
