"""Creating a session, and cancelling one that is not usable.

A secret that is to be exchanged is refreshed first, if `refresh` gives no reason to create.
"""

import logging
import os
from typing import Final, Generic, NamedTuple

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.refresh import (
    RejectedSession,
    reason_not_to_ask,
    reason_to_create_after,
)
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.retry import RetryPolicy
from chatkit_sessions._config.settings import KeyCallable
from chatkit_sessions._sessions.identity import Identity
from chatkit_sessions._sessions.recent import RecentSessions
from chatkit_sessions._sessions.records import (
    StoredRecord,
    record_of_cancelled,
    record_of_created,
    record_ttl,
    secret_lifetime,
)
from chatkit_sessions._sessions.snapshot import StoreSnapshot, sessions_deleted_error
from chatkit_sessions._sessions.transactions import CreatedSession, Lease
from chatkit_sessions.errors import (
    APIResponseValidationError,
    APIStatusError,
    ChatKitError,
    SessionNotFoundError,
    SessionStoreError,
)
from chatkit_sessions.models import CancelledSession, ChatKitSessionResponse

from .base import E
from .calls import CallFlow
from .state import Route

DISCARD_TIMEOUT: Final = 5.0
"""The most seconds for cancelling a session that is not usable."""
NO_RETRIES: Final = RetryPolicy(max_retries=0)

_NOT_REFRESHED: Final = "Creating a session instead of refreshing one: %s"

logger: Final = logging.getLogger("chatkit_sessions")


class SessionRequest(NamedTuple):
    """A session to create, and which others are the same."""

    create: Operation[ChatKitSessionResponse]
    user: str
    workflow_id: str
    identity: Identity
    lifetime: float
    """Seconds that it is to last."""
    min_remaining: float
    """Seconds that one must have left to be reused."""
    presented: SecretStr | None
    """The secret that it replaces, which is never returned."""
    refresh: Operation[ChatKitSessionResponse | RejectedSession] | None
    """Exchanges that secret, where the server can."""


class CreationFlow(CallFlow[KeyCallable, E], Generic[KeyCallable, E]):
    """The steps that end with a new session, or with an error and no session left behind."""

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
            lease: What entitles to create it, if others may want to.
        """
        since = self._expiry_clock()
        session = await self._try_refresh(request, deadline, snapshot=snapshot)
        if session is None:
            session = await self._create_own(request, deadline)
        now = self._expiry_clock()
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
            record_group=self._scope.group_of_session(session.id),
            identity=identity,
            works_until=now + lifetime,
            record_ttl=record_ttl(session, asked_for=asked_for),
            share=share,
        )
        if not await self._registry.publish(created, deadline, snapshot=snapshot, lease=lease):
            await self._discard(session.id, deadline)
            raise sessions_deleted_error()
        return session

    async def _create_and_remember(
        self, request: SessionRequest, deadline: Deadline, recent: RecentSessions
    ) -> ChatKitSessionResponse:
        """Get a new session from the API; the client's own store learns of it later."""
        creation = recent.begin(self._scope, request.user)
        try:
            session = await self._create_own(request, deadline)
            remembered = recent.add(
                creation,
                session,
                scope=self._scope,
                user=request.user,
                workflow_id=request.workflow_id,
                lifetime=request.lifetime,
            )
        finally:
            recent.end(creation)
        if not remembered:
            await self._discard(session.id, deadline)
            raise sessions_deleted_error()
        return session

    async def _publish_kept(self, deadline: Deadline) -> None:
        """Let the store learn of what was created while it did not respond."""
        if self._registry.keeps_unpublished:
            for session_id in await self._registry.publish_kept(deadline):
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
            route_is_missing=self._is_missing(Route.REFRESH),
        )
        if reason is not None:
            logger.debug(_NOT_REFRESHED, reason)
            return None
        try:
            session = await self._call(request.refresh, deadline)
        except (APIStatusError, APIResponseValidationError) as error:
            lacks = isinstance(error, APIStatusError) and self._lacks(Route.REFRESH, error)
            reason = reason_to_create_after(error, route_is_missing=lacks)
            if reason is None:
                raise
            logger.info(_NOT_REFRESHED, reason)
            return None
        if isinstance(session, ChatKitSessionResponse):
            return session
        level = logging.WARNING if session.is_fault else logging.INFO
        logger.log(level, _NOT_REFRESHED, f"the refreshed session is not used: {session.reason}")
        if session.is_fault:
            await self._close_idle_connections()
        if session.id is not None:
            await self._discard(session.id, deadline)
        return None

    async def _create_own(
        self, request: SessionRequest, deadline: Deadline
    ) -> ChatKitSessionResponse:
        """Create the session; one of another user or workflow is cancelled."""
        try:
            return await self._call(request.create, deadline)
        except APIResponseValidationError as error:
            if error.session_id is not None:
                await self._discard(error.session_id, deadline)
            raise

    async def _discard(self, session_id: str, deadline: Deadline) -> None:
        """Try to cancel a session that is not usable."""
        cancel = operations.cancel(session_id)
        deadline = deadline.at_most(DISCARD_TIMEOUT)
        try:
            await self._bounded(
                deadline,
                self._cancel,
                cancel,
                session_id,
                deadline,
                missing_ok=True,
                policy=NO_RETRIES,
            )
        except SessionStoreError:
            pass  # it is cancelled
        except ChatKitError as error:
            logger.warning("The session that cannot be used could not be cancelled: %s", error)

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
            cancelled = await self._call(operation, deadline, policy=policy)
        except SessionNotFoundError:
            self._registry.forget_kept(session_id)
            await self._registry.forget(self._scope, session_id, deadline)
            if not missing_ok:
                raise
        else:
            self._registry.forget_kept(session_id)
            if stored is None:
                stored = await self._registry.record(self._scope, session_id, deadline)
            record = record_of_cancelled(cancelled, stored, now=self._runtime.now())
            await self._registry.keep(self._scope, record, deadline)


def new_token() -> bytes:
    """A unique name for a lease or a generation."""
    return os.urandom(16).hex().encode()
