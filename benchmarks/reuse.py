"""Measure what a session that is handed out again costs against a call, on loopback.

    python benchmarks/reuse.py

Needs a Redis server on the machine. Makes the environment of the speed benchmark first. The exit
status is 2 where nothing could be measured.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import environment
from environment import NotReadyError

WORKER: Final = environment.HERE / "reuse_worker.py"
HERD: Final = environment.HERE / "reuse_herd.py"
SERVERS: Final = ("redis-server", "valkey-server")
REFERENCE: Final = "call, answered after 300 ms"
BARE_GET: Final = "bare redis-py GET of the same size"
BESIDE: Final = ("verify in ", "hit in ", BARE_GET)
GOALS: Final = {"verify in Redis": 1.3, "verify in Redis, counted": 2.0, "hit in Redis": 2.5}
"""In bare GETs, for a store from a URL."""
AWAITED: Final = ", awaited"
PATIENCE: Final = 10.0

Turn: TypeAlias = dict[str, float]
"""Microseconds of each kind, measured one after the other."""


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis of our own."""
    program = next((path for name in SERVERS if (path := shutil.which(name))), None)
    if program is None:
        raise NotReadyError(f"none of these is installed: {', '.join(SERVERS)}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(  # noqa: S603 -- found on this machine's path
            [program, *options], cwd=folder, stdout=subprocess.DEVNULL
        ) as server,
    ):
        try:
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    """Return as soon as somebody listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise NotReadyError("Redis does not start") from None
            time.sleep(0.05)
        else:
            return


def measure(python: str, *urls: str) -> list[Turn]:
    """Let the worker do its turns."""
    process = subprocess.run(  # noqa: S603 -- a file that lies next to this one
        [python, str(WORKER), *urls],
        env=environment.variables("PYTHON"),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise NotReadyError(process.stderr)
    return [json.loads(line) for line in process.stdout.splitlines()]


def measure_herd(python: str, url: str) -> dict[str, dict[str, float]]:
    """Let 10,000 callers want the sessions of 500 users."""
    environment.permit_open_files()
    process = subprocess.run(  # noqa: S603 -- a file that lies next to this one
        [python, str(HERD), url],
        env=environment.variables("PYTHON"),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise NotReadyError(process.stderr)
    measured: dict[str, dict[str, float]] = json.loads(process.stdout)
    return measured


def report_of_herd(measured: dict[str, dict[str, float]]) -> str:
    """A row for the herd without sessions, and one for the herd that finds them."""
    rows = ["| 10,000 callers at once | creates | failed | p50 | p99 |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for kind, told in measured.items():
        rows.append(
            f"| {kind} | {told['creates']:.0f} | {told['failed']:.0f} "
            f"| {told['p50']:.2f} s | {told['p99']:.2f} s |"
        )
    return "\n".join(rows)


def report(turns: list[Turn]) -> str:
    """A row for each kind, with its share of a call."""
    rows = ["| what | time | of a call that takes the API 300 ms |", "| --- | --- | --- |"]
    for kind in calls_of(turns):
        microseconds = statistics.median(turn[kind] for turn in turns)
        share = statistics.median(turn[kind] / turn[REFERENCE] for turn in turns)
        part = f"1/{1 / share:,.0f}" if share < 1 else "1"
        rows.append(f"| {kind} | {microseconds:,.0f} µs | {part} |")
    return "\n".join(rows)


def calls_of(turns: list[Turn]) -> list[str]:
    """The kinds that are compared with a call of the API."""
    return [kind for kind in turns[0] if not kind.startswith(BESIDE)]


def report_beside_bare(turns: list[Turn]) -> str:
    """A row for each way to verify a secret or to reuse a session, in bare GETs of its kind."""
    rows = ["| what | time | of a bare GET |", "| --- | --- | --- |"]
    for kind in (kind for kind in turns[0] if kind.startswith(BESIDE)):
        bare = BARE_GET + AWAITED * kind.endswith(AWAITED)
        microseconds = statistics.median(turn[kind] for turn in turns)
        share = statistics.median(turn[kind] / turn[bare] for turn in turns)
        goal = f" (goal: at most {GOALS[kind]})" if kind in GOALS else ""
        rows.append(f"| {kind} | {microseconds:,.0f} µs | {share:.2f}{goal} |")
    return "\n".join(rows)


def main() -> int:
    """Measure and print."""
    try:
        python = environment.prepare()
        with environment.serving(python) as upstream, redis() as redis_url:
            turns = measure(
                str(python), upstream.urls["http-0"], upstream.urls["http-300"], redis_url
            )
        with redis() as redis_url:
            herd = measure_herd(str(python), redis_url)
    except NotReadyError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Medians of {len(turns)} turns.\n\n{report(turns)}\n\n{report_beside_bare(turns)}")
    print(f"\n{report_of_herd(herd)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
