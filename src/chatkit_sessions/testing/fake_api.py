"""The API itself: from a request to an answer, without sockets, real time or real randomness."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import unquote

from . import refusals
from .bodies import read_create_body, read_refresh_body
from .refusals import Refusal
from .sessions import FakeSession, SessionSettings, session_object
from .wire import Headers, JsonValue, Request, Response, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Operation: TypeAlias = Literal["create", "refresh", "get", "cancel"]

MAX_SESSIONS: Final = 10_000
_BETA: Final = "chatkit_beta=v1"
_STATUSES_WITHOUT_BODY: Final = (204, 304)


@dataclass(frozen=True, slots=True)
class _Route:
    operation: Operation
    method: str
    path: re.Pattern[str]


_ROUTES: Final = (
    _Route("create", "POST", re.compile(r"/v1/chatkit/sessions")),
    _Route("refresh", "POST", re.compile(r"/v1/chatkit/sessions/refresh")),
    _Route("get", "GET", re.compile(r"/v1/chatkit/sessions/(?!refresh\Z)([^/]+)")),
    _Route("cancel", "POST", re.compile(r"/v1/chatkit/sessions/([^/]+)/cancel")),
)
OPERATIONS: Final[frozenset[Operation]] = frozenset(route.operation for route in _ROUTES)


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for.

    Attributes:
        operation: The operation that its verb and path name.
        session_id: The session in the path, percent-decoded; empty where the path has none.
    """

    operation: Operation
    session_id: str


def find_call(request: Request, served: Collection[Operation]) -> Call:
    """Find out what a request asks for.

    Args:
        request: The request; its query plays no part.
        served: The operations that the API offers.

    Raises:
        Refusal: 404 where no operation that is served has this path, 405 where one has, under
            another verb.
    """
    path = request.path.partition("?")[0]
    matches = [
        (route, match)
        for route in _ROUTES
        if route.operation in served and (match := route.path.fullmatch(path))
    ]
    if not matches:
        raise refusals.invalid_url(request.method, path)
    for route, match in matches:
        if route.method == request.method:
            return Call(route.operation, unquote("".join(match.groups())))
    raise refusals.invalid_method(request.method, path)


class FakeApi:
    """The sessions that were opened, and the answers to requests about them.

    Args:
        api_key: The only key that opens the API.
        workflow_id: The only workflow that there is.
        now: The time, in UTC.
        token_hex: A random text of twice as many hexadecimal digits as it is asked for.
    """

    def __init__(
        self,
        *,
        api_key: str,
        workflow_id: str,
        now: Callable[[], datetime],
        token_hex: Callable[[int], str],
    ) -> None:
        self._api_key = api_key
        self._workflow_id = workflow_id
        self._now = now
        self._token_hex = token_hex
        self._sessions: dict[str, FakeSession] = {}

    def sessions(self) -> dict[str, FakeSession]:
        """Return the latest 10,000 sessions by id, oldest first, as they stand now."""
        now = self._now()
        return {session_id: session.at(now) for session_id, session in self._sessions.items()}

    def answer(self, request: Request, served: Collection[Operation]) -> Response:
        """Carry out a request, or say why not.

        Args:
            request: The request.
            served: The operations that the API offers to it.
        """
        try:
            status_code, content = 200, self._carry_out(request, served)
        except Refusal as refusal:
            status_code, content = refusal.status_code, refusal.envelope()
        return self.respond(status_code, encode_json(content))

    def respond(self, status_code: int, body: bytes, headers: Headers | None = None) -> Response:
        """Dress an answer in the header fields that every answer of the API carries.

        Args:
            status_code: The HTTP status; 204 and 304 drop the body.
            body: The body.
            headers: Fields that are added, or take the place of the usual ones.
        """
        usual = {
            "content-type": "application/json",
            "date": format_datetime(self._now(), usegmt=True),
            "x-request-id": f"req_{self._token_hex(16)}",
        }
        if status_code in _STATUSES_WITHOUT_BODY:
            body = b""
        else:
            usual["content-length"] = str(len(body))
        return Response(status_code, Headers({**usual, **(headers or {})}.items()), body)

    def _carry_out(self, request: Request, served: Collection[Operation]) -> JsonValue:
        call = find_call(request, served)
        self._check_key(request)
        _check_beta(request)
        if call.operation == "create":
            return self._create(request.body)
        if call.operation == "refresh":
            return self._refresh(request.body)
        if call.operation == "get":
            return session_object(self._find(call.session_id), client_secret="")
        return self._cancel(call.session_id)

    def _check_key(self, request: Request) -> None:
        scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not api_key.strip():
            raise refusals.missing_api_key()
        if api_key.strip() != self._api_key:
            raise refusals.incorrect_api_key(api_key.strip())

    def _create(self, body: bytes) -> JsonValue:
        settings = read_create_body(body)
        if settings.workflow_id != self._workflow_id:
            raise refusals.workflow_not_found(settings.workflow_id)
        return self._open(settings)

    def _refresh(self, body: bytes) -> JsonValue:
        client_secret = read_refresh_body(body)
        now = self._now()
        for session in self._sessions.values():
            if session.client_secret == client_secret and session.at(now).status == "active":
                break
        else:
            raise refusals.ended_client_secret()
        self._sessions[session.id] = replace(session, status="cancelled")
        return self._open(session.settings, refreshed_from=session.id)

    def _cancel(self, session_id: str) -> JsonValue:
        session = self._find(session_id)
        if session.status == "active":
            session = replace(session, status="cancelled")
            self._sessions[session.id] = session
        return session_object(session, client_secret="")

    def _open(self, settings: SessionSettings, refreshed_from: str | None = None) -> JsonValue:
        # Whole seconds, because that is how the API writes the expiry.
        created_at = self._now().replace(microsecond=0)
        session = FakeSession(
            id=f"cksess_{self._token_hex(24)}",
            client_secret=f"ek_{self._token_hex(32)}",
            created_at=created_at,
            expires_at=created_at + timedelta(seconds=settings.expires_after),
            status="active",
            settings=settings,
            refreshed_from=refreshed_from,
        )
        self._sessions[session.id] = session
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session_object(session, client_secret=session.client_secret)

    def _find(self, session_id: str) -> FakeSession:
        if not session_id.startswith("cksess"):
            raise refusals.malformed_session_id(session_id)
        if session_id not in self._sessions:
            raise refusals.session_not_found(session_id)
        return self._sessions[session_id].at(self._now())


def _check_beta(request: Request) -> None:
    features = request.headers.get("openai-beta", "").split(",")
    if _BETA not in (feature.strip() for feature in features):
        raise refusals.missing_beta_header()
