"""The options of a session: one list for the clients, the endpoint and the request.

Bounds and defaults are those of OpenAI's published API description (`CreateChatSessionBody`).
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeAlias

# Not typing's: pydantic, and so FastAPI, takes only this one as a response type on Python 3.11.
from typing_extensions import TypedDict

StateVariable: TypeAlias = str | int | float | bool


class FileUpload(TypedDict, total=False):
    """The option `file_upload` in full. Uploads are on unless `enabled` is False."""

    enabled: bool
    max_file_size: int
    """Megabytes for each file, 1 to 512; default 512."""
    max_files: int
    """Files for each session, 1 or more; default 10."""


class History(TypedDict, total=False):
    """The option `history` in full. History is on unless `enabled` is False."""

    enabled: bool
    recent_threads: int
    """How many recent threads the user can open, 1 or more; default: all."""


class SessionOptions(TypedDict, total=False):
    """The options of a session. The API chooses the default of one that is omitted or None.

    `create_session`, `get_or_create_session` and `refresh_session` take each as a keyword argument.
    An endpoint's `options` function returns them.
    """

    workflow_id: str | None
    """The workflow, `wf_…`; default: the client's."""
    workflow_version: str | None
    """A published version of the workflow; default: the latest deployed one."""
    state_variables: Mapping[str, StateVariable] | None
    """At most 64 values for the workflow, with names of at most 64 characters: strings of at most
    10,485,760 characters, integers of at most 64 bits, finite numbers and booleans."""
    tracing: bool | None
    """Whether the workflow's runs are traced; default: yes."""
    expires_after: int | timedelta | None
    """How long the secret works, 1 to 600 whole seconds or a timedelta; default: 600."""
    max_requests_per_1_minute: int | None
    """The user's messages per minute, 1 or more; default: 10."""
    file_upload: bool | FileUpload | None
    """Whether the user can upload files, or a `FileUpload`; default: no."""
    history: bool | History | None
    """Whether the user can open earlier threads, or a `History`; default: yes."""
    automatic_thread_titling: bool | None
    """Whether threads get titles automatically; default: yes."""


OPTION_NAMES: Final = frozenset(SessionOptions.__annotations__)


def reject_unknown_options(names: Iterable[str], *, method: str, others: Collection[str]) -> None:
    """Reject an option that does not exist, as Python does for a keyword argument.

    Args:
        names: The names of the options that were passed.
        method: The method's name.
        others: The method's keyword arguments beside the options.

    Raises:
        TypeError: No option has this name; the message suggests a similar one.
    """
    for name in names:
        if name not in OPTION_NAMES:
            meant = did_you_mean(name, [*OPTION_NAMES, *others])
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}.{meant}")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: a similar one, if there is one."""
    import difflib  # noqa: PLC0415 -- only where a name is wrong

    near = difflib.get_close_matches(str(name), sorted(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
