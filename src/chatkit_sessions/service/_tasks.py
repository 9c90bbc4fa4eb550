"""What a request asks for, and what is committed to the store, as plain values."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from pydantic import SecretStr

from ._records import Entry
from ._settings import SessionSettings


class Create(NamedTuple):
    """Open a session."""

    settings: SessionSettings
    project: str


class Refresh(NamedTuple):
    """Replace the session of a secret."""

    client_secret: SecretStr
    project: str


class Read(NamedTuple):
    """Return a session, cancelled before if `cancel` says so."""

    session_id: str
    project: str
    cancel: bool


Task: TypeAlias = Create | Refresh | Read


class Transaction(NamedTuple):
    """What to commit to the store; see `SessionStore.commit`."""

    group: str
    changes: Mapping[str, Entry | None]
    when: Mapping[str, bytes | None]
