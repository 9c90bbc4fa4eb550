"""One client, one fault: makes the calls and prints, as JSON, how they ended.

A process of its own, so that memory can be measured and a call that never ends can be ended.
"""

import asyncio
import json
import os
import resource
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

KEY: Final = "sk-benchmark-0123456789abcdef"
USER: Final = "user-of-the-benchmark"
WORKFLOW: Final = "wf_benchmark"
TIMEOUT: Final = 2.0
RETRIES: Final = 1
HARD_LIMIT: Final = 10.0
"""Seconds that a call is watched for; whether it would have ended later is not known."""

NOT_READY: Final = 3
"""The exit status where even a healthy server got no session: nothing can be measured then."""

_LAST_MOMENT: Final = 253_402_300_799
_SETTLING: Final = 0.1
"""Seconds in which an event loop closes what it is told to close."""
_DESCRIPTORS: Final = 1024
_MOST_CAUSES: Final = 100
_ADDRESS_SPACE: Final = 6 * 1024**3

Library: TypeAlias = Literal["ours", "openai"]
Mode: TypeAlias = Literal["sync", "async"]
Kind: TypeAlias = Literal["session", "unusable", "typed", "untyped", "no end"]
Create: TypeAlias = Callable[[str], Any]
"""Makes a session for a user, or an awaitable of one."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do.

    Attributes:
        library: Whose client.
        mode: Which of its two clients.
        url: The server that has the fault.
        healthy_url: One that has none, for a first call that loads what calls need.
        calls: How many calls to make; the last one counts.
        pause: Seconds between them.
        warm: How many calls to make before, all at once.
        variables: Environment variables to set, once the healthy server has served.
        addresses: To what names resolve; empty: as usual.
        loop: The event loop of the asynchronous client.
        http: The HTTP client below.
    """

    library: Library
    mode: Mode
    url: str
    healthy_url: str
    calls: int
    pause: float
    warm: int
    variables: dict[str, str]
    addresses: tuple[str, ...]
    loop: Literal["asyncio", "uvloop"]
    http: Literal["its own", "httpx-aiohttp"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last call ended.

    Attributes:
        kind: A session, another value, an error of the library, another error, or nothing.
        text: What was returned or raised, in a word or two.
        seconds: How long the last call took.
        growth: By how many bytes the process's peak grew.
        shows_key: Whether the key is in the error, or in one of its causes.
        kept: How many connections are open after the call.
        left: How many are open once the client is closed.
    """

    kind: Kind
    text: str
    seconds: float = 0.0
    growth: int = 0
    shows_key: bool = False
    kept: int = 0
    left: int = 0


class Client(NamedTuple):
    """A library's client, whichever it is; the asynchronous one returns awaitables."""

    create: Create
    close: Callable[[], Any]


def main() -> None:
    """Read a task from the command line, print its outcome."""
    task = Task(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    if task.mode == "sync":
        report(measure_sync(task))
    with asyncio.Runner(loop_factory=loop_factory(task)) as runner:
        report(runner.run(measure_async(task)))


def report(outcome: Outcome) -> None:
    """Print it and end, without waiting for anything that still runs."""
    print(json.dumps(asdict(outcome)), flush=True)
    os._exit(0)


def measure_sync(task: Task) -> Outcome:
    """Put a synchronous client through it."""
    with must_work():
        healthy = connect(task, task.healthy_url)
        healthy.create(USER)
        healthy.close()
    before, stopwatch = prepare(task), Stopwatch()
    client: Client | None = None
    try:
        client = connect(task, task.url)
        with ThreadPoolExecutor(max(1, task.warm)) as threads:
            list(threads.map(client.create, [USER] * task.warm))
        for _ in range(task.calls - 1):
            with suppress(Exception):
                client.create(USER)
            time.sleep(task.pause)
        stopwatch.start()
        outcome = stopwatch.returned(client.create(USER))
    except Exception as error:  # noqa: BLE001 -- which one it is, is the question
        outcome = stopwatch.raised(error, task.library)
    kept = open_sockets() - before
    if client is not None:
        client.close()
    return replace(outcome, kept=kept, left=open_sockets() - before)


async def measure_async(task: Task) -> Outcome:
    """Put an asynchronous client through it."""
    with must_work():
        healthy = connect(task, task.healthy_url)
        await healthy.create(USER)
        await healthy.close()
    await asyncio.sleep(_SETTLING)
    before, stopwatch = prepare(task), Stopwatch()
    client: Client | None = None
    try:
        client = connect(task, task.url)
        await asyncio.gather(*(client.create(USER) for _ in range(task.warm)))
        for _ in range(task.calls - 1):
            with suppress(Exception):
                await client.create(USER)
            await asyncio.sleep(task.pause)
        stopwatch.start()
        outcome = stopwatch.returned(await client.create(USER))
    except Exception as error:  # noqa: BLE001 -- which one it is, is the question
        outcome = stopwatch.raised(error, task.library)
    await asyncio.sleep(_SETTLING)
    kept = open_sockets() - before
    if client is not None:
        await client.close()
        await asyncio.sleep(_SETTLING)
    return replace(outcome, kept=kept, left=open_sockets() - before)


def prepare(task: Task) -> int:
    """Set what the faulty server needs; return how many sockets are open."""
    os.environ.update(task.variables)
    if task.addresses:
        socket.getaddrinfo = resolver(task.addresses)
    return open_sockets()


def resolver(addresses: tuple[str, ...]) -> Callable[..., list[Any]]:
    """What resolves each name to these addresses."""

    def resolve(_: object, port: int, *__: object, **___: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    return resolve


def loop_factory(task: Task) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; uvloop resolves names by itself, so it is told the addresses."""
    if task.loop == "asyncio":
        return None
    import uvloop  # noqa: PLC0415 -- it would count as memory

    class Loop(uvloop.Loop):
        async def getaddrinfo(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- asyncio's
            if not task.addresses:
                return await super().getaddrinfo(*arguments, **options)
            return resolver(task.addresses)(*arguments)

    return Loop


def open_sockets() -> int:
    """How many sockets this process has open."""
    return sum(map(is_socket, range(_DESCRIPTORS)))


def is_socket(descriptor: int) -> bool:
    """Whether a file descriptor is an open socket."""
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@contextmanager
def must_work() -> Iterator[None]:
    """End the process where this fails: a client that does not work is no result."""
    try:
        yield
    except Exception:  # noqa: BLE001 -- whatever it is, it is told
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(NOT_READY)


class Stopwatch:
    """Measures a call from now on, and ends the process where the call does not end."""

    def __init__(self) -> None:
        self._guard = threading.Timer(0, self._give_up)
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self._guard.cancel()
        self._peak = peak_memory()
        self._start = time.monotonic()
        self._guard = threading.Timer(HARD_LIMIT, self._give_up)
        self._guard.daemon = True
        self._guard.start()

    def returned(self, value: object) -> Outcome:
        """The outcome of a call that returned."""
        flaw = flaw_of(value)
        return self._outcome("unusable", flaw) if flaw else self._outcome("session", "ok")

    def raised(self, error: Exception, library: Library) -> Outcome:
        """The outcome of a call that raised."""
        typed = isinstance(error, root_of_errors(library))
        outcome = self._outcome("typed" if typed else "untyped", type(error).__name__)
        return replace(outcome, shows_key=KEY in shown(error))

    def _give_up(self) -> None:
        report(self._outcome("no end", f"no end in {HARD_LIMIT:.0f} s"))

    def _outcome(self, kind: Kind, text: str) -> Outcome:
        self._guard.cancel()
        return Outcome(kind, text, time.monotonic() - self._start, peak_memory() - self._peak)


def shown(error: BaseException) -> str:
    """What a log line shows of an error and of its causes."""
    texts: list[str] = []
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is not None and len(texts) < _MOST_CAUSES:
            texts += [repr(current), str(current)]
            pending += [current.__cause__, current.__context__]
    return "\n".join(texts)


def peak_memory() -> int:
    """The most bytes that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def flaw_of(value: Any) -> str:  # noqa: ANN401 -- anything may come back
    """Why a returned value is no session to give to a browser; empty where it is one."""
    if not hasattr(value, "client_secret"):
        return "None returned" if value is None else f"a {type(value).__name__} returned"
    secret: object = value.client_secret
    if hasattr(secret, "get_secret_value"):
        secret = secret.get_secret_value()
    if not (isinstance(secret, str) and secret):
        return f"returned, client_secret is {secret!r}"
    if value.user != USER:
        return "another user's session returned"
    if value.workflow.id != WORKFLOW:
        return "another workflow's session returned"
    return "" if is_moment(value.expires_at) else f"returned, expires_at is {value.expires_at:.0e}"


def is_moment(expires_at: object) -> bool:
    """Whether a session's expiry is one: a date, or seconds before the year 10000."""
    return isinstance(expires_at, datetime) or (
        isinstance(expires_at, int) and 0 < expires_at <= _LAST_MOMENT
    )


def connect(task: Task, url: str) -> Client:
    """Make the client."""
    return (connect_ours if task.library == "ours" else connect_openai)(task, url)


# Only what is measured is imported: the rest would count as memory.


def connect_ours(task: Task, url: str) -> Client:
    """This library's client."""
    from chatkit_sessions import AsyncChatKitClient, ChatKitClient  # noqa: PLC0415 -- see above

    options: Any = {
        "api_key": KEY,
        "workflow_id": WORKFLOW,
        "base_url": url,
        "timeout": TIMEOUT,
        "max_retries": RETRIES,
        "allow_insecure_http": True,
    }
    if task.mode == "sync":
        sync = ChatKitClient(**options)
        return Client(sync.create_session, sync.close)
    http = http_client(task)
    client = AsyncChatKitClient(**options, http_client=http)

    async def close() -> None:
        await client.aclose()
        if http is not None:
            await http.aclose()

    return Client(client.create_session, close)


def connect_openai(task: Task, url: str) -> Client:
    """The official SDK's client."""
    from openai import AsyncOpenAI, OpenAI  # noqa: PLC0415 -- see above

    options: Any = {"api_key": KEY, "base_url": url, "timeout": TIMEOUT, "max_retries": RETRIES}
    client: Any = (
        OpenAI(**options)
        if task.mode == "sync"
        else AsyncOpenAI(**options, http_client=http_client(task))
    )
    sessions = client.beta.chatkit.sessions
    return Client(lambda user: sessions.create(user=user, workflow={"id": WORKFLOW}), client.close)


def http_client(task: Task) -> Any:  # noqa: ANN401 -- the two libraries' types for it differ
    """The asynchronous HTTP client to pass; None: the library makes its own."""
    if task.http == "its own":
        return None
    from httpx_aiohttp import HttpxAiohttpClient  # noqa: PLC0415 -- see above

    return HttpxAiohttpClient()


def root_of_errors(library: Library) -> type[Exception]:
    """The class that all errors of a library share."""
    if library == "ours":
        from chatkit_sessions import ChatKitError  # noqa: PLC0415 -- see above

        return ChatKitError
    from openai import OpenAIError  # noqa: PLC0415 -- see above

    return OpenAIError


if __name__ == "__main__":
    main()
