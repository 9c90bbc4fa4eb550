"""How many requests may be made in a minute, counted in a session store, and in the process."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.stores.base import Entry

REQUESTS: Final = "requests"
"""Names the entry in the group of a user or a session."""
WINDOW: Final = 60.0
"""Seconds that a request counts at least."""
SPAN: Final = 1.0
"""Seconds in which requests are counted together: one counts that much longer at the most."""
MAX_USERS: Final = 10_000
"""Users that are counted; the one whose last request is the oldest makes room."""
_LIFE: Final = WINDOW + SPAN
_MAX_BUCKETS: Final = int(_LIFE / SPAN) + 1


def count_request(entry: Entry | None, *, limit: int) -> Entry | float:
    """Count one more request, if the last minute has room for it.

    Requests within a second are one bucket: its age, which is that of its first request, and how
    many there are. A bucket counts until its last request may be a minute old. So no minute has
    more requests than the limit, and a request counts for 60 to 61 seconds.

    The ages are those at the time when the newest bucket began, and the entry's remaining time
    shows how long ago that was. So the machines' clocks need not agree.

    Args:
        entry: The stored entry; None: no request in the last minute.
        limit: Requests per minute, 1 or more.

    Returns:
        What to put in its place; or the seconds until there is room, more than 0.
    """
    passed = 0.0 if entry is None else min(max(_LIFE - entry.seconds, 0.0), _LIFE)
    buckets = [] if entry is None else _parse(entry, passed)
    total = 0
    for age, count in buckets:
        total += count
        if total >= limit:
            return _LIFE - passed - age
    if entry is not None and buckets and passed + buckets[0][0] < SPAN:
        (age, count), *older = buckets
        return _entry([(age, count + 1), *older], entry.seconds, entry.expires_at)
    rebased = [(0.0, 1), *((passed + age, count) for age, count in buckets)]
    if entry is None or entry.expires_at is None:
        return _entry(rebased, _LIFE, None)
    # By the store's own clock: what passes until the commit does not make the requests younger.
    return _entry(rebased, _LIFE, entry.expires_at - entry.seconds + _LIFE)


COUNT_IN_REDIS: Final = f"""
local function count_request(key, limit)
  local life, buckets, total = {_LIFE}, {{}}, 0
  local value = redis.call('GET', key)
  local left = value and redis.call('PTTL', key) or 0
  local passed = left > 0 and math.min(math.max(life - left / 1000, 0), life) or 0
  for pair in string.gmatch(left > 0 and value or '', '%S+') do
    local age, count = string.match(pair, '^([^*]*)%*?(.*)$')
    age, count = tonumber(age), tonumber(count == '' and 1 or count)
    if not age or not count then
      buckets = {{}}
      break
    elseif 0 <= age and age < life - passed and #buckets < {_MAX_BUCKETS} then
      buckets[#buckets + 1] = {{age, count}}
    end
  end
  for _, bucket in ipairs(buckets) do
    total = total + bucket[2]
    if total >= limit then return life - passed - bucket[1] end
  end
  if buckets[1] and passed + buckets[1][1] < {SPAN} then
    buckets[1][2] = buckets[1][2] + 1
  else
    for _, bucket in ipairs(buckets) do bucket[1] = passed + bucket[1] end
    table.insert(buckets, 1, {{0, 1}})
    left = life * 1000
  end
  for i, bucket in ipairs(buckets) do
    buckets[i] = bucket[2] > 0 and string.format('%.6f*%d', bucket[1], bucket[2]) or ''
  end
  redis.call('SET', key, table.concat(buckets, ' '), 'PX', left)
  return 0
end
"""
"""The same for a script in Redis: counts, or returns the seconds until there is room."""


def uncount_request(entry: Entry) -> Entry:
    """Take the last counted request out again."""
    buckets = [(age, count - 1) for age, count in _parse(entry, 0.0)[:1]]
    return _entry([*buckets, *_parse(entry, 0.0)[1:]], entry.seconds, entry.expires_at)


def _parse(entry: Entry, passed: float) -> list[tuple[float, int]]:
    """The buckets that still count, the newest first."""
    try:
        pairs = [pair.partition(b"*") for pair in entry.value.split()]
        # A release that counted each request by itself wrote its age alone.
        buckets = [(float(age), int(count or b"1")) for age, _, count in pairs]
    except ValueError:  # another release's
        return []
    return [(age, count) for age, count in buckets if 0 <= age < _LIFE - passed][:_MAX_BUCKETS]


def _entry(buckets: list[tuple[float, int]], seconds: float, expires_at: float | None) -> Entry:
    value = b" ".join(b"%.6f*%d" % bucket for bucket in buckets if bucket[1] > 0)
    return Entry(MaskedBytes(value), seconds, expires_at=expires_at)


class RequestCounts:
    """The requests of an endpoint's users that this process admitted.

    They are never more than the store has counted: a user over the limit here is also over the
    store's. So excessive requests use none of the store's connections.

    Args:
        limit: Requests for each minute, 1 or more.
    """

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self._lock = PerProcess(threading.Lock)
        # By user: the entry as the store has it, and when it ends.
        self._counted: OrderedDict[str, tuple[Entry, float]] = OrderedDict()

    def admit(self, user: str, clock: Callable[[], float]) -> float:
        """Count one more request, if there is room; return the seconds until there is."""
        with self._lock.get():
            now = clock()
            entry, ends = self._counted.get(user, (None, now))
            entry = replace(entry, seconds=ends - now) if entry and ends > now else None
            counted = count_request(entry, limit=self.limit)
            if not isinstance(counted, Entry):
                return counted
            self._counted[user] = counted, now + counted.seconds
            self._counted.move_to_end(user)
            if len(self._counted) > MAX_USERS:
                self._counted.popitem(last=False)
            return 0.0

    def take_back(self, user: str) -> None:
        """Uncount the last request, which the store did not admit."""
        with self._lock.get():
            if user in self._counted:
                entry, ends = self._counted[user]
                self._counted[user] = uncount_request(entry), ends
