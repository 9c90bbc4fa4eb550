"""Unix seconds or ISO 8601 → an aware datetime."""

import math
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2101, 1, 1, tzinfo=UTC)


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


def _to_utc(value: float | str | datetime) -> datetime:
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment: TypeAlias = Annotated[datetime, BeforeValidator(parse_moment)]
