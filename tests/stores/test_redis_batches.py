"""What callers want to send at the same time: one round trip for all, and nobody waits in vain."""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

import pytest
import redis
from redis.asyncio import Redis

from chatkit_sessions._concurrency.tasks import PerLoop, TaskEvent
from chatkit_sessions._concurrency.threads import (
    OverdueError,
    ThreadEvent,
    process,
    run_blocking,
)
from chatkit_sessions.stores import _redis_senders
from chatkit_sessions.stores._redis_commands import Command
from chatkit_sessions.stores._redis_senders import (
    MAX_BATCH,
    BatchSender,
    Commands,
    Limit,
    Send,
    Sender,
    _Caller,
    _Turn,
    finish,
    for_tasks,
    for_threads,
)
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import RedisServer
from support import Kind

T = TypeVar("T")
SECONDS = 60.0


def get(number: int) -> Command:
    return "GET", number


class FakeSender(Sender):
    """Replies with each command's number, or as it is told; the first batch can be held."""

    def __init__(self) -> None:
        super().__init__(cast("Commands", None), asynchronous=False)
        self.sent: list[list[Command]] = []
        self.threads: list[threading.Thread] = []
        self.before: Callable[[], Awaitable[object]] | None = None
        self.error: BaseException | None = None
        self.replies: dict[object, object] = {}
        self.closed: list[str] = []

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        self.sent.append(list(commands))
        self.threads.append(threading.current_thread())
        before, self.before = self.before, None
        if before is not None:
            await before()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return [self.replies.get(number, number) for _, number in commands]

    async def disconnect_idle(self) -> None:
        self.closed.append("idle")

    async def aclose(self) -> None:
        self.closed.append("all")


class Crowd:
    """Callers in threads or tasks, of whom the first one's round trip takes as long as it is to."""

    def __init__(self, kind: Kind, limit: Limit | None = None) -> None:
        self.is_async = kind == "async"
        self.sender = FakeSender()
        self.batches = BatchSender(
            self.sender,
            new_event=TaskEvent if self.is_async else ThreadEvent,
            limit=limit,
            seconds=SECONDS,
            finish=finish if self.is_async else None,
        )

    def ask(self, waiting: int, *, go: BaseException | None = None) -> list[object]:
        """What one caller gets, and those who come while its round trip takes place.

        Args:
            waiting: How many come then.
            go: What the first round trip raises.
        """
        self.sender.error = go
        return asyncio.run(self._tasks(waiting)) if self.is_async else self._threads(waiting)

    def _threads(self, waiting: int) -> list[object]:
        held, go_on = threading.Event(), threading.Event()

        async def hold() -> None:
            held.set()
            assert go_on.wait(SECONDS)

        def call(number: int) -> object:
            try:
                return run_blocking(self.batches.send, [get(number)])
            except BaseException as error:  # noqa: BLE001 -- compared
                return error

        self.sender.before = hold
        with ThreadPoolExecutor(waiting + 1) as pool:
            calls: list[Future[object]] = [pool.submit(call, 0)]
            assert held.wait(SECONDS)
            calls += [pool.submit(call, number) for number in range(1, waiting + 1)]
            while len(self.batches._waiting) < waiting:
                pass
            go_on.set()
            return [each.result(SECONDS) for each in calls]

    async def _tasks(self, waiting: int) -> list[object]:
        go_on = asyncio.Event()
        self.sender.before = go_on.wait
        calls = [
            asyncio.create_task(self.batches.send([get(number)])) for number in range(waiting + 1)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(self.batches._waiting) == waiting
        go_on.set()
        return list(await asyncio.gather(*calls, return_exceptions=True))


@pytest.fixture
def crowd(kind: Kind) -> Crowd:
    return Crowd(kind)


def test_who_is_alone_sends_at_once_and_waits_for_nobody(crowd: Crowd) -> None:
    vars(crowd.batches)["_new_event"] = None

    assert crowd.ask(0) == [[0]]
    assert crowd.ask(0) == [[0]]
    assert crowd.sender.sent == [[get(0)]] * 2


def test_who_comes_during_a_round_trip_shares_the_next_one(crowd: Crowd) -> None:
    assert crowd.ask(20) == [[number] for number in range(21)]

    assert [len(batch) for batch in crowd.sender.sent] == [1, 20]
    assert crowd.ask(0) == [[0]]


def test_a_batch_has_a_limit(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BATCH == 256
    monkeypatch.setattr("chatkit_sessions.stores._redis_senders.MAX_BATCH", 8)
    crowd = Crowd(kind)

    assert crowd.ask(20) == [[number] for number in range(21)]

    assert [len(batch) for batch in crowd.sender.sent] == [1, 8, 8, 4]


def test_an_error_of_one_command_is_its_caller_s(crowd: Crowd) -> None:
    crowd.sender.replies[2] = error = redis.ResponseError("WRONGTYPE")

    assert crowd.ask(3) == [[0], [1], [error], [3]]
    crowd.sender.replies[0] = error
    assert crowd.ask(3) == [[error], [1], [error], [3]]


def test_who_waits_for_a_redis_that_does_not_respond_waits_once(crowd: Crowd) -> None:
    error = redis.TimeoutError("no reply")

    replies = crowd.ask(20, go=error)

    assert replies == [[error]] * 21
    assert len(crowd.sender.sent) == 1
    assert crowd.ask(0) == [[0]]


def test_what_cannot_be_sent_fails_without_those_who_wait(crowd: Crowd) -> None:
    error = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    assert crowd.ask(3, go=error) == [[error], [1], [2], [3]]


def test_a_round_trip_has_a_time_limit(kind: Kind) -> None:
    async def end(send: Send) -> list[object]:
        await send()
        raise OverdueError

    (first, *others) = Crowd(kind, end).ask(3)

    (error,) = cast("list[Exception]", first)
    assert isinstance(error, TimeoutError)
    assert "60 s" in str(error)
    assert others == [[error]] * 3


def test_what_an_interrupted_caller_has_sent_for_others_fails(crowd: Crowd) -> None:
    """It is not sent again: Redis may have run it."""

    class StopError(BaseException):
        pass

    class Stopping(dict[object, object]):
        """Interrupts the second round trip, which is for several callers."""

        def get(self, number: object, default: object = None) -> object:
            if len(crowd.sender.sent) == 2:
                raise StopError
            return super().get(number, default)

    crowd.sender.replies = Stopping()

    first, interrupted, *others = crowd.ask(4)

    assert first == [0]
    assert isinstance(interrupted, StopError)
    assert [type(error) for (error,) in cast("list[list[object]]", others)] == [ConnectionError] * 3
    assert [len(batch) for batch in crowd.sender.sent] == [1, 4]
    assert crowd.ask(1) == [[0], [1]]


@pytest.mark.parametrize("kind", ["async"])
def test_what_a_cancelled_caller_has_sent_for_others_is_sent_once(crowd: Crowd) -> None:
    async def main() -> list[object]:
        come, arrived, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            arrived.set()
            await go_on.wait()

        async def hold_the_next() -> None:
            await come.wait()
            crowd.sender.before = hold

        crowd.sender.before = hold_the_next
        calls = [asyncio.create_task(crowd.batches.send([get(number)])) for number in range(4)]
        await asyncio.sleep(0)
        come.set()
        await arrived.wait()
        calls[1].cancel()
        await asyncio.sleep(0)
        go_on.set()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, cancelled, *others = asyncio.run(main())

    assert isinstance(cancelled, asyncio.CancelledError)
    assert [first, *others] == [[0], [2], [3]]
    assert crowd.sender.sent == [[get(0)], [get(1), get(2), get(3)]]
    assert crowd.ask(1) == [[0], [1]]


@pytest.mark.parametrize("kind", ["async"])
def test_who_is_cancelled_before_the_batch_begins_sends_nothing(crowd: Crowd) -> None:
    async def main() -> None:
        calls = [asyncio.create_task(crowd.batches.send([get(number)])) for number in range(2)]
        crowd.batches._free.clear()
        await asyncio.sleep(0)
        for caller in crowd.batches._waiting:
            caller.is_gone = True
        await crowd.batches._send_batch(crowd.batches._waiting[0])
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())

    assert crowd.sender.sent == []


def test_who_is_far_behind_sends_its_own_commands_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkit_sessions.stores._redis_senders.MAX_BATCH", 1)
    sender, batches, _ = stuck()
    batches._free.append(None)
    other = _Caller([get(2)])
    batches._waiting.append(other)

    assert run_blocking(batches.send, [get(1)]) == [1]

    assert sender.sent == [[get(2), get(1)]]
    assert other.replies == [2]
    assert run_blocking(batches.send, [get(3)]) == [3]
    assert sender.sent[1:] == [[get(3)]]


class InterruptError(BaseException):
    """What a signal's handler raises."""


def interrupted_at(line: int) -> bool:
    """Whether that line of the module runs as one of three callers sends, and is interrupted.

    Nobody may be left behind then: others wait two limits at most.
    """

    def end_one() -> None:
        batches._ended += 1  # round trips of others go on

    sender, event = FakeSender(), ImpatientEvent()
    batches = BatchSender(sender, new_event=lambda: event, limit=None, seconds=SECONDS)
    others = [_Caller([get(number)]) for number in (2, 3)]
    batches._waiting.extend(others)
    hit = False

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401 -- itself
        nonlocal hit
        if frame.f_code.co_filename != _redis_senders.__file__:
            return None
        if frame.f_lineno == line and not hit:
            hit = True
            raise InterruptError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_blocking(batches.send, [get(1)])
    except InterruptError:
        pass
    finally:
        sys.settrace(before)
    for other in others:
        queued = other in batches._waiting and not other.is_sent
        assert other.replies is not None or other.is_sent or queued, line
        if other.replies is None and other.is_sent:
            vars(batches)["_new_event"] = lambda: ImpatientEvent(end_one)
            run_blocking(batches._wait, other)
            vars(batches)["_new_event"] = lambda: event
    assert run_blocking(batches.send, [get(4)]) == [4], line
    assert event.waits <= 2, line
    return hit


def test_an_interrupt_at_any_line_leaves_nobody_behind() -> None:
    lines = len(Path(_redis_senders.__file__).read_text(encoding="utf-8").splitlines())

    assert sum(interrupted_at(line) for line in range(1, lines + 1)) > 40


@pytest.mark.parametrize("kind", ["async"])
def test_what_a_cancelled_caller_has_not_sent_is_not_sent(crowd: Crowd) -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        crowd.sender.before = go_on.wait
        calls = [asyncio.create_task(crowd.batches.send([get(number)])) for number in range(4)]
        await asyncio.sleep(0)
        calls[1].cancel()
        calls[3].cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())

    assert crowd.sender.sent == [[get(0)], [get(2)]]


@pytest.mark.parametrize("kind", ["async"])
def test_a_cancelled_caller_passes_its_turn_on(crowd: Crowd) -> None:
    async def main() -> list[object]:
        go_on = asyncio.Event()
        crowd.sender.before = go_on.wait
        calls = [asyncio.create_task(crowd.batches.send([get(number)])) for number in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls[0].cancel()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    cancelled, *others = asyncio.run(main())

    assert isinstance(cancelled, asyncio.CancelledError)
    assert others == [[1], [2]]


class ImpatientEvent:
    """An event for which nobody ever waits: as many seconds pass at once."""

    def __init__(self, passes: Callable[[], object] = lambda: None) -> None:
        self._passes = passes
        self.waits = 0

    def set(self) -> None:
        pass

    async def wait_for(self, seconds: float | None) -> bool:
        assert seconds == SECONDS
        self.waits += 1
        self._passes()
        return False


def stuck(
    passes: Callable[[], object] = lambda: None,
) -> tuple[FakeSender, BatchSender, ImpatientEvent]:
    """Batches of which a caller has the turn to send, and does not come back."""
    sender, event = FakeSender(), ImpatientEvent(passes)
    batches = BatchSender(sender, new_event=lambda: event, limit=None, seconds=SECONDS)
    batches._free.clear()
    return sender, batches, event


def test_a_caller_who_hangs_is_replaced() -> None:
    _, batches, event = stuck()
    turn = batches._turn

    assert run_blocking(batches.send, [get(1)]) == [1]
    assert event.waits == 2, "twice the limit"
    assert not turn.end(), "the one who hung passes nothing on"
    assert run_blocking(batches.send, [get(2)]) == [2]
    assert event.waits == 2


def test_a_turn_that_was_lost_is_replaced() -> None:
    """A signal's exception came when it was to be passed on."""
    _, batches, event = stuck()
    assert batches._turn.end()

    assert run_blocking(batches.send, [get(1)]) == [1]
    assert event.waits == 1


class EndingTurn(_Turn):
    """Another caller ends it while this one looks."""

    def end(self) -> bool:
        return False


def test_a_turn_that_is_passed_on_at_that_moment_is_not_taken() -> None:
    def pass_on() -> None:
        if event.waits == 3:
            batches._waiting[0].replies = ["of another"]

    _, batches, event = stuck(pass_on)
    batches._turn = EndingTurn()

    assert run_blocking(batches.send, [get(1)]) == ["of another"]


def test_nobody_is_replaced_while_round_trips_end() -> None:
    def end_one() -> None:
        batches._ended += 1
        if batches._ended == 10:
            vars(batches)["_ended"] = 100
            batches._waiting[0].replies = ["of another"]

    _, batches, event = stuck(end_one)

    assert run_blocking(batches.send, [get(1)]) == ["of another"]
    assert event.waits == 10


def test_what_was_sent_by_a_caller_who_hangs_fails() -> None:
    sender, batches, _ = stuck(lambda: batches._fill([], 1))

    (error,) = run_blocking(batches.send, [get(1)])

    assert isinstance(error, TimeoutError)
    assert sender.sent == []


def test_who_comes_when_nobody_sends_any_more_gets_a_turn() -> None:
    sender, batches, _ = stuck()
    late = _Caller([get(2)])

    class Free(deque[None]):
        def append(self, place: None, /) -> None:
            super().append(place)
            batches._waiting.append(late)

    batches._free = Free([None])

    assert run_blocking(batches.send, [get(1)]) == [1]
    assert late.turn is batches._turn, "though it does not wait yet"
    assert run_blocking(batches.send, [get(3)]) == [3]
    assert late.replies == [2]
    assert sender.sent == [[get(1)], [get(2), get(3)]]


def test_nobody_waits_for_what_takes_long() -> None:
    _, batches, event = stuck()

    assert run_blocking(batches.send_apart, [get(1)]) == [1]
    assert run_blocking(FakeSender().send_apart, [get(1)]) == [1]
    assert event.waits == 0


def test_the_connections_are_those_of_the_sender(crowd: Crowd) -> None:
    run_blocking(crowd.batches.disconnect_idle)
    run_blocking(crowd.batches.aclose)

    assert crowd.sender.closed == ["idle", "all"]


@pytest.mark.parametrize("is_own", [True, False])
def test_only_a_client_of_the_user_s_runs_in_another_thread(*, is_own: bool) -> None:
    sender = FakeSender()
    batches = for_threads(lambda: sender, SECONDS, is_own=is_own).get()

    assert run_blocking(batches.send, [get(1)]) == [1]
    assert (sender.threads == [threading.current_thread()]) is is_own


def test_a_round_trip_in_tasks_ends_at_its_limit() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> list[object]:
        sender = FakeSender()
        sender.before = hang
        batches = await for_tasks(lambda: sender, 0.001).get()
        return [*await batches.send([get(1)]), *await batches.send([get(2)])]

    error, reply = asyncio.run(main())

    assert isinstance(error, TimeoutError)
    assert reply == 2


def test_a_child_process_and_each_event_loop_send_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = for_threads(FakeSender, SECONDS, is_own=True)
    tasks: PerLoop[Sender] = for_tasks(FakeSender, SECONDS)

    async def of_loop() -> Sender:
        return await tasks.get()

    of_parent = threads.get()
    assert threads.get() is of_parent
    assert asyncio.run(of_loop()) is not asyncio.run(of_loop())
    monkeypatch.setattr(process, "number", process.number + 1)
    assert threads.get() is not of_parent


@pytest.mark.parametrize("is_own", [True, False])
def test_a_crowd_whose_scripts_redis_has_forgotten_is_served(
    kind: Kind, redis_server: RedisServer, *, is_own: bool
) -> None:
    callers = 50
    with ExitStack() as stack:
        client = stack.enter_context(redis_server.client())
        client.script_flush()
        if kind == "sync":
            store = (
                stack.enter_context(RedisSessionStore.from_url(redis_server.url, namespace="shop"))
                if is_own
                else RedisSessionStore(client, namespace="shop")
            )
            with ThreadPoolExecutor(callers) as pool:
                calls = [pool.submit(store.get, "group", ["name"]) for _ in range(callers)]
                found: list[object] = [each.result(SECONDS) for each in calls]
        else:

            async def main() -> list[object]:
                own = Redis(port=redis_server.port)
                async with own:
                    store = (
                        AsyncRedisSessionStore.from_url(redis_server.url, namespace="shop")
                        if is_own
                        else AsyncRedisSessionStore(own, namespace="shop")
                    )
                    async with store:
                        reading = [store.get("group", ["name"]) for _ in range(callers)]
                        return [*await asyncio.gather(*reading)]

            found = asyncio.run(main())

    assert found == [[None]] * callers
