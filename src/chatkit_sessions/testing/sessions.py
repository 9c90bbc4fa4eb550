"""A session of the local API, and how the API writes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .wire import JsonValue

SessionStatus: TypeAlias = Literal["active", "expired", "cancelled"]
StateValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What a create request asked for, with the defaults of whatever it left out.

    Attributes:
        user: The end user, as the backend named it.
        workflow_id: The workflow that the session runs.
        workflow_version: Its version, or None for the latest deployed one.
        state_variables: What is handed to the workflow, or None where nothing was given.
        tracing: Whether the workflow's runs are traced.
        expires_after: The session's lifetime in seconds, 1 to 600.
        max_requests_per_1_minute: The session's rate limit.
        automatic_thread_titling: Whether threads get a title by themselves.
        file_upload: Whether users can upload files.
        max_file_size: Megabytes that a file may have, or None while uploads are off.
        max_files: How many files may be uploaded, or None while uploads are off.
        history: Whether users see their earlier threads.
        recent_threads: How many of these, or None for all.
    """

    user: str
    workflow_id: str
    workflow_version: str | None
    state_variables: Mapping[str, StateValue] | None = field(repr=False)
    tracing: bool
    expires_after: int
    max_requests_per_1_minute: int
    automatic_thread_titling: bool
    file_upload: bool
    max_file_size: int | None
    max_files: int | None
    history: bool
    recent_threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSession:
    """A session as it stood at one moment.

    Attributes:
        id: `cksess_` and 48 hexadecimal digits.
        client_secret: What the browser authenticates with.
        created_at: When it was created, in UTC, to the second.
        expires_at: When it ends by itself, in UTC, to the second.
        status: `active`, `expired` or `cancelled`.
        settings: What was asked for, with the API's defaults filled in.
        project: The project of the key that it was created with.
        refreshed_from: The id of the session that it replaced; None for one created anew.
    """

    id: str
    client_secret: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    status: SessionStatus
    settings: SessionSettings
    project: str = "proj_test"
    refreshed_from: str | None = None

    @property
    def user(self) -> str:
        """The end user, as the backend named it."""
        return self.settings.user

    @property
    def workflow_id(self) -> str:
        """The workflow that the session runs."""
        return self.settings.workflow_id

    @property
    def workflow_version(self) -> str | None:
        """The workflow's version, or None for the latest deployed one."""
        return self.settings.workflow_version

    @property
    def state_variables(self) -> Mapping[str, StateValue] | None:
        """What is handed to the workflow, or None where nothing was given."""
        return self.settings.state_variables

    def at(self, moment: datetime) -> FakeSession:
        """Return the session as it stands at `moment`: an active one may have expired."""
        if self.status == "active" and moment >= self.expires_at:
            return replace(self, status="expired")
        return self


def session_object(session: FakeSession, *, client_secret: str) -> JsonValue:
    """Return the session as the API writes it, every field of the published contract set.

    Args:
        session: The session.
        client_secret: Its secret, or an empty string in answers that do not reveal it.
    """
    settings = session.settings
    return {
        "id": session.id,
        "object": "chatkit.session",
        "client_secret": client_secret,
        "expires_at": int(session.expires_at.timestamp()),
        "workflow": {
            "id": settings.workflow_id,
            "version": settings.workflow_version,
            "state_variables": (
                None if settings.state_variables is None else dict(settings.state_variables)
            ),
            "tracing": {"enabled": settings.tracing},
        },
        "user": settings.user,
        "rate_limits": {"max_requests_per_1_minute": settings.max_requests_per_1_minute},
        "max_requests_per_1_minute": settings.max_requests_per_1_minute,
        "status": session.status,
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": settings.automatic_thread_titling},
            "file_upload": {
                "enabled": settings.file_upload,
                "max_file_size": settings.max_file_size,
                "max_files": settings.max_files,
            },
            "history": {
                "enabled": settings.history,
                "recent_threads": settings.recent_threads,
            },
        },
    }
