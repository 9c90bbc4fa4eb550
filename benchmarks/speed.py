"""Measure how fast this library is, beside its peers, on loopback.

    python benchmarks/speed.py
    python benchmarks/speed.py --rounds 1 --only sync threads

Makes an environment of its own first. Whether goals are reached does not matter to the exit status:
it is 1 where a client failed, 2 where nothing could be measured.
"""

import argparse
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import environment
from environment import NotReadyError, Upstream
from speed_goals import BLOCKS, Block, Goal, Run

ROUNDS: Final = 3
SHORT_TURNS: Final = 40
CALLS_OF_A_TURN: Final = 40
WORKER: Final = environment.HERE / "speed_worker.py"
PROGRAM: Final = environment.HERE / "speed_start.py"
LIMIT: Final = 180.0
BEGIN: Final = "<!-- speed: begin -->"
END: Final = "<!-- speed: end -->"

Measures: TypeAlias = dict[str, float]
"""What a run measured, by its unit."""

Turn: TypeAlias = dict[str, Measures]
"""What runs that took turns measured, by their label."""


class FailedError(Exception):
    """A client failed."""


# The measurement ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Laboratory:
    """Runs what is to be measured.

    Attributes:
        python: The environment's.
        python_with_command: That of an environment with the command of httpx.
        upstream: What the clients call.
    """

    python: Path
    python_with_command: Path
    upstream: Upstream

    def measure(self, run: Run) -> Measures:
        """Let one client do its work."""
        if run.kind == "import":
            return self._import("pass" if run.contender == "python -c pass" else run.contender)
        url = self.upstream.urls[run.upstream]
        if run.kind == "start":
            return self._start(run, url)
        task = {"kind": run.kind, "contender": run.contender, "url": url}
        output = self._python(run, str(WORKER), json.dumps({**task, "in_flight": run.in_flight}))
        measures: Measures = json.loads(output)
        return measures

    @contextmanager
    def worker(self, run: Run) -> Generator[Callable[[int], list[float]], None, None]:
        """A client that lives on: makes so many calls and returns what each took, in seconds."""
        task = {"kind": run.kind, "contender": run.contender, "in_flight": run.in_flight}
        task["url"] = self.upstream.urls[run.upstream]
        with subprocess.Popen(  # noqa: S603 -- files that lie next to this one
            [str(self.python), str(WORKER), json.dumps(task)],
            cwd=environment.DIRECTORY,
            env=self._variables(run),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None  # noqa: S101 -- for the type checkers
            assert process.stdout is not None  # noqa: S101 -- as above
            requests, results = process.stdin, process.stdout
            results.readline()  # once it is ready

            def make(calls: int) -> list[float]:
                try:
                    print(calls, file=requests, flush=True)
                    seconds: list[float] = json.loads(results.readline())
                except (OSError, ValueError) as error:
                    raise FailedError("it has ended") from error
                return seconds

            yield make
            process.kill()

    def _start(self, run: Run, url: str) -> Measures:
        # Both processes read the same clock: what comes after the session is not counted.
        start = time.monotonic()
        end, peak, cpu = self._python(run, str(PROGRAM), run.contender, url).split()
        elapsed = float(end) - start
        return {"ms": 1000 * elapsed, "CPU ms": 1000 * float(cpu), "MB": int(peak) / 2**20}

    def _import(self, what: str) -> Measures:
        code = "import chatkit_sessions" if what == "ours" else what
        start = time.monotonic()
        self._python(None, "-c", code)
        return {"ms": 1000 * (time.monotonic() - start)}

    def _python(self, run: Run | None, *arguments: str) -> str:
        python = self.python_with_command if run and run.with_command else self.python
        try:
            process = subprocess.run(  # noqa: S603 -- files that lie next to this one
                [str(python), *arguments],
                cwd=environment.DIRECTORY,
                env=self._variables(run),
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FailedError(f"no end in {LIMIT:.0f} s") from None
        if process.returncode:
            last_words = process.stderr.strip().splitlines() or [f"status {process.returncode}"]
            raise FailedError(last_words[-1])
        return process.stdout

    def _variables(self, run: Run | None) -> dict[str, str]:
        variables = environment.variables("PYTHON", "SSL_CERT_")
        if run and run.upstream.startswith("https"):
            variables["SSL_CERT_FILE"] = str(self.upstream.authority)
        return variables


@dataclass(slots=True)
class Results:
    """What was measured.

    Attributes:
        turns: For each block, all turns.
        failures: What went wrong, in words.
    """

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def values(self, block: Block, label: str, unit: str) -> list[float]:
        """All values of one run."""
        turns = self.turns[block.name]
        return [turn[label][unit] for turn in turns if label in turn]

    def comparisons(self, block: Block, goal: Goal) -> list[float]:
        """Both runs of each turn, compared: what disturbs a turn disturbs both."""
        peer = goal.peer or goal.run
        return [
            goal.compare(turn[goal.run][goal.unit], turn[peer][goal.unit])
            for turn in self.turns[block.name]
            if goal.run in turn and peer in turn
        ]


def measure_all(laboratory: Laboratory, blocks: Sequence[Block], rounds: int) -> Results:
    """Go around as often as wanted, and tell how far it is."""
    results = Results({block.name: [] for block in blocks})
    for number in range(rounds):
        for block in blocks:
            progress(f"round {number + 1} of {rounds}: {block.name}")
            turns = results.turns[block.name]
            for _ in range(block.turns):
                if block.runs[0].kind == "in turns":
                    turns.append(take_short_turns(laboratory, block, results.failures))
                else:
                    turns.append(take_turns(laboratory, block, len(turns), results.failures))
    progress("")
    return results


def take_turns(laboratory: Laboratory, block: Block, shift: int, failures: list[str]) -> Turn:
    """Let each run of a block have its turn, beginning with another one each time."""
    turn: Turn = {}
    first = shift % len(block.runs)
    for run in (*block.runs[first:], *block.runs[:first]):
        try:
            turn[run.label] = laboratory.measure(run)
        except FailedError as failure:
            failures.append(f"{block.name}, {run.label}: {failure}")
    return turn


def take_short_turns(laboratory: Laboratory, block: Block, failures: list[str]) -> Turn:
    """Let clients in one process make a few calls each, in another order each time.

    What counts of a client is a low quantile of its calls: what disturbs some of them is not there.
    """
    times: dict[str, list[float]] = {run.label: [] for run in block.runs}
    with ExitStack() as stack:
        workers = [(run, stack.enter_context(laboratory.worker(run))) for run in block.runs]
        for _ in range(SHORT_TURNS):
            random.shuffle(workers)
            for run, worker in workers:
                try:
                    times[run.label] += worker(CALLS_OF_A_TURN)
                except FailedError as failure:
                    failures.append(f"{block.name}, {run.label}: {failure}")
    return {
        label: {"ms": 1000 * statistics.quantiles(seconds, n=20)[0]}
        for label, seconds in times.items()
        if seconds
    }


def progress(text: str) -> None:
    """One line that is written over and over, where somebody looks at it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# The report ---------------------------------------------------------------------------------------


def table(results: Results, blocks: Sequence[Block]) -> str:
    """All comparisons, a row for each."""
    titles = ["what", "of", "to", "goal", "measured", "lowest to highest", ""]
    rows = [titles, ["---"] * len(titles), *rows_of(results, blocks)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def rows_of(results: Results, blocks: Sequence[Block]) -> Iterator[list[str]]:
    """The rows."""
    for block in blocks:
        for goal in block.goals:
            found = results.comparisons(block, goal)
            sides = [side(results, block, label, goal.unit) for label in (goal.run, goal.peer)]
            yield [goal.text, *sides, bound_of(goal), *(verdict(goal, found) if found else FAILED)]


FAILED: Final = ("failed", "", "✗")


def side(results: Results, block: Block, label: str, unit: str) -> str:
    """One of the two that are compared, with its median."""
    values = results.values(block, label, unit)
    if not values:
        return label
    return f"{label}: {number(statistics.median(values))} {unit.removesuffix(' with a session')}"


def bound_of(goal: Goal) -> str:
    """A goal in a few characters."""
    return "" if goal.bound is None else f"{goal.relation} {goal.bound:g}{suffix(goal)}"


def verdict(goal: Goal, found: Sequence[float]) -> tuple[str, str, str]:
    """What was measured, between which values, and whether that is good."""
    median = statistics.median(found)
    mark = {True: "✓", False: "✗", None: ""}[goal.reached(median)]
    spread = f"{number(min(found))} to {number(max(found))}"
    return f"{number(median)}{suffix(goal)}", spread, mark


def suffix(goal: Goal) -> str:
    """The unit of a goal; ratios have none."""
    return "" if goal.peer and not goal.difference else f" {goal.unit.split(' ', 1)[0]}"


def number(value: float) -> str:
    """Three figures, and no more than two decimals."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"  # noqa: PLR2004 -- three figures


def report(results: Results, blocks: Sequence[Block], rounds: int, python: Path) -> str:
    """The table, with what is needed to read it and to repeat it."""
    used = ", ".join(f"{name} {text}" for name, text in environment.versions(python).items())
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    failures = "".join(f"- failed: {failure}\n" for failure in sorted(set(results.failures)))
    tables = "\n".join(filter(None, (failures, table(results, blocks))))
    command = f"python benchmarks/speed.py {shlex.join(repeatable(sys.argv[1:]))}".strip()
    turns = turns_of(blocks, rounds)
    return f"""\
```console
$ {command}
```

{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()}, {implementation}: {used}.

The clients of a row take turns ({turns} each), each turn in a new process. For *one by one*, they
run in one process and take {SHORT_TURNS} short turns, of which the fastest twentieth counts.
*of* and *to* are the medians of all turns. *measured* is the median of the turns' ratios, so a
disturbance that lasts longer than a turn affects both sides of it.
Rows without a goal are for information.

{tables}"""


def turns_of(blocks: Sequence[Block], rounds: int) -> str:
    """How many turns a block has."""
    counts = sorted({block.turns * rounds for block in blocks})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def repeatable(arguments: Sequence[str]) -> list[str]:
    """The command line without the file that the reader has before them."""
    if "--markdown" not in arguments:
        return list(arguments)
    at = arguments.index("--markdown")
    return [*arguments[:at], *arguments[at + 2 :]]


def insert(page: str, text: str) -> str:
    """Put the report between the page's markers; a page without them gets them at its end."""
    if BEGIN not in page or END not in page:
        page = f"{page.rstrip()}\n\n{BEGIN}\n{END}\n".lstrip()
    before, after = page.split(BEGIN, 1)[0], page.split(END, 1)[1]
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def main() -> int:
    """Measure, print and say whether all clients worked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = [block.name for block in BLOCKS]
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS, help="default: 3")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=names, help=", ".join(names))
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write it there, too")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("there must be a round")

    blocks = [block for block in BLOCKS if block.name in (arguments.only or names)]
    try:
        python = environment.prepare()
        with_command = environment.prepare(environment.WITH_COMMAND, ("httpx[cli]",))
        with environment.serving(python) as upstream:
            results = measure_all(
                Laboratory(python, with_command, upstream), blocks, arguments.rounds
            )
        text = report(results, blocks, arguments.rounds, python)
    except NotReadyError as error:
        parser.exit(2, f"{error}\n")
    print(text)
    if arguments.markdown:
        exists = arguments.markdown.exists()
        page = arguments.markdown.read_text(encoding="utf-8") if exists else "# Speed\n"
        arguments.markdown.write_text(insert(page, text), encoding="utf-8")
    return int(bool(results.failures))


if __name__ == "__main__":
    sys.exit(main())
