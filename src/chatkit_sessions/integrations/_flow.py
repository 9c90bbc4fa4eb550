"""The endpoint's rules carried out, step by step, written once for both endpoints.

The asynchronous endpoint awaits these coroutines. With the synchronous client nothing in them
suspends, and the synchronous endpoint runs them without an event loop.
"""

import inspect
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions.errors import ChatKitError
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import SessionOptions

from ._actions import Action, Create, Read, Refresh, SignOut
from ._messages import EndpointRequest, EndpointResponse
from ._rules import EndpointRules, require_owner, validate_client, validate_rate_limit

T = TypeVar("T")


class EndpointFlow:
    """What both endpoints do; their settings are documented there.

    Args:
        client: The client that the application passed.
        expected: The class that it has to have.
        reuse: See `ChatKitEndpoint`.
        session_by_id: See `ChatKitEndpoint`.
        allowed_origins: See `ChatKitEndpoint`.
        rate_limit: See `ChatKitEndpoint`.
        timeout: See `ChatKitEndpoint`.
    """

    def __init__(
        self,
        client: ChatKitClient | AsyncChatKitClient,
        expected: type[ChatKitClient | AsyncChatKitClient],
        *,
        reuse: bool,
        session_by_id: bool,
        allowed_origins: Iterable[str],
        rate_limit: int | None,
        timeout: float | None,
    ) -> None:
        validate_client(client, expected, endpoint=type(self).__name__)
        self._client = client.with_options(timeout=timeout, max_retries=0)
        self._rules = EndpointRules(session_by_id=session_by_id, allowed_origins=allowed_origins)
        self._reuse = reuse
        self._rate_limit = validate_rate_limit(rate_limit)

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """The methods of each path below the prefix; `{session_id}` is a variable."""
        return self._rules.routes

    async def _handle(
        self, request: EndpointRequest, user: str | None, options: SessionOptions | None
    ) -> EndpointResponse:
        try:
            action = self._rules.decide(request, user)
            if isinstance(action, EndpointResponse):
                return action
            seconds = await self._seconds_to_wait(action)
            if seconds > 0:
                return self._rules.limit(request, seconds)
            return self._rules.succeed(request, await self._carry_out(action, options or {}))
        except ChatKitError as error:
            return self._rules.fail(request, error)

    async def _seconds_to_wait(self, action: Action) -> float:
        """Count a request for a secret; return the seconds until it may be made."""
        if self._rate_limit is None or not isinstance(action, Create | Refresh):
            return 0.0
        admit = self._client._admit  # noqa: SLF001 -- one package
        return await admit(action.user, limit=self._rate_limit)

    async def _carry_out(
        self, action: Action, options: SessionOptions
    ) -> ChatKitSessionResponse | ChatKitSessionInfo | None:
        client = self._client
        match action:
            case Create(user) if self._reuse:
                return await maybe_await(client.get_or_create_session(user, **options))
            case Create(user):
                return await maybe_await(client.create_session(user, **options))
            case Refresh(user, client_secret):
                return await maybe_await(
                    client.refresh_session(client_secret, user=user, **options)
                )
            case SignOut(user):
                await maybe_await(client.delete_sessions(user))
                return None
            case Read(user, session_id):
                return await self._get_owned(user, session_id)
            case _:
                await self._get_owned(action.user, action.session_id)
                await maybe_await(client.delete_session(action.session_id, missing_ok=True))
                return None

    async def _get_owned(self, user: str, session_id: str) -> ChatKitSessionInfo:
        """Get a session that is the user's."""
        info = await maybe_await(self._client.get_session(session_id))
        require_owner(info, user)
        return info


async def maybe_await(value: T | Awaitable[T]) -> T:
    """A value that may have to be awaited: of either client, or of the application's function."""
    return cast("T", await value if inspect.isawaitable(value) else value)
