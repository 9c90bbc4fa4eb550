"""The client for asynchronous code, under asyncio or trio."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Self, Unpack

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.arguments import validate_client_secret, validate_user
from chatkit_sessions._config.retry import RetryPolicy
from chatkit_sessions._config.settings import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    NOT_GIVEN,
    NotGiven,
    load_settings,
)
from chatkit_sessions._config.validation import as_secret, validate_store
from chatkit_sessions._http.clients import (
    AsyncHTTPClient,
)
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import (
    FileUpload,
    History,
    SessionOptions,
    StateVariable,
    reject_unknown_options,
)
from chatkit_sessions.stores.base import AsyncSessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .async_io import AsyncIO, AsyncKeySource


class AsyncChatKitClient(AsyncIO):
    """Creates, refreshes, gets and deletes ChatKit sessions: `ChatKitClient` for async code.

    One client serves a whole process: it is safe to use from many tasks, keeps connections open
    between calls, and works in several event loops, each with connections of its own that are
    closed when the loop ends. Close it at the end, or use it as an asynchronous context manager.

    Args:
        api_key: The OpenAI API key, as a string, a SecretStr or a function, plain or async, that
            returns one and is called for each request, so that keys can be rotated. Default:
            `OPENAI_API_KEY`.
        workflow_id: The workflow behind sessions, `wf_…`. Default: `OPENAI_CHATKIT_WORKFLOW_ID`.
        base_url: The API's root. Default: `OPENAI_BASE_URL`, else `https://api.openai.com/v1`.
        organization: Sent as `OpenAI-Organization`. Default: `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`. Default: `OPENAI_PROJECT_ID`.
        timeout: Seconds for each whole call, with all its requests and waits: more than 0, at most
            1,000,000; default 30; None for no limit.
        max_retries: Attempts after a failed first one, 0 or more, or a RetryPolicy; default 2.
        http_client: Your `httpx.AsyncClient` or `httpx2.AsyncClient`, or one of a subclass, to send
            with; used as it is and never closed.
        store: Where sessions are recorded and, by `get_or_create_session`, shared: such as
            an `AsyncRedisSessionStore` for all processes of a backend; never closed. Default: a
            `MemorySessionStore` of the client's own.
        allow_insecure_http: Permit a plain `http://` base URL on another machine than this one.
        clock: Returns the present, with a time zone, for the status of sessions and for how long
            the client's own store keeps them; for tests.

    Raises:
        ConfigurationError: No key was given, or a setting cannot be used.
        RuntimeError: By each call, once the client is closed.
    """

    def __init__(
        self,
        *,
        api_key: str | SecretStr | AsyncKeySource | None = None,
        workflow_id: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int | RetryPolicy = DEFAULT_MAX_RETRIES,
        http_client: AsyncHTTPClient | None = None,
        store: AsyncSessionStore | MemorySessionStore | None = None,
        allow_insecure_http: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        api_key = as_secret(api_key)  # local variables are part of tracebacks
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
            validate_store(store, asynchronous=not isinstance(store, MemorySessionStore))
        super().__init__(settings, store, http_client=http_client, clock=clock)

    def with_options(
        self,
        *,
        api_key: str | SecretStr | AsyncKeySource | NotGiven = NOT_GIVEN,
        workflow_id: str | NotGiven | None = NOT_GIVEN,
        organization: str | NotGiven | None = NOT_GIVEN,
        project: str | NotGiven | None = NOT_GIVEN,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | RetryPolicy | NotGiven = NOT_GIVEN,
        store: AsyncSessionStore | MemorySessionStore | NotGiven = NOT_GIVEN,
    ) -> Self:
        """Make a client with other settings on the same connections, such as for one tenant.

        An omitted setting stays as it is. The new client closes with this one. Where the store has
        a namespace, another key needs `store` too: with the tenant's own namespace, or the same
        store, if the key is the same tenant's.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        key: SecretStr | AsyncKeySource | NotGiven = as_secret(api_key)
        api_key = key
        if not isinstance(store, NotGiven):
            validate_store(store, asynchronous=not isinstance(store, MemorySessionStore))
        return self._derive(
            api_key=key,
            workflow_id=workflow_id,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
            store=store,
        )

    async def create_session(
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

        The API decides on omitted options; bounds and defaults are those of OpenAI's published API
        description.

        Args:
            user: Your own id of the end user, 1 character or more. Take it from your login, never
                from what the browser sent.
            workflow_id: Another workflow than the client's.
            workflow_version: A published version; default: the latest deployed one.
            state_variables: At most 64 values for the workflow: strings of at most 10,485,760
                characters, integers of at most 64 bits, finite numbers and booleans, under names
                of at most 64 characters.
            tracing: Whether the workflow's runs are traced; default: yes.
            expires_after: How long the secret works, 1 to 600 whole seconds or a timedelta;
                default 600.
            max_requests_per_1_minute: The user's messages per minute, 1 or more; default 10.
            file_upload: Whether the user can upload files, or a `FileUpload`, which switches
                uploads on unless `enabled` is False; default: no.
            history: Whether the user can open earlier threads, or a `History`; default: yes.
            automatic_thread_titling: Whether threads get titles by themselves; default: yes.
            timeout: Seconds for this call; default: the client's; None: no limit.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside these bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            APIStatusError: The API rejected the request, as one of its subclasses.
            APIConnectionError: No response came; a session may exist and expires by itself.
            APIResponseValidationError: The response is not what the contract says.
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
        request, deadline = self._session_request(user, options), self._deadline(timeout)
        return await self._bounded(deadline, self._create, request, deadline)

    async def get_or_create_session(
        self,
        user: str,
        *,
        min_remaining: float | timedelta | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        **options: Unpack[SessionOptions],
    ) -> ChatKitSessionResponse:
        """Return the user's session while it lasts, and create one where there is none.

        Concurrent calls of all threads, tasks and processes share one request to the API and its
        response. The same session is one of this server, organization, project, namespace (or
        key), user, workflow and version, with exactly these options. It is kept in the client's
        store, secret included, until it expires; a session from the store has neither
        `workflow.state_variables` nor fields that this library does not know. During a store
        outage a session is created all the same.

        Args:
            user: As for `create_session`.
            min_remaining: Seconds, or a timedelta, that the session must have left: 0 or more and
                less than `expires_after`. Default: 60, or a fifth of `expires_after` if that is
                less. A session that another caller is creating is returned whatever it has left.
            timeout: Seconds for this call, waiting for another caller included; default: the
                client's; None: no limit.
            options: As for `create_session`. In `state_variables`, `True`, `1` and `1.0` are three
                values; tabs that share a session share `max_requests_per_1_minute`.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            SessionDeletedError: `delete_sessions` ended the user's sessions meanwhile.
            APIStatusError: The API rejected the request, as one of its subclasses.
            APIConnectionError: No response came; a session may exist and expires by itself.
            APIResponseValidationError: The response is not what the contract says.
            TypeError: An option does not exist.
        """
        reject_unknown_options(
            options, method="get_or_create_session", others=("min_remaining", "timeout")
        )
        request = self._session_request(user, options, min_remaining=min_remaining)
        deadline = self._deadline(timeout)
        return await self._bounded(deadline, self._get_or_create, request, deadline)

    async def refresh_session(
        self,
        client_secret: str | SecretStr,
        *,
        user: str,
        timeout: float | NotGiven | None = NOT_GIVEN,
        **options: Unpack[SessionOptions],
    ) -> ChatKitSessionResponse:
        """Exchange a session's secret, before it expires, for another one; never the same.

        Asks `POST /chatkit/sessions/refresh` first, a route that is in use but not in OpenAI's API
        description. Its response counts only if it has another secret and names this user and this
        workflow; otherwise, and where the server rejects the request or lacks the route, a new
        session is created.

        Args:
            client_secret: The secret that the widget holds now.
            user: As for `create_session`: from your login, so that a stolen secret is of no use.
            timeout: Seconds for this call, both requests together; default: the client's; None:
                no limit.
            options: As for `create_session`; pass the same options as there. They apply where a
                new session is created; a refreshed session keeps its own.

        Returns:
            A session with another secret.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            SessionDeletedError: `delete_sessions` ended the user's sessions meanwhile.
            APIStatusError: The API refused to create a session, limits the rate (429) or fails
                (5xx).
            APIConnectionError: No response came.
            APIResponseValidationError: The response to create is not what the contract says.
            TypeError: An option does not exist.
        """
        client_secret = as_secret(client_secret)  # local variables are part of tracebacks
        secret = validate_client_secret(client_secret)
        reject_unknown_options(options, method="refresh_session", others=("user", "timeout"))
        request = self._session_request(user, options, replaces=secret)
        deadline = self._deadline(timeout)
        return await self._bounded(deadline, self._refresh, request, deadline)

    async def get_session(
        self, session_id: str, *, timeout: float | NotGiven | None = NOT_GIVEN
    ) -> ChatKitSessionInfo:
        """Return a session's status, expiry, user and workflow, never its secret.

        Asks `GET /chatkit/sessions/{session_id}`, which some ChatKit-compatible servers offer.
        OpenAI has no such route: there the session comes from what this client, or one sharing its
        store, recorded until 24 hours after the session's expiry.

        Args:
            session_id: `session.id`, at most 256 characters.
            timeout: Seconds for this call; default: the client's; None: no limit.

        Returns:
            The session; its `source` says where it comes from, its `status` follows the clock.

        Raises:
            InvalidRequestError: The id cannot be one; nothing was sent.
            SessionNotRecordedError: The server has no such route and no record exists.
            SessionNotFoundError: The server has the route and does not know the session.
            SessionStoreError: The store does not respond.
            APIStatusError: The API rejected the request in another way.
            APIConnectionError: No response came.
            APIResponseValidationError: The response is not what the contract says.
        """
        operation, deadline = operations.get(session_id), self._deadline(timeout)
        return await self._bounded(deadline, self._get, operation, session_id, deadline)

    async def sessions_for(self, user: str) -> list[ChatKitSessionInfo]:
        """List the user's sessions that the client's store has recorded, the last to expire first.

        Those are the sessions that clients with the same store (and server, organization, project
        and namespace or key) created, refreshed or deleted, until 24 hours after their expiry;
        OpenAI has no endpoint to list sessions.

        Args:
            user: Your own id of the end user, as passed to `create_session`.

        Returns:
            The sessions, without secrets; their `source` is `record`, their `status` follows the
            clock.

        Raises:
            InvalidRequestError: The user is not a string, or an empty one.
            SessionStoreError: The store does not respond.
        """
        deadline = self._deadline(NOT_GIVEN)
        return await self._bounded(deadline, self._list, validate_user(user), deadline)

    async def delete_session(
        self,
        session_id: str,
        *,
        missing_ok: bool = False,
        timeout: float | NotGiven | None = NOT_GIVEN,
    ) -> None:
        """End a session: its secret stops working. `POST /chatkit/sessions/{session_id}/cancel`.

        A session that has been cancelled or has expired already counts as ended.

        Args:
            session_id: `session.id`, at most 256 characters.
            missing_ok: Whether a session that the API does not know counts as ended, too.
            timeout: Seconds for this call; default: the client's; None: no limit.

        Raises:
            InvalidRequestError: The id cannot be one; nothing was sent.
            SessionNotFoundError: The API does not know the session, unless `missing_ok`.
            SessionStoreError: The session has ended, but the store does not respond and may return
                it until it expires: delete it again.
            APIStatusError: The API rejected the request in another way.
            APIConnectionError: No response came; the session may be cancelled.
            APIResponseValidationError: The response is not what the contract says.
        """
        operation, deadline = operations.cancel(session_id), self._deadline(timeout)
        await self._bounded(
            deadline, self._delete, operation, session_id, deadline, missing_ok=missing_ok
        )

    async def delete_sessions(
        self, user: str, *, timeout: float | NotGiven | None = NOT_GIVEN
    ) -> None:
        """End all of the user's sessions, as when the user signs out.

        A session that any worker with the same store is creating meanwhile is cancelled, too, and
        that call raises SessionDeletedError; later calls get a new session. Sessions that the store
        has not recorded (see `sessions_for`) continue until they expire.

        Args:
            user: Your own id of the end user, as passed to `create_session`.
            timeout: Seconds for this call; default: the client's; None: no limit.

        Raises:
            InvalidRequestError: The user is not a string, or an empty one; nothing was sent.
            SessionStoreError: The store does not respond, and sessions may continue: ask again.
            APIStatusError: The API refused to cancel a session; the others are cancelled.
            APIConnectionError: No response came for one of them.
            APIResponseValidationError: A response is not what the contract says.
        """
        deadline = self._deadline(timeout)
        await self._bounded(deadline, self._delete_all, validate_user(user), deadline)
