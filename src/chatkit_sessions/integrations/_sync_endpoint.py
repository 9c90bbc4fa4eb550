"""The endpoint for synchronous frameworks."""

from collections.abc import Iterable

from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._concurrency.run import run_blocking
from chatkit_sessions.options import SessionOptions

from ._flow import EndpointFlow
from ._messages import DEFAULT_RATE_LIMIT, DEFAULT_TIMEOUT, EndpointRequest, EndpointResponse


class ChatKitEndpoint(EndpointFlow):
    """The routes that the widget's page calls, for any synchronous framework.

    Args:
        client: Makes the sessions. It stays yours to close.
        reuse: Whether `POST /session` returns the user's live session where there is one, as
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
        super().__init__(
            client,
            ChatKitClient,
            reuse=reuse,
            session_by_id=session_by_id,
            allowed_origins=allowed_origins,
            rate_limit=rate_limit,
            timeout=timeout,
        )

    def handle(
        self,
        request: EndpointRequest,
        *,
        user: str | None,
        options: SessionOptions | None = None,
    ) -> EndpointResponse:
        """Respond to a request.

        Args:
            request: What the page sent. Nothing of it decides whose session it is.
            user: Your own id of the person who is signed in, as your server knows it; None or
                empty: nobody is.
            options: The options of a session that is created, None for the API's own.

        Returns:
            The response. Errors of the API, of the store and in the settings are in the log, and
            reach the page as a code without their text.

        Raises:
            RuntimeError: The client is closed.
        """
        return run_blocking(self._handle, request, user, options)
