"""The errors of `verify`."""

from typing import Final, Literal, TypeAlias

from chatkit_sessions.errors import ChatKitError

InvalidReason: TypeAlias = Literal["missing", "unknown", "expired", "cancelled"]
"""Why a secret is invalid. Only a caller with the right secret gets `expired` or `cancelled`."""

_MESSAGES: Final[dict[InvalidReason, str]] = {
    "missing": "The request has no client secret.",
    "unknown": "The client secret is not one of this service's sessions.",
    "expired": "The client secret's session has expired.",
    "cancelled": "The client secret's session is cancelled.",
}


_HINTS: Final[dict[InvalidReason, str]] = {
    "missing": "Send it as `Authorization: Bearer ek_…`.",
    "unknown": (
        "Check that what creates sessions and what verifies them share one store and namespace, "
        "and name the same workflows and project; a MemorySessionStore is seen by one process only."
    ),
}


class InvalidClientSecretError(ChatKitError):
    """The client secret is invalid: reject the request with 401.

    Args:
        reason: See the attribute.
        session_id: See the attribute.
        problem: What the secret looks like instead, for the message: "begins with …". Default: the
            message says no more than the reason.

    Attributes:
        reason: `missing`, `unknown`, `expired` or `cancelled`.
        session_id: The secret's session, for your logs; None if the secret belongs to none.
    """

    _advice = "Reject the request with 401: the page then gets a new secret."

    def __init__(
        self, reason: InvalidReason, session_id: str | None = None, problem: str | None = None
    ) -> None:
        if problem is None:
            super().__init__(_MESSAGES[reason], hint=_HINTS.get(reason))
        else:
            super().__init__(f"The client secret {problem}.")
        self._restored_by(reason, session_id, problem)
        self.reason: InvalidReason = reason
        self.session_id = session_id


class ClientSecretRateLimitError(ChatKitError):
    """The session or its user has reached the rate limit: reject the request with 429.

    Attributes:
        retry_after: Seconds until the next request is allowed, more than 0.
        session_id: The session.
    """

    _advice = "Reject the request with 429, and these seconds as `Retry-After`."

    def __init__(self, retry_after: float, session_id: str | None = None) -> None:
        super().__init__(
            f"The rate limit is reached; the next request is allowed in {retry_after:.1f} seconds."
        )
        self._restored_by(retry_after, session_id)
        self.retry_after = retry_after
        self.session_id = session_id
