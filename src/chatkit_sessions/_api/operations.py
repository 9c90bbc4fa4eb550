"""One builder per call: arguments → `Operation`, or an error before anything is sent."""

import json
from collections.abc import Callable, Collection, Iterable
from typing import Final, Generic, NamedTuple, TypeVar, cast
from urllib.parse import quote

from pydantic import JsonValue, SecretBytes, SecretStr, ValidationError

from chatkit_sessions._redaction import mask
from chatkit_sessions.events import EventName
from chatkit_sessions.models import (
    FIELD_NAMES,
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
)
from chatkit_sessions.options import SessionOptions

from .arguments import create_body, problem_with_session_id, validate_session_id
from .diagnosis import ended_status

T_co = TypeVar("T_co", covariant=True)
SessionT = TypeVar("SessionT", ChatKitSessionInfo, CancelledSession)

SESSIONS: Final = "/chatkit/sessions"

_MAX_PROBLEMS: Final = 3
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class Operation(NamedTuple, Generic[T_co]):
    """One call of the API, as plain values."""

    name: EventName
    method: str
    path: str
    """Below the base URL, escaped."""
    body: SecretBytes | None
    parse: Callable[[dict[str, object]], T_co]
    """From the JSON object of a success response to the result.

    Raises pydantic's ValidationError or UnacceptableResponseError."""
    parse_error: Callable[[int, ChatKitErrorDetail | None], T_co | None] = lambda _, __: None
    """From an error response that is as good as success to the result; None: it is an error."""
    secrets: tuple[SecretStr, ...] = ()
    """The secrets of the request beside the key, which no text may quote."""
    query: tuple[tuple[str, str], ...] = ()
    """The URL's parameters, not escaped. A user's id belongs here: log lines have the path."""


def create(
    user: str, *, workflow_id: str, options: SessionOptions
) -> Operation[ChatKitSessionResponse]:
    """`POST /chatkit/sessions`."""
    body = encode_json(create_body(user, workflow_id=workflow_id, options=options))

    def parse(document: dict[str, object]) -> ChatKitSessionResponse:
        session = ChatKitSessionResponse.model_validate(document)
        problem = problem_with_owner(session, user=user, workflow_id=workflow_id)
        if problem is not None:
            session_id = id_to_cancel(session.id, secrets=[session.client_secret])
            raise UnacceptableResponseError(problem, session_id=session_id, mixed_up=True)
        problem = problem_with_session_id(session.id)
        if problem is not None:  # it could never be cancelled
            raise UnacceptableResponseError(f"`id` {problem}")
        return session

    return Operation("create", "POST", SESSIONS, body, parse)


def get(session_id: str) -> Operation[ChatKitSessionInfo]:
    """`GET /chatkit/sessions/{session_id}`: offered by some ChatKit-compatible servers."""

    def parse(document: dict[str, object]) -> ChatKitSessionInfo:
        info = ChatKitSessionInfo.model_validate({**document, "source": "api"})
        return _require_same_session(session_id, info)

    return Operation("get", "GET", _session_path(session_id), None, parse)


def cancel(session_id: str) -> Operation[CancelledSession]:
    """`POST /chatkit/sessions/{session_id}/cancel`; a session that has ended counts as done."""

    def parse_error(status_code: int, detail: ChatKitErrorDetail | None) -> CancelledSession | None:
        status = ended_status(status_code, detail)
        return CancelledSession(id=session_id, status=status) if status else None

    def parse(document: dict[str, object]) -> CancelledSession:
        return _require_same_session(session_id, CancelledSession.model_validate(document))

    path = f"{_session_path(session_id)}/cancel"
    return Operation("cancel", "POST", path, None, parse, parse_error)


def sign_out(user: str) -> Operation[Collection[str]]:
    """`POST /chatkit/sessions/cancel`, which ends all of a user's sessions and returns their ids.

    An extension of this library's sessions service.
    """

    def parse(document: dict[str, object]) -> Collection[str]:
        ended = document.get("cancelled_sessions")
        if not isinstance(ended, list):
            raise UnacceptableResponseError("`cancelled_sessions` is not a list")
        if document.get("user") != user:
            raise UnacceptableResponseError("it is about another user", mixed_up=True)
        return {each for each in cast("list[object]", ended) if isinstance(each, str)}

    body = encode_json({"user": user})
    return Operation("sign_out", "POST", f"{SESSIONS}/cancel", body, parse)


def encode_json(document: JsonValue) -> SecretBytes:
    """Encode a request's body; names in order, so that the same request has the same bytes."""
    return SecretBytes(_ENCODER.encode(document).encode())


class UnacceptableResponseError(ValueError):
    """Why a well-formed response does not fit the request.

    Args:
        reason: What does not fit, without any text of the response.
        session_id: The session to cancel, None where there is none.
        mixed_up: Whether it is the response to another request.
    """

    def __init__(
        self, reason: str, *, session_id: str | None = None, mixed_up: bool = False
    ) -> None:
        super().__init__(reason)
        self.session_id = session_id
        self.mixed_up = mixed_up


def problem_with_owner(
    session: ChatKitSessionResponse, *, user: str, workflow_id: str
) -> str | None:
    """Why a session is somebody else's, None where it is not, or does not say.

    Something between here and the API may mix responses up: the secret would open another user's
    chat.
    """
    if session.user is not None and session.user != user:
        return "it is about another user"
    if session.workflow is not None and session.workflow.id != workflow_id:
        return "it is about another workflow"
    return None


def id_to_cancel(session_id: object, *, secrets: Iterable[SecretStr]) -> str | None:
    """The id of a session that nobody may use, None where it cannot stand in a URL."""
    if not isinstance(session_id, str) or problem_with_session_id(session_id) is not None:
        return None
    return session_id if mask(session_id, secrets) == session_id else None


def _require_same_session(session_id: str, session: SessionT) -> SessionT:
    if session.id != session_id:
        raise UnacceptableResponseError("it is about another session", mixed_up=True)
    return session


def _session_path(session_id: str) -> str:
    return f"{SESSIONS}/{quote(validate_session_id(session_id), safe='')}"


def describe_validation_error(error: ValidationError) -> str:
    """Describe where and how a body is invalid, without its values and unknown names."""
    problems = [
        f"`{'.'.join(_step(step) for step in each['loc'])}` {each['msg']} ({each['type']})"
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(problems[:_MAX_PROBLEMS])


def _step(step: int | str) -> str:
    return str(step) if isinstance(step, int) or step in FIELD_NAMES else "…"
