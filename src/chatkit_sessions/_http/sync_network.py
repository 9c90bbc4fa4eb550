"""Sockets for threads: every wait ends with the call's deadline."""

import socket

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._redaction import MaskedBytes

from .connections import PIECE, Stream, is_readable, is_refusal


async def connect(host: str, port: int, deadline: Deadline) -> Stream:
    """Try a host's addresses in turn, each with its share of the time that is left."""
    # As bytes: for a text Python imports a codec, and a child of `fork()` would wait forever for a
    # module that another thread was just importing.
    found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((family, address) for family, *_, address in found))
    while True:
        family, address = addresses.pop(0)
        left = _left(deadline)
        connected = None
        try:
            connected = socket.socket(family, socket.SOCK_STREAM)
            connected.settimeout(None if left is None else left / (len(addresses) + 1))
            connected.connect(address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return BlockingStream(connected)
        except BaseException as error:
            if connected is not None:
                connected.close()
            if not (addresses and is_refusal(error)):
                raise


class BlockingStream(Stream):
    """A socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def receive(self, deadline: Deadline) -> MaskedBytes:
        """Wait for bytes until the deadline."""
        self._socket.settimeout(_left(deadline))
        return MaskedBytes(self._socket.recv(PIECE))

    async def send(self, data: bytes, deadline: Deadline) -> bool:
        """Send bytes in pieces: a server that reads ever so slowly meets the deadline, too."""
        for start in range(0, len(data), PIECE):
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data[start : start + PIECE])
        return True

    def has_unread(self) -> bool:
        """Whether there are unread bytes, or the end of the connection."""
        return is_readable(self._socket.fileno())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _left(deadline: Deadline) -> float | None:
    left = deadline.remaining()
    if left == 0:
        raise TimeoutError("the call's deadline has passed")
    return left
