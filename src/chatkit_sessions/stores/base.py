"""What a session store offers: bytes under names, which live for some time and change atomically.

A store understands nothing of what it keeps. Every decision (which session is the same, who may
create one, what a sign-out ends) is made by the clients, out of two operations: reading some names
of a group, and changing some of them if others still are what they were. A group is one user's, or
one session's; groups never change together.

Groups and names consist of ASCII letters, digits and `:`, and hold nothing that tells who the user
is. Values hold client secrets: a store neither logs nor shows them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chatkit_sessions._redaction import MaskedBytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a store.

    Attributes:
        value: What was put there. It may be a secret, and is not part of the repr.
        seconds: How long it lives from now on, by the store's own clock; more than 0.
        listed: Whether `names` tells it.
        expires_at: When it ends by the store's own clock, if it has one that `now` reads; in place
            of `seconds`, which a change that is made late would prolong.
    """

    value: MaskedBytes = field(repr=False)
    seconds: float
    listed: bool = False
    expires_at: float | None = None


class SessionStore(Protocol):
    """A store for `ChatKitClient`. Safe to use from several threads.

    Every method raises SessionStoreError where the store cannot answer; the clients then do
    without it as far as they can.

    A store may have two things more, as those of this library do:

    - `timeout`, the seconds that the clients wait for an operation. A store of plain functions then
      runs in threads of the library's; without it, in the caller's, and bounds itself. For an async
      store it is 1 where there is none.
    - `now(group) -> float`, seconds by the clock that entries expire by. The clients then set
      `Entry.expires_at`, so that a change which is made late does not prolong an entry.
    """

    @property
    def namespace(self) -> str:
        """What keeps apart applications, stages and tenants that share the store.

        Empty for a store that only one process can see; clients then keep apart by API key.
        """
        ...

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """Read entries, all at one moment.

        Args:
            group: Whose entries.
            names: Which of them, 1 or more.

        Returns:
            For each name its entry, None where there is none or it has lived its time. Whether it
            is listed need not be told.
        """
        ...

    def names(self, group: str) -> list[str]:
        """Tell the names of the group's listed entries; some may have lived their time."""
        ...

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """Change entries all at once, or none of them.

        Args:
            group: Whose entries.
            changes: The new entry for each name; None removes it.
            when: What names must hold at that moment, None for nothing.

        Returns:
            Whether they did, and the changes are made.
        """
        ...


class AsyncSessionStore(Protocol):
    """A store for `AsyncChatKitClient`: `SessionStore`, awaited. Safe to use from several tasks."""

    @property
    def namespace(self) -> str:
        """As `SessionStore.namespace`."""
        ...

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        """As `SessionStore.get`."""
        ...

    async def names(self, group: str) -> list[str]:
        """As `SessionStore.names`."""
        ...

    async def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        """As `SessionStore.commit`."""
        ...
