"""One call of the API: attempts until there is a result, or an error not worth another attempt."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Final, Generic, ParamSpec, TypeVar

from pydantic import SecretStr

from chatkit_sessions._api.diagnosis import is_permanent, is_route_missing
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.protocol import (
    Request,
    Response,
    build_request,
    common_headers,
    parse_request_id,
    parse_response,
)
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.retry import Failure, RetryPolicy
from chatkit_sessions._config.settings import KeyCallable
from chatkit_sessions._config.validation import validate_key
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
)
from chatkit_sessions.events import report

from .base import BaseClient, E
from .state import Route

P = ParamSpec("P")
T = TypeVar("T")

ROUTE_MISSING_FOR: Final = 600.0
"""Seconds for which a route that the server lacks is not asked for again."""

logger: Final = logging.getLogger("chatkit_sessions")


class CallFlow(BaseClient[KeyCallable, E], Generic[KeyCallable, E]):
    """Sends an operation's request within a deadline, and retries it."""

    # What the two clients do each in their own way

    @abstractmethod
    async def _key(self) -> object:
        """The API key, or what the callable that stands for it returns."""

    @abstractmethod
    async def _send(self, request: Request, deadline: Deadline) -> Response:
        """Make one attempt."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""

    @abstractmethod
    async def _close_idle_connections(self) -> None:
        """Reuse no connection that is open now, where the connections are the client's own."""

    @abstractmethod
    async def _bounded(
        self,
        deadline: Deadline,
        flow: Callable[P, Coroutine[object, None, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a flow within its deadline and the client's lifetime."""

    async def _call(
        self, operation: Operation[T], deadline: Deadline, *, policy: RetryPolicy | None = None
    ) -> T:
        retries_done = 0
        last_error: APIConnectionError | APIStatusError | None = None
        while True:
            self._check_open(last_error)
            if deadline.remaining() == 0:
                raise last_error or deadline.error()
            request, key = self._build_request(operation, await self._key())
            self._check_open(last_error)  # again: it may have been closed while the key was fetched
            try:
                result = self._parse(operation, await self._send(request, deadline), key)
            except (APIConnectionError, APIStatusError) as error:
                delay = self._delay_after(
                    error,
                    operation=operation,
                    policy=policy,
                    retries_done=retries_done,
                    deadline=deadline,
                )
                name = operation.name if delay is None else "retry"
                report(self._runtime.on_event, name, type(error).__name__)
                if delay is None:
                    raise
                last_error = error.with_traceback(None)  # which would hold this frame in a cycle
            except APIResponseValidationError as error:
                report(self._runtime.on_event, operation.name, type(error).__name__)
                # More bytes of a wrong response may follow on its connection.
                await self._close_idle_connections()
                raise
            else:
                if self._runtime.on_event is not None:
                    report(self._runtime.on_event, operation.name, "ok")
                return result
            await self._sleep(delay)
            retries_done += 1

    def _build_request(
        self, operation: Operation[object], key: object
    ) -> tuple[Request, SecretStr]:
        """A request, and the key in it, which a callable may have returned as a string."""
        headers = self._headers
        if headers is None or headers.key is not key:
            headers = common_headers(self._settings, validate_key(key, "`api_key`"))
        return build_request(operation, self._settings.base_url, headers), headers.key

    def _parse(self, operation: Operation[T], response: Response, key: SecretStr) -> T:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s %s: %d (request id %s)",
                operation.method,
                operation.path,
                response.status_code,
                parse_request_id(response, (key, *operation.secrets)),
            )
        return parse_response(
            operation, response, key=key, host=self._settings.host, now=self._runtime.now
        )

    def _delay_after(
        self,
        error: APIConnectionError | APIStatusError,
        *,
        operation: Operation[object],
        policy: RetryPolicy | None,
        retries_done: int,
        deadline: Deadline,
    ) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none."""
        if isinstance(error, APIStatusError):
            failure = Failure(
                status_code=error.status_code,
                should_retry=error.should_retry,
                retry_after=error.retry_after,
                permanent=is_permanent(error.error),
            )
            reason = f"{error.status_code} (request id {error.request_id})"
        else:
            failure = Failure(permanent=error.answered or error.permanent)
            reason = error.message
            logger.debug("%s %s: %s", operation.method, operation.path, reason)
        if self._lifetime.closed:
            return None
        delay = (policy or self._settings.retry_policy).delay(
            failure,
            retries_done=retries_done,
            remaining=deadline.remaining(),
            random=self._runtime.random,
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

    def _is_missing(self, route: Route) -> bool:
        """Whether the server is known to lack the route."""
        return self._runtime.monotonic() < self._shared_state.missing_until.get(route, -1.0)

    def _lacks(self, route: Route, error: APIStatusError) -> bool:
        """Whether an error means that the server lacks the route; remembered if said for good."""
        if is_route_missing(error.status_code, error.error):
            until = self._runtime.monotonic() + ROUTE_MISSING_FOR
            self._shared_state.missing_until[route] = until
            return True
        # In the API's envelope a 404 is about the workflow or session; without one, it comes from
        # something that does not know the route.
        return error.status_code == HTTPStatus.NOT_FOUND and error.error is None
