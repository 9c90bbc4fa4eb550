"""State and decisions that both clients share; they add only the sending and the sleeping."""

import copy
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from http import HTTPStatus
from typing import Final, Generic, NamedTuple, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.diagnosis import says_route_is_missing
from chatkit_sessions._api.operations import (
    MAX_EXPIRES_AFTER,
    Operation,
    RejectedSession,
    SessionOptions,
)
from chatkit_sessions._api.protocol import Answer, Request, build_request, read_answer, request_id
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.retry import Failure, RetryPolicy
from chatkit_sessions._config.settings import (
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
from chatkit_sessions._http.connections import check_url
from chatkit_sessions._redaction import shown
from chatkit_sessions._sessions.identity import Identity, Scope
from chatkit_sessions._sessions.records import (
    DAY,
    Created,
    Known,
    SessionRecord,
    known_for,
    pause,
    works_for,
)
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ChatKitError,
    ConfigurationError,
    SessionNotRecordedError,
)
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
)
from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore

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

    missing_until: dict[Route, float] = field(default_factory=dict[Route, float])
    _callables: WeakKeyDictionary[object, str] = field(
        default_factory=WeakKeyDictionary[object, str]
    )

    def scope_of_key(self, key: object) -> str:
        """The same for the same key or the same function that gives it, without telling the key."""
        if isinstance(key, SecretStr):
            return hashlib.sha256(key.get_secret_value().encode()).hexdigest()
        new = f"callable {os.urandom(8).hex()}"
        try:
            return self._callables.setdefault(key, new)
        except TypeError:  # a callable that cannot be hashed or weakly referred to
            return new


class Wanted(NamedTuple):
    """A session to be created, and which others are the same."""

    create: Operation[ChatKitSessionResponse]
    user: str
    workflow_id: str
    identity: Identity
    seconds: float
    """How long it is to last."""
    min_remaining: float
    """Seconds that one has to have left to be used again."""


class BaseClient(Generic[KeyCallable]):
    """What is neither sending nor sleeping."""

    def __init__(
        self,
        config: Config[KeyCallable],
        clock: Callable[[], datetime] | None,
        *,
        namespace: str,
    ) -> None:
        check_url(config.base_url)
        if clock is not None:
            check_clock(clock)
        self._config = config
        self._memory = Memory()
        self._scope = self._scope_in(namespace)
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
        store: SessionStore | AsyncSessionStore | NotGiven,
    ) -> Self:
        """A client with other settings on the same connections."""
        config = self._config
        if not isinstance(api_key, NotGiven):
            config = replace(config, api_key=check_key_source(api_key, "`api_key`"))
            if (
                api_key != self._config.api_key
                and self._scope.key is None
                and isinstance(store, NotGiven)
            ):
                raise ConfigurationError(
                    "With another `api_key`, say in which store its sessions belong: pass `store`, "
                    "with a namespace of the tenant's own.",
                    hint="A namespace stands for one tenant: users of two may have the same id. If "
                    "the key is the same tenant's, pass the same store.",
                )
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
        clone._scope = clone._scope_in(  # noqa: SLF001 -- as above
            self._scope.namespace if isinstance(store, NotGiven) else store.namespace
        )
        clone._lifetime = Lifetime(self._lifetime)  # noqa: SLF001 -- as above
        return clone

    def _scope_in(self, namespace: str) -> Scope:
        """Who shares sessions with this client, in a store of that namespace."""
        config = self._config
        return Scope(
            base_url=config.base_url,
            organization=config.organization,
            project=config.project,
            namespace=namespace,
            # In this process, what one tenant sees must not be told to another, of another key.
            key=None if namespace else self._memory.scope_of_key(config.api_key),
        )

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

    # What is known of sessions

    def _wanted(
        self,
        user: str,
        *,
        workflow_id: str | None,
        options: SessionOptions,
        min_remaining: float | timedelta | None = None,
    ) -> Wanted:
        """Check what a session is to be, before anything is sent."""
        workflow_id = self._workflow_id(workflow_id)
        create = operations.create(user, workflow_id=workflow_id, options=options)
        return Wanted(
            create=create,
            user=user,
            workflow_id=workflow_id,
            identity=self._scope.identity(user, create.body or b""),
            seconds=operations.seconds_asked_for(options),
            min_remaining=operations.check_min_remaining(min_remaining, options),
        )

    def _created(
        self, wanted: Wanted, session: ChatKitSessionResponse, *, since: float, share: bool
    ) -> Created:
        """What is to be kept of a new session; a server that echoes less is completed.

        Args:
            wanted: What was asked for.
            session: The answer.
            since: The monotonic clock's reading before the request was sent.
            share: Whether the secret is kept, too.
        """
        workflow = session.workflow or ChatKitWorkflow(id=wanted.workflow_id)
        return Created(
            session=session,
            record=SessionRecord(
                id=session.id,
                user=session.user or wanted.user,
                workflow_id=workflow.id,
                workflow_version=workflow.version,
                expires_at=session.expires_at,
                status=session.status,
                group=wanted.identity.group,
                slot=wanted.identity.slot if share else None,
            ),
            place=self._scope.group_of_session(session.id),
            identity=wanted.identity,
            seconds=works_for(session, asked_for=wanted.seconds, elapsed=self._monotonic() - since),
            kept=known_for(session, asked_for=wanted.seconds),
            share=share,
        )

    def _ended(
        self, session_id: str, known: Known | None, answer: CancelledSession
    ) -> tuple[SessionRecord, float]:
        """The record of a session that has been cancelled, and for how long it is kept."""
        status = answer.status or "cancelled"
        if known is not None:
            return replace(known.record, status=status), known.kept
        # Where the answer does not tell, the contract bounds how long a session can last.
        latest = self._now() + timedelta(seconds=MAX_EXPIRES_AFTER)
        record = SessionRecord(
            id=session_id,
            user=answer.user,
            workflow_id=answer.workflow.id if answer.workflow else None,
            workflow_version=answer.workflow.version if answer.workflow else None,
            expires_at=answer.expires_at or latest,
            status=status,
        )
        return record, MAX_EXPIRES_AFTER + DAY

    def _gave_up(self, deadline: Deadline) -> bool:
        """Whether a call failed by its own limits, so that others may have better luck."""
        return deadline.remaining() == 0 or self._lifetime.ended

    def _pause(self, waits_done: int, deadline: Deadline) -> float:
        """Seconds to wait for another process.

        Raises:
            APITimeoutError: The call has no time left.
        """
        left = deadline.remaining()
        if left == 0:
            raise deadline.error()
        seconds = pause(waits_done, random=self._random)
        return seconds if left is None else min(seconds, left)

    def _token(self) -> bytes:
        """What nobody else has: names a lease or a generation."""
        return os.urandom(16).hex().encode()

    def _raise_first(self, failures: list[ChatKitError]) -> None:
        """Raise the first failure, if there is one; the others are logged."""
        for failure in failures[1:]:
            logger.warning("A session could not be deleted: %s", failure)
        if failures:
            raise failures[0]

    def _infos_from_records(self, known: list[Known]) -> list[ChatKitSessionInfo]:
        infos = [self._info_from_record(each.record.id, each) for each in known]
        return sorted(infos, key=lambda info: info.expires_at, reverse=True)

    def _info_from_record(self, session_id: str, known: Known | None) -> ChatKitSessionInfo:
        if known is None:
            raise SessionNotRecordedError(
                f"{self._config.host} has no route for reading a session, and this client did not "
                f"create, refresh or delete {shown(session_id)} in the last day.",
                hint="Ask the client that created it, or give the clients of all processes one "
                "session store: `store`. The official API cannot be asked for a session.",
            )
        record = known.record
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


def seconds_of(clock: Callable[[], datetime] | None) -> Callable[[], float]:
    """What a client's own store counts time by."""
    return time.monotonic if clock is None else lambda: clock().timestamp()


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
