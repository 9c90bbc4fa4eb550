"""What the endpoint answers: every decision, on plain values.

- `POST /session` creates a session, or hands out the user's live one.
- `POST /session/refresh` gives another secret for `{"currentClientSecret": …}`.
- `DELETE /session` signs the user out: ends all of the user's sessions.
- `GET /session/{session_id}` tells of one of the user's own sessions; off by default.
- `DELETE /session/{session_id}` ends it; off by default.
"""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias, TypedDict, cast

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._redaction import MaskedBytes, shown
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ChatKitError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidRequestError,
    RateLimitError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionNotRecordedError,
    SessionStoreError,
)
from chatkit_sessions.models import (
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    FileUpload,
    History,
    StateVariable,
)

from ._origins import check_allowed_origins, is_same_origin, origin_of, parse_origin

logger: Final = logging.getLogger("chatkit_sessions")

MAX_BODY: Final = 65_536
"""Bytes that a request's body can have. Read one more at most: it is enough to be refused."""
DEFAULT_PREFIX: Final = "/api/chatkit"
DEFAULT_RATE_LIMIT: Final = 30
MAX_RATE_LIMIT: Final = 1_000
DEFAULT_TIMEOUT: Final = 10.0

_PREFLIGHT_SECONDS: Final = 600
_UPSTREAM_RETRY_AFTER: Final = 5.0
"""Seconds to wait where the API limits the rate and does not say for how long."""

_SESSION: Final = "/session"
_REFRESH: Final = "/session/refresh"
_BY_ID: Final = "/session/{session_id}"

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
"""What `error.code` of an answer can be."""


class _Refusal(NamedTuple):
    status_code: int
    message: str


_REFUSALS: Final[Mapping[ErrorCode, _Refusal]] = {
    "invalid_request": _Refusal(400, "The request's body is not what this address takes."),
    "unauthenticated": _Refusal(401, "Nobody is signed in."),
    "origin_not_allowed": _Refusal(403, "Pages of this origin may not ask for a chat session."),
    "not_found": _Refusal(404, "There is no such session."),
    "method_not_allowed": _Refusal(405, "This address does not take this method."),
    "session_deleted": _Refusal(409, "The user has signed out meanwhile."),
    "request_too_large": _Refusal(413, "The request's body is too large."),
    "unsupported_media_type": _Refusal(415, "The body's type must be application/json."),
    "rate_limit_exceeded": _Refusal(429, "Too many chat sessions were asked for: try later."),
    "configuration_error": _Refusal(502, "The chat is not set up correctly."),
    "upstream_error": _Refusal(502, "The chat service is in trouble: try again."),
    "store_unavailable": _Refusal(503, "Chat sessions cannot be looked up just now: try again."),
    "upstream_timeout": _Refusal(504, "The chat service did not answer in time: try again."),
}

# The first that fits. What is not listed is ours to mend: the key, the workflow, the options.
_CODES_OF_ERRORS: Final[tuple[tuple[type[ChatKitError], ErrorCode], ...]] = (
    (RateLimitError, "rate_limit_exceeded"),
    (APITimeoutError, "upstream_timeout"),
    (SessionNotFoundError, "not_found"),
    (SessionNotRecordedError, "not_found"),
    (SessionDeletedError, "session_deleted"),
    (SessionStoreError, "store_unavailable"),
    (APIConnectionError, "upstream_error"),
    (APIResponseValidationError, "upstream_error"),
    (ConflictError, "upstream_error"),
    (InternalServerError, "upstream_error"),
    (ChatKitError, "configuration_error"),
)


class CreateSessionOptions(TypedDict, total=False):
    """The options of `create_session`, as the application decides them for a request."""

    workflow_id: str | None
    workflow_version: str | None
    state_variables: Mapping[str, StateVariable] | None
    tracing: bool | None
    expires_after: int | timedelta | None
    max_requests_per_1_minute: int | None
    file_upload: bool | FileUpload | None
    history: bool | History | None
    automatic_thread_titling: bool | None


class EndpointSettings(TypedDict, total=False):
    """The settings of an endpoint, whatever the framework; `ChatKitEndpoint` tells what they do."""

    reuse: bool
    session_by_id: bool
    allowed_origins: Iterable[str]
    rate_limit: int | None
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """An HTTP request, as plain values.

    Attributes:
        method: Such as `POST`, in capitals.
        path: Below the prefix: `/session`, `/session/refresh` or `/session/<id>`, unescaped.
        url: The absolute URL that the framework says was asked for; its origin is taken for the
            server's own.
        headers: Under names in any case.
        body: At most `MAX_BODY` + 1 bytes of it, and so never more in memory.
    """

    method: str
    path: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = b""

    def __post_init__(self) -> None:
        # It holds the current secret, and tracebacks may show requests.
        object.__setattr__(self, "body", MaskedBytes(self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResponse:
    """An HTTP answer, as plain values.

    Attributes:
        status_code: The HTTP status.
        headers: All that belongs to the answer, except Content-Length.
        body: JSON, or nothing. Its repr shows its length alone.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes = MaskedBytes()


class Create(NamedTuple):
    """Get a session for the user."""

    user: str


class Refresh(NamedTuple):
    """Get a session with another secret for the user."""

    user: str
    client_secret: SecretStr


class SignOut(NamedTuple):
    """End all of the user's sessions."""

    user: str


class Read(NamedTuple):
    """Tell of a session, if it is the user's."""

    user: str
    session_id: str


class Delete(NamedTuple):
    """End a session, if it is the user's."""

    user: str
    session_id: str


Task: TypeAlias = Create | Refresh | SignOut | Read | Delete


class Rules:
    """What an endpoint with these settings does with a request.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(self, *, session_by_id: bool, allowed_origins: Iterable[str]) -> None:
        self._allowed_origins = check_allowed_origins(allowed_origins)
        routes: dict[str, tuple[str, ...]] = {
            _SESSION: ("POST", "DELETE", "OPTIONS"),
            _REFRESH: ("POST", "OPTIONS"),
        }
        if session_by_id:
            routes[_BY_ID] = ("GET", "HEAD", "DELETE", "OPTIONS")
        self.routes: Final = MappingProxyType(routes)
        """The methods of each path."""

    def decide(self, request: EndpointRequest, user: str | None) -> Task | EndpointResponse:
        """What to do, or the answer where there is nothing to do.

        Raises:
            InvalidRequestError: The user is none that the application should have given.
        """
        code = self._flaw_of(request, user)
        if code == "origin_not_allowed":
            logger.warning(
                "%s %s: refused a page of the origin %s, which is neither that of %s nor allowed",
                *(request.method, _route_of(request.path)[0]),
                *(shown(_header(request, "origin")), shown(request.url.partition("?")[0])),
            )
        if code == "method_not_allowed":
            return self.refuse(request, code, headers={"Allow": ", ".join(self._methods(request))})
        if code is not None:
            return self.refuse(request, code)
        if request.method == "OPTIONS":
            return self._respond(request, 204, headers=self._preflight(request))
        task = _task(request, operations.check_user(user))
        return task if isinstance(task, tuple) else self.refuse(request, task)

    def _flaw_of(self, request: EndpointRequest, user: str | None) -> ErrorCode | None:
        method, methods = request.method, self._methods(request)
        # The first that is so counts.
        flaws: dict[ErrorCode, bool] = {
            "not_found": not methods,
            "origin_not_allowed": not self._is_from_an_allowed_page(request),
            "method_not_allowed": method not in methods,
            # A page can send any other type anywhere without asking its browser's permission.
            "unsupported_media_type": method == "POST" and not _is_json(request),
            "request_too_large": len(request.body) > MAX_BODY,
            "unauthenticated": method != "OPTIONS" and (user is None or user == ""),
        }
        return next((code for code, is_so in flaws.items() if is_so), None)

    def _methods(self, request: EndpointRequest) -> tuple[str, ...]:
        return self.routes.get(_route_of(request.path)[0], ())

    def succeed(
        self,
        request: EndpointRequest,
        result: ChatKitSessionResponse | ChatKitSessionInfo | None,
    ) -> EndpointResponse:
        """The answer where everything went well."""
        if result is None:
            return self._respond(request, 204)
        return self._respond(request, 200, MaskedBytes(json.dumps(_told(result)).encode()))

    def fail(self, request: EndpointRequest, error: ChatKitError) -> EndpointResponse:
        """The answer to an error, which goes to the log in full and to the page as a code."""
        code: ErrorCode = next(told for kind, told in _CODES_OF_ERRORS if isinstance(error, kind))
        status_code = _REFUSALS[code].status_code
        logger.log(
            logging.ERROR if status_code >= 500 else logging.WARNING,  # noqa: PLR2004 -- HTTP's
            "%s %s: answered with %d %s: %s",
            *(request.method, _route_of(request.path)[0], status_code, code, error),
        )
        if isinstance(error, RateLimitError):
            return self.limit(request, error.retry_after or _UPSTREAM_RETRY_AFTER)
        return self.refuse(request, code)

    def limit(self, request: EndpointRequest, seconds: float) -> EndpointResponse:
        """The answer to a user, or an application, that asks too often."""
        headers = {"Retry-After": str(math.ceil(seconds))}
        return self.refuse(request, "rate_limit_exceeded", headers=headers)

    def refuse(
        self, request: EndpointRequest, code: ErrorCode, *, headers: Mapping[str, str] | None = None
    ) -> EndpointResponse:
        """The answer that says no."""
        status_code, message = _REFUSALS[code]
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        return self._respond(request, status_code, MaskedBytes(body), headers=headers)

    def _respond(
        self,
        request: EndpointRequest,
        status_code: int,
        body: bytes = MaskedBytes(),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> EndpointResponse:
        common = {"Cache-Control": "no-store", "Vary": "Origin"}
        if body:
            common["Content-Type"] = "application/json"
        origin = _header(request, "origin")
        if origin is not None and self._is_listed(origin):
            common["Access-Control-Allow-Origin"] = origin
            common["Access-Control-Allow-Credentials"] = "true"
            common["Access-Control-Expose-Headers"] = "Retry-After"
        return EndpointResponse(
            status_code=status_code, headers={**common, **(headers or {})}, body=body
        )

    # https://fetch.spec.whatwg.org/#cors-preflight-request
    def _preflight(self, request: EndpointRequest) -> dict[str, str]:
        methods = ", ".join(self._methods(request))
        origin = _header(request, "origin")
        if origin is None or not self._is_listed(origin):
            return {"Allow": methods}
        wanted = _header(request, "access-control-request-headers") or ""
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": wanted if _NAMES.fullmatch(wanted) else "content-type",
            "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        }

    # https://www.w3.org/TR/fetch-metadata/: pages cannot set these two headers.
    def _is_from_an_allowed_page(self, request: EndpointRequest) -> bool:
        origin = _header(request, "origin")
        if origin is not None:
            if self._is_listed(origin):
                return True
            page = parse_origin(origin)
            if page is None or not is_same_origin(page, origin_of(request.url)):
                return False
        return _header(request, "sec-fetch-site") in {None, "same-origin", "none"}

    def _is_listed(self, origin: str) -> bool:
        return parse_origin(origin) in self._allowed_origins


# Names of headers, with commas between them; and so nothing that ends a header.
_NAMES: Final = re.compile(r"[A-Za-z0-9_\-]+(, ?[A-Za-z0-9_\-]+)*")


def check_rate_limit(limit: object) -> int | None:
    """Refuse a limit that is none.

    Raises:
        ConfigurationError: It is not a whole number within the bounds.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_RATE_LIMIT:
        raise ConfigurationError(
            f"`rate_limit` must be a whole number from 1 to {MAX_RATE_LIMIT:,}, or None for no "
            f"limit, got {shown(limit)}."
        )
    return limit


def check_client(client: object, expected: type, *, endpoint: str) -> None:
    """Refuse the client of the other colour.

    Raises:
        ConfigurationError: It is no client of that type.
    """
    if not isinstance(client, expected):
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got {shown(client)}."
        )


def check_is_of(info: ChatKitSessionInfo, user: str) -> None:
    """Refuse to tell of somebody else's session that it exists.

    Raises:
        SessionNotRecordedError: The session is not known to be the user's.
    """
    if info.user != user:
        raise SessionNotRecordedError("The session is not this user's.")


def _route_of(path: str) -> tuple[str, str]:
    """The route of a path, and the id in it."""
    if path in {_SESSION, _REFRESH}:
        return path, ""
    start, session_id = path[: len(_SESSION) + 1], path[len(_SESSION) + 1 :]
    if start == f"{_SESSION}/" and session_id and "/" not in session_id:
        return _BY_ID, session_id
    return "", ""


def _task(request: EndpointRequest, user: str) -> Task | ErrorCode:
    route, session_id = _route_of(request.path)
    deletes = request.method == "DELETE"
    if route == _BY_ID:
        try:
            operations.get(session_id)
        except InvalidRequestError:
            return "not_found"
        return Delete(user, session_id) if deletes else Read(user, session_id)
    if deletes:
        return SignOut(user)
    if route == _REFRESH:
        client_secret = _current_client_secret(request.body)
        return "invalid_request" if client_secret is None else Refresh(user, client_secret)
    # Nothing in the body counts: who the user is and what a session is, the server decides.
    no_body_or_object = not request.body or _object(request.body) is not None
    return Create(user) if no_body_or_object else "invalid_request"


def _current_client_secret(body: bytes) -> SecretStr | None:
    fields = _object(body)
    try:
        return operations.check_client_secret((fields or {}).get("currentClientSecret"))
    except InvalidRequestError:
        return None


def _object(body: bytes) -> dict[str, object] | None:
    """The JSON object that a body is; None where it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _is_json(request: EndpointRequest) -> bool:
    essence = (_header(request, "content-type") or "").partition(";")[0]
    return essence.strip().lower() == "application/json"


def _header(request: EndpointRequest, name: str) -> str | None:
    """A header's value; of several, all of them, so that none can hide behind another."""
    values = [value for key, value in request.headers.items() if key.lower() == name]
    return ", ".join(values) if values else None


def _told(result: ChatKitSessionResponse | ChatKitSessionInfo) -> Mapping[str, object]:
    if isinstance(result, ChatKitSessionResponse):
        return result.for_browser()
    return {
        "session_id": result.id,
        "status": result.status,
        "expires_at": result.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
