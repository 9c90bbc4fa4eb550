"""Unix seconds, ISO 8601 or a date of HTTP → an aware datetime."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2101, 1, 1, tzinfo=UTC)
_MONTHS: Final[list[str]] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
]  # fmt: skip
_HTTP_DATE: Final = re.compile(
    rf"[A-Z][a-z]{{2}}, ([0-9]{{2}}) ({'|'.join(_MONTHS)}) (20[0-9]{{2}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def parse_moment(value: object) -> datetime:
    """Read Unix seconds, as the contract has them, or ISO 8601, as compatible servers send it.

    Raises:
        ValueError: The value is neither, or lies outside the years 2000 to 2100.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | datetime):
        raise ValueError("must be Unix seconds or an ISO 8601 string")  # noqa: TRY004 -- pydantic turns only a ValueError into its own error
    try:
        moment = _to_utc(value)
    except (ValueError, OverflowError, OSError):
        raise ValueError("must be a date that exists") from None
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("must lie in the years 2000 to 2100")
    return moment


def parse_http_date(text: str) -> datetime | None:
    """Read a `Date` header; None where it is none (RFC 9110, section 5.6.7).

    Of the formats that HTTP has had, only the one that servers may still send is read, and of
    centuries the present one.
    """
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    time = int(hour), int(minute), int(second)
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), *time, tzinfo=UTC)
    except ValueError:
        return None


def _to_utc(value: float | str | datetime) -> datetime:
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment: TypeAlias = Annotated[datetime, BeforeValidator(parse_moment)]
