"""A server on loopback that sends whatever bytes a test wants, whenever it wants."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support import session_json


@dataclass
class RawServer:
    """What a test sees: where it listens, and what reached it."""

    url: str
    requests: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    reads: int = 0
    """How often a part of a request came."""


class Connection:
    """One accepted connection, as a script uses it."""

    def __init__(self, sock: socket.socket, server: RawServer, stop: threading.Event) -> None:
        self._sock = sock
        self._server = server
        self.stop = stop
        self.last_request = b""

    def receive(self) -> bool:
        """Read one whole request; False where the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self._sock.recv(65536)
            if not chunk:
                return False
            self._server.reads += 1
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
                while len(body) < length:
                    chunk = self._sock.recv(65536)
                    if not chunk:
                        return False
                    self._server.reads += 1
                    body += chunk
        self.last_request = head + b"\r\n\r\n" + body
        self._server.requests.append(self.last_request)
        return True

    def receive_head(self) -> None:
        """Read what has come with the head, and no more."""
        data = b""
        while b"\r\n\r\n" not in data and (chunk := self._sock.recv(4096)):
            data += chunk

    def receive_bytes(self, count: int) -> int:
        """Read that many bytes, or as many as come; return how many came."""
        received = 0
        while received < count and (chunk := self._sock.recv(65536)):
            received += len(chunk)
        return received

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close(self) -> None:
        """Close, as a server does that ends its idle connections."""
        self._sock.close()

    def answer(
        self, body: bytes | None = None, *, status: str = "200 OK", headers: str = ""
    ) -> None:
        content = json.dumps(session_json()).encode() if body is None else body
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{headers}\r\n"
        self.send(head.encode() + content)

    def reset(self) -> None:
        """Close so that the client's next read fails."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._sock.close()

    def wait_for_the_client_to_go(self) -> None:
        with contextlib.suppress(OSError):
            while self._sock.recv(65536):
                pass


def serve_sessions(connection: Connection) -> None:
    """Answer every request with a session until the client goes."""
    while connection.receive():
        connection.answer()


Script = Callable[[Connection], None]


@contextmanager
def raw_server(
    *scripts: Script,
    tls: ssl.SSLContext | None = None,
    tunnels: bool = False,
    host: str = "127.0.0.1",
) -> Generator[RawServer]:
    """Serve the n-th connection with the n-th script, further ones with the last.

    Args:
        scripts: What happens on each connection.
        tls: What it shows; None: plain http.
        tunnels: Whether it is a proxy that grants each CONNECT, and then the server behind it.
        host: The address on which it listens.
    """
    stop = threading.Event()
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        scheme, port = ("https" if tls else "http"), listener.getsockname()[1]
        server = RawServer(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1")

        def handle(sock: socket.socket, script: Script) -> None:
            # The client goes whenever it likes: that is what these tests are about.
            with contextlib.suppress(OSError), sock:
                if tunnels:
                    sock.recv(65536)
                    sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                wrapped = tls.wrap_socket(sock, server_side=True) if tls else sock
                sockets.append(wrapped)  # wrapping takes the connection out of `sock`
                with wrapped:
                    script(Connection(wrapped, server, stop))

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                if stop.is_set():
                    sock.close()
                    return
                script = scripts[min(server.connections, len(scripts) - 1)]
                # Else a response waits behind TLS's tickets, and a reset drops it.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.connections += 1
                sockets.append(sock)
                thread = threading.Thread(target=handle, args=(sock, script), daemon=True)
                threads.append(thread)
                thread.start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                socket.create_connection((host, port)).close()
            acceptor.join()
            for sock in sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
