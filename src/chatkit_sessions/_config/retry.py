"""Whether to try again, and when: decisions on plain values; clients only sleep.

The rules are those of the official SDK, so that moving from one to the other changes nothing; only
nonsense in `retry-after` is treated more strictly, and the time a call has left is respected.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from chatkit_sessions._redaction import safe_repr

MAX_SECONDS: Final = 1_000_000
"""More than any wait that makes sense, less than what a platform's timers refuse."""

_DECIMAL: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_RETRIED_STATUSES: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an attempt ended with, as far as retrying goes.

    Attributes:
        status_code: The response's status; None where no response came.
        should_retry: The response's `x-should-retry`; None where it has none.
        retry_after: Seconds that the response asks to wait; None where it does not say.
        permanent: Whether another attempt cannot help, whatever the rest says.
    """

    status_code: int | None = None
    should_retry: bool | None = None
    retry_after: float | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated.

    Repeated are: no connection, a connection lost on the way, an attempt's timeout, and the
    statuses 408, 409, 429 and 500 and above; the response header `x-should-retry` overrides
    the status. A success response that cannot be read is never repeated: the session may exist.
    Nor is what another attempt cannot change: a certificate that is not trusted, an exhausted
    quota, a proxy that asks for a password.

    Attributes:
        max_retries: Attempts after the first, 0 or more; 0 switches retrying off.
        initial_delay: Seconds before the first retry, more than 0; doubled for each further one.
        max_delay: The most seconds that doubling reaches, `initial_delay` or more.
        jitter: By which share a delay is shortened at random, so that clients do not return all at
            once: 0 to 1.
        max_retry_after: The longest wait in seconds that a response may ask for, 0 or more; one
            that asks for more ends the call at once.

    Raises:
        ValueError: A value is outside these bounds.
    """

    max_retries: int = 2
    initial_delay: float = 0.5
    max_delay: float = 8.0
    jitter: float = 0.25
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        if not _is_int(self.max_retries) or self.max_retries < 0:
            got = safe_repr(self.max_retries)
            raise ValueError(f"`max_retries` must be a whole number, 0 or more, got {got}")
        for name in ("initial_delay", "max_delay", "jitter", "max_retry_after"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"`{name}` must be a number, got {safe_repr(value)}")  # noqa: TRY004 -- one error for every bad value
            if not 0 <= value <= MAX_SECONDS:
                bound = f"must be finite and 0 or more (at most {MAX_SECONDS:,})"
                raise ValueError(f"`{name}` {bound}, got {safe_repr(value)}")
        if not 0 < self.initial_delay <= self.max_delay:
            raise ValueError(
                "`initial_delay` must be more than 0 and at most `max_delay`, "
                f"got {self.initial_delay!r} and {self.max_delay!r}"
            )
        if self.jitter > 1:
            raise ValueError(f"`jitter` must be between 0 and 1, got {self.jitter!r}")

    def delay(
        self,
        failure: Failure,
        *,
        retries_done: int,
        remaining: float | None,
        random: Callable[[], float],
    ) -> float | None:
        """Decide what follows a failed attempt.

        Args:
            failure: What the attempt ended with.
            retries_done: How many retries there have been already, 0 after the first attempt.
            remaining: Seconds that the call has left; None for no limit.
            random: Returns a number from 0 up to but not including 1.

        Returns:
            Seconds to wait before the next attempt, or None to give up.
        """
        if retries_done >= self.max_retries or not _is_worth_repeating(failure):
            return None
        if failure.retry_after is not None:
            if failure.retry_after > self.max_retry_after:
                return None
            delay = failure.retry_after
        else:
            # The exponent is bounded because 2.0 ** 1024 overflows.
            backoff = self.initial_delay * 2.0 ** min(retries_done, 60)
            delay = min(backoff, self.max_delay) * (1 - self.jitter * random())
        return delay if remaining is None or delay < remaining else None


RetryPolicy.__module__ = "chatkit_sessions"  # what a pickle names: this module may move


def _is_worth_repeating(failure: Failure) -> bool:
    if failure.permanent:
        return False
    if failure.status_code is None:
        return True
    if failure.status_code < HTTPStatus.BAD_REQUEST:
        return False
    if failure.should_retry is not None:
        return failure.should_retry
    return (
        failure.status_code in _RETRIED_STATUSES
        or failure.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def parse_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Read `x-should-retry`: `true`, `false`, or None for anything else."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def parse_retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Read `retry-after-ms`, else `retry-after` as seconds, else as a date.

    Args:
        headers: The response's headers, names in lower case.
        now: The moment to count a date from, with a time zone.

    Returns:
        Seconds, more than 0 and finite; None where no header makes such sense.
    """
    milliseconds = _positive(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000 or None
    text = headers.get("retry-after", "")
    return _positive(text) or _seconds_until(text, now)


def _positive(text: str) -> float | None:
    text = text.strip()
    if not _DECIMAL.fullmatch(text):  # Python would read more: `1_0`, `1e3`
        return None
    number = float(text)
    return number if math.isfinite(number) and number > 0 else None


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # RFC 9110 has dates in GMT; `-0000`, which Python reads as no zone, means the same instant.
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        seconds = (aware - now).total_seconds()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return seconds if seconds > 0 else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
