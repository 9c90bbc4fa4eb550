"""A function for each of several things: some at once, and nothing left over."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine

import pytest
import trio

from chatkit_sessions._concurrency import tasks
from chatkit_sessions._concurrency.threads import for_each

NAME = "chatkit-sessions-each"


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


class TestInThreads:
    def test_some_are_at_work_at_once_and_the_caller_is_one_of_them(self) -> None:
        meeting, seen = threading.Barrier(4), list[tuple[int, threading.Thread]]()

        def meet(number: int) -> None:
            meeting.wait(60)
            seen.append((number, threading.current_thread()))

        for_each(meet, range(8), most=4)

        assert sorted(number for number, _ in seen) == list(range(8))
        assert threading.current_thread() in {thread for _, thread in seen}
        assert helpers() == []

    def test_each_has_the_caller_s_context(self) -> None:
        variable = contextvars.ContextVar[str]("variable", default="")
        variable.set("of the caller")
        seen: list[str] = []

        for_each(lambda _: seen.append(variable.get()), range(20), most=4)

        assert seen == ["of the caller"] * 20

    def test_one_thing_needs_no_thread(self) -> None:
        seen: list[threading.Thread] = []

        for_each(lambda _: seen.append(threading.current_thread()), [1], most=8)
        for_each(lambda _: seen.append(threading.current_thread()), [], most=8)

        assert seen == [threading.current_thread()]

    def test_what_is_raised_in_a_thread_is_raised_here(self) -> None:
        caller, meeting = threading.current_thread(), threading.Barrier(2)
        seen: list[int] = []

        def fail_elsewhere(number: int) -> None:
            seen.append(number)
            meeting.wait(60)
            if threading.current_thread() is not caller:
                raise SystemExit(7)
            helpers()[0].join(60)

        with pytest.raises(SystemExit):
            for_each(fail_elsewhere, range(100), most=2)

        assert sorted(seen) == [0, 1], "nothing began after it"

    def test_an_interrupt_lets_nothing_more_begin(self) -> None:
        caller, meeting, over = threading.current_thread(), threading.Barrier(2), threading.Event()
        seen: list[int] = []

        def interrupt(number: int) -> None:
            seen.append(number)
            meeting.wait(60)
            if threading.current_thread() is caller:
                raise KeyboardInterrupt
            over.wait(60)

        with pytest.raises(KeyboardInterrupt):
            for_each(interrupt, range(100), most=2)
        (helper,) = helpers()
        over.set()
        helper.join(60)

        assert sorted(seen) == [0, 1]

    def test_without_more_threads_the_caller_does_it_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        seen: list[int] = []

        for_each(seen.append, range(20), most=8)

        assert seen == list(range(20))


class TestInTasks:
    @pytest.mark.parametrize("library", ["asyncio", "trio"])
    def test_some_are_at_work_at_once(self, library: str) -> None:
        counts = Counts()

        async def main() -> None:
            await counts.count(asyncio.sleep if library == "asyncio" else trio.sleep)

        run(library, main)

        assert counts.seen == list(range(20))
        assert counts.most == 4

    @pytest.mark.parametrize("library", ["asyncio", "trio"])
    def test_none_is_no_task(self, library: str) -> None:
        async def never(_: object) -> None:
            raise AssertionError

        async def main() -> None:
            await tasks.for_each(never, [], most=8)

        run(library, main)


class Counts:
    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.seen: list[int] = []

    async def count(self, sleep: Callable[[float], Awaitable[object]]) -> None:
        async def one(number: int) -> None:
            self.seen.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
            await sleep(0)
            self.now -= 1

        await tasks.for_each(one, range(20), most=4)


def run(library: str, main: Callable[[], Coroutine[object, None, None]]) -> None:
    if library == "asyncio":
        asyncio.run(main())
    else:
        trio.run(main)
