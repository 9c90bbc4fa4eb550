"""What a session was created with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

StateValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What a create request asked for, with the defaults of whatever it omitted.

    Attributes:
        user: The end user, as the backend named it.
        workflow_id: The workflow that the session runs.
        workflow_version: Its version, or None for the latest deployed one.
        state_variables: What the workflow receives, or None where nothing was given.
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
