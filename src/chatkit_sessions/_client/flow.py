"""What each public method does, step by step, written once for both clients.

Nothing here waits by itself: sending, sleeping and waiting for another caller are hooks of the
clients. Those of the synchronous client block and never suspend, so that it runs these coroutines
without an event loop; the asynchronous client awaits them.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Generic, NamedTuple, Protocol

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.arguments import validate_user
from chatkit_sessions._api.create_body import requested_lifetime, validate_min_remaining
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.refresh import refresh
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.settings import NOT_GIVEN, KeyCallable
from chatkit_sessions._redaction import safe_repr
from chatkit_sessions._sessions.records import (
    StoredRecord,
    info_from_record,
    with_current_status,
)
from chatkit_sessions.errors import (
    APIStatusError,
    SessionNotRecordedError,
    SessionStoreError,
)
from chatkit_sessions.events import report
from chatkit_sessions.models import CancelledSession, ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import SessionOptions

from .base import E
from .creation import SessionRequest
from .sign_out import SignOutFlow
from .state import Route


class LocalCounts(Protocol):
    """The requests that one process has admitted."""

    def admit(self, user: str, clock: Callable[[], float]) -> float:
        """Count one more request, if there is room; return the seconds until there is."""
        ...

    def take_back(self, user: str) -> None:
        """Uncount the last request."""
        ...


class Admission(NamedTuple):
    """Whether a request may be made."""

    wait: float
    """Seconds until it may, 0: now."""
    left: float | None
    """Seconds that remain of the client's timeout; None: no limit."""


class SessionFlow(SignOutFlow[KeyCallable, E], Generic[KeyCallable, E]):
    """The steps of each public method, after its arguments have been validated."""

    def _session_request(
        self,
        user: str,
        options: SessionOptions,
        *,
        min_remaining: float | timedelta | None = None,
        replaces: SecretStr | None = None,
    ) -> SessionRequest:
        """Validate what a session is to be, before anything is sent."""
        user = validate_user(user)
        workflow_id = self._workflow_id(options.get("workflow_id"))
        create = operations.create(user, workflow_id=workflow_id, options=options)
        body = create.body.get_secret_value() if create.body else b""  # holds no secret
        return SessionRequest(
            create=create,
            user=user,
            workflow_id=workflow_id,
            identity=self._scope.identity(user, body),
            lifetime=requested_lifetime(options),
            min_remaining=validate_min_remaining(min_remaining, options),
            presented=replaces,
            refresh=None
            if replaces is None
            else refresh(replaces, user=user, workflow_id=workflow_id, create_body=body),
        )

    async def _create(self, request: SessionRequest, deadline: Deadline) -> ChatKitSessionResponse:
        self._check_open()
        recent = self._registry.recent
        if recent is not None:
            return await self._create_and_remember(request, deadline, recent)
        snapshot = await self._registry.look_up_generation(request.identity, deadline)
        await self._publish_kept(deadline)
        return await self._create_and_publish(request, deadline, snapshot=snapshot, share=False)

    async def _get_or_create(
        self, request: SessionRequest, deadline: Deadline
    ) -> ChatKitSessionResponse:
        self._check_open()
        snapshot = await self._look_up(request.identity, deadline)
        await self._publish_kept(deadline)
        session = snapshot.usable(request.min_remaining, now=self._expiry_clock())
        if session is not None:
            report(self._runtime.on_event, "reuse", "ok")
            return session
        return await self._create_shared(request, deadline, snapshot=snapshot)

    async def _refresh(self, request: SessionRequest, deadline: Deadline) -> ChatKitSessionResponse:
        self._check_open()
        identity, presented = request.identity, request.presented
        snapshot = await self._registry.look_up(identity, deadline, presented=presented)
        await self._publish_kept(deadline)
        session = snapshot.usable(
            request.min_remaining, now=self._expiry_clock(), instead_of=presented
        )
        if session is not None:
            report(self._runtime.on_event, "reuse", "ok")
            return session
        if not snapshot.reused:
            return await self._create_and_publish(request, deadline, snapshot=snapshot, share=False)
        return await self._create_shared(request, deadline, snapshot=snapshot)

    async def _get(
        self, operation: Operation[ChatKitSessionInfo], session_id: str, deadline: Deadline
    ) -> ChatKitSessionInfo:
        info = await self._try_get(operation, deadline)
        if info is None:
            stored = await self._registry.record(self._scope, session_id, deadline)
            if stored is None:
                raise SessionNotRecordedError(
                    f"{self._settings.host} has no route for reading a session, and this client "
                    f"did not create, refresh or delete {safe_repr(session_id)} in the last day.",
                    hint="Ask the client that created it, or give the clients of all processes one "
                    "session store: `store`. The official API cannot be asked for a session.",
                )
            return self._info_from(stored)
        # By the server's clock, if it shows it: this machine's may be minutes off.
        return with_current_status(info, now=info.answered_at or self._runtime.now())

    async def _list(self, user: str, deadline: Deadline) -> list[ChatKitSessionInfo]:
        self._check_open()
        await self._publish_kept(deadline)
        records = await self._registry.records(self._scope, user, deadline)
        return sorted(map(self._info_from, records), key=lambda info: info.expires_at, reverse=True)

    def _info_from(self, stored: StoredRecord) -> ChatKitSessionInfo:
        """What is recorded of a session, with its status by the store's clock."""
        now = self._runtime.now() if self._has_clock else stored.read_at
        return with_current_status(info_from_record(stored.record), now=now)

    async def _delete(
        self,
        operation: Operation[CancelledSession],
        session_id: str,
        deadline: Deadline,
        *,
        missing_ok: bool,
    ) -> None:
        self._check_open()
        store_error: SessionStoreError | None = None
        try:
            self._registry.evict_kept(session_id)
            stored = await self._registry.record(self._scope, session_id, deadline)
            if stored is not None:
                await self._registry.evict(stored, deadline)
        except SessionStoreError as error:
            if self._registry.requires_store:
                raise
            store_error = error  # raised below: ending the session matters more
        await self._cancel(operation, session_id, deadline, missing_ok=missing_ok)
        if store_error is not None:
            raise store_error

    async def _admit(
        self, user: str, *, limit: int, counts: LocalCounts | None = None
    ) -> Admission:
        """Count one more request of the user, for the endpoint; see `Registry.admit`.

        The process's own count is asked first: whoever is over the limit there is over it in the
        store, too. The store has half of the client's timeout: the rest is for the API.
        """
        self._check_open()
        deadline = self._deadline(NOT_GIVEN)
        group = self._scope.group_of_user(validate_user(user))
        wait = 0.0 if counts is None else counts.admit(group, self._seconds)
        if wait > 0:
            report(self._runtime.on_event, "endpoint_limit", "rejected")
            return Admission(wait, deadline.remaining())
        half = deadline.half()
        within = deadline if half is None else deadline.at_most(half)
        wait = await self._registry.admit(group, within, limit=limit)
        if wait > 0:
            report(self._runtime.on_event, "endpoint_limit", "rejected")
            if counts is not None:
                counts.take_back(group)
        return Admission(wait, deadline.remaining())

    async def _try_get(
        self, operation: Operation[ChatKitSessionInfo], deadline: Deadline
    ) -> ChatKitSessionInfo | None:
        """The API's response, or None where the server has no route for reading."""
        if self._is_missing(Route.GET):
            self._check_open()
            return None
        try:
            return await self._call(operation, deadline)
        except APIStatusError as error:
            if not self._lacks(Route.GET, error):
                raise
            return None
