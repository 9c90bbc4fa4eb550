"""What the asynchronous client does in its own way: send, wait and close."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import ParamSpec, Self, TypeAlias, TypeVar

from pydantic import SecretStr

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.event_loop import (
    Event,
    Limit,
    PerLoop,
    new_event,
    running_loop,
    shielded,
    sleep,
    time_limit,
)
from chatkit_sessions._concurrency.repeating import repeating
from chatkit_sessions._concurrency.turns import for_each
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.settings import Settings
from chatkit_sessions._config.validation import as_secret
from chatkit_sessions._http.async_pool import Client, client_factory
from chatkit_sessions._http.clients import (
    AsyncHTTPClient,
    AsyncSuppliedClient,
    errors_of_async_client,
)
from chatkit_sessions._http.failures import HTTPErrors
from chatkit_sessions._http.proxies import proxy_for
from chatkit_sessions.events import OnEvent
from chatkit_sessions.stores.base import AsyncSessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .base import client_closed_error
from .flow import SessionFlow
from .state import Lifetime, system_runtime

P = ParamSpec("P")
T = TypeVar("T")

AsyncKeySource: TypeAlias = Callable[[], str | SecretStr | Awaitable[str | SecretStr]]


class AsyncIO(SessionFlow[AsyncKeySource, Event]):
    """The hooks of the flow, awaited.

    Args:
        settings: What the client is set to.
        store: Where sessions are recorded; None: a `MemorySessionStore` of the client's own.
        http_client: The user's; None: the client makes its own.
        clock: The user's.
    """

    def __init__(
        self,
        settings: Settings[AsyncKeySource],
        store: AsyncSessionStore | MemorySessionStore | None,
        *,
        http_client: AsyncHTTPClient | None,
        clock: Callable[[], datetime] | None,
        on_event: OnEvent | None,
    ) -> None:
        super().__init__(
            settings,
            store,
            new_event=new_event,
            runtime=system_runtime(sleep),
            clock=clock,
            on_event=on_event,
        )
        self._http: AsyncSuppliedClient | PerLoop[Client]
        if http_client is None:
            proxy = proxy_for(settings.base_url)
            self._http = PerLoop(client_factory(proxy))
            self._http_errors = HTTPErrors.of_own_client(proxy and proxy.described)
        else:
            self._http = AsyncSuppliedClient(http_client)
            self._http_errors = errors_of_async_client(http_client)
        self._in_progress: dict[Limit, Lifetime] = {}

    async def __aenter__(self) -> Self:
        self._lifetime.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lifetime.leave():
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; further calls raise RuntimeError. Closing twice is harmless.

        A closed client opens again when it is entered.

        A client from `with_options` closes only itself, and your `http_client` stays open. Calls in
        progress in this event loop end at once, with an APIConnectionError. Connections of other
        event loops are closed when these end.
        """
        owns_connections = self._lifetime.close()
        for limit, lifetime in list(self._in_progress.items()):
            if lifetime.closed and limit.loop is running_loop():
                limit.end()
        if owns_connections and isinstance(self._http, PerLoop):
            await self._http.aclose()

    async def _bounded(
        self,
        deadline: Deadline,
        flow: Callable[P, Coroutine[object, None, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with time_limit(deadline.remaining()) as limit:
            self._in_progress[limit] = self._lifetime
            try:
                return await flow(*args, **kwargs)
            finally:
                del self._in_progress[limit]
        raise client_closed_error() if self._lifetime.closed else deadline.error()

    async def _sleep(self, seconds: float) -> None:
        sleeping = self._runtime.sleep(seconds)
        if sleeping is not None:
            await sleeping

    async def _wait_for(self, done: Event, seconds: float | None) -> bool:
        async with time_limit(seconds):
            await done.wait()
            return True
        return False

    def _repeating(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        return repeating(flow, seconds)

    async def _for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        await for_each(flow, items, most=at_once)

    def _event_loop(self) -> Hashable:
        return running_loop()

    def _shielded(self) -> AbstractContextManager[object]:
        return shielded()

    async def _key(self) -> object:
        source = self._settings.api_key
        if isinstance(source, SecretStr):
            return source
        key = source()
        return as_secret(await key if inspect.isawaitable(key) else key)

    async def _close_idle_connections(self) -> None:
        if isinstance(self._http, PerLoop):
            await (await self._http.get()).close_idle()

    async def _http_client(self) -> AsyncSuppliedClient | Client:
        if isinstance(self._http, PerLoop):
            return await self._http.get()
        self._http.check_open()
        return self._http

    async def _send(self, request: Request, deadline: Deadline) -> Response:
        http = await self._http_client()
        response: Response | None = None
        error: BaseException | None = None
        handled = sys.exception()
        try:
            response = await http.send(request, deadline)
        except BaseException as raised:  # noqa: BLE001 -- raised below, or one of ours in its place
            failure = self._http_errors.translate(raised, request, handled=handled)
            if isinstance(failure, Response):
                response = failure
            else:
                error = failure
        if error is not None or response is None:
            # Raised outside the `except`: the HTTP client's error must not be its context.
            raise error or deadline.error()
        return response
