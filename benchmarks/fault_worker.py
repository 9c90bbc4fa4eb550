"""One client, one fault: makes the calls and prints, as JSON, what came of them.

A process of its own, so that memory can be measured and a call that never ends can be ended.
"""

import asyncio
import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

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
    """

    library: Library
    mode: Mode
    url: str
    healthy_url: str
    calls: int
    pause: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the calls.

    Attributes:
        kind: A session, another value, an error of the library, another error, or nothing.
        text: What was returned or raised, in a word or two.
        seconds: How long the last call took.
        growth: By how many bytes the process's peak grew.
    """

    kind: Kind
    text: str
    seconds: float
    growth: int


def main() -> None:
    """Read a task from the command line, print its outcome."""
    task = Task(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    report(asyncio.run(measure_async(task)) if task.mode == "async" else measure_sync(task))


def report(outcome: Outcome) -> None:
    """Print it and end, without waiting for anything that still runs."""
    print(json.dumps(asdict(outcome)), flush=True)
    os._exit(0)


def measure_sync(task: Task) -> Outcome:
    """Put a synchronous client through it."""
    with must_work():
        connect(task, task.healthy_url)(USER)
    create = connect(task, task.url)
    for _ in range(task.calls - 1):
        create(USER)
        time.sleep(task.pause)
    stopwatch = Stopwatch()
    try:
        return stopwatch.returned(create(USER))
    except Exception as error:  # noqa: BLE001 -- which one it is, is the question
        return stopwatch.raised(error, task.library)


async def measure_async(task: Task) -> Outcome:
    """Put an asynchronous client through it."""
    with must_work():
        await connect(task, task.healthy_url)(USER)
    create: Callable[[str], Awaitable[object]] = connect(task, task.url)
    for _ in range(task.calls - 1):
        await create(USER)
        await asyncio.sleep(task.pause)
    stopwatch = Stopwatch()
    try:
        return stopwatch.returned(await create(USER))
    except Exception as error:  # noqa: BLE001 -- which one it is, is the question
        return stopwatch.raised(error, task.library)


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
        return self._outcome("typed" if typed else "untyped", type(error).__name__)

    def _give_up(self) -> None:
        report(self._outcome("no end", f"no end in {HARD_LIMIT:.0f} s"))

    def _outcome(self, kind: Kind, text: str) -> Outcome:
        self._guard.cancel()
        return Outcome(kind, text, time.monotonic() - self._start, peak_memory() - self._peak)


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
    return "" if is_moment(value.expires_at) else f"returned, expires_at is {value.expires_at:.0e}"


def is_moment(expires_at: object) -> bool:
    """Whether a session's expiry is one: a date, or seconds before the year 10000."""
    return isinstance(expires_at, datetime) or (
        isinstance(expires_at, int) and 0 < expires_at <= _LAST_MOMENT
    )


def connect(task: Task, url: str) -> Create:
    """Make the client and give its function that creates a session."""
    return (connect_ours if task.library == "ours" else connect_openai)(task.mode, url)


# Only the library in question is imported: the other one would count as memory.


def connect_ours(mode: Mode, url: str) -> Create:
    """This library's client."""
    from chatkit_sessions import AsyncChatKitClient, ChatKitClient  # noqa: PLC0415 -- see above

    client = (AsyncChatKitClient if mode == "async" else ChatKitClient)(
        api_key=KEY, workflow_id=WORKFLOW, base_url=url, timeout=TIMEOUT, max_retries=RETRIES
    )
    return client.create_session


def connect_openai(mode: Mode, url: str) -> Create:
    """The official SDK's client."""
    from openai import AsyncOpenAI, OpenAI  # noqa: PLC0415 -- see above

    client = (AsyncOpenAI if mode == "async" else OpenAI)(
        api_key=KEY, base_url=url, timeout=TIMEOUT, max_retries=RETRIES
    )
    sessions = client.beta.chatkit.sessions
    return lambda user: sessions.create(user=user, workflow={"id": WORKFLOW})


def root_of_errors(library: Library) -> type[Exception]:
    """The class that all errors of a library share."""
    if library == "ours":
        from chatkit_sessions import ChatKitError  # noqa: PLC0415 -- see above

        return ChatKitError
    from openai import OpenAIError  # noqa: PLC0415 -- see above

    return OpenAIError


if __name__ == "__main__":
    main()
