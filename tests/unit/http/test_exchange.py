"""One exchange as bytes. What our parser makes of a response, h11 makes of it, too.

Ours is stricter: it may reject what h11 accepts. It never reads another status or body, and never
reuses a connection on which h11 would not.
"""

import itertools
from functools import lru_cache
from typing import Final, NamedTuple

import h11
import httpx
import pytest
from hypothesis import example, given, strategies as st
from pydantic import SecretBytes, SecretStr

from chatkit_sessions._api.protocol import Headers, Request
from chatkit_sessions._http.exchange import (
    MAX_HEAD,
    LocalProtocolError,
    RemoteProtocolError,
    Target,
    encode,
    encode_request,
    receive_response,
    target_of,
)
from chatkit_sessions._redaction import MaskedBytes

REQUEST = Request(
    "POST", "https://chatkit.test/v1/chatkit/sessions", {"X-A": "b"}, SecretBytes(b"{}"), ()
)
TARGET = target_of(REQUEST.url)
H11_REQUEST = h11.Request(
    method="POST",
    target="/v1/chatkit/sessions",
    headers=[("Host", "chatkit.test"), ("X-A", "b"), ("Content-Length", "2")],
)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Outcome(NamedTuple):
    """What comes of a response and then the connection's end."""

    status: int | None = None
    """None: it is malformed or incomplete."""
    body: bytes = b""
    reusable: bool = False
    """Before the connection's end."""


@lru_cache(maxsize=2)
def outcome_of_h11(data: bytes) -> Outcome:
    """h11 alone, given everything at once."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    connection.send(H11_REQUEST)
    connection.send(h11.Data(data=b"{}"))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, body, ended = None, b"", False
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if ended:
                    return Outcome()
                ended = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                return Outcome()
    except h11.RemoteProtocolError:
        return Outcome()
    done = connection.our_state is h11.DONE and connection.their_state is h11.DONE
    empty = status in {204, 205, 304}  # a body may follow all the same
    return Outcome(
        status, body, done and not ended and not empty and not connection.trailing_data[0]
    )


def outcome_of_ours(pieces: list[bytes]) -> Outcome:
    """Our parser, given one piece after the other and then the connection's end."""
    parser = receive_response(sent=2)
    next(parser)
    waiting = [piece for piece in pieces if piece] + [b""]
    try:
        while True:
            parser.send(MaskedBytes(waiting.pop(0)))
    except RemoteProtocolError:
        return Outcome()
    except StopIteration as stop:
        response, reusable = stop.value
        body = response.body.get_secret_value()
        return Outcome(response.status_code, body, reusable and waiting == [b""])


def compare(data: bytes, *cuts: int) -> Outcome:
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]
    ours, theirs = outcome_of_ours(pieces), outcome_of_h11(data)

    if ours.status is not None:
        assert ours[:2] == theirs[:2], pieces
    assert theirs.reusable or not ours.reusable, pieces
    return ours


# Heads and bodies written by hand, plain and odd

RESPONSES: Final = [
    OK + b"Content-Length: 2\r\n\r\n{}",
    OK + b"content-length:2\r\nX-A:  b \t\r\nX-A: \r\nconnection: Keep-Alive\r\n\r\n{}",
    OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Connectios: a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nConnection: keep-alive, close\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    OK + b"Content-Length: 2, 2\r\n\r\n{}",
    OK + b"Content-Length: 2, 3\r\n\r\n{}x",
    OK + b"Content-Length: +2\r\n\r\n{}",
    OK + b"Content-Length: -2\r\n\r\n{}",
    OK + b"Content-Length: 0x2\r\n\r\n{}",
    OK + b"Content-Length: 2 2\r\n\r\n{}",
    OK + b"Content-Length: \xb2\r\n\r\n{}",
    OK + b"Content-Length: 002\r\n\r\n{}",
    OK + b"Content-Length:\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: identity\r\n\r\n{}",
    OK + b"Content-Length: 5\r\n\r\n{}",
    OK + b"Content-Length: 2\r\n\r\n{}" + OK + b"Content-Length: 2\r\n\r\n[]",
    OK + b"Content-Length: 2\r\n\r\n{}\r\n",
    OK + b"\r\nuntil the end",
    OK + b"Connection: close\r\n\r\nuntil the end",
    OK + b"Content-Length: 2\n\n{}",
    OK + b"Content-Length: 2\r\n\n{}",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}\r\n\r\n",
    OK + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X Space: a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Space : a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b" X-Space: a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b": a\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"no colon\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Null: \x00\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Bell: \x07\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Feed: a\x0cb\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Return: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Delete: \x7f\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Latin: caf\xe9\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 Caf\xe9 \r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 \x01\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 600 What\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 205 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 2 + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 103 Hints\r\nContent-Length: 2\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    OK,
    b"",
    b"\r\n\r\n",
    b"<html></html>\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"00002\r\n{}\r\n000\r\n\r\n",
    CHUNKED + b"0000000002\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"000000000000000000002\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n[]",
    CHUNKED + b"2;ext=1\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n",
    CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\nTrailer: a\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
    CHUNKED + b"2\n{}\n0\n\n",
    CHUNKED + b"2\r\n{}0\r\n\r\n",
    CHUNKED + b"2\r\n{}xx0\r\n\r\n",
    CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"5\r\n{}",
    CHUNKED + b"\r\n{}",
    OK + b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked \r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding:\x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Content-Length: 00000000000000002\r\n\r\n{}",
    OK + b"Content-Length: 2\r\nContent-Length: 02\r\n\r\n{}",
    OK + b"Transfer-Encoding: chun\xe2\x84\xaaed\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding:\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Go\r\nContent-Length: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Go\nA: b\n\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Go\r\nConnection: close\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 204 No\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 205 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 205 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2 ;ext=1\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2;ext=1 \r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2;ext\n\r\n{}\r\n0\r\n\r\n",
    CHUNKED + b"2\r\n{}\n0\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\nA: b\r\n c\r\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\r\nA: b\nC: d\n\r\n",
    CHUNKED + b"2\r\n{}\r\n0\n\n",
]


STRICTER: Final = {
    OK + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Bell: \x07\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"X-Delete: \x7f\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 \x01\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 00000000000000002\r\n\r\n{}",
    CHUNKED + b"2\r\n{}\r\n0\r\nA: b\r\n c\r\n\r\n",
}
"""What h11 accepts, and we do not."""


@pytest.mark.parametrize("data", RESPONSES)
def test_a_response_means_what_it_means_to_h11_wherever_it_is_cut(data: bytes) -> None:
    whole = compare(data)
    for cut in range(len(data) + 1):
        ours = compare(data, cut)
        assert ours[:2] == whole[:2], "as if it had not been cut"
    compare(data, *range(len(data)))


def test_there_are_many_of_them() -> None:
    assert len({*RESPONSES}) >= 100


def test_what_is_rejected_although_h11_accepts_it_is_known() -> None:
    rejected = {
        data
        for data in RESPONSES
        if outcome_of_h11(data).status is not None and outcome_of_ours([data]).status is None
    }

    assert rejected == STRICTER


def test_what_is_usual_leaves_a_connection_that_can_be_used_again() -> None:
    for data in (
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2;ext=1\r\n{}\r\n0\r\nTrailer: a\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}",
    ):
        for cut in range(len(data)):
            assert outcome_of_ours([data[:cut], data[cut:]]).reusable, data


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 2\n\n{}",
        OK + b"Content-Length: 2\r\n\n{}",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n0\r\nTrailer: a\n\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n\n",
    ],
)
def test_bare_line_feeds_are_read_and_nothing_is_reused_after_them(data: bytes) -> None:
    for cut in range(len(data)):
        assert compare(data, cut) == (200, b"{}", False)


def test_both_framings_at_once_end_a_connection() -> None:
    data = OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    assert compare(data) == (200, b"{}", False)


def test_a_body_of_many_chunks_means_the_same_as_well() -> None:
    data = CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n"
    many = CHUNKED + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 200 + b"0\r\n\r\n"

    for cut in (len(data), 3 * 1024, 65_536, len(many) - 3):
        assert compare(many, cut).reusable
    compare(many, *range(0, len(many), 5_000))


def test_a_head_a_line_and_trailers_are_bounded() -> None:
    too_long = b"x" * MAX_HEAD
    for begin in (OK + b"A: ", CHUNKED + b"2;", CHUNKED + b"0\r\nA: "):
        parser = receive_response(sent=2)
        next(parser)
        parser.send(MaskedBytes(begin))
        with pytest.raises(RemoteProtocolError, match="too long"):
            parser.send(MaskedBytes(too_long))


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.9", b"\x16\x03", b"HTTP/2 200", b"\r\n"])
def test_what_cannot_become_a_response_is_not_waited_for(data: bytes) -> None:
    parser = receive_response(sent=2)
    next(parser)

    with pytest.raises(RemoteProtocolError, match="no HTTP/1 response"):
        parser.send(MaskedBytes(data))


def test_a_body_is_not_read_beyond_its_bound() -> None:
    for data in (
        b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n" + b" " * 70_000,
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + b" " * 70_000,
        b"HTTP/1.1 500 No\r\n\r\n" + b" " * 70_000,
    ):
        parser = receive_response(sent=2)
        next(parser)
        with pytest.raises(StopIteration) as caught:
            parser.send(MaskedBytes(data))
        response, reusable = caught.value.value
        assert (len(response.body), reusable) == (64 * 1024, False)
        assert response.body_error is not None


def test_header_fields_are_joined_and_looked_up_in_lower_case() -> None:
    parser = receive_response(sent=2)
    next(parser)
    with pytest.raises(StopIteration) as caught:
        parser.send(MaskedBytes(OK + b"X-A: caf\xe9\r\nx-a:\t b \r\nContent-Length: 0\r\n\r\n"))

    headers = caught.value.value[0].headers
    assert headers == {"x-a": "caf\xe9, b", "content-length": "0"}


# Generated ones


def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then with a byte more, less or other than before."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"0", b",", b""]))
        data = data[:place] + piece + data[place + draw(st.integers(0, 2)) :]
    return data


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Mostly well-formed, of every kind."""
    version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2"]))
    status = draw(st.sampled_from([b"200", b"200", b"201", b"204", b"304", b"404", b"500", b"100"]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" \xe9\t!"]))
    body = draw(st.binary(max_size=12))
    framing = draw(
        st.lists(
            st.sampled_from(
                [
                    b"Content-Length: %d" % len(body),
                    b"content-length:%d " % (len(body) + 1),
                    b"Transfer-Encoding: chunked",
                    b"transfer-encoding: CHUNKED",
                    b"Connection: close",
                    b"Connection: keep-alive",
                    b"Connection: x, close",
                ]
            ),
            max_size=3,
        )
    )
    name = st.sampled_from([b"X-A", b"server", b"Content-Type", b"Connection2", b"Content-Lengt"])
    value = st.binary(max_size=6) | st.sampled_from([b"a b", b"", b"caf\xe9", b"\ta\t"])
    others = draw(st.lists(st.tuples(name, value).map(b": ".join), max_size=3))
    lines = draw(st.permutations(framing + others))
    if any(b"chunked" in line.lower() for line in framing):
        sizes = draw(st.lists(st.integers(1, 5), max_size=4))
        parts = [body[begin : begin + size] for begin, size in enumerate(sizes)]
        end = draw(
            st.sampled_from([b"0\r\n\r\n"] * 4 + [b"0\r\nA: b\r\n\r\n", b"0;x\r\n\r\n", b""])
        )
        body = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts if part) + end
    rest = draw(st.sampled_from([b"", b"", b"", b"\r\n", OK + b"Content-Length: 0\r\n\r\n"]))
    head = b"\r\n".join([version + b" " + status + reason, *lines, b"", b""])
    return spoiled(draw, head + body + rest)


@given(data=responses(), cuts=st.lists(st.integers(0, 300), max_size=4))
@example(data=RESPONSES[0], cuts=[0])
def test_generated_responses_mean_what_they_mean_to_h11(data: bytes, cuts: list[int]) -> None:
    compare(data, *(cut % (len(data) + 1) for cut in cuts))


@given(data=responses())
def test_generated_responses_mean_the_same_wherever_they_are_cut(data: bytes) -> None:
    for cut in range(len(data) + 1):
        compare(data, cut)


@given(st.binary(max_size=40))
def test_anything_else_is_no_response(data: bytes) -> None:
    compare(data)


# Requests


def test_a_request_is_encoded_as_h11_encodes_it() -> None:
    connection = h11.Connection(h11.CLIENT)
    parts = [
        connection.send(event) for event in (H11_REQUEST, h11.Data(data=b"{}"), h11.EndOfMessage())
    ]

    message = encode_request(REQUEST, TARGET)

    assert bytes(message) == b"".join(part or b"" for part in parts)
    assert repr(message) == f"<{len(message)} bytes>"


@pytest.mark.parametrize(
    ("method", "lines"), [("POST", b"Content-Length: 0\r\n\r\n"), ("GET", b"\r\n")]
)
def test_a_request_without_a_body_says_so_where_one_is_expected(method: str, lines: bytes) -> None:
    request = Request(method, REQUEST.url, {}, None, ())

    assert encode_request(request, TARGET).endswith(b"\r\nHost: chatkit.test\r\n" + lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "secret\r\nX-B: b"),
        ("X-A", "secret\nb"),
        ("X-A", "secret\0"),
        ("X-A", " secret"),
        ("X A", "secret"),
        ("X-A: b; c", "secret"),
        ("", "secret"),
    ],
)
def test_a_header_cannot_bring_another_one(name: str, value: str) -> None:
    headers: Headers = {name: SecretStr(value)}

    with pytest.raises(LocalProtocolError) as caught:
        encode_request(REQUEST._replace(headers=headers), TARGET)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"PO ST", b"/"), (b"POST", b"/a b"), (b"POST", b"/\r\nX-A:"), (b"", b"/")],
)
def test_a_request_line_cannot_bring_another_one(method: bytes, path: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        encode(method, path, [(b"Host", b"a")], b"")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://a.test/v1", Target("a.test", 443, True, b"a.test", b"/v1")),
        ("https://A.test:443/v1", Target("a.test", 443, True, b"a.test", b"/v1")),
        ("http://a.test:8080", Target("a.test", 8080, False, b"a.test:8080", b"/")),
        ("http://[::1]/v1", Target("::1", 80, False, b"[::1]", b"/v1")),
        ("https://[::1]:80/a/b", Target("::1", 80, True, b"[::1]:80", b"/a/b")),
        ("https://a.test/v1?u=a%40b+c", Target("a.test", 443, True, b"a.test", b"/v1?u=a%40b+c")),
    ],
)
def test_a_url_names_host_port_path_and_query(url: str, target: Target) -> None:
    assert target_of(url) == target
    assert httpx.URL(url).raw_path == target.path
    assert httpx.Request("GET", url).headers["host"].encode() == target.host_header


def test_a_path_is_escaped_as_httpx_and_browsers_escape_it() -> None:
    """WHATWG's URL standard, "path percent-encode set"; older releases of httpx escape fewer."""
    visible = [chr(each) for each in range(0x21, 0x7F) if chr(each) not in "?#"]

    kept = {
        each for each in visible if target_of(f"https://a.test/{each}").path == f"/{each}".encode()
    }

    assert set(visible) - kept == set('"<>`{}')
    assert target_of("https://a.test/%7B").path == b"/%7B"
