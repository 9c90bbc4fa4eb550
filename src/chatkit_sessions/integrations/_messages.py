"""What goes into an endpoint and comes out of it, as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from typing_extensions import TypedDict  # pydantic and FastAPI take no other before Python 3.12

from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.options import SessionOptions

MAX_BODY: Final = 65_536
"""Bytes that a request's body can have. Read at most one more: it is enough to reject the body."""
DEFAULT_PREFIX: Final = "/api/chatkit"
DEFAULT_SESSION_PATH: Final = "/session"
DEFAULT_REFRESH_PATH: Final = "/session/refresh"
DEFAULT_RATE_LIMIT: Final = 30
DEFAULT_TIMEOUT: Final = 10.0

CreateSessionOptions: TypeAlias = SessionOptions
"""The options of a session, as the application decides them for a request."""

ErrorCode: TypeAlias = Literal[
    "invalid_request",
    "unauthenticated",
    "origin_not_allowed",
    "not_found",
    "method_not_allowed",
    "session_deleted",
    "request_too_large",
    "unsupported_media_type",
    "rate_limit_exceeded",
    "configuration_error",
    "upstream_error",
    "store_unavailable",
    "upstream_timeout",
]
"""What `error.code` of a response can be."""


class EndpointSettings(TypedDict, total=False):
    """The settings of an endpoint, whatever the framework; `ChatKitEndpoint` describes them."""

    reuse: bool
    session_by_id: bool
    allowed_origins: Iterable[str]
    rate_limit: int | None
    timeout: float | None
    session_path: str
    refresh_path: str


class ErrorDetail(TypedDict):
    """Why a request was rejected."""

    code: ErrorCode
    message: str


class ErrorBody(TypedDict):
    """The body of every response that is an error."""

    error: ErrorDetail


class SessionState(TypedDict):
    """What the page gets about one session."""

    session_id: str
    status: str | None
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """An HTTP request, as plain values.

    Attributes:
        method: Such as `POST`, in capitals.
        path: Below the prefix: `/session`, `/session/refresh` or `/session/<id>`, unescaped.
        url: The absolute URL that was asked for; its origin counts as the server's own. Take its
            host from the `Host` header as it was sent, or from what a trusted proxy says.
        headers: Under names in any case.
        body: At most `MAX_BODY` + 1 bytes of it, and so never more in memory.
    """

    method: str
    path: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # It holds the current secret; whoever prints it alone sees its length.
        object.__setattr__(self, "body", MaskedBytes(self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResponse:
    """An HTTP response, as plain values.

    Attributes:
        status_code: The HTTP status.
        headers: All that belongs to the response, except Content-Length.
        body: JSON, or nothing. It may hold a secret, and is not part of the repr.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes = field(default=MaskedBytes(), repr=False)


def header(request: EndpointRequest, name: str) -> str | None:
    """A header's value; of several, all of them, so that none can hide behind another.

    Args:
        request: Whose header.
        name: In lower case.
    """
    values = [value for key, value in request.headers.items() if key.lower() == name]
    return ", ".join(values) if values else None
