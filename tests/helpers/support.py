"""What the client tests share: one blocking face for both clients, scripted answers, a clock."""

import asyncio
import inspect
import json
import logging
import os
import ssl
import stat
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias, cast, get_args

import httpx
import httpx2
import pytest
import respx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, RetryPolicy

Kind: TypeAlias = Literal["sync", "async", "uvloop"]
"""The sync client, or the async one on asyncio's own event loop or on uvloop's."""
Way: TypeAlias = Literal["transport", "respx", "respx over httpx", "httpx2"]
"""How scripted answers reach a client: from the transport of a supplied `http_client`, from either
of respx's mockers under the library's own, or from pytest-httpx2 under a supplied httpx2 client."""
WAYS: tuple[Way, ...] = get_args(Way)
JSON: TypeAlias = "dict[str, object]"
Answer: TypeAlias = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]

KEY = "sk-test-0123456789abcdefKEY"
SECRET = "ek_presented0123456789SECRET"
NEW_SECRET = "ek_fresh9876543210SECRET"
BASE_URL = "https://chatkit.test/v1"
WORKFLOW = "wf_test"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`verify` of an HTTP client that calls plain http: to load the authorities takes it 20 ms."""


@dataclass
class Time:
    """A clock that only sleeping and `advance` move; it remembers the sleeps."""

    now: datetime = NOON
    monotonic: float = 1000.0
    sleeps: list[float] = field(default_factory=list[float])

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)


@dataclass
class Ticking(Time):
    """A clock that also moves on by itself whenever somebody looks at it."""

    tick: float = 1.0

    def __getattribute__(self, name: str) -> object:
        if name == "monotonic":
            moved = object.__getattribute__(self, name) + object.__getattribute__(self, "tick")
            object.__setattr__(self, name, moved)
        return object.__getattribute__(self, name)


@dataclass
class Script:
    """Answers in order; the last one repeats. Remembers the requests."""

    answers: list[Answer]
    requests: list[httpx.Request] = field(default_factory=list[httpx.Request])

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            # A stream is read once: each request gets an answer of its own.
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=answer.content
            )
        return answer(request)

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    def body(self, index: int = -1) -> JSON:
        return cast("JSON", json.loads(self.requests[index].content))


def session_json(**changes: object) -> JSON:
    """A session as the API answers it; a change to None leaves the field out."""
    fields: JSON = {
        "id": "cksess_new",
        "object": "chatkit.session",
        "client_secret": NEW_SECRET,
        "expires_at": int((NOON + timedelta(minutes=10)).timestamp()),
        "status": "active",
        "user": "user_123",
        "workflow": {
            "id": WORKFLOW,
            "version": None,
            "state_variables": None,
            "tracing": {"enabled": True},
        },
        "max_requests_per_1_minute": 10,
        "rate_limits": {"max_requests_per_1_minute": 10},
    }
    merged = {**fields, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def ok(**changes: object) -> httpx.Response:
    return httpx.Response(
        200, json=session_json(**changes), headers={"x-request-id": "req_success"}
    )


def refused(
    status_code: int,
    message: str = "No.",
    *,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """An error in the API's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return httpx.Response(
        status_code,
        json={"error": error},
        headers={"x-request-id": "req_failure", **(headers or {})},
    )


def invalid_url(request: httpx.Request) -> httpx.Response:
    """What the API answers on a route that it does not have."""
    return refused(404, f"Invalid URL ({request.method} {request.url.path})")


@contextmanager
def current_event_loop() -> Generator[asyncio.AbstractEventLoop]:
    """An event loop of this thread, as Mangum needs it: it makes one otherwise, and leaves it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        asyncio.set_event_loop(None)


def new_uvloop() -> asyncio.AbstractEventLoop:
    """An event loop as many services run on; there is none for Windows."""
    uvloop = pytest.importorskip("uvloop")
    return cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())


class Blocking:
    """An AsyncChatKitClient with the face of a ChatKitClient, so that one suite serves both."""

    def __init__(self, client: AsyncChatKitClient, runner: asyncio.Runner) -> None:
        self.wrapped = client
        self._runner = runner

    def __getattr__(self, name: str) -> object:
        member: object = getattr(self.wrapped, "aclose" if name == "close" else name)
        if name == "with_options":
            derive = cast("Callable[..., AsyncChatKitClient]", member)

            def derive_blocking(**options: object) -> Blocking:
                return Blocking(derive(**options), self._runner)

            return derive_blocking
        if not inspect.iscoroutinefunction(member):
            return member

        def call(*args: object, **options: object) -> object:
            return self._runner.run(member(*args, **options))

        return call

    def __repr__(self) -> str:
        return repr(self.wrapped)


class Connect:
    """Makes clients of one kind and closes them at the end of the test."""

    def __init__(self, kind: Kind, way: Way, time: Time, stack: ExitStack) -> None:
        self.kind: Kind = "sync" if kind == "sync" else "async"
        self._way = way
        self.time = time
        self._stack = stack
        loop_factory = None if kind != "uvloop" else new_uvloop
        runner = None if kind == "sync" else asyncio.Runner(loop_factory=loop_factory)
        self._runner = None if runner is None else stack.enter_context(runner)

    def __call__(
        self,
        transport: Script | httpx.BaseTransport | None = None,
        *,
        api_key: object = KEY,
        workflow_id: str | None = WORKFLOW,
        base_url: str | None = BASE_URL,
        organization: str | None = None,
        project: str | None = None,
        timeout: float | None = 30.0,
        max_retries: int | RetryPolicy = 2,
        allow_insecure_http: bool = False,
        store: object = None,
        http_options: dict[str, object] | None = None,
        http_client: object = None,
        on_event: object = None,
    ) -> ChatKitClient:
        """A client over a scripted or other transport; over its own connections without one."""
        scripted = isinstance(transport, Script)
        if isinstance(transport, Script):
            transport = self._serve(transport, supplied=http_options is not None)
        client_type = ChatKitClient if self._runner is None else AsyncChatKitClient
        if transport is not None:
            make_http = cast("Callable[..., object]", self.http_client)
            http_client = make_http(transport=transport, **(http_options or {}))
        elif scripted and self._way == "httpx2":
            http_client = self.http_client(family=httpx2)
        make = cast("Callable[..., ChatKitClient]", client_type)
        client = make(
            api_key=api_key,
            workflow_id=workflow_id,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            max_retries=max_retries,
            allow_insecure_http=allow_insecure_http,
            http_client=http_client,
            store=store,
            clock=lambda: self.time.now,
            on_event=on_event,
        )
        return self.adopt(client)

    def _serve(self, script: Script, *, supplied: bool) -> httpx.BaseTransport | None:
        if supplied or self._way == "transport":
            return httpx.MockTransport(script)
        mocker = {"respx": "httpcore", "respx over httpx": "httpx", "httpx2": "httpcore2"}
        router = respx.MockRouter(assert_all_called=False, using=mocker[self._way])
        self._stack.enter_context(router)

        def answer(request: httpx.Request) -> httpx.Response:
            try:
                return script(request)
            except httpx.RequestError as error:
                # httpx2 has the same errors, under the same names.
                raise getattr(httpx2, type(error).__name__)(str(error)) from None

        router.route().mock(side_effect=answer if self._way == "httpx2" else script)
        return None

    def adopt(self, client: ChatKitClient) -> ChatKitClient:
        """Give a client the test's time and the blocking face."""
        runtime = client._sessions.io.runtime._replace(
            monotonic=lambda: self.time.monotonic, random=lambda: 0.0
        )
        if self._runner is None:
            client._sessions.io.runtime = runtime._replace(sleep=self.time.sleep)
            self._stack.callback(client.close)
            return client
        wrapped = cast("AsyncChatKitClient", client)

        async def sleep(seconds: float) -> None:
            self.time.sleep(seconds)

        wrapped._sessions.io.runtime = runtime._replace(sleep=sleep)
        blocking = cast("ChatKitClient", Blocking(wrapped, self._runner))
        self._stack.callback(blocking.close)
        return blocking

    def http_client(self, *, family: ModuleType = httpx, **options: object) -> object:
        """An HTTP client of this kind, closed at the end of the test.

        Without certificates unless the test has some: to load those that httpx has takes 20 ms.
        """
        options = {"verify": False, **options}
        if self._runner is None:
            client = cast("httpx.Client", family.Client(**options))
            self._stack.callback(client.close)
            return client
        runner = self._runner
        other = cast("httpx.AsyncClient", family.AsyncClient(**options))
        self._stack.callback(lambda: runner.run(other.aclose()))
        return other


def open_sockets() -> set[int]:
    """The sockets that this process has open, by their inodes; none where that cannot be seen."""
    sockets: set[int] = set()
    listed = Path("/dev/fd")
    for descriptor in listed.iterdir() if listed.is_dir() else ():
        with suppress(OSError):  # that of the listing itself
            status = os.fstat(int(descriptor.name))
            if stat.S_ISSOCK(status.st_mode):
                sockets.add(status.st_ino)
    return sockets


@contextmanager
def logging_as_it_was() -> Generator[None, None, None]:
    """Undo what an application does to the process's logging, as Litestar does, or a snippet."""
    root = logging.getLogger()
    handlers, levels = list(root.handlers), levels_of_loggers()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name in levels_of_loggers():
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def levels_of_loggers() -> dict[str | None, int]:
    """The level of every logger that there is; the root's has no name."""
    loggers = logging.root.manager.loggerDict.items()
    named: dict[str | None, int] = {
        name: each.level for name, each in loggers if isinstance(each, logging.Logger)
    }
    return {None: logging.root.level, **named}


@contextmanager
def connecting(kind: Kind, way: Way, time: Time) -> Generator[Connect, None, None]:
    with ExitStack() as stack:
        yield Connect(kind, way, time, stack)
