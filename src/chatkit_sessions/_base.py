"""State and decisions that both clients share; they add only the sending and the sleeping."""

import copy
import hashlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from http import HTTPStatus
from typing import Final, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from . import _operations as operations
from ._config import (
    Config,
    KeyCallable,
    NotGiven,
    as_retry_policy,
    check_clock,
    check_header,
    check_key,
    check_key_source,
    check_timeout,
    check_workflow_id,
)
from ._connections import check_url
from ._deadline import Deadline
from ._diagnosis import says_route_is_missing
from ._operations import MAX_EXPIRES_AFTER, Operation, RejectedSession
from ._protocol import Answer, Request, build_request, read_answer, request_id
from ._records import MemoryRecords, SessionRecord, SessionRecords
from ._redaction import shown
from ._retry import Failure, RetryPolicy
from .errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    SessionNotRecordedError,
)
from .models import (
    CancelledSession,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
)

T = TypeVar("T")

logger: Final = logging.getLogger("chatkit_sessions")

ROUTE_MISSING_FOR: Final = 600.0
"""Seconds for which a route that the server lacks is not asked for again."""
DISCARD_TIMEOUT: Final = 5.0
"""Seconds that cancelling a session which nobody may use can take from a refresh."""
NO_RETRIES: Final = RetryPolicy(max_retries=0)

_NO_REFUSAL: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)


class Route(Enum):
    """Routes that the contract does not have and only some servers offer."""

    REFRESH = "refresh"
    GET = "get"


class Lifetime:
    """Whether a client is open; one from `with_options` ends with the one it came from."""

    def __init__(self, parent: "Lifetime | None" = None) -> None:
        self._parent = parent
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the client is closed."""
        return self._ended or (self._parent is not None and self._parent.ended)

    def end(self) -> bool:
        """Close the client; return whether its connections are its own and end with it."""
        self._ended = True
        return self._parent is None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the clients on one set of connections have learned, in common."""

    records: SessionRecords = field(default_factory=MemoryRecords)
    missing_until: dict[Route, float] = field(default_factory=dict[Route, float])
    _callables: WeakKeyDictionary[object, str] = field(
        default_factory=WeakKeyDictionary[object, str]
    )
    _counter: Iterator[int] = field(default_factory=itertools.count)

    def scope_of_key(self, key: object) -> str:
        """The same for the same key or the same function that gives it, without telling the key."""
        if isinstance(key, SecretStr):
            return hashlib.sha256(key.get_secret_value().encode()).hexdigest()
        new = f"callable {next(self._counter)}"
        try:
            return self._callables.setdefault(key, new)
        except TypeError:  # a callable that cannot be hashed or weakly referred to
            return new


class BaseClient(Generic[KeyCallable]):
    """What is neither sending nor sleeping."""

    def __init__(self, config: Config[KeyCallable], clock: Callable[[], datetime] | None) -> None:
        check_url(config.base_url)
        if clock is not None:
            check_clock(clock)
        self._config = config
        self._memory = Memory()
        self._key_scope = self._memory.scope_of_key(config.api_key)
        self._lifetime = Lifetime()
        self._now = clock or _utc_now
        self._monotonic: Callable[[], float] = time.monotonic
        self._random: Callable[[], float] = random.random

    def __repr__(self) -> str:
        # A traceback that prints local variables may meet a client that is only half made.
        config: Config[KeyCallable] | None = getattr(self, "_config", None)
        if config is None:
            return f"{type(self).__name__}(not configured)"
        return (
            f"{type(self).__name__}(base_url={config.base_url!r}, "
            f"workflow_id={config.workflow_id!r}, organization={config.organization!r}, "
            f"project={config.project!r})"
        )

    def _derive(
        self,
        *,
        api_key: SecretStr | KeyCallable | NotGiven,
        workflow_id: str | NotGiven | None,
        organization: str | NotGiven | None,
        project: str | NotGiven | None,
        timeout: float | NotGiven | None,
        max_retries: int | RetryPolicy | NotGiven,
    ) -> Self:
        """A client with other settings on the same connections."""
        config = self._config
        if not isinstance(api_key, NotGiven):
            config = replace(config, api_key=check_key_source(api_key, "`api_key`"))
        if not isinstance(workflow_id, NotGiven):
            config = replace(config, workflow_id=workflow_id)
        if not isinstance(organization, NotGiven):
            config = replace(config, organization=_header(organization, "`organization`"))
        if not isinstance(project, NotGiven):
            config = replace(config, project=_header(project, "`project`"))
        if not isinstance(timeout, NotGiven):
            config = replace(config, timeout=check_timeout(timeout))
        if not isinstance(max_retries, NotGiven):
            config = replace(config, retry_policy=as_retry_policy(max_retries))
        clone = copy.copy(self)
        clone._config = config  # noqa: SLF001 -- a copy of ourselves
        if config.api_key is not self._config.api_key:
            clone._key_scope = self._memory.scope_of_key(config.api_key)  # noqa: SLF001 -- as above
        clone._lifetime = Lifetime(self._lifetime)  # noqa: SLF001 -- as above
        return clone

    def _check_open(self, failed: Exception | None = None) -> None:
        """Send nothing more once the client is closed; a call that has failed is not repeated."""
        if self._lifetime.ended:
            raise failed or RuntimeError(
                f"This {type(self).__name__} is closed. Keep one open for as long as the process "
                "makes calls, or make a new one."
            )

    def _deadline(self, timeout: float | NotGiven | None) -> Deadline:
        seconds = (
            self._config.timeout
            if isinstance(timeout, NotGiven)
            else operations.check_call_timeout(timeout)
        )
        return Deadline.after(seconds, self._monotonic)

    def _workflow_id(self, argument: str | None) -> str:
        if argument is None:
            return check_workflow_id(self._config.workflow_id)
        return operations.check_workflow_id(argument)

    def _request(self, operation: Operation[object], key: object) -> tuple[Request, SecretStr]:
        """A request, and the key in it, which a callable may have given as a string."""
        checked = self._config.api_key
        if key is not checked or not isinstance(checked, SecretStr):  # a callable's, so a new one
            checked = check_key(key, "`api_key`")
        return build_request(operation, self._config, checked), checked

    def _read(self, operation: Operation[T], answer: Answer, key: SecretStr) -> T:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s %s: %d (request id %s)",
                operation.method,
                operation.path,
                answer.status_code,
                request_id(answer.headers, (key, *operation.secrets)),
            )
        return read_answer(operation, answer, key=key, host=self._config.host, now=self._now())

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
            )
            reason = f"{error.status_code} (request id {error.request_id})"
        else:
            failure = Failure()
            reason = error.message
            logger.debug("%s %s: %s", operation.method, operation.path, reason)
            if error.answered:
                return None
        if self._lifetime.ended:
            return None
        delay = (policy or self._config.retry_policy).delay(
            failure,
            retries_done=retries_done,
            remaining=deadline.remaining(),
            random=self._random,
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

    def _may_have(self, route: Route) -> bool:
        return self._monotonic() >= self._memory.missing_until.get(route, -1.0)

    def _lacks(self, route: Route, error: APIStatusError) -> bool:
        """Whether an error means that the server lacks the route; remembered if said for good."""
        if says_route_is_missing(error.status_code, error.error):
            self._memory.missing_until[route] = self._monotonic() + ROUTE_MISSING_FOR
            return True
        # In the API's envelope a 404 is about what was asked for; without one, something that does
        # not know the route has answered.
        return error.status_code == HTTPStatus.NOT_FOUND and error.error is None

    def _creates_after(self, error: APIStatusError | APIResponseValidationError) -> bool:
        """Whether a refresh that failed so leads to a new session, whose own error then decides."""
        creates = (
            isinstance(error, APIResponseValidationError)
            or self._lacks(Route.REFRESH, error)
            or _is_refusal(error.status_code)
        )
        if creates:
            logger.info("The session is not refreshed (%d): creating one", error.status_code)
        return creates

    def _log_rejected(self, rejected: RejectedSession) -> None:
        logger.warning(
            "The refresh route's answer cannot be used (%s): creating a new session",
            rejected.reason,
        )

    def _log_not_discarded(self, error: Exception) -> None:
        logger.warning("The session that cannot be used could not be cancelled: %s", error)

    # Records of what was seen

    @property
    def _scope(self) -> str:
        """What one tenant sees must not be told to another, who has another key or project."""
        config = self._config
        return f"{config.organization or ''}/{config.project or ''}/{self._key_scope}"

    def _record_session(
        self, session: ChatKitSessionResponse, *, user: str, workflow_id: str
    ) -> ChatKitSessionResponse:
        """Keep what `get_session` may need; a server that echoes less is completed."""
        workflow = session.workflow or ChatKitWorkflow(id=workflow_id)
        record = SessionRecord(
            id=session.id,
            user=session.user or user,
            workflow_id=workflow.id,
            workflow_version=workflow.version,
            expires_at=session.expires_at,
            status=session.status,
        )
        self._memory.records.put(self._scope, record, now=self._now())
        return session

    def _record_end(self, session_id: str, answer: CancelledSession) -> None:
        now = self._now()
        known = self._memory.records.get(self._scope, session_id, now=now)
        status = answer.status or "cancelled"
        if known is None:
            # Where the answer does not tell, the contract bounds how long a session can last.
            latest = now + timedelta(seconds=MAX_EXPIRES_AFTER)
            known = SessionRecord(
                id=session_id,
                user=answer.user,
                workflow_id=answer.workflow.id if answer.workflow else None,
                workflow_version=answer.workflow.version if answer.workflow else None,
                expires_at=answer.expires_at or latest,
                status=status,
            )
        self._memory.records.put(self._scope, replace(known, status=status), now=now)

    def _forget(self, session_id: str) -> None:
        self._memory.records.delete(self._scope, session_id)

    def _info_from_record(self, session_id: str) -> ChatKitSessionInfo:
        record = self._memory.records.get(self._scope, session_id, now=self._now())
        if record is None:
            raise SessionNotRecordedError(
                f"{self._config.host} has no route for reading a session, and this client did not "
                f"create, refresh or delete {shown(session_id)} in the last day.",
                hint="Ask the client that created it: each process remembers its own sessions. The "
                "official API cannot be asked for a session.",
            )
        workflow = record.workflow_id and ChatKitWorkflow(
            id=record.workflow_id, version=record.workflow_version
        )
        return self._observe(
            ChatKitSessionInfo(
                id=record.id,
                user=record.user,
                workflow=workflow or None,
                expires_at=record.expires_at,
                status=record.status,
                source="record",
            )
        )

    def _observe(self, info: ChatKitSessionInfo) -> ChatKitSessionInfo:
        """Work the status out against the clock: nobody tells when a session has run out."""
        if info.status in {None, "active"} and info.is_expired(now=self._now()):
            return info.model_copy(update={"status": "expired"})
        return info


def closed_meanwhile() -> APIConnectionError:
    """What ends a call whose client is closed while it is under way."""
    return APIConnectionError(
        "The client was closed while the call was under way.",
        hint="Close a client when no call needs it any more, such as at the end of the process.",
    )


def _is_refusal(status_code: int) -> bool:
    client_error = HTTPStatus.BAD_REQUEST <= status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return client_error and status_code not in _NO_REFUSAL


def _header(value: str | None, source: str) -> str | None:
    return None if value is None else check_header(value, source)


def _utc_now() -> datetime:
    return datetime.now(UTC)
