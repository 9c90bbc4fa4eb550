"""The upstream: answers `POST /v1/chatkit/sessions`, at once or after a delay, and nothing else.

As cheap as plain asyncio permits, so that what is measured is the client. It listens on a port for
each delay and on one with TLS, prints their URLs as one line of JSON and ends with its standard
input.
"""

import asyncio
import json
import re
import ssl
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Final, cast

import trustme

from environment import permit_open_files

HOST: Final = "127.0.0.1"
DELAYS: Final = (0, 50, 300)
"""Milliseconds."""

_BACKLOG: Final = 4096
_LIFE: Final = 600
_RENEWAL: Final = 60.0
_ROUTE: Final = b"POST /v1/chatkit/sessions HTTP/1.1\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
# Those of the API's reference ("Debugging requests"), and what a public server adds.
_HEADERS: Final = (
    "openai-organization: org-benchmark\r\n"
    "openai-processing-ms: 280\r\n"
    "openai-version: 2020-10-01\r\n"
    "server: cloudflare\r\n"
    "strict-transport-security: max-age=31536000; includeSubDomains\r\n"
    "x-content-type-options: nosniff\r\n"
)
_NUMBER: Final = "NUMBER-GOES-HERE"
"""As long as the numbers that replace it, so that the content's length stays."""


class Answers:
    """Whole answers, each with a session of its own, put together from prepared pieces."""

    def __init__(self) -> None:
        self._count = 0
        self._pieces: list[bytes] = []
        self.renew()

    def renew(self) -> None:
        """Let the sessions of the next answers end ten minutes from now."""
        content = json.dumps(session(int(time.time()) + _LIFE), separators=(",", ":")).encode()
        head = (
            "HTTP/1.1 200 OK\r\n"
            f"date: {formatdate(usegmt=True)}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(content)}\r\n"
            f"{_HEADERS}"
            f"x-request-id: req_{_NUMBER}\r\n"
            "\r\n"
        )
        self._pieces = (head.encode() + content).split(_NUMBER.encode())

    def next(self) -> bytes:
        """Another one."""
        self._count += 1
        return (b"%016d" % self._count).join(self._pieces)


def session(expires_at: int) -> dict[str, object]:
    """A session as the API answers it."""
    return {
        "id": f"cksess_{_NUMBER}",
        "object": "chatkit.session",
        "client_secret": f"ek_{_NUMBER}",
        "expires_at": expires_at,
        "status": "active",
        "user": "user-of-the-benchmark",
        "workflow": {
            "id": "wf_benchmark",
            "version": None,
            "state_variables": None,
            "tracing": {"enabled": True},
        },
        "max_requests_per_1_minute": 10,
        "rate_limits": {"max_requests_per_1_minute": 10},
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": True},
            "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
            "history": {"enabled": True, "recent_threads": None},
        },
    }


class Connection(asyncio.Protocol):
    """One connection, with any number of requests.

    Args:
        answers: Where answers come from.
        delay: Seconds between a request and its answer.
    """

    def __init__(self, answers: Answers, delay: float) -> None:
        self._answers = answers
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go; asyncio has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- it does not matter why
        """Answer nobody any more."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer each whole request, keep the beginning of the next one."""
        received = self._received + data
        while end := end_of_request(received):
            self._treat(known=received.startswith(_ROUTE))
            received = received[end:]
        self._received = received

    def _treat(self, *, known: bool) -> None:
        if not known:
            self._send(_NOT_FOUND)
        elif self._delay:
            self._loop.call_later(self._delay, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._send(self._answers.next())

    def _send(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def end_of_request(received: bytes) -> int:
    """Where the first request ends; 0 where it is not all there."""
    head = received.find(b"\r\n\r\n") + 4
    if head < 4:  # noqa: PLR2004 -- not found
        return 0
    length = _LENGTH.search(received, 0, head)
    end = head + int(length[1] if length else 0)
    return end if end <= len(received) else 0


async def listen(answers: Answers, delay: float, tls: ssl.SSLContext | None = None) -> str:
    """Serve a port from now on, and return its URL."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answers, delay), HOST, 0, ssl=tls, backlog=_BACKLOG
    )
    scheme = "https" if tls else "http"
    return f"{scheme}://{HOST}:{server.sockets[0].getsockname()[1]}/v1"


def certify(authority_file: Path) -> ssl.SSLContext:
    """Make a certificate, and write whom to trust for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(authority_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    return context


async def renew(answers: Answers) -> None:
    """Keep the answers fresh."""
    while True:
        await asyncio.sleep(_RENEWAL)
        answers.renew()


async def serve(authority_file: Path) -> None:
    """Serve all ports until standard input ends."""
    answers = Answers()
    urls = {f"http-{delay}": await listen(answers, delay / 1000) for delay in DELAYS}
    urls["https-0"] = await listen(answers, 0, certify(authority_file))
    renewal = asyncio.create_task(renew(answers))
    print(json.dumps(urls), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    renewal.cancel()


if __name__ == "__main__":
    permit_open_files()
    asyncio.run(serve(Path(sys.argv[1])))
