"""A proxy before a real Redis, which delays or swallows what the server answers."""

import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

from redis_server import RedisServer, execute


class TroubledRedis:
    """Passes on what is sent either way, with one trouble or another.

    Args:
        port: The server's, at first.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        """Where new connections lead."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]
        self.delay = 0.0
        """Seconds that each answer takes longer."""
        self.is_silent = False
        """Whether answers are swallowed."""
        self.port: int = self._listener.getsockname()[1]

    def refuse(self) -> None:
        """Close every connection and take no other."""
        self._over.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
                self._sockets += [client, server]
                if self._over.is_set():  # `refuse` may have closed the others already
                    client.close()
                    server.close()
                    return
                for source, target, answers in ((client, server, False), (server, client, True)):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target), kwargs={"answers": answers}
                    )
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers:
                    self._over.wait(self.delay)
                    if self.is_silent:
                        continue
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def announce(cluster: RedisServer, proxy: TroubledRedis) -> None:
    """Let a cluster of one node lead its clients to the proxy."""
    with cluster.client() as client:
        execute(client, "CONFIG", "SET", "cluster-announce-port", proxy.port)


@contextmanager
def troubled(port: int) -> Generator[TroubledRedis, None, None]:
    """A proxy before the server of that port."""
    proxy = TroubledRedis(port)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.refuse()
        thread.join()
