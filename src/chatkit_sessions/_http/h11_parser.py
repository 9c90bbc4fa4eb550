"""Lets h11 parse a response, of whatever kind HTTP/1 allows."""

from typing import Final, NamedTuple, TypeAlias

import h11
import httpcore

MAX_HEAD: Final = 100 * 1024
"""Bytes of a response's head, or of anything else that h11 waits for."""

STATUS_WITHOUT_BODY: Final = frozenset({204, 205, 304})

Headers: TypeAlias = list[tuple[bytes, bytes]]


class ResponseHead(NamedTuple):
    """The beginning of a response."""

    http_version: bytes
    status_code: int
    reason: bytes
    headers: Headers


class H11Parser:
    """Parses one response.

    Args:
        request: The request that was sent.
        body: The body that was sent with it.
        data: What has arrived so far.
    """

    __slots__ = ("_complete", "_h11", "_head")

    received = b""
    """Nothing: every response is h11's."""

    def __init__(self, request: httpcore.Request, body: bytes, data: bytes) -> None:
        self._h11 = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        target, headers = request.url.target, request.headers
        self._h11.send(h11.Request(method=request.method, target=target, headers=headers))
        if body:
            self._h11.send(h11.Data(data=body))
        self._h11.send(h11.EndOfMessage())
        self._head: ResponseHead | None = None
        self._complete = False
        self.feed(data)

    @property
    def head(self) -> ResponseHead | None:
        """The response's head; None until it has arrived whole."""
        while self._head is None:
            event = self._next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                headers = event.headers.raw_items()
                self._head = ResponseHead(
                    event.http_version, event.status_code, event.reason, headers
                )
            elif not isinstance(event, h11.InformationalResponse):
                raise httpcore.RemoteProtocolError(
                    "Server disconnected without sending a response."
                )
        return self._head

    @property
    def reusable(self) -> bool:
        """Whether the response is complete, and nothing is left over behind it."""
        if self._head is None or self._head.status_code in STATUS_WITHOUT_BODY:
            return False  # a body may follow all the same
        both = {self._h11.our_state, self._h11.their_state}
        return self._complete and both == {h11.DONE} and not self._h11.trailing_data[0]

    def feed(self, data: bytes) -> bool:
        """Take bytes as they arrive; none means that the connection is closed."""
        try:
            self._h11.receive_data(data)
        except RuntimeError as error:  # after the end of the connection
            raise httpcore.RemoteProtocolError(str(error)) from error
        return True

    def take_whole(self) -> bytes | None:
        """Nothing: the body is read in parts."""
        return None

    def next_part(self) -> bytes | None:
        """The next part of the body, empty at its end; None until more has arrived."""
        if self._complete:
            return b""
        if self.head is None:
            return None
        event = self._next_event()
        if event is h11.NEED_DATA:
            return None
        if isinstance(event, h11.Data):
            return bytes(event.data) or self.next_part()
        self._complete = True
        return b""

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpcore.RemoteProtocolError(str(error)) from error
