"""A server on loopback that decides over every byte it sends, and keeps what it was sent."""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, NamedTuple, Self, TypeAlias

import trustme

_POLL: Final = 0.1
_LINGER_NOT: Final = struct.pack("ii", 1, 0)

REMOTE: Final = "api.benchmark.test"
"""The host of calls that go through a proxy."""


class Certificates(NamedTuple):
    """What servers show, and the authority that the clients are to trust."""

    trusted: ssl.SSLContext
    untrusted: ssl.SSLContext
    authority: Path


@cache
def certificates() -> Certificates:
    """Two authorities' certificates for this machine and for `REMOTE`, made for this run."""
    trusted, untrusted = trustme.CA(), trustme.CA()
    path = Path(mkdtemp()) / "authority.pem"
    trusted.cert_pem.write_to_path(str(path))
    return Certificates(_context(trusted), _context(untrusted), path)


def _context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("127.0.0.1", REMOTE)
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    return context


class Wire:
    """A connection, seen from the server."""

    def __init__(self, connection: socket.socket, server: "Server", number: int) -> None:
        self.elsewhere = server.elsewhere
        """The URL of a server that the client was never told of."""
        self.number = number
        """How many connections came before."""
        self.served = 0
        """How many requests of this connection have been served."""
        self._socket = connection
        self._server = server

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands."""
        self._socket = context.wrap_socket(self._socket, server_side=True)

    def receive(self, count: int) -> None:
        """Wait for that many bytes."""
        while count > 0 and (piece := self._socket.recv(count)):
            count -= len(piece)

    def wait_for_connections(self, count: int) -> None:
        """Wait until the server has that many."""
        while self._server.connections < count and not self._server.ending:
            time.sleep(_POLL / 10)

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
"""What a server does with a request; the number is that of the requests before."""


class Server:
    """Listens from entry to exit and treats each request with its behaviour.

    Args:
        behaviour: What to do with a request; None: the port is taken, but nobody listens.
        elsewhere: The URL that redirects lead to.
        at_once: Whether the behaviour begins with the connection, before any request.
        tunnels: Whether it is an HTTP proxy that grants each CONNECT, and then the API behind it.
        tls: The certificate that it shows; None: plain http.

    Attributes:
        requests: Every request, as it came.
        connections: How many there were.
        elsewhere: As above.
    """

    def __init__(
        self,
        behaviour: Behaviour | None,
        elsewhere: str = "",
        *,
        at_once: bool = False,
        tunnels: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.elsewhere = elsewhere
        self._behaviour = behaviour
        self._at_once = at_once
        self._tunnels = tunnels
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._wires: list[Wire] = []
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()

    @property
    def address(self) -> str:
        """Its host and port."""
        return "{}:{}".format(*self._listener.getsockname())

    @property
    def port(self) -> int:
        """Its port."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Its root."""
        return f"{'https' if self._tls else 'http'}://{self.address}/v1"

    @property
    def ending(self) -> bool:
        """Whether it is about to stop."""
        return self._ending.is_set()

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
                wire = Wire(self._listener.accept()[0], self, self.connections)
                self.connections += 1
                self._wires.append(wire)
                self._start(self._serve, wire, behaviour)

    def _serve(self, wire: Wire, behaviour: Behaviour) -> None:
        with suppress(OSError):  # either side has closed the connection
            if self._tunnels:
                wire.read_request()
                wire.send(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            if self._tls:
                wire.start_tls(self._tls)
            if self._at_once:
                behaviour(wire, wire.number)
            while not self._at_once and (request := wire.read_request()):
                self.requests.append(request)
                behaviour(wire, len(self.requests) - 1)
                wire.served += 1
        wire.close()


@contextmanager
def silent_address(address: str, port: int) -> Generator[None]:
    """An address where a connection is neither accepted nor refused."""
    with ExitStack() as open_sockets:
        hole = open_sockets.enter_context(socket.socket())
        hole.bind((address, port))
        hole.listen(0)
        for _ in range(2):  # the queue is full then: whoever comes next hears nothing
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield
