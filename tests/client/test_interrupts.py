"""What interrupts a call leaves it unchanged, and nothing behind.

Ctrl-C, and the time limits of task queues: Celery's SoftTimeLimitExceeded and RQ's
JobTimeoutException are ordinary exceptions that a signal handler raises, wherever the call is.
"""

import ctypes
import gc
import linecache
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType
from typing import NoReturn, TypeAlias

import httpx
import pytest

import chatkit_sessions
from chatkit_sessions import ChatKitClient
from chatkit_sessions._concurrency.single_flight import SingleFlight
from chatkit_sessions._concurrency.threads import interrupt_in
from chatkit_sessions._http import async_network
from chatkit_sessions._http.async_network import AsyncioStream
from chatkit_sessions._http.sync_network import BlockingStream
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from raw_server import Connection, raw_server, serve_sessions
from secrets_shown import assert_silent, everything_shown
from support import KEY, NO_AUTHORITIES, WORKFLOW, Connect, ok

PACKAGE = Path(chatkit_sessions.__file__).parent
ROOMS = tuple(str(PACKAGE / room) for room in ("_client", "_concurrency", "_sessions"))


END: FunctionType = vars(SingleFlight)["end"]


class SoftTimeLimitExceeded(Exception):  # noqa: N818 -- Celery's name
    """As Celery's."""


CALLS: dict[str, Callable[[ChatKitClient, str], object]] = {
    "create": lambda chatkit, user: chatkit.create_session(user),
    "get or create": lambda chatkit, user: chatkit.get_or_create_session(user),
    "refresh": lambda chatkit, user: chatkit.refresh_session("ek_of_before", user=user),
    "delete": lambda chatkit, _: chatkit.delete_session("cksess_1"),
    "sign out": lambda chatkit, user: chatkit.delete_sessions(user),
}


# At every line of the library that a sync call passes, one after the other


LineTrace: TypeAlias = Callable[[FrameType, str, object], "LineTrace | None"]


def is_cleaning_up(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not END.__code__:
        frame = frame.f_back
    return frame is not None


class Interrupt:
    """Raises an exception at the nth line of the library's own.

    Not within what ends a flight: nothing can clean up after what cleans up.
    """

    def __init__(self, kind: type[BaseException], at: int) -> None:
        self._kind = kind
        self._left = at
        self.raised: BaseException | None = None

    def __call__(self, frame: FrameType, event: str, _: object) -> "LineTrace | None":
        del event
        in_rooms = frame.f_code.co_filename.startswith(ROOMS)
        return self._at_line if in_rooms and not is_cleaning_up(frame) else None

    def _at_line(self, frame: FrameType, event: str, _: object) -> "LineTrace":
        if event == "line" and self.raised is None:
            self._left -= 1
            if self._left <= 0 and may_be_interrupted(frame):
                self.raised = self._kind()
                raise self.raised
        return self._at_line


def may_be_interrupted(frame: FrameType) -> bool:
    """Python runs no signal handler between a lock's block and the end of its `with`."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return not any(each in line for each in ("single_flight.end(", "_lock."))


def interrupted(call: Callable[[], object], kind: type[BaseException], *, at: int) -> bool:
    """Make the call and raise at that line; whether the call was long enough."""
    interrupt, before = Interrupt(kind, at), sys.gettrace()
    came_out: BaseException | None = None
    try:
        sys.settrace(interrupt)
        call()
    except kind as error:
        came_out = error
    finally:
        sys.settrace(before)
    assert came_out is interrupt.raised, "it comes out of the call, and unchanged"
    return interrupt.raised is not None


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [(SoftTimeLimitExceeded, 1), (KeyboardInterrupt, 5)])
@pytest.mark.parametrize("name", ["create", "get or create", "refresh", "sign out"])
def test_an_interrupt_leaves_nothing_locked_and_nothing_pending(
    name: str, kind: type[BaseException], step: int
) -> None:
    call = CALLS[name]
    with FakeChatKit() as fake, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chatkit = fake.client()
        at = 0
        while True:
            at += step
            user = f"user_{at}"
            if name == "sign out":
                chatkit.get_or_create_session(user)
            if not interrupted(partial(call, chatkit, user), kind, at=at):
                break
            # A call that waited for a flight of before would never end: nobody else is there.
            assert chatkit._sessions.registry.single_flight._in_flight.get() == {}
            chatkit.get_or_create_session(user)
            chatkit.delete_sessions(user)
        gc.collect()
    # Such as that a coroutine was never awaited.
    assert [str(each.message) for each in caught] == []
    assert at > 50


# By a signal handler, while the HTTP client waits or calls what is the user's


HANDLED: dict[str, Callable[[], Exception]] = {
    "a class of its own": lambda: SoftTimeLimitExceeded("the soft limit", 30),
    "the socket's": lambda: TimeoutError("the soft limit"),
    "Python's": lambda: RuntimeError("the soft limit"),
}


class Handler:
    """As task queues install it: a method, a partial, an object."""

    def __init__(self, raised: Exception) -> None:
        self.raised = raised

    def handle(self, *_: object) -> NoReturn:
        raise self.raised

    __call__ = handle


# Over the library's own connections. httpcore takes an OSError in its sending for the socket's, and
# drops it.
HANDLED_BY_OURS: dict[str, Callable[[], Exception]] = {
    **HANDLED,
    "the system's": lambda: OSError("the soft limit"),
}


@pytest.fixture(params=HANDLED)
def handler(request: pytest.FixtureRequest) -> Iterator[Handler]:
    handler = Handler(HANDLED_BY_OURS[request.param]())
    before = signal.signal(signal.SIGTERM, handler.handle)
    yield handler
    signal.signal(signal.SIGTERM, before)


def interrupt_main_thread() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


SILENT: dict[str, Callable[[Connection], object]] = {
    "before the response": lambda _: None,
    "within its head": lambda connection: connection.send(b"HTTP/1.1 200 OK\r\n"),
    "within its body": lambda connection: connection.send(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"
    ),
}


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *(("create", stage) for stage in SILENT),
        *((name, "before the response") for name in ("get or create", "refresh", "delete")),
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["own client", "supplied client"])
def test_what_a_signal_handler_raises_comes_out_unchanged_and_at_once(
    handler: Handler, name: str, stage: str, *, own: bool
) -> None:
    def serve(connection: Connection) -> None:
        if connection.receive():
            SILENT[stage](connection)
            interrupt_main_thread()
            connection.stop.wait()

    with raw_server(serve) as server, httpx.Client(verify=NO_AUTHORITIES) as http:
        chatkit = ChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=server.url,
            http_client=None if own else http,
        )
        arguments = handler.raised.args
        with pytest.raises(type(handler.raised)) as caught:
            CALLS[name](chatkit, "user_123")
        chatkit.close()

    assert caught.value is handler.raised
    assert caught.value.args == arguments
    assert len(server.requests) == 1
    assert_silent(everything_shown(caught.value))


@pytest.mark.parametrize("handler", HANDLED_BY_OURS, indirect=True)
def test_so_it_does_on_a_connection_that_was_idle(handler: Handler) -> None:
    def serve(connection: Connection) -> None:
        connection.receive()
        connection.answer()
        connection.receive()
        interrupt_main_thread()
        connection.stop.wait()

    with (
        raw_server(serve) as server,
        ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit,
    ):
        chatkit.create_session("user_123")
        with pytest.raises(type(handler.raised)) as caught:
            chatkit.create_session("user_123")

        assert caught.value is handler.raised
        assert (len(server.requests), server.connections) == (2, 1)


@pytest.mark.parametrize("handler", HANDLED_BY_OURS, indirect=True)
def test_so_it_does_while_a_request_is_sent(
    connect: Connect, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = list[None]()

    async def send(*_: object) -> bool:
        sends.append(None)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    monkeypatch.setattr(BlockingStream, "send", send)
    monkeypatch.setattr(AsyncioStream, "send", send)
    with raw_server(serve_sessions) as server, pytest.raises(type(handler.raised)) as caught:
        connect(base_url=server.url).create_session("user_123")

    assert caught.value is handler.raised
    assert len(sends) == 1


@pytest.mark.parametrize("handler", HANDLED_BY_OURS, indirect=True)
def test_so_it_does_while_the_first_of_two_addresses_is_tried(
    connect: Connect, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    async def interrupt(address: str, port: int) -> NoReturn:
        tried.append((address, port))
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    class Socket(socket.socket):
        def connect(self, address: object) -> NoReturn:
            tried.append(address)
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError

    def resolve(*_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", 9)), (*kind, ("127.0.0.2", 9))]

    if connect.kind == "sync":
        monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(async_network, "_connect", interrupt)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(type(handler.raised)) as caught:
        connect(base_url="http://localhost:9").create_session("user_123")

    assert caught.value is handler.raised
    assert tried == [("127.0.0.1", 9)]


@pytest.mark.parametrize("name", CALLS)
def test_so_it_does_within_a_transport_of_the_users(
    connect: Connect, handler: Handler, name: str
) -> None:
    attempts: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        if name == "sign out" and not request.url.path.endswith("/cancel"):
            return ok(id=f"cksess_{os.urandom(4).hex()}")
        attempts.append(request)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    chatkit = connect(httpx.MockTransport(respond))
    if name == "sign out":
        chatkit.create_session("user_123")
    with pytest.raises(type(handler.raised)) as caught:
        CALLS[name](chatkit, "user_123")

    assert caught.value is handler.raised
    assert len(attempts) == 1


def test_a_call_within_the_handling_of_an_interrupt_is_one_of_its_own(
    connect: Connect, handler: Handler
) -> None:
    """A task that cleans up when its time is over."""

    def refuse(request: httpx.Request) -> NoReturn:
        raise httpx.ConnectError("refused", request=request)

    chatkit = connect(httpx.MockTransport(refuse), max_retries=0)
    try:
        signal.raise_signal(signal.SIGTERM)
    except type(handler.raised):
        with pytest.raises(chatkit_sessions.APIConnectionError, match="refused"):
            chatkit.delete_session("cksess_1")


def test_an_interrupted_leader_leaves_no_lease(connect: Connect, handler: Handler) -> None:
    def respond(_: httpx.Request) -> NoReturn:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    store = MemorySessionStore()
    with pytest.raises(type(handler.raised)):
        connect(httpx.MockTransport(respond), store=store).get_or_create_session("user_123")

    assert [name for _, name in store._entries if name.startswith("lease")] == []


# By another thread, as RQ does where there are no signals


@pytest.mark.parametrize("own", [True, False], ids=["own client", "supplied client"])
def test_what_another_thread_raises_in_a_call_comes_out_unchanged(*, own: bool) -> None:
    def serve(connection: Connection) -> None:
        if connection.receive():
            thread = ctypes.c_ulong(threading.main_thread().ident or 0)
            kind = ctypes.py_object(SoftTimeLimitExceeded)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, kind)
            connection.answer()
            connection.stop.wait()

    with raw_server(serve) as server, httpx.Client(verify=NO_AUTHORITIES) as http:
        chatkit = ChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=server.url,
            http_client=None if own else http,
        )
        with pytest.raises(SoftTimeLimitExceeded):
            chatkit.create_session("user_123")
        chatkit.close()
    assert len(server.requests) == 1


# How it is found


@pytest.mark.parametrize("how", ["method", "partial", "object"])
def test_a_handler_is_found_in_whichever_way_it_is_installed(how: str) -> None:
    handler = Handler(SoftTimeLimitExceeded())
    ways: dict[str, Callable[..., NoReturn]] = {
        "method": handler.handle,
        "partial": partial(handler.handle, 1),
        "object": handler,
    }
    before = signal.signal(signal.SIGTERM, ways[how])
    try:
        with pytest.raises(SoftTimeLimitExceeded) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert interrupt_in(caught.value, handled=None) is caught.value
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_exception_that_leads_back_to_itself_is_no_interrupt() -> None:
    """Such as one that a mock raises again and again, each time of what was made of it."""
    error, made_of_it = OSError("refused"), OSError("cannot connect")
    error.__cause__, made_of_it.__cause__ = made_of_it, error

    assert interrupt_in(error, handled=None) is None
