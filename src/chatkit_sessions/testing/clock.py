"""The clock by which sessions of the local API expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that a test moves forward instead of waiting.

    Args:
        start: Where the clock stands still, except for `advance`; must be aware. By default, the
            clock runs on real time plus whatever it was advanced.

    Raises:
        ValueError: `start` has no time zone.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None and start.utcoffset() is None:
            raise ValueError("start must be an aware datetime, such as datetime.now(UTC)")
        self._start = None if start is None else start.astimezone(UTC)
        self._advanced = timedelta()

    def now(self) -> datetime:
        """Return the clock's time, in UTC."""
        return (self._start or datetime.now(UTC)) + self._advanced

    def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move the clock forward by the sum of the arguments.

        Raises:
            ValueError: The sum is negative. Expired sessions would become active again.
        """
        step = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if step < timedelta():
            raise ValueError(f"a clock only moves forward, not by {step.total_seconds()} seconds")
        self._advanced += step
