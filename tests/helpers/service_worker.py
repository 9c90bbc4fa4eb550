"""A process of a chat server: threads that use one client secret as soon as they are told to go.

Arguments: Redis' URL, how many threads. What to do and the secret come on standard input, in one
line; how many threads have succeeded goes to standard output. `outlive` verifies until that fails,
and succeeds if it works again afterwards.
"""

import faulthandler
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from chatkit_sessions import ChatKitError
from chatkit_sessions.service import SessionsService
from chatkit_sessions.service._rules import Headers, ServiceRequest
from chatkit_sessions.stores.redis import RedisSessionStore
from services import API_KEY, SESSIONS, headers_for


def main() -> None:
    faulthandler.dump_traceback_later(60, exit=True)
    url, threads = sys.argv[1], int(sys.argv[2])
    barrier = Barrier(threads)
    with (
        RedisSessionStore.from_url(url, namespace="shop", timeout=20) as store,
        ThreadPoolExecutor(threads) as pool,
    ):
        service = SessionsService(store, api_keys={API_KEY: "shop"})

        def succeeds(what: str, secret: str) -> bool:
            barrier.wait()
            if what == "refresh":
                body = f'{{"client_secret": "{secret}"}}'.encode()
                headers = Headers(headers_for(API_KEY).items())
                request = ServiceRequest("POST", f"{SESSIONS}/refresh", headers, body)
                return service.handle(request).status_code == 200
            if what == "outlive":
                while admits(secret):
                    pass
                return any(admits(secret) for _ in range(20))
            return admits(secret)

        def admits(secret: str) -> bool:
            try:
                service.verify(secret)
            except ChatKitError:
                return False
            return True

        print("ready", flush=True)  # noqa: T201 -- what the test waits for
        for line in sys.stdin:
            what, secret = line.split()
            succeeded = pool.map(succeeds, [what] * threads, [secret] * threads)
            print(sum(succeeded), flush=True)  # noqa: T201 -- as above


if __name__ == "__main__":
    main()
