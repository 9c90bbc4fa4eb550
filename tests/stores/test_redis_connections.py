"""Connections that a store keeps: what is sent over which, and when one is given up."""

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TypeVar, cast

import pytest
import redis
import redis.asyncio
from hypothesis import given, strategies as st

from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions.stores._redis_commands import Argument, Command, pack
from chatkit_sessions.stores._redis_senders import Commands, OwnSender
from support import Kind

T = TypeVar("T")
GET: Command = ("GET", "key")


class Fake:
    """Returns what it does, or an awaitable of that."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind

    def _return(self, function: Callable[[], object]) -> object:
        async def flow() -> object:
            return function()

        return flow() if self._kind == "async" else function()


class FakeConnection(Fake):
    """A connection that replies with its number, or raises what it is given."""

    def __init__(self, kind: Kind, number: int) -> None:
        super().__init__(kind)
        self._number = number
        self.sent: list[bytes] = []
        self.raises: deque[BaseException] = deque()
        self.is_open = True

    def send_packed_command(self, command: list[bytes], *, check_health: bool) -> object:
        assert not check_health
        return self._return(lambda: self.sent.extend(command))

    def read_response(self, *, disable_decoding: bool) -> object:
        assert disable_decoding

        def read() -> int:
            if self.raises:
                raise self.raises.popleft()
            return self._number

        return self._return(read)

    def disconnect(self, *, nowait: bool = False) -> object:
        assert nowait is (self._kind == "async")

        def close() -> None:
            self.is_open = False

        return self._return(close)


class FakePool(Fake):
    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.made: list[FakeConnection] = []
        self.released: list[FakeConnection] = []
        self.raises: list[BaseException] = []
        """What each new connection raises."""

    def get_connection(self) -> object:
        def make() -> FakeConnection:
            self.made.append(FakeConnection(self._kind, len(self.made) + 1))
            self.made[-1].raises += self.raises
            return self.made[-1]

        return self._return(make)

    def release(self, connection: FakeConnection) -> object:
        return self._return(lambda: self.released.append(connection))


class Sending:
    """An `OwnSender` of either kind."""

    def __init__(self, kind: Kind, seconds: float = 60) -> None:
        self._is_async = kind == "async"
        self.pool = FakePool(kind)
        client = redis.asyncio.Redis() if self._is_async else redis.Redis()
        vars(client)["connection_pool"] = self.pool
        self.sender = OwnSender(
            cast("Commands", client), asynchronous=self._is_async, seconds=seconds
        )

    def send(self, *commands: Command) -> list[object]:
        return self.run(lambda: self.sender.send(commands))

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        async def flow() -> T:
            return await call()

        return asyncio.run(flow()) if self._is_async else run_blocking(flow)


@pytest.fixture
def sending(kind: Kind) -> Sending:
    return Sending(kind)


@given(st.lists(st.lists(st.text() | st.binary() | st.integers())))
def test_commands_are_sent_as_redis_py_sends_them(arguments: list[list[Argument]]) -> None:
    commands: list[Command] = [("EVALSHA", *each) for each in arguments]
    make = cast("Callable[[], redis.Connection]", redis.Connection)
    theirs = cast("Callable[[object], list[bytes]]", make().pack_commands)  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves it untyped

    assert pack(commands) == b"".join(theirs(commands))
    assert repr(pack(commands)) == f"<{len(pack(commands))} bytes>", "they may hold a secret"


def test_one_connection_serves_command_after_command(sending: Sending) -> None:
    assert sending.send(GET) == sending.send(GET) == [1]
    assert sending.send(GET, GET) == [1, 1]
    assert sending.pool.made[0].sent == [pack([GET]), pack([GET]), pack([GET, GET])]


def test_an_error_takes_the_place_of_one_reply(sending: Sending) -> None:
    error = redis.ResponseError("WRONGTYPE")
    sending.send(GET)
    sending.pool.made[0].raises.append(error)

    assert sending.send(GET, GET) == [error, 1]
    assert sending.send(GET) == [1], "the connection is kept"


def test_no_reply_shows_what_was_stored(sending: Sending) -> None:
    """A traceback of an interrupt shows the replies that a frame holds."""
    stored = [b"ek_of_somebody", [1, None, b"ek_of_somebody"]]
    sending.send(GET)
    vars(sending.pool.made[0])["_number"] = stored

    replies = sending.send(GET)

    assert replies == [stored]
    assert "ek_of_somebody" not in repr(replies)


def test_what_the_server_has_closed_is_made_anew_once(sending: Sending) -> None:
    sending.send(GET)
    sending.pool.made[0].raises.append(redis.ConnectionError("closed"))

    assert sending.send(GET) == [2]
    assert not sending.pool.made[0].is_open
    assert sending.pool.released == sending.pool.made[:1]


def test_a_server_that_closes_new_connections_fails(sending: Sending) -> None:
    error = redis.ConnectionError("closed")
    sending.pool.raises.append(error)

    assert sending.send(GET, GET) == [error, error]
    assert len(sending.pool.made) == 1


@pytest.mark.parametrize("kind", ["sync"])
def test_all_replies_together_have_a_time_limit(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection's own begins anew with each piece that arrives."""
    times = iter(range(0, 4000, 40))
    monkeypatch.setattr("chatkit_sessions.stores._redis_senders.monotonic", lambda: next(times))

    replies = sending.send(GET, GET, GET)

    assert list(map(str, replies)) == ["no reply within 60 s"] * 3
    assert not sending.pool.made[0].is_open
    assert sending.send(GET) == [2]


def test_connecting_ends_even_where_a_name_is_resolved_for_ever() -> None:
    sending = Sending("sync", seconds=0.001)
    connect, go_on, released = sending.pool.get_connection, Event(), Event()

    def hang() -> object:
        assert go_on.wait(60)
        return connect()

    vars(sending.pool)["get_connection"] = hang

    def release(_: object) -> None:
        released.set()

    vars(sending.pool)["release"] = release

    (error,) = sending.send(GET)

    assert str(error) == "no connection within 0.001 s"
    go_on.set()
    assert released.wait(60), "the pool gets it back"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), redis.TimeoutError(), ValueError()])
def test_no_reply_is_left_for_the_next_command(sending: Sending, raised: BaseException) -> None:
    """As after a signal handler's exception, or a cancellation."""
    sending.send(GET)
    sending.pool.made[0].raises.append(raised)

    if isinstance(raised, Exception):
        assert sending.send(GET) == [raised]
    else:
        with pytest.raises(type(raised)):
            sending.send(GET)

    assert not sending.pool.made[0].is_open
    assert sending.send(GET) == [2]


@pytest.mark.parametrize("kind", ["async"])
def test_a_cancellation_keeps_what_it_is_chained_to(sending: Sending) -> None:
    """Whoever has cancelled may look for its own mark there."""
    cancellation = asyncio.CancelledError("of a scope")
    cancellation.__cause__ = cause = RuntimeError()
    sending.send(GET)
    sending.pool.made[0].raises.append(cancellation)

    async def flow() -> None:
        with pytest.raises(asyncio.CancelledError) as raised:
            await sending.sender.send([GET])
        assert raised.value.__cause__ is cause

    asyncio.run(flow())


@pytest.mark.parametrize("kind", ["sync"])
def test_what_a_signal_handler_raises_comes_out_unchanged(sending: Sending) -> None:
    class TimeIsUpError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise TimeIsUpError

    class Interrupting(deque[BaseException]):
        def __bool__(self) -> bool:
            signal.raise_signal(signal.SIGTERM)
            return False

    sending.send(GET)
    sending.pool.made[0].raises = Interrupting()
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(TimeIsUpError):
            sending.send(GET)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert sending.send(GET) == [2]


def test_the_connections_are_left_where_they_lead_elsewhere(sending: Sending) -> None:
    sending.send(GET)
    sending.run(sending.sender.disconnect_idle)

    assert not sending.pool.made[0].is_open
    assert sending.send(GET) == [2]


@pytest.mark.parametrize("kind", ["sync"])
def test_what_watches_redis_py_sees_every_command(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instruments replace a client's method."""
    seen: list[tuple[object, ...]] = []

    def watch(_: object, *command: object, **__: object) -> int:
        seen.append(command)
        return 0

    monkeypatch.setattr(redis.Redis, "execute_command", watch)

    assert sending.send(GET) == [0]
    assert seen == [GET]
