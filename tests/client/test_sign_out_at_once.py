"""A sign-out of many sessions: several at once, and all of them whatever becomes of one."""

import asyncio
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatKitClient,
    ChatKitClient,
    InternalServerError,
)
from chatkit_sessions._client.sessions import CANCELS_AT_ONCE
from chatkit_sessions.stores import Entry
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from workers import Backend, inner

if TYPE_CHECKING:
    from support import Blocking

MANY = 20


class Meeting:
    """Lets the API answer to cancelling only when so many calls wait for it at once."""

    def __init__(self, backend: Backend, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(size, timeout=30)
        self._met = asyncio.Event()
        self.at_once = self.most = 0
        backend.api.before = self._wait if backend.kind == "sync" else self._await

    def _count(self, change: int) -> int:
        with self._lock:
            self.at_once += change
            self.most = max(self.most, self.at_once)
            return self.at_once

    def _wait(self, _: httpx.Request) -> None:
        self._count(1)
        self._barrier.wait(60)
        self._count(-1)

    async def _await(self, _: httpx.Request) -> None:
        if self._count(1) == self._size:
            self._met.set()
        await self._met.wait()
        await asyncio.sleep(0)
        self._count(-1)


def create(worker: ChatKitClient, number: int = MANY) -> list[str]:
    return [worker.create_session("user_1").id for _ in range(number)]


def active(backend: Backend) -> list[str]:
    return [each.id for each in backend.fake.sessions.values() if each.status == "active"]


def test_sessions_are_cancelled_eight_at_once(backend: Backend) -> None:
    worker = backend.worker()
    create(worker, 2 * CANCELS_AT_ONCE)
    meeting = Meeting(backend, CANCELS_AT_ONCE)

    worker.delete_sessions("user_1")

    assert active(backend) == []
    assert meeting.most == CANCELS_AT_ONCE
    assert len(backend.calls("/cancel")) == 2 * CANCELS_AT_ONCE


@pytest.mark.parametrize("error", [LookupError("odd"), ValueError("ek_oddly0123456789SECRET")])
def test_one_that_fails_oddly_keeps_no_other_from_being_cancelled(
    backend: Backend, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    worker = backend.worker()
    odd, *others = create(worker)
    client = inner(worker)
    cancel = client._sessions._cancel

    async def fail(operation: object, session_id: str, *args: object, **options: object) -> None:
        if session_id in {odd, others[0]}:
            raise error
        await cancel(operation, session_id, *args, **options)  # type: ignore[arg-type]  # as given

    client._sessions._cancel = fail  # type: ignore[method-assign]  # as a mistake of ours would

    with pytest.raises(type(error)) as caught:
        worker.delete_sessions("user_1")

    assert caught.value is error
    assert sorted(active(backend)) == sorted([odd, others[0]])
    (told,) = caplog.records
    assert told.getMessage().startswith("A session could not be deleted: ")
    assert "SECRET" not in told.getMessage()


def test_an_error_of_the_api_is_raised_when_the_others_are_cancelled(backend: Backend) -> None:
    worker = backend.worker()
    create(worker)
    backend.fake.fail_next(status_code=500, times=1)

    with pytest.raises(InternalServerError):
        worker.delete_sessions("user_1")

    assert len(active(backend)) == 1


def test_sessions_for_which_there_was_no_time_are_reported(backend: Backend) -> None:
    worker = backend.worker()
    create(worker)
    backend.api.before = lambda _: backend.connect.time.advance(40)

    with pytest.raises(APITimeoutError, match=r"to delete \d+ of the user's 20") as caught:
        worker.delete_sessions("user_1")

    left = re.search(r"delete (\d+)", str(caught.value))
    assert left is not None
    assert MANY - CANCELS_AT_ONCE <= int(left[1]) < MANY
    assert "Delete the user's sessions again" in caught.value.hint


@pytest.mark.parametrize("kind", ["async"])  # the other checks the time before each session
def test_those_that_the_limit_cut_off_are_not_counted_among_them(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = backend.worker()
    create(worker)
    hanging: list[httpx.Request] = []

    async def hang(request: httpx.Request) -> None:
        hanging.append(request)
        if len(hanging) == CANCELS_AT_ONCE:
            loop = asyncio.get_running_loop()
            now = loop.time
            monkeypatch.setattr(loop, "time", lambda: now() + 30)
        await asyncio.Event().wait()

    backend.api.before = hang

    with pytest.raises(APITimeoutError, match="to delete 12 of the user's 20"):
        worker.delete_sessions("user_1", timeout=30)


def test_a_client_that_is_closed_meanwhile_begins_no_more(backend: Backend) -> None:
    worker = backend.worker()
    create(worker)
    meeting = Meeting(backend, CANCELS_AT_ONCE)
    before = backend.api.before

    def close(request: httpx.Request) -> object:
        happens = before(request)
        if backend.kind == "sync":
            inner(worker).close()
            return None

        async def do() -> None:
            await cast("asyncio.Future[None]", happens)
            await cast("AsyncChatKitClient", inner(worker)).aclose()

        return do()

    backend.api.before = close

    with pytest.raises((RuntimeError, APIConnectionError), match="closed"):
        worker.delete_sessions("user_1")

    assert meeting.most == CANCELS_AT_ONCE
    assert len(active(backend)) >= MANY - CANCELS_AT_ONCE


class Counting:
    """What a store is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []


class CountingRedis(RedisSessionStore):
    counting: Counting

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        self.counting.asked.append("get")
        return super().get(group, names)

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        self.counting.asked.append("get_many")
        return super().get_many(entries)

    def names(self, group: str) -> list[str]:
        self.counting.asked.append("names")
        return super().names(group)


class AsyncCountingRedis(AsyncRedisSessionStore):
    counting: Counting

    async def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        self.counting.asked.append("get")
        return await super().get(group, names)

    async def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        self.counting.asked.append("get_many")
        return await super().get_many(entries)

    async def names(self, group: str) -> list[str]:
        self.counting.asked.append("names")
        return await super().names(group)


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
def test_records_are_read_in_one_round_trip(backend: Backend) -> None:
    assert backend.server is not None
    kind = CountingRedis if backend.kind == "sync" else AsyncCountingRedis
    store = kind.from_url(backend.server.url, namespace="shop", timeout=20)
    store.counting = counting = Counting()
    worker = backend.worker(store=store)
    with ExitStack() as stack:
        if isinstance(store, RedisSessionStore):
            stack.callback(store.close)
        else:
            stack.callback(lambda: cast("Blocking", worker)._runner.run(store.aclose()))
        create(worker)

        counting.asked.clear()
        assert len(worker.sessions_for("user_1")) == MANY
        assert counting.asked == ["names", "get", "get_many"]
        counting.asked.clear()
        worker.delete_sessions("user_1")
        assert counting.asked == ["names", "names", "get", "get_many"]
