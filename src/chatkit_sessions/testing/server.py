"""The local API over HTTP/1.1."""

from __future__ import annotations

import os
import re
import select
import socket
import socketserver
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import responses
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from chatkit_sessions.service._refusals import Refusal

from .faults import length_claimed, pieces_sent
from .wire import Headers, Request, Response, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from email.message import Message
    from io import BufferedIOBase

    from .fake import FakeChatKit

MAX_BODY: Final = 16 * 1024 * 1024
EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 -- only compared with what the user passes
_PIECE: Final = 64 * 1024
_MAX_LINE: Final = 64 * 1024
_DECIMAL: Final = re.compile(r"[0-9]{1,18}")
_HEXADECIMAL: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_SECONDS_BETWEEN_LOOKS_AT_SHUTDOWN: Final = 0.02
_SECONDS_BETWEEN_DRIPS: Final = 0.1


@dataclass(frozen=True, slots=True)
class FakeServer:
    """A local API that is served over HTTP.

    Attributes:
        url: The base URL, which ends in `/v1`.
        fake: The local API.
    """

    url: str
    fake: FakeChatKit

    @property
    def api_key(self) -> str:
        """The API key."""
        return self.fake.api_key

    @property
    def workflow_id(self) -> str:
        """The workflow id."""
        return self.fake.workflow_id

    @property
    def environment(self) -> dict[str, str]:
        """The variables that let a `ChatKitClient()` without arguments use this server."""
        return {
            "OPENAI_API_KEY": self.api_key,
            "OPENAI_CHATKIT_WORKFLOW_ID": self.workflow_id,
            "OPENAI_BASE_URL": self.url,
        }


@contextmanager
def serve(fake: FakeChatKit, host: str, port: int) -> Generator[FakeServer]:
    """Serve `fake` until the `with` block ends; then every thread and socket is gone.

    The arguments are those of `FakeChatKit.serve`.

    Raises:
        OSError: The server cannot listen on the address.
    """
    with _Listener((host, port), fake.handle) as listener:
        accepting = Thread(
            target=listener.serve_forever,
            args=(_SECONDS_BETWEEN_LOOKS_AT_SHUTDOWN,),
            name="chatkit-accept",
            daemon=True,
        )
        accepting.start()
        try:
            # Who listens on every address is asked on one.
            asked = "127.0.0.1" if host == EVERY_ADDRESS else host
            yield FakeServer(f"http://{asked}:{listener.server_address[1]}/v1", fake)
        finally:
            listener.shutdown()
            accepting.join()
            listener.end_connections()


def read_body(headers: Message, stream: BufferedIOBase) -> bytes:
    """Read a request's body.

    A body that is too long is still read to its end: if the connection closes while the client
    writes, the client may not get the response.

    Args:
        headers: The request's headers; without a length, there is no body.
        stream: The stream to read from.

    Raises:
        Refusal: Its length or its coding cannot be made out, or it is longer than 16 MiB.
        ConnectionError: The stream ended within it.
    """
    coding = headers.get("transfer-encoding")
    if coding is None:
        return _joined(_exactly(stream, _content_length(headers)))
    if coding.strip().lower() == "chunked":
        return _joined(_chunks(stream))
    raise Refusal(501, "Transfer codings other than chunked are not supported.")


def _content_length(headers: Message) -> int:
    lengths = set(headers.get_all("content-length", ["0"]))
    length = lengths.pop()
    if lengths or not _DECIMAL.fullmatch(length):
        raise Refusal(400, "The Content-Length header is not one number.")
    return int(length)


def _joined(pieces: Iterable[bytes]) -> bytes:
    body = bytearray()
    length = 0
    for piece in pieces:
        length += len(piece)
        if length <= MAX_BODY:
            body += piece
    if length > MAX_BODY:
        raise Refusal(413, f"The request body is longer than {MAX_BODY} bytes.")
    return bytes(body)


def _exactly(stream: BufferedIOBase, length: int) -> Iterator[bytes]:
    while length:
        piece = stream.read(min(length, _PIECE))
        if not piece:
            raise ConnectionError("the client left in the middle of a body")
        length -= len(piece)
        yield piece


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while length := _chunk_length(stream.readline(_MAX_LINE)):
        yield from _exactly(stream, length)
        stream.readline(_MAX_LINE)
    while stream.readline(_MAX_LINE).strip():
        pass  # trailer fields say nothing that matters here


def _chunk_length(line: bytes) -> int:
    length = line.partition(b";")[0].strip()
    if not _HEXADECIMAL.fullmatch(length):
        raise Refusal(400, "The request body is not chunked as its headers say.")
    return int(length, 16)


class _Listener(socketserver.TCPServer):
    """Accepts connections and serves each in its own thread."""

    # On Windows, the option would let a second server take a busy port.
    allow_reuse_address = os.name != "nt"
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], respond: Callable[[Request], Response]) -> None:
        self._connections: dict[Thread, socket.socket] = {}
        super().__init__(address, partial(_Connection, respond))

    def process_request(
        self,
        request: Any,  # noqa: ANN401 - the standard library knows it may be a datagram, too
        client_address: Any,  # noqa: ANN401 - of whatever family the socket is
    ) -> None:
        """Serve an accepted connection in a thread; called by the standard library."""
        thread = Thread(
            target=self._serve_connection,
            args=(request, client_address),
            name="chatkit-connection",
            daemon=True,
        )
        thread.start()
        self._connections = {
            other: connection for other, connection in self._connections.items() if other.is_alive()
        }
        self._connections[thread] = request

    def end_connections(self) -> None:
        """Close every connection, even while its client uses it."""
        for thread, connection in self._connections.items():
            with suppress(OSError):  # its client was faster
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _serve_connection(self, connection: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(connection, client_address)
        finally:
            self.shutdown_request(connection)


class _Connection(BaseHTTPRequestHandler):
    """One connection, for any number of requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(
        self,
        respond: Callable[[Request], Response],
        connection: socket.socket,
        client_address: object,
        server: socketserver.BaseServer,
    ) -> None:
        self._respond = respond
        super().__init__(connection, client_address, server)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client left, as clients may
            super().handle()

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002 - the standard library hands it over
    ) -> None:
        """Reject what is not HTTP; called by the standard library."""
        self._refuse(Refusal(code, message or responses.get(code, "")))

    def log_message(
        self,
        format: str,  # noqa: A002 - the standard library's name
        *args: object,
    ) -> None:
        """Log nothing: `FakeChatKit.requests` has the requests."""

    def _handle_request(self) -> None:
        try:
            body = read_body(self.headers, self.rfile)
        except Refusal as refusal:
            self._refuse(refusal)
        else:
            headers = Headers(self.headers.items())
            self._send(self._respond(Request(self.command, self.path, headers, body)))

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The standard library looks for a method of the verb's name: every verb has a response.
        if name.startswith("do_"):
            return self._handle_request
        raise AttributeError(name)

    def _refuse(self, refusal: Refusal) -> None:
        # Where the next request begins is no longer known.
        self.close_connection = True
        body = encode_json(refusal.envelope())
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        self._send(Response(refusal.status_code, Headers(headers.items()), body))

    def _send(self, response: Response) -> None:
        if response.fault is not None:
            self.close_connection = True
        if response.fault == "reset":
            self._reset()
            return
        if response.fault == "hang":
            self.rfile.read()  # returns when the client goes
            return
        length = length_claimed(response.body, response.fault)
        fields = {**response.headers, "content-length": str(length)}
        if self.close_connection:
            fields["connection"] = "close"
        status = f"HTTP/1.1 {response.status_code} {responses.get(response.status_code, '')}"
        lines = [status, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        pieces = pieces_sent(response.body, response.fault)
        # A single write: split in two, the second may wait for the client's delayed ACK.
        self.wfile.write(head + next(pieces, b""))
        for piece in pieces:
            if response.fault == "drip" and self._client_went_within(_SECONDS_BETWEEN_DRIPS):
                return
            self.wfile.write(piece)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # Not shut down in order, which the client would take for an end: closed at once.
        os.close(self.connection.detach())

    def _client_went_within(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        return bool(readable)
