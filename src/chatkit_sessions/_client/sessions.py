"""What each public method does, step by step, written once for both clients.

Only the client's `IO` waits. That of the synchronous client never suspends, so the client runs
these coroutines without an event loop. The asynchronous client awaits them.
"""

import logging
import os
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple, NoReturn, Self

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.arguments import (
    requested_lifetime,
    validate_min_remaining,
    validate_user,
    validate_workflow_id,
)
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.refresh import (
    RejectedSession,
    reason_not_to_ask,
    reason_to_create_after,
    refresh,
)
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._config.retry_policy import RetryPolicy
from chatkit_sessions._config.settings import (
    NOT_GIVEN,
    NotGiven,
    Settings,
    require_workflow_id,
)
from chatkit_sessions._config.validation import validate_clock, validate_on_event
from chatkit_sessions._redaction import redact, safe_repr
from chatkit_sessions._sessions.entries import (
    RENEW_EVERY,
    CreatedSession,
    Lease,
    StoredRecord,
    StoreSnapshot,
    build_schemas,
    info_from_record,
    poll_delay,
    record_of_cancelled,
    record_of_created,
    record_ttl,
    secret_lifetime,
    sessions_deleted_error,
    with_current_status,
)
from chatkit_sessions._sessions.identity import Identity, Scope
from chatkit_sessions._sessions.rate_limit import RequestCounts
from chatkit_sessions._sessions.registry import RecentSessions, Registry
from chatkit_sessions.errors import (
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ChatKitError,
    ConfigurationError,
    InvalidRequestError,
    SessionNotFoundError,
    SessionNotRecordedError,
    SessionStoreError,
)
from chatkit_sessions.events import OnEvent
from chatkit_sessions.models import CancelledSession, ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import SessionOptions, reject_unknown_options
from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .calls import IO, Calls, Lifetime, Route, SharedState

CANCELS_AT_ONCE: Final = 8
"""Sessions of one user that are cancelled at the same time."""
DISCARD_TIMEOUT: Final = 5.0
"""The most seconds for cancelling a session that is not usable."""
NO_RETRIES: Final = RetryPolicy(max_retries=0)

# One of these, when a session is cancelled, keeps no other from it; others interrupt the call.
_PROGRAMMING_ERRORS: Final = (
    AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

_NOT_REFRESHED: Final = "Creating a session instead of refreshing one: %s"

logger: Final = logging.getLogger("chatkit_sessions")


class SessionRequest(NamedTuple):
    """A session to create, and what a call needs to share or refresh one in its place."""

    create: Operation[ChatKitSessionResponse]
    user: str
    workflow_id: str
    identity: Identity
    lifetime: float
    """The requested seconds from its creation to its expiry."""
    min_remaining: float
    """Seconds that an existing session must have left to be reused."""
    presented: SecretStr | None
    """The secret to exchange, which is never returned; None: the call is no refresh."""
    refresh: Operation[ChatKitSessionResponse | RejectedSession] | None
    """The call that exchanges the secret; None: the call is no refresh."""


class Admission(NamedTuple):
    """Whether a request may be made."""

    wait: float
    """Seconds until the request may be made; 0: now."""
    left: float | None
    """Seconds that remain of the client's timeout; None: no limit."""


class SignOutProgress:
    """The sessions of one user that are being ended: those left, and what went wrong."""

    def __init__(self) -> None:
        self.found = 0
        """How many sessions were found."""
        self.left: dict[str, None] = {}
        """The ids of those that the API has not been asked to cancel."""
        self.errors: list[Exception] = []


class Sessions:
    """The sessions of one client.

    Args:
        calls: How the API is called.
        registry: What the client's store has recorded.
        scope: Which other clients can see the same sessions.
        seconds: What a store in memory and the endpoint's limit count time by.
    """

    def __init__(
        self, calls: Calls, registry: Registry, scope: Scope, seconds: Callable[[], float]
    ) -> None:
        self.calls: Final = calls
        self.io: Final = calls.io
        self.registry: Final = registry
        self.scope: Final = scope
        self._seconds: Final = seconds

    # Creating

    async def create(
        self, user: str, options: SessionOptions, *, timeout: float | NotGiven | None
    ) -> ChatKitSessionResponse:
        """Create a session."""
        request, deadline = self.request(user, options), self.calls.deadline(timeout)
        async with self.calls.limit(deadline):
            self.calls.lifetime.check_open()
            recent = self.registry.recent
            if recent is not None:
                return await self._create_and_remember(request, deadline, recent)
            snapshot = await self.registry.look_up_generation(request.identity, deadline)
            await self._publish_unpublished(deadline)
            return await self._create_and_publish(request, deadline, snapshot=snapshot, share=False)

    async def get_or_create(
        self,
        user: str,
        options: SessionOptions,
        *,
        min_remaining: float | timedelta | None,
        timeout: float | NotGiven | None,
    ) -> ChatKitSessionResponse:
        """Return the user's active session, or create one."""
        reject_unknown_options(
            options, method="get_or_create_session", others=("min_remaining", "timeout")
        )
        request = self.request(user, options, min_remaining=min_remaining)
        deadline = self.calls.deadline(timeout)
        async with self.calls.limit(deadline):
            self.calls.lifetime.check_open()
            snapshot = await self._look_up(request.identity, deadline, completely=False)
            await self._publish_unpublished(deadline)
            session = snapshot.usable(request.min_remaining, now=self.calls.expiry_clock())
            if session is None and not snapshot.is_complete:
                snapshot = await self._look_up(request.identity, deadline, completely=True)
                session = snapshot.usable(request.min_remaining, now=self.calls.expiry_clock())
            if session is not None:
                self.calls.report("reuse", "ok")
                return session
            return await self._create_shared(request, deadline, snapshot=snapshot)

    async def refresh(
        self,
        client_secret: SecretStr,
        user: str,
        options: SessionOptions,
        *,
        timeout: float | NotGiven | None,
    ) -> ChatKitSessionResponse:
        """Exchange a session's secret for another one."""
        reject_unknown_options(options, method="refresh_session", others=("user", "timeout"))
        request = self.request(user, options, replaces=client_secret)
        deadline = self.calls.deadline(timeout)
        async with self.calls.limit(deadline):
            self.calls.lifetime.check_open()
            identity = request.identity
            snapshot = await self.registry.look_up(identity, deadline, presented=client_secret)
            await self._publish_unpublished(deadline)
            session = snapshot.usable(
                request.min_remaining, now=self.calls.expiry_clock(), instead_of=client_secret
            )
            if session is not None:
                self.calls.report("reuse", "ok")
                return session
            if snapshot.reused:
                return await self._create_shared(request, deadline, snapshot=snapshot)
            return await self._create_and_publish(request, deadline, snapshot=snapshot, share=False)

    def request(
        self,
        user: str,
        options: SessionOptions,
        *,
        min_remaining: float | timedelta | None = None,
        replaces: SecretStr | None = None,
    ) -> SessionRequest:
        """Validate what a session is to be, before anything is sent."""
        user = validate_user(user)
        given = options.get("workflow_id")
        workflow_id = (
            require_workflow_id(self.calls.settings.workflow_id)
            if given is None
            else validate_workflow_id(given)
        )
        create = operations.create(user, workflow_id=workflow_id, options=options)
        body = create.body.get_secret_value() if create.body else b""  # holds no secret
        lifetime = requested_lifetime(options)
        return SessionRequest(
            create=create,
            user=user,
            workflow_id=workflow_id,
            identity=Identity(self.scope, user, body),
            lifetime=lifetime,
            min_remaining=validate_min_remaining(min_remaining, lifetime=lifetime),
            presented=replaces,
            refresh=None
            if replaces is None
            else refresh(replaces, user=user, workflow_id=workflow_id, create_body=body),
        )

    async def _create_and_publish(
        self,
        request: SessionRequest,
        deadline: Deadline,
        *,
        snapshot: StoreSnapshot,
        share: bool,
        lease: Lease | None = None,
    ) -> ChatKitSessionResponse:
        """Get a new session from the API, and record it.

        Args:
            request: The session to create.
            deadline: The call's.
            snapshot: What the store held when the call began.
            share: Whether the secret is stored, too.
            lease: The right to create it, if other processes may want to.
        """
        since = self.calls.expiry_clock()
        session = await self._try_refresh(request, deadline, snapshot=snapshot)
        if session is None:
            session = await self._create(request, deadline)
        now = self.calls.expiry_clock()
        identity, asked_for = request.identity, request.lifetime
        lifetime = secret_lifetime(session, asked_for=asked_for, elapsed=now - since)
        created = CreatedSession(
            session=session,
            record=record_of_created(
                session,
                user=request.user,
                workflow_id=request.workflow_id,
                group=identity.group,
                slot=identity.slot if share else None,
            ),
            record_group=self.scope.group_of_session(session.id),
            identity=identity,
            works_until=now + lifetime,
            record_ttl=record_ttl(session, asked_for=asked_for),
            share=share,
        )
        if not await self.registry.publish(created, deadline, snapshot=snapshot, lease=lease):
            await self._discard(session.id, deadline)
            raise sessions_deleted_error()
        return session

    async def _create_and_remember(
        self, request: SessionRequest, deadline: Deadline, recent: RecentSessions
    ) -> ChatKitSessionResponse:
        """Get a new session from the API; the client's own store learns of it later."""
        creation = recent.begin(self.scope, request.user)
        try:
            session = await self._create(request, deadline)
            remembered = recent.add(
                creation, session, workflow_id=request.workflow_id, asked_for=request.lifetime
            )
        finally:
            recent.end(creation)
        if not remembered:
            await self._discard(session.id, deadline)
            raise sessions_deleted_error()
        return session

    async def _publish_unpublished(self, deadline: Deadline) -> None:
        """Let the store learn of what was created while it did not respond."""
        if self.registry.has_unpublished:
            for session_id in await self.registry.publish_unpublished(deadline):
                await self._discard(session_id, deadline)

    async def _try_refresh(
        self, request: SessionRequest, deadline: Deadline, *, snapshot: StoreSnapshot
    ) -> ChatKitSessionResponse | None:
        """The refreshed session, or None where a new one is to be created."""
        if request.presented is None or request.refresh is None:
            return None
        reason = reason_not_to_ask(
            request.presented,
            shared=None if snapshot.session is None else snapshot.session.client_secret,
            reused=snapshot.reused,
            presented_is_shared=snapshot.presented_is_shared,
            route_is_missing=self.calls.is_missing(Route.REFRESH),
        )
        if reason is not None:
            logger.debug(_NOT_REFRESHED, reason)
            return None
        try:
            session = await self.calls.perform(request.refresh, deadline)
        except (APIStatusError, APIResponseValidationError) as error:
            is_missing = isinstance(error, APIStatusError) and self.calls.note_missing_route(
                Route.REFRESH, error
            )
            reason = reason_to_create_after(error, route_is_missing=is_missing)
            if reason is None:
                raise
            logger.info(_NOT_REFRESHED, reason)
            return None
        if isinstance(session, ChatKitSessionResponse):
            return session
        level = logging.WARNING if session.is_fault else logging.INFO
        logger.log(level, _NOT_REFRESHED, f"the refreshed session is not used: {session.reason}")
        if session.is_fault:
            await self.io.close_idle_connections()
        if session.id is not None:
            await self._discard(session.id, deadline)
        return None

    async def _create(self, request: SessionRequest, deadline: Deadline) -> ChatKitSessionResponse:
        """Create the session; one of another user or workflow is cancelled."""
        try:
            return await self.calls.perform(request.create, deadline)
        except APIResponseValidationError as error:
            if error.session_id is not None:
                await self._discard(error.session_id, deadline)
            raise

    # One session for many callers: all in a process share a flight, all processes a lease

    async def _look_up(
        self, identity: Identity, deadline: Deadline, *, completely: bool
    ) -> StoreSnapshot:
        """What the store holds of an identity; callers in this process share look-ups."""
        look_up = self.registry.look_up if completely else self.registry.look_up_session
        if not self.registry.suspends:
            return await look_up(identity, deadline)
        look_ups, key = self.registry.look_ups, (self.io.event_loop(), identity.slot, completely)
        while True:
            own = look_ups.new()
            try:
                shared = look_ups.join(key, own)
                before = look_ups.running(key) if shared is own else shared
                if before is not None and not await before.done.wait_for(deadline.half()):
                    return self.registry.look_up_without_store(identity)
                if shared is own:
                    look_ups.start(key, own)
                    snapshot = await look_up(identity, deadline)
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
        single_flight = self.registry.single_flight
        key = self.io.event_loop(), request.identity.slot, snapshot.generation
        while True:
            own = single_flight.new()
            try:
                flight = single_flight.join(key, own)
                if flight is own:
                    session = await self._lead(request, deadline, snapshot=snapshot)
                    own.set_result(session)
                    return session
                if not await flight.done.wait_for(deadline.remaining()):
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
            self.calls.lifetime.check_open()

    def _concerns_others(self, deadline: Deadline) -> bool:
        """Whether a failure counts for all callers; one by the call's own limits does not."""
        return deadline.remaining() != 0 and not self.calls.lifetime.closed

    async def _lead(
        self, request: SessionRequest, deadline: Deadline, *, snapshot: StoreSnapshot
    ) -> ChatKitSessionResponse:
        """Get a new session for all processes: create it, or wait for the one that does."""
        identity, lease = request.identity, Lease(new_token())
        last, polls, leads, took = snapshot, 0, False, 0.0
        snapshot.check_rate_limit()
        while last.reachable and not leads:
            if last.lease is None:
                lease = lease._replace(clock_offset=last.clock_offset)
                found = await self.registry.acquire_lease(identity, last, lease, deadline)
                if found is None or not found.reachable:
                    leads = found is None
                    break
                now = found
            else:
                await self.io.sleep(self._poll_delay(polls, took, deadline))
                self.calls.lifetime.check_open()
                asked_at = self.calls.monotonic()
                now = await self.registry.look_up(identity, deadline)
                took = self.calls.monotonic() - asked_at
            session = now.newer_than(
                last, first=snapshot, now=self.calls.expiry_clock(), instead_of=request.presented
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
        identity, registry = request.identity, self.registry
        try:
            lease = await registry.with_clock(identity, lease, deadline)
            with self.io.heartbeat(lambda: registry.renew_lease(identity, lease), RENEW_EVERY):
                return await self._create_and_publish(
                    request, deadline, snapshot=snapshot, share=True, lease=lease
                )
        except BaseException as error:
            shared = error if self._concerns_others(deadline) else None
            with self.io.shielded():
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
        seconds = poll_delay(polls_done, took=took, random=self.io.runtime.random)
        return seconds if remaining is None else min(seconds, remaining)

    # Reading

    async def get(self, session_id: str, *, timeout: float | NotGiven | None) -> ChatKitSessionInfo:
        """Return a session's status, from the API or from its record."""
        operation, deadline = operations.get(session_id), self.calls.deadline(timeout)
        async with self.calls.limit(deadline):
            info = await self._try_get(operation, deadline)
            if info is None:
                stored = await self.registry.record(self.scope, session_id, deadline)
                if stored is None:
                    raise _not_recorded_error(session_id, host=self.calls.settings.host)
                return self._info_from(stored)
            # By the server's clock, if it shows it: this machine's may be minutes off.
            return with_current_status(info, now=info.answered_at or self.io.runtime.now())

    async def _try_get(
        self, operation: Operation[ChatKitSessionInfo], deadline: Deadline
    ) -> ChatKitSessionInfo | None:
        """The API's response; None if the server has no route that returns a session."""
        if self.calls.is_missing(Route.GET):
            self.calls.lifetime.check_open()
            return None
        try:
            return await self.calls.perform(operation, deadline)
        except APIStatusError as error:
            if not self.calls.note_missing_route(Route.GET, error):
                raise
            return None

    async def sessions_of(self, user: str) -> list[ChatKitSessionInfo]:
        """List the recorded sessions of a user."""
        user = validate_user(user)
        deadline = self.calls.deadline(NOT_GIVEN)
        async with self.calls.limit(deadline):
            self.calls.lifetime.check_open()
            await self._publish_unpublished(deadline)
            records = await self.registry.records(self.scope, user, deadline)
            infos = map(self._info_from, records)
            return sorted(infos, key=lambda info: info.expires_at, reverse=True)

    def _info_from(self, stored: StoredRecord) -> ChatKitSessionInfo:
        """What is recorded of a session, with its status by the store's clock."""
        now = self.io.runtime.now() if self.io.runtime.has_clock else stored.read_at
        return with_current_status(info_from_record(stored.record), now=now)

    # Ending

    async def delete(
        self, session_id: str, *, missing_ok: bool, timeout: float | NotGiven | None
    ) -> None:
        """End a session."""
        operation, deadline = operations.cancel(session_id), self.calls.deadline(timeout)
        store_error: SessionStoreError | None = None
        async with self.calls.limit(deadline):
            self.calls.lifetime.check_open()
            try:
                self.registry.hide_unpublished(session_id)
                stored = await self.registry.record(self.scope, session_id, deadline)
                if stored is not None:
                    await self.registry.evict(stored, deadline)
            except SessionStoreError as error:
                if self.registry.requires_store:
                    raise
                store_error = error  # raised below: ending the session matters more
            await self._cancel(operation, session_id, deadline, missing_ok=missing_ok)
        if store_error is not None:
            raise store_error

    async def _cancel(
        self,
        operation: Operation[CancelledSession],
        session_id: str,
        deadline: Deadline,
        *,
        missing_ok: bool,
        policy: RetryPolicy | None = None,
        stored: StoredRecord | None = None,
    ) -> None:
        """Cancel a session, and record it; `stored` is its record, if that has been read."""
        try:
            cancelled = await self.calls.perform(operation, deadline, policy=policy)
        except SessionNotFoundError:
            self.registry.drop_unpublished(session_id)
            await self.registry.forget_record(self.scope, session_id, deadline)
            if not missing_ok:
                raise
        else:
            await self._record_cancelled(cancelled, deadline, stored=stored)

    async def _record_cancelled(
        self, cancelled: CancelledSession, deadline: Deadline, *, stored: StoredRecord | None
    ) -> None:
        """Record that a session is cancelled; `stored` is its record, if that has been read."""
        self.registry.drop_unpublished(cancelled.id)
        if stored is None:
            stored = await self.registry.record(self.scope, cancelled.id, deadline)
        record = record_of_cancelled(cancelled, stored, now=self.io.runtime.now())
        await self.registry.save_record(self.scope, record, deadline)

    async def _discard(self, session_id: str, deadline: Deadline) -> None:
        """Try to cancel a session that is not usable."""
        cancel = operations.cancel(session_id)
        deadline = deadline.at_most(DISCARD_TIMEOUT)
        try:
            async with self.calls.limit(deadline):
                await self._cancel(cancel, session_id, deadline, missing_ok=True, policy=NO_RETRIES)
        except SessionStoreError:
            pass  # it is cancelled
        except ChatKitError as error:
            logger.warning("The session that cannot be used could not be cancelled: %s", error)

    async def delete_all(self, user: str, *, timeout: float | NotGiven | None) -> None:
        """End all of a user's sessions, whatever becomes of one."""
        deadline = self.calls.deadline(timeout)
        user = validate_user(user)
        self.calls.lifetime.check_open()
        signing_out = SignOutProgress()
        try:
            async with self.calls.limit(deadline):
                await self._end_all(user, deadline, signing_out)
        except ChatKitError as error:  # the limit ended it
            signing_out.errors.append(error)
        self._report(signing_out)

    async def _end_all(self, user: str, deadline: Deadline, signing_out: SignOutProgress) -> None:
        """Cancel every session that may be active, and collect what goes wrong."""
        generation, group = new_token(), self.scope.group_of_user(user)
        unpublished = self.registry.sign_out_without_store(group, generation=generation)
        active: dict[str, StoredRecord | None] = dict.fromkeys(unpublished)
        is_listed = False
        try:
            stored, problem = await self.registry.sign_out(
                self.scope, user, deadline, generation=generation
            )
            active |= stored
            is_listed = True
            if problem is not None:
                signing_out.errors.append(problem)
        except SessionStoreError as error:
            signing_out.errors.append(error)  # what this process knows of is ended all the same
        signing_out.left = dict.fromkeys(active)
        signing_out.found = len(active)
        ended = await self._end_at_once(user, deadline, signing_out)
        if ended is None and is_listed:
            await self._check_list(user, deadline, signing_out)
        for session_id in ended or ():
            signing_out.left.pop(session_id, None)

        async def end(session_id: str) -> None:
            if self.calls.lifetime.closed or deadline.remaining() == 0:
                return
            signing_out.left.pop(session_id, None)
            try:
                if ended is not None and session_id in ended:
                    cancelled = CancelledSession(id=session_id, status="cancelled")
                    await self._record_cancelled(cancelled, deadline, stored=active[session_id])
                    return
                cancel = operations.cancel(session_id)
                await self._cancel(
                    cancel, session_id, deadline, missing_ok=True, stored=active[session_id]
                )
            except InvalidRequestError as error:
                logger.warning("The session store lists what is no session: %s", error.message)
            except (ChatKitError, *_PROGRAMMING_ERRORS) as error:
                signing_out.errors.append(error)  # raised below, after the others are ended

        await self.io.for_each(end, active, at_once=CANCELS_AT_ONCE)

    async def _end_at_once(
        self, user: str, deadline: Deadline, signing_out: SignOutProgress
    ) -> Collection[str] | None:
        """Let the server end all of the user's sessions, whoever created them.

        Returns:
            Their ids; None if it cannot, or has failed. Sessions that this client knows beside
            them are ended one by one.
        """
        calls = self.calls
        if calls.lifetime.closed or calls.is_missing(Route.SIGN_OUT):
            return None
        try:
            return await calls.perform(operations.sign_out(user), deadline)
        except APIStatusError as error:
            if not calls.note_missing_route(Route.SIGN_OUT, error):
                signing_out.errors.append(error)
        except APIResponseValidationError as error:
            if calls.is_known_to_have(Route.SIGN_OUT):
                signing_out.errors.append(error)
        except (ChatKitError, *_PROGRAMMING_ERRORS) as error:
            signing_out.errors.append(error)  # raised below, after the others are ended
        return None

    async def _check_list(
        self, user: str, deadline: Deadline, signing_out: SignOutProgress
    ) -> None:
        try:
            await self.registry.check_list(self.scope, user, deadline)
        except SessionStoreError as error:
            signing_out.errors.append(error)

    def _report(self, signing_out: SignOutProgress) -> None:
        """Raise the first error, and log the others."""
        lifetime = self.calls.lifetime
        errors, left = signing_out.errors, len(signing_out.left)
        if left and lifetime.closed and not errors:
            lifetime.check_open()
        if left and not lifetime.closed:
            errors.insert(0, _too_late_error(left, signing_out.found))
        # What the store has not learned weighs most: sessions may go on that nobody knows of.
        errors.sort(key=lambda error: not isinstance(error, SessionStoreError))
        for also in errors[1:]:
            logger.warning("A session could not be deleted: %s", redact(str(also)))
        if errors:
            raise errors[0]

    # For the endpoint

    async def admit(self, user: str, counts: RequestCounts) -> Admission:
        """Count one more request of the user; see `Registry.admit`.

        The process's own count is asked first: whoever is over the limit there is over it in the
        store, too. The store has half of the client's timeout: the rest is for the API.
        """
        self.calls.lifetime.check_open()
        deadline = self.calls.deadline(NOT_GIVEN)
        group = self.scope.group_of_user(validate_user(user))
        wait = counts.admit(group, self._seconds)
        if wait == 0:
            half = deadline.half()
            within = deadline if half is None else deadline.at_most(half)
            wait = await self.registry.admit(group, within, limit=counts.limit)
            if wait > 0:
                counts.take_back(group)
        if wait > 0:
            self.calls.report("endpoint_limit", "rejected")
        return Admission(wait, deadline.remaining())

    # The client

    async def close(self) -> None:
        """Close the client, and its connections where they are its own."""
        await self.io.close(connections=self.calls.lifetime.close())

    def derive(
        self, settings: Settings, store: SessionStore | AsyncSessionStore | NotGiven
    ) -> "Sessions":
        """The sessions of a client with other settings on the same connections.

        Raises:
            ConfigurationError: The key may be another tenant's, whose users need another store.
        """
        registry, namespace = self.registry, self.scope.namespace
        if not isinstance(store, NotGiven):
            registry, namespace = registry.for_store(store), store.namespace
        elif settings.api_key != self.calls.settings.api_key and self.scope.key is None:
            raise ConfigurationError(
                "With another `api_key`, say in which store its sessions belong: pass `store`, "
                "with a namespace of the tenant's own.",
                hint="A namespace stands for one tenant: users of two may have the same id. If "
                "the key is the same tenant's, pass the same store.",
            )
        shared = self.calls.shared
        calls = Calls(self.io, settings, self.calls.lifetime.child(), shared)
        scope = _scope_of(settings, namespace, shared)
        return Sessions(calls, registry, scope, self._seconds)


class BaseClient:
    """What the two clients are: the owners of one `Sessions`."""

    _sessions: Sessions

    def __repr__(self) -> str:
        # A traceback that prints local variables may meet a client that is only half made.
        sessions: Sessions | None = getattr(self, "_sessions", None)
        if sessions is None:
            return f"{type(self).__name__}(not configured)"
        settings = sessions.calls.settings
        return (
            f"{type(self).__name__}(base_url={settings.base_url!r}, "
            f"workflow_id={settings.workflow_id!r}, organization={settings.organization!r}, "
            f"project={settings.project!r})"
        )

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"A {name} holds connections and an API key, and can be neither copied nor pickled: "
            f"make one {name} per process. For other settings, use `with_options`."
        )

    def _derive(
        self, settings: Settings, store: SessionStore | AsyncSessionStore | NotGiven
    ) -> Self:
        """A client with other settings on the same connections."""
        sessions = self._sessions.derive(settings, store)
        clone = object.__new__(type(self))
        vars(clone).update(vars(self), _sessions=sessions)  # and what a subclass holds
        return clone


def open_sessions(
    settings: Settings,
    store: SessionStore | AsyncSessionStore | None,
    *,
    io: IO,
    lifetime: Lifetime,
    clock: Callable[[], datetime] | None,
    on_event: OnEvent | None,
) -> Sessions:
    """The sessions of a new client.

    Args:
        settings: What the client is set to.
        store: Where sessions are recorded; None: a `MemorySessionStore` of the client's own.
        io: How it sends and waits.
        lifetime: Whether it is open.
        clock: As the public clients take it.
        on_event: As the public clients take it.
    """
    build_schemas()
    if clock is not None:
        validate_clock(clock)
        io.runtime = io.runtime._replace(now=clock, has_clock=True)
    validate_on_event(on_event)
    io.runtime = io.runtime._replace(on_event=on_event)
    shared = SharedState()
    calls = Calls(io, settings, lifetime, shared)
    seconds = calls.expiry_clock if clock is None else lambda: clock().timestamp()
    recent: RecentSessions | None = None
    if store is None:
        store = own = MemorySessionStore(clock=seconds)
        recent = RecentSessions(own, seconds)
    registry = Registry(store, calls.expiry_clock, io.new_event, recent=recent, on_event=on_event)
    return Sessions(calls, registry, _scope_of(settings, store.namespace, shared), seconds)


def _scope_of(settings: Settings, namespace: str, shared: SharedState) -> Scope:
    """Who shares sessions with a client, in a store of that namespace."""
    return Scope(
        base_url=settings.base_url,
        organization=settings.organization,
        project=settings.project,
        namespace=namespace,
        # In this process, what one tenant sees must not reach another, of another key.
        key=None if namespace else shared.scope_of_key(settings.api_key),
    )


def new_token() -> bytes:
    """A unique name for a lease or a generation."""
    return os.urandom(16).hex().encode()


def _not_recorded_error(session_id: str, *, host: str) -> SessionNotRecordedError:
    return SessionNotRecordedError(
        f"{host} has no route for reading a session, and this client did not create, refresh or "
        f"delete {safe_repr(session_id)} in the last day.",
        hint="Ask the client that created it, or give the clients of all processes one session "
        "store: `store`. The official API cannot be asked for a session.",
    )


def _too_late_error(left: int, found: int) -> APITimeoutError:
    return APITimeoutError(
        f"The call had no time left to delete {left} of the user's {found} sessions.",
        hint="Delete the user's sessions again, or allow the call more time: `timeout`.",
    )
