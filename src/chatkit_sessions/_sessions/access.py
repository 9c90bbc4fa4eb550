"""One store as the clients reach it: within limits, not during an outage, and a stand-in then."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions.errors import SessionStoreError
from chatkit_sessions.stores.base import AsyncSessionStore, Entry, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .bounds import LEADERS_AT_ONCE, Bounds, StoreBusyError, outage_began_error
from .circuit_breaker import CircuitBreaker
from .snapshot import StoreSnapshot
from .transactions import CreatedSession, Transaction

T = TypeVar("T")

MAX_UNPUBLISHED: Final = 1_000
"""Sessions that are remembered during an outage; the oldest make room."""


class ReplicatedStore(Protocol):
    """What a store has more if a sign-out waits for its replicas."""

    def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool | Awaitable[bool]:
        """See `SessionStore`."""
        ...


class StoreState:
    """What this process knows of one store, whichever clients it is given to.

    Args:
        store: That store; it is not kept.
    """

    def __init__(self, store: SessionStore | AsyncSessionStore) -> None:
        self.circuit_breaker: Final = CircuitBreaker(time.monotonic)
        self.bounds: Final = Bounds(store)
        # Apart: a lease that is renewed behind a crowd that polls for it would run out.
        self.leaders_bounds: Final = Bounds(store, LEADERS_AT_ONCE)
        self.stand_in = MemorySessionStore()
        """Takes the store's place during an outage, and is emptied when that is over."""
        self.unpublished: Final[dict[str, tuple[CreatedSession, StoreSnapshot]]] = {}
        """Sessions, by id, that the store is to learn of when it responds again."""

    def keep(self, created: CreatedSession, snapshot: StoreSnapshot) -> None:
        """Remember a session that could not be published."""
        self.unpublished[created.session.id] = created, snapshot
        # Listed in one step: other threads change the dictionary meanwhile.
        for oldest in list(
            islice(self.unpublished, max(0, len(self.unpublished) - MAX_UNPUBLISHED))
        ):
            self.unpublished.pop(oldest, None)

    def end_outage(self) -> None:
        """Forget what was only good for as long as the store was out."""
        self.stand_in = MemorySessionStore()


_states: Final[WeakKeyDictionary[object, StoreState]] = WeakKeyDictionary()


def state_of(store: SessionStore | AsyncSessionStore) -> StoreState:
    """What this process knows of a store; nothing yet where it is seen for the first time."""
    new = StoreState(store)
    try:
        return _states.setdefault(store, new)
    except TypeError:  # a user's own, which cannot be a key
        return new


class StoreAccess:
    """Reads and changes a store.

    Args:
        store: Whose entries.
    """

    def __init__(self, store: SessionStore | AsyncSessionStore) -> None:
        self.store: Final = store
        self.state: Final = state_of(store)

    # Each is tried twice, outside of an outage, and raises SessionStoreError if it fails again

    async def get(self, group: str, names: Sequence[str], deadline: Deadline) -> list[Entry | None]:
        """Read entries."""
        return await self._run(lambda: self.store.get(group, names), deadline)

    async def get_many(
        self, entries: Sequence[tuple[str, str]], deadline: Deadline
    ) -> list[Entry | None]:
        """Read entries of several groups, each named by its group and its name."""
        read: Callable[[object], list[Entry | None]] | None = getattr(self.store, "get_many", None)
        if read is not None and entries:
            return await self._run(lambda: read(entries), deadline)
        return [(await self.get(group, [name], deadline))[0] for group, name in entries]

    async def names(self, group: str, deadline: Deadline) -> list[str]:
        """Read the names of listed entries."""
        return await self._run(lambda: self.store.names(group), deadline)

    async def commit(
        self, transaction: Transaction, deadline: Deadline, *, leads: bool = False
    ) -> bool:
        """Change entries. They may be changed twice, or even if this fails.

        Args:
            transaction: The changes.
            deadline: The call's.
            leads: Whether callers in other processes wait for this one.
        """
        group, changes, when = transaction
        return await self._run(
            lambda: self.store.commit(group, changes, when=when), deadline, leads=leads
        )

    async def commit_to_replicas(self, transaction: Transaction, deadline: Deadline) -> bool:
        """Make changes without conditions; False: too few replicas have confirmed them in time."""
        store = cast("ReplicatedStore", self.store)
        if not getattr(store, "wait_replicas", 0):
            await self.commit(transaction, deadline)
            return True

        def wait() -> bool | Awaitable[bool]:
            # Half of the limit: the reply has to come within it.
            seconds = self.state.bounds.limit(deadline) / 2
            return store.commit_to_replicas(transaction.group, transaction.changes, seconds=seconds)

        return await self._run(wait, deadline)

    async def now(self, group: str, deadline: Deadline) -> float | None:
        """Seconds by the clock of the store, for one who leads; None if it has none to be read."""
        clock: Callable[[str], float | Awaitable[float]] | None = getattr(self.store, "now", None)
        return (
            None if clock is None else await self._run(lambda: clock(group), deadline, leads=True)
        )

    async def unless_out(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Do one of these if the store responds; None if it does not, or did not a moment ago."""
        if not self.state.circuit_breaker.allows_request():
            return None
        try:
            return await operation()
        except SessionStoreError:
            return None  # logged already, if it is an outage

    async def _run(
        self,
        operation: Callable[[], T | Awaitable[T]],
        deadline: Deadline,
        *,
        leads: bool = False,
    ) -> T:
        bounds = self.state.leaders_bounds if leads else self.state.bounds
        breaker = self.state.circuit_breaker
        is_last = is_probe = breaker.is_open
        begun = 0.0

        def begin() -> T | Awaitable[T]:
            # What waited for its turn need not find out by itself that the store is out.
            if breaker.is_open and not is_probe:
                raise outage_began_error()
            nonlocal begun
            begun = breaker.now()
            return operation()

        while True:
            begun = breaker.now()
            try:
                result = await bounds.run(begin, deadline)
            except StoreBusyError:
                raise
            except SessionStoreError as error:
                breaker.record_failure(error, begun=begun)
                if is_last:
                    raise
                is_last = True
            else:
                if breaker.record_success():
                    self.state.end_outage()
                return result
