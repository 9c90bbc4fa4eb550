"""Put this library and the official SDK through faults on loopback, and print the outcomes.

    pip install . openai httpx-aiohttp socksio trustme uvloop
    python benchmarks/faults.py
    python benchmarks/faults.py --library ours --only gzip

Ends with status 1 where this library did not do what it should, 2 where nothing could be measured.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from ssl import SSLContext
from typing import Final

from environment import NotReadyError, variables
from fault_list import FAULTS, FINE, MB, Fault, Should, responds
from fault_server import REMOTE, Server, certificates, silent_address
from fault_worker import (
    HARD_LIMIT,
    KEY,
    NOT_READY,
    RETRIES,
    TIMEOUT,
    USER,
    Library,
    Mode,
    Outcome,
    Task,
)

WORKER: Final = Path(__file__).with_name("fault_worker.py")
WORKERS_AT_ONCE: Final = 4
STARTUP_LIMIT: Final = 60.0
LIBRARIES: Final[tuple[Library, ...]] = ("ours", "openai")
MODES: Final[tuple[Mode, ...]] = ("sync", "async")
PACKAGES: Final[dict[Library, str]] = {"ours": "chatkit-sessions", "openai": "openai"}
TITLES: Final[dict[Library, str]] = {"ours": "this library", "openai": "official SDK"}

SILENT_ADDRESS: Final = "127.0.0.2"
MOST_GROWTH: Final = 16 * MB
SLACK: Final = 1.0
MOST_SECONDS: Final[dict[Library, float]] = {
    "ours": TIMEOUT + SLACK,  # its timeout is for a whole call,
    "openai": (1 + RETRIES) * TIMEOUT + RETRIES * 0.5 + SLACK,  # this one's for each attempt
}
"""How long a call may take, by each library's own meaning of `timeout`."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one fault for one client.

    Attributes:
        fault: What went wrong on the way.
        library: Whose client.
        mode: Which of its two clients.
        outcome: What the client did.
        leaks: What arrived where it should not, or is in the error.
        strayed: Whether the client called a server that it was never told of.
        attempts: How many connections or requests it made, whichever are more.
    """

    fault: Fault
    library: Library
    mode: Mode
    outcome: Outcome
    leaks: tuple[str, ...]
    strayed: bool
    attempts: int

    @property
    def good(self) -> bool:
        """Whether all rules hold."""
        return all(rule(self) for rule in RULES)


# The rules ----------------------------------------------------------------------------------------


def ended_as_it_should(result: Result) -> bool:
    """A session where a retry helps, else an error of the library's own."""
    wanted = {Should.SESSION: "session", Should.ERROR: "typed"}[result.fault.should]
    return result.outcome.kind == wanted


def ended_in_time(result: Result) -> bool:
    """Within the timeout and a second."""
    return result.outcome.seconds <= MOST_SECONDS[result.library]


def took_little_memory(result: Result) -> bool:
    """Whatever the server sends."""
    return result.outcome.growth < MOST_GROWTH


def leaked_nothing(result: Result) -> bool:
    """Key and user went where they were meant to go, and one response's cookie nowhere."""
    return not result.leaks


def asked_once(result: Result) -> bool:
    """Where another attempt cannot help."""
    return not result.fault.once or result.attempts <= 1


def left_no_connection(result: Result) -> bool:
    """One may wait for the next call, as many as were warm; none once the client is closed."""
    return result.outcome.kept <= max(1, result.fault.warm) and result.outcome.left <= 0


RULES: Final = (
    ended_as_it_should, ended_in_time, took_little_memory, leaked_nothing, asked_once,
    left_no_connection,
)  # fmt: skip


# The measurement ----------------------------------------------------------------------------------


def meet(fault: Fault, library: Library, mode: Mode) -> Result:
    """Let one client meet one fault."""
    fine = responds(FINE)
    with ExitStack() as servers:
        healthy, elsewhere = (servers.enter_context(Server(fine)) for _ in range(2))
        server = servers.enter_context(
            Server(
                fault.serve,
                elsewhere.url,
                at_once=fault.at_once,
                tunnels=fault.proxy == "tunnel",
                tls=certificate_of(fault),
            )
        )
        url, addresses = server.url, tuple[str, ...]()
        variables = {"SSL_CERT_FILE": str(certificates().authority), **fault.variables}
        if fault.proxy:
            url = f"https://{REMOTE}/v1"
            scheme = "socks5" if fault.proxy == "socks5" else "http"
            variables["HTTPS_PROXY"] = f"{scheme}://{server.address}"
        if fault.silent_address:
            url, addresses = f"http://{REMOTE}:{server.port}/v1", (SILENT_ADDRESS, "127.0.0.1")
            servers.enter_context(silent_address(SILENT_ADDRESS, server.port))
        task = Task(
            *(library, mode, url, healthy.url, fault.calls, fault.pause, fault.warm, variables),
            *(addresses, fault.loop, fault.http),
        )
        outcome = run_worker(task)
        leaks = [*leaks_to(elsewhere.requests), *cookies_in(server.requests)]
    if outcome.shows_key:
        leaks.append("key in the error")
    attempts = max(server.connections, len(server.requests))
    strayed = bool(elsewhere.requests)
    return Result(fault, library, mode, outcome, tuple(leaks), strayed, attempts)


def certificate_of(fault: Fault) -> SSLContext | None:
    """What the server shows for a fault."""
    if fault.proxy == "tunnel":
        return certificates().trusted
    return getattr(certificates(), fault.tls) if fault.tls else None


def run_worker(task: Task) -> Outcome:
    """Run a task in a process of its own, which ends by itself."""
    command = [sys.executable, str(WORKER), json.dumps(asdict(task))]
    try:
        process = subprocess.run(  # noqa: S603 -- this Python, on a file that lies next to this one
            command,
            env=variables(),
            capture_output=True,
            text=True,
            timeout=STARTUP_LIMIT + HARD_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome("no end", f"no end in {HARD_LIMIT:.0f} s", HARD_LIMIT)
    if process.returncode == NOT_READY:
        raise NotReadyError(f"{task.library} ({task.mode}) does not work:\n{process.stderr}")
    if process.stdout:
        return Outcome(**json.loads(process.stdout.splitlines()[0]))
    last_words = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
    return Outcome("untyped", f"the process died: {last_words}")


def leaks_to(requests: Iterable[bytes]) -> list[str]:
    """What arrived at a server that the client was never told of."""
    received = b"".join(requests)
    secrets = {"key": KEY, "user": USER}
    return [f"{name} sent elsewhere" for name, text in secrets.items() if text.encode() in received]


def cookies_in(requests: Iterable[bytes]) -> list[str]:
    """Whether a cookie that one response set came back with another call."""
    return ["cookie sent"] if any(b"\r\ncookie:" in head.lower() for head in requests) else []


def meet_all(faults: Sequence[Fault], libraries: Sequence[Library]) -> list[Result]:
    """Let all clients meet all faults, a few at a time, and show how far it is."""
    cases = [
        (fault, library, mode)
        for fault, library, mode in product(faults, libraries, MODES)
        if fault.mode in {None, mode}
    ]
    results: list[Result] = []
    with ThreadPoolExecutor(WORKERS_AT_ONCE) as pool:
        for result in pool.map(lambda case: meet(*case), cases):
            results.append(result)
            progress(f"{len(results)}/{len(cases)} {result.fault.name}")
    progress("")
    return results


def progress(text: str) -> None:
    """One line that is written over and over, where somebody looks at it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# The report ---------------------------------------------------------------------------------------


def table(results: Sequence[Result], libraries: Sequence[Library]) -> str:
    """All results, a row for each fault."""
    titles = ["fault", "what should happen", *(TITLES[library] for library in libraries)]
    rows = [titles, ["---"] * len(titles)]
    for fault in dict.fromkeys(result.fault for result in results):
        mine = [result for result in results if result.fault is fault]
        cells = [cell([result for result in mine if result.library == name]) for name in libraries]
        should = ", ".join(filter(None, (fault.should.value, fault.besides)))
        rows.append([fault.name, should, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def cell(results: Iterable[Result]) -> str:
    """What the sync and the async client did; said once where it is the same."""
    return " / ".join(dict.fromkeys(map(describe, results)))


def describe(result: Result) -> str:
    """One result in a few words."""
    outcome = result.outcome
    words = [outcome.text]
    if outcome.kind == "untyped":
        words.append("not the library's own")
    if outcome.kind != "no end" and outcome.seconds >= TIMEOUT - 0.5:
        words.append(f"after {int(outcome.seconds + 0.25)} s")
    if result.strayed:
        words.append("served by the other port")
    if outcome.growth >= MOST_GROWTH:
        words.append(f"+{coarse(outcome.growth / MB)}")
    if not asked_once(result):
        words.append(f"asked {result.attempts} times")
    if not left_no_connection(result):
        words.append("a connection left open")
    return f"{'✓' if result.good else '✗'} {', '.join([*words, *result.leaks])}"


def coarse(megabytes: float) -> str:
    """An amount of memory, to be read and not to be compared."""
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"  # noqa: PLR2004


def score(results: Iterable[Result], libraries: Sequence[Library]) -> str:
    """How many of its calls went as they should, for each client."""
    by_client: dict[tuple[Library, Mode], list[bool]] = {
        case: [] for case in product(libraries, MODES)
    }
    for result in results:
        by_client[result.library, result.mode].append(result.good)
    return "".join(
        f"- {TITLES[library]}, {mode}: {sum(good)} of {len(good)}\n"
        for (library, mode), good in by_client.items()
    )


def page(results: Sequence[Result], libraries: Sequence[Library]) -> str:
    """The table, with what is needed to read it and to repeat it."""
    used = ", ".join(f"{PACKAGES[library]} {version(PACKAGES[library])}" for library in libraries)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"""\
# Faults

`create_session`, and the official SDK's `beta.chatkit.sessions.create`, when a server or a proxy
fails. Each client runs with each fault in its own process, against a server on loopback, with
`timeout={TIMEOUT:.0f}` and `max_retries={RETRIES}`.

```console
$ pip install . openai httpx-aiohttp socksio trustme uvloop
$ python benchmarks/faults.py
```

{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}, {python}: {used}.

A call passes (✓) if it ends as the second column says, within its timeout and a second. It
takes less than {MOST_GROWTH // MB} MB of additional memory, sends neither key nor user to
another host, and its error does not contain the key. The client keeps at most as many
connections as were in use at once, and none after it is closed. A typed error is a
`ChatKitError` here and an `OpenAIError` in the SDK. If the sync and the async client differ, a
cell has both results. The measurement of a call stops after {HARD_LIMIT:.0f} s.

The second column is this library's expectation. The SDK promises less, by design: its timeout is
for each attempt (and is judged as such), it does not check a success response, and it follows
redirects. A session of another user is a failure for both.

{score(results, libraries)}
{table(results, libraries)}"""


def main() -> int:
    """Measure, print and say whether this library did what it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="faults with this in their name")
    parser.add_argument("--library", choices=LIBRARIES, help="this one and not the other")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write a page there, too")
    arguments = parser.parse_args()

    faults = [fault for fault in FAULTS if arguments.only.lower() in fault.name.lower()]
    if not faults:
        parser.error(f"no fault has {arguments.only!r} in its name")
    libraries = (arguments.library,) if arguments.library else LIBRARIES
    try:
        results = meet_all(faults, libraries)
    except NotReadyError as error:
        parser.exit(2, f"{error}\n")
    print(table(results, libraries))
    print(score(results, libraries), end="")
    if arguments.markdown:
        arguments.markdown.write_text(page(results, libraries), encoding="utf-8")
    return int(any(result.library == "ours" and not result.good for result in results))


if __name__ == "__main__":
    sys.exit(main())
