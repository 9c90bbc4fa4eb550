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
    """The routes that the page calls, for any asynchronous framework.

    Args:
        client: The client, or a function that returns it for a request. The endpoint does not
            close it.
        reuse: Whether `POST /session` returns the user's active session, as
            `get_or_create_session` does. Default: it creates a session each time.
        session_by_id: Whether to add `GET` and `DELETE /session/{id}`, for the user's own
            sessions; default: no.
        allowed_origins: Other origins whose pages may call the endpoint, such as
            `https://app.example.com`. A first label `*`, as in `https://*.preview.example.com`,
            stands for any one label. Default: none.
        rate_limit: Requests per minute and user, except for signing out: 1 to 1,000; default 30.
            None: no limit. Requests are counted in the client's store: together for all processes
            that share it, by default for this process.
        timeout: Seconds for a call to the API, more than 0; default 10. None: no limit. A failed
            call is not retried, so that it does not block a worker.
        session_path: The path of the session routes below the prefix; default `/session`.
        refresh_path: The path of the refresh route below the prefix; default `/session/refresh`.

    Raises:
        ConfigurationError: A setting is invalid.
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
