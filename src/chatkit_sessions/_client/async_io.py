"""How the asynchronous client sends and waits: it awaits, under asyncio or trio."""

import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.tasks import (
    PerLoop,
    TaskEvent,
    for_each,
    heartbeat,
    running_loop,
    shielded,
    sleep,
    time_limit,
)
from chatkit_sessions._config.validation import as_secret
from chatkit_sessions._http.async_network import connect
from chatkit_sessions._http.clients import (
    AsyncHTTPClient,
    AsyncSuppliedClient,
    errors_of_client,
)
from chatkit_sessions._http.failures import HTTPErrors
from chatkit_sessions._http.own_client import OwnClient, own_client_factory
from chatkit_sessions._http.proxies import proxy_for
from chatkit_sessions.errors import APIConnectionError

from .calls import Lifetime, client_closed_error, system_runtime


class AsyncIO:
    """The `IO` of the asynchronous client.

    Args:
        base_url: Where the requests go.
        http_client: The user's; None: the library's own.
    """

    def __init__(self, base_url: str, http_client: AsyncHTTPClient | None) -> None:
        self.runtime = system_runtime(sleep)
        self.http: AsyncSuppliedClient | PerLoop[OwnClient]
        if http_client is None:
            proxy = proxy_for(base_url)
            self.http = PerLoop(own_client_factory(connect, proxy, is_async=True))
            self._http_errors = HTTPErrors("httpx", proxy and proxy.described, supplied=False)
        else:
            self.http = AsyncSuppliedClient(http_client)
            self._http_errors = errors_of_client(http_client, is_async=True)
        self._in_progress: dict[_CallLimit, None] = {}

    async def call_key_function(self, function: Callable[[], object]) -> object:
        """See `IO`."""
        key = function()
        return as_secret(await key if inspect.isawaitable(key) else key)

    async def send(self, request: Request, deadline: Deadline) -> Response:
        """See `IO`."""
        http = await self._http_client()
        return await self._http_errors.attempt(http, request, deadline)

    async def _http_client(self) -> AsyncSuppliedClient | OwnClient:
        if isinstance(self.http, PerLoop):
            return await self.http.get()
        self.http.check_open()
        return self.http

    async def close_idle_connections(self) -> None:
        """See `IO`."""
        if isinstance(self.http, PerLoop):
            (await self.http.get()).connections.close_idle()

    async def close(self, *, connections: bool) -> None:
        """See `IO`; other event loops end their calls and connections themselves."""
        for limit in list(self._in_progress):
            limit.end_if_closed()
        if connections and isinstance(self.http, PerLoop):
            await self.http.aclose()

    def limit(
        self, deadline: Deadline, lifetime: Lifetime
    ) -> AbstractAsyncContextManager[object, None]:
        """See `IO`."""
        return _CallLimit(deadline, lifetime, self._in_progress)

    async def sleep(self, seconds: float) -> None:
        """See `IO`."""
        sleeping = self.runtime.sleep(seconds)
        if sleeping is not None:
            await sleeping

    def new_event(self) -> TaskEvent:
        """See `IO`."""
        return TaskEvent()

    def event_loop(self) -> Hashable:
        """See `IO`."""
        return running_loop()

    def heartbeat(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        """See `IO`."""
        return heartbeat(flow, seconds)

    async def for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        """See `IO`."""
        await for_each(flow, items, most=at_once)

    def shielded(self) -> AbstractContextManager[object]:
        """See `IO`."""
        return shielded()


class _CallLimit(AbstractAsyncContextManager[None, None]):
    """The limit of one call.

    Args:
        deadline: The call's.
        lifetime: That of the client which makes the call.
        in_progress: Where the limit is while it applies.
    """

    def __init__(
        self, deadline: Deadline, lifetime: Lifetime, in_progress: dict["_CallLimit", None]
    ) -> None:
        self._deadline = deadline
        self._lifetime = lifetime
        self._in_progress = in_progress

    async def __aenter__(self) -> None:
        self._limit = time_limit(self._deadline.remaining())
        self._entered = await self._limit.__aenter__()
        self._in_progress[self] = None

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._in_progress[self]
        is_over = await self._limit.__aexit__(exc_type, exc_value, traceback)
        if is_over and exc_value is not None:  # trio says so even where nothing was cut short
            is_closed = self._lifetime.closed
            try:
                raise client_closed_error() if is_closed else self._deadline.error()
            except APIConnectionError as error:
                error.__context__ = None  # what ended the call from within, with its frames
                raise

    def end_if_closed(self) -> None:
        """End the call if its client is closed and it runs in this event loop."""
        if self._lifetime.closed and self._entered.loop is running_loop():
            self._entered.end()
