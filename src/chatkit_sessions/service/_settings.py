"""The settings of a session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

StateValue: TypeAlias = str | int | float | bool

DEFAULT_LIFETIME: Final = 600
DEFAULT_REQUESTS_PER_MINUTE: Final = 10


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
    workflow_version: str | None = None
    state_variables: Mapping[str, StateValue] | None = field(default=None, repr=False)
    tracing: bool = True
    expires_after: int = DEFAULT_LIFETIME
    max_requests_per_1_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    automatic_thread_titling: bool = True
    file_upload: bool = False
    max_file_size: int | None = None
    max_files: int | None = None
    history: bool = True
    recent_threads: int | None = None
