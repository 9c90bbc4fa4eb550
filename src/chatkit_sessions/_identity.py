"""Which session is the same, and where it lies in a store: names that tell nothing of the user."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

SCHEMA: Final = 1
"""Of what is stored; another one is another place, so that releases do not read each other's."""

_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """What has to be equal for a session to serve a second time."""

    description: str
    """Everything it depends on, as canonical JSON; the request's body as its digest."""
    group: str
    """Where the user's entries are."""
    slot: str
    """Names the session's entries there."""


class Scope:
    """Who can see the same sessions: clients of one server, organization, project and namespace.

    Args:
        base_url: The API's root.
        organization: None: the key's own.
        project: None: the key's own.
        namespace: What the store keeps apart; empty where only this process sees it.
        key: What tells API keys apart, where no namespace does.
    """

    def __init__(
        self,
        *,
        base_url: str,
        organization: str | None,
        project: str | None,
        namespace: str,
        key: str | None,
    ) -> None:
        self.namespace: Final = namespace
        self.key: Final = key
        # Strings and nulls: their JSON has one form only.
        common = [SCHEMA, base_url, organization, project, namespace, key]
        self._common = json.dumps(common).removesuffix("]")

    def group_of_user(self, user: str) -> str:
        """The group of a user's entries."""
        return _name(self._describe("user", user))

    def group_of_session(self, session_id: str) -> str:
        """The group of what is known of one session by its id."""
        return _name(self._describe("session", session_id))

    def identity(self, user: str, body: bytes) -> Identity:
        """The identity of the session that a create request with this canonical body makes."""
        description = self._describe("create", user, hashlib.sha256(body).hexdigest())
        return Identity(description, self.group_of_user(user), _name(description))

    def _describe(self, *what: str) -> str:
        """All of it as one JSON list."""
        return f"{self._common}, {', '.join(map(json.dumps, what))}]"


def name_of_session(session_id: str) -> str:
    """The name under which a user's group lists a session."""
    return f"session:{_name(session_id)}"


def name_of_secret(secret: str) -> str:
    """The name under which a user's group knows a secret that is shared; tells nothing of it."""
    return f"shared:{_name(secret)}"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
