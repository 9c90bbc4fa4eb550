"""The store for one process."""

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
    """Stores the sessions of one process, for sync and async clients: a client's default store.

    Threads and event loops can share it. The next change removes expired entries. A full store
    removes the oldest entries. A session takes two entries, or five if callers share it.

    Args:
        namespace: Clients with the same namespace share sessions. Default: clients share sessions
            if they have the same API key. With a key function, they must have the same function,
            and one must come from the other by `with_options`.
        max_entries: The most entries, 1 or more; default 30,000.
        clock: For tests: returns seconds that never go back, by which entries expire.

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
        # By group and name: the value and its expiry. The oldest comes first.
        # A plain dict would search all freed places to find the first entry.
        self._entries: OrderedDict[tuple[str, str], tuple[MaskedBytes, float]] = OrderedDict()
        self._listed: dict[str, dict[str, None]] = {}
        # Expiries of entries, soonest first; some entries are gone, or have another expiry.
        self._ends: list[tuple[float, str, str]] = []

    def __repr__(self) -> str:
        # A traceback that prints local variables may show a half-made store.
        namespace, entries = getattr(self, "_namespace", ""), getattr(self, "_entries", ())
        return f"{type(self).__name__}(namespace={namespace!r}, {len(entries)} entries)"

    @property
    def namespace(self) -> str:
        """Separates sessions of clients; empty: the API key does."""
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
        """The time by the store's clock, in seconds."""
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
