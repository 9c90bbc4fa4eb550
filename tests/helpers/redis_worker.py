"""A process of a backend: threads that ask for sessions of users as soon as they are told to go.

Arguments: the API's URL, its key, Redis' URL, how many threads, how many users, the timeout.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from chatkit_sessions import ChatKitClient
from chatkit_sessions.stores.redis import RedisSessionStore


def main() -> None:
    url, key, redis_url = sys.argv[1:4]
    threads, users = int(sys.argv[4]), int(sys.argv[5])
    timeout = float(sys.argv[6])
    store = RedisSessionStore.from_url(redis_url, namespace="shop", timeout=20)
    barrier = Barrier(threads)
    with (
        store,
        ChatKitClient(
            api_key=key, workflow_id="wf_test", base_url=url, store=store, timeout=timeout
        ) as chatkit,
        ThreadPoolExecutor(threads) as pool,
    ):

        def ask(number: int) -> list[str]:
            barrier.wait()
            user = f"user_{number % users}"
            return [user, chatkit.get_or_create_session(user).id]

        print("ready", flush=True)  # noqa: T201 -- what the test waits for
        sys.stdin.readline()
        print(json.dumps(list(pool.map(ask, range(threads)))), flush=True)  # noqa: T201 -- as above


if __name__ == "__main__":
    main()
