"""What runs beside a call, again and again."""

import asyncio
import threading
from typing import cast

import pytest
import trio

from chatkit_sessions._concurrency.tasks import TaskEvent, heartbeat
from chatkit_sessions._concurrency.threads import Heartbeat


class TestInAThread:
    def test_calls_while_the_block_runs_and_then_ends(self) -> None:
        beats = Heartbeat(lambda _: None)
        called = threading.Semaphore(0)

        for _ in range(2):  # a thread that has ended is replaced
            with beats.running(called.release, 1.0):
                for _ in range(3):
                    assert called.acquire(timeout=60)
                thread = beats._thread
            assert thread is not None
            thread.join(60)
            assert not thread.is_alive()
            assert beats._thread is None

    def test_has_one_thread_for_all(self) -> None:
        turn = threading.Semaphore(0)
        beats = Heartbeat(lambda _: turn.acquire(timeout=60))
        first, second = threading.Semaphore(0), threading.Semaphore(0)

        with beats.running(first.release, 1.0):
            thread = beats._thread
            with beats.running(second.release, 1.0):
                turn.release()
                assert first.acquire(timeout=60)
                assert second.acquire(timeout=60)
                assert beats._thread is thread
        turn.release()
        assert thread is not None
        thread.join(60)

    def test_calls_nothing_whose_block_ends_while_others_are_called(self) -> None:
        called: list[str] = []
        beats = Heartbeat(lambda _: None)

        def first() -> None:
            called.append("first")
            beats._functions.clear()  # both blocks end

        beats._functions.update({1: first, 2: lambda: called.append("second")})
        beats._run(1.0)

        assert called == ["first"]

    def test_goes_on_for_whoever_comes_while_it_ends(self) -> None:
        class Functions(dict[object, object]):
            looks = 0

            def __bool__(self) -> bool:
                self.looks += 1
                return self.looks == 2

        beats = Heartbeat()
        functions = Functions()
        vars(beats)["_functions"] = functions

        beats._run(0.0)

        assert functions.looks == 4


async def beat_three_times() -> None:
    calls: list[None] = []
    event = TaskEvent()

    async def call() -> None:
        calls.append(None)
        if len(calls) == 3:
            event.set()

    with heartbeat(call, 0.0):
        assert await event.wait_for(None)


def test_a_task_ends_with_the_one_beside_it() -> None:
    async def main() -> None:
        await beat_three_times()
        (task,) = asyncio.all_tasks() - {cast("asyncio.Task[object]", asyncio.current_task())}
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_task_of_trio_ends_with_the_one_beside_it() -> None:
    async def main() -> None:
        await beat_three_times()

    trio.run(main)
