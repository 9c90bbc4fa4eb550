"""How the synchronous client sends and waits: it blocks its thread."""

import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Final

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import (
    Heartbeat,
    PerProcess,
    ThreadEvent,
    for_each,
    run_blocking,
)
from chatkit_sessions._config.validation import as_secret, reject_awaitable
from chatkit_sessions._http.clients import (
    SuppliedClient,
    SyncHTTPClient,
    errors_of_client,
)
from chatkit_sessions._http.failures import HTTPErrors
from chatkit_sessions._http.own_client import OwnClient, own_client_factory
from chatkit_sessions._http.proxies import proxy_for
from chatkit_sessions._http.sync_network import connect

from .calls import Lifetime, system_runtime

_heartbeat: Final = PerProcess(Heartbeat)


class SyncIO:
    """The `IO` of the synchronous client.

    Args:
        base_url: Where the requests go.
        http_client: The user's; None: the library's own.
        lifetime: Whether the client is open that the connections belong to.
    """

    def __init__(
        self, base_url: str, http_client: SyncHTTPClient | None, lifetime: Lifetime
    ) -> None:
        self.runtime = system_runtime(time.sleep)
        self._lifetime = lifetime
        self.http: SuppliedClient | PerProcess[OwnClient]
        if http_client is None:
            proxy = proxy_for(base_url)
            self.http = PerProcess(own_client_factory(connect, proxy, is_async=False))
            self._http_errors = HTTPErrors("httpx", proxy and proxy.described, supplied=False)
        else:
            self.http = SuppliedClient(http_client)
            self._http_errors = errors_of_client(http_client, is_async=False)

    async def call_key_function(self, function: Callable[[], object]) -> object:
        """See `IO`."""
        return as_secret(reject_awaitable(function()))

    async def send(self, request: Request, deadline: Deadline) -> Response:
        """See `IO`."""
        http = self._http_client()
        return await self._http_errors.attempt(http, request, deadline)

    def _http_client(self) -> SuppliedClient | OwnClient:
        if not isinstance(self.http, PerProcess):
            self.http.check_open()
            return self.http
        http = self.http.get()
        if self._lifetime.closed:
            # Again: what was made after another thread has closed must not stay open.
            self._close_connections()
            self._lifetime.check_open()
        return http

    async def close_idle_connections(self) -> None:
        """See `IO`."""
        if isinstance(self.http, PerProcess):
            self.http.get().connections.close_idle()

    async def close(self, *, connections: bool) -> None:
        """See `IO`; calls in other threads go on, within their deadlines."""
        if connections:
            self._close_connections()

    def _close_connections(self) -> None:
        owned = self.http.pop() if isinstance(self.http, PerProcess) else None
        if owned is not None:
            owned.connections.close()

    def limit(
        self, deadline: Deadline, lifetime: Lifetime
    ) -> AbstractAsyncContextManager[object, None]:
        """See `IO`."""
        del deadline, lifetime  # each wait in a thread checks the deadline
        return _NO_LIMIT

    async def sleep(self, seconds: float) -> None:
        """See `IO`."""
        self.runtime.sleep(seconds)

    def new_event(self) -> ThreadEvent:
        """See `IO`."""
        return ThreadEvent()

    def event_loop(self) -> None:
        """See `IO`."""
        return

    def heartbeat(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        """See `IO`."""
        return _heartbeat.get().running(lambda: run_blocking(flow), seconds)

    async def for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        """See `IO`."""
        for_each(lambda item: run_blocking(flow, item), items, most=at_once)

    def shielded(self) -> AbstractContextManager[object]:
        """See `IO`."""
        return nullcontext()


class _NoLimit(AbstractAsyncContextManager[None, None]):
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


_NO_LIMIT: Final = _NoLimit()
