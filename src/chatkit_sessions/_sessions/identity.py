"""Which callers share a session, and where it is in a store: names that reveal no user."""

import hashlib
import json
from typing import Final

from pydantic import SecretStr

from chatkit_sessions._redaction import hidden_from_tracebacks

SCHEMA: Final = 1
"""The format of a stored session. Each has its own slots: releases do not read each other's."""
GROUPS: Final = 1
"""The format of groups' names, which never changes: a sign-out ends what any release has stored."""

_DIGITS: Final = 32
_quoted: Final = json.JSONEncoder().encode


class Identity:
    """What two calls must have in common to share a session.

    Args:
        scope: Who can see it.
        user: Whose session it is.
        body: The canonical body of the request that creates it.
    """

    def __init__(self, scope: "Scope", user: str, body: bytes) -> None:
        self.user: Final = user
        self._scope = scope
        self._body = body
        self._group: str | None = None
        self._description: str | None = None
        self._slot: str | None = None

    # Worked out when first needed. Without `cached_property`: on Python 3.11 it holds a lock, which
    # a child of `fork()` would wait for forever.

    @property
    def group(self) -> str:
        """Where the user's entries are."""
        if self._group is None:
            self._group = self._scope.group_of_user(self.user)
        return self._group

    @property
    def description(self) -> str:
        """The scope, the user, and the digest of the request's body, as canonical JSON."""
        if self._description is None:
            digest = hashlib.sha256(self._body).hexdigest()
            self._description = self._scope.describe(SCHEMA, "create", self.user, digest)
        return self._description

    @property
    def slot(self) -> str:
        """Names the session's entries in the user's group."""
        if self._slot is None:
            self._slot = _name(self.description)
        return self._slot


class Scope:
    """Who can see the same sessions: clients of one server, organization, project and namespace.

    Args:
        base_url: The API's root.
        organization: None: the key's own.
        project: None: the key's own.
        namespace: The store's; empty if only this process sees the store.
        key: Differs for each API key; None if a namespace separates tenants.
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
        common = [base_url, organization, project, namespace, key]
        self.text: Final = json.dumps(common).removeprefix("[").removesuffix("]")
        """Equal for the same scope; holds no key."""

    def group_of_user(self, user: str) -> str:
        """The group of a user's entries."""
        return _name(self.describe(GROUPS, "user", user))

    def group_of_session(self, session_id: str) -> str:
        """The group of what is known of one session by its id."""
        return _name(self.describe(GROUPS, "session", session_id))

    def describe(self, version: int, *what: str) -> str:
        """The scope and more values, as one JSON list."""
        return f"[{version}, {self.text}, {', '.join(map(_quoted, what))}]"


@hidden_from_tracebacks
def name_of_secret(secret: SecretStr) -> str:
    """The name under which a user's group lists a shared secret; reveals nothing of it."""
    return f"shared:{_name(secret.get_secret_value())}"


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
