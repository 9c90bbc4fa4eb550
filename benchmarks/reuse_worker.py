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

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore

TURNS: Final = 15
HITS: Final = 400
CALLS: Final = 100
SLOW_CALLS: Final = 3
USER: Final = "user_123"


def client(url: str, store: RedisSessionStore | None = None) -> ChatKitClient:
    """A synchronous client of that API."""
    return ChatKitClient(api_key="sk-test", workflow_id="wf_test", base_url=url, store=store)


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


def main() -> None:
    """Let each have its turn, again and again."""
    at_once, slow, redis_url = sys.argv[1:4]
    store = RedisSessionStore.from_url(redis_url, namespace="benchmark")
    memory, redis, far = client(at_once), client(at_once, store), client(slow)
    with asyncio.Runner() as runner, store, memory, redis, far:
        asynchronous = AsyncChatKitClient(
            api_key="sk-test",
            workflow_id="wf_test",
            base_url=at_once,
            store=AsyncRedisSessionStore.from_url(redis_url, namespace="benchmark"),
        )

        async def hits_awaited() -> float:
            return await median_of_awaited(lambda: asynchronous.get_or_create_session(USER), HITS)

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
            print(json.dumps(turn), flush=True)
        runner.run(asynchronous.aclose())


if __name__ == "__main__":
    main()
