"""The store for one process."""

import heapq
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from chatkit_sessions._concurrency.clocks import seconds_with_suspension
from chatkit_sessions._concurrency.threads import PerProcess
from chatkit_sessions._redaction import safe_repr

from .base import Entry

if TYPE_CHECKING:
    from chatkit_sessions._redaction import MaskedBytes

logger: Final = logging.getLogger("chatkit_sessions")

_MAX_ENTRIES: Final = 30_000
_MAX_PLACES: Final = 65_536

_Ranked: TypeAlias = tuple[float, float, str, str]
"""An entry's rank in a heap, its expiry, its group and its name."""


class Evictions:
    """Until when lost entries would have been needed, by their group, in bounded space.

    Groups may share a place. So more may seem to be lost than is, but never less.
    """

    def __init__(self) -> None:
        self._until: dict[int, float] = {}

    def add(self, group: str, until: float) -> None:
        """Note that an entry of the group is lost."""
        place = hash(group) % _MAX_PLACES
        self._until[place] = max(until, self._until.get(place, until))

    def seconds_left(self, group: str, now: float) -> float:
        """Seconds for which a lost entry of the group would still be needed; 0: none."""
        return max(0.0, self._until.get(hash(group) % _MAX_PLACES, now) - now)


class MemorySessionStore:
    """Stores the sessions of one process, for sync and async clients: a client's default store.

    Threads and event loops can share it. The next change removes expired entries. A full store
    first removes entries of sessions that have ended, then those that expire soonest, and warns
    once. A sign-out that may have missed a session because of that raises SessionStoreError, and
    rate limits may admit more than they say, because what they count expires soonest. A session
    takes two entries, or five if callers share it.

    Args:
        namespace: Clients with the same namespace share sessions. Default: clients share sessions
            if they have the same API key. With a key function, they must have the same function,
            and one must come from the other by `with_options`.
        max_entries: The most entries, 1 or more; default 30,000.
        clock: For tests: returns seconds that never go back, by which entries expire.

    Raises:
        ValueError: `max_entries` is less than 1, or `clock` returns no number.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        max_entries: int = _MAX_ENTRIES,
        clock: Callable[[], float] = seconds_with_suspension,
    ) -> None:
        number: object = max_entries
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"max_entries must be 1 or more, got {safe_repr(max_entries)}")
        if not isinstance(clock(), int | float):
            raise ValueError(  # noqa: TRY004 -- the same error for each wrong argument
                "clock must return seconds as a number, such as time.monotonic; the clock of a "
                "client or service, which returns a datetime, is another one"
            )
        self._namespace = namespace
        self._max_entries = max_entries
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        # By group and name: the value, its expiry, and until when it is needed.
        self._entries: dict[tuple[str, str], tuple[MaskedBytes, float, float]] = {}
        self._listed: dict[str, dict[str, None]] = {}
        # Heaps of entries; some are gone, or have another expiry by now.
        self._by_end: list[_Ranked] = []
        self._by_need: list[_Ranked] = []
        self._evictions = Evictions()
        self._is_full = False

    def __repr__(self) -> str:
        # A traceback that prints local variables may show a half-made store.
        namespace, entries = getattr(self, "_namespace", ""), getattr(self, "_entries", ())
        return f"{type(self).__name__}(namespace={namespace!r}, {len(entries)} entries)"

    @property
    def namespace(self) -> str:
        """Separates sessions of clients; empty: the API key does."""
        return self._namespace

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """Read entries, all at one moment; see `SessionStore`."""
        with self._lock.get():
            now = self._clock()
            return [self._entry(group, name, now) for name in names]

    def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; see `SessionStore`."""
        with self._lock.get():
            return list(self._listed.get(group, ()))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold; see `SessionStore`."""
        with self._lock.get():
            now = self._clock()
            for name, expected in when.items():
                entry = self._entry(group, name, now)
                if (entry and entry.value) != expected:
                    return False
            for name, change in changes.items():
                self._remove(group, name)
                if change is not None:
                    self._put(group, name, change, now)
            was_full = self._is_full
            self._make_room(now)
        if self._is_full and not was_full:  # without the lock, which a log's handler might need
            logger.warning(_FULL, self._max_entries)
        return True

    def now(self, _group: str) -> float:
        """The time by the store's clock, in seconds."""
        return self._clock()

    def evicted_seconds(self, group: str) -> float:
        """For how many seconds a removed entry would have been needed; see `SessionStore`."""
        with self._lock.get():
            return self._evictions.seconds_left(group, self._clock())

    def _entry(self, group: str, name: str, now: float) -> Entry | None:
        found = self._entries.get((group, name))
        if found is None or found[1] <= now:
            return None
        return Entry(found[0], found[1] - now, expires_at=found[1])

    def _put(self, group: str, name: str, entry: Entry, now: float) -> None:
        end = now + entry.seconds if entry.expires_at is None else entry.expires_at
        if end <= now:
            return
        needed_until = end - entry.retention
        self._entries[group, name] = entry.value, end, needed_until
        if entry.listed:
            self._listed.setdefault(group, {})[name] = None
        heapq.heappush(self._by_end, (end, end, group, name))
        heapq.heappush(self._by_need, (needed_until, end, group, name))

    def _remove(self, group: str, name: str) -> None:
        self._entries.pop((group, name), None)
        listed = self._listed.get(group)
        if listed is not None:
            listed.pop(name, None)
            if not listed:
                del self._listed[group]

    def _make_room(self, now: float) -> None:
        while self._by_end and self._by_end[0][0] <= now:
            ranked = heapq.heappop(self._by_end)
            if self._is_current(ranked):
                self._remove(*ranked[2:])
        while len(self._entries) > self._max_entries:
            ranked = heapq.heappop(self._by_need)
            if self._is_current(ranked):
                self._evict(ranked, now)
        for heap in (self._by_end, self._by_need):
            if len(heap) > 2 * self._max_entries:
                heap[:] = filter(self._is_current, set(heap))
                heapq.heapify(heap)

    def _evict(self, ranked: _Ranked, now: float) -> None:
        needed_until, _, group, name = ranked
        if needed_until > now:
            self._is_full = True
            if name in self._listed.get(group, ()):
                self._evictions.add(group, needed_until)
        self._remove(group, name)

    def _is_current(self, ranked: _Ranked) -> bool:
        rank, end, group, name = ranked
        held = self._entries.get((group, name))
        return held is not None and held[1] == end and rank in held[1:]


_FULL: Final = (
    "The session store in memory is full: it has removed an entry that was still needed, one of "
    "%d. Sessions may end early, rate limits may admit more, and a sign-out may raise "
    "SessionStoreError. Make `max_entries` greater, or use a Redis store."
)
