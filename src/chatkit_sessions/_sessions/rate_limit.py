"""How many requests one user may make in a minute, counted in a session store."""

import math
from typing import Final

from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.stores.base import Entry

REQUESTS: Final = "requests"
"""Names the entry in the user's group."""
WINDOW: Final = 60.0
"""Seconds that a request counts."""


def count_request(entry: Entry | None, *, limit: int) -> Entry | float:
    """Count one more request, if the last minute has room for it.

    The entry has the age of each request at the time of the newest one. Its remaining time to live
    shows the age of the newest one. So the machines' clocks need not agree.

    Args:
        entry: The stored entry; None: no request in the last minute.
        limit: Requests per minute, 1 or more.

    Returns:
        What to put in its place; or the seconds until there is room, more than 0.
    """
    ages = [] if entry is None else _ages(entry)
    if len(ages) >= limit:
        return WINDOW - ages[limit - 1]
    return Entry(MaskedBytes(" ".join(f"{age:.3f}" for age in [0.0, *ages]).encode()), WINDOW)


def _ages(entry: Entry) -> list[float]:
    """How many seconds ago the requests of the last minute were, the newest first."""
    newest = min(max(WINDOW - entry.seconds, 0.0), WINDOW)
    try:
        ages = [newest + float(age) for age in entry.value.split()]
    except ValueError:  # another release's
        return []
    return [age for age in ages if newest <= age < WINDOW and math.isfinite(age)]
