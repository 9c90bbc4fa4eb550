"""Which action a request asks for.

- `POST /session` creates a session, or returns the user's live one.
- `POST /session/refresh` exchanges the secret in `{"currentClientSecret": …}` for another one.
- `DELETE /session` signs the user out: ends all of the user's sessions.
- `GET /session/{session_id}` returns one of the user's own sessions; off by default.
- `DELETE /session/{session_id}` ends it; off by default.
"""

import json
from typing import Final, NamedTuple, TypeAlias, cast

from pydantic import SecretStr

from chatkit_sessions._api.arguments import problem_with_session_id, validate_client_secret
from chatkit_sessions._redaction import hidden_from_tracebacks
from chatkit_sessions.errors import InvalidRequestError

from ._messages import EndpointRequest, ErrorCode

SESSION: Final = "/session"
REFRESH: Final = "/session/refresh"
BY_ID: Final = "/session/{session_id}"


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


Action: TypeAlias = Create | Refresh | SignOut | Read | Delete


def route_of(path: str) -> tuple[str, str]:
    """The route of a path, and the id in it."""
    if path in {SESSION, REFRESH}:
        return path, ""
    start, session_id = path[: len(SESSION) + 1], path[len(SESSION) + 1 :]
    if start == f"{SESSION}/" and session_id and "/" not in session_id:
        return BY_ID, session_id
    return "", ""


def parse_action(request: EndpointRequest, user: str) -> Action | ErrorCode:
    route, session_id = route_of(request.path)
    deletes = request.method == "DELETE"
    if route == BY_ID:
        if problem_with_session_id(session_id) is not None:
            return "not_found"
        return Delete(user, session_id) if deletes else Read(user, session_id)
    if deletes:
        return SignOut(user)
    if route == REFRESH:
        client_secret = _current_client_secret(request)
        return "invalid_request" if client_secret is None else Refresh(user, client_secret)
    # Nothing in the body counts: who the user is and what a session is, the server decides.
    no_body_or_object = not request.body or _is_object(request)
    return Create(user) if no_body_or_object else "invalid_request"


@hidden_from_tracebacks
def _is_object(request: EndpointRequest) -> bool:
    return _parse_object(request.body) is not None


@hidden_from_tracebacks
def _current_client_secret(request: EndpointRequest) -> SecretStr | None:
    fields = _parse_object(request.body)
    try:
        return validate_client_secret((fields or {}).get("currentClientSecret"))
    except InvalidRequestError:
        return None


def _parse_object(body: bytes) -> dict[str, object] | None:
    """The JSON object that a body is; None where it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
