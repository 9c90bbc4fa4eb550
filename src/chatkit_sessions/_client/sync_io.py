"""What the synchronous client does in its own way: send, wait and close."""

import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeAlias, TypeVar

from pydantic import SecretStr

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.per_process import PerProcess
from chatkit_sessions._concurrency.repeater import Repeater
from chatkit_sessions._concurrency.run import run_blocking
from chatkit_sessions._concurrency.workers import for_each
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.settings import Settings
from chatkit_sessions._config.validation import as_secret, reject_awaitable
from chatkit_sessions._http.clients import (
    SuppliedClient,
    SyncHTTPClient,
    errors_of_sync_client,
)
from chatkit_sessions._http.failures import HTTPErrors
from chatkit_sessions._http.proxies import proxy_for
from chatkit_sessions._http.sync_pool import Client, client_factory
from chatkit_sessions.events import OnEvent
from chatkit_sessions.stores.base import SessionStore

from .flow import SessionFlow
from .state import system_runtime

P = ParamSpec("P")
T = TypeVar("T")

KeySource: TypeAlias = Callable[[], str | SecretStr]

_repeater: Final = PerProcess(Repeater)


class SyncIO(SessionFlow[KeySource, threading.Event]):
    """The hooks of the flow, which block and never suspend.

    Args:
        settings: What the client is set to.
        store: Where sessions are recorded; None: a `MemorySessionStore` of the client's own.
        http_client: The user's; None: the client makes its own.
        clock: The user's.
    """

    def __init__(
        self,
        settings: Settings[KeySource],
        store: SessionStore | None,
        *,
        http_client: SyncHTTPClient | None,
        clock: Callable[[], datetime] | None,
        on_event: OnEvent | None,
    ) -> None:
        super().__init__(
            settings,
            store,
            new_event=threading.Event,
            runtime=system_runtime(time.sleep),
            clock=clock,
            on_event=on_event,
        )
        self._http: SuppliedClient | PerProcess[Client]
        if http_client is None:
            proxy = proxy_for(settings.base_url)
            self._http = PerProcess(client_factory(proxy))
            self._http_errors = HTTPErrors.of_own_client(proxy and proxy.described)
        else:
            self._http = SuppliedClient(http_client)
            self._http_errors = errors_of_sync_client(http_client)

    def __enter__(self) -> Self:
        self._lifetime.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lifetime.leave():
            self.close()

    def close(self) -> None:
        """Close the connections; further calls raise RuntimeError. Closing twice is harmless.

        A closed client opens again when it is entered.

        A client from `with_options` closes only itself, and your `http_client` stays open. Calls in
        progress in other threads get their response, within their deadline, and are not retried.
        """
        if self._lifetime.close() and isinstance(self._http, PerProcess):
            owned = self._http.pop()
            if owned is not None:
                owned.close()

    async def _bounded(
        self,
        deadline: Deadline,
        flow: Callable[P, Coroutine[object, None, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        del deadline  # each wait in a thread checks it
        return await flow(*args, **kwargs)

    async def _sleep(self, seconds: float) -> None:
        self._runtime.sleep(seconds)

    async def _wait_for(self, done: threading.Event, seconds: float | None) -> bool:
        return done.wait(seconds)

    def _repeating(
        self, flow: Callable[[], Coroutine[object, None, None]], seconds: float
    ) -> AbstractContextManager[object]:
        return _repeater.get().repeating(lambda: run_blocking(flow), seconds)

    async def _for_each(
        self,
        flow: Callable[[str], Coroutine[object, None, None]],
        items: Iterable[str],
        *,
        at_once: int,
    ) -> None:
        for_each(lambda item: run_blocking(flow, item), items, most=at_once)

    def _event_loop(self) -> None:
        return None

    def _shielded(self) -> AbstractContextManager[object]:
        return nullcontext()

    async def _key(self) -> object:
        source = self._settings.api_key
        return source if isinstance(source, SecretStr) else as_secret(reject_awaitable(source()))

    async def _close_idle_connections(self) -> None:
        if isinstance(self._http, PerProcess):
            self._http.get().close_idle()

    def _http_client(self) -> SuppliedClient | Client:
        if not isinstance(self._http, PerProcess):
            self._http.check_open()
            return self._http
        http = self._http.get()
        if self._lifetime.closed:
            self.close()  # again: what was made after another thread has closed must not stay open
            self._check_open()
        return http

    async def _send(self, request: Request, deadline: Deadline) -> Response:
        http = self._http_client()
        response: Response | None = None
        error: BaseException | None = None
        handled = sys.exception()
        try:
            response = http.send(request, deadline)
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
