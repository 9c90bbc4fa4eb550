"""The service's decisions, on plain values: no store, no socket, no waiting."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal, NamedTuple, Self, TypeAlias
from urllib.parse import unquote

from pydantic import SecretStr

from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import REQUESTS, count_request
from chatkit_sessions._sessions.store_access import ScriptCall
from chatkit_sessions.stores.base import Entry, Transaction, value_of

from . import _error_responses as error_responses
from ._bodies import (
    JsonValue,
    SessionSettings,
    encode_json,
    parse_create_body,
    parse_refresh_body,
    parse_sign_out_body,
    session_object,
)
from ._error_responses import ErrorResponse
from ._records import (
    CARRIED,
    COUNT,
    GENERATION,
    REPLACEMENT,
    RETENTION,
    SESSION,
    Groups,
    IssuedSession,
    ServiceRecord,
    SessionStatus,
    StoredSession,
    digest,
)
from .errors import ClientSecretRateLimitError, InvalidClientSecretError

MAX_REQUEST_BODY: Final = 65_536
"""The most bytes of a request's body."""

_MAX_DIGITS: Final = 10
"""Enough to see that a length is too large: Python rejects integers of very many digits."""
_BETA: Final = "chatkit_beta=v1"
_STATUSES_WITHOUT_BODY: Final = (204, 304)
_ID_DIGITS: Final = 24
# The secret contains half of the id, so one look-up finds the session; the rest authenticates.
_NAME_IN_LIST: Final = re.compile(rf"session:([0-9a-f]{{{_ID_DIGITS}}})")
_MAX_IDS: Final = 10_000
"""The most ids in a response, so that clients can read it; they cancel the others themselves."""
_MINUTE: Final = 60.0
_DAY: Final = 86_400.0
_SECRET: Final = re.compile(rf"ek_([0-9a-f]{{{_ID_DIGITS}}})[0-9a-f]{{40}}")


class Headers(Mapping[str, str]):
    """HTTP headers. Look-ups ignore case; iteration returns lower-case names.

    The values of a repeated header are joined by commas. The repr shows the names only: a value
    may be an API key.

    Args:
        fields: Pairs of name and value.
    """

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            known = self._fields.get(name.lower())
            self._fields[name.lower()] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._fields)})"


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """A request as it arrived.

    Attributes:
        method: The verb, in upper case.
        path: The path, percent-encoded, with the query if there is one.
        headers: The headers.
        body: The body, without transfer coding.
    """

    method: str
    path: str
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # It may contain a client secret, and tracebacks show local variables.
        object.__setattr__(self, "body", MaskedBytes(self.body))


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """A response, ready to be sent.

    Attributes:
        status_code: The HTTP status.
        headers: All headers, except those of the connection.
        body: The complete body.
    """

    status_code: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)

    def with_header(self, name: str, value: str) -> Self:
        """Return the response with another header."""
        return replace(self, headers=Headers([*self.headers.items(), (name, value)]))

    def without_body(self) -> Self:
        """Return the response to HEAD: the same headers, no body."""
        return replace(self, body=b"")


Operation: TypeAlias = Literal["create", "refresh", "sign_out", "get", "cancel"]


@dataclass(frozen=True, slots=True)
class _Route:
    operation: Operation
    method: str
    path: re.Pattern[str]


_ROUTES: Final = (
    _Route("create", "POST", re.compile(r"/v1/chatkit/sessions")),
    _Route("refresh", "POST", re.compile(r"/v1/chatkit/sessions/refresh")),
    _Route("sign_out", "POST", re.compile(r"/v1/chatkit/sessions/cancel")),
    _Route("get", "GET", re.compile(r"/v1/chatkit/sessions/(?!(?:refresh|cancel)\Z)([^/]+)")),
    _Route("cancel", "POST", re.compile(r"/v1/chatkit/sessions/([^/]+)/cancel")),
)
OPERATIONS: Final[frozenset[Operation]] = frozenset(route.operation for route in _ROUTES)
EXTENSIONS: Final[frozenset[Operation]] = OPERATIONS - {"create", "cancel"}
"""The operations that OpenAI's API does not have."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request's operation and session.

    Attributes:
        operation: The operation of its method and path.
        session_id: The session id in the path, percent-decoded; empty if the path has none.
    """

    operation: Operation
    session_id: str


class Screened(NamedTuple):
    """A request whose route, API key and headers are right."""

    call: Call
    project: str


class CreateTask(NamedTuple):
    """Create a session."""

    settings: SessionSettings
    project: str


class RefreshTask(NamedTuple):
    """Replace the session of a secret."""

    client_secret: SecretStr
    project: str


class ReadTask(NamedTuple):
    """Return a session, after cancelling it if `cancel` is true."""

    session_id: str
    project: str
    cancel: bool


class SignOutTask(NamedTuple):
    """End all sessions of a user."""

    user: str
    project: str


class Audience(NamedTuple):
    """Whose sessions are accepted; None: those of any workflow, or any project."""

    workflow_id: str | None = None
    project: str | None = None


Task: TypeAlias = CreateTask | RefreshTask | ReadTask | SignOutTask


def describe_workflows(workflows: Collection[str]) -> str:
    """The workflows of a service, as a sentence of an error's."""
    known = ", ".join(map(repr, sorted(workflows)))
    return f"This service's `workflows` are {known or 'empty'}."


class SessionRules:
    """The rules of one service.

    Args:
        namespace: The store's namespace.
        find_project: Returns an API key's project; None if the key is unknown.
        workflows_of: Returns the workflow ids of a project, or of any for None; None: any id.
        clock: For tests: returns the current time, in UTC; None: that of the store.
        token_hex: Returns random text, with two hexadecimal digits per byte of its argument.
        user_limit: Requests a minute of all of a user's sessions; None: no limit.
        max_body: The most bytes of a request's body; None: no limit.
        as_openai: Whether messages are OpenAI's, word for word; otherwise they name the settings.
    """

    def __init__(
        self,
        *,
        namespace: str,
        find_project: Callable[[SecretStr], str | None],
        workflows_of: Callable[[str | None], Collection[str] | None],
        clock: Callable[[], datetime] | None,
        token_hex: Callable[[int], str],
        user_limit: int | None = None,
        max_body: int | None = MAX_REQUEST_BODY,
        as_openai: bool = False,
    ) -> None:
        self._groups = Groups(namespace)
        self._find_project = find_project
        self._workflows_of = workflows_of
        self.clock: Final = clock
        self._token_hex = token_hex
        self._user_limit = user_limit
        self._max_body = max_body
        self._as_openai = as_openai

    def screen(
        self, request: ServiceRequest, served: Collection[Operation], *, project: str | None = None
    ) -> Screened:
        """Check what needs no body: route, API key and headers.

        Args:
            request: The request, whose body may be missing.
            served: The operations that the service offers.
            project: The request's project; None: that of its API key.

        Raises:
            ErrorResponse: The request is invalid.
        """
        call = find_call(request, served)
        if project is None:
            project = self._project_of(request)
        _require_beta_header(request)
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            self._require_bounded(int(length[:_MAX_DIGITS]))
        return Screened(call, project)

    def parse(self, screened: Screened, body: bytes) -> Task:
        """Parse a request into a task.

        Raises:
            ErrorResponse: The request is invalid.
        """
        call, project = screened
        self._require_bounded(len(body))
        if call.operation == "create":
            settings = parse_create_body(body)
            known = self._workflows_of(project)
            if known is not None and settings.workflow_id not in known:
                advice = "" if self._as_openai else f" {describe_workflows(known)}"
                raise error_responses.workflow_not_found(settings.workflow_id, advice)
            return CreateTask(settings, project)
        if call.operation == "refresh":
            return RefreshTask(parse_refresh_body(body), project)
        if call.operation == "sign_out":
            return SignOutTask(parse_sign_out_body(body), project)
        if not call.session_id.startswith("cksess"):
            raise error_responses.malformed_session_id(call.session_id)
        return ReadTask(call.session_id, project, cancel=call.operation == "cancel")

    def _require_bounded(self, length: int) -> None:
        if self._max_body is not None and length > self._max_body:
            raise error_responses.request_too_large(self._max_body)

    def _project_of(self, request: ServiceRequest) -> str:
        api_key = bearer_token(request.headers.get("authorization"))
        if api_key is None:
            raise error_responses.missing_api_key()
        project = self._find_project(api_key)
        if project is None:
            raise error_responses.incorrect_api_key(
                api_key.get_secret_value(), as_openai=self._as_openai
            )
        return project

    # What is in the store.

    def group_of_session(self, session_id: str) -> str:
        """The group of a session's id."""
        return self._groups.find(_digits(session_id))

    def group_of_secret(self, client_secret: SecretStr) -> str | None:
        """The group of a secret's session; None if the secret is malformed."""
        match = _SECRET.fullmatch(client_secret.get_secret_value())
        return None if match is None else self._groups.find(match[1])

    def group_of_user(self, project: str, user: str) -> str:
        """The group of a user's list of sessions."""
        return self._groups.find_user(project, user)

    # By the clock of the store: those of the machines need not agree.

    def now(self, store_time: float | None = None) -> datetime:
        """The current time.

        Args:
            store_time: The store's, in Unix seconds; None: the store shows none.
        """
        if self.clock is not None:
            return self.clock()
        return datetime.now(UTC) if store_time is None else datetime.fromtimestamp(store_time, UTC)

    def time_of(self, session: StoredSession) -> datetime:
        """The time when a session was read."""
        return session.read_at if self.clock is None else self.clock()

    def status(self, session: StoredSession) -> SessionStatus:
        """The session's status when it was read."""
        return session.record.status(self.time_of(session))

    def issue(
        self,
        settings: SessionSettings,
        project: str,
        *,
        now: datetime,
        refreshed_from: str | None = None,
    ) -> IssuedSession:
        """Make a session with a new secret."""
        digits = self._token_hex(24)
        client_secret = SecretStr(f"ek_{digits[:_ID_DIGITS]}{self._token_hex(20)}")
        created_at = int(now.timestamp())  # the API writes whole seconds
        record = ServiceRecord(
            id=f"cksess_{digits}",
            secret_digest=digest(client_secret),
            created_at=created_at,
            expires_at=created_at + settings.expires_after,
            cancelled=False,
            project=project,
            settings=settings,
            refreshed_from=refreshed_from,
        )
        return IssuedSession(record, client_secret, now)

    def open(
        self, issued: IssuedSession, requests: Entry | None, *, store_time: float | None
    ) -> Transaction:
        """Store a new session.

        Args:
            issued: The session.
            requests: Those of the session before it.
            store_time: When it was issued, by the clock that entries expire by; None: unknown. A
                change that is made late does not prolong the session then.
        """
        record = issued.record
        seconds = record.expires_at - issued.issued_at.timestamp() + RETENTION
        ends = None if store_time is None else store_time + seconds
        entry = Entry(record.encode(), seconds, expires_at=ends, retention=RETENTION)
        changes = {SESSION: entry, REQUESTS: requests}
        # Only once: an attempt that arrives late must not revive what a sign-out has cancelled.
        return Transaction(self.group_of_session(record.id), changes, {SESSION: None})

    def forget(self, record: ServiceRecord) -> Transaction:
        """Remove a session."""
        changes = {SESSION: None, REQUESTS: None}
        return Transaction(self.group_of_session(record.id), changes, {})

    def unlist(self, record: ServiceRecord) -> Transaction:
        """Remove a session from its user's list."""
        return Transaction(self._group_of(record), {_name_in_list(record): None}, {})

    def list_session(
        self,
        record: ServiceRecord,
        generation: Entry | None,
        *,
        replaces: ServiceRecord | None = None,
    ) -> Transaction:
        """List a session for the next sign-out to end, before its secret is returned to anybody.

        Args:
            record: The session.
            generation: The user's generation, as it was read before.
            replaces: The session that it replaces by a refresh. The condition is then that the
                user's generation has not changed: a sign-out ends both.
        """
        value = MaskedBytes(b"-") if generation is None else generation.value
        seconds = record.settings.expires_after + RETENTION
        listed = Entry(value, seconds, listed=True, retention=RETENTION)
        changes: dict[str, Entry | None] = {_name_in_list(record): listed}
        when: dict[str, bytes | None] = {}
        if replaces is not None:
            changes[_name_in_list(replaces)] = None
            when[GENERATION] = value_of(generation)
        return Transaction(self._group_of(record), changes, when)

    def sign_out(self, project: str, user: str) -> Transaction:
        """Begin a new generation: no session of an earlier one is refreshed from now on."""
        generation = Entry(MaskedBytes(self._token_hex(16).encode()), _DAY)
        return Transaction(self.group_of_user(project, user), {GENERATION: generation}, {})

    def mark(self, project: str, user: str) -> Transaction:
        """Write an entry that nobody reads: replicas that have it have all earlier changes."""
        return Transaction(
            self.group_of_user(project, user), {"mark": Entry(MaskedBytes(b"1"), 1.0)}, {}
        )

    def names_for_refresh(self, record: ServiceRecord) -> tuple[str, Sequence[str]]:
        """Return the group and names of the entries that `require_signed_in` needs."""
        return self._group_of(record), (GENERATION, _name_in_list(record))

    def require_signed_in(
        self, record: ServiceRecord, generation: Entry | None, listed: Entry | None
    ) -> None:
        """Reject the refresh of a session from before the user's last sign-out.

        Raises:
            InvalidClientSecretError: It is from before, though it may not be cancelled yet.
        """
        if generation is not None and (listed is None or listed.value != generation.value):
            raise InvalidClientSecretError("cancelled", record.id)

    def listed_sessions(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """The entries with the sessions of a list and their requests, in turn."""
        found = (match[1] for name in names if (match := _NAME_IN_LIST.fullmatch(name)))
        return [(self._groups.find(each), name) for each in found for name in (SESSION, REQUESTS)]

    def active_sessions(
        self, entries: Sequence[Entry | None], *, project: str, user: str
    ) -> list[tuple[StoredSession, Entry | None]]:
        """The user's active sessions, each with its requests, among what is listed."""
        pairs = zip(map(StoredSession.parse, entries[::2]), entries[1::2], strict=True)
        return [
            (session, requests)
            for session, requests in pairs
            if session is not None
            and (session.record.project, session.record.settings.user) == (project, user)
            and self.status(session) == "active"
        ]

    def carry(self, record: ServiceRecord, requests: Entry) -> Transaction:
        """Keep the requests of a session that ends, for the user's next one."""
        return Transaction(self._group_of(record), {CARRIED: requests}, {})

    def _group_of(self, record: ServiceRecord) -> str:
        return self.group_of_user(record.project, record.settings.user)

    def cancel(self, session: StoredSession, requests: Entry | None) -> Transaction:
        """Cancel a session, if neither it nor the count of its requests has changed."""
        group, changes, when = self.rewrite(session, replace(session.record, cancelled=True))
        return Transaction(group, changes, {**when, REQUESTS: value_of(requests)})

    def cancel_for(
        self, replacement: ServiceRecord, session: StoredSession, requests: Entry | None
    ) -> Transaction:
        """The same for a refresh, which is to know its own change: a store may make it twice."""
        group, changes, when = self.cancel(session, requests)
        name = Entry(MaskedBytes(replacement.id.encode()), _MINUTE)
        return Transaction(group, {**changes, REPLACEMENT: name}, when)

    @staticmethod
    def is_replacement(record: ServiceRecord, entry: Entry | None) -> bool:
        """Whether that entry of a cancelled session names this one."""
        return entry is not None and entry.value == record.id.encode()

    def rewrite(self, session: StoredSession, record: ServiceRecord) -> Transaction:
        """Replace the record of a session that has ended, if the session has not changed."""
        entry = Entry(record.encode(), session.entry.seconds, retention=session.entry.seconds)
        changes = {SESSION: entry, REQUESTS: None}
        return Transaction(
            self.group_of_session(record.id), changes, {SESSION: session.entry.value}
        )

    def count(self, session: StoredSession, requests: Entry | None) -> Transaction:
        """Count a request, if neither the session nor the count of its requests has changed.

        Raises:
            ClientSecretRateLimitError: The session has reached its rate limit.
        """
        record, entry = session
        counted = _counted(requests, record, limit=record.settings.max_requests_per_1_minute)
        when = {SESSION: entry.value, REQUESTS: value_of(requests)}
        return Transaction(self.group_of_session(record.id), {REQUESTS: counted}, when)

    def group_of_counted_user(self, record: ServiceRecord) -> str | None:
        """Where the requests of the session's user are counted; None: without a limit."""
        if self._user_limit is None:
            return None
        return self._group_of(record)

    def count_for_user(
        self, session: StoredSession, group: str, requests: Entry | None
    ) -> Transaction:
        """Count a request of the session's user, if the count has not changed.

        Raises:
            ClientSecretRateLimitError: The user has reached the limit.
        """
        counted = _counted(requests, session.record, limit=self._user_limit or 1)
        return Transaction(group, {REQUESTS: counted}, {REQUESTS: value_of(requests)})

    def authenticate(
        self, entry: Entry | None, client_secret: SecretStr, audience: Audience
    ) -> StoredSession:
        """Check a secret against the stored session.

        Raises:
            InvalidClientSecretError: The secret is unknown, for another audience, expired or
                cancelled.
        """
        session = StoredSession.parse(entry)
        if session is None or not session.record.has_secret(client_secret):
            raise InvalidClientSecretError("unknown")
        if not self._is_for(audience, session.record):
            raise InvalidClientSecretError("unknown", session.record.id)
        status = self.status(session)
        if status != "active":
            raise InvalidClientSecretError(status, session.record.id)
        return session

    def count_in_store(
        self, group: str, client_secret: SecretStr, audience: Audience
    ) -> ScriptCall | None:
        """`authenticate` and `count` in one call, for a store that runs it.

        None: the service limits users, too, whose count is in another group.
        """
        if self._user_limit is not None:
            return None
        known = self._workflows_of(audience.project)
        if audience.workflow_id is not None:
            known = [audience.workflow_id]
        arguments: list[str | bytes | int] = [
            digest(client_secret),
            "" if self.clock is None else repr(self.clock().timestamp()),
            int(RETENTION * 1000),
            b"" if audience.project is None else _bytes(f"={audience.project}"),
            *(["any"] if known is None else ["of", *map(_bytes, known)]),
        ]
        return ScriptCall(COUNT, group, (SESSION, REQUESTS), arguments)

    def is_counted(self, session: StoredSession, wait: bytes | int | None) -> bool:
        """Whether the store has counted a request; no if it does not know such a record.

        Args:
            session: The session, authenticated.
            wait: What `count_in_store` returned last: the seconds until there is room.

        Raises:
            ClientSecretRateLimitError: The session has reached its rate limit.
        """
        if wait is not None and float(wait) > 0:
            raise ClientSecretRateLimitError(float(wait), session.record.id)
        return wait is not None

    def _is_for(self, audience: Audience, record: ServiceRecord) -> bool:
        workflow_id, project = record.settings.workflow_id, record.project
        known = self._workflows_of(project)
        return (
            (known is None or workflow_id in known)  # it may have been removed since
            and audience.workflow_id in {None, workflow_id}
            and audience.project in {None, project}
        )

    def require_visible(self, entry: Entry | None, task: ReadTask) -> StoredSession:
        """Return the session to read or cancel.

        Raises:
            ErrorResponse: The session is unknown, or of another project.
        """
        session = StoredSession.parse(entry)
        wanted = (task.session_id, task.project)
        if session is None or (session.record.id, session.record.project) != wanted:
            raise error_responses.session_not_found(task.session_id)
        return session

    # Responses.

    def succeed(
        self, record: ServiceRecord, client_secret: SecretStr | None = None, *, now: datetime
    ) -> ServiceResponse:
        """Return the response with a session; only a new session's has the secret."""
        shown = "" if client_secret is None else client_secret.get_secret_value()
        return self._respond_json(200, session_object(record, now, client_secret=shown), now=now)

    def succeed_in_sign_out(self, user: str, ended: Sequence[str]) -> ServiceResponse:
        """Return the response to a sign-out, with the ids of sessions that it has ended."""
        ids: list[JsonValue] = [*ended[:_MAX_IDS]]
        return self._respond_json(
            200, {"object": "chatkit.user", "user": user, "cancelled_sessions": ids}
        )

    def respond_error(self, error_response: ErrorResponse) -> ServiceResponse:
        """Return the response that rejects a request."""
        headers = Headers(error_response.headers.items())
        return self._respond_json(error_response.status_code, error_response.envelope(), headers)

    def _respond_json(
        self,
        status_code: int,
        content: JsonValue,
        headers: Headers | None = None,
        *,
        now: datetime | None = None,
    ) -> ServiceResponse:
        return self.respond(status_code, encode_json(content), headers, now=now)

    def respond(
        self,
        status_code: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        now: datetime | None = None,
    ) -> ServiceResponse:
        """Return a response with the common headers.

        Args:
            status_code: The HTTP status; 204 and 304 have no body.
            body: The body.
            headers: Additional headers, or other values for the common ones.
            now: The time of the response; None: that of this machine.
        """
        usual = {
            "cache-control": "no-store",  # the body may hold a client secret
            "content-type": "application/json",
            "date": format_datetime(now or self.now(), usegmt=True),
            "x-request-id": f"req_{self._token_hex(16)}",
        }
        if status_code in _STATUSES_WITHOUT_BODY:
            body = b""
        else:
            usual["content-length"] = str(len(body))
        return ServiceResponse(status_code, Headers({**usual, **(headers or {})}.items()), body)


def find_call(request: ServiceRequest, served: Collection[Operation]) -> Call:
    """Find a request's operation.

    Args:
        request: The request; its query is ignored.
        served: The operations that the service offers.

    Raises:
        ErrorResponse: 404 if no offered operation has this path, 405 if one has it with another
            method.
    """
    path = request.path.partition("?")[0]
    matches = [
        (route, match)
        for route in _ROUTES
        if route.operation in served and (match := route.path.fullmatch(path))
    ]
    if not matches:
        raise error_responses.invalid_url(request.method, path)
    for route, match in matches:
        if route.method == request.method:
            return Call(route.operation, unquote("".join(match.groups())))
    allowed = sorted({route.method for route, _ in matches})
    raise error_responses.invalid_method(request.method, path, allowed=allowed)


def bearer_token(authorization: str | None) -> SecretStr | None:
    """Parse the value of an `Authorization` header; None if it has no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip(" \t")  # HTTP knows no other white space
    return SecretStr(token) if scheme.lower() == "bearer" and token else None


def _name_in_list(record: ServiceRecord) -> str:
    return f"session:{_digits(record.id)}"


def _digits(session_id: str) -> str:
    return session_id.removeprefix("cksess_")[:_ID_DIGITS]


def _bytes(text: str) -> bytes:
    """Encode text of the application, which may hold a lone surrogate."""
    return text.encode("utf-8", "surrogatepass")


def _counted(requests: Entry | None, record: ServiceRecord, *, limit: int) -> Entry:
    counted = count_request(requests, limit=limit)
    if not isinstance(counted, Entry):
        raise ClientSecretRateLimitError(counted, record.id)
    return counted


def _require_beta_header(request: ServiceRequest) -> None:
    features = request.headers.get("openai-beta", "").split(",")
    if _BETA not in (feature.strip(" \t") for feature in features):
        raise error_responses.missing_beta_header()
