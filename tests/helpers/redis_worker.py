"""A process of a backend: callers that ask for sessions of users whenever they are told to go.

Arguments: the API's URL, its key, Redis' URL, how many callers, how many users, the timeout, and
whether the callers are threads (`sync`) or tasks (`async`).
"""

import asyncio
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ChatKitError
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore


class Settings:
    def __init__(self, arguments: list[str]) -> None:
        self.url, self.key, self.redis_url = arguments[:3]
        self.callers, self.users = int(arguments[3]), int(arguments[4])
        self.timeout = float(arguments[5])

    def user(self, number: int) -> str:
        return f"user_{number % self.users}"


def serve(ask_all: Callable[[], list[list[str]]]) -> None:
    print("ready", flush=True)  # noqa: T201 -- what the test waits for
    while sys.stdin.readline():
        print(json.dumps(ask_all()), flush=True)  # noqa: T201 -- as above


def run_threads(settings: Settings) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(
            RedisSessionStore.from_url(settings.redis_url, namespace="shop")
        )
        client = ChatKitClient(
            api_key=settings.key,
            workflow_id="wf_test",
            base_url=settings.url,
            store=store,
            timeout=settings.timeout,
        )
        chatkit = stack.enter_context(client)
        pool = stack.enter_context(ThreadPoolExecutor(settings.callers))
        barrier = Barrier(settings.callers)

        def ask(number: int) -> list[str]:
            barrier.wait()
            user = settings.user(number)
            try:
                return [user, chatkit.get_or_create_session(user).id]
            except ChatKitError as error:
                return [user, type(error).__name__]

        serve(lambda: list(pool.map(ask, range(settings.callers))))


def run_tasks(settings: Settings) -> None:
    with asyncio.Runner() as runner:
        store = AsyncRedisSessionStore.from_url(settings.redis_url, namespace="shop")
        chatkit = AsyncChatKitClient(
            api_key=settings.key,
            workflow_id="wf_test",
            base_url=settings.url,
            store=store,
            timeout=settings.timeout,
        )

        async def ask(number: int) -> list[str]:
            user = settings.user(number)
            try:
                return [user, (await chatkit.get_or_create_session(user)).id]
            except ChatKitError as error:
                return [user, type(error).__name__]

        async def ask_all() -> list[list[str]]:
            return await asyncio.gather(*map(ask, range(settings.callers)))

        async def close() -> None:
            await chatkit.aclose()
            await store.aclose()

        serve(lambda: runner.run(ask_all()))
        runner.run(close())


if __name__ == "__main__":
    (run_threads if sys.argv[7] == "sync" else run_tasks)(Settings(sys.argv[1:7]))
