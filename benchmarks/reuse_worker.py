"""Times hits and calls in turns, in one process: prints the medians of each turn as JSON lines.

Arguments: the URL of an API that answers at once, of one that takes 300 ms, and of a Redis.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import redis as redis_py

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


class Verifying:
    """Verifications of one session's secret, and reading as many bytes with redis-py alone."""

    def __init__(self, redis_url: str, store: RedisSessionStore) -> None:
        in_memory = SessionsService(MemorySessionStore())
        in_redis = SessionsService(store)
        awaited = AsyncSessionsService(
            AsyncRedisSessionStore.from_url(redis_url, namespace="benchmark")
        )
        remembered = in_memory.client(workflow_id="support").create_session(USER)
        stored = in_redis.client(workflow_id="support").create_session(USER)
        bare = redis_py.Redis.from_url(redis_url)
        (key,) = [
            each for each in bare.scan_iter("chatkit:*:session") if bare.strlen(each) > MIN_RECORD
        ]
        bare.set("bare", bytes(bare.strlen(key)))
        self.kinds: dict[str, Callable[[], object]] = {
            "bare redis-py GET of the same size": lambda: bare.get("bare"),
            "verify in Redis": lambda: in_redis.verify(stored.client_secret, count=False),
            "verify in memory": lambda: in_memory.verify(remembered.client_secret, count=False),
        }

        def counted() -> object:
            return in_redis.verify(stored.client_secret)

        def forget() -> None:
            bare.delete(key.replace(b":session", b":requests"))

        self._counted, self._forget = counted, forget
        self._awaited = lambda: awaited.verify(stored.client_secret, count=False)

    def turn(self, runner: asyncio.Runner) -> dict[str, float]:
        """Microseconds of each kind."""
        measured = {kind: median_of(call, HITS) for kind, call in self.kinds.items()}
        singles: list[float] = []
        for _ in range(COUNTED):
            self._forget()
            singles.append(median_of(self._counted, 1))
        measured["verify in Redis, counted"] = statistics.median(singles)

        async def verifications() -> float:
            return await median_of_awaited(self._awaited, HITS)

        measured["verify in Redis, awaited"] = runner.run(verifications())
        return measured


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

        verifying = Verifying(redis_url, store)
        for _ in range(TURNS):
            # The first of each is a miss, which a median does not see.
            turn = {
                "hit in memory": median_of(lambda: memory.get_or_create_session(USER), HITS),
                "hit in Redis": median_of(lambda: redis.get_or_create_session(USER), HITS),
                "hit in Redis, awaited": runner.run(hits_awaited()),
                "call, answered at once": median_of(lambda: memory.create_session(USER), CALLS),
                "call, answered after 300 ms": median_of(
                    lambda: far.create_session(USER), SLOW_CALLS
                ),
            }
            print(json.dumps({**turn, **verifying.turn(runner)}), flush=True)
        runner.run(asynchronous.aclose())


if __name__ == "__main__":
    main()
