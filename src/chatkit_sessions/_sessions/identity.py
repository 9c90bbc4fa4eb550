"""Which session is the same, and where it lies in a store: names that reveal no user."""

import hashlib
import json
from functools import cached_property
from typing import Final

from pydantic import SecretStr

SCHEMA: Final = 1
"""Of what is stored; another one is another place, so that releases do not read each other's."""

_DIGITS: Final = 32
_quoted: Final = json.JSONEncoder().encode


class Identity:
    """What has to be equal for a session to serve a second time.

    Args:
        scope: Who can see it.
        user: Whose session it is.
        body: The canonical body of the request that creates it.
    """

    def __init__(self, scope: "Scope", user: str, body: bytes) -> None:
        self.group: Final = scope.group_of_user(user)
        """Where the user's entries are."""
        self._scope = scope
        self._user = user
        self._body = body

    @cached_property  # here and below: only sessions that are shared need it
    def description(self) -> str:
        """Everything it depends on, as canonical JSON; the request's body as its digest."""
        return self._scope.describe("create", self._user, hashlib.sha256(self._body).hexdigest())

    @cached_property
    def slot(self) -> str:
        """Names the session's entries in the user's group."""
        return _name(self.description)


class Scope:
    """Who can see the same sessions: clients of one server, organization, project and namespace.

    Args:
        base_url: The API's root.
        organization: None: the key's own.
        project: None: the key's own.
        namespace: What the store keeps apart; empty where only this process sees it.
        key: What keeps API keys apart, where no namespace does.
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
        return _name(self.describe("user", user))

    def group_of_session(self, session_id: str) -> str:
        """The group of what is known of one session by its id."""
        return _name(self.describe("session", session_id))

    def identity(self, user: str, body: bytes) -> Identity:
        """The identity of the session that a create request with this canonical body makes."""
        return Identity(self, user, body)

    def describe(self, *what: str) -> str:
        """The scope, and what else there is, as one JSON list."""
        return f"{self._common}, {', '.join(map(_quoted, what))}]"


def name_of_secret(secret: SecretStr) -> str:
    """The name under which a user's group lists a shared secret; reveals nothing of it."""
    return f"shared:{_name(secret.get_secret_value())}"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
