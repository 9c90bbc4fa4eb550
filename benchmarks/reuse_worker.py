"""Times hits and calls in turns, in one process: prints the medians of each turn as JSON lines.

Arguments: the URL of an API that answers at once, of one that takes 300 ms, and of a Redis.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import redis as redis_py
from redis.asyncio import Redis as AsyncRedis

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore

TURNS: Final = 15
HITS: Final = 400
CALLS: Final = 100
SLOW_CALLS: Final = 3
COUNTED: Final = 100
MIN_RECORD: Final = 100
BARE: Final = "bare redis-py GET of the same size"
USER: Final = "user-of-the-benchmark"


def client(url: str, store: RedisSessionStore | None = None) -> ChatKitClient:
    """A synchronous client of that API."""
    return ChatKitClient(api_key="sk-test", workflow_id="wf_benchmark", base_url=url, store=store)


def median_of(call: Callable[[], object], times: int) -> float:
    """Microseconds that a call takes."""
    seconds: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)


async def median_of_awaited(call: Callable[[], Awaitable[object]], times: int) -> float:
    """Microseconds that an asynchronous call takes."""
    seconds: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)


class Beside:
    """Verifications and hits in Redis, beside reading as many bytes with redis-py alone.

    Over a store from a URL, and over one with a client of redis-py that the application made.
    """

    def __init__(self, redis_url: str) -> None:
        self._bare = redis_py.Redis.from_url(redis_url)
        self._awaited_bare = AsyncRedis.from_url(redis_url)
        memory = SessionsService(MemorySessionStore())
        remembered = memory.client(workflow_id="support").create_session(USER).client_secret
        stores = {
            "": RedisSessionStore.from_url(redis_url, namespace="beside"),
            ", your client": RedisSessionStore(self._bare, namespace="beside"),
        }
        awaited_stores = {
            "": AsyncRedisSessionStore.from_url(redis_url, namespace="beside"),
            ", your client": AsyncRedisSessionStore(self._awaited_bare, namespace="beside"),
        }
        service = SessionsService(stores[""])
        secret = service.client(workflow_id="support").create_session(USER).client_secret
        keys = [each for each in self._bare.scan_iter("*:session") if self._is_record(each)]
        self._bare.set("bare", bytes(self._bare.strlen(keys[0])))
        self._requests = [each.replace(b":session", b":requests") for each in keys]
        self._blocking: dict[str, Callable[[], object]] = {
            BARE: partial(self._bare.get, "bare"),
            "verify in memory": partial(memory.verify, remembered, count=False),
        }
        self._awaited: dict[str, Callable[[], Awaitable[object]]] = {
            BARE: partial(self._awaited_bare.get, "bare")
        }
        for whose, store in stores.items():
            service = SessionsService(store)
            hit = service.client(workflow_id="support").get_or_create_session
            self._blocking[f"verify in Redis{whose}"] = partial(service.verify, secret, count=False)
            self._blocking[f"verify in Redis, counted{whose}"] = partial(service.verify, secret)
            self._blocking[f"hit in Redis{whose}"] = partial(hit, USER)
        for whose, awaited_store in awaited_stores.items():
            awaited = AsyncSessionsService(awaited_store)
            hit_awaited = awaited.client(workflow_id="support").get_or_create_session
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "verify in Redis": partial(awaited.verify, secret, count=False),
                "verify in Redis, counted": partial(awaited.verify, secret),
                "hit in Redis": partial(hit_awaited, USER),
            }
            for kind, call in calls.items():
                self._awaited[f"{kind}{whose}"] = call

    def _is_record(self, key: bytes) -> bool:
        return self._bare.strlen(key) > MIN_RECORD

    def turn(self, runner: asyncio.Runner) -> dict[str, float]:
        """Microseconds of each kind, measured one after the other, again and again."""
        times: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(COUNTED):
            for kind, call in self._blocking.items():
                self._forget()
                times[kind].append(median_of(call, 1))

        async def awaited() -> None:
            for _ in range(COUNTED):
                for kind, call in self._awaited.items():
                    self._forget()
                    times[f"{kind}, awaited"].append(await median_of_awaited(call, 1))

        runner.run(awaited())
        return {kind: statistics.median(each) for kind, each in times.items()}

    def _forget(self) -> None:
        """Let no limit be reached.

        Before each call, counted or not: a call takes longer when Redis was idle before it.
        """
        self._bare.delete(*self._requests)


def main() -> None:
    """Let each have its turn, again and again."""
    at_once, slow, redis_url = sys.argv[1:4]
    store = RedisSessionStore.from_url(redis_url, namespace="benchmark")
    memory, redis, far = client(at_once), client(at_once, store), client(slow)
    with asyncio.Runner() as runner, store, memory, redis, far:
        asynchronous = AsyncChatKitClient(
            api_key="sk-test",
            workflow_id="wf_benchmark",
            base_url=at_once,
            store=AsyncRedisSessionStore.from_url(redis_url, namespace="benchmark"),
        )

        async def hits_awaited() -> float:
            return await median_of_awaited(lambda: asynchronous.get_or_create_session(USER), HITS)

        beside = Beside(redis_url)
        for _ in range(TURNS):
            # The first of each is a miss, which a median does not see.
            turn = {
                "reused from memory": median_of(lambda: memory.get_or_create_session(USER), HITS),
                "reused from Redis": median_of(lambda: redis.get_or_create_session(USER), HITS),
                "reused from Redis, awaited": runner.run(hits_awaited()),
                "call, answered at once": median_of(lambda: memory.create_session(USER), CALLS),
                "call, answered after 300 ms": median_of(
                    lambda: far.create_session(USER), SLOW_CALLS
                ),
            }
            print(json.dumps({**turn, **beside.turn(runner)}), flush=True)
        runner.run(asynchronous.aclose())


if __name__ == "__main__":
    main()
