"""Request → action.

- `POST /session` creates a session, or returns the user's active one.
- `POST /session/refresh` exchanges the secret in `{"currentClientSecret": …}` for another one.
- `DELETE /session` signs the user out: ends all of the user's sessions.
- `GET /session/{session_id}` returns one of the user's own sessions; off by default.
- `DELETE /session/{session_id}` ends it; off by default.
"""

import json
from typing import NamedTuple, TypeAlias, cast

from pydantic import SecretStr

from chatkit_sessions._api.arguments import problem_with_session_id, validate_client_secret
from chatkit_sessions._redaction import hidden_from_tracebacks
from chatkit_sessions.errors import InvalidRequestError

from ._messages import EndpointRequest, ErrorCode
from ._paths import Paths


class Problem(NamedTuple):
    """Why a request is rejected."""

    code: ErrorCode
    message: str | None = None
    """The message for the page; None: the code's own."""


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
    """Return a session, if it is the user's."""

    user: str
    session_id: str


class Delete(NamedTuple):
    """End a session, if it is the user's."""

    user: str
    session_id: str


Action: TypeAlias = Create | Refresh | SignOut | Read | Delete


def parse_action(request: EndpointRequest, user: str, paths: Paths) -> Action | Problem:
    """Parse a request whose method and content type are valid."""
    route, session_id = paths.route_of(request.path)
    deletes = request.method == "DELETE"
    if route == paths.by_id:
        if problem_with_session_id(session_id) is not None:
            return Problem("not_found")
        return Delete(user, session_id) if deletes else Read(user, session_id)
    if deletes:
        return SignOut(user)
    # The rest of the body is ignored: the server decides on user and options.
    return _refresh(request, user) if route == paths.refresh else _create(request, user)


@hidden_from_tracebacks
def _create(request: EndpointRequest, user: str) -> Create | Problem:
    is_object = not request.body or _parse_object(request.body) is not None
    return Create(user) if is_object else Problem("invalid_request")


@hidden_from_tracebacks
def _refresh(request: EndpointRequest, user: str) -> Refresh | Problem:
    fields = _parse_object(request.body) if request.body else {}
    if fields is None:
        return Problem("invalid_request")
    presented = fields.get("currentClientSecret")
    if presented is None:
        return Problem("invalid_request", "`currentClientSecret` is missing in the request's body.")
    try:
        return Refresh(user, validate_client_secret(presented))
    except InvalidRequestError:
        return Problem("invalid_request", "`currentClientSecret` is not a client secret.")


def _parse_object(body: bytes) -> dict[str, object] | None:
    """The body as a JSON object; None if it is not one."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
