"""A store in the memory of one process."""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from chatkit_sessions._concurrency.per_process import PerProcess

from .base import Entry

if TYPE_CHECKING:
    from chatkit_sessions._redaction import MaskedBytes

_MAX_ENTRIES: Final = 30_000


class MemorySessionStore:
    """Sessions of this process, bounded, for both clients; what a client has if given no store.

    Safe to use from several threads and event loops. What has lived its time is removed with the
    next changes; when the store is full, the entries that were written first make room. A session
    takes two entries, or five if it is handed out again.

    Args:
        namespace: Clients share sessions if they have the same one. Left out: if they have the
            same API key, or get it from the same function and descend from one client.
        max_entries: How many entries are kept, 1 or more.
        clock: Seconds that never go back, which entries live by; for tests.

    Raises:
        ValueError: `max_entries` is less than 1.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        max_entries: int = _MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be 1 or more, got {max_entries}")
        self._namespace = namespace
        self._max_entries = max_entries
        self._clock = clock
        self._lock = PerProcess(threading.Lock)
        # By group and name: the value and when it ends. The first one written comes first.
        # A plain dict would walk over every place that was freed to find the first one.
        self._entries: OrderedDict[tuple[str, str], tuple[MaskedBytes, float]] = OrderedDict()
        self._listed: dict[str, dict[str, None]] = {}
        # When entries end, soonest first; some are gone by then, or end at another time.
        self._ends: list[tuple[float, str, str]] = []

    def __repr__(self) -> str:
        # A traceback that prints local variables may meet a store that is only half made.
        namespace, entries = getattr(self, "_namespace", ""), getattr(self, "_entries", ())
        return f"{type(self).__name__}(namespace={namespace!r}, {len(entries)} entries)"

    @property
    def namespace(self) -> str:
        """What keeps sessions apart; empty: the API key does."""
        return self._namespace

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """See `SessionStore.get`."""
        with self._lock.get():
            now = self._clock()
            return [self._entry(group, name, now) for name in names]

    def names(self, group: str) -> list[str]:
        """See `SessionStore.names`."""
        with self._lock.get():
            return list(self._listed.get(group, ()))

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """See `SessionStore.commit`."""
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
            self._make_room(now)
            return True

    def now(self, _group: str) -> float:
        """Seconds by the store's clock, which `expires_at` counts by."""
        return self._clock()

    def _entry(self, group: str, name: str, now: float) -> Entry | None:
        found = self._entries.get((group, name))
        if found is None or found[1] <= now:
            return None
        return Entry(found[0], found[1] - now)

    def _put(self, group: str, name: str, entry: Entry, now: float) -> None:
        end = now + entry.seconds if entry.expires_at is None else entry.expires_at
        if end <= now:
            return
        self._entries[group, name] = entry.value, end
        if entry.listed:
            self._listed.setdefault(group, {})[name] = None
        heapq.heappush(self._ends, (end, group, name))

    def _remove(self, group: str, name: str) -> None:
        self._entries.pop((group, name), None)
        listed = self._listed.get(group)
        if listed is not None:
            listed.pop(name, None)
            if not listed:
                del self._listed[group]

    def _make_room(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, group, name = heapq.heappop(self._ends)
            if self._entry(group, name, now) is None:
                self._remove(group, name)
        while len(self._entries) > self._max_entries:
            self._remove(*next(iter(self._entries)))
        if len(self._ends) > 2 * self._max_entries:
            self._ends = [(end, *key) for key, (_, end) in self._entries.items()]
            heapq.heapify(self._ends)
