"""The API: the service, with changing keys and workflows, and visible secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chatkit_sessions.service._flow import ServiceFlow, run_blocking
from chatkit_sessions.service._records import (
    SESSION,
    IssuedSession,
    StoredSession,
)
from chatkit_sessions.service._rules import OPERATIONS, Operation, SessionRules, find_call
from chatkit_sessions.stores.memory import MemorySessionStore

from .sessions import FakeSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from chatkit_sessions.service._records import SessionSettings
    from chatkit_sessions.service._rules import Headers, Request, Response

__all__ = ["MAX_SESSIONS", "OPERATIONS", "FakeApi", "Operation", "find_call"]

MAX_SESSIONS: Final = 10_000


class FakeApi:
    """The sessions, and the responses to requests.

    Args:
        now: Returns the current time, in UTC.
        token_hex: Returns random text, with two hexadecimal digits per byte of its argument.
    """

    def __init__(self, *, now: Callable[[], datetime], token_hex: Callable[[int], str]) -> None:
        self._now = now
        self._projects: dict[str, str] = {}
        self._workflows: set[tuple[str, str]] = set()
        self._secrets: dict[str, str] = {}  # by session, the oldest first
        # Time stands still in it, so nothing expires; what is too old is forgotten.
        self._store = MemorySessionStore(max_entries=10 * MAX_SESSIONS, clock=lambda: 0.0)
        self._rules = _VisibleRules(
            namespace="",
            find_project=lambda api_key: self._projects.get(api_key.get_secret_value()),
            has_workflow=lambda workflow_id, project: (project, workflow_id) in self._workflows,
            clock=now,
            token_hex=token_hex,
            max_body=None,  # the contract has no bound
        )
        self._rules.watch(self._remember)
        self._flow = ServiceFlow(self._store, self._rules)

    def add_api_key(self, api_key: str, project: str) -> None:
        """Accept a key, for a new or existing project.

        Raises:
            ValueError: The key belongs to another project.
        """
        owner = self._projects.setdefault(api_key, project)
        if owner != project:
            raise ValueError(f"the key is the project {owner}'s already")

    def remove_api_key(self, api_key: str) -> None:
        """Revoke a key.

        Raises:
            ValueError: The key does not exist.
        """
        if self._projects.pop(api_key, None) is None:
            raise ValueError("there is no such key")

    def add_workflow(self, workflow_id: str, project: str) -> None:
        """Add a workflow to a project."""
        self._workflows.add((project, workflow_id))

    def remove_workflow(self, workflow_id: str, project: str) -> None:
        """Remove a workflow from a project.

        Raises:
            ValueError: The project has no such workflow.
        """
        if (project, workflow_id) not in self._workflows:
            raise ValueError(f"there is no workflow {workflow_id} in the project {project}")
        self._workflows.remove((project, workflow_id))

    def expire(self, session_id: str) -> None:
        """Let an active session expire now.

        Raises:
            KeyError: The session does not exist.
        """
        session = self._find(session_id)
        if session.record.status(self._now()) == "active":
            ended = min(int(self._now().timestamp()), session.record.expires_at)
            group, changes, when = self._rules.rewrite(
                session, replace(session.record, expires_at=ended)
            )
            self._store.commit(group, changes, when=when)

    def forget(self, session_id: str) -> None:
        """Remove a session, as if it had never existed.

        Raises:
            KeyError: The session does not exist.
        """
        del self._secrets[session_id]
        record = self._find(session_id).record
        for group, changes, when in (self._rules.forget(record), self._rules.unlist(record)):
            self._store.commit(group, changes, when=when)

    def sessions(self) -> dict[str, FakeSession]:
        """Return the latest 10,000 sessions by id, oldest first, with their current status."""
        now = self._now()
        return {
            session_id: FakeSession.of(self._find(session_id).record, client_secret, now)
            for session_id, client_secret in self._secrets.items()
        }

    def _find(self, session_id: str) -> StoredSession:
        (entry,) = self._store.get(self._rules.group_of_session(session_id), [SESSION])
        session = StoredSession.parse(entry)
        if session is None:
            raise KeyError(session_id)
        return session

    def _remember(self, issued: IssuedSession) -> None:
        self._secrets[issued.record.id] = issued.client_secret.get_secret_value()
        if len(self._secrets) > MAX_SESSIONS:
            self.forget(next(iter(self._secrets)))

    def handle(self, request: Request, served: Collection[Operation]) -> Response:
        """Respond to a request.

        Args:
            request: The request.
            served: The operations that the API offers.
        """
        return run_blocking(self._flow.handle, request, served)

    def respond(self, status_code: int, body: bytes, headers: Headers | None = None) -> Response:
        """Return a response with the API's common headers.

        Args:
            status_code: The HTTP status; 204 and 304 have no body.
            body: The body.
            headers: Additional headers, or other values for the common ones.
        """
        return self._rules.respond(status_code, body, headers)


class _VisibleRules(SessionRules):
    """The rules of the service, with a list of the secrets."""

    def watch(self, issued: Callable[[IssuedSession], None]) -> None:
        """Call a function with each new session."""
        self._issued = issued

    def issue(
        self,
        settings: SessionSettings,
        project: str,
        *,
        now: datetime,
        refreshed_from: str | None = None,
    ) -> IssuedSession:
        issued = super().issue(settings, project, now=now, refreshed_from=refreshed_from)
        self._issued(issued)
        return issued
