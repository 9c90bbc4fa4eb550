"""One session for many callers: all in a process share a flight, all processes a lease."""

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Hashable
from contextlib import AbstractContextManager
from typing import Generic

from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.settings import KeyCallable
from chatkit_sessions._sessions.identity import Identity
from chatkit_sessions._sessions.snapshot import StoreSnapshot
from chatkit_sessions._sessions.transactions import RENEW_EVERY, Lease, poll_delay
from chatkit_sessions.errors import ChatKitError, SessionStoreError
from chatkit_sessions.models import ChatKitSessionResponse

from .base import E
from .creation import CreationFlow, SessionRequest, new_token


class SharingFlow(CreationFlow[KeyCallable, E], Generic[KeyCallable, E]):
    """The steps of callers who want the same session at the same time."""

    # What the two clients do each in their own way

    @abstractmethod
    async def _wait_for(self, done: E, seconds: float | None) -> bool:
        """Wait until another caller's flight has ended; return whether it has by then."""

    @abstractmethod
    def _event_loop(self) -> Hashable:
        """What callers can wait in together: the running event loop; None for all threads."""

    @abstractmethod
    def _repeating(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        """Run a flow beside what runs inside, again and again after that many seconds."""

    @abstractmethod
    def _shielded(self) -> AbstractContextManager[object]:
        """Finish what runs inside even if the call is cancelled meanwhile."""

    async def _look_up(self, identity: Identity, deadline: Deadline) -> StoreSnapshot:
        """What the store holds of an identity; callers in this process share look-ups."""
        if not self._registry.suspends:
            return await self._registry.look_up(identity, deadline)
        look_ups, key = self._registry.look_ups, (self._event_loop(), identity.slot)
        while True:
            own = look_ups.new()
            try:
                shared = look_ups.join(key, own)
                before = look_ups.running(key) if shared is own else shared
                if before is not None and not await self._wait_for(before.done, deadline.half()):
                    return self._registry.look_up_without_store(identity)
                if shared is own:
                    look_ups.start(key, own)
                    snapshot = await self._registry.look_up(identity, deadline)
                    own.set_result(snapshot)
                    return snapshot
            except SessionStoreError as error:
                own.set_error(error)
                raise
            finally:
                look_ups.end(key, own)
            found = shared.result()
            if found is not None:
                return found

    async def _create_shared(
        self, request: SessionRequest, deadline: Deadline, *, snapshot: StoreSnapshot
    ) -> ChatKitSessionResponse:
        """Get a new session for all callers in this process: lead, or wait for who leads."""
        single_flight = self._registry.single_flight
        key = self._event_loop(), request.identity.slot, snapshot.generation
        while True:
            own = single_flight.new()
            try:
                flight = single_flight.join(key, own)
                if flight is own:
                    session = await self._lead(request, deadline, snapshot=snapshot)
                    own.set_result(session)
                    return session
                if not await self._wait_for(flight.done, deadline.remaining()):
                    raise deadline.error()
            except ChatKitError as error:
                if self._concerns_others(deadline):
                    own.set_error(error)
                raise
            finally:
                single_flight.end(key, own)
            shared = flight.result()
            if shared is not None and shared.client_secret != request.presented:
                return shared
            self._check_open()

    def _concerns_others(self, deadline: Deadline) -> bool:
        """Whether a failure does; a call that ends by its own limits says nothing about others."""
        return deadline.remaining() != 0 and not self._lifetime.closed

    async def _lead(
        self, request: SessionRequest, deadline: Deadline, *, snapshot: StoreSnapshot
    ) -> ChatKitSessionResponse:
        """Get a new session for all processes: create it, or wait for the one that does."""
        identity, lease = request.identity, Lease(new_token())
        last, polls, leads, took = snapshot, 0, False, 0.0
        snapshot.check_rate_limit()
        while last.reachable and not leads:
            if last.lease is None:
                acquired = await self._registry.acquire_lease(identity, last, lease, deadline)
                if acquired is not False:
                    leads = acquired is True
                    break
            else:
                await self._sleep(self._poll_delay(polls, took, deadline))
                self._check_open()
            asked_at = self._monotonic()
            now = await self._registry.look_up(identity, deadline)
            took = self._monotonic() - asked_at
            session = now.newer_than(
                last, first=snapshot, now=self._expiry_clock(), instead_of=request.presented
            )
            if session is not None:
                return session
            last, polls, leads = now, polls + 1, now.lease == lease.token
        if not leads:
            return await self._create_and_publish(request, deadline, snapshot=snapshot, share=True)
        return await self._create_for_all(request, deadline, snapshot=snapshot, lease=lease)

    async def _create_for_all(
        self, request: SessionRequest, deadline: Deadline, *, snapshot: StoreSnapshot, lease: Lease
    ) -> ChatKitSessionResponse:
        """Create a session while all other processes wait; publishing it ends the lease."""
        identity, registry = request.identity, self._registry
        try:
            lease = await registry.with_clock(identity, lease, deadline)
            with self._repeating(lambda: registry.renew_lease(identity, lease), RENEW_EVERY):
                return await self._create_and_publish(
                    request, deadline, snapshot=snapshot, share=True, lease=lease
                )
        except BaseException as error:
            shared = error if self._concerns_others(deadline) else None
            with self._shielded():
                await registry.release_lease(identity, lease, error=shared)
            raise

    def _poll_delay(self, polls_done: int, took: float, deadline: Deadline) -> float:
        """Seconds to wait for another process.

        Raises:
            APITimeoutError: The call has no time left.
        """
        remaining = deadline.remaining()
        if remaining == 0:
            raise deadline.error()
        seconds = poll_delay(polls_done, took=took, random=self._runtime.random)
        return seconds if remaining is None else min(seconds, remaining)
