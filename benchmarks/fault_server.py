"""A server on loopback that decides over every byte it sends, and keeps what it was sent."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self, TypeAlias

_POLL: Final = 0.1
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Wire:
    """A connection, seen from the server."""

    def __init__(self, connection: socket.socket, elsewhere: str) -> None:
        self.elsewhere = elsewhere
        """The URL of a server that the client was never told of."""
        self._socket = connection

    def read_request(self) -> bytes:
        """Wait for a whole request; empty where the client went."""
        request = b""
        while (end := request.find(b"\r\n\r\n")) < 0:
            if not (piece := self._socket.recv(65536)):
                return b""
            request += piece
        length = re.search(rb"\r\ncontent-length: *(\d+)", request, re.IGNORECASE)
        missing = end + 4 + int(length[1] if length else 0) - len(request)
        while missing > 0:
            if not (piece := self._socket.recv(65536)):
                return b""
            request += piece
            missing -= len(piece)
        return request

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def hang(self) -> None:
        """Say nothing until the client goes."""
        while self._socket.recv(65536):
            pass

    def close(self) -> None:
        """End the connection properly (FIN)."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def reset(self) -> None:
        """Break the connection (RST), a moment later, so that what was sent arrives."""
        time.sleep(0.2)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._socket.close()


Behaviour: TypeAlias = Callable[[Wire, int], None]
"""What a server does with a request; the number tells how many requests came before."""


class Server:
    """Listens from entry to exit and treats each request with its behaviour.

    Args:
        behaviour: What to do with a request; None: the port is taken, but nobody listens.
        elsewhere: The URL that redirects lead to.

    Attributes:
        requests: Every request, as it came.
    """

    def __init__(self, behaviour: Behaviour | None, elsewhere: str = "") -> None:
        self.requests: list[bytes] = []
        self._behaviour = behaviour
        self._elsewhere = elsewhere
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._wires: list[Wire] = []
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()

    @property
    def url(self) -> str:
        """Its root."""
        return "http://{}:{}/v1".format(*self._listener.getsockname())

    def __enter__(self) -> Self:
        if self._behaviour is None:
            self._refuse()
        else:
            self._listener.settimeout(_POLL)
            self._start(self._accept, self._behaviour)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for wire in self._wires:
            wire.close()
        for thread in self._threads:
            thread.join()
        for wire in self._wires:  # accepted at the last moment
            wire.close()
        self._listener.close()

    def _refuse(self) -> None:
        """Take a port, so that nobody else gets it, without listening."""
        self._listener.close()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, behaviour: Behaviour) -> None:
        while not self._ending.is_set():
            with suppress(TimeoutError):
                wire = Wire(self._listener.accept()[0], self._elsewhere)
                self._wires.append(wire)
                self._start(self._serve, wire, behaviour)

    def _serve(self, wire: Wire, behaviour: Behaviour) -> None:
        with suppress(OSError):  # either side has closed the connection
            while request := wire.read_request():
                self.requests.append(request)
                behaviour(wire, len(self.requests) - 1)
        wire.close()
