"""The client for synchronous code, which sends and waits by blocking its thread."""

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self, TypeAlias, Unpack

from pydantic import SecretStr

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import (
    Heartbeat,
    PerProcess,
    ThreadEvent,
    for_each,
    run_blocking,
)
from chatkit_sessions._config.retry_policy import RetryPolicy
from chatkit_sessions._config.settings import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    NOT_GIVEN,
    NotGiven,
    load_settings,
)
from chatkit_sessions._config.validation import as_secret, concealed, reject_awaitable
from chatkit_sessions._http.clients import (
    SuppliedClient,
    SyncHTTPClient,
    errors_of_client,
)
from chatkit_sessions._http.failures import HTTPErrors
from chatkit_sessions._http.own_client import OwnClient, own_client_factory
from chatkit_sessions._http.proxies import proxy_for
from chatkit_sessions._http.sync_network import connect
from chatkit_sessions._sessions.store_access import validate_store
from chatkit_sessions.events import OnEvent
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import (
    FileUpload,
    History,
    SessionOptions,
    StateVariable,
)
from chatkit_sessions.stores.base import SessionStore

from .calls import Lifetime, system_runtime
from .sessions import BaseClient, open_sessions

KeySource: TypeAlias = Callable[[], str | SecretStr]


class ChatKitClient(BaseClient):
    """Creates, refreshes, gets and deletes ChatKit sessions.

    Make one client for the process: it is thread-safe and keeps connections open between calls.
    Close it at the end, or use it as a context manager.

    Args:
        api_key: The OpenAI API key: a string, a SecretStr, or a function that returns one. The
            function is called for each request, so keys can be rotated. Default: `OPENAI_API_KEY`.
        workflow_id: The workflow of new sessions, `wf_…`. Default: `OPENAI_CHATKIT_WORKFLOW_ID`.
        base_url: The API's root. Default: `OPENAI_BASE_URL`, else `https://api.openai.com/v1`.
        organization: Sent as `OpenAI-Organization`. Default: `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`. Default: `OPENAI_PROJECT_ID`.
        timeout: Seconds for a whole call, with all its requests, waits and retries: more than 0, at
            most 1,000,000; default 30. None: no limit.
        max_retries: Attempts after the first, 0 or more, or a RetryPolicy; default 2.
        http_client: Your `httpx.Client` or `httpx2.Client`, or a subclass's instance. The library
            never closes it. Default: the library's own HTTP client.
        store: Where sessions are recorded, and shared by `get_or_create_session`, such as
            a `RedisSessionStore` for several processes. The client never closes it. Default: a new
            `MemorySessionStore`.
        allow_insecure_http: Allow a plain `http://` base URL on another machine.
        clock: For tests: returns the current time, with a time zone. It decides the status of
            sessions and how long a default store keeps them.
        on_event: Called with an `Event` for each create, refresh, retry and so on, such as for
            metrics; see `chatkit_sessions.events`. Default: nothing is reported.

    Raises:
        ConfigurationError: The key is missing, or a setting is invalid.
        RuntimeError: A method is called after the client was closed.
    """

    def __init__(
        self,
        *,
        api_key: str | SecretStr | KeySource | None = None,
        workflow_id: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int | RetryPolicy = DEFAULT_MAX_RETRIES,
        http_client: SyncHTTPClient | None = None,
        store: SessionStore | None = None,
        allow_insecure_http: bool = False,
        clock: Callable[[], datetime] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        api_key = as_secret(api_key)  # local variables are part of tracebacks
        store, http_client = concealed(store), concealed(http_client)
        settings = load_settings(
            api_key=api_key,
            workflow_id=workflow_id,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
            allow_insecure_http=allow_insecure_http,
        )
        if store is not None:
            validate_store(store, owner="ChatKitClient", awaits=False)
        lifetime = Lifetime(type(self).__name__)
        io = SyncIO(settings.base_url, http_client, lifetime)
        self._sessions = open_sessions(
            settings, store, io=io, lifetime=lifetime, clock=clock, on_event=on_event
        )

    def __enter__(self) -> Self:
        self._sessions.calls.lifetime.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sessions.calls.lifetime.leave():
            self.close()

    def close(self) -> None:
        """Close the connections; further calls raise RuntimeError. Closing twice is harmless.

        A closed client opens again when it is entered.

        A client from `with_options` closes only itself, and your `http_client` stays open. Calls in
        progress in other threads get their response, within their deadline, and are not retried.
        """
        run_blocking(self._sessions.close)

    def with_options(
        self,
        *,
        api_key: str | SecretStr | KeySource | NotGiven = NOT_GIVEN,
        workflow_id: str | NotGiven | None = NOT_GIVEN,
        organization: str | NotGiven | None = NOT_GIVEN,
        project: str | NotGiven | None = NOT_GIVEN,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | RetryPolicy | NotGiven = NOT_GIVEN,
        store: SessionStore | NotGiven = NOT_GIVEN,
    ) -> Self:
        """Make a client with other settings on the same connections, such as for one tenant.

        The arguments are the constructor's; an omitted setting stays as it is. Closing this client
        closes the new one, too. If the store has a namespace, another key also needs `store`: a
        store with the tenant's own namespace, or the same store if the tenant is the same.

        Raises:
            ConfigurationError: A setting is invalid.
        """
        key: SecretStr | KeySource | NotGiven = as_secret(api_key)
        api_key, store = key, concealed(store)
        if not isinstance(store, NotGiven):
            validate_store(store, owner="ChatKitClient", awaits=False)
        settings = self._sessions.calls.settings.changed(
            api_key=key,
            workflow_id=workflow_id,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
        )
        return self._derive(settings, store)

    def create_session(
        self,
        user: str,
        *,
        workflow_id: str | None = None,
        workflow_version: str | None = None,
        state_variables: Mapping[str, StateVariable] | None = None,
        tracing: bool | None = None,
        expires_after: int | timedelta | None = None,
        max_requests_per_1_minute: int | None = None,
        file_upload: bool | FileUpload | None = None,
        history: bool | History | None = None,
        automatic_thread_titling: bool | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> ChatKitSessionResponse:
        """Create a session for one of your users: `POST /chatkit/sessions`.

        The API chooses the default of an omitted option. Bounds and defaults are those of OpenAI's
        published API description.

        Args:
            user: Your id of the end user, 1 character or more. Take it from your login, never from
                the browser.
            workflow_id: The workflow, `wf_…`; default: the client's.
            workflow_version: A published version; default: the latest deployed one.
            state_variables: At most 64 values for the workflow, with names of at most 64
                characters: strings of at most 10,485,760 characters, integers of at most 64 bits,
                finite numbers and booleans.
            tracing: Whether the workflow's runs are traced; default: yes.
            expires_after: How long the secret works, 1 to 600 whole seconds or a timedelta;
                default 600.
            max_requests_per_1_minute: The user's messages per minute, 1 or more; default 10.
            file_upload: Whether the user can upload files, or a `FileUpload`, which turns uploads
                on unless `enabled` is False; default: no.
            history: Whether the user can open earlier threads, or a `History`; default: yes.
            automatic_thread_titling: Whether threads get titles automatically; default: yes.
            timeout: Seconds for this call; default: the client's. None: no limit.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside these bounds; nothing was sent.
            ConfigurationError: The workflow id is missing, or the key is invalid.
            APIStatusError: The API rejected the request; the status selects a subclass.
            APIConnectionError: No response arrived. The session may exist; it expires by itself.
            APIResponseValidationError: The response does not match OpenAI's API description, or
                names another user or workflow.
        """
        options = SessionOptions(
            workflow_id=workflow_id,
            workflow_version=workflow_version,
            state_variables=state_variables,
            tracing=tracing,
            expires_after=expires_after,
            max_requests_per_1_minute=max_requests_per_1_minute,
            file_upload=file_upload,
            history=history,
            automatic_thread_titling=automatic_thread_titling,
        )
        return run_blocking(self._sessions.create, user, options, timeout=timeout)

    def get_or_create_session(
        self,
        user: str,
        *,
        min_remaining: float | timedelta | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        **options: Unpack[SessionOptions],
    ) -> ChatKitSessionResponse:
        """Return the user's active session, or create one.

        Concurrent calls share one request to the API and its result, across threads, tasks and all
        processes with the same store. Calls share a session if they have the same server,
        organization, project, namespace (or key), user, and options. The session is in the client's
        store, with its secret, until it expires. A session from the store has no
        `workflow.state_variables` and no fields that this library does not know. During a store
        outage, a session is still created.

        Args:
            user: Your id of the end user, 1 character or more. Take it from your login, never from
                the browser.
            min_remaining: How long the session must still last: seconds or a timedelta, 0 or more
                and less than `expires_after`. Default: 60 seconds, or a fifth of `expires_after` if
                that is less. It does not apply to a session that another caller is creating.
            timeout: Seconds for this call, with the wait for another caller; default: the
                client's. None: no limit.
            options: Those of `create_session`. In `state_variables`, `True`, `1` and `1.0` are
                three values. Tabs that share a session share its `max_requests_per_1_minute`.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: The workflow id is missing, or the key is invalid.
            SessionDeletedError: `delete_sessions` was called for the user during this call.
            APIStatusError: The API rejected the request; the status selects a subclass.
            APIConnectionError: No response arrived. The session may exist; it expires by itself.
            APIResponseValidationError: The response does not match OpenAI's API description, or
                names another user or workflow.
            TypeError: An option does not exist.
        """
        return run_blocking(
            self._sessions.get_or_create,
            user,
            options,
            min_remaining=min_remaining,
            timeout=timeout,
        )

    def refresh_session(
        self,
        client_secret: str | SecretStr,
        *,
        user: str,
        timeout: float | NotGiven | None = NOT_GIVEN,
        **options: Unpack[SessionOptions],
    ) -> ChatKitSessionResponse:
        """Exchange a session's secret for another one, never the same.

        First calls `POST /chatkit/sessions/refresh`, a route that is in use but not in OpenAI's API
        description. The response is accepted only if the session has not ended, has another secret,
        names this user and workflow, and has the options of this call. Otherwise, that session is
        cancelled and a new one is created. A new one is also created if the server rejects the
        request or has no such route.

        Args:
            client_secret: The secret that the widget has now.
            user: Your id of the end user, 1 character or more. Take it from your login: a stolen
                secret is then useless.
            timeout: Seconds for this call, both requests together; default: the client's. None:
                no limit.
            options: Those of `create_session` that the user has today. An omitted option may
                keep the value that it had. To take it back, pass its default.

        Returns:
            A session with another secret.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: The workflow id is missing, or the key is invalid.
            SessionDeletedError: `delete_sessions` was called for the user during this call.
            APIStatusError: The API rejected the creation of a session, or the refresh with 408,
                409, 429 or 5xx.
            APIConnectionError: No response arrived.
            APIResponseValidationError: The response does not match OpenAI's API description, or
                names another user or workflow.
            TypeError: An option does not exist.
        """
        client_secret = as_secret(client_secret)  # local variables are part of tracebacks
        return run_blocking(self._sessions.refresh, client_secret, user, options, timeout=timeout)

    def get_session(
        self, session_id: str, *, timeout: float | NotGiven | None = NOT_GIVEN
    ) -> ChatKitSessionInfo:
        """Return a session's status, expiry, user and workflow, never its secret.

        First calls `GET /chatkit/sessions/{session_id}`, which some ChatKit-compatible servers
        have. OpenAI has no such route: then the result is what this client, or one sharing its
        store, recorded. Records are kept until 24 hours after the session's expiry.

        Args:
            session_id: `session.id`, at most 256 characters.
            timeout: Seconds for this call; default: the client's. None: no limit.

        Returns:
            The session. `source` says where it comes from; `status` follows the clock.

        Raises:
            InvalidRequestError: The session id is invalid; nothing was sent.
            SessionNotRecordedError: The server has no such route, and no record exists.
            SessionNotFoundError: The server has the route, but does not know the session.
            SessionStoreError: The store is unavailable.
            APIStatusError: The API rejected the request for another reason.
            APIConnectionError: No response arrived.
            APIResponseValidationError: The response does not match OpenAI's API description.
        """
        return run_blocking(self._sessions.get, session_id, timeout=timeout)

    def sessions_for(self, user: str) -> list[ChatKitSessionInfo]:
        """List the user's sessions that the client's store has recorded.

        The store has the sessions that this client created, refreshed or deleted, until 24 hours
        after their expiry. It also has those of clients with the same store, server, organization,
        project, and namespace or key. OpenAI has no endpoint to list sessions.

        Args:
            user: Your id of the end user, as passed to `create_session`.

        Returns:
            The sessions without their secrets, the last to expire first. `source` is `record`;
            `status` follows the clock.

        Raises:
            InvalidRequestError: The user is not a string, or is empty.
            SessionStoreError: The store is unavailable.
        """
        return run_blocking(self._sessions.sessions_of, user)

    def delete_session(
        self,
        session_id: str,
        *,
        missing_ok: bool = False,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> None:
        """End a session: its secret stops working. `POST /chatkit/sessions/{session_id}/cancel`.

        A cancelled or expired session counts as ended.

        Args:
            session_id: `session.id`, at most 256 characters.
            missing_ok: Whether a session that the API does not know counts as ended, too.
            timeout: Seconds for this call; default: the client's. None: no limit.

        Raises:
            InvalidRequestError: The session id is invalid; nothing was sent.
            SessionNotFoundError: The API does not know the session, and `missing_ok` is False.
            SessionStoreError: The session has ended, but the store is unavailable and may return
                it until it expires. Delete it again.
            APIStatusError: The API rejected the request for another reason.
            APIConnectionError: No response arrived. The session may be cancelled.
            APIResponseValidationError: The response does not match OpenAI's API description.
        """
        run_blocking(self._sessions.delete, session_id, missing_ok=missing_ok, timeout=timeout)

    def delete_sessions(self, user: str, *, timeout: float | NotGiven | None = NOT_GIVEN) -> None:
        """End all of the user's sessions, such as when the user signs out.

        Eight sessions are cancelled at the same time. If one fails, the others are still cancelled;
        then the first error is raised, and the others are logged.

        If a worker with the same store is creating a session at that moment, the session is
        cancelled, too, and that call raises SessionDeletedError. Later calls get a new session.
        Sessions that the store has not recorded (see `sessions_for`) continue until they expire.

        Args:
            user: Your id of the end user, as passed to `create_session`.
            timeout: Seconds for this call; default: the client's. None: no limit.

        Raises:
            InvalidRequestError: The user is not a string, or is empty; nothing was sent.
            SessionStoreError: The store is unavailable, and sessions may continue; or too few
                replicas confirmed the sign-out (`wait_replicas`). Call it again.
            APIStatusError: The API did not cancel a session. The others are cancelled.
            APIConnectionError: No response arrived for a session. An APITimeoutError says how many
                sessions there was no time for: call it again.
            APIResponseValidationError: A response does not match OpenAI's API description.
        """
        run_blocking(self._sessions.delete_all, user, timeout=timeout)


_heartbeat: Final = PerProcess(Heartbeat)
_NO_LIMIT: Final = nullcontext()


class SyncIO:
    """The `IO` of the synchronous client.

    Args:
        base_url: Where the requests go.
        http_client: The user's; None: the library's own.
        lifetime: Whether the client is open that the connections belong to.
    """

    def __init__(
        self, base_url: str, http_client: SyncHTTPClient | None, lifetime: Lifetime
    ) -> None:
        self.runtime = system_runtime(time.sleep)
        self._lifetime = lifetime
        self.http: SuppliedClient | PerProcess[OwnClient]
        if http_client is None:
            proxy = proxy_for(base_url)
            self.http = PerProcess(own_client_factory(connect, proxy, is_async=False))
            self._http_errors = HTTPErrors("httpx", proxy and proxy.described, supplied=False)
        else:
            self.http = SuppliedClient(http_client)
            self._http_errors = errors_of_client(http_client, is_async=False)

    async def call_key_function(self, function: Callable[[], object]) -> object:
        """See `IO`."""
        return as_secret(reject_awaitable(function(), "api_key", owner="ChatKitClient"))

    async def send(self, request: Request, deadline: Deadline) -> Response:
        """See `IO`."""
        http = self._http_client()
        return await self._http_errors.attempt(http, request, deadline)

    def _http_client(self) -> SuppliedClient | OwnClient:
        if not isinstance(self.http, PerProcess):
            self.http.check_open()
            return self.http
        http = self.http.get()
        if self._lifetime.closed:
            # Again: what was made after another thread has closed must not stay open.
            self._close_connections()
            self._lifetime.check_open()
        return http

    async def close_idle_connections(self) -> None:
        """See `IO`."""
        if isinstance(self.http, PerProcess):
            self.http.get().connections.close_idle()

    async def close(self, *, connections: bool) -> None:
        """See `IO`; calls in other threads go on, within their deadlines."""
        if connections:
            self._close_connections()

    def _close_connections(self) -> None:
        owned = self.http.pop() if isinstance(self.http, PerProcess) else None
        if owned is not None:
            owned.connections.close()

    def limit(
        self, deadline: Deadline, lifetime: Lifetime
    ) -> AbstractAsyncContextManager[object, None]:
        """See `IO`."""
        del deadline, lifetime  # each wait in a thread checks the deadline
        return _NO_LIMIT

    async def sleep(self, seconds: float) -> None:
        """See `IO`."""
        self.runtime.sleep(seconds)

    def new_event(self) -> ThreadEvent:
        """See `IO`."""
        return ThreadEvent()

    def event_loop(self) -> None:
        """See `IO`."""
        return

    def heartbeat(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        """See `IO`."""
        return _heartbeat.get().running(lambda: run_blocking(flow), seconds)

    async def for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        """See `IO`."""
        for_each(lambda item: run_blocking(flow, item), items, most=at_once)

    def shielded(self) -> AbstractContextManager[object]:
        """See `IO`."""
        return nullcontext()
