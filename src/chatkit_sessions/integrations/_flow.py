"""The steps of a request, written once for both endpoints.

The asynchronous endpoint awaits these coroutines. With the synchronous client, they never suspend,
and the synchronous endpoint runs them without an event loop.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.flow import Admission
from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._config.validation import validate_timeout
from chatkit_sessions.errors import (
    BadRequestError,
    ChatKitError,
    SessionNotRecordedError,
    UnprocessableEntityError,
)
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import SessionOptions

from ._actions import Action, Create, Read, Refresh, SignOut
from ._limits import RequestCounts
from ._messages import EndpointRequest, EndpointResponse, ErrorCode, header
from ._rules import EndpointRules
from ._validation import (
    require_owner,
    validate_client,
    validate_function,
    validate_rate_limit,
)

T = TypeVar("T")
AnyClient = ChatKitClient | AsyncChatKitClient


class Hooks(NamedTuple):
    """Functions of the application and its framework; each is called only if it is needed."""

    client: Callable[[], Awaitable[object]]
    user: Callable[[], Awaitable[str | None]]
    body: Callable[[], Awaitable[bytes]]
    """Reads at most `MAX_BODY` + 1 bytes."""
    options: Callable[[], Awaitable[SessionOptions | None]]


class EndpointFlow:
    """The steps of both endpoints.

    Args:
        client: The application's client, or its function that returns one.
        expected: The class that the client must have.
        reuse: See `ChatKitEndpoint`.
        session_by_id: See `ChatKitEndpoint`.
        allowed_origins: See `ChatKitEndpoint`.
        rate_limit: See `ChatKitEndpoint`.
        timeout: See `ChatKitEndpoint`.
        session_path: See `ChatKitEndpoint`.
        refresh_path: See `ChatKitEndpoint`.
    """

    def __init__(
        self,
        client: AnyClient | Callable[..., object],
        expected: type[AnyClient],
        *,
        reuse: bool,
        session_by_id: bool,
        allowed_origins: Iterable[str],
        rate_limit: int | None,
        timeout: float | None,
        session_path: str,
        refresh_path: str,
    ) -> None:
        self._expected = expected
        self._timeout = validate_timeout(timeout)
        self._rules = EndpointRules(
            session_by_id=session_by_id,
            allowed_origins=allowed_origins,
            session_path=session_path,
            refresh_path=refresh_path,
        )
        self._reuse = reuse
        self._rate_limit = validate_rate_limit(rate_limit)
        self._counts = None if self._rate_limit is None else RequestCounts(self._rate_limit)
        self._last: tuple[object, AnyClient] | None = None
        self._given = client
        if callable(client):
            self.validate_functions(client=client)
        else:
            self._derive(client)

    def validate_functions(self, **functions: object) -> None:
        """Reject what is no function, by its argument's name; None: the application passed none.

        Raises:
            ConfigurationError: One cannot be called for a request.
        """
        for argument, function in functions.items():
            if function is not None or argument == "user":
                validate_function(function, argument, awaits=self._expected is AsyncChatKitClient)

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """The methods of each path below the prefix; `{session_id}` is a variable."""
        return self._rules.routes

    def screen(self, request: EndpointRequest) -> EndpointResponse | None:
        """The response that needs neither user nor body, such as to a preflight; None: go on."""
        return self._rules.screen(request)

    def reject(self, request: EndpointRequest, code: ErrorCode) -> EndpointResponse:
        """The response to a request that the framework could not read."""
        return self._rules.reject(request, code)

    def reject_incomplete(self, request: EndpointRequest) -> EndpointResponse:
        """The response to a client that went away before its body was complete."""
        return self._rules.reject_incomplete(request)

    def cors_headers(self, request: EndpointRequest) -> dict[str, str]:
        """The headers that let a page of an allowed origin read any response."""
        return self._rules.cors_headers(header(request, "origin"))

    def client(self, *arguments: object) -> object:
        """The client, from the application's function if it passed one."""
        given = self._given
        return given(*arguments) if callable(given) else given

    async def serve(self, request: EndpointRequest, hooks: Hooks) -> EndpointResponse:
        """Respond to a request; call only the hooks that the response needs."""
        try:
            screened = self._rules.screen(request)
            if screened is not None:
                return screened
            user = await hooks.user()
            if user is None or user == "":
                return self._rules.reject(request, "unauthenticated")
            request = replace(request, body=await hooks.body())
            action = self._rules.decide(request, user)
            if isinstance(action, EndpointResponse):
                return action
            client = self._derive(await hooks.client())
            admission = await self._admit(client, action)
            if admission.wait > 0:
                return self._rules.limit(request, admission.wait)
            creates = isinstance(action, Create | Refresh)
            options = (await hooks.options() if creates else None) or {}
            done = await self._carry_out(client, action, options, timeout=admission.left)
            return self._rules.succeed(request, done)
        except ChatKitError as error:
            return self._rules.fail(request, error)

    def _derive(self, client: object) -> AnyClient:
        """The client with the endpoint's settings.

        Raises:
            ConfigurationError: It is not a client of the expected class.
        """
        last = self._last
        if last is not None and last[0] is client:
            return last[1]
        validate_client(client, self._expected, endpoint=type(self).__name__)
        derived = cast("AnyClient", client).with_options(timeout=self._timeout, max_retries=0)
        self._last = client, derived
        return derived

    async def _admit(self, client: AnyClient, action: Action) -> Admission:
        """Count a request, within the endpoint's timeout."""
        limit, counts = self._rate_limit, self._counts
        if limit is None or counts is None or isinstance(action, SignOut):
            return Admission(0.0, self._timeout)
        admit = client._admit  # noqa: SLF001 -- one package
        return await admit(action.user, limit=limit, counts=counts)

    async def _carry_out(
        self,
        client: AnyClient,
        action: Action,
        options: SessionOptions,
        *,
        timeout: float | None,
    ) -> ChatKitSessionResponse | ChatKitSessionInfo | None:
        match action:
            case Create(user):
                create = client.get_or_create_session if self._reuse else client.create_session
                return await maybe_await(create(user, timeout=timeout, **options))
            case Refresh(user, client_secret):
                return await maybe_await(
                    client.refresh_session(client_secret, user=user, timeout=timeout, **options)
                )
            case SignOut(user):
                await maybe_await(client.delete_sessions(user, timeout=timeout))
                return None
            case Read(user, session_id):
                return await _get_owned(client, user, session_id, timeout)
            case _:
                await _delete_owned(client, action.user, action.session_id, timeout)
                return None


async def _get_owned(
    client: AnyClient, user: str, session_id: str, timeout: float | None
) -> ChatKitSessionInfo:
    """Get a session that is the user's."""
    try:
        info = await maybe_await(client.get_session(session_id, timeout=timeout))
    except (BadRequestError, UnprocessableEntityError) as error:
        if error.error is None or error.error.param != "session_id":
            raise
        # A server with a route for reading rejects what cannot be one of its ids.
        raise SessionNotRecordedError("The session id is malformed.") from None
    require_owner(info, user)
    return info


async def _delete_owned(
    client: AnyClient, user: str, session_id: str, timeout: float | None
) -> None:
    """End a session that is the user's."""
    info = await _get_owned(client, user, session_id, timeout)
    if info.status != "cancelled":
        await maybe_await(client.delete_session(session_id, missing_ok=True, timeout=timeout))


async def maybe_await(value: T | Awaitable[T]) -> T:
    """Await a value if it is awaitable: from either client, or the application's function."""
    return cast("T", await value if inspect.isawaitable(value) else value)
