"""The client for synchronous code."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._api.operations import Operation, RejectedSession, SessionOptions
from chatkit_sessions._api.protocol import Answer, Request
from chatkit_sessions._concurrency.per_process import PerProcess
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.retry import RetryPolicy
from chatkit_sessions._config.settings import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    NOT_GIVEN,
    NotGiven,
    as_secret,
    check_store,
    load_config,
    refuse_awaitable,
)
from chatkit_sessions._http.clients import (
    HTTPErrors,
    SyncHTTPClient,
    errors_of_sync_client,
    read_body,
)
from chatkit_sessions._http.sync_pool import client_factory
from chatkit_sessions._sessions.records import Found, deleted_meanwhile, lease_seconds
from chatkit_sessions._sessions.sync_registry import Registry
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    ChatKitError,
    SessionNotFoundError,
    SessionStoreError,
)
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    FileUpload,
    History,
    StateVariable,
)
from chatkit_sessions.stores.base import SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .base import DISCARD_TIMEOUT, NO_RETRIES, BaseClient, Route, Wanted, seconds_of

T = TypeVar("T")

KeySource: TypeAlias = Callable[[], str | SecretStr]


class ChatKitClient(BaseClient[KeySource]):
    """Creates, refreshes, gets and deletes ChatKit sessions.

    One client serves a whole process: it is safe to use from many threads and keeps connections
    open between calls. Close it at the end, or use it as a context manager.

    Args:
        api_key: The OpenAI API key, as a string, a SecretStr or a function that returns one and is
            asked at each request, so that keys can be rotated. Left out: `OPENAI_API_KEY`.
        workflow_id: The workflow behind sessions, `wf_…`. Left out: `OPENAI_CHATKIT_WORKFLOW_ID`.
        base_url: The API's root. Left out: `OPENAI_BASE_URL`, else `https://api.openai.com/v1`.
        organization: Sent as `OpenAI-Organization`. Left out: `OPENAI_ORG_ID`.
        project: Sent as `OpenAI-Project`. Left out: `OPENAI_PROJECT_ID`.
        timeout: Seconds for each whole call, with all its requests and waits: more than 0, at most
            1,000,000; left out: 30; None for no limit.
        max_retries: Attempts after a failed first one, 0 or more, or a RetryPolicy; left out: 2.
        http_client: An `httpx.Client` or `httpx2.Client` of yours, or one of a subclass, to send
            with; used as it is and never closed.
        store: Where sessions are known and, by `get_or_create_session`, shared: such as a
            `RedisSessionStore` for all processes of a backend; never closed. Left out: a
            `MemorySessionStore` of the client's own.
        allow_insecure_http: Permit a plain `http://` base URL that is not of this machine.
        clock: Tells the present, with a time zone, for the status of sessions and for how long the
            client's own store keeps them; for tests.

    Raises:
        ConfigurationError: No key was given, or a setting cannot be used.
        RuntimeError: By each call, once the client is closed.
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
    ) -> None:
        key: SecretStr | KeySource | None = as_secret(api_key)
        del api_key  # local variables are part of tracebacks
        config = load_config(
            api_key=key,
            workflow_id=workflow_id,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
            allow_insecure_http=allow_insecure_http,
        )
        store = MemorySessionStore(clock=seconds_of(clock)) if store is None else store
        check_store(store, asynchronous=False)
        super().__init__(config, clock, namespace=store.namespace)
        self._registry = Registry(store, self._monotonic)
        self._http: SyncHTTPClient | PerProcess[SyncHTTPClient]
        if http_client is None:
            self._http = PerProcess(client_factory(config.base_url))
            self._http_errors = HTTPErrors.of("httpx")
        else:
            self._http = http_client
            self._http_errors = errors_of_sync_client(http_client)
        self._sleep: Callable[[float], None] = time.sleep

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; further calls raise RuntimeError. Closing twice is harmless.

        A client from `with_options` closes only itself, and an `http_client` of yours stays open.
        Calls that are under way in other threads get their answer, within their deadline, and are
        not repeated.
        """
        if self._lifetime.end() and isinstance(self._http, PerProcess):
            owned = self._http.pop()
            if owned is not None:
                owned.close()

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

        What is left out stays as it is. The new client ends with this one. Where the store has a
        namespace, another key needs `store` too: with the tenant's own namespace, or the same
        store, if the key is the same tenant's.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        key: SecretStr | KeySource | NotGiven = as_secret(api_key)
        del api_key
        if not isinstance(store, NotGiven):
            check_store(store, asynchronous=False)
        clone = self._derive(
            api_key=key,
            workflow_id=workflow_id,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
            store=store,
        )
        if not isinstance(store, NotGiven):
            clone._registry = self._registry.of(store)  # noqa: SLF001 -- a copy of ourselves
        return clone

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

        Options that are left out are the API's to decide; bounds and defaults are those of
        OpenAI's API description.

        Args:
            user: Your own id of the end user, 1 character or more. Take it from your login, never
                from what the browser sent.
            workflow_id: Another workflow than the client's.
            workflow_version: A published version; left out: the latest one.
            state_variables: At most 64 values for the workflow: strings of at most 10,485,760
                characters, integers of at most 64 bits, finite numbers and booleans, under names
                of at most 64 characters.
            tracing: Whether the workflow's runs are traced; left out: yes.
            expires_after: How long the secret works, 1 to 600 whole seconds or a timedelta; left
                out: 600.
            max_requests_per_1_minute: The user's messages per minute, 1 or more; left out: 10.
            file_upload: Whether the user can upload files, or a `FileUpload`, which switches
                uploads on unless it says otherwise; left out: no.
            history: Whether the user can open earlier threads, or a `History`; left out: yes.
            automatic_thread_titling: Whether threads get titles by themselves; left out: yes.
            timeout: Seconds for this call; left out: the client's; None: no limit.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside these bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            APIStatusError: The API refused, as one of its subclasses.
            APIConnectionError: No answer came; a session may exist and expires by itself.
            APIResponseValidationError: The answer is not what the contract says.
        """
        wanted = self._wanted(
            user,
            workflow_id=workflow_id,
            options=SessionOptions(
                workflow_version=workflow_version,
                state_variables=state_variables,
                tracing=tracing,
                expires_after=expires_after,
                max_requests_per_1_minute=max_requests_per_1_minute,
                file_upload=file_upload,
                history=history,
                automatic_thread_titling=automatic_thread_titling,
            ),
        )
        deadline = self._deadline(timeout)
        self._check_open()
        begun = self._registry.begin(wanted.identity)
        return self._make(wanted, deadline, begun=begun, share=False)

    def get_or_create_session(
        self,
        user: str,
        *,
        min_remaining: float | timedelta | None = None,
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
        """Hand out the user's session while it lasts, and create one where there is none.

        However many threads, tasks and processes ask for the same session at once, the API is
        asked once, and all get that answer. The same session is one of this server, organization,
        project, namespace (or key), user, workflow and version, with exactly these options. It is
        kept in the client's store, secret included, until it expires; what comes from there has
        neither `workflow.state_variables` nor fields that this library does not know. Where the
        store does not answer, a session is created all the same.

        Args:
            user: As for `create_session`.
            min_remaining: Seconds, or a timedelta, that the session has to have left: 0 or more
                and less than `expires_after`. Left out: 60, or a fifth of `expires_after` if that
                is less. A session that another caller is creating is handed out whatever it has.
            workflow_id: As for `create_session`.
            workflow_version: As for `create_session`.
            state_variables: As for `create_session`; `True`, `1` and `1.0` are three values.
            tracing: As for `create_session`.
            expires_after: As for `create_session`.
            max_requests_per_1_minute: As for `create_session`; tabs that share a session share it.
            file_upload: As for `create_session`.
            history: As for `create_session`.
            automatic_thread_titling: As for `create_session`.
            timeout: Seconds for this call, waiting for another caller's included; left out: the
                client's; None: no limit.

        Returns:
            The session. Send `session.for_browser()` to the page.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            SessionDeletedError: `delete_sessions` ended the user's sessions meanwhile.
            APIStatusError: The API refused, as one of its subclasses.
            APIConnectionError: No answer came; a session may exist and expires by itself.
            APIResponseValidationError: The answer is not what the contract says.
        """
        wanted = self._wanted(
            user,
            workflow_id=workflow_id,
            min_remaining=min_remaining,
            options=SessionOptions(
                workflow_version=workflow_version,
                state_variables=state_variables,
                tracing=tracing,
                expires_after=expires_after,
                max_requests_per_1_minute=max_requests_per_1_minute,
                file_upload=file_upload,
                history=history,
                automatic_thread_titling=automatic_thread_titling,
            ),
        )
        deadline = self._deadline(timeout)
        self._check_open()
        begun = self._registry.look_up(wanted.identity)
        session = begun.usable(wanted.min_remaining)
        return self._share(wanted, deadline, begun=begun) if session is None else session

    def refresh_session(
        self,
        client_secret: str | SecretStr,
        *,
        user: str,
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
        """Exchange a session's secret, before it expires, for another one; never the same.

        Asks `POST /chatkit/sessions/refresh` first, a route that is in use but not in OpenAI's API
        description. Its answer counts only if it has another secret and names this user and this
        workflow; else, and where the server refuses or lacks the route, a new session is created.

        Args:
            client_secret: The secret that the widget holds now.
            user: As for `create_session`: from your login, so that a stolen secret is of no use.
            workflow_id: As for `create_session`.
            workflow_version: As for `create_session`. Pass this and the options below as to
                create: they apply where a new session is created; a refreshed one keeps its own.
            state_variables: As for `create_session`.
            tracing: As for `create_session`.
            expires_after: As for `create_session`.
            max_requests_per_1_minute: As for `create_session`.
            file_upload: As for `create_session`.
            history: As for `create_session`.
            automatic_thread_titling: As for `create_session`.
            timeout: Seconds for this call, both requests together; left out: the client's; None:
                no limit.

        Returns:
            A session with another secret.

        Raises:
            InvalidRequestError: An argument is outside its bounds; nothing was sent.
            ConfigurationError: There is no workflow id, or the key cannot be used.
            APIStatusError: The API refused to create a session, limits the rate (429) or is in
                trouble (5xx).
            APIConnectionError: No answer came.
            APIResponseValidationError: The answer to create is not what the contract says.
        """
        client_secret = as_secret(client_secret)
        client_secret = operations.check_client_secret(client_secret)
        wanted = self._wanted(
            user,
            workflow_id=workflow_id,
            options=SessionOptions(
                workflow_version=workflow_version,
                state_variables=state_variables,
                tracing=tracing,
                expires_after=expires_after,
                max_requests_per_1_minute=max_requests_per_1_minute,
                file_upload=file_upload,
                history=history,
                automatic_thread_titling=automatic_thread_titling,
            ),
        )
        refresh = operations.refresh(client_secret, user=user, workflow_id=wanted.workflow_id)
        deadline = self._deadline(timeout)
        self._check_open()
        begun = self._registry.look_up(wanted.identity, presented=client_secret)
        session = begun.usable(wanted.min_remaining, instead_of=client_secret)
        if session is not None:
            return session
        route = refresh if begun.may_refresh(client_secret) else None
        if not begun.reused:
            return self._make(wanted, deadline, begun=begun, share=False, refresh=route)
        return self._share(wanted, deadline, begun=begun, refresh=route, presented=client_secret)

    def get_session(
        self, session_id: str, *, timeout: float | NotGiven | None = NOT_GIVEN
    ) -> ChatKitSessionInfo:
        """Tell what is known of a session: status, expiry, user and workflow, never its secret.

        Asks `GET /chatkit/sessions/{session_id}`, which some ChatKit-compatible servers offer.
        Where the server has no such route, as OpenAI's, the answer comes from what this client (or
        one on the same connections) saw, until 24 hours after the session's expiry.

        Args:
            session_id: `session.id`, at most 256 characters.
            timeout: Seconds for this call; left out: the client's; None: no limit.

        Returns:
            The session; its `source` says who answered, its `status` is worked out by the clock.

        Raises:
            InvalidRequestError: The id cannot be one; nothing was sent.
            SessionNotRecordedError: The server has no such route and this client never saw it.
            SessionNotFoundError: The server has the route and does not know the session.
            APIStatusError: The API refused in another way.
            APIConnectionError: No answer came.
            APIResponseValidationError: The answer is not what the contract says.
        """
        operation = operations.get(session_id)
        deadline = self._deadline(timeout)
        info = self._try_get(operation, deadline)
        if info is not None:
            return self._observe(info)
        return self._info_from_record(session_id, self._registry.record(self._scope, session_id))

    def sessions_for(self, user: str) -> list[ChatKitSessionInfo]:
        """List the user's sessions that this client's store knows, the last to expire first.

        Those are the ones that clients with the same store (and server, organization, project and
        namespace or key) created, refreshed or deleted, until 24 hours after their expiry; the
        API cannot be asked.

        Args:
            user: Your own id of the end user, as it was given to `create_session`.

        Returns:
            The sessions, without secrets; their `source` is `record`, their `status` worked out by
            the clock.

        Raises:
            InvalidRequestError: The user is not a string, or an empty one.
            SessionStoreError: The store does not answer.
        """
        group = self._scope.group_of_user(operations.check_user(user))
        self._check_open()
        return self._infos_from_records(self._registry.records(self._scope, group, ended=True))

    def delete_session(
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
            timeout: Seconds for this call; left out: the client's; None: no limit.

        Raises:
            InvalidRequestError: The id cannot be one; nothing was sent.
            SessionNotFoundError: The API does not know the session, unless `missing_ok`.
            APIStatusError: The API refused in another way.
            APIConnectionError: No answer came; the session may be cancelled.
            APIResponseValidationError: The answer is not what the contract says.
        """
        cancel = operations.cancel(session_id)
        deadline = self._deadline(timeout)
        self._check_open()
        unreachable: SessionStoreError | None = None
        try:
            known = self._registry.record(self._scope, session_id)
            if known is not None:
                self._registry.take_out(known)
        except SessionStoreError as error:
            unreachable = error  # told below: ending the session matters more
        self._end(cancel, session_id, deadline, missing_ok=missing_ok)
        if unreachable is not None:
            raise unreachable

    def delete_sessions(self, user: str, *, timeout: float | NotGiven | None = NOT_GIVEN) -> None:
        """End all of the user's sessions, as when the user signs out.

        A session that is being created meanwhile, by any worker with the same store, is cancelled,
        too, and that call ends with SessionDeletedError; what is asked for afterwards is a new
        session. Sessions that the store does not know (see `sessions_for`) go on until they expire.

        Args:
            user: Your own id of the end user, as it was given to `create_session`.
            timeout: Seconds for this call; left out: the client's; None: no limit.

        Raises:
            InvalidRequestError: The user is not a string, or an empty one; nothing was sent.
            SessionStoreError: The store does not answer, and sessions may go on: ask again.
            APIStatusError: The API refused to cancel a session; the others are cancelled.
            APIConnectionError: No answer came for one of them.
            APIResponseValidationError: An answer is not what the contract says.
        """
        group = self._scope.group_of_user(operations.check_user(user))
        deadline = self._deadline(timeout)
        self._check_open()
        self._registry.sign_out(group, generation=self._token())
        recent = self._registry.records(self._scope, group, ended=False)
        known = [each for each in recent if each.may_work]
        for each in known:
            self._registry.take_out(each)
        failures: list[ChatKitError] = []
        for each in known:
            session_id = each.record.id
            try:
                self._end(operations.cancel(session_id), session_id, deadline, missing_ok=True)
            except ChatKitError as error:
                failures.append(error)
        self._raise_first(failures)

    def _admit(self, user: str, *, limit: int) -> float | None:
        """Count one more request of the user; see `Registry.admit`."""
        self._check_open()
        group = self._scope.group_of_user(operations.check_user(user))
        return self._registry.admit(group, limit=limit)

    def _make(
        self,
        wanted: Wanted,
        deadline: Deadline,
        *,
        begun: Found,
        share: bool,
        refresh: Operation[ChatKitSessionResponse | RejectedSession] | None = None,
    ) -> ChatKitSessionResponse:
        """Get a new session from the API, and make it known."""
        since = self._monotonic()
        session = None if refresh is None else self._try_refresh(refresh, deadline)
        if session is None:
            session = self._call(wanted.create, deadline)
        created = self._created(wanted, session, since=since, share=share)
        if not self._registry.publish(created, begun=begun):
            self._discard(session.id, deadline)
            raise deleted_meanwhile()
        return session

    def _share(
        self,
        wanted: Wanted,
        deadline: Deadline,
        *,
        begun: Found,
        refresh: Operation[ChatKitSessionResponse | RejectedSession] | None = None,
        presented: SecretStr | None = None,
    ) -> ChatKitSessionResponse:
        """Get a new session for all threads that ask for it now: lead, or wait for who leads."""
        flights = self._registry.flights
        key = wanted.identity.slot, begun.generation
        while True:
            flight, leads = flights.join(key)
            if leads:
                try:
                    session = self._lead(
                        wanted, deadline, begun=begun, refresh=refresh, presented=presented
                    )
                    flight.land(session)
                except ChatKitError as error:
                    if not self._gave_up(deadline):
                        flight.fail(error)
                    raise
                finally:
                    flights.end(key, flight)
                return session
            if not flight.done.wait(deadline.remaining()):
                raise deadline.error()
            landed = flight.result()
            if landed is not None and landed.client_secret != presented:
                return landed
            self._check_open()

    def _lead(
        self,
        wanted: Wanted,
        deadline: Deadline,
        *,
        begun: Found,
        refresh: Operation[ChatKitSessionResponse | RejectedSession] | None,
        presented: SecretStr | None,
    ) -> ChatKitSessionResponse:
        """Get a new session for all processes: make it, or wait for the one that does."""
        token = self._token()
        seen, waits = begun, 0
        try:
            while seen.reachable:
                now = self._registry.acquire(
                    wanted.identity, seen, token=token, seconds=lease_seconds(deadline)
                )
                if now is None:
                    break
                session = now.newer_than(seen, begun=begun, instead_of=presented)
                if session is not None:
                    return session
                if now.reachable:
                    self._sleep(self._pause(waits, deadline))
                    self._check_open()
                seen, waits = now, waits + 1
            return self._make(wanted, deadline, begun=begun, share=True, refresh=refresh)
        finally:
            if begun.reachable:
                self._registry.release(wanted.identity, token=token)

    def _try_refresh(
        self, refresh: Operation[ChatKitSessionResponse | RejectedSession], deadline: Deadline
    ) -> ChatKitSessionResponse | None:
        """The refreshed session, or None where a new one is to be created."""
        if not self._may_have(Route.REFRESH):
            return None
        try:
            answer = self._call(refresh, deadline)
        except (APIStatusError, APIResponseValidationError) as error:
            if not self._creates_after(error):
                raise
            return None
        if isinstance(answer, ChatKitSessionResponse):
            return answer
        self._log_rejected(answer)
        if answer.id is not None:
            self._discard(answer.id, deadline)
        return None

    def _discard(self, session_id: str, deadline: Deadline) -> None:
        """Cancel, as far as possible, a session that nobody may use."""
        cancel = operations.cancel(session_id)
        deadline = deadline.at_most(DISCARD_TIMEOUT)
        try:
            self._end(cancel, session_id, deadline, missing_ok=True, policy=NO_RETRIES)
        except ChatKitError as error:
            self._log_not_discarded(error)

    def _end(
        self,
        cancel: Operation[CancelledSession],
        session_id: str,
        deadline: Deadline,
        *,
        missing_ok: bool,
        policy: RetryPolicy | None = None,
    ) -> None:
        """Cancel a session, and keep that it was."""
        try:
            answer = self._call(cancel, deadline, policy=policy)
        except SessionNotFoundError:
            self._registry.forget(self._scope, session_id)
            if not missing_ok:
                raise
        else:
            known = self._registry.record(self._scope, session_id)
            self._registry.keep(self._scope, *self._ended(session_id, known, answer))

    def _try_get(
        self, operation: Operation[ChatKitSessionInfo], deadline: Deadline
    ) -> ChatKitSessionInfo | None:
        """The API's answer, or None where it has no route for the question."""
        if not self._may_have(Route.GET):
            self._check_open()
            return None
        try:
            return self._call(operation, deadline)
        except APIStatusError as error:
            if not self._lacks(Route.GET, error):
                raise
            return None

    def _call(
        self, operation: Operation[T], deadline: Deadline, *, policy: RetryPolicy | None = None
    ) -> T:
        """Send until there is a result, or an error that is not worth another attempt."""
        retries_done = 0
        failed: APIConnectionError | APIStatusError | None = None
        while True:
            self._check_open(failed)
            if deadline.remaining() == 0:
                raise failed or deadline.error()
            request, key = self._request(operation, self._key())
            self._check_open(failed)  # again: it may have been closed while the key was asked for
            try:
                return self._read(operation, self._send(request, deadline), key)
            except (APIConnectionError, APIStatusError) as error:
                delay = self._delay_after(
                    error,
                    operation=operation,
                    policy=policy,
                    retries_done=retries_done,
                    deadline=deadline,
                )
                if delay is None:
                    raise
                failed = error.with_traceback(None)  # which would hold this frame in a cycle
            self._sleep(delay)
            retries_done += 1

    def _key(self) -> object:
        source = self._config.api_key
        return source if isinstance(source, SecretStr) else as_secret(refuse_awaitable(source()))

    def _http_client(self) -> SyncHTTPClient:
        if not isinstance(self._http, PerProcess):
            return self._http
        http = self._http.get()
        if self._lifetime.ended:
            self.close()  # once more: what was made after another thread has closed must not stay
        return http

    def _send(self, request: Request, deadline: Deadline) -> Answer:
        answer: Answer | None = None
        failure: APIConnectionError | None = None
        try:
            with self._http_client().stream(
                request.method,
                request.url,
                content=request.body,
                headers=request.headers,
                timeout=deadline.live_timeouts(),
                auth=None,
                follow_redirects=False,
            ) as response:
                answer = read_body(response, deadline)
        except self._http_errors.raised as error:
            failure = self._http_errors.translate(error, request)
        if answer is None:
            # Raised here, outside the `except`: the HTTP client's error is not to be its context.
            raise failure or deadline.error()
        return answer
