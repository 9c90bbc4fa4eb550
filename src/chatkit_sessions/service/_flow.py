"""The service's steps, written once as coroutines.

The async service awaits them. With a sync store they never suspend, and the sync service runs them
without an event loop.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from pydantic import SecretStr

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import maybe_await
from chatkit_sessions._config.validation import problem_with_secret
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import REQUESTS
from chatkit_sessions._sessions.store_access import StoreAccess, evicted_error, not_confirmed_error
from chatkit_sessions.errors import ChatKitError, SessionStoreError
from chatkit_sessions.events import OnEvent, report
from chatkit_sessions.stores._redis_commands import parse_entries
from chatkit_sessions.stores.base import AsyncSessionStore, Entry, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from . import _error_responses as error_responses
from ._error_responses import ErrorResponse
from ._records import (
    CARRIED,
    GENERATION,
    REPLACEMENT,
    SESSION,
    IssuedSession,
    ServiceRecord,
    SessionContext,
    StoredSession,
)
from ._rules import (
    EXTENSIONS,
    OPERATIONS,
    Audience,
    CreateTask,
    Operation,
    ReadTask,
    RefreshTask,
    ServiceRequest,
    ServiceResponse,
    SessionRules,
    SignOutTask,
    Task,
)
from .errors import ClientSecretRateLimitError, InvalidClientSecretError

_MAX_ATTEMPTS: Final = 1_000
"""Attempts of a change; each failed one means that another process made its change first."""
_USER_TIMEOUT: Final = 30.0
"""Seconds that ending all sessions of a user may take: there may be thousands."""
_LIMITS_PER_REQUEST: Final = 3.0
"""How many times the limit of one store operation a request may take with all of its operations."""

_UNKNOWN_BEFORE_WARNING: Final = 3
"""Secrets that are shaped like a session's and unknown, before the first one that is known."""
_UNKNOWN_IN_MEMORY: Final = (
    "A client secret is unknown to this process, whose sessions are in a MemorySessionStore. Hint: "
    "Several workers or hosts need one store, such as Redis: pass the same store to the service in "
    "each of them."
)
_UNKNOWN_SO_FAR: Final = (
    "All client secrets so far are unknown to this service, whose store has the namespace %r. "
    "Hint: The processes that create sessions need the same store and namespace."
)

_FIRST_UNIX_TIME: Final = 1_000_000_000.0
"""No machine has run for so long: a clock that shows less counts from its start."""

logger: Final = logging.getLogger("chatkit_sessions")


class ServiceFlow:
    """The steps of both services.

    Args:
        store: Where sessions are stored.
        rules: The decisions.
        on_event: The function that events are reported to.
    """

    def __init__(
        self,
        store: SessionStore | AsyncSessionStore,
        rules: SessionRules,
        on_event: OnEvent | None = None,
    ) -> None:
        self.store: Final = store
        self._on_event = on_event
        self._access = StoreAccess(store, on_event)
        self._rules = rules
        self._is_in_memory = isinstance(store, MemorySessionStore)
        self._unknown_before_warning = 1 if self._is_in_memory else _UNKNOWN_BEFORE_WARNING

    async def handle(
        self,
        request: ServiceRequest,
        served: Collection[Operation] = OPERATIONS,
        *,
        read: Callable[[], bytes | Awaitable[bytes]] | None = None,
    ) -> ServiceResponse:
        """Respond to a request to one of the routes; 503 during a store outage."""
        try:
            return await self.respond(request, served, read=read)
        except SessionStoreError:
            return self._rules.respond_error(error_responses.store_unavailable())

    async def respond(
        self,
        request: ServiceRequest,
        served: Collection[Operation] = OPERATIONS,
        *,
        project: str | None = None,
        read: Callable[[], bytes | Awaitable[bytes]] | None = None,
    ) -> ServiceResponse:
        """Respond to a request to one of the routes.

        Args:
            request: The request.
            served: The operations that the service offers.
            project: The request's project; None: that of its API key.
            read: Reads the body of a request with a valid key; None: the request has it.

        Raises:
            SessionStoreError: The store is unavailable.
        """
        try:
            screened = self._rules.screen(request, served, project=project)
            body = request.body if read is None else MaskedBytes(await maybe_await(read()))
            response = await self._carry_out(self._rules.parse(screened, body))
        except InvalidClientSecretError as error:
            _log_rejection(error)
            response = self._rules.respond_error(error_responses.ended_client_secret())
        except ErrorResponse as error_response:
            response = self._rules.respond_error(error_response)
        return response.with_header(
            "chatkit-extensions", ", ".join(sorted(EXTENSIONS & set(served)))
        )

    async def verify(
        self,
        client_secret: SecretStr | None,
        audience: Audience,
        *,
        count: bool | Callable[[], bool | Awaitable[bool]],
    ) -> SessionContext:
        """Return the session behind a client secret; see `SessionsService.verify`."""
        try:
            context = await self._verify(client_secret, audience, count=count)
        except ChatKitError as error:
            outcome = type(error).__name__
            if isinstance(error, InvalidClientSecretError | ClientSecretRateLimitError):
                _log_rejection(error)
            if isinstance(error, InvalidClientSecretError):
                outcome = error.reason
            report(self._on_event, "verify", outcome)
            raise
        report(self._on_event, "verify", "ok")
        return context

    async def _verify(
        self,
        client_secret: SecretStr | None,
        audience: Audience,
        *,
        count: bool | Callable[[], bool | Awaitable[bool]],
    ) -> SessionContext:
        if client_secret is None or not client_secret.get_secret_value():
            raise InvalidClientSecretError("missing")
        group = self._group_of(client_secret)
        deadline = self._deadline()
        if callable(count):
            await self._authenticated(group, client_secret, audience, deadline)
            count = await maybe_await(count())
            deadline = self._deadline()  # the body may have taken its time
        if count:
            record = await self._counted(group, client_secret, audience, deadline)
        else:
            record = await self._authenticated(group, client_secret, audience, deadline)
        return SessionContext.of(record)

    def _group_of(self, client_secret: SecretStr) -> str:
        """The group of a secret's session; malformed secrets cost no call of the store."""
        group = self._rules.group_of_secret(client_secret)
        if group is None:
            problem = problem_with_secret(client_secret)
            raise InvalidClientSecretError("unknown", problem=problem)
        return group

    async def _authenticated(
        self, group: str, client_secret: SecretStr, audience: Audience, deadline: Deadline
    ) -> ServiceRecord:
        (entry,) = await self._access.get_many([(group, SESSION)], deadline)
        return self._authenticate(entry, client_secret, audience).record

    async def _counted(
        self, group: str, client_secret: SecretStr, audience: Audience, deadline: Deadline
    ) -> ServiceRecord:
        session = await self._counted_at_once(group, client_secret, audience, deadline)
        if session is not None:
            return session.record
        is_counted_for_user = False
        for _ in range(_MAX_ATTEMPTS):
            entry, requests = await self._access.get(group, [SESSION, REQUESTS], deadline)
            session = self._authenticate(entry, client_secret, audience)
            counted = self._rules.count(session, requests)
            if not is_counted_for_user:
                await self._count_for_user(session, deadline)
                is_counted_for_user = True
            if await self._access.commit(counted, deadline):
                return session.record
        raise _too_many_changes()

    async def _counted_at_once(
        self, group: str, client_secret: SecretStr, audience: Audience, deadline: Deadline
    ) -> StoredSession | None:
        """Let the store count, in one round trip; None if it cannot.

        A request whose reply is lost on the way may count twice.
        """
        call = self._rules.count_in_store(group, client_secret, audience)
        reply = None if call is None else await self._access.run_script(call, deadline)
        if reply is None:
            return None
        *stored, wait = reply
        (entry,) = parse_entries(stored)
        session = self._authenticate(entry, client_secret, audience)
        return session if self._rules.is_counted(session, wait) else None

    async def _count_for_user(self, session: StoredSession, deadline: Deadline) -> None:
        """Count a request of the session's user, if the service limits them."""
        group = self._rules.group_of_counted_user(session.record)
        if group is None:
            return
        for _ in range(_MAX_ATTEMPTS):
            (requests,) = await self._access.get(group, [REQUESTS], deadline)
            counted = self._rules.count_for_user(session, group, requests)
            if await self._access.commit(counted, deadline):
                return
        raise _too_many_changes()

    def _authenticate(
        self, entry: Entry | None, client_secret: SecretStr, audience: Audience
    ) -> StoredSession:
        """Check a secret; warn once if another process may know a secret that this one does not."""
        if entry is not None and not self._is_in_memory:
            self._unknown_before_warning = 0  # what creates sessions uses this store
        elif entry is None and self._unknown_before_warning:
            self._unknown_before_warning -= 1
            if not self._unknown_before_warning:
                logger.warning(*self._warning_of_unknown())
        return self._rules.authenticate(entry, client_secret, audience)

    def _warning_of_unknown(self) -> tuple[str, ...]:
        if self._is_in_memory:
            return (_UNKNOWN_IN_MEMORY,)
        return _UNKNOWN_SO_FAR, self.store.namespace

    async def _carry_out(self, task: Task) -> ServiceResponse:
        deadline = self._deadline()
        match task:
            case CreateTask():
                return await self._create(task, deadline)
            case RefreshTask():
                return await self._refresh(task, deadline)
            case SignOutTask(user, project):
                ended = await self.end_sessions(user, project)
                return self._rules.succeed_in_sign_out(user, ended)
            case _:
                session = await self._read(task, deadline)
                return self._rules.succeed(session.record, now=self._rules.time_of(session))

    async def _create(self, task: CreateTask, deadline: Deadline) -> ServiceResponse:
        settings, project = task
        group = self._rules.group_of_user(project, settings.user)
        entries, store_time = await self._get_with_time(group, [GENERATION, CARRIED], deadline)
        generation, requests = entries
        now = self._rules.now(store_time)
        issued = self._rules.issue(settings, project, now=now)
        # In this order: what is listed can be cancelled.
        opening = self._rules.open(issued, requests, store_time=store_time)
        await self._access.commit(opening, deadline)
        await self._access.commit(self._rules.list_session(issued.record, generation), deadline)
        return self._rules.succeed(issued.record, issued.client_secret, now=now)

    async def _get_with_time(
        self, group: str, names: Sequence[str], deadline: Deadline
    ) -> tuple[list[Entry | None], float | None]:
        """Read entries, and the store's time in Unix seconds for a new session; None: unknown."""
        if self._rules.clock is not None:
            return await self._access.get(group, names, deadline), None
        entries, seconds = await self._access.get_with_time(group, names, deadline)
        if seconds is None:
            seconds = await self._access.now(group, deadline)
        is_unix_time = seconds is not None and seconds >= _FIRST_UNIX_TIME
        return entries, seconds if is_unix_time else None

    async def _refresh(self, task: RefreshTask, deadline: Deadline) -> ServiceResponse:
        group = self._group_of(task.client_secret)
        for _ in range(_MAX_ATTEMPTS):
            entry, requests = await self._access.get(group, [SESSION, REQUESTS], deadline)
            audience = Audience(project=task.project)
            old = self._authenticate(entry, task.client_secret, audience)
            listed = self._rules.names_for_refresh(old.record)
            generation, listing = await self._access.get(*listed, deadline)
            self._rules.require_signed_in(old.record, generation, listing)
            issued = self._rules.issue(
                old.record.settings,
                old.record.project,
                now=self._rules.time_of(old),
                refreshed_from=old.record.id,
            )
            cancelled = self._rules.cancel_for(issued.record, old, requests)
            found, _ = await self._access.commit_or_get(cancelled, [REPLACEMENT], deadline)
            if found is None or self._rules.is_replacement(issued.record, found[0]):
                return await self._replace(old, issued, generation, requests, deadline)
        raise _too_many_changes()

    async def _replace(
        self,
        old: StoredSession,
        issued: IssuedSession,
        generation: Entry | None,
        requests: Entry | None,
        deadline: Deadline,
    ) -> ServiceResponse:
        """Open a session in place of a cancelled one, unless the user has signed out meanwhile."""
        opening = self._rules.open(issued, requests, store_time=old.store_time)
        await self._access.commit(opening, deadline)
        listing = self._rules.list_session(issued.record, generation, replaces=old.record)
        if not await self._access.commit(listing, deadline):
            await self._access.commit(self._rules.forget(issued.record), deadline)
            raise InvalidClientSecretError("cancelled", old.record.id)
        return self._rules.succeed(issued.record, issued.client_secret, now=issued.issued_at)

    async def _read(self, task: ReadTask, deadline: Deadline) -> StoredSession:
        group = self._rules.group_of_session(task.session_id)
        for _ in range(_MAX_ATTEMPTS):
            entry, requests = await self._access.get(group, [SESSION, REQUESTS], deadline)
            session = self._rules.require_visible(entry, task)
            if not task.cancel or self._rules.status(session) != "active":
                return session
            await self._cancel(session, requests, deadline)  # read again, whoever made the change
        raise _too_many_changes()

    async def _cancel(
        self, session: StoredSession, requests: Entry | None, deadline: Deadline
    ) -> bool:
        """Cancel a session, if neither it nor the count of its requests has changed."""
        if requests is not None:
            await self._access.commit(self._rules.carry(session.record, requests), deadline)
        return await self._access.commit(self._rules.cancel(session, requests), deadline)

    # All sessions of a user

    async def sessions_for(self, user: str, project: str) -> list[SessionContext]:
        """Return a user's active sessions; see `SessionsService.sessions_for`."""
        active = await self._active_sessions(user, project, self._deadline_of_user())
        contexts = [SessionContext.of(session.record) for session, _ in active]
        return sorted(contexts, key=lambda each: each.expires_at, reverse=True)

    async def end_sessions(self, user: str, project: str) -> list[str]:
        """End a user's sessions, and return their ids; see `SessionsService.delete_sessions`.

        A refresh that has begun before lists its session before the generation changes, so that it
        is found here, or fails. A create lists its session before it is returned.
        """
        deadline = self._deadline_of_user()
        await self._access.commit(self._rules.sign_out(project, user), deadline)
        active = await self._active_sessions(user, project, deadline)
        for session, requests in active:
            if not await self._cancel(session, requests, deadline):
                with suppress(ErrorResponse):  # it is gone
                    await self._read(ReadTask(session.record.id, project, cancel=True), deadline)
        if self._access.waits_for_replicas:
            # Replicas that have confirmed this mark have everything before it.
            mark = self._rules.mark(project, user)
            if not await self._access.commit_to_replicas(mark, deadline):
                raise not_confirmed_error()
        group = self._rules.group_of_user(project, user)
        if await self._access.has_evicted(group, deadline, now=time.monotonic()):
            raise evicted_error()
        return [session.record.id for session, _ in active]

    async def _active_sessions(
        self, user: str, project: str, deadline: Deadline
    ) -> list[tuple[StoredSession, Entry | None]]:
        names = await self._access.names(self._rules.group_of_user(project, user), deadline)
        listed = self._rules.listed_sessions(names)
        entries = await self._access.get_many(listed, deadline)
        return self._rules.active_sessions(entries, project=project, user=user)

    def _deadline_of_user(self) -> Deadline:
        """When a call for all sessions of a user stops; each operation has its own limit."""
        return Deadline.after(_USER_TIMEOUT, time.monotonic)

    def _deadline(self) -> Deadline:
        """When a request stops waiting for the store."""
        limit = self._access.state.executor.timeout
        return Deadline.after(
            None if limit is None else _LIMITS_PER_REQUEST * limit, time.monotonic
        )


def _log_rejection(error: InvalidClientSecretError | ClientSecretRateLimitError) -> None:
    whose = error.session_id or "unknown"
    logger.info("A request is rejected: %s (session: %s)", error.message, whose)


def _too_many_changes() -> SessionStoreError:
    return SessionStoreError("The session changes too fast for the store.")
