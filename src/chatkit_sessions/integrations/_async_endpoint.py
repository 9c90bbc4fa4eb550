"""The endpoint for asynchronous frameworks."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions.options import SessionOptions

from ._flow import EndpointFlow, Hooks, maybe_await
from ._messages import (
    DEFAULT_RATE_LIMIT,
    DEFAULT_REFRESH_PATH,
    DEFAULT_SESSION_PATH,
    DEFAULT_TIMEOUT,
    EndpointRequest,
    EndpointResponse,
)

T = TypeVar("T")


class AsyncChatKitEndpoint(EndpointFlow):
    """The routes that the widget's page calls, for any asynchronous framework.

    Args:
        client: Makes the sessions; or a function that returns it when a request needs it. It
            stays yours to close.
        reuse: Whether `POST /session` returns the user's live session where there is one, as
            `get_or_create_session` does, and not a new one each time.
        session_by_id: Whether `GET` and `DELETE /session/{id}` are there, for the user's own
            sessions.
        allowed_origins: Other origins than the server's own whose pages may call, such as
            `https://app.example.com`; a first label `*`, as in `https://*.preview.example.com`,
            stands for any one label.
        rate_limit: How often in a minute one user can ask, except for signing out: 1 to 1,000;
            None: without limit. It is counted in the client's store, so for all processes that
            share one, otherwise for this process.
        timeout: Seconds that the API can take, more than 0, without another attempt after a
            failure, so that no worker is held up; None: no limit.
        session_path: The path of the first route, below the prefix.
        refresh_path: The path of the route that exchanges a secret, below the prefix.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        client: AsyncChatKitClient
        | Callable[[], AsyncChatKitClient | Awaitable[AsyncChatKitClient]],
        *,
        reuse: bool = False,
        session_by_id: bool = False,
        allowed_origins: Iterable[str] = (),
        rate_limit: int | None = DEFAULT_RATE_LIMIT,
        timeout: float | None = DEFAULT_TIMEOUT,
        session_path: str = DEFAULT_SESSION_PATH,
        refresh_path: str = DEFAULT_REFRESH_PATH,
    ) -> None:
        super().__init__(
            client,
            AsyncChatKitClient,
            reuse=reuse,
            session_by_id=session_by_id,
            allowed_origins=allowed_origins,
            rate_limit=rate_limit,
            timeout=timeout,
            session_path=session_path,
            refresh_path=refresh_path,
        )

    async def handle(
        self,
        request: EndpointRequest,
        *,
        user: str | None,
        options: SessionOptions | None = None,
    ) -> EndpointResponse:
        """Respond to a request.

        Args:
            request: What the page sent. Nothing in it decides whose session it is.
            user: Your own id of the person who is signed in, as your server knows it; None or
                empty: nobody is.
            options: The options of a session that is created, None for the API's own.

        Returns:
            The response. Errors of the API, of the store and in the settings are in the log, and
            reach the page as a code without their text.

        Raises:
            RuntimeError: The client is closed.
        """
        hooks = awaited(self.client, lambda: user, lambda: request.body, lambda: options)
        return await self.serve(request, hooks)


def awaited(
    client: Callable[[], object],
    user: Callable[[], str | Awaitable[str | None] | None],
    body: Callable[[], bytes | Awaitable[bytes]],
    options: Callable[[], SessionOptions | Awaitable[SessionOptions | None] | None],
) -> Hooks:
    """Hooks of functions whose results may have to be awaited."""
    return Hooks(_flow_of(client), _flow_of(user), _flow_of(body), _flow_of(options))


def _flow_of(function: Callable[[], T | Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    async def call() -> T:
        return await maybe_await(function())

    return call
