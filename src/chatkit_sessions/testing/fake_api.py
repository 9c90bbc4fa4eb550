"""The API itself: from a request to an answer, without sockets, real time or real randomness."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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
    allowed = sorted({route.method for route, _ in matches})
    raise refusals.invalid_method(request.method, path, allowed=allowed)


@dataclass(slots=True)
class _Project:
    """Who sees the same workflows and sessions."""

    name: str
    api_keys: set[str] = field(default_factory=set[str], repr=False)
    workflow_ids: set[str] = field(default_factory=set[str])


class FakeApi:
    """The sessions that were opened, and the answers to requests about them.

    Args:
        now: The time, in UTC.
        token_hex: A random text of twice as many hexadecimal digits as it is asked for.
    """

    def __init__(self, *, now: Callable[[], datetime], token_hex: Callable[[int], str]) -> None:
        self._now = now
        self._token_hex = token_hex
        self._projects: dict[str, _Project] = {}
        self._sessions: dict[str, FakeSession] = {}

    def add_api_key(self, api_key: str, project: str) -> None:
        """Let a key open the API, for a project, which need not be there yet.

        Raises:
            ValueError: The key is another project's.
        """
        owner = self._owner_of(api_key)
        if owner is not None and owner.name != project:
            raise ValueError(f"the key is the project {owner.name}'s already")
        self._project(project).api_keys.add(api_key)

    def remove_api_key(self, api_key: str) -> None:
        """Let a key open nothing any more.

        Raises:
            ValueError: It does not open anything.
        """
        owner = self._owner_of(api_key)
        if owner is None:
            raise ValueError("there is no such key")
        owner.api_keys.remove(api_key)

    def add_workflow(self, workflow_id: str, project: str) -> None:
        """Let a project have a workflow."""
        self._project(project).workflow_ids.add(workflow_id)

    def remove_workflow(self, workflow_id: str, project: str) -> None:
        """Let a project have a workflow no more.

        Raises:
            ValueError: It has none of this id.
        """
        if workflow_id not in self._project(project).workflow_ids:
            raise ValueError(f"there is no workflow {workflow_id} in the project {project}")
        self._project(project).workflow_ids.remove(workflow_id)

    def expire(self, session_id: str) -> None:
        """Let an active session end now, as if its time had come.

        Raises:
            KeyError: There is no such session.
        """
        session = self._sessions[session_id]
        if session.status == "active":
            now = self._now().replace(microsecond=0)
            ended = replace(session, status="expired", expires_at=min(now, session.expires_at))
            self._sessions[session_id] = ended

    def forget(self, session_id: str) -> None:
        """Let there never have been a session.

        Raises:
            KeyError: There is no such session.
        """
        del self._sessions[session_id]

    def _project(self, name: str) -> _Project:
        return self._projects.setdefault(name, _Project(name))

    def _owner_of(self, api_key: str) -> _Project | None:
        owners = (each for each in self._projects.values() if api_key in each.api_keys)
        return next(owners, None)

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
            return self.respond(200, encode_json(self._carry_out(request, served)))
        except Refusal as refusal:
            body = encode_json(refusal.envelope())
            return self.respond(refusal.status_code, body, Headers(refusal.headers.items()))

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
        project = self._check_key(request)
        _check_beta(request)
        if call.operation == "create":
            return self._create(request.body, project)
        if call.operation == "refresh":
            return self._refresh(request.body, project)
        session = self._find(call.session_id, project)
        if call.operation == "cancel" and session.status == "active":
            session = replace(session, status="cancelled")
            self._sessions[session.id] = session
        return session_object(session, client_secret="")

    def _check_key(self, request: Request) -> _Project:
        scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not api_key.strip():
            raise refusals.missing_api_key()
        project = self._owner_of(api_key.strip())
        if project is None:
            raise refusals.incorrect_api_key(api_key.strip())
        return project

    def _create(self, body: bytes, project: _Project) -> JsonValue:
        settings = read_create_body(body)
        if settings.workflow_id not in project.workflow_ids:
            raise refusals.workflow_not_found(settings.workflow_id)
        return self._open(settings, project)

    def _refresh(self, body: bytes, project: _Project) -> JsonValue:
        client_secret = read_refresh_body(body)
        now = self._now()
        for session in self._sessions.values():
            is_it = (session.client_secret, session.project) == (client_secret, project.name)
            if is_it and session.at(now).status == "active":
                break
        else:
            raise refusals.ended_client_secret()
        self._sessions[session.id] = replace(session, status="cancelled")
        return self._open(session.settings, project, refreshed_from=session.id)

    def _open(
        self, settings: SessionSettings, project: _Project, refreshed_from: str | None = None
    ) -> JsonValue:
        # Whole seconds, because that is how the API writes the expiry.
        created_at = self._now().replace(microsecond=0)
        session = FakeSession(
            id=f"cksess_{self._token_hex(24)}",
            client_secret=f"ek_{self._token_hex(32)}",
            created_at=created_at,
            expires_at=created_at + timedelta(seconds=settings.expires_after),
            status="active",
            settings=settings,
            project=project.name,
            refreshed_from=refreshed_from,
        )
        self._sessions[session.id] = session
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session_object(session, client_secret=session.client_secret)

    def _find(self, session_id: str, project: _Project) -> FakeSession:
        if not session_id.startswith("cksess"):
            raise refusals.malformed_session_id(session_id)
        session = self._sessions.get(session_id)
        if session is None or session.project != project.name:
            raise refusals.session_not_found(session_id)
        return session.at(self._now())


def _check_beta(request: Request) -> None:
    features = request.headers.get("openai-beta", "").split(",")
    if _BETA not in (feature.strip() for feature in features):
        raise refusals.missing_beta_header()
