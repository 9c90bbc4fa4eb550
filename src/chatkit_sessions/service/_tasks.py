"""Requests as tasks, as plain values."""

from typing import NamedTuple, TypeAlias

from pydantic import SecretStr

from ._routes import Call
from ._settings import SessionSettings


class Screened(NamedTuple):
    """A request whose route, API key and headers are right."""

    call: Call
    project: str


class Create(NamedTuple):
    """Create a session."""

    settings: SessionSettings
    project: str


class Refresh(NamedTuple):
    """Replace the session of a secret."""

    client_secret: SecretStr
    project: str


class Read(NamedTuple):
    """Return a session, after cancelling it if `cancel` is true."""

    session_id: str
    project: str
    cancel: bool


class SignOut(NamedTuple):
    """End all sessions of a user."""

    user: str
    project: str


class Audience(NamedTuple):
    """Whose sessions are accepted; None: those of any workflow, or any project."""

    workflow_id: str | None = None
    project: str | None = None


Task: TypeAlias = Create | Refresh | Read | SignOut
