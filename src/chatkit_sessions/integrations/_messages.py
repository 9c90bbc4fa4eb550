"""An endpoint's requests and responses, as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from typing_extensions import TypedDict  # pydantic and FastAPI take no other before Python 3.12

from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions.options import SessionOptions

MAX_BODY: Final = 65_536
"""The most bytes of a request's body. Read at most one byte more, to detect a larger body."""
DEFAULT_PREFIX: Final = "/api/chatkit"
DEFAULT_SESSION_PATH: Final = "/session"
DEFAULT_REFRESH_PATH: Final = "/session/refresh"
DEFAULT_RATE_LIMIT: Final = 30
DEFAULT_TIMEOUT: Final = 10.0

CreateSessionOptions: TypeAlias = SessionOptions
"""The options of a session, as returned by your `options` function."""

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
"""The values of `error.code` in an error response."""


class EndpointSettings(TypedDict, total=False):
    """The settings of an endpoint in any framework; `ChatKitEndpoint` describes them."""

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
    """The body of an error response."""

    error: ErrorDetail


class SessionState(TypedDict):
    """The response of `GET /session/{session_id}`."""

    session_id: str
    status: str | None
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """An HTTP request, as plain values.

    Attributes:
        method: In capitals, such as `POST`.
        path: The path below the prefix, unescaped: `/session`, `/session/refresh` or
            `/session/<id>`.
        url: The request's absolute URL. Its origin counts as the server's own, so take the host
            from the `Host` header, or from a proxy that you trust.
        headers: The headers; names in any case.
        body: At most `MAX_BODY` + 1 bytes of the body.
    """

    method: str
    path: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # It contains the current secret; its repr shows only its length.
        object.__setattr__(self, "body", MaskedBytes(self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResponse:
    """An HTTP response, as plain values.

    Attributes:
        status_code: The HTTP status.
        headers: All headers of the response, except Content-Length.
        body: JSON, or empty. It may contain a secret, and is not in the repr.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes = field(default=MaskedBytes(), repr=False)


def header(request: EndpointRequest, name: str) -> str | None:
    """A header's value; repeated values are joined, so that none can hide behind another.

    Args:
        request: The request.
        name: The header's name, in lower case.
    """
    values = [value for key, value in request.headers.items() if key.lower() == name]
    return ", ".join(values) if values else None
