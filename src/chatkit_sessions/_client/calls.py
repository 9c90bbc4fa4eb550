"""One call of the API: attempts and retries, with their log lines, until a result or an error."""

import hashlib
import logging
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from chatkit_sessions._api.arguments import validate_call_timeout
from chatkit_sessions._api.diagnosis import is_permanent, is_rejection, is_route_missing
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.protocol import (
    EXTENSIONS_HEADER,
    SIGN_OUT_EXTENSION,
    CommonHeaders,
    Request,
    Response,
    build_request,
    common_headers,
    is_success,
    parse_request_id,
    parse_response,
)
from chatkit_sessions._concurrency.clocks import Deadline, seconds_suspended
from chatkit_sessions._concurrency.single_flight import CompletionEvent
from chatkit_sessions._config.retry_policy import FailedAttempt, RetryPolicy
from chatkit_sessions._config.settings import DEFAULT_BASE_URL, KeyFunction, NotGiven, Settings
from chatkit_sessions._config.validation import validate_key
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
)
from chatkit_sessions.events import EventName, OnEvent, report

T = TypeVar("T")

ROUTE_MISSING_FOR: Final = 600.0
"""Seconds for which a route that the server lacks is not asked for again."""
_NEVER_MISSING: Final = -math.inf
"""In place of a time in `missing_until`: the server has said that it has the route."""

logger: Final = logging.getLogger("chatkit_sessions")


class Route(Enum):
    """Routes that the contract does not have and only some servers offer."""

    REFRESH = "refresh"
    GET = "get"
    SIGN_OUT = "sign_out"


class Lifetime:
    """Whether a client is open; one from `with_options` closes with the one it came from.

    A `with` block opens a closed client: the lifespan of an application may run for each test, or
    for each invocation of a function, also several at the same time.

    Args:
        client: The name of the client's class, for the error.
        parent: That of the client it came from.
    """

    def __init__(self, client: str, parent: "Lifetime | None" = None) -> None:
        self._client = client
        self._parent = parent
        self._closed = False
        self._opened_parent = False
        self._blocks: list[None] = []
        """One for each block that runs now; appending and removing are atomic."""

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._closed or (self._parent is not None and self._parent.closed)

    def enter(self) -> None:
        """Begin a block."""
        self._blocks.append(None)
        if self._parent is not None and self._parent.closed:
            self._parent.enter()
            self._opened_parent = True
        self._closed = False

    def leave(self) -> bool:
        """End a block; return whether it was the last one, with which the client closes."""
        if self._blocks:  # closing has removed them
            self._blocks.pop()
        return not self._blocks

    def close(self) -> bool:
        """Close the client; return whether its connections are its own and close with it."""
        self._closed = True
        self._blocks.clear()
        if self._parent is None:
            return True
        opened_parent, self._opened_parent = self._opened_parent, False
        return opened_parent and self._parent.leave() and self._parent.close()

    def child(self) -> "Lifetime":
        """The lifetime of a client on the same connections."""
        return Lifetime(self._client, self)

    def check_open(self, last_error: Exception | None = None) -> None:
        """Send nothing more once the client is closed; a call that has failed is not repeated."""
        if self.closed:
            raise last_error or RuntimeError(
                f"This {self._client} is closed. Keep one open for as long as the process makes "
                "calls, or open it again: `with`, `async with`."
            )


class Runtime(NamedTuple):
    """Time and chance as a client uses them; the test kit puts its own in their place."""

    sleep: Callable[[float], Awaitable[object] | None]
    """Lets that many seconds pass: a function that blocks or, in the async client, is awaited."""
    monotonic: Callable[[], float]
    random: Callable[[], float]
    """Returns a number from 0 up to but not including 1."""
    now: Callable[[], datetime]
    suspended: Callable[[], float]
    """Seconds for which the machine was suspended, which `monotonic` does not count."""
    on_event: OnEvent | None = None
    has_clock: bool = False
    """Whether `now` is the user's `clock`."""


def system_runtime(sleep: Callable[[float], Awaitable[object] | None]) -> Runtime:
    """Time and chance of this machine, looked up now: tests may have put others in their place."""
    return Runtime(
        sleep, time.monotonic, random.random, lambda: datetime.now(UTC), seconds_suspended
    )


class IO(Protocol):
    """What the two clients do differently: one implementation blocks, the other one awaits.

    The coroutines of the blocking one never suspend, so that `run_blocking` runs every flow over
    it. All clients on the same connections share one.
    """

    runtime: Runtime

    async def call_key_function(self, function: Callable[[], object]) -> object:
        """The key that the application's function returns."""
        ...

    async def send(self, request: Request, deadline: Deadline) -> Response:
        """Make one attempt."""
        ...

    async def close_idle_connections(self) -> None:
        """Close the idle connections, if they are the client's own."""
        ...

    async def close(self, *, connections: bool) -> None:
        """End the calls of closed clients, where that is possible, and close the connections."""
        ...

    def limit(
        self, deadline: Deadline, lifetime: Lifetime
    ) -> AbstractAsyncContextManager[object, None]:
        """End what runs inside at its deadline, or when its client is closed.

        Its end raises APITimeoutError or APIConnectionError. Where a thread blocks, each of its
        waits checks the deadline instead.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...

    def new_event(self) -> CompletionEvent:
        """Make the event that callers of one shared call wait for."""
        ...

    def event_loop(self) -> Hashable:
        """The running event loop, in which callers can wait together; None: threads wait."""
        ...

    def heartbeat(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        """Run a flow beside what runs inside, again and again after that many seconds."""
        ...

    async def for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        """Run a flow for each item, at most so many at once."""
        ...

    def shielded(self) -> AbstractContextManager[object]:
        """Finish what runs inside even if the call is cancelled meanwhile."""
        ...


class SharedState:
    """What all clients on the same connections have learned."""

    def __init__(self) -> None:
        self.missing_until: Final[dict[Route, float]] = {}
        """Until when, by the monotonic clock, the server is known to lack a route."""
        self._key_functions: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    def scope_of_key(self, key: object) -> str:
        """Equal for the same key, or for the same key function; does not reveal the key."""
        if isinstance(key, SecretStr):
            return hashlib.sha256(key.get_secret_value().encode()).hexdigest()
        new = f"callable {os.urandom(8).hex()}"
        try:
            return self._key_functions.setdefault(key, new)
        except TypeError:  # a callable that cannot be hashed or weakly referred to
            return new


class Calls:
    """Sends an operation's request within a deadline, and retries it.

    Args:
        io: How to send and wait.
        settings: The client's settings.
        lifetime: Whether the client is open.
        shared: What other clients on the same connections know, too.
    """

    def __init__(self, io: IO, settings: Settings, lifetime: Lifetime, shared: SharedState) -> None:
        self.io: Final = io
        self.settings: Final = settings
        self.lifetime: Final = lifetime
        self.shared: Final = shared
        key = settings.api_key
        self._headers = common_headers(settings, key) if isinstance(key, SecretStr) else None

    def deadline(self, timeout: float | NotGiven | None) -> Deadline:
        """The deadline of a call that begins now."""
        seconds = (
            self.settings.timeout
            if isinstance(timeout, NotGiven)
            else validate_call_timeout(timeout)
        )
        return Deadline.after(seconds, self.io.runtime.monotonic)

    def monotonic(self) -> float:
        """The time by a monotonic clock, in seconds."""
        return self.io.runtime.monotonic()

    def expiry_clock(self) -> float:
        """The time by the clock that sessions expire by, in seconds."""
        return self.io.runtime.monotonic() + self.io.runtime.suspended()

    def report(self, name: EventName, outcome: str) -> None:
        """Report an event to the application."""
        report(self.io.runtime.on_event, name, outcome)

    def limit(self, deadline: Deadline) -> AbstractAsyncContextManager[object, None]:
        """See `IO.limit`."""
        return self.io.limit(deadline, self.lifetime)

    async def perform(
        self, operation: Operation[T], deadline: Deadline, *, policy: RetryPolicy | None = None
    ) -> T:
        """Make a call: send its request until there is a result, or an error to raise.

        Args:
            operation: The call.
            deadline: When it ends, with all its attempts and waits.
            policy: When to retry; None: as the client is set to.
        """
        retries_done = 0
        last_error: APIConnectionError | APIStatusError | None = None
        while True:
            self.lifetime.check_open(last_error)
            if deadline.remaining() == 0:
                raise last_error or deadline.error()
            headers = self._headers
            if headers is None:
                headers = await self._current_headers()
                self.lifetime.check_open(last_error)  # again: it may have been closed meanwhile
            request = build_request(operation, self.settings.base_url, headers)
            try:
                response = await self.io.send(request, deadline)
                result = self._parse(operation, response, headers.key)
            except (APIConnectionError, APIStatusError) as error:
                delay = self._plan_retry(
                    error,
                    operation=operation,
                    policy=policy,
                    retries_done=retries_done,
                    deadline=deadline,
                )
                self.report(operation.name if delay is None else "retry", type(error).__name__)
                if delay is None:
                    raise
                last_error = error.with_traceback(None)  # which would hold this frame in a cycle
            except APIResponseValidationError as error:
                self.report(operation.name, type(error).__name__)
                # More bytes of a wrong response may follow on its connection.
                await self.io.close_idle_connections()
                raise
            else:
                if self.io.runtime.on_event is not None:
                    self.report(operation.name, "ok")
                return result
            await self.io.sleep(delay)
            retries_done += 1

    async def _current_headers(self) -> CommonHeaders:
        """The headers with the key that the application's function returns now."""
        key = await self.io.call_key_function(cast("KeyFunction", self.settings.api_key))
        return common_headers(self.settings, validate_key(key, "`api_key`"))

    def _parse(self, operation: Operation[T], response: Response, key: SecretStr) -> T:
        self._note_extensions(response)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s %s: %d (request id %s)",
                operation.method,
                operation.path,
                response.status_code,
                parse_request_id(response, (key, *operation.secrets)),
            )
        return parse_response(
            operation, response, key=key, host=self.settings.host, now=self.io.runtime.now
        )

    def _note_extensions(self, response: Response) -> None:
        """Remember whether the server has the route that signs a user out.

        Every response of the sessions service says so; one of another server says nothing.
        """
        if SIGN_OUT_EXTENSION in response.headers.get(EXTENSIONS_HEADER, ""):
            self.shared.missing_until[Route.SIGN_OUT] = _NEVER_MISSING
        elif Route.SIGN_OUT not in self.shared.missing_until and is_success(response.status_code):
            self.shared.missing_until[Route.SIGN_OUT] = self.monotonic() + ROUTE_MISSING_FOR

    def _plan_retry(
        self,
        error: APIConnectionError | APIStatusError,
        *,
        operation: Operation[object],
        policy: RetryPolicy | None,
        retries_done: int,
        deadline: Deadline,
    ) -> float | None:
        """Log a failed attempt; return the seconds to wait before a retry, None: there is none."""
        if isinstance(error, APIStatusError):
            failure = FailedAttempt(
                status_code=error.status_code,
                should_retry=error.should_retry,
                retry_after=error.retry_after,
                permanent=is_permanent(error.error),
            )
            reason = f"{error.status_code} (request id {error.request_id})"
        else:
            failure = FailedAttempt(permanent=error.answered or error.permanent)
            reason = error.message
            logger.debug("%s %s: %s", operation.method, operation.path, reason)
        if self.lifetime.closed:
            return None
        delay = (policy or self.settings.retry_policy).delay(
            failure,
            retries_done=retries_done,
            remaining=deadline.remaining(),
            random=self.io.runtime.random,
        )
        if delay is not None:
            logger.info(
                "%s %s: trying again in %.3f s after %s",
                operation.method,
                operation.path,
                delay,
                reason,
            )
        return delay

    # Routes that the server may lack

    def is_missing(self, route: Route) -> bool:
        """Whether the server is known to lack the route; OpenAI's is, before it is asked."""
        if route is Route.SIGN_OUT and self.settings.base_url == DEFAULT_BASE_URL:
            return True
        return self.monotonic() < self.shared.missing_until.get(route, -1.0)

    def note_missing_route(self, route: Route, error: APIStatusError) -> bool:
        """Whether an error means that the server lacks the route; if for good, remember it."""
        is_missing = is_route_missing(error.status_code, error.error)
        if route is Route.SIGN_OUT and not self.is_known_to_have(route):
            # Few servers have it, and a gateway may reject what it does not know in any way.
            is_missing |= is_rejection(error.status_code)
        if is_missing:
            until = self.monotonic() + ROUTE_MISSING_FOR
            self.shared.missing_until[route] = until
            return True
        # In the API's envelope a 404 is about the workflow or session; without one, it comes from
        # something that does not know the route.
        is_bare = error.status_code == HTTPStatus.NOT_FOUND and error.error is None
        return is_bare and not self.is_known_to_have(route)

    def is_known_to_have(self, route: Route) -> bool:
        """Whether the server has said that it has the route."""
        return self.shared.missing_until.get(route) == _NEVER_MISSING


def client_closed_error() -> APIConnectionError:
    """The error for a call whose client is closed while it is under way."""
    return APIConnectionError(
        "The client was closed while the call was under way.",
        hint="Close a client when no call needs it any more, such as at the end of the process.",
    )
