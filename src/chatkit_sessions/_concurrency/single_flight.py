"""One call on behalf of many: who asks for the same while it is under way waits for its result."""

import copy
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from chatkit_sessions.errors import ChatKitError
from chatkit_sessions.models import ChatKitSessionResponse

from .per_process import PerProcess


class Event(Protocol):
    """What waits are ended with: of threading, asyncio or trio."""

    def set(self) -> None:
        """End the waits, and those to come."""
        ...


E = TypeVar("E", bound=Event)


class Flight(Generic[E]):
    """A call under way.

    Args:
        done: Set when it has ended.
    """

    def __init__(self, done: E) -> None:
        self.done = done
        self._session: ChatKitSessionResponse | None = None
        self._error: ChatKitError | None = None

    def land(self, session: ChatKitSessionResponse) -> None:
        """End with a session for everybody."""
        self._session = session

    def fail(self, error: ChatKitError) -> None:
        """End with an error for everybody."""
        self._error = copy.copy(error)

    def result(self) -> ChatKitSessionResponse | None:
        """The session; None where the leader gave up and somebody else has to try.

        Raises:
            ChatKitError: The call failed; each time a new one, whose traceback is its waiter's own.
        """
        if self._error is not None:
            raise copy.copy(self._error)
        return self._session


class Flights(Generic[E]):
    """The calls under way in this process; a child after `fork()` waits for none of its parent's.

    Args:
        new_event: Makes what waits are ended with.
    """

    def __init__(self, new_event: Callable[[], E]) -> None:
        self._new_event = new_event
        self._under_way = PerProcess(dict[Hashable, Flight[E]])

    def join(self, key: Hashable) -> tuple[Flight[E], bool]:
        """The flight of that key, and whether the caller leads it, and has to end it."""
        own = Flight(self._new_event())
        flight = self._under_way.get().setdefault(key, own)  # atomic
        return flight, flight is own

    def end(self, key: Hashable, flight: Flight[E]) -> None:
        """Let those who wait go on, and who comes next begin anew."""
        self._under_way.get().pop(key, None)
        flight.done.set()
