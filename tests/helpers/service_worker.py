"""A process of a chat server: threads that use one client secret as soon as they are told to go.

Arguments: Redis' URL, `verify` or `refresh`, how many threads. The secret comes on standard input.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from chatkit_sessions import ChatKitError
from chatkit_sessions.service import SessionsService
from chatkit_sessions.service._wire import Headers, Request
from chatkit_sessions.stores.redis import RedisSessionStore
from services import API_KEY, SESSIONS, headers_for


def main() -> None:
    url, what, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    barrier = Barrier(threads)
    with (
        RedisSessionStore.from_url(url, namespace="shop", timeout=20) as store,
        ThreadPoolExecutor(threads) as pool,
    ):
        service = SessionsService(store, api_keys={API_KEY: "shop"})

        def succeeds(secret: str) -> bool:
            barrier.wait()
            if what == "refresh":
                body = f'{{"client_secret": "{secret}"}}'.encode()
                headers = Headers(headers_for(API_KEY).items())
                request = Request("POST", f"{SESSIONS}/refresh", headers, body)
                return service.handle(request).status_code == 200
            try:
                service.verify(secret)
            except ChatKitError:
                return False
            return True

        print("ready", flush=True)  # noqa: T201 -- what the test waits for
        secrets = [sys.stdin.readline().strip()] * threads
        print(sum(pool.map(succeeds, secrets)), flush=True)  # noqa: T201 -- as above


if __name__ == "__main__":
    main()
