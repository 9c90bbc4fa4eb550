"""The local ChatKit API as a test or a development server holds it."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Final

from .clock import FakeClock
from .fake_api import OPERATIONS, FakeApi, Operation, find_call
from .faults import FAULTS, LOSES_THE_REQUEST
from .refusals import Refusal, usual_words
from .server import FakeServer, serve
from .wire import Headers, RecordedRequest, Request, Response, encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from .faults import Fault
    from .sessions import FakeSession
    from .transport import FakeTransport

_MAX_REQUESTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Failure:
    """What takes the place of the API's own answer, or a fault that befalls it."""

    operation: Operation | None
    status_code: int = 503
    body: bytes = b""
    headers: Headers = field(default_factory=Headers)
    fault: Fault | None = None


class FakeChatKit:
    """ChatKit's sessions API, imitated in memory; it may be called from several threads.

    It keeps the latest 10,000 requests and the latest 10,000 sessions.

    Args:
        api_key: The only key that opens the API.
        workflow_id: The only workflow that there is.
        refresh_route: Whether `POST /chatkit/sessions/refresh` is there. OpenAI's published
            contract does not have it.
        read_route: Whether `GET /chatkit/sessions/{id}` is there. Some servers compatible with
            ChatKit have it, the published contract does not.
        clock: What sessions expire by. Left out, real time plus what the clock is advanced.

    Attributes:
        refresh_route: As above; may be changed at any time.
        read_route: As above; may be changed at any time.
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-test",
        workflow_id: str = "wf_test",
        refresh_route: bool = True,
        read_route: bool = False,
        clock: FakeClock | None = None,
    ) -> None:
        self.refresh_route = refresh_route
        self.read_route = read_route
        self._api_key = api_key
        self._workflow_id = workflow_id
        self._clock = clock or FakeClock()
        self._api = FakeApi(
            api_key=api_key,
            workflow_id=workflow_id,
            now=self._clock.now,
            token_hex=secrets.token_hex,
        )
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_REQUESTS)
        self._failures: list[_Failure] = []
        self._lock = Lock()

    @property
    def api_key(self) -> str:
        """The only key that opens the API."""
        return self._api_key

    @property
    def workflow_id(self) -> str:
        """The only workflow that there is."""
        return self._workflow_id

    @property
    def clock(self) -> FakeClock:
        """What sessions expire by."""
        return self._clock

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Every request so far, oldest first, refused ones included."""
        with self._lock:
            return tuple(self._requests)

    @property
    def sessions(self) -> Mapping[str, FakeSession]:
        """Every session so far by its id, oldest first, as it stands now."""
        with self._lock:
            return self._api.sessions()

    def assert_created(self, *, user: str | None = None, times: int | None = None) -> None:
        """Check which sessions were created; those that came from a refresh do not count.

        Args:
            user: Whose sessions to count. Left out: everybody's.
            times: How many there must be. Left out: at least one.

        Raises:
            AssertionError: There are more or fewer. Its message says how many each user has.
        """
        created = Counter(
            session.user for session in self.sessions.values() if session.refreshed_from is None
        )
        count = created.total() if user is None else created[user]
        if count == times or (times is None and count):
            return
        expected = "at least 1" if times is None else str(times)
        whose = "" if user is None else f" for user {user!r}"
        seen = ", ".join(f"{name!r}: {number}" for name, number in created.items())
        raise AssertionError(
            f"expected {expected} created session(s){whose}, saw {seen or 'none at all'}"
        )

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
        times: int = 1,
        operation: Operation | None = None,
    ) -> None:
        """Let one of the next requests fail; it is recorded all the same.

        With `status_code`, it is answered with something else: `body`, or the API's error envelope,
        made of `message`, `type`, `code` and `param`. With `fault`, the connection fails. Failures
        are used up in the order in which they were set.

        | fault | over HTTP | in process | is a session created? |
        |---|---|---|---|
        | `reset` | the connection is reset | `httpx.ReadError` | no |
        | `hang` | no answer until the client goes | `httpx.ReadTimeout` at once | no |
        | `drip` | a byte each tenth of a second | `httpx.ReadTimeout` after a byte | yes |
        | `truncate` | half of the body, then the end | `httpx.RemoteProtocolError` | yes |
        | `oversize` | the answer and 64 MiB of white space | the same | yes |

        Args:
            status_code: The HTTP status, 200 to 599. Exactly one of this and `fault` is given.
            fault: What goes wrong with the connection; the arguments from `message` to `body` are
                for `status_code` alone.
            message: What the error says. Left out: what usually comes with the status.
            type: The class of error. Left out: what usually comes with the status.
            code: The error's short name, or None for null.
            param: The field to blame, or None for null.
            headers: Fields that are added, or take the place of the usual ones.
            body: A body to send as it is, such as a proxy's HTML page. Its `content-type` is
                `text/html` unless `headers` has another.
            times: How many requests are answered so, 1 or more.
            operation: Which requests are answered so. Left out: any.

        Raises:
            ValueError: `status_code`, `fault` or `times` is out of bounds, or the arguments do not
                go together.
        """
        if times < 1:
            raise ValueError(f"times must be 1 or more, not {times}")
        if fault is not None:
            about_the_answer = (status_code, message, type, code, param, headers, body)
            if any(argument is not None for argument in about_the_answer):
                raise ValueError("fault goes with times and operation alone")
            if fault not in FAULTS:
                raise ValueError(f"fault must be one of {', '.join(sorted(FAULTS))}, not {fault}")
            with self._lock:
                self._failures.extend([_Failure(operation, fault=fault)] * times)
            return
        if status_code is None:
            raise ValueError("either status_code or fault is needed")
        if not 200 <= status_code <= 599:  # noqa: PLR2004 - HTTP's final statuses
            raise ValueError(f"status_code must be 200 to 599, not {status_code}")
        if body is None:
            usual_message, usual_type = usual_words(status_code)
            refusal = Refusal(
                status_code,
                usual_message if message is None else message,
                error_type=usual_type if type is None else type,
                code=code,
                param=param,
            )
            content, content_type = encode_json(refusal.envelope()), "application/json"
        else:
            content, content_type = body.encode() if isinstance(body, str) else body, "text/html"
        given = Headers((headers or {}).items())
        failure = _Failure(
            operation,
            status_code,
            content,
            Headers({"content-type": content_type, **given}.items()),
        )
        with self._lock:
            self._failures.extend([failure] * times)

    def handle(self, request: Request) -> Response:
        """Record a request and answer it.

        Args:
            request: The request, as a server or an HTTP transport received it.
        """
        with self._lock:
            self._requests.append(
                RecordedRequest(request.method, request.path, request.headers, request.body)
            )
            failure = self._take_failure(request)
            fault = failure.fault if failure else None
            if failure is None or (fault is not None and fault not in LOSES_THE_REQUEST):
                response = self._api.answer(request, self._served())
            else:
                response = self._api.respond(failure.status_code, failure.body, failure.headers)
            response = replace(response, fault=fault)
        return response.without_body() if request.method == "HEAD" else response

    def transport(self) -> FakeTransport:
        """Return an httpx transport, for sync and async clients, that answers in process.

        It answers for every host; paths begin with `/v1`.
        """
        from .transport import FakeTransport  # noqa: PLC0415 - only this needs httpx

        return FakeTransport(self.handle)

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[FakeServer]:
        """Serve the API over HTTP for as long as the `with` block lasts.

        Args:
            host: The address to listen on.
            port: The port to listen on; 0 picks a free one.

        Raises:
            OSError: On entering, when the address cannot be listened on.
        """
        return serve(self, host, port)

    def _served(self) -> frozenset[Operation]:
        switched_off: set[Operation] = set()
        if not self.refresh_route:
            switched_off.add("refresh")
        if not self.read_route:
            switched_off.add("get")
        return OPERATIONS - switched_off

    def _take_failure(self, request: Request) -> _Failure | None:
        try:
            operation = find_call(request, OPERATIONS).operation
        except Refusal:
            operation = None
        for index, failure in enumerate(self._failures):
            if failure.operation in (None, operation):
                return self._failures.pop(index)
        return None
