"""10,000 callers at once in 8 processes, who want the sessions of 500 users: how long each waits.

    python benchmarks/reuse_herd.py redis://127.0.0.1:6379/0

Half of the processes are asynchronous; the clients and stores have their default settings. Prints
JSON: first without any session, then with all of them there. To measure another version, set
PYTHONPATH to its `src`.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import threading
import time
from email.utils import formatdate
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.sharedctypes import Synchronized

PROCESSES: Final = 8
CALLERS: Final = 1_250
"""Of each process."""
USERS: Final = 500
DELAY: Final = 0.3
"""Seconds that the API takes."""
PATIENCE: Final = 300
STACK: Final = 256 * 1024
KEY: Final = "sk-test"
WORKFLOW: Final = "wf_test"
NAMESPACE: Final = "herd"

Waits: TypeAlias = list[float]
Results: TypeAlias = "Queue[tuple[Waits, int]]"
"""Of each process: how many seconds each caller waited, and how many calls failed."""


# The API ------------------------------------------------------------------------------------------


class Upstream(asyncio.Protocol):
    """Creates a session for whichever user, after a while."""

    def __init__(self, created: "Synchronized[int]") -> None:
        self._created = created

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing received."""
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Create a session once the request is complete."""
        self._received += data
        _, end, body = self._received.partition(b"\r\n\r\n")
        if not end or not body.endswith(b"}"):
            return
        self._received = b""
        asyncio.get_running_loop().call_later(DELAY, self._create, json.loads(body)["user"])

    def _create(self, user: str) -> None:
        self._created.value = number = self._created.value + 1
        session = {
            "id": f"cksess_{number:048x}",
            "object": "chatkit.session",
            "client_secret": f"ek_{number:048x}",
            "expires_at": int(time.time()) + 600,
            "status": "active",
            "user": user,
            "workflow": {"id": WORKFLOW},
        }
        content = json.dumps(session).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        if not self._transport.is_closing():
            self._transport.write(head.encode() + content)


def serve(port: "Queue[int]", created: "Synchronized[int]") -> None:
    """Run the API until the process is ended."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: Upstream(created), "127.0.0.1", 0, backlog=4096
        )
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


# The callers --------------------------------------------------------------------------------------


def users_of(number: int) -> list[str]:
    """Whose sessions the callers of a process want."""
    return [f"user_{(number + 7 * caller) % USERS}" for caller in range(CALLERS)]


def call_in_threads(number: int, urls: tuple[str, str], go: Event) -> tuple[Waits, int]:
    """Let a thread for each caller get a session."""
    api, redis = urls
    waits: Waits = []
    errors: list[Exception] = []
    threading.stack_size(STACK)
    store = RedisSessionStore.from_url(redis, namespace=NAMESPACE)
    with (
        store,
        ChatKitClient(base_url=api, store=store, api_key=KEY, workflow_id=WORKFLOW) as chatkit,
    ):

        def call(user: str) -> None:
            start = time.perf_counter()
            try:
                chatkit.get_or_create_session(user)
            except Exception as error:  # noqa: BLE001 -- counted
                errors.append(error)
            waits.append(time.perf_counter() - start)

        threads = [threading.Thread(target=call, args=(user,)) for user in users_of(number)]
        go.wait()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return waits, len(errors)


async def call_in_tasks(number: int, urls: tuple[str, str], go: Event) -> tuple[Waits, int]:
    """Let a task for each caller get a session."""
    api, redis = urls
    waits: Waits = []
    errors: list[Exception] = []
    store = AsyncRedisSessionStore.from_url(redis, namespace=NAMESPACE)
    client = AsyncChatKitClient(base_url=api, store=store, api_key=KEY, workflow_id=WORKFLOW)
    async with store, client as chatkit:

        async def call(user: str) -> None:
            start = time.perf_counter()
            try:
                await chatkit.get_or_create_session(user)
            except Exception as error:  # noqa: BLE001 -- counted
                errors.append(error)
            waits.append(time.perf_counter() - start)

        go.wait()
        async with asyncio.TaskGroup() as group:
            for user in users_of(number):
                group.create_task(call(user))
    return waits, len(errors)


def work(number: int, urls: tuple[str, str], ready: "Queue[int]", go: Event, done: Results) -> None:
    """Be one of the processes."""
    ready.put(number)
    if number % 2:
        done.put(asyncio.run(call_in_tasks(number, urls, go)))
    else:
        done.put(call_in_threads(number, urls, go))


def herd(urls: tuple[str, str]) -> tuple[Waits, int]:
    """Let all of them begin at once."""
    context = multiprocessing.get_context("spawn")
    ready: Queue[int] = context.Queue()
    done: Results = context.Queue()
    go = context.Event()
    processes = [
        context.Process(target=work, args=(number, urls, ready, go, done))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get(timeout=PATIENCE)
    go.set()
    results = [done.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join()
    return [wait for waits, _ in results for wait in waits], sum(failed for _, failed in results)


def main() -> None:
    """Measure without any session, and with all of them."""
    context = multiprocessing.get_context("spawn")
    port: Queue[int] = context.Queue()
    created: Synchronized[int] = context.Value("i", 0)
    server = context.Process(target=serve, args=(port, created), daemon=True)
    server.start()
    urls = f"http://127.0.0.1:{port.get(timeout=PATIENCE)}/v1", sys.argv[1]
    measured: dict[str, dict[str, float]] = {}
    for kind in ("cold", "warm"):
        before = created.value
        waits, failed = herd(urls)
        percent = statistics.quantiles(waits, n=100)
        measured[kind] = {
            "creates": created.value - before,
            "failed": failed,
            "p50": percent[49],
            "p99": percent[98],
        }
    server.terminate()
    server.join()
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
