"""Single flight: concurrent calls for the same thing share one in-flight call and its result."""

import copy
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from chatkit_sessions.errors import ChatKitError

from .threads import PerProcess


class CompletionEvent(Protocol):
    """What callers wait for: threads, or tasks of one event loop."""

    def set(self) -> None:
        """End the waits, and those to come."""
        ...

    async def wait_for(self, seconds: float | None) -> bool:
        """Wait that long at the most, None: without a limit; return whether it is set."""
        ...


T = TypeVar("T")


class Flight(Generic[T]):
    """A call in flight.

    Args:
        new_event: Makes what waiters wait for; most calls have none.
    """

    def __init__(self, new_event: Callable[[], CompletionEvent]) -> None:
        self._new_event = new_event
        self._events: dict[str, CompletionEvent] = {}
        self._has_ended = False
        self._result: T | None = None
        self._error: ChatKitError | None = None

    @property
    def done(self) -> CompletionEvent:
        """Set when the call has ended."""
        done = self._events.setdefault("done", self._new_event())  # atomic
        if self._has_ended:  # perhaps before the event was there to be set
            done.set()
        return done

    def end(self) -> None:
        """Release the waiters."""
        self._has_ended = True
        for event in list(self._events.values()):
            event.set()

    def set_result(self, result: T) -> None:
        """Give every waiter this result."""
        self._result = result

    def set_error(self, error: ChatKitError) -> None:
        """Give every waiter this error."""
        self._error = copy.copy(error)

    def result(self) -> T | None:
        """The result; None where the leader gave up and a waiter has to lead.

        Raises:
            ChatKitError: The call failed. Each waiter gets a copy, with a traceback of its own.
        """
        if self._error is not None:
            raise copy.copy(self._error)
        return self._result


class SingleFlight(Generic[T]):
    """The calls in flight in this process; a child after `fork()` waits for none of its parent's.

    Args:
        new_event: Makes what waiters wait for.
    """

    def __init__(self, new_event: Callable[[], CompletionEvent]) -> None:
        self._new_event = new_event
        self._in_flight = PerProcess(dict[Hashable, Flight[T]])

    def new(self) -> Flight[T]:
        """A flight that has not begun: to `join` with, and to `end` in any case."""
        return Flight(self._new_event)

    def join(self, key: Hashable, own: Flight[T]) -> Flight[T]:
        """The flight of that key: `own` where there was none, which the caller then leads."""
        return self._in_flight.get().setdefault(key, own)  # atomic

    def end(self, key: Hashable, own: Flight[T]) -> None:
        """Release the waiters of a flight that the caller leads; harmless where it does not.

        A signal's exception within this method leaves them waiting until their deadlines: nothing
        can clean up after what cleans up.
        """
        in_flight = self._in_flight.get()
        if in_flight.get(key) is own:
            del in_flight[key]
        own.end()


class Batches(SingleFlight[T], Generic[T]):
    """Shared reads: while one runs, new callers share the next one.

    A caller never gets a result that was read before its call. So callers can join a flight until
    it starts, and it starts when the previous one has ended.
    """

    def __init__(self, new_event: Callable[[], CompletionEvent]) -> None:
        super().__init__(new_event)
        self._started = PerProcess(dict[Hashable, Flight[T]])

    def running(self, key: Hashable) -> Flight[T] | None:
        """The flight to wait for before starting the next one."""
        return self._started.get().get(key)

    def start(self, key: Hashable, own: Flight[T]) -> None:
        """Start the flight: no other caller can join it."""
        self._started.get()[key] = own
        self._in_flight.get().pop(key, None)

    def end(self, key: Hashable, own: Flight[T]) -> None:
        """Release the waiters; harmless where the caller does not lead."""
        started = self._started.get()
        if started.get(key) is own:
            del started[key]
        super().end(key, own)
