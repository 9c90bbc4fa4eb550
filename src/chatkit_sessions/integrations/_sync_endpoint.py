"""The endpoint for synchronous frameworks: `_endpoint`'s decisions, carried out."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._sessions.sync_registry import Registry
from chatkit_sessions.errors import ChatKitError
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.stores.memory import MemorySessionStore

from ._endpoint import (
    DEFAULT_RATE_LIMIT,
    DEFAULT_TIMEOUT,
    Create,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    Read,
    Refresh,
    Rules,
    SignOut,
    Task,
    check_client,
    check_is_of,
    check_rate_limit,
)


class ChatKitEndpoint:
    """The routes that the widget's page calls, for any synchronous framework.

    Args:
        client: Makes the sessions. It stays yours to close.
        reuse: Whether `POST /session` hands out the user's live session where there is one, as
            `get_or_create_session` does, and not a new one each time.
        session_by_id: Whether `GET` and `DELETE /session/{id}` are there, for the user's own
            sessions.
        allowed_origins: Other origins than the server's own whose pages may call, such as
            `https://app.example.com`.
        rate_limit: How often in a minute one user can ask for a secret, new and refreshed ones
            together: 1 to 1,000; None: without limit. It is counted in the client's store, so for
            all processes that share one, otherwise for this process.
        timeout: Seconds that the API can take, more than 0, without another attempt after a
            failure, so that no worker is held up; None: no limit.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        client: ChatKitClient,
        *,
        reuse: bool = False,
        session_by_id: bool = False,
        allowed_origins: Iterable[str] = (),
        rate_limit: int | None = DEFAULT_RATE_LIMIT,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        check_client(client, ChatKitClient, endpoint=type(self).__name__)
        self._client = client.with_options(timeout=timeout, max_retries=0)
        self._rules = Rules(session_by_id=session_by_id, allowed_origins=allowed_origins)
        self._reuse = reuse
        self._rate_limit = check_rate_limit(rate_limit)
        # Counts while the client's store does not answer.
        self._own_counts: Final = Registry(MemorySessionStore(), time.monotonic)

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """The methods of each path below the prefix; `{session_id}` is a variable."""
        return self._rules.routes

    def handle(
        self,
        request: EndpointRequest,
        *,
        user: str | None,
        options: CreateSessionOptions | None = None,
    ) -> EndpointResponse:
        """Answer a request.

        Args:
            request: What was asked for. Nothing of it decides whose session it is.
            user: Your own id of the person who is signed in, as your server knows it; None or
                empty: nobody is.
            options: The options of a session that is created, None for the API's own.

        Returns:
            The answer; errors of the API, of the store and in the settings are in the log, and
            reach the page as a code without their text.

        Raises:
            RuntimeError: The client is closed.
        """
        try:
            task = self._rules.decide(request, user)
            if isinstance(task, EndpointResponse):
                return task
            seconds = self._wait(task)
            if seconds > 0:
                return self._rules.limit(request, seconds)
            return self._rules.succeed(request, self._carry_out(task, options or {}))
        except ChatKitError as error:
            return self._rules.fail(request, error)

    def _wait(self, task: Task) -> float:
        """Count a request for a secret; return the seconds until it may be made."""
        if self._rate_limit is None or not isinstance(task, Create | Refresh):
            return 0.0
        seconds = self._client._admit(task.user, limit=self._rate_limit)  # noqa: SLF001 -- one package
        if seconds is None:
            seconds = self._own_counts.admit(task.user, limit=self._rate_limit)
        return seconds or 0.0

    def _carry_out(
        self, task: Task, options: CreateSessionOptions
    ) -> ChatKitSessionResponse | ChatKitSessionInfo | None:
        match task:
            case Create(user) if self._reuse:
                return self._client.get_or_create_session(user, **options)
            case Create(user):
                return self._client.create_session(user, **options)
            case Refresh(user, client_secret):
                return self._client.refresh_session(client_secret, user=user, **options)
            case SignOut(user):
                self._client.delete_sessions(user)
                return None
            case Read(user, session_id):
                return self._own(user, session_id)
            case _:
                self._own(task.user, task.session_id)
                self._client.delete_session(task.session_id, missing_ok=True)
                return None

    def _own(self, user: str, session_id: str) -> ChatKitSessionInfo:
        """Get a session that is the user's."""
        info = self._client.get_session(session_id)
        check_is_of(info, user)
        return info
