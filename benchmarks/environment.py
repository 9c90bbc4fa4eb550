"""Where the benchmarks run: an environment of their own, clean variables, an upstream."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
DIRECTORY: Final = ROOT / ".venv-benchmarks"
WITH_COMMAND: Final = ROOT / ".venv-benchmarks-command"
PEERS: Final = ("aiohttp", "httpx", "httpx-aiohttp", "openai", "pydantic", "redis", "trustme")
PACKAGES: Final = ("chatkit-sessions", *PEERS)

_OPEN_FILES: Final = 8192
_VERSIONS: Final = """\
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


class NotReadyError(Exception):
    """Something that every measurement needs does not work."""


# The environment ----------------------------------------------------------------------------------


def prepare(directory: Path = DIRECTORY, peers: Sequence[str] = PEERS) -> Path:
    """Make the environment where it is missing, install this tree and return its Python."""
    python = directory / "bin" / "python"
    made_of = directory / "made-of.txt"
    wanted = "\n".join((sys.version, *peers))
    if not made_of.exists() or made_of.read_text(encoding="utf-8") != wanted:
        _run([sys.executable, "-m", "venv", "--clear", str(directory)])
    # pip builds and installs a directory anew each time, and leaves peers that are there.
    _run([str(python), "-m", "pip", "install", "--quiet", str(ROOT), *peers])
    made_of.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed of the packages that are compared."""
    found: dict[str, str] = json.loads(_run([str(python), "-c", _VERSIONS, *PACKAGES]))
    return found


def _run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- Python itself
    if process.returncode:
        raise NotReadyError(f"{' '.join(command)}:\n{process.stdout}{process.stderr}")
    return process.stdout


def variables(*dropped: str) -> dict[str, str]:
    """This process's, less what would change where and how the clients call.

    Args:
        dropped: What else to leave out: beginnings of names.
    """
    beginnings = ("OPENAI_", *dropped)
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith(beginnings)
    }


def permit_open_files() -> None:
    """Let this process hold more connections than the usual 1,024 files allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# The upstream -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upstream:
    """The server of the speed benchmark.

    Attributes:
        urls: Its roots: `http-0`, `http-50`, `http-300` (delays in milliseconds) and `https-0`.
        authority: The file to trust, for `https-0`.
    """

    urls: dict[str, str]
    authority: Path


@contextmanager
def serving(python: Path) -> Iterator[Upstream]:
    """Run the upstream in a process of its own."""
    with TemporaryDirectory() as directory:
        authority = Path(directory) / "authority.pem"
        command = [str(python), str(HERE / "speed_server.py"), str(authority)]
        with subprocess.Popen(  # noqa: S603 -- a file that lies next to this one
            command, env=variables("PYTHON"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            line = server.stdout.readline() if server.stdout else b""
            if not line:
                raise NotReadyError("the upstream does not start")
            try:
                yield Upstream(json.loads(line), authority)
            finally:
                server.communicate()  # it ends with its standard input
