"""The local API, for tests and development servers."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from datetime import timedelta
from threading import RLock
from typing import TYPE_CHECKING, Final, Self

from .clock import FakeClock
from .failures import Failure, make_failure, take_failure
from .fake_api import OPERATIONS, FakeApi, Operation
from .faults import LOSES_THE_REQUEST
from .server import FakeServer, serve
from .wire import RecordedRequest, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from chatkit_sessions import AsyncChatKitClient, ChatKitClient

    from .clients import InProcessAsyncClient, InProcessClient
    from .faults import Fault
    from .httpx2_transport import FakeHTTPX2Transport
    from .sessions import FakeSession
    from .transport import FakeTransport

PROJECT: Final = "proj_test"
"""The project of the first key and workflow."""
_MAX_REQUESTS: Final = 10_000


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
        self._api = FakeApi(
            now=lambda: self._clock.now() + self.clock_skew, token_hex=secrets.token_hex
        )
        self._api.add_api_key(api_key, PROJECT)
        self._api.add_workflow(workflow_id, PROJECT)
        self._clients: list[InProcessClient | InProcessAsyncClient] = []
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_REQUESTS)
        self._failures: list[Failure] = []
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
            self._clients.pop().end()  # neither kind holds a socket

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
            return self._api.sessions()

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
            self._api.add_api_key(api_key, project)

    def remove_api_key(self, api_key: str) -> None:
        """Revoke a key: from now on, the API rejects it with 401.

        Raises:
            ValueError: There is no such key.
        """
        with self._lock:
            self._api.remove_api_key(api_key)

    def add_workflow(self, workflow_id: str, *, project: str = PROJECT) -> None:
        """Add a workflow to a project."""
        with self._lock:
            self._api.add_workflow(workflow_id, project)

    def remove_workflow(self, workflow_id: str, *, project: str = PROJECT) -> None:
        """Remove a workflow: from now on, creating a session for it is rejected with 404.

        Raises:
            ValueError: The project has no such workflow.
        """
        with self._lock:
            self._api.remove_workflow(workflow_id, project)

    def expire(self, session_id: str) -> None:
        """Let a session expire now.

        Raises:
            KeyError: The session does not exist.
        """
        with self._lock:
            self._api.expire(session_id)

    def forget(self, session_id: str) -> None:
        """Forget a session: the API rejects requests for it as not found.

        Raises:
            KeyError: There is no such session.
        """
        with self._lock:
            self._api.forget(session_id)

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
            user: As for `assert_created`.
            times: As for `assert_created`.

        Raises:
            AssertionError: The number differs. The message has each user's number.
        """
        __tracebackhide__ = True
        sessions = [each for each in self.sessions.values() if each.refreshed_from is not None]
        _assert_count("refreshed", sessions, user, times)

    def assert_deleted(self, *, user: str | None = None, times: int | None = None) -> None:
        """Check how many sessions were deleted; refreshed and expired sessions do not count.

        Args:
            user: As for `assert_created`.
            times: As for `assert_created`.

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

    def handle(self, request: Request) -> Response:
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
                whole = self._api.handle(request, self._served())
            else:
                whole = self._api.respond(failure.status_code, failure.body, failure.headers)
        response = Response(whole.status_code, whole.headers, whole.body, fault)
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
        from .clients import InProcessClient  # noqa: PLC0415 - the API itself needs no client

        client = InProcessClient(
            self, api_key or self.api_key, workflow_id or self.workflow_id, max_retries
        )
        self._clients.append(client)
        return client

    def async_client(
        self, *, api_key: str | None = None, workflow_id: str | None = None, max_retries: int = 2
    ) -> AsyncChatKitClient:
        """Make an asynchronous client that calls this API in process, as `client` does."""
        from .clients import InProcessAsyncClient  # noqa: PLC0415 - as above

        client = InProcessAsyncClient(
            self, api_key or self.api_key, workflow_id or self.workflow_id, max_retries
        )
        self._clients.append(client)
        return client

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
        return serve(self, host, port)

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
