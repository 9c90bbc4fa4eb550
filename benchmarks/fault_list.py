"""The faults: what is served, and what should come of it."""

import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal

from fault_server import REMOTE, Behaviour, Wire

MB: Final = 1024 * 1024


class Should(Enum):
    """What a call that meets a fault should end with."""

    SESSION = "a session"
    ERROR = "a typed error"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong on the way.

    Attributes:
        name: What a reader calls it.
        should: What a call should end with.
        serve: What the server does with a request; None: nobody listens.
        besides: What should not happen on top of it.
        calls: How many calls one client makes; the last one counts.
        pause: Seconds between them.
        warm: How many calls it makes before, all at once.
        once: Whether another attempt cannot help, and should not be made.
        proxy: Calls go to `https://api.benchmark.test` through a proxy of this kind, which is the
            server: `tunnel` grants each CONNECT, `http` and `socks5` do what `serve` says.
        tls: The certificate that the server shows; empty: plain http.
        at_once: Whether `serve` begins with the connection, before any request.
        variables: Environment variables of the client.
        silent_address: Whether the host has two addresses, the first of which is silent.
        mode: Only this one of a library's two clients.
        loop: The event loop of the asynchronous client.
        http: The HTTP client below.
    """

    name: str
    should: Should
    serve: Behaviour | None
    besides: str = ""
    calls: int = 1
    pause: float = 0.0
    warm: int = 0
    once: bool = False
    proxy: Literal["", "tunnel", "http", "socks5"] = ""
    tls: Literal["", "trusted", "untrusted"] = ""
    at_once: bool = False
    variables: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    silent_address: bool = False
    mode: Literal["sync", "async"] | None = None
    loop: Literal["asyncio", "uvloop"] = "asyncio"
    http: Literal["its own", "httpx-aiohttp"] = "its own"


# Responses ----------------------------------------------------------------------------------------


def document(**changes: object) -> bytes:
    """A session as the API describes it, with changes."""
    session = {
        "id": "cksess_" + "0f" * 24,
        "object": "chatkit.session",
        "client_secret": "ek_benchmark",
        "expires_at": int(time.time()) + 600,
        "workflow": {
            "id": "wf_benchmark",
            "version": None,
            "state_variables": None,
            "tracing": {"enabled": True},
        },
        "user": "user-of-the-benchmark",  # the worker's: another user's session is rejected
        "rate_limits": {"max_requests_per_1_minute": 10},
        "max_requests_per_1_minute": 10,
        "status": "active",
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": True},
            "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
            "history": {"enabled": True, "recent_threads": None},
        },
    }
    return json.dumps(session | changes).encode()


def without(name: str) -> bytes:
    """A session that lacks a field."""
    session = json.loads(document())
    del session[name]
    return json.dumps(session).encode()


def response(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; `retry_after="1"` is the header `retry-after: 1`."""
    fields = {"content_type": "application/json", "content_length": str(len(body))} | headers
    return head(status, **fields) + body


def head(status: str, **fields: str) -> bytes:
    """The part of a response before its body."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


SESSION: Final = document()
FINE: Final = response("200 OK", SESSION)
FINE_HEAD: Final = FINE.removesuffix(SESSION)
CHUNKED_HEAD: Final = head("200 OK", content_type="application/json", transfer_encoding="chunked")
BUSY: Final = b'{"error": {"message": "Busy.", "type": "busy", "param": null, "code": null}}'
NESTED: Final = b"[" * 100_000 + b"]" * 100_000
NO_QUOTA: Final = BUSY.replace(b'"code": null', b'"code": "insufficient_quota"')
HTML: Final = b"<html><body>Please log in.</body></html>"
OF_ANOTHER: Final = response("200 OK", document(user="another-user", client_secret="ek_another"))  # noqa: S106 -- made up
NO_CONTENT: Final = head("204 No Content")


def gzip_bomb() -> bytes:
    """One megabyte of gzip: a session behind a gigabyte of blanks, which JSON permits."""
    blanks, repeats = b" " * MB, 1024
    squeeze = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    block = squeeze.compress(blanks) + squeeze.flush(zlib.Z_FULL_FLUSH)
    last = squeeze.compress(SESSION) + squeeze.flush()
    checksum = 0
    for _ in range(repeats):
        checksum = zlib.crc32(blanks, checksum)
    checksum = zlib.crc32(SESSION, checksum)
    length = repeats * MB + len(SESSION)
    start = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF])
    end = checksum.to_bytes(4, "little") + length.to_bytes(4, "little")
    return start + block * repeats + last + end


# Behaviours ---------------------------------------------------------------------------------------


def responds(*these: bytes) -> Behaviour:
    """One response after the other; the last one for ever."""

    def serve(wire: Wire, earlier: int) -> None:
        wire.send(these[min(earlier, len(these) - 1)])

    return serve


def sends(data: bytes, then: Callable[[Wire], None]) -> Behaviour:
    """Something, and then an end that is none."""

    def serve(wire: Wire, _: int) -> None:
        wire.send(data)
        then(wire)

    return serve


def first(*pieces: bytes, pause: float = 0.0) -> Behaviour:
    """These bytes to the first request, as one segment or with a pause before each; then fine."""

    def serve(wire: Wire, earlier: int) -> None:
        for piece in (FINE,) if earlier else pieces:
            wire.send(piece)
            time.sleep(pause)

    return serve


def reset_when_idle(count: int) -> Behaviour:
    """The first connections break with their second request; all others are fine."""

    def serve(wire: Wire, _: int) -> None:
        if wire.number >= count or not wire.served:
            wire.wait_for_connections(count)
            wire.send(FINE)
        else:
            wire.reset()

    return serve


def socks(*steps: int | bytes) -> Behaviour:
    """A SOCKS proxy that receives so many bytes or sends these, in turn, and then hangs."""

    def serve(wire: Wire, _: int) -> None:
        for step in steps:
            wire.receive(step) if isinstance(step, int) else wire.send(step)
        wire.hang()

    return serve


def endless(start: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    """Something, and then piece after piece until the client goes."""

    def serve(wire: Wire, _: int) -> None:
        wire.send(start)
        while True:
            wire.send(piece)
            time.sleep(pause)

    return serve


def redirects(status: str) -> Behaviour:
    """To another port."""

    def serve(wire: Wire, _: int) -> None:
        wire.send(response(status, location=f"{wire.elsewhere}/chatkit/sessions"))

    return serve


def closes_once(wire: Wire, earlier: int) -> None:
    """The first request gets nothing, the others a session."""
    wire.send(FINE) if earlier else wire.close()


def resets_idle(wire: Wire, earlier: int) -> None:
    """The connection breaks while it is kept for the next request."""
    wire.send(FINE)
    if not earlier:
        wire.reset()


def sends_700_mb(wire: Wire, _: int) -> None:
    """A session behind 700 MB of blanks, which JSON permits."""
    blanks, repeats = b" " * MB, 700
    wire.send(head("200 OK", content_length=str(repeats * MB + len(SESSION))))
    for _ in range(repeats):
        wire.send(blanks)
    wire.send(SESSION)


def ok(body: bytes, **headers: str) -> Behaviour:
    """A success with this body."""
    return responds(response("200 OK", body, **headers))


def refusal(body: bytes, status: str = "400 Bad Request", **headers: str) -> Behaviour:
    """An error with this body."""
    return responds(response(status, body, **headers))


def busy_once(status: str, retry_after: str) -> Behaviour:
    """Try again later; the second request gets a session."""
    return responds(response(status, BUSY, retry_after=retry_after), FINE)


# The list -----------------------------------------------------------------------------------------

_HALF: Final = len(SESSION) // 2
_ELSEWHERE: Final = "neither key nor user sent to the other port"
_EARLY: Final = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
_FILLER: Final = b"x-filler: " + b"a" * 1000 + b"\r\n"

_ONCE: Final = "asked once"

MALFORMED: Final = {
    "status line without a number": responds(b"HTTP/1.1 fine\r\n\r\n"),
    "header line without a colon": responds(FINE.replace(b"\r\n", b"\r\nbad line\r\n", 1)),
    "two different content-lengths": responds(
        FINE.replace(b"\r\n", b"\r\ncontent-length: 5\r\n", 1)
    ),
    "chunk size that is no number": responds(CHUNKED_HEAD + b"zz\r\n{}\r\n"),
    "no HTTP at all": sends(b"SSH-2.0-OpenSSH_9.9\r\n", Wire.close),
}

_REFUSAL: Final = response("400 Bad Request", BUSY)
EXCESS: Final = (
    Fault(
        "two responses in one segment, then the next call",
        Should.SESSION,
        first(FINE + OF_ANOTHER),
        calls=2,
    ),
    Fault(
        "a second response late, then the next call",
        Should.SESSION,
        first(FINE, OF_ANOTHER, pause=0.2),
        calls=2,
        pause=0.5,
    ),
    Fault(
        "a response after 204, then the next call",
        Should.SESSION,
        first(NO_CONTENT + OF_ANOTHER),
        calls=2,
    ),
    Fault(
        "a response after an error, then the next call",
        Should.SESSION,
        first(_REFUSAL + OF_ANOTHER),
        calls=2,
    ),
    Fault(
        "another user's response to the next call",
        Should.ERROR,
        responds(FINE, OF_ANOTHER),
        calls=2,
    ),
)

SILENT_ADDRESS: Final = Fault(
    "first of two addresses silent", Should.SESSION, responds(FINE), silent_address=True
)

# RFC 1928: the greeting has three bytes, a request for a host name four, its length, name and port.
_GREETING: Final = 3
_REQUEST: Final = 4 + 1 + len(REMOTE) + 2
_NO_LOGIN: Final = b"\x05\x00"
SOCKS: Final = {
    "hangs at once": socks(),
    "hangs after the greeting": socks(_GREETING, _NO_LOGIN),
    "hangs within the tunnel": socks(
        _GREETING, _NO_LOGIN, _REQUEST, b"\x05\x00\x00\x01" + bytes(6)
    ),
    "wants a login that nobody has": socks(_GREETING, b"\x05\xff"),
    "refuses the host": socks(_GREETING, _NO_LOGIN, _REQUEST, b"\x05\x05\x00\x01" + bytes(6)),
    "speaks no SOCKS": socks(_GREETING, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}

FAULTS: Final = (
    # The connection
    Fault("nobody listens", Should.ERROR, None),
    Fault("reset before the response", Should.ERROR, sends(b"", Wire.reset)),
    Fault("reset within the head", Should.ERROR, sends(FINE[:20], Wire.reset)),
    Fault("reset within the body", Should.ERROR, sends(FINE[:-_HALF], Wire.reset)),
    Fault("closed without a response", Should.ERROR, sends(b"", Wire.close)),
    Fault("closed without a response once, then fine", Should.SESSION, closes_once),
    Fault("idle connection reset, then fine", Should.SESSION, resets_idle, calls=2, pause=0.5),
    # Time
    Fault("silence before the head", Should.ERROR, sends(b"", Wire.hang)),
    Fault("silence within the head", Should.ERROR, sends(FINE[:20], Wire.hang)),
    Fault("silence within the body", Should.ERROR, sends(FINE[:-_HALF], Wire.hang)),
    Fault(
        "head dripping without end",
        Should.ERROR,
        endless(b"HTTP/1.1 200 OK\r\nx-drip: ", b"a", pause=0.1),
    ),
    Fault("body dripping without end", Should.ERROR, endless(CHUNKED_HEAD, b"1\r\n \r\n", 0.1)),
    Fault("1xx responses without end, slow", Should.ERROR, endless(b"", _EARLY, pause=0.1)),
    Fault("1xx responses without end, fast", Should.ERROR, endless(b"", _EARLY * 1000)),
    # HTTP
    Fault("body shorter than content-length", Should.ERROR, sends(FINE[:-_HALF], Wire.close)),
    Fault(
        "chunked body cut off",
        Should.ERROR,
        sends(CHUNKED_HEAD + b"%x\r\n" % len(SESSION) + SESSION[:_HALF], Wire.close),
    ),
    *(Fault(name, Should.ERROR, serve) for name, serve in MALFORMED.items()),
    Fault(
        "header fields without end",
        Should.ERROR,
        endless(b"HTTP/1.1 200 OK\r\n", _FILLER * 64),
    ),
    Fault(
        "header fields without end, in trailers",
        Should.ERROR,
        endless(CHUNKED_HEAD + b"0\r\n", _FILLER * 64),
    ),
    Fault("gzip that is none", Should.ERROR, ok(SESSION, content_encoding="gzip")),
    # Size
    Fault("200 with 700 MB", Should.ERROR, sends_700_mb),
    Fault(
        "200 with 1 MB of gzip that becomes 1 GB",
        Should.ERROR,
        ok(gzip_bomb(), content_encoding="gzip"),
    ),
    Fault(
        "500 with a body without end",
        Should.ERROR,
        endless(
            head("500 Internal Server Error", transfer_encoding="chunked"),
            b"10000\r\n" + b"a" * 0x10000 + b"\r\n",
        ),
    ),
    # What a server sends too much
    *EXCESS,
    *(replace(each, name=f"{each.name}, through a proxy", proxy="tunnel") for each in EXCESS),
    # Connections that are kept
    Fault(
        "all eight idle connections dead, then fine",
        Should.SESSION,
        reset_when_idle(8),
        warm=8,
    ),
    # Addresses, proxies and certificates
    replace(SILENT_ADDRESS, name="first of two addresses silent, sync", mode="sync"),
    replace(SILENT_ADDRESS, name="first of two addresses silent, asyncio", mode="async"),
    replace(
        SILENT_ADDRESS, name="first of two addresses silent, uvloop", mode="async", loop="uvloop"
    ),
    Fault(
        "certificate of an unknown authority",
        Should.ERROR,
        responds(FINE),
        besides=_ONCE,
        once=True,
        tls="untrusted",
    ),
    Fault(
        "proxy's host with a typo",
        Should.ERROR,
        None,
        variables={"HTTPS_PROXY": "http://proxy..example:3128"},
        tls="trusted",
    ),
    Fault("proxy that hangs before the tunnel", Should.ERROR, socks(), proxy="http", at_once=True),
    Fault(
        "proxy that hangs within the tunnel",
        Should.ERROR,
        sends(head("200 Connection Established"), Wire.hang),
        proxy="http",
    ),
    Fault(
        "proxy that asks for a password (407)",
        Should.ERROR,
        responds(response("407 Proxy Authentication Required")),
        besides=_ONCE,
        once=True,
        proxy="http",
    ),
    *(
        Fault(f"SOCKS proxy that {what}", Should.ERROR, serve, proxy="socks5", at_once=True)
        for what, serve in SOCKS.items()
    ),
    # Over httpx-aiohttp
    *(
        Fault(f"{name}, httpx-aiohttp", Should.ERROR, serve, mode="async", http="httpx-aiohttp")
        for name, serve in MALFORMED.items()
    ),
    # Success that is none
    Fault("200 about another user", Should.ERROR, responds(OF_ANOTHER)),
    Fault("200 about another workflow", Should.ERROR, ok(document(workflow={"id": "wf_another"}))),
    Fault("200 with HTML", Should.ERROR, ok(HTML, content_type="text/html")),
    Fault("200 with HTML called JSON", Should.ERROR, ok(HTML)),
    Fault("200 with an empty body", Should.ERROR, ok(b"")),
    Fault("204", Should.ERROR, responds(head("204 No Content"))),
    Fault("200 with `null`", Should.ERROR, ok(b"null")),
    Fault("200 with an array", Should.ERROR, ok(b"[%b]" % SESSION)),
    Fault(
        "200 that is not UTF-8",
        Should.ERROR,
        ok(SESSION.replace(b"user-of", "Jürgen".encode("latin-1"))),
    ),
    Fault("200 with truncated JSON", Should.ERROR, ok(SESSION[:_HALF])),
    Fault(
        "200 nested 100,000 deep",
        Should.ERROR,
        ok(SESSION.replace(b"{", b'{"extra": %b, ' % NESTED, 1)),
    ),
    Fault("200 without `client_secret`", Should.ERROR, ok(without("client_secret"))),
    Fault("200 with `client_secret` null", Should.ERROR, ok(document(client_secret=None))),
    Fault("200 with `client_secret` empty", Should.ERROR, ok(document(client_secret=""))),
    Fault("200 with `client_secret` a number", Should.ERROR, ok(document(client_secret=42))),
    Fault("200 with `expires_at` 10³⁰", Should.ERROR, ok(document(expires_at=10**30))),
    # Errors
    Fault(
        "401 with HTML", Should.ERROR, refusal(HTML, "401 Unauthorized", content_type="text/html")
    ),
    Fault("407", Should.ERROR, refusal(HTML, "407 Proxy Authentication Required")),
    Fault('400 with `{"error": "text"}`', Should.ERROR, refusal(b'{"error": "text"}')),
    Fault('400 with `{"error": null}`', Should.ERROR, refusal(b'{"error": null}')),
    Fault("400 nested 100,000 deep", Should.ERROR, refusal(b'{"error": %b}' % NESTED)),
    Fault("429, retry-after 1, then fine", Should.SESSION, busy_once("429 Too Many Requests", "1")),
    Fault(
        "429, retry-after nan, then fine", Should.SESSION, busy_once("429 Too Many Requests", "nan")
    ),
    Fault(
        "429, retry-after one day",
        Should.ERROR,
        refusal(BUSY, "429 Too Many Requests", retry_after="86400"),
    ),
    Fault(
        "429, insufficient_quota",
        Should.ERROR,
        refusal(NO_QUOTA, "429 Too Many Requests"),
        besides=_ONCE,
        once=True,
    ),
    Fault(
        "503, retry-after a past date, then fine",
        Should.SESSION,
        busy_once("503 Service Unavailable", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ),
    # What must not leave
    Fault("302 to another port", Should.ERROR, redirects("302 Found"), _ELSEWHERE),
    Fault("307 to another port", Should.ERROR, redirects("307 Temporary Redirect"), _ELSEWHERE),
    Fault("308 to another port", Should.ERROR, redirects("308 Permanent Redirect"), _ELSEWHERE),
    Fault(
        "set-cookie, then the next call",
        Should.SESSION,
        ok(SESSION, set_cookie="who=the-first-user; Path=/"),
        besides="no cookie sent",
        calls=2,
    ),
)
