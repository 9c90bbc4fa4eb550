"""The endpoint: the steps of a request, written once for both kinds of frameworks.

The asynchronous endpoint awaits them. With the synchronous client, they never suspend, and the
synchronous endpoint runs them without an event loop.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, Self, TypeVar, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._client.sessions import Admission
from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._concurrency.threads import maybe_await, run_blocking
from chatkit_sessions._config.validation import validate_timeout
from chatkit_sessions._sessions.rate_limit import RequestCounts
from chatkit_sessions.errors import (
    BadRequestError,
    ChatKitError,
    SessionNotRecordedError,
    UnprocessableEntityError,
)
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import SessionOptions, did_you_mean

from ._requests import (
    Action,
    CreateAction,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
    ErrorCode,
    ReadAction,
    RefreshAction,
    SignOutAction,
    header,
)
from ._rules import (
    EndpointRules,
    require_owner,
    validate_client,
    validate_function,
    validate_options,
    validate_rate_limit,
)

R = TypeVar("R")
T = TypeVar("T")
AnyClient = ChatKitClient | AsyncChatKitClient


class Hooks(NamedTuple):
    """Functions of the application and its framework; each is called only if it is needed.

    The asynchronous endpoint awaits what is awaitable. The synchronous one does not, and rejects
    it.
    """

    client: Callable[[], object]
    user: Callable[[], str | Awaitable[str | None] | None]
    body: Callable[[], bytes | Awaitable[bytes]]
    """Reads at most `MAX_BODY` + 1 bytes."""
    options: Callable[[], object]

    @classmethod
    def for_request(
        cls,
        endpoint: "EndpointFlow",
        request: R,
        *,
        user: Callable[[R], str | Awaitable[str | None] | None],
        body: Callable[[], bytes | Awaitable[bytes]],
        options: Callable[[R], object] | None,
    ) -> Self:
        """The hooks of a framework whose functions take the request."""
        return cls(
            lambda: endpoint.client(request),
            lambda: user(request),
            body,
            lambda: options(request) if options else None,
        )


class EndpointFlow:
    """The steps of both endpoints.

    Args:
        client: The application's client, or its function that returns one.
        expected: The class that the client must have.
        reuse: This and the others: see `EndpointSettings`.
        unknown: What no setting is.

    Raises:
        TypeError: There is no such setting; the message suggests a similar one.
    """

    def __init__(
        self,
        client: AnyClient | Callable[..., object],
        expected: type[AnyClient],
        *,
        reuse: bool = False,
        session_by_id: bool = False,
        allowed_origins: Iterable[str] = (),
        rate_limit: int | None = 30,
        timeout: float | None = 10.0,
        session_path: str = "/session",
        refresh_path: str = "/session/refresh",
        **unknown: object,
    ) -> None:
        for name in unknown:
            meant = did_you_mean(name, EndpointSettings.__annotations__)
            raise TypeError(f"an endpoint has no setting {name!r}.{meant}")
        self._expected = expected
        self._awaits = expected is AsyncChatKitClient
        self._timeout = validate_timeout(timeout)
        self._rules = EndpointRules(
            session_by_id=session_by_id,
            allowed_origins=allowed_origins,
            session_path=session_path,
            refresh_path=refresh_path,
        )
        self._reuse = reuse
        limit = validate_rate_limit(rate_limit)
        self._counts = None if limit is None else RequestCounts(limit)
        self._last: tuple[object, AnyClient] | None = None
        self._given = client
        if callable(client):
            self.validate_functions(client=client)
        else:
            self._derive(client)

    def validate_functions(self, **functions: object) -> None:
        """Reject arguments that are not functions; None: the application passed none.

        Raises:
            ConfigurationError: An argument cannot be called for a request.
        """
        for argument, function in functions.items():
            if function is not None or argument == "user":
                validate_function(function, argument, awaits=self._awaits)

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """The methods of each path below the prefix; `{session_id}` is a variable."""
        return self._rules.routes

    def screen(self, request: EndpointRequest) -> EndpointResponse | None:
        """Respond to a request that needs neither user nor body, such as a preflight; else None."""
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
            user = await self._call(hooks.user)
            if user is None or user == "":
                return self._rules.reject(request, "unauthenticated")
            request = replace(request, body=await self._call(hooks.body))
            action = self._rules.decide(request, user)
            if isinstance(action, EndpointResponse):
                return action
            client = self._derive(await self._call(hooks.client))
            admission = await self._admit(client, action)
            if admission.wait > 0:
                return self._rules.limit(request, admission.wait)
            creates = isinstance(action, CreateAction | RefreshAction)
            options = validate_options((creates and await self._call(hooks.options)) or {})
            done = await self._carry_out(client, action, options, timeout=admission.left)
            return self._rules.succeed(request, done)
        except ChatKitError as error:
            return self._rules.fail(request, error)

    async def _call(self, function: Callable[[], T | Awaitable[T]]) -> T:
        # No variable: the result may be a body that holds a secret.
        return await maybe_await(function()) if self._awaits else cast("T", function())

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
        if self._counts is None or isinstance(action, SignOutAction):
            return Admission(0.0, self._timeout)
        return await client._sessions.admit(action.user, self._counts)  # noqa: SLF001 -- one package

    async def _carry_out(
        self,
        client: AnyClient,
        action: Action,
        options: SessionOptions,
        *,
        timeout: float | None,
    ) -> ChatKitSessionResponse | ChatKitSessionInfo | None:
        match action:
            case CreateAction(user):
                create = client.get_or_create_session if self._reuse else client.create_session
                return await maybe_await(create(user, timeout=timeout, **options))
            case RefreshAction(user, client_secret):
                return await maybe_await(
                    client.refresh_session(client_secret, user=user, timeout=timeout, **options)
                )
            case SignOutAction(user):
                await maybe_await(client.delete_sessions(user, timeout=timeout))
                return None
            case ReadAction(user, session_id):
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


class ChatKitEndpoint(EndpointFlow):
    """The routes that the page calls, for any synchronous framework.

    Args:
        client: The client, or a function that returns it for a request. The endpoint does not
            close it.
        settings: See `EndpointSettings`.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        client: ChatKitClient | Callable[[], ChatKitClient],
        **settings: Unpack[EndpointSettings],
    ) -> None:
        super().__init__(client, ChatKitClient, **settings)

    def handle(
        self,
        request: EndpointRequest,
        *,
        user: str | None,
        options: SessionOptions | None = None,
    ) -> EndpointResponse:
        """Respond to a request.

        Args:
            request: The page's request. It never decides who the user is.
            user: Your id of the signed-in user, from your login. None or empty: nobody is signed
                in.
            options: The options of a session that this request creates; None: the API's defaults.

        Returns:
            The response. An error of the API, the store or the settings is logged in full; the
            page gets its code, not its text.

        Raises:
            RuntimeError: The client is closed.
        """
        hooks = Hooks(self.client, lambda: user, lambda: request.body, lambda: options)
        return run_blocking(self.serve, request, hooks)


class AsyncChatKitEndpoint(EndpointFlow):
    """The routes that the page calls, for any asynchronous framework.

    Args:
        client: The client, or a function that returns it for a request. The endpoint does not
            close it.
        settings: See `EndpointSettings`.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        client: AsyncChatKitClient
        | Callable[[], AsyncChatKitClient | Awaitable[AsyncChatKitClient]],
        **settings: Unpack[EndpointSettings],
    ) -> None:
        super().__init__(client, AsyncChatKitClient, **settings)

    async def handle(
        self,
        request: EndpointRequest,
        *,
        user: str | None,
        options: SessionOptions | None = None,
    ) -> EndpointResponse:
        """Respond to a request.

        Args:
            request: The page's request. It never decides who the user is.
            user: Your id of the signed-in user, from your login. None or empty: nobody is signed
                in.
            options: The options of a session that this request creates; None: the API's defaults.

        Returns:
            The response. An error of the API, the store or the settings is logged in full; the
            page gets its code, not its text.

        Raises:
            RuntimeError: The client is closed.
        """
        hooks = Hooks(self.client, lambda: user, lambda: request.body, lambda: options)
        return await self.serve(request, hooks)
