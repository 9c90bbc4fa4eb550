"""Whether and when to retry: decisions on plain values; clients only sleep.

The rules are the official SDK's, with two differences: an invalid `retry-after` is ignored, and a
retry never exceeds the time that the call has left.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, NamedTuple

from chatkit_sessions._redaction import safe_repr

MAX_SECONDS: Final = 1_000_000
"""More than any sensible wait, less than what a platform's timers reject."""

_DECIMAL: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
FOR_NOW: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Statuses with which a server rejects a request for now, rather than for good."""


class FailedAttempt(NamedTuple):
    """How an attempt failed, as far as retrying needs to know.

    Attributes:
        status_code: The response's status; None if no response arrived.
        should_retry: The response's `x-should-retry`; None if it has none.
        retry_after: Seconds to wait, from the response; None if it has none.
        permanent: Whether a retry cannot help, whatever the other attributes are.
    """

    status_code: int | None = None
    should_retry: bool | None = None
    retry_after: float | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed attempt is retried.

    A retry follows a failed or lost connection, an attempt's timeout, and the statuses 408, 409,
    429 and 5xx. The response header `x-should-retry` overrides the status. There is no retry

    - after a success response that cannot be read, because the session may exist;
    - if it cannot help: an untrusted certificate, an exhausted quota, a proxy that asks for a
      password.

    Attributes:
        max_retries: Attempts after the first, 0 or more; default 2. 0 turns retries off.
        initial_delay: Seconds before the first retry, more than 0; default 0.5. The delay doubles
            with each further retry.
        max_delay: The longest delay in seconds, `initial_delay` or more; default 8.
        jitter: The share of a delay that is removed at random, so that clients do not retry all at
            once: 0 to 1; default 0.25.
        max_retry_after: The longest wait in seconds that a response may ask for, 0 or more; default
            120. A longer one ends the call at once.

    Raises:
        ValueError: A value is outside these bounds.
    """

    max_retries: int = 2
    initial_delay: float = 0.5
    max_delay: float = 8.0
    jitter: float = 0.25
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        retries: object = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            got = safe_repr(retries)
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
        failure: FailedAttempt,
        *,
        retries_done: int,
        remaining: float | None,
        random: Callable[[], float],
    ) -> float | None:
        """Decide what follows a failed attempt.

        Args:
            failure: How the attempt failed.
            retries_done: The number of retries so far, 0 after the first attempt.
            remaining: Seconds that the call has left; None: no limit.
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


def _is_worth_repeating(failure: FailedAttempt) -> bool:
    if failure.permanent:
        return False
    if failure.status_code is None:
        return True
    if failure.status_code < HTTPStatus.BAD_REQUEST:
        return False
    if failure.should_retry is not None:
        return failure.should_retry
    return failure.status_code in FOR_NOW or failure.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


def parse_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Read `x-should-retry`: `true`, `false`, or None for anything else."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def parse_retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Read `retry-after-ms`, else `retry-after` as seconds, else as a date.

    Args:
        headers: The response's headers, names in lower case.
        now: The current time, with a time zone, to subtract from a date.

    Returns:
        Seconds, more than 0 and finite; None if no header has a valid value.
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
