"""The local API, for tests and development servers.

Sessions and responses are those of `chatkit_sessions.service`; here is what tests arrange and see.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import TYPE_CHECKING, Final, Self

from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions.service._flow import ServiceFlow
from chatkit_sessions.service._records import SESSION, SessionStatus, StoredSession
from chatkit_sessions.service._rules import OPERATIONS, Operation, SessionRules
from chatkit_sessions.stores.memory import MemorySessionStore

from .faults import LOSES_THE_REQUEST, PlannedFailure, make_failure, take_failure
from .wire import FakeResponse, RecordedRequest, ServiceRequest, decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from chatkit_sessions import AsyncChatKitClient, ChatKitClient
    from chatkit_sessions.service._bodies import SessionSettings, StateValue
    from chatkit_sessions.service._records import ServiceRecord

    from .faults import Fault
    from .httpx2_transport import FakeHTTPX2Transport
    from .transport import FakeTransport

__all__ = ["FakeChatKit", "FakeClock", "FakeServer", "FakeSession", "Operation"]

PROJECT: Final = "proj_test"
"""The project of the first key and workflow."""
IN_PROCESS_URL: Final = "https://chatkit.test/v1"
"""The base URL of clients in process. Nothing connects to it: the transport responds."""
MAX_REQUESTS: Final = 10_000
MAX_SESSIONS: Final = 10_000


class FakeClock:
    """A clock that a test moves forward instead of waiting.

    Args:
        start: Where the clock stands still, except for `advance`; must be aware. By default, the
            clock runs on real time plus whatever it was advanced.

    Raises:
        ValueError: `start` has no time zone.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None and start.utcoffset() is None:
            raise ValueError("start must be an aware datetime, such as datetime.now(UTC)")
        self._start = None if start is None else start.astimezone(UTC)
        self._advanced = timedelta()

    def now(self) -> datetime:
        """Return the clock's time, in UTC."""
        return (self._start or datetime.now(UTC)) + self._advanced

    def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Move the clock forward by the sum of the arguments.

        Raises:
            ValueError: The sum is negative. Expired sessions would become active again.
        """
        step = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if step < timedelta():
            raise ValueError(f"a clock only moves forward, not by {step.total_seconds()} seconds")
        self._advanced += step


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSession:
    """A session at one moment.

    Attributes:
        id: `cksess_` and 48 hexadecimal digits.
        client_secret: The secret, in plain text.
        created_at: When it was created, in UTC, to the second.
        expires_at: When it expires, in UTC, to the second.
        status: `active`, `expired` or `cancelled`.
        settings: The requested settings, with the API's defaults for omitted ones.
        project: The project of the key that it was created with.
        refreshed_from: The id of the session that it replaced by a refresh; None without one.
    """

    id: str
    client_secret: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    status: SessionStatus
    settings: SessionSettings
    project: str = "proj_test"
    refreshed_from: str | None = None

    @classmethod
    def of(cls, record: ServiceRecord, client_secret: str, now: datetime) -> Self:
        """The session of a record, with its current status."""
        return cls(
            id=record.id,
            client_secret=client_secret,
            created_at=datetime.fromtimestamp(record.created_at, UTC),
            expires_at=datetime.fromtimestamp(record.expires_at, UTC),
            status=record.status(now),
            settings=record.settings,
            project=record.project,
            refreshed_from=record.refreshed_from,
        )

    @property
    def user(self) -> str:
        """The end user's id, from the backend."""
        return self.settings.user

    @property
    def workflow_id(self) -> str:
        """The session's workflow."""
        return self.settings.workflow_id

    @property
    def workflow_version(self) -> str | None:
        """The workflow's version; None: the latest deployed one."""
        return self.settings.workflow_version

    @property
    def state_variables(self) -> Mapping[str, StateValue] | None:
        """The backend's values for the workflow; None if it passed none."""
        return self.settings.state_variables


@dataclass(frozen=True, slots=True)
class FakeServer:
    """A local API that is served over HTTP.

    Attributes:
        url: The base URL, which ends in `/v1`.
        fake: The local API.
    """

    url: str
    fake: FakeChatKit

    @property
    def api_key(self) -> str:
        """The API key."""
        return self.fake.api_key

    @property
    def workflow_id(self) -> str:
        """The workflow id."""
        return self.fake.workflow_id

    @property
    def environment(self) -> dict[str, str]:
        """The variables that let a `ChatKitClient()` without arguments use this server."""
        return {
            "OPENAI_API_KEY": self.api_key,
            "OPENAI_CHATKIT_WORKFLOW_ID": self.workflow_id,
            "OPENAI_BASE_URL": self.url,
        }


class FakeChatKit:
    """ChatKit's sessions API, imitated in memory, and safe to call from several threads.

    It keeps the latest 10,000 requests and the latest 10,000 sessions. As a context manager, it
    closes at the end the clients that it made.

    Args:
        api_key: The key that opens the API, for the project `proj_test`.
        workflow_id: The workflow that this project has.
        refresh_route: Whether `POST /chatkit/sessions/refresh` is there. OpenAI's published
            contract does not have it.
        read_route: Whether `GET /chatkit/sessions/{id}` is there. Some servers compatible with
            ChatKit have it, the published contract does not.
        sign_out_route: Whether `POST /chatkit/sessions/cancel` is there, which ends all sessions of
            a user. Only the sessions service of this library has it.
        clock: What sessions expire by. Default: real time, plus what the clock is advanced.

    Attributes:
        refresh_route: As above; may be changed at any time.
        read_route: As above; may be changed at any time.
        sign_out_route: As above; may be changed at any time.
        clock_skew: How far the API's clock is ahead of `clock`, or behind it where this is less
            than zero; none to begin with. May be changed at any time.
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-test",
        workflow_id: str = "wf_test",
        refresh_route: bool = True,
        read_route: bool = False,
        sign_out_route: bool = False,
        clock: FakeClock | None = None,
    ) -> None:
        self.refresh_route = refresh_route
        self.read_route = read_route
        self.sign_out_route = sign_out_route
        self.clock_skew: timedelta = timedelta()
        self._api_key = api_key
        self._workflow_id = workflow_id
        self._clock = clock or FakeClock()
        self._projects = {api_key: PROJECT}
        self._workflows = {(PROJECT, workflow_id)}
        self._secrets: dict[str, str] = {}  # by session, the oldest first
        # Time stands still in it, so nothing expires; what is too old is forgotten.
        self._store = MemorySessionStore(max_entries=10 * MAX_SESSIONS, clock=lambda: 0.0)
        self._rules = SessionRules(
            namespace="",
            find_project=lambda api_key: self._projects.get(api_key.get_secret_value()),
            workflows_of=lambda project: {
                id_ for owner, id_ in self._workflows if project in {None, owner}
            },
            clock=self._now,
            token_hex=secrets.token_hex,
            max_body=None,  # the contract has no bound
            as_openai=True,
        )
        self._flow = ServiceFlow(self._store, self._rules)
        self._clients: list[ChatKitClient | AsyncChatKitClient] = []
        self._requests: deque[RecordedRequest] = deque(maxlen=MAX_REQUESTS)
        self._failures: list[PlannedFailure] = []
        self._lock = RLock()  # a rule of `fail_next` may look at the API

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._clients:
            # In whatever event loop: neither kind holds a socket.
            self._clients.pop()._sessions.calls.lifetime.close()  # noqa: SLF001 -- one package

    @property
    def api_key(self) -> str:
        """The key from the constructor."""
        return self._api_key

    @property
    def workflow_id(self) -> str:
        """The workflow id from the constructor."""
        return self._workflow_id

    @property
    def clock(self) -> FakeClock:
        """The clock by which sessions expire."""
        return self._clock

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests so far, oldest first, rejected ones included."""
        with self._lock:
            return tuple(self._requests)

    @property
    def sessions(self) -> Mapping[str, FakeSession]:
        """The sessions so far by id, oldest first, with their current status."""
        with self._lock:
            return {
                session_id: FakeSession.of(
                    self._find(session_id).record, client_secret, self._now()
                )
                for session_id, client_secret in self._secrets.items()
            }

    def add_api_key(self, api_key: str, *, project: str = PROJECT) -> None:
        """Add an API key.

        Args:
            api_key: The key.
            project: The key's project. A project sees neither the workflows nor the sessions of
                another one.

        Raises:
            ValueError: The key belongs to another project.
        """
        with self._lock:
            owner = self._projects.setdefault(api_key, project)
            if owner != project:
                raise ValueError(f"the key is the project {owner}'s already")

    def remove_api_key(self, api_key: str) -> None:
        """Revoke a key: from now on, the API rejects it with 401.

        Raises:
            ValueError: There is no such key.
        """
        with self._lock:
            if self._projects.pop(api_key, None) is None:
                raise ValueError("there is no such key")

    def add_workflow(self, workflow_id: str, *, project: str = PROJECT) -> None:
        """Add a workflow to a project."""
        with self._lock:
            self._workflows.add((project, workflow_id))

    def remove_workflow(self, workflow_id: str, *, project: str = PROJECT) -> None:
        """Remove a workflow: from now on, creating a session for it is rejected with 404.

        Raises:
            ValueError: The project has no such workflow.
        """
        with self._lock:
            if (project, workflow_id) not in self._workflows:
                raise ValueError(f"there is no workflow {workflow_id} in the project {project}")
            self._workflows.remove((project, workflow_id))

    def expire(self, session_id: str) -> None:
        """Let a session expire now.

        Raises:
            KeyError: The session does not exist.
        """
        with self._lock:
            session, now = self._find(session_id), self._now()
            if session.record.status(now) == "active":
                ended = min(int(now.timestamp()), session.record.expires_at)
                expired = replace(session.record, expires_at=ended)
                group, changes, when = self._rules.rewrite(session, expired)
                self._store.commit(group, changes, when=when)

    def forget(self, session_id: str) -> None:
        """Forget a session: the API rejects requests for it as not found.

        Raises:
            KeyError: There is no such session.
        """
        with self._lock:
            del self._secrets[session_id]
            record = self._find(session_id).record
            for group, changes, when in (self._rules.forget(record), self._rules.unlist(record)):
                self._store.commit(group, changes, when=when)

    def assert_created(self, *, user: str | None = None, times: int | None = None) -> None:
        """Check which sessions were created; those that came from a refresh do not count.

        Args:
            user: Whose sessions to count. Default: everybody's.
            times: How many there must be. Default: at least one.

        Raises:
            AssertionError: There are more or fewer. Its message says how many each user has.
        """
        __tracebackhide__ = True  # pytest then shows the line of the test
        sessions = [each for each in self.sessions.values() if each.refreshed_from is None]
        _assert_count("created", sessions, user, times)

    def assert_refreshed(self, *, user: str | None = None, times: int | None = None) -> None:
        """Check how many sessions the refresh route returned.

        A session that a client created because the refresh failed does not count.

        Args:
            user: Whose sessions to count. Default: everybody's.
            times: How many there must be. Default: at least one.

        Raises:
            AssertionError: The number differs. The message has each user's number.
        """
        __tracebackhide__ = True
        sessions = [each for each in self.sessions.values() if each.refreshed_from is not None]
        _assert_count("refreshed", sessions, user, times)

    def assert_deleted(self, *, user: str | None = None, times: int | None = None) -> None:
        """Check how many sessions were deleted; refreshed and expired sessions do not count.

        Args:
            user: Whose sessions to count. Default: everybody's.
            times: How many there must be. Default: at least one.

        Raises:
            AssertionError: The number differs. The message has each user's number.
        """
        __tracebackhide__ = True
        sessions = self.sessions.values()
        replaced = {each.refreshed_from for each in sessions}
        deleted = [e for e in sessions if e.status == "cancelled" and e.id not in replaced]
        _assert_count("deleted", deleted, user, times)

    def fail_next(
        self,
        status_code: int | None = None,
        *,
        fault: Fault | None = None,
        message: str | None = None,
        type: str | None = None,  # noqa: A002 - the name of the field in the API's errors
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        times: int | None = 1,
        operation: Operation | None = None,
        when: Callable[[RecordedRequest], bool] | None = None,
    ) -> None:
        """Let one of the next requests fail. The request is recorded all the same.

        With `status_code`, the response is another one: `body`, or the API's error envelope,
        made of `message`, `type`, `code` and `param`. With `fault`, the connection fails. Failures
        are used up in the order in which they were set.

        The faults, and what they are in process, where nothing waits:

        - `reset`: the connection is reset; `httpx.ReadError`.
        - `hang`: no response until the client goes; `httpx.ReadTimeout`.
        - `drip`: a byte each tenth of a second; `httpx.ReadTimeout` after a byte.
        - `truncate`: half of the body, then the end; `httpx.RemoteProtocolError`.
        - `oversize`: the response and 64 MiB of white space; the same.

        `reset` and `hang` lose the request; with the others, the API has done what was asked.

        Args:
            status_code: The HTTP status, 200 to 599. Exactly one of this and `fault` is given.
            fault: What goes wrong with the connection; the arguments from `message` to `body` are
                for `status_code` alone.
            message: What the error says. Default: what usually comes with the status.
            type: The class of error. Default: what usually comes with the status.
            code: The error's short name, or None for null.
            param: The field to blame, or None for null.
            headers: Fields that are added, or take the place of the usual ones.
            body: A body to send as it is, such as a proxy's HTML page. Its `content-type` is
                `text/html` unless `headers` has another.
            times: How many requests fail so, 1 or more; None: all, until `recover`.
            operation: Which requests fail so. Default: any.
            when: Returns whether a request fails so. Default: any does.

        Raises:
            ValueError: `status_code`, `fault` or `times` is out of bounds, or the arguments do not
                go together.
        """
        failure = make_failure(
            status_code,
            fault=fault,
            error={"message": message, "type": type, "code": code, "param": param},
            headers=headers,
            body=body,
            times=times,
            operation=operation,
            when=when,
        )
        with self._lock:
            self._failures.append(failure)

    def recover(self) -> None:
        """Remove all failures that `fail_next` has set."""
        with self._lock:
            self._failures.clear()

    def handle(self, request: ServiceRequest) -> FakeResponse:
        """Record a request and respond to it.

        Args:
            request: The request, from a server or an HTTP transport.
        """
        with self._lock:
            recorded = RecordedRequest(request.method, request.path, request.headers, request.body)
            self._requests.append(recorded)
            failure = take_failure(self._failures, recorded)
            fault = failure.fault if failure else None
            if failure is None or (fault is not None and fault not in LOSES_THE_REQUEST):
                whole = run_blocking(self._flow.handle, request, self._served())
                self._remember_secret(whole.body)
            else:
                whole = self._rules.respond(failure.status_code, failure.body, failure.headers)
        response = FakeResponse(whole.status_code, whole.headers, whole.body, fault)
        return response.without_body() if request.method == "HEAD" else response

    def client(
        self, *, api_key: str | None = None, workflow_id: str | None = None, max_retries: int = 2
    ) -> ChatKitClient:
        """Make a client of the library that calls this API in process.

        The client takes the time from `clock`. It never waits before another attempt; it advances
        the clock instead.

        Args:
            api_key: Another key than `api_key` of this.
            workflow_id: Another workflow than `workflow_id` of this.
            max_retries: Attempts after a failed first one, 0 or more.
        """
        import httpx  # noqa: PLC0415 -- the API itself needs neither

        from chatkit_sessions import ChatKitClient  # noqa: PLC0415 -- as above

        client = ChatKitClient(
            api_key=api_key or self.api_key,
            workflow_id=workflow_id or self.workflow_id,
            base_url=IN_PROCESS_URL,
            max_retries=max_retries,
            http_client=httpx.Client(transport=self.transport()),
            clock=self.clock.now,
        )
        self._adopt(client)
        return client

    def async_client(
        self, *, api_key: str | None = None, workflow_id: str | None = None, max_retries: int = 2
    ) -> AsyncChatKitClient:
        """Make an asynchronous client that calls this API in process, as `client` does."""
        import httpx  # noqa: PLC0415 -- as above

        from chatkit_sessions import AsyncChatKitClient  # noqa: PLC0415 -- as above

        client = AsyncChatKitClient(
            api_key=api_key or self.api_key,
            workflow_id=workflow_id or self.workflow_id,
            base_url=IN_PROCESS_URL,
            max_retries=max_retries,
            http_client=httpx.AsyncClient(transport=self.transport()),
            clock=self.clock.now,
        )
        self._adopt(client)
        return client

    def _adopt(self, client: ChatKitClient | AsyncChatKitClient) -> None:
        """Let a client advance the clock in place of waiting, and close it at the end."""

        def advance(seconds: float) -> None:
            self.clock.advance(seconds=seconds)

        io = client._sessions.io  # noqa: SLF001 -- one package
        io.runtime = io.runtime._replace(sleep=advance)
        self._clients.append(client)

    def transport(self) -> FakeTransport:
        """Return an httpx transport for sync and async clients, which responds in process.

        It responds for any host; paths begin with `/v1`.
        """
        from .transport import FakeTransport  # noqa: PLC0415 - only this needs httpx

        return FakeTransport(self.handle)

    def httpx2_transport(self) -> FakeHTTPX2Transport:
        """Return such a transport for the clients of httpx2.

        Raises:
            ImportError: httpx2 is not installed.
        """
        from .httpx2_transport import FakeHTTPX2Transport  # noqa: PLC0415 - only this needs httpx2

        return FakeHTTPX2Transport(self.handle)

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[FakeServer]:
        """Serve the API over HTTP until the `with` block ends.

        Args:
            host: The address to listen on. With 0.0.0.0, all addresses of this machine, the
                server's URL has 127.0.0.1.
            port: The port to listen on; 0 picks a free one.

        Returns:
            A context manager, which returns the server.

        Raises:
            OSError: On entering: the server cannot listen on the address.
        """
        from .server import serve  # noqa: PLC0415 -- most tests need no socket

        return serve(self, host, port)

    def _now(self) -> datetime:
        return self._clock.now() + self.clock_skew

    def _find(self, session_id: str) -> StoredSession:
        (entry,) = self._store.get(self._rules.group_of_session(session_id), [SESSION])
        session = StoredSession.parse(entry)
        if session is None:
            raise KeyError(session_id)
        return session

    def _remember_secret(self, body: bytes) -> None:
        """Keep the secret of a response's session, if the session is a new one."""
        content = decode_json(body)
        if isinstance(content, dict) and content.get("client_secret"):
            self._secrets[str(content["id"])] = str(content["client_secret"])
            if len(self._secrets) > MAX_SESSIONS:
                self.forget(next(iter(self._secrets)))

    def _served(self) -> frozenset[Operation]:
        switched_off: set[Operation] = set()
        if not self.refresh_route:
            switched_off.add("refresh")
        if not self.read_route:
            switched_off.add("get")
        if not self.sign_out_route:
            switched_off.add("sign_out")
        return OPERATIONS - switched_off


def _assert_count(
    done: str, sessions: Iterable[FakeSession], user: str | None, times: int | None
) -> None:
    __tracebackhide__ = True
    counted = Counter(session.user for session in sessions)
    count = counted.total() if user is None else counted[user]
    if count == times or (times is None and count):
        return
    expected = "at least 1" if times is None else str(times)
    whose = "" if user is None else f" for user {user!r}"
    seen = ", ".join(f"{name!r}: {number}" for name, number in counted.items())
    raise AssertionError(
        f"expected {expected} {done} session(s){whose}, saw {seen or 'none at all'}"
    )
