"""An endpoint's requests, paths, actions and responses, and visitors' cookies, as plain values.

- `POST /session` creates a session, or returns the user's active one.
- `POST /session/refresh` exchanges the secret in `{"currentClientSecret": …}` for another one.
- `DELETE /session` signs the user out: ends all of the user's sessions.
- `GET /session/{session_id}` returns one of the user's own sessions; off by default.
- `DELETE /session/{session_id}` ends it; off by default.
"""

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from pydantic import SecretStr
from typing_extensions import TypedDict  # pydantic and FastAPI take no other before Python 3.12

from chatkit_sessions._api.arguments import problem_with_session_id
from chatkit_sessions._config.validation import validate_client_secret
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks, safe_repr
from chatkit_sessions.errors import ConfigurationError, InvalidRequestError
from chatkit_sessions.options import SessionOptions

MAX_BODY: Final = 65_536
"""The most bytes of a request's body. Read at most one byte more, to detect a larger body."""
DEFAULT_PREFIX: Final = "/api/chatkit"

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
    """The settings of an endpoint, in any framework."""

    reuse: bool
    """Whether `POST /session` returns the user's active session, as
    `get_or_create_session` does. Default: it creates a session each time."""
    session_by_id: bool
    """Whether to add `GET` and `DELETE /session/{id}`, for the user's own
    sessions; default: no."""
    allowed_origins: Iterable[str]
    """Other origins whose pages may call the endpoint, such as
    `https://app.example.com`. A first label `*`, as in `https://*.preview.example.com`,
    stands for any one label. Default: none."""
    rate_limit: int | None
    """Requests per minute and user, except for signing out: 1 to 1,000; default 30.
    None: no limit. Requests are counted in the client's store: together for all processes
    that share it, by default for this process."""
    timeout: float | None
    """Seconds for a call to the API, more than 0; default 10. None: no limit. A failed
    call is not retried, so that it does not block a worker."""
    session_path: str
    """The path of the session routes below the prefix; default `/session`."""
    refresh_path: str
    """The path of the refresh route below the prefix; default `/session/refresh`."""


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


# Frameworks write variables in braces or angle brackets: `/tenants/{tenant}/chatkit`.
_SEGMENTS: Final = re.compile(r"(/(?!\.\.?(/|$))[^\s/?#%\\]+)+")
_VARIABLE: Final = re.compile(r"[{}<>]")


class Paths(NamedTuple):
    """The paths of the routes, below the prefix."""

    session: str
    refresh: str

    @property
    def by_id(self) -> str:
        """The path of one session; `{session_id}` is a variable."""
        return f"{self.session}/{{session_id}}"

    def route_of(self, path: str) -> tuple[str, str]:
        """The route of a path, and the session id in it; each empty if there is none."""
        if path in self:
            return path, ""
        start, session_id = path[: len(self.session) + 1], path[len(self.session) + 1 :]
        if start == f"{self.session}/" and session_id and "/" not in session_id:
            return self.by_id, session_id
        return "", ""


def validate_prefix(prefix: object) -> str:
    """The prefix with a leading slash and without a trailing one; it may be empty.

    Raises:
        ConfigurationError: The prefix is not a valid path.
    """
    path = prefix.strip("/") if isinstance(prefix, str) else None
    return "" if path == "" else _validate(path and f"/{path}", "prefix", prefix)


def validate_paths(session: object, refresh: object) -> Paths:
    """The paths of the routes.

    Raises:
        ConfigurationError: A path is invalid or has a variable, or both are the same.
    """
    paths = Paths(
        _validate(session, "session_path", session), _validate(refresh, "refresh_path", refresh)
    )
    variable = next((path for path in paths if _VARIABLE.search(path)), None)
    if variable is not None:
        raise ConfigurationError(
            f"`session_path` and `refresh_path` must not have variables, "
            f"got {safe_repr(variable)}.",
            hint="Put the variables into `prefix`.",
        )
    if paths.session == paths.refresh:
        raise ConfigurationError(
            f"`session_path` and `refresh_path` must differ, got {safe_repr(session)} for both."
        )
    return paths


def _validate(path: object, setting: str, given: object) -> str:
    if not isinstance(path, str) or _SEGMENTS.fullmatch(path) is None:
        raise ConfigurationError(
            f"`{setting}` must be a path such as /api/chatkit, without white space, `//`, `?`, "
            f"`#` or `%`, got {safe_repr(given)}."
        )
    return path


class Problem(NamedTuple):
    """Why a request is rejected."""

    code: ErrorCode
    message: str | None = None
    """The message for the page; None: the code's own."""


class CreateAction(NamedTuple):
    """Get a session for the user."""

    user: str


class RefreshAction(NamedTuple):
    """Get a session with another secret for the user."""

    user: str
    client_secret: SecretStr


class SignOutAction(NamedTuple):
    """End all of the user's sessions."""

    user: str


class ReadAction(NamedTuple):
    """Return a session, if it is the user's."""

    user: str
    session_id: str


class DeleteAction(NamedTuple):
    """End a session, if it is the user's."""

    user: str
    session_id: str


Action: TypeAlias = CreateAction | RefreshAction | SignOutAction | ReadAction | DeleteAction


def parse_action(request: EndpointRequest, user: str, paths: Paths) -> Action | Problem:
    """Parse a request whose method and content type are valid."""
    route, session_id = paths.route_of(request.path)
    deletes = request.method == "DELETE"
    if route == paths.by_id:
        if problem_with_session_id(session_id) is not None:
            return Problem("not_found")
        return DeleteAction(user, session_id) if deletes else ReadAction(user, session_id)
    if deletes:
        return SignOutAction(user)
    # The rest of the body is ignored: the server decides on user and options.
    return _refresh(request, user) if route == paths.refresh else _create(request, user)


@hidden_from_tracebacks
def _create(request: EndpointRequest, user: str) -> CreateAction | Problem:
    is_object = not request.body or _parse_object(request.body) is not None
    return CreateAction(user) if is_object else Problem("invalid_request")


@hidden_from_tracebacks
def _refresh(request: EndpointRequest, user: str) -> RefreshAction | Problem:
    fields = _parse_object(request.body) if request.body else {}
    if fields is None:
        return Problem("invalid_request")
    presented = fields.get("currentClientSecret")
    if presented is None:
        return Problem("invalid_request", "`currentClientSecret` is missing in the request's body.")
    try:
        return RefreshAction(user, validate_client_secret(presented))
    except InvalidRequestError:
        return Problem("invalid_request", "`currentClientSecret` is not a client secret.")


def _parse_object(body: bytes) -> dict[str, object] | None:
    """The body as a JSON object; None if it is not one."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


# https://developer.mozilla.org/docs/Web/HTTP/Headers/Set-Cookie: no other host can set it.
COOKIE_NAME: Final = "__Host-chatkit_visitor"
COOKIE_SALT: Final = "chatkit_sessions.visitor"
"""Separates these signatures from others with the same key."""
VISITOR_KEY: Final = "chatkit_sessions.visitor"
"""Where a request's environment keeps the id of a new visitor."""
COOKIE_MAX_AGE: Final = 365 * 24 * 60 * 60
"""Seconds for which the cookie is valid, and for which a browser keeps it."""
MIN_SECRET_KEY: Final = 16
"""The fewest bytes of a key: others can try all shorter ones."""

_VISITOR_PREFIX: Final = "visitor_"


def new_visitor() -> str:
    """A random visitor id that is never one of the application's user ids."""
    return f"{_VISITOR_PREFIX}{secrets.token_urlsafe(18)}"


def parse_visitor(signed: object) -> str | None:
    """The visitor id in a cookie whose signature is right; None if it is none.

    The same key may sign something else under the same salt by mistake. That is no user id.
    """
    text = signed.decode("ascii", "replace") if isinstance(signed, bytes) else signed
    return text if isinstance(text, str) and text.startswith(_VISITOR_PREFIX) else None


def exact_cookie(cookie_header: str | Iterable[str] | None, name: str) -> str | None:
    """Return the value of the cookie with exactly this name.

    Use this function instead of your framework's cookies if the name begins with `__Host-` or
    `__Secure-`. Frameworks remove every kind of white space around a name, but browsers do not.
    So a page of another host below your domain can set a cookie `__Host-…` with a no-break space
    before its name, which a framework reads as `__Host-…`.

    Args:
        cookie_header: The value of the request's `Cookie` header, as it was sent. Its values, if
            it was sent more than once. None: the request has none.
        name: The cookie's name.

    Returns:
        The value; None if there is no such cookie, or more than one.
    """
    headers = [cookie_header] if isinstance(cookie_header, str) else cookie_header or ()
    # https://httpwg.org/specs/rfc6265.html#cookie: only a space separates.
    pairs = [pair.strip(" \t").partition("=") for each in headers for pair in each.split(";")]
    values = [value for found, separator, value in pairs if (found, separator) == (name, "=")]
    return values[0] if len(values) == 1 else None


def validate_secret_keys(keys: Iterable[object], setting: str) -> None:
    """Reject keys with which others could sign a cookie.

    Args:
        keys: Every key whose signatures count.
        setting: What the keys are called.

    Raises:
        ConfigurationError: A key is missing, no text or too short.
    """
    shortest = min(map(_key_size, keys))
    if shortest < MIN_SECRET_KEY:
        raise ConfigurationError(
            f"{setting} signs the visitors' cookies: it must have at least {MIN_SECRET_KEY} bytes, "
            f"got {shortest}.",
            hint="Make one with `python -c 'import secrets; print(secrets.token_hex(32))'`, and "
            "use it in every process.",
        )


def _key_size(key: object) -> int:
    if isinstance(key, str):
        return len(key.encode())
    return len(key) if isinstance(key, bytes) else 0
