"""`chatkit-sessions serve`, or `python -m chatkit_sessions.testing`: the local API on a port."""

from __future__ import annotations

import argparse
import errno
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, NoReturn

from .fake_api import FakeChatKit
from .server import EVERY_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from .fake_api import FakeServer
    from .wire import FakeResponse, ServiceRequest

_CANNOT_LISTEN = 2
_LAST_PORT = 65_535
_SECRET = re.compile(r"(sk-|ek_)[^/]*")


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print lines at once. Once their reader has ended, as `head` does, nothing is printed.

    Args:
        lines: What to print. Without any, what is still buffered is written.
        stream: Default: stdout.
    """
    try:
        print(*lines, sep="\n", end="\n" if lines else "", file=stream, flush=True)
    except BrokenPipeError:
        # What is buffered is written once more at exit, and would fail again.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), (stream or sys.stdout).fileno())


class Parser(argparse.ArgumentParser):
    """A parser whose help and errors may go to a reader that has ended."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process, after what was printed and the message."""
        say()
        say(*(message or "").splitlines(), stream=sys.stderr)
        super().exit(status)


class _PrintingFake(FakeChatKit):
    """Prints a line for each request, on stderr: stdout has the variables to set."""

    def handle(self, request: ServiceRequest) -> FakeResponse:
        """Respond to a request."""
        response = super().handle(request)
        path = _SECRET.sub(r"\1***", request.path.partition("?")[0])
        line = f"{request.method} {path} {response.status_code}"
        say(ascii(line)[1:-1], stream=sys.stderr)  # a terminal obeys some characters
        return response


def main(
    argv: Sequence[str] | None = None, *, prog: str = "python -m chatkit_sessions.testing"
) -> int:
    """Serve the local API until SIGINT (Ctrl-C) or SIGTERM, and print each request.

    Args:
        argv: The arguments, without the name of the command. Default: those of the process.
        prog: The command's name, for its help.

    Returns:
        The exit code: 0 after a signal, 2 when the address cannot be listened on.
    """
    options = _parser(prog).parse_args(argv)
    fake = _PrintingFake(
        api_key=options.api_key,
        workflow_id=options.workflow_id,
        refresh_route=not options.no_refresh_route,
        read_route=options.read_route,
    )
    # Set for SIGINT, too: it is ignored in a shell's background jobs.
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        _serve_until_interrupted(fake, options.host, options.port)
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        advice = "; --port 0 picks a free one" if error.errno == errno.EADDRINUSE else ""
        say(f"cannot listen on {options.host}:{options.port}: {error}{advice}", stream=sys.stderr)
        return _CANNOT_LISTEN
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _serve_until_interrupted(fake: FakeChatKit, host: str, port: int) -> NoReturn:
    with fake.serve(host, port) as server:
        say(_greeting(server, host))
        while True:
            sleep(1)


def _greeting(server: FakeServer, host: str) -> str:
    lines = [
        "# Local ChatKit API; Ctrl-C ends it. In the shell of your backend:",
        *(f"export {name}={shlex.quote(value)}" for name, value in server.environment.items()),
    ]
    if host == EVERY_ADDRESS:
        lines.append("# From another machine: this one's address, and allow_insecure_http=True.")
    return "\n".join(lines)


def _parser(prog: str) -> Parser:
    parser = Parser(
        prog=prog,
        description="Serve a local imitation of ChatKit's sessions API.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8089, type=_port, help="0 picks a free one")
    parser.add_argument("--api-key", default="sk-test", help="the key that opens the API")
    parser.add_argument("--workflow-id", default="wf_test", help="the workflow that there is")
    parser.add_argument(
        "--no-refresh-route",
        action="store_true",
        help="omit POST /chatkit/sessions/refresh, as the published contract does",
    )
    parser.add_argument(
        "--read-route", action="store_true", help="offer GET /chatkit/sessions/{id}"
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"not a port: {port}")
    return port


if __name__ == "__main__":
    sys.exit(main())
