"""The local API over HTTP/1.1."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import struct
from contextlib import contextmanager, suppress
from functools import partial
from http.client import responses
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import h11

from chatkit_sessions.service._error_responses import ErrorResponse

from .fake_api import FakeServer
from .faults import length_claimed, pieces_sent
from .wire import FakeResponse, Headers, ServiceRequest, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .fake_api import FakeChatKit

MAX_LOCAL_BODY: Final = 16 * 1024 * 1024
EVERY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 -- only compared with what the user passes
_READ_SIZE: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024
_SECONDS_BETWEEN_LOOKS_AT_SHUTDOWN: Final = 0.02
_SECONDS_BETWEEN_DRIPS: Final = 0.1


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


class _Listener(socketserver.TCPServer):
    """Accepts connections and serves each in its own thread."""

    # On Windows, the option would let a second server take a busy port.
    allow_reuse_address = os.name != "nt"
    request_queue_size = socket.SOMAXCONN

    def __init__(
        self, address: tuple[str, int], respond: Callable[[ServiceRequest], FakeResponse]
    ) -> None:
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


class _Connection(socketserver.StreamRequestHandler):
    """One connection, for any number of requests. h11 reads them."""

    disable_nagle_algorithm = True
    connection: socket.socket

    def __init__(self, respond: Callable[[ServiceRequest], FakeResponse], *connection: Any) -> None:  # noqa: ANN401 -- the standard library's
        self._respond = respond
        self._received = b""  # of the next request
        super().__init__(*connection)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client left, as clients may
            while self._handle_request():
                pass

    def _handle_request(self) -> bool:
        """Read a request and respond to it; return whether another one may follow."""
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        if self._received:
            reader.receive_data(self._received)
        try:
            request = self._read(reader)
        except h11.RemoteProtocolError as error:
            request = ErrorResponse(error.error_status_hint, str(error))
        if request is None:
            return False
        if isinstance(request, ErrorResponse):  # where the next request begins is not known
            body = encode_json(request.envelope())
            fields = {"content-type": "application/json", "content-length": str(len(body))}
            response = FakeResponse(request.status_code, Headers(fields.items()), body)
            stays_open = False
        else:
            response = self._respond(request)
            stays_open = response.fault is None and reader.their_state is h11.DONE
        self._received = reader.trailing_data[0]
        self._send(response, stays_open=stays_open)
        return stays_open

    def _read(self, reader: h11.Connection) -> ServiceRequest | ErrorResponse | None:
        """Return the next request; None if the client sends no more.

        A body that is too long is still read to its end: if the connection closes while the client
        writes, the client may not get the response.
        """
        head = self._next_event(reader)
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        length = 0
        while isinstance(event := self._next_event(reader), h11.Data):
            length += len(event.data)
            if length <= MAX_LOCAL_BODY:
                body += event.data
        if length > MAX_LOCAL_BODY:
            return ErrorResponse(413, f"The request body is longer than {MAX_LOCAL_BODY} bytes.")
        headers = Headers((name.decode(), value.decode("latin-1")) for name, value in head.headers)
        return ServiceRequest(
            head.method.decode(), head.target.decode("latin-1"), headers, bytes(body)
        )

    def _next_event(self, reader: h11.Connection) -> object:
        while (event := reader.next_event()) is h11.NEED_DATA:
            if reader.they_are_waiting_for_100_continue:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            reader.receive_data(self.connection.recv(_READ_SIZE))
        return event

    def _send(self, response: FakeResponse, *, stays_open: bool) -> None:
        if response.fault == "reset":
            self._reset()
            return
        if response.fault == "hang":
            self.rfile.read()  # returns when the client leaves
            return
        length = length_claimed(response.body, response.fault)
        fields = {**response.headers, "content-length": str(length)}
        if not stays_open:
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
