"""The two services, and the checks of their arguments."""

import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

from pydantic import SecretStr

from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._config.settings import WORKFLOW_VARIABLE
from chatkit_sessions._config.validation import (
    as_secret,
    concealed,
    problem_with_id,
    reject_awaitable,
    validate_client_secret,
    validate_on_event,
)
from chatkit_sessions._redaction import safe_repr, type_of
from chatkit_sessions._sessions.store_access import validate_store
from chatkit_sessions.errors import ConfigurationError, InvalidRequestError
from chatkit_sessions.events import OnEvent
from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from ._flow import ServiceFlow
from ._records import SessionContext, digest
from ._rules import (
    Audience,
    ServiceRequest,
    ServiceResponse,
    SessionRules,
    describe_workflows,
)

if TYPE_CHECKING:
    from chatkit_sessions import AsyncChatKitClient, ChatKitClient

T = TypeVar("T")

DEFAULT_PROJECT: Final = "default"


class SessionsService:
    """Issues ChatKit sessions and verifies their client secrets. Safe to use from several threads.

    Args:
        store: Where sessions are stored, such as a `RedisSessionStore` that all issuing and
            verifying processes share. The service never closes it.
        workflows: The workflow ids that exist: your own names, such as `{"support"}`. A session of
            another one is neither created nor refreshed nor accepted. Default: any id.
        api_keys: The keys that `SessionsWSGIApp` accepts, or a mapping of keys to projects. Keys of
            one project see the same sessions. Default: none; only clients from `client` create
            sessions.
        max_requests_per_user_per_1_minute: The requests that a user can make in any minute with
            all sessions together, in all processes, 1 or more; default: no limit. It counts the
            same requests as the limit of a session. Users of different projects count apart.
        clock: For tests: returns the current time, with a time zone. Requests are counted by the
            store's clock.
        on_event: Called with an `Event` for each verification, and by the clients from `client`,
            such as for metrics; see `chatkit_sessions.events`. Default: nothing is reported.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        workflows: Collection[str] | None = None,
        api_keys: Mapping[str, str] | Iterable[str | SecretStr] = (),
        max_requests_per_user_per_1_minute: int | None = None,
        clock: Callable[[], datetime] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        keys = _conceal_keys(api_keys)
        del api_keys  # local variables are part of tracebacks
        store = concealed(store)
        self._store, self._clock, self._on_event = store, clock, on_event
        validate_store(store, owner="SessionsService", awaits=False)
        user_limit = max_requests_per_user_per_1_minute
        self._workflows = known = _validate_workflows(workflows)
        self._has_keys = bool(keys)
        self._flow = _make_flow(store, keys, known, user_limit, clock=clock, on_event=on_event)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    def verify(
        self,
        client_secret: str | SecretStr | None,
        *,
        workflow_id: str | None = None,
        project: str | None = None,
        count: bool | Callable[[], bool] = True,
    ) -> SessionContext:
        """Return the session behind a request to your chat server.

        Args:
            client_secret: The secret from `Authorization: Bearer …`; None if the request has none.
            workflow_id: The workflow that this chat server runs: the secrets of other workflows
                are unknown to it. Default: any of the service's `workflows`.
            project: The project whose sessions this chat server accepts. Default: any.
            count: Whether the request counts towards the session's `max_requests_per_1_minute`;
                default: yes. Pass False for requests that only read. A function is called once
                the secret is verified: let it read the body. The session is then read again, as it
                may have ended meanwhile. The function's exceptions propagate unchanged.

        Returns:
            The session.

        Raises:
            ConfigurationError: The service has `workflows`, but not this one. Or `count` is a
                coroutine function, which AsyncSessionsService takes.
            InvalidRequestError: The workflow or the project is not a string, or is empty; or the
                secret is no text, or `count` is of another type.
            InvalidClientSecretError: The secret is missing, unknown, of another workflow or
                project, expired or cancelled; see `reason`.
            ClientSecretRateLimitError: The session has reached its rate limit.
            SessionStoreError: The store is unavailable.
        """
        client_secret = as_secret(client_secret)  # local variables are part of tracebacks
        secret = _reject_no_text(client_secret)
        _validate_count(count)
        is_counted = _as_flow(count, "count") if callable(count) else count
        audience = _audience(self._workflows, workflow_id, project)
        return run_blocking(self._flow.verify, secret, audience, count=is_counted)

    def sessions_for(self, user: str, *, project: str = DEFAULT_PROJECT) -> list[SessionContext]:
        """Return the user's active sessions, whoever created them.

        Args:
            user: The end user's id.
            project: The project that they were created in.

        Returns:
            The sessions, the last to expire first.

        Raises:
            InvalidRequestError: The user or the project is not a string, or is empty.
            SessionStoreError: The store is unavailable.
        """
        return run_blocking(
            self._flow.sessions_for,
            _validate_text("user", user),
            _validate_text("project", project),
        )

    def delete_sessions(self, user: str, *, project: str = DEFAULT_PROJECT) -> None:
        """End all of the user's sessions, whoever created them: in process, or over REST.

        No secret that was returned before this call works after it. A refresh that is under way
        fails. Clients that share a session (`get_or_create_session`) may return it until it expires
        unless the user also signs out at one of them: `delete_sessions` of a client from `client`
        does both.

        Args:
            user: The end user's id.
            project: The project that the sessions were created in.

        Raises:
            InvalidRequestError: The user or the project is not a string, or is empty.
            SessionStoreError: The store is unavailable, and sessions may continue; or too few
                replicas confirmed the sign-out (`wait_replicas`). Call it again.
        """
        run_blocking(
            self._flow.end_sessions,
            _validate_text("user", user),
            _validate_text("project", project),
        )

    def client(
        self,
        *,
        workflow_id: str | None = None,
        project: str = DEFAULT_PROJECT,
        store: SessionStore | None = None,
        timeout: float | None = 30.0,
    ) -> "ChatKitClient":
        """Make a client whose sessions this service issues, without a network or an API key.

        During a store outage its calls raise SessionStoreError.

        Args:
            workflow_id: The workflow of new sessions, one of `workflows`. Default: their only one;
                otherwise `OPENAI_CHATKIT_WORKFLOW_ID`, or each call names one.
            project: The project whose sessions the client creates and sees; default `default`.
            store: Where the client records and shares sessions. Default: the service's store, so
                that clients in other processes share them, too.
            timeout: Seconds for a whole call, with its waits: more than 0, at most 1,000,000;
                default 30. None: no limit.

        Returns:
            The client. Close it when it is no longer used.

        Raises:
            ConfigurationError: The service has no such workflow, or another argument is invalid.
        """
        from ._in_process import in_process_client  # noqa: PLC0415 -- only this needs httpx

        store = self._store if store is None else concealed(store)
        return in_process_client(
            self._flow,
            workflow_id=_workflow_of_client(workflow_id, self._workflows),
            project=project,
            store=store,
            timeout=timeout,
            clock=self._clock,
            on_event=self._on_event,
        )

    def handle(
        self, request: ServiceRequest, *, read: Callable[[], bytes] | None = None
    ) -> ServiceResponse:
        """Respond to a request to one of the routes.

        Args:
            request: The request.
            read: Reads the body, once the API key is verified. Default: the request has it.
        """
        return run_blocking(self._flow.handle, request, read=read and _as_flow(read, "read"))


class AsyncSessionsService:
    """`SessionsService` for async code. Safe to use from several tasks.

    Args:
        store: Where sessions are stored, such as an `AsyncRedisSessionStore` that all issuing and
            verifying processes share, or a `MemorySessionStore`. The service never closes it.
        workflows: The workflow ids that exist: your own names, such as `{"support"}`. A session of
            another one is neither created nor refreshed nor accepted. Default: any id.
        api_keys: The keys that `SessionsApp` accepts, or a mapping of keys to projects. Keys of
            one project see the same sessions. Default: none; only clients from `client` create
            sessions.
        max_requests_per_user_per_1_minute: The requests that a user can make in any minute with
            all sessions together, in all processes, 1 or more; default: no limit. It counts the
            same requests as the limit of a session. Users of different projects count apart.
        clock: For tests: returns the current time, with a time zone. Requests are counted by the
            store's clock.
        on_event: Called with an `Event` for each verification, and by the clients from `client`,
            such as for metrics; see `chatkit_sessions.events`. Default: nothing is reported.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        store: AsyncSessionStore | MemorySessionStore,
        *,
        workflows: Collection[str] | None = None,
        api_keys: Mapping[str, str] | Iterable[str | SecretStr] = (),
        max_requests_per_user_per_1_minute: int | None = None,
        clock: Callable[[], datetime] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        keys = _conceal_keys(api_keys)
        del api_keys  # local variables are part of tracebacks
        store = concealed(store)
        self._store, self._clock, self._on_event = store, clock, on_event
        validate_store(store, owner="AsyncSessionsService", awaits=True)
        user_limit = max_requests_per_user_per_1_minute
        self._workflows = known = _validate_workflows(workflows)
        self._has_keys = bool(keys)
        self._flow = _make_flow(store, keys, known, user_limit, clock=clock, on_event=on_event)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    async def verify(
        self,
        client_secret: str | SecretStr | None,
        *,
        workflow_id: str | None = None,
        project: str | None = None,
        count: bool | Callable[[], bool | Awaitable[bool]] = True,
    ) -> SessionContext:
        """Return the session behind a request to your chat server.

        Args:
            client_secret: The secret from `Authorization: Bearer …`; None if the request has none.
            workflow_id: The workflow that this chat server runs: the secrets of other workflows
                are unknown to it. Default: any of the service's `workflows`.
            project: The project whose sessions this chat server accepts. Default: any.
            count: Whether the request counts towards the session's `max_requests_per_1_minute`;
                default: yes. Pass False for requests that only read. A function, which may be a
                coroutine function, is called once the secret is verified: let it read the body.
                The session is then read again, as it may have ended meanwhile. The function's
                exceptions propagate unchanged.

        Returns:
            The session.

        Raises:
            ConfigurationError: The service has `workflows`, but not this one.
            InvalidRequestError: The workflow or the project is not a string, or is empty; or the
                secret is no text, or `count` is of another type.
            InvalidClientSecretError: The secret is missing, unknown, of another workflow or
                project, expired or cancelled; see `reason`.
            ClientSecretRateLimitError: The session has reached its rate limit.
            SessionStoreError: The store is unavailable.
        """
        client_secret = as_secret(client_secret)  # local variables are part of tracebacks
        secret = _reject_no_text(client_secret)
        _validate_count(count)
        audience = _audience(self._workflows, workflow_id, project)
        return await self._flow.verify(secret, audience, count=count)

    async def sessions_for(
        self, user: str, *, project: str = DEFAULT_PROJECT
    ) -> list[SessionContext]:
        """Return the user's active sessions, whoever created them.

        Args:
            user: The end user's id.
            project: The project that they were created in.

        Returns:
            The sessions, the last to expire first.

        Raises:
            InvalidRequestError: The user or the project is not a string, or is empty.
            SessionStoreError: The store is unavailable.
        """
        return await self._flow.sessions_for(
            _validate_text("user", user), _validate_text("project", project)
        )

    async def delete_sessions(self, user: str, *, project: str = DEFAULT_PROJECT) -> None:
        """End all of the user's sessions, whoever created them: in process, or over REST.

        No secret that was returned before this call works after it. A refresh that is under way
        fails. Clients that share a session (`get_or_create_session`) may return it until it expires
        unless the user also signs out at one of them: `delete_sessions` of a client from `client`
        does both.

        Args:
            user: The end user's id.
            project: The project that the sessions were created in.

        Raises:
            InvalidRequestError: The user or the project is not a string, or is empty.
            SessionStoreError: The store is unavailable, and sessions may continue; or too few
                replicas confirmed the sign-out (`wait_replicas`). Call it again.
        """
        await self._flow.end_sessions(
            _validate_text("user", user), _validate_text("project", project)
        )

    def client(
        self,
        *,
        workflow_id: str | None = None,
        project: str = DEFAULT_PROJECT,
        store: AsyncSessionStore | MemorySessionStore | None = None,
        timeout: float | None = 30.0,
    ) -> "AsyncChatKitClient":
        """Make a client whose sessions this service issues, without a network or an API key.

        During a store outage its calls raise SessionStoreError.

        Args:
            workflow_id: The workflow of new sessions, one of `workflows`. Default: their only one;
                otherwise `OPENAI_CHATKIT_WORKFLOW_ID`, or each call names one.
            project: The project whose sessions the client creates and sees; default `default`.
            store: Where the client records and shares sessions. Default: the service's store, so
                that clients in other processes share them, too.
            timeout: Seconds for a whole call, with its waits: more than 0, at most 1,000,000;
                default 30. None: no limit.

        Returns:
            The client. Close it when it is no longer used.

        Raises:
            ConfigurationError: The service has no such workflow, or another argument is invalid.
        """
        from ._in_process import in_process_async_client  # noqa: PLC0415 -- as above

        store = self._store if store is None else concealed(store)
        return in_process_async_client(
            self._flow,
            workflow_id=_workflow_of_client(workflow_id, self._workflows),
            project=project,
            store=store,
            timeout=timeout,
            clock=self._clock,
            on_event=self._on_event,
        )

    async def handle(
        self, request: ServiceRequest, *, read: Callable[[], bytes | Awaitable[bytes]] | None = None
    ) -> ServiceResponse:
        """Respond to a request to one of the routes.

        Args:
            request: The request.
            read: Reads the body, once the API key is verified; it may be a coroutine function.
                Default: the request has it.
        """
        return await self._flow.handle(request, read=read)


_KEY: Final = re.compile(r"[!-~]+")
_MIN_KEY_LENGTH: Final = 16
# `sk-…` and `ek_…`, random base64, and 160 random bits or more in hexadecimal.
_LIKE_A_KEY: Final = re.compile(
    r"(?:sk-|ek_)[!-~]{13,}"
    r"|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9_+/=\-]{32,}"
    r"|[0-9a-fA-F]{40,}"
)
_KEYS_HINT: Final = (
    'The key comes first, then its project: `api_keys={"sk-…": "shop"}`. '
    "`secrets.token_urlsafe(32)` makes a key."
)

_ConcealedKeys: TypeAlias = Sequence[tuple[SecretStr | None, SecretStr | None]] | None


def _conceal_keys(api_keys: object) -> _ConcealedKeys:
    """Wrap keys and projects as SecretStr, before any validation.

    A traceback has the local variables of its frames, and many error reports print them. A project
    may be a key, too: callers confuse the two.

    Returns:
        Each key with its project, None for one that is not a string; None if `api_keys` is not a
        collection.
    """
    if isinstance(api_keys, str | bytes | SecretStr) or not isinstance(api_keys, Iterable):
        return None
    if isinstance(api_keys, Mapping):
        projects = cast("Mapping[object, object]", api_keys)
        return [(_conceal(key), _conceal(project)) for key, project in projects.items()]
    default = SecretStr(DEFAULT_PROJECT)
    return [(_conceal(key), default) for key in cast("Iterable[object]", api_keys)]


def _conceal(text: object) -> SecretStr | None:
    if isinstance(text, str):
        return SecretStr(text)
    return text if isinstance(text, SecretStr) else None


def _project_finder(keys: _ConcealedKeys) -> Callable[[SecretStr], str | None]:
    """Return a function that finds an API key's project among these keys' digests.

    Args:
        keys: The result of `_conceal_keys`.

    Raises:
        ConfigurationError: A key or a project is invalid.
    """
    if keys is None:
        raise ConfigurationError(
            "`api_keys` must be a collection of keys, or a mapping of keys to projects."
        )
    projects = [(digest(_validate_key(key)), _validate_project(project)) for key, project in keys]

    def find_project(api_key: SecretStr) -> str | None:
        presented, found = digest(api_key), None
        for known, project in projects:  # all of them, whichever is equal
            if hmac.compare_digest(known, presented):
                found = project
        return found

    return find_project


def _validate_key(key: SecretStr | None) -> SecretStr:
    # A header can carry it, as one word.
    if key is None or not _KEY.fullmatch(key.get_secret_value()):
        raise ConfigurationError(
            "Each of `api_keys` must be a string of printable ASCII characters without spaces."
        )
    if len(key) < _MIN_KEY_LENGTH:
        raise ConfigurationError(
            f"Each of `api_keys` must have {_MIN_KEY_LENGTH} characters or more, and one has "
            f"{len(key)}.",
            hint=_KEYS_HINT,
        )
    return key


def _validate_project(project: SecretStr | None) -> str:
    if not project:
        raise ConfigurationError("The project of each of `api_keys` must be a name.")
    if _LIKE_A_KEY.fullmatch(project.get_secret_value()):
        raise ConfigurationError("A project of `api_keys` looks like a key.", hint=_KEYS_HINT)
    return project.get_secret_value()


def _validate_workflows(workflows: object) -> frozenset[str] | None:
    """Reject anything but a collection of workflow ids.

    Raises:
        ConfigurationError: It is no collection, or an element is not a string.
    """
    if workflows is None:
        return None
    if isinstance(workflows, str | bytes) or not isinstance(workflows, Iterable):
        raise ConfigurationError(
            f"`workflows` must be a collection of ids, such as {{'support'}}, got "
            f"{safe_repr(workflows)}."
        )
    known = list(cast("Iterable[object]", workflows))
    for each in known:
        problem = problem_with_id(each)
        if problem is not None:
            raise ConfigurationError(
                "Each of `workflows` must be an id, such as 'support'. One "
                f"{problem}: {safe_repr(each)}."
            )
    return frozenset(map(str, known))


def _workflow_of_client(workflow_id: str | None, workflows: frozenset[str] | None) -> str | None:
    """The workflow of a client's new sessions; None: each call names one.

    Raises:
        ConfigurationError: The service has no such workflow.
    """
    if workflow_id is not None:
        _validate_workflow(workflow_id, workflows)
        return workflow_id
    if workflows is not None and len(workflows) == 1:
        return min(workflows)
    named = os.environ.get(WORKFLOW_VARIABLE) or None
    if named is not None:
        _validate_workflow(named, workflows, source=f", which {WORKFLOW_VARIABLE} names")
    return named


def _validate_workflow(
    workflow_id: object, workflows: frozenset[str] | None, *, source: str = ""
) -> None:
    """Reject a workflow that the service does not have.

    Raises:
        ConfigurationError: The service has `workflows`, but no such one.
    """
    if workflows is None or (isinstance(workflow_id, str) and workflow_id in workflows):
        return
    raise ConfigurationError(
        f"This service has no workflow {safe_repr(workflow_id)}{source}.",
        hint=describe_workflows(workflows),
    )


def _audience(
    workflows: frozenset[str] | None, workflow_id: str | None, project: str | None
) -> Audience:
    """Whose sessions a chat server accepts.

    Raises:
        ConfigurationError: The service has no such workflow.
        InvalidRequestError: The workflow or the project is not a string, or is empty.
    """
    if workflow_id is not None:
        _validate_workflow(_validate_text("workflow_id", workflow_id), workflows)
    if project is not None:
        _validate_text("project", project)
    return Audience(workflow_id, project)


def _validate_count(count: object) -> None:
    """Reject a text such as `no`, which would count.

    Raises:
        InvalidRequestError: It is neither True nor False, nor a function.
    """
    if not isinstance(count, bool) and not callable(count):
        raise InvalidRequestError(
            f"`count` must be True, False or a function, got {safe_repr(count)}."
        )


def _validate_text(argument: str, value: object) -> str:
    """Reject anything but a user's id, or a project.

    Raises:
        InvalidRequestError: It is not a string, or is empty.
    """
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(
            f"`{argument}` must be a string of 1 character or more, got {safe_repr(value)}."
        )
    return value


def _validate_user_limit(limit: object) -> None:
    """Reject anything but a number of requests, 1 or more, or None."""
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
        return
    raise ConfigurationError(
        "`max_requests_per_user_per_1_minute` must be an integer, 1 or more, or None, got "
        f"{safe_repr(limit)}."
    )


AnyService = TypeVar("AnyService", bound=SessionsService | AsyncSessionsService)


def validate_service(
    service: object,
    expected: type[AnyService],
    *,
    workflow_id: str | None = None,
    project: str | None = None,
    count: bool | None = None,
    needs_keys: bool = False,
) -> None:
    """Reject, when a chat server is set up, what would fail each of its requests.

    Args:
        service: The application's service.
        expected: The class that the framework needs.
        workflow_id: The workflow that the chat server runs; None: any of the service's.
        project: The project whose sessions the chat server accepts; None: any.
        count: Whether requests count; None: the chat server decides for each.
        needs_keys: Whether requests need one of the service's API keys.

    Raises:
        ConfigurationError: The service is of another class, or has no such workflow, or no keys.
        InvalidRequestError: The workflow or the project is not a string, or is empty.
    """
    if not isinstance(service, expected):
        raise ConfigurationError(
            f"`service` must be the {expected.__name__} that verifies, got {type_of(service)}."
        )
    _audience(service._workflows, workflow_id, project)  # noqa: SLF001 -- of one module
    if count is not None:
        _validate_count(count)
    if needs_keys and not service._has_keys:  # noqa: SLF001 -- as above
        raise ConfigurationError(
            "The service has no `api_keys`, so its routes would reject every request.",
            hint=_KEYS_HINT,
        )


def _make_flow(
    store: SessionStore | AsyncSessionStore,
    keys: _ConcealedKeys,
    workflows: frozenset[str] | None,
    user_limit: int | None,
    *,
    clock: Callable[[], datetime] | None,
    on_event: OnEvent | None,
) -> ServiceFlow:
    """Validate the other arguments of a service, except its store, and make its flow."""
    _validate_user_limit(user_limit)
    find_project = _project_finder(keys)
    validate_on_event(on_event)
    rules = SessionRules(
        namespace=store.namespace,
        find_project=find_project,
        workflows_of=lambda _: workflows,
        # In UTC, as the `Date` header is written.
        clock=(lambda: clock().astimezone(UTC)) if clock else None,
        token_hex=secrets.token_hex,
        user_limit=user_limit,
    )
    return ServiceFlow(store, rules, on_event)


def _as_flow(function: Callable[[], T], argument: str) -> Callable[[], Awaitable[T]]:
    async def call() -> T:
        return reject_awaitable(function(), argument, owner="SessionsService")

    return call


def _reject_no_text(client_secret: object) -> SecretStr | None:
    """Reject what no request can carry, such as a session. Any text may be one of a request."""
    if client_secret is None or isinstance(client_secret, SecretStr):
        return client_secret
    return validate_client_secret(client_secret)
