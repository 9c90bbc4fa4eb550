"""Print where the time of a call goes, function by function.

    python benchmarks/profile_calls.py
    python benchmarks/profile_calls.py --contender openai

Profiling slows every function call down, short ones most: the shares are a hint, not a measure.
"""

import argparse
import asyncio
import cProfile
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import CodeType
from typing import Final, Literal, NoReturn, TypeAlias

import environment
from speed_contenders import ASYNC, SYNC

Mode: TypeAlias = Literal["sync", "async"]
CONTENDERS: Final[dict[Mode, Collection[str]]] = {"sync": SYNC, "async": ASYNC}
UPSTREAMS: Final[dict[Mode, str]] = {"sync": "http-0", "async": "http-300"}
CALLS: Final[dict[Mode, int]] = {"sync": 2000, "async": 5000}
IN_FLIGHT: Final = 1000
TOP: Final = 25
IDLE: Final = (
    "<method 'poll' of 'select.epoll' objects>",
    "<method 'control' of 'select.kqueue' objects>",
)
"""Where an event loop waits."""


def profile_sync(contender: str, url: str) -> NoReturn:
    """Make calls one by one."""
    create = SYNC[contender](url)
    create()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(CALLS["sync"]):
        create()
    profiler.disable()
    print("Synchronous, one by one; what waits for the server counts as `recv`.\n")
    finish(profiler, CALLS["sync"])


async def profile_async(contender: str, url: str) -> NoReturn:
    """Keep many calls in flight; once connections are open, profile."""
    create = ASYNC[contender](url)
    await asyncio.gather(*(create() for _ in range(IN_FLIGHT)))

    async def call() -> None:
        for _ in range(CALLS["async"] // IN_FLIGHT):
            await create()

    profiler = cProfile.Profile()
    profiler.enable()
    await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
    profiler.disable()
    print(f"Asynchronous, {IN_FLIGHT:,} in flight.\n")
    finish(profiler, CALLS["async"])


def finish(profiler: cProfile.Profile, calls: int) -> NoReturn:
    """Print the functions that take most time themselves, and leave connections as they are."""
    named = [
        (entry.inlinetime, entry.callcount, name_of(entry.code)) for entry in profiler.getstats()
    ]
    functions = sorted((each for each in named if each[2] not in IDLE), reverse=True)
    total = sum(seconds for seconds, _, _ in functions)
    print("share   µs a call  times a call  function")
    for seconds, times, name in functions[:TOP]:
        share, own = f"{seconds / total:5.1%}", f"{1e6 * seconds / calls:11.1f}"
        print(f"{share}{own}{times / calls:14.1f}  {name}")
    print(f"{1:5.0%}{1e6 * total / calls:11.1f}\n", flush=True)
    os._exit(0)


def name_of(code: CodeType | str) -> str:
    """A function's name, and where it stands."""
    if isinstance(code, str):
        return code
    place = "/".join(Path(code.co_filename).parts[-2:])
    return f"{code.co_qualname} ({place}:{code.co_firstlineno})"


def profile(mode: Mode, contender: str, url: str) -> None:
    """Profile one mode in this process, which is one of the environment."""
    environment.permit_open_files()
    if mode == "sync":
        profile_sync(contender, url)
    else:
        asyncio.run(profile_async(contender, url))


def profile_all(modes: Sequence[Mode], contender: str) -> int:
    """Profile each mode in a process of its own."""
    python = environment.prepare()
    status = 0
    with environment.serving(python) as upstream:
        for mode in modes:
            command = [str(python), __file__, "--contender", contender, "--only", mode]
            status |= subprocess.run(  # noqa: S603 -- this file
                [*command, "--url", upstream.urls[UPSTREAMS[mode]]],
                env=environment.variables("PYTHON", "SSL_CERT_"),
                check=False,
            ).returncode
    return status


def main() -> int:
    """Prepare the environment, or profile within it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = list(dict.fromkeys((*SYNC, *ASYNC)))
    parser.add_argument("--contender", choices=names, default="ours", help="another client")
    parser.add_argument("--only", choices=CONTENDERS, help="one of the two")
    # This script starts itself with it, within the environment.
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.url:
        profile(arguments.only, arguments.contender, arguments.url)
        return 0
    modes = [mode for mode, known in CONTENDERS.items() if arguments.contender in known]
    if arguments.only:
        modes = [mode for mode in modes if mode == arguments.only]
    try:
        return profile_all(modes, arguments.contender)
    except environment.NotReadyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    sys.exit(main())
