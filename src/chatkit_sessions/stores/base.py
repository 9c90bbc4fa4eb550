"""The interface of a session store: named bytes that expire and change atomically.

A store does not interpret its values. The clients decide which callers share a session, who
creates it, and what a sign-out ends. They need three operations: read some names of a group, list
its names, and change some names if others are unchanged. A group is of one user or one session;
groups never change together.

Groups and names have ASCII letters, digits and `:` only, and do not reveal the user. Values may
contain client secrets: a store must not log or show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from chatkit_sessions._redaction import MaskedBytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a store.

    Attributes:
        value: The stored bytes. They may be a secret, and are not in the repr.
        seconds: Seconds until the entry expires, by the store's clock; more than 0.
        listed: Whether `names` lists the entry.
        expires_at: When the entry expires, by the clock that the store's `now` reads. In a change,
            it overrides `seconds`, so that a delayed change does not prolong the entry. A store
            without `now` ignores it, and returns None.
        retention: The last of those seconds, in which the entry only shows what has ended. A store
            that has to make room removes such entries first.
    """

    value: MaskedBytes = field(repr=False)
    seconds: float
    listed: bool = False
    expires_at: float | None = None
    retention: float = 0.0


def value_of(entry: Entry | None) -> bytes | None:
    """The value of an entry; None: there is no entry."""
    return None if entry is None else entry.value


class Transaction(NamedTuple):
    """The arguments of `SessionStore.commit`."""

    group: str
    changes: Mapping[str, Entry | None]
    when: Mapping[str, bytes | None]


class SessionStore(Protocol):
    """A store for `ChatKitClient`. Safe to use from several threads.

    During an outage, every method raises SessionStoreError. The clients then continue without the
    store, if they can.

    A store may have more, as those of this library do:

    - `timeout`, the seconds that clients and services wait for an operation. A store of plain
      functions then runs in threads of the library's; without it, in the caller's, and bounds
      itself. For an async store it is 1 where there is none.
    - `now(group) -> float`, seconds by the clock that entries expire by. The clients then set
      `Entry.expires_at`, so that a change which is made late does not prolong an entry, and `get`
      returns it.
    - `get_with_time(group, names) -> tuple[list[Entry | None], float]`: what `get` returns, and
      what `now` does. It saves round trips.
    - `commit_or_get(group, changes, *, when, names)`: `commit`, with None if the conditions held,
      and otherwise what `get_with_time` returns for the names.
    - `get_many(entries) -> list[Entry | None]`: `get` for entries of several groups, each named by
      a tuple of its group and its name; not at one moment. It saves round trips.
    - `evicted_seconds(group) -> float`, for a store that removes entries to make room: for how many
      seconds a listed entry of the group would still have been needed; 0 if none was removed. A
      sign-out then raises SessionStoreError, because it may have missed a session.
    - `wait_replicas: int` and `commit_to_replicas(group, changes, *, seconds) -> bool`. If the
      number is not 0, a sign-out is committed by this method: it returns whether that many replicas
      have confirmed the changes within those seconds.
    """

    @property
    def namespace(self) -> str:
        """Separates applications, stages and tenants that share the store.

        Empty for a store of one process: the API key then separates clients.
        """
        ...

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """Read entries, all at one moment.

        Args:
            group: The group.
            names: The entries' names, 1 or more.

        Returns:
            The entry for each name; None if it does not exist or has expired. `listed` may be
            wrong.
        """
        ...

    def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; expired ones may be among them."""
        ...

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold, otherwise none.

        Args:
            group: The group.
            changes: The new entry for each name; None removes the entry.
            when: The conditions: the value that each name must have; None: no entry.

        Returns:
            Whether the conditions held and the changes were made.
        """
        ...


class AsyncSessionStore(Protocol):
    """A store for `AsyncChatKitClient`: `SessionStore` with async methods. Safe for many tasks."""

    @property
    def namespace(self) -> str:
        """Separates applications, stages and tenants that share the store.

        Empty for a store of one process: the API key then separates clients.
        """
        ...

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """Read entries, all at one moment.

        Args:
            group: The group.
            names: The entries' names, 1 or more.

        Returns:
            The entry for each name; None if it does not exist or has expired. `listed` may be
            wrong.
        """
        ...

    async def names(self, group: str) -> list[str]:
        """Return the names of the group's listed entries; expired ones may be among them."""
        ...

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Make all changes at once if the conditions hold, otherwise none.

        Args:
            group: The group.
            changes: The new entry for each name; None removes the entry.
            when: The conditions: the value that each name must have; None: no entry.

        Returns:
            Whether the conditions held and the changes were made.
        """
        ...
