"""A session of the local API, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from chatkit_sessions.service._records import SessionSettings, SessionStatus, StateValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatkit_sessions.service._records import SessionRecord

__all__ = ["FakeSession", "SessionSettings", "SessionStatus", "StateValue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSession:
    """A session at one moment.

    Attributes:
        id: `cksess_` and 48 hexadecimal digits.
        client_secret: The secret, in plain text.
        created_at: When it was created, in UTC, to the second.
        expires_at: When it expires, in UTC, to the second.
        status: `active`, `expired` or `cancelled`.
        settings: The requested settings, with the API's defaults for omitted ones.
        project: The project of the key that it was created with.
        refreshed_from: The id of the session that it replaced by a refresh; None without one.
    """

    id: str
    client_secret: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    status: SessionStatus
    settings: SessionSettings
    project: str = "proj_test"
    refreshed_from: str | None = None

    @classmethod
    def of(cls, record: SessionRecord, client_secret: str, now: datetime) -> Self:
        """The session of a record, with its current status."""
        return cls(
            id=record.id,
            client_secret=client_secret,
            created_at=datetime.fromtimestamp(record.created_at, UTC),
            expires_at=datetime.fromtimestamp(record.expires_at, UTC),
            status=record.status(now),
            settings=record.settings,
            project=record.project,
            refreshed_from=record.refreshed_from,
        )

    @property
    def user(self) -> str:
        """The end user's id, from the backend."""
        return self.settings.user

    @property
    def workflow_id(self) -> str:
        """The session's workflow."""
        return self.settings.workflow_id

    @property
    def workflow_version(self) -> str | None:
        """The workflow's version; None: the latest deployed one."""
        return self.settings.workflow_version

    @property
    def state_variables(self) -> Mapping[str, StateValue] | None:
        """The backend's values for the workflow; None if it passed none."""
        return self.settings.state_variables
