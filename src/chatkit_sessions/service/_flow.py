"""The service's steps, written once as coroutines.

The async service awaits them. With a sync store they never suspend, and the sync service runs them
without an event loop.
"""

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeVar, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.run import run_blocking
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import REQUESTS
from chatkit_sessions.errors import SessionStoreError

from . import _refusals as refusals
from ._records import SESSION, Entry, SessionContext
from ._refusals import Refusal
from ._routes import OPERATIONS, Operation
from ._rules import SessionRules
from ._tasks import Audience, Create, Read, Refresh, Task, Transaction
from ._wire import Request, Response
from .errors import InvalidClientSecretError

__all__ = ["RecordStore", "ServiceFlow", "run_blocking"]

T = TypeVar("T")

_MAX_ATTEMPTS: Final = 1_000
"""Attempts of a change; each failed one means that another process made its change first."""


class RecordStore(Protocol):
    """The part of a `SessionStore` or an `AsyncSessionStore` that the service uses."""

    def get(
        self, group: str, names: Sequence[str]
    ) -> list[Entry | None] | Awaitable[list[Entry | None]]:
        """See `SessionStore.get`."""
        ...

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool | Awaitable[bool]:
        """See `SessionStore.commit`."""
        ...


class ServiceFlow:
    """The steps of both services.

    Args:
        store: Where sessions are stored.
        rules: The decisions.
    """

    def __init__(self, store: RecordStore, rules: SessionRules) -> None:
        self._store = store
        self._rules = rules

    async def handle(
        self,
        request: Request,
        served: Collection[Operation] = OPERATIONS,
        *,
        read: Callable[[], Awaitable[bytes]] | None = None,
    ) -> Response:
        """Respond to a request to one of the routes; 503 during a store outage."""
        try:
            return await self.respond(request, served, read=read)
        except SessionStoreError:
            return self._rules.refuse(refusals.store_unavailable())

    async def respond(
        self,
        request: Request,
        served: Collection[Operation] = OPERATIONS,
        *,
        project: str | None = None,
        read: Callable[[], Awaitable[bytes]] | None = None,
    ) -> Response:
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
            body = request.body if read is None else MaskedBytes(await read())
            return await self._carry_out(self._rules.parse(screened, body))
        except Refusal as refusal:
            return self._rules.refuse(refusal)

    async def verify(
        self,
        client_secret: SecretStr | None,
        audience: Audience,
        *,
        count: bool | Callable[[], Awaitable[bool]],
    ) -> SessionContext:
        """Return the session behind a client secret; see `SessionsService.verify`."""
        if client_secret is None or not client_secret.get_secret_value():
            raise InvalidClientSecretError("missing")
        group = self._rules.group_of_secret(client_secret)
        if group is None:
            raise InvalidClientSecretError("unknown")
        names = [SESSION, REQUESTS] if count else [SESSION]
        for _ in range(_MAX_ATTEMPTS):
            entry, *requests = await self._get(group, names)
            session = self._rules.authenticate(entry, client_secret, audience)
            if callable(count):
                count = await count()
            if not count or await self._commit(self._rules.count(session, requests[0])):
                return SessionContext.of(session.record)
        raise _too_many_changes()

    async def _carry_out(self, task: Task) -> Response:
        match task:
            case Create(settings, project):
                issued = self._rules.issue(settings, project)
                await self._commit(self._rules.open(issued.record))
                return self._rules.succeed(*issued)
            case Refresh():
                return await self._refresh(task)
            case _:
                return await self._read(task)

    async def _refresh(self, task: Refresh) -> Response:
        group = self._rules.group_of_secret(task.client_secret)
        if group is None:
            raise refusals.ended_client_secret()
        for _ in range(_MAX_ATTEMPTS):
            entry, requests = await self._get(group, [SESSION, REQUESTS])
            old = self._rules.require_refreshable(entry, task)
            if await self._commit(self._rules.cancel_for_refresh(old, requests)):
                record = old.record
                issued = self._rules.issue(
                    record.settings, record.project, refreshed_from=record.id
                )
                await self._commit(self._rules.open(issued.record, requests))
                return self._rules.succeed(*issued)
        raise _too_many_changes()

    async def _read(self, task: Read) -> Response:
        group = self._rules.group_of_session(task.session_id)
        for _ in range(_MAX_ATTEMPTS):
            (entry,) = await self._get(group, [SESSION])
            session = self._rules.require_visible(entry, task)
            if not task.cancel or not self._rules.is_active(session.record):
                return self._rules.succeed(session.record)
            await self._commit(self._rules.cancel(session))  # read again, whoever made the change
        raise _too_many_changes()

    async def _get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        return await _maybe_await(self._store.get(group, names))

    async def _commit(self, transaction: Transaction) -> bool:
        group, changes, when = transaction
        return await _maybe_await(self._store.commit(group, changes, when=when))


async def _maybe_await(value: T | Awaitable[T]) -> T:
    """Await a value if it comes from an async store."""
    return cast("T", await value if inspect.isawaitable(value) else value)


def _too_many_changes() -> SessionStoreError:
    return SessionStoreError("The session changes too fast for the store.")
