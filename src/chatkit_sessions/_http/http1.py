"""One HTTP/1.1 exchange as plain bytes: encode a request, parse its response. No socket here.

A response is parsed directly where its head has arrived whole and is plain: HTTP/1.1, a final
status, one length or plain chunks, nothing unusual in any header. Anything else is left to h11,
which parses the same bytes from their beginning; so every response means here what it means there.
"""

import re
from typing import Final, NamedTuple, Protocol

import httpcore

from chatkit_sessions._redaction import MaskedBytes

from .h11_parser import STATUS_WITHOUT_BODY, H11Parser, Headers, ResponseHead

_MAX_PLAIN_CHUNKS: Final = 64 * 1024
_MAX_CHUNK_HEADER: Final = 10

# RFC 9110, sections 5.1 and 5.5, and RFC 9112, sections 3 and 4: strictly a part of what h11 takes.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_VISIBLE: Final = rb"[^\x00-\x20\x7f]++"
_TRIMMED_VALUE: Final = rb"(?:" + _VISIBLE + rb"(?:[ \t]++" + _VISIBLE + rb")*+)?"
_FIELD_NAMES: Final = re.compile(_TOKEN)
_REQUEST_HEAD: Final = re.compile(
    rb"[A-Z]++ [\x21-\x7e]++ HTTP/1\.1\r\n"
    rb"(?:" + _TOKEN + rb": " + _TRIMMED_VALUE + rb"\r\n)*+\r\n"
)
_RESPONSE_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) (" + _VALUE + rb")\r\n"
    rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+)\r\n"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_SIZES_OF_FRAMING: Final = frozenset(map(len, _FRAMING))
_METHODS_WITHOUT_BODY: Final = frozenset({b"HEAD", b"CONNECT"})


def encode_request(request: httpcore.Request, body: bytes) -> MaskedBytes:
    """Encode a request as it is sent.

    Raises:
        httpcore.LocalProtocolError: The request holds what no head can carry.
    """
    fields = MaskedBytes(b"".join([b"%b: %b\r\n" % field for field in request.headers]))
    head = MaskedBytes(b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, request.url.target, fields))
    # A name or a value that holds a colon or ends a line would look like two of them.
    names = b"".join([name for name, _ in request.headers])
    as_given = _FIELD_NAMES.fullmatch(names) and head.count(b"\n") == len(request.headers) + 2
    if not as_given or _REQUEST_HEAD.fullmatch(head) is None:
        raise httpcore.LocalProtocolError("The request holds what no HTTP head can carry.")
    return MaskedBytes(head + body)


class ResponseParser:
    """Parses the response to one request, as its bytes arrive.

    Args:
        request: The request that was sent.
        body: The body that was sent with it.
    """

    __slots__ = ("_body", "_parser", "_request", "head")

    head: ResponseHead | None
    """The response's head; None until it has arrived whole."""

    def __init__(self, request: httpcore.Request, body: bytes) -> None:
        self._request = request
        self._body = body
        self._parser: _Parser | None = None
        self.head = None

    @property
    def begun(self) -> bool:
        """Whether a byte of the response has arrived."""
        return self._parser is not None

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request: nothing is left over on it."""
        return self._parser is not None and self._parser.reusable

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrive; none means that the server has closed the connection.

        Raises:
            httpcore.RemoteProtocolError: They are not, or do not end, a response.
        """
        if self._parser is None:
            if not data:
                raise httpcore.RemoteProtocolError(
                    "Server disconnected without sending a response."
                )
            plain = self._request.method not in _METHODS_WITHOUT_BODY
            self._parser = (_plain_parser(data) if plain else None) or self._h11_parser(data)
        elif not self._parser.feed(data):
            parser = self._h11_parser(self._parser.received)
            if not data:
                parser.feed(data)
            self._parser = parser
        self.head = self._parser.head

    def take_whole(self) -> bytes | None:
        """The body, if it has arrived whole and nothing was taken of it; None where it has not."""
        return None if self._parser is None else self._parser.take_whole()

    def next_part(self) -> bytes | None:
        """The next part of the body, empty at its end; None until more has arrived.

        Raises:
            httpcore.RemoteProtocolError: The body is malformed.
        """
        return None if self._parser is None else self._parser.next_part()

    def _h11_parser(self, data: bytes) -> H11Parser:
        return H11Parser(self._request, self._body, data)


class _Parser(Protocol):
    """How a response of one kind is parsed."""

    @property
    def head(self) -> ResponseHead | None: ...
    @property
    def received(self) -> bytes:
        """Everything that has arrived, where `feed` can return False."""
        ...

    @property
    def reusable(self) -> bool: ...
    def feed(self, data: bytes) -> bool:
        """Take bytes; False: the response is of another kind, and nothing of it was returned."""
        ...

    def take_whole(self) -> bytes | None: ...
    def next_part(self) -> bytes | None: ...


def _plain_parser(data: bytes) -> "_Parser | None":
    """The parser for a plain response; None where the response is not known to be plain."""
    end = data.find(b"\r\n\r\n") + 4
    match = _RESPONSE_HEAD.fullmatch(data, 0, end)
    status_code = 0 if match is None else int(match[1])
    if match is None or status_code in STATUS_WITHOUT_BODY:
        return None
    headers: Headers = []
    for line in match[3].splitlines():
        name, _, value = line.partition(b":")
        headers.append((name, value.strip(b" \t")))
    framing = _plain_framing(headers)
    if framing is None:
        return None
    head = ResponseHead(b"1.1", status_code, match[2], headers)
    if framing.length is not None:
        return _LengthParser(head, data[end:], framing.length, keep_alive=framing.keep_alive)
    parser = _ChunkedParser(head, data, end, keep_alive=framing.keep_alive)
    return parser if parser.parse() else None


class _Framing(NamedTuple):
    """Where a response ends."""

    length: int | None
    """None: it comes in chunks."""
    keep_alive: bool


def _plain_framing(headers: Headers) -> _Framing | None:
    """What the headers say of the response's end; None where they are not plain."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if len(name) in _SIZES_OF_FRAMING:  # most names need no closer look
            kind = name.lower()
            if kind in values:
                return None
            if kind in _FRAMING:
                values[kind] = value
    length, coding = values.get(b"content-length"), values.get(b"transfer-encoding")
    option = values.get(b"connection", b"keep-alive").lower()
    if length is None:
        plain = coding == b"chunked"
    else:
        plain = coding is None and _LENGTH.fullmatch(length) is not None
    if not plain or option not in {b"keep-alive", b"close"}:
        return None
    return _Framing(None if length is None else int(length), option == b"keep-alive")


class _LengthParser:
    """Parses a body of known length."""

    __slots__ = ("_data", "_excess", "_keep_alive", "_left", "_length", "head")

    received = b""

    def __init__(self, head: ResponseHead, data: bytes, length: int, *, keep_alive: bool) -> None:
        self.head = head
        self._data = data
        self._left = self._length = length
        self._excess = len(data) > length
        self._keep_alive = keep_alive

    @property
    def reusable(self) -> bool:
        return self._left == 0 and self._keep_alive and not self._excess

    def feed(self, data: bytes) -> bool:
        if not data:
            raise httpcore.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {self._length - self._left} bytes, expected {self._length})"
            )
        self._data = data
        self._excess = len(data) > self._left
        return True

    def take_whole(self) -> bytes | None:
        if self._left != self._length or len(self._data) < self._length:
            return None
        return self.next_part()

    def next_part(self) -> bytes | None:
        if self._left == 0:
            return b""
        part = self._data[: self._left]
        self._data = b""
        self._left -= len(part)
        return part or None


class _ChunkedParser:
    """Parses a body of plain chunks, without extensions and trailers, once it is complete."""

    __slots__ = ("_buffer", "_keep_alive", "_parts", "_position", "_whole", "head")

    def __init__(self, head: ResponseHead, data: bytes, begin: int, *, keep_alive: bool) -> None:
        self.head = head
        self._buffer = bytearray(data)
        self._position = begin
        self._parts: list[bytes] = []
        self._whole: bytes | None = None
        self._keep_alive = keep_alive

    @property
    def received(self) -> bytes:
        return bytes(self._buffer)

    @property
    def reusable(self) -> bool:
        complete = self._whole == b"" and self._position == len(self._buffer)
        return complete and self._keep_alive

    def feed(self, data: bytes) -> bool:
        self._buffer += data
        return bool(data) and self.parse()

    def parse(self) -> bool:
        """Go on from where the last whole chunk ended; False: this is no plain chunk."""
        while True:
            begin = self._position
            line_end = self._buffer.find(b"\r\n", begin, begin + _MAX_CHUNK_HEADER)
            if line_end < 0:
                return self._may_continue(_MAX_CHUNK_HEADER)
            if not _CHUNK_SIZE.fullmatch(self._buffer, begin, line_end):
                return False
            size = int(self._buffer[begin:line_end], 16)
            end = line_end + 2 + size
            if len(self._buffer) < end + 2:
                return self._may_continue(end + 2 - begin)
            if not self._buffer.startswith(b"\r\n", end):
                return False  # trailers, or no chunk
            self._position = end + 2
            if size == 0:
                self._whole = b"".join(self._parts)
                return True
            self._parts.append(bytes(self._buffer[line_end + 2 : end]))

    def _may_continue(self, needed: int) -> bool:
        missing = self._position + needed - len(self._buffer)
        return missing > 0 and len(self._buffer) + missing <= _MAX_PLAIN_CHUNKS

    def take_whole(self) -> bytes | None:
        return self.next_part() if self._whole else None

    def next_part(self) -> bytes | None:
        whole, self._whole = self._whole, b"" if self._whole is not None else None
        return whole
