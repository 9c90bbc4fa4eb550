"""One HTTP/1.1 exchange as plain bytes: encode a request, parse its response and read its body.

No socket here. The dialect is strict: what is unusual is an error, never a guess. A test compares
it with h11.
"""

import re
import zlib
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import SecretBytes

from chatkit_sessions._api.protocol import Request, Response, max_body
from chatkit_sessions._redaction import MaskedBytes, plain_headers

MAX_HEAD: Final = 100 * 1024
"""Bytes of a response's head, of its trailers, or of a line between its chunks."""

# RFC 9110, sections 5.1 and 5.5, and RFC 9112, sections 3, 4 and 7.1.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_VISIBLE: Final = rb"[^\x00-\x20\x7f]++"
_REQUEST_HEAD: Final = re.compile(
    rb"[A-Z]++ [\x21-\x7e]++ HTTP/1\.1\r\n"
    rb"(?:" + _TOKEN + rb": (?:" + _VISIBLE + rb"(?:[ \t]++" + _VISIBLE + rb")*+)?\r\n)*+\r\n"
)
_FIELD_NAMES: Final = re.compile(_TOKEN)
_RESPONSE_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _VALUE + rb")?\r?\n"
    rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r?\n)*+)\r?\n"
)
_TRAILERS: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r?\n)*+\r?\n")
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _VALUE + rb")?[ \t]*+")
_LENGTH: Final = re.compile(r"([0-9]{1,15})(?:, *\1)*+")
_BEGINNING: Final = b"HTTP/1."
# httpx encodes no others (WHATWG's URL standard). A query is encoded already.
_PLAIN_IN_PATHS: Final = "!$%&'()*+,/:;=@[\\]^|~"
_CHUNKED: Final = -1
_CHUNK_END: Final = re.compile(rb"\r\n")
_TRAILERS_END: Final = re.compile(rb"\A\r?\n|\n\r?\n")
_NO_BODY: Final = frozenset({204, 304})
_NEVER_REUSED_AFTER: Final = frozenset({204, 205, 304})
"""A body may follow all the same."""
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_BROKEN: Final = "its compression is broken"


class TransportError(OSError):
    """Why no complete response came. The subclasses have httpx's names, which messages show."""


class ConnectError(TransportError):
    """No connection."""


class ConnectTimeout(TransportError, TimeoutError):  # noqa: N818 -- httpx's name
    """No connection in time."""


class ReadError(TransportError):
    """The connection broke."""


class ReadTimeout(TransportError, TimeoutError):  # noqa: N818 -- httpx's name
    """No response in time."""


class WriteTimeout(TransportError, TimeoutError):  # noqa: N818 -- httpx's name
    """The server did not read the request in time."""


class LocalProtocolError(TransportError):
    """The request is not valid HTTP."""


class RemoteProtocolError(TransportError):
    """The response is not valid HTTP, or incomplete."""


class Target(NamedTuple):
    """Where a request goes."""

    host: str
    port: int
    is_tls: bool
    host_header: bytes
    path: bytes
    """With the query."""


@lru_cache(maxsize=16)  # most calls go to one URL; those of single sessions come and go
def target_of(url: str) -> Target:
    """Read a URL that the settings have validated."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    usual = 443 if is_tls else 80
    host, port = parts.hostname or "", usual if parts.port is None else parts.port
    shown = f"[{host}]" if ":" in host else host
    shown = shown if port == usual else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_PLAIN_IN_PATHS)
    path = f"{path}?{parts.query}" if parts.query else path
    return Target(host, port, is_tls, shown.encode(), path.encode())


def encode_request(request: Request, target: Target) -> MaskedBytes:
    """Encode a request as it is sent.

    Raises:
        LocalProtocolError: It holds what no head can carry.
    """
    body = b"" if request.body is None else request.body.get_secret_value()
    fields = [(b"Host", target.host_header)]
    for name, value in plain_headers(request.headers).items():
        fields.append((name.encode(), value.encode()))
    if request.method == "POST":
        fields.append((b"Content-Length", b"%d" % len(body)))
    return encode(request.method.encode(), target.path, fields, body)


def encode(
    method: bytes, path: bytes, fields: Sequence[tuple[bytes, bytes]], body: bytes
) -> MaskedBytes:
    """Encode a request of exactly these header fields.

    Raises:
        LocalProtocolError: It holds what no head can carry.
    """
    lines = MaskedBytes(b"".join([b"%b: %b\r\n" % field for field in fields]))
    head = MaskedBytes(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, lines))
    # A name or a value that holds a colon or ends a line would look like two of them.
    names = b"".join([name for name, _ in fields])
    as_given = _FIELD_NAMES.fullmatch(names) and head.count(b"\n") == len(fields) + 2
    if not as_given or _REQUEST_HEAD.fullmatch(head) is None:
        raise LocalProtocolError("The request holds what no HTTP head can carry.")
    return MaskedBytes(head + body)


class Body:
    """A response's body while it is read: bounded, also if it is compressed.

    `Accept-Encoding: identity` is sent, and what comes compressed all the same is inflated step by
    step: 64 KiB can hold 64 MiB, so that a bound on what arrives would bound nothing.

    Args:
        status_code: The response's status, which decides how much of the body is worth reading.
        headers: The response's headers, with names in lower case, or a mapping that ignores case.
        decoded: Whether chunks come without their content coding, as from a body that was read
            before.
        sent: Bytes of the request's body, which the response may repeat.
    """

    def __init__(
        self, status_code: int, headers: Mapping[str, str], *, decoded: bool, sent: int = 0
    ) -> None:
        self._status_code = status_code
        self._headers = headers
        self._limit = max_body(status_code, sent=sent)
        self._content = bytearray()
        self._error: str | None = None
        self._inflate: _Inflate | None = None
        coding = None if decoded else headers.get("content-encoding")
        if coding:
            self._decode(coding.strip().lower())

    def _decode(self, coding: str) -> None:
        if coding in {"gzip", "x-gzip", "deflate"}:
            self._inflate = _Inflate()
        elif coding not in {"", "identity"}:
            self._error = "it comes in a compression that was not asked for"

    def add(self, chunk: bytes) -> bool:
        """Take a chunk; return whether more is needed."""
        # One byte more than the limit tells that there is more than the limit.
        room = self._limit + 1 - len(self._content)
        if self._error is None and self._inflate is not None:
            try:
                chunk = self._inflate.decode(chunk, room)
            except zlib.error:
                self._error = _BROKEN
        if self._error is None:
            self._content += chunk[:room]
        if len(self._content) > self._limit:
            self._error = f"it is longer than {self._limit:,} bytes"
        return self._error is None

    def response(self) -> Response:
        """The response, as far as it has been read."""
        error = self._error
        if error is None and self._inflate is not None and self._inflate.unfinished:
            error = _BROKEN
        content = SecretBytes(bytes(self._content[: self._limit]))
        return Response(self._status_code, self._headers, content, error)


class _Inflate:
    """gzip, of one member or several, and deflate, which is zlib's format (RFC 9110, 8.4.1)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    @property
    def unfinished(self) -> bool:
        return self._begun and not self._member.eof

    def decode(self, chunk: bytes, most: int) -> bytes:
        content = bytearray()
        while chunk and len(content) < most:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            self._begun = True
            content += self._member.decompress(chunk, most - len(content))
            chunk = self._member.unused_data or self._member.unconsumed_tail
        return bytes(content)


def receive_response(*, sent: int) -> Generator[None, MaskedBytes, tuple[Response, bool]]:
    """Parse a response as its bytes arrive.

    Args:
        sent: Bytes of the request's body, which the response may repeat.

    Yields:
        Where more bytes are needed, to be sent here; none if the connection is closed.

    Returns:
        The response, and whether the connection can carry another request: nothing is left over.

    Raises:
        RemoteProtocolError: The bytes are not, or do not end, a response.
    """
    head, data = yield from _read_head(MaskedBytes())
    while head.status < 200:  # noqa: PLR2004 -- those before are not final
        head, data = yield from _read_head(data)
    body = Body(head.status, head.headers, decoded=False, sent=sent)
    if head.status in _NO_BODY:
        return body.response(), False
    if head.length is None:
        while body.add(data):
            data = yield
            if not data:
                break
        return body.response(), False
    if head.length is _CHUNKED:
        is_complete = yield from _read_chunks(body, _Unread(data))
    else:
        is_complete = yield from _read_length(body, data, head.length)
    return body.response(), is_complete and head.keep_alive


class _Head(NamedTuple):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    length: int | None
    """The body's; `_CHUNKED`, or None: it ends with the connection."""
    keep_alive: bool


def _read_head(
    data: MaskedBytes,
) -> Generator[None, MaskedBytes, tuple[_Head, MaskedBytes]]:
    """Read a head; return what has arrived behind it, too."""
    searched = 0
    while (blank := _BLANK_LINE.search(data, searched)) is None:
        if not _BEGINNING.startswith(data[: len(_BEGINNING)]):
            raise RemoteProtocolError("this is no HTTP/1 response")
        if len(data) > MAX_HEAD:
            raise RemoteProtocolError("the head of the response is too long")
        searched = max(0, len(data) - 2)
        more = yield
        if not more:
            raise RemoteProtocolError("Server disconnected without sending a response.")
        data = MaskedBytes(data + more) if data else more
    match = _RESPONSE_HEAD.fullmatch(data, 0, blank.end())
    if match is None:
        raise RemoteProtocolError("the head of the response is malformed")
    return _parse_head(match), MaskedBytes(data[blank.end() :])


def _parse_head(match: re.Match[bytes]) -> _Head:
    whole, version, status = match[0], match[1], int(match[2])
    if status == 101:  # noqa: PLR2004 -- nobody asked for another protocol
        raise RemoteProtocolError("the server switches protocols")
    headers: dict[str, str] = {}
    for line in match[3].decode("latin-1").split("\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t\r")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    digits = None if length is None else _LENGTH.fullmatch(length)
    if length is not None and digits is None:
        raise RemoteProtocolError("bad Content-Length")
    if coding is not None and coding.lower() != "chunked":
        raise RemoteProtocolError("bad Transfer-Encoding")
    keep_alive = (
        version == b"1"
        and "close" not in headers.get("connection", "").lower()
        and (length is None or coding is None)
        and status not in _NEVER_REUSED_AFTER
        and whole.count(b"\n") == whole.count(b"\r\n")
    )
    if coding is not None:
        return _Head(status, headers, _CHUNKED, keep_alive)
    return _Head(status, headers, None if digits is None else int(digits[1]), keep_alive)


def _read_length(body: Body, data: MaskedBytes, length: int) -> Generator[None, MaskedBytes, bool]:
    """Read a body of that length; return whether it is read, and nothing is left over."""
    left = length
    while True:
        is_wanted = body.add(data if len(data) <= left else data[:left])
        left -= len(data)
        if left <= 0 or not is_wanted:
            return left == 0 and is_wanted
        data = yield
        if not data:
            raise RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {length - left} bytes, expected {length})"
            )


def _read_chunks(body: Body, unread: "_Unread") -> Generator[None, MaskedBytes, bool]:
    """Read a body of chunks; return whether it is read, and nothing is left over."""
    while True:
        line = yield from unread.until(_CHUNK_END)
        match = _CHUNK.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise RemoteProtocolError("bad chunk")
        left = int(match[1], 16)
        if left == 0:
            break
        while left:
            part = yield from unread.at_most(left)
            left -= len(part)
            if not body.add(part):
                return False
        if (yield from unread.until(_CHUNK_END)) != b"\r\n":
            raise RemoteProtocolError("a chunk is longer than it says")
    trailers = yield from unread.until(_TRAILERS_END)
    if _TRAILERS.fullmatch(trailers) is None:
        raise RemoteProtocolError("bad trailers")
    return not unread.data and trailers.count(b"\n") == trailers.count(b"\r\n")


class _Unread:
    """Bytes that have arrived and are not parsed yet."""

    def __init__(self, data: bytes) -> None:
        self.data: Final = bytearray(data)

    def until(self, end: re.Pattern[bytes]) -> Generator[None, MaskedBytes, bytes]:
        """Take the bytes up to that end, with the end."""
        searched = 0
        while (match := end.search(self.data, searched)) is None:
            if len(self.data) > MAX_HEAD:
                raise RemoteProtocolError("a line of the response is too long")
            searched = max(0, len(self.data) - 2)
            yield from self._more()
        taken = bytes(self.data[: match.end()])
        del self.data[: len(taken)]
        return taken

    def at_most(self, count: int) -> Generator[None, MaskedBytes, bytes]:
        """Take the bytes that are there, at most that many."""
        if not self.data:
            yield from self._more()
        taken = MaskedBytes(self.data[:count])
        del self.data[:count]
        return taken

    def _more(self) -> Generator[None, MaskedBytes, None]:
        more = yield
        if not more:
            raise RemoteProtocolError(
                "peer closed connection without sending complete message body "
                "(incomplete chunked read)"
            )
        self.data.extend(more)
