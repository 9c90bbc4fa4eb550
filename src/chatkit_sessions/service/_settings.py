"""The settings of a session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

StateValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The settings of a create request, with the defaults for omitted ones.

    Attributes:
        user: The end user's id, from the backend.
        workflow_id: The session's workflow.
        workflow_version: The workflow's version; None: the latest deployed one.
        state_variables: The backend's values for the workflow; None if it passed none.
        tracing: Whether the workflow's runs are traced.
        expires_after: The session's lifetime in seconds, 1 to 600.
        max_requests_per_1_minute: The session's rate limit.
        automatic_thread_titling: Whether threads get titles automatically.
        file_upload: Whether users can upload files.
        max_file_size: The most megabytes of a file; None if uploads are off.
        max_files: The most files; None if uploads are off.
        history: Whether users see their earlier threads.
        recent_threads: How many earlier threads users see; None: all.
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
