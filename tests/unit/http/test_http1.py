"""The parser of responses: whatever it accepts directly, h11 accepts in the same way."""

import itertools
from typing import Final, NamedTuple

import h11
import httpcore
import pytest
from hypothesis import example, given, settings, strategies as st

from chatkit_sessions._http.h11_parser import MAX_HEAD, H11Parser
from chatkit_sessions._http.http1 import ResponseParser, encode_request

REQUEST = httpcore.Request(
    "POST",
    "https://chatkit.test/v1/chatkit/sessions",
    headers=[("Host", "chatkit.test"), ("Content-Length", "2")],
)
REQUEST_BODY = b"{}"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Outcome(NamedTuple):
    """What comes of a response and then the connection's end."""

    head: object = None
    body: bytes | None = None
    """None: it is malformed or incomplete."""
    reusable: bool = False
    """Before the connection's end."""


def outcome_of_h11(data: bytes) -> Outcome:
    """h11 alone, given everything at once."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    url = REQUEST.url
    connection.send(h11.Request(method=REQUEST.method, target=url.target, headers=REQUEST.headers))
    connection.send(h11.Data(data=REQUEST_BODY))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head: object = None
    body, ended = b"", False
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if ended:
                    return Outcome(head)
                ended = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                headers = event.headers.raw_items()
                head = event.http_version, event.status_code, event.reason, headers
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                return Outcome(head)
    except h11.RemoteProtocolError:
        return Outcome(head)
    done = connection.our_state is h11.DONE and connection.their_state is h11.DONE
    empty = isinstance(head, tuple) and head[1] in {204, 205, 304}
    reusable = done and not ended and not empty and not connection.trailing_data[0]
    return Outcome(head, body, reusable)


def outcome_of_ours(pieces: list[bytes]) -> Outcome:
    """Our parser, given one piece after the other and then the connection's end."""
    parser = ResponseParser(REQUEST, REQUEST_BODY)
    waiting = [piece for piece in pieces if piece] + [b""]
    head, body = None, b""
    try:
        while (head := parser.head) is None:
            parser.feed(waiting.pop(0))
        while (part := parser.next_part()) != b"":
            if part is None:
                parser.feed(waiting.pop(0))
            else:
                body += part
    except httpcore.RemoteProtocolError:
        return Outcome(head and tuple(head))
    return Outcome(tuple(head), body, parser.reusable and waiting == [b""])


def compare(data: bytes, *cuts: int) -> None:
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]
    ours, theirs = outcome_of_ours(pieces), outcome_of_h11(data)

    assert (ours.body, ours.reusable) == (theirs.body, theirs.reusable), pieces
    if ours.body is not None or None not in (ours.head, theirs.head):  # only one may see a head
        assert ours.head == theirs.head, pieces


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
]


@pytest.mark.parametrize("data", RESPONSES)
def test_a_response_means_what_it_means_to_h11_wherever_it_is_cut(data: bytes) -> None:
    for cut in range(len(data) + 1):
        compare(data, cut)
    compare(data, *range(len(data)))


def test_a_body_of_many_chunks_means_the_same_as_well() -> None:
    data = CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n"
    many = CHUNKED + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 200 + b"0\r\n\r\n"

    for cut in (len(data), 3 * 1024, 65_536, len(many) - 3):
        compare(many, cut)
    compare(many, *range(0, len(many), 5_000))


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


@settings(deadline=None)
@given(data=responses(), cuts=st.lists(st.integers(0, 300), max_size=4))
@example(data=RESPONSES[0], cuts=[0])
def test_generated_responses_mean_what_they_mean_to_h11(data: bytes, cuts: list[int]) -> None:
    compare(data, *(cut % (len(data) + 1) for cut in cuts))


@settings(deadline=None)
@given(data=responses())
def test_generated_responses_mean_the_same_wherever_they_are_cut(data: bytes) -> None:
    for cut in range(len(data) + 1):
        compare(data, cut)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_anything_else_is_no_response(data: bytes) -> None:
    compare(data)


@settings(deadline=None)
@given(data=responses())
def test_a_body_taken_whole_is_the_body_in_parts(data: bytes) -> None:
    parser, in_parts = ResponseParser(REQUEST, REQUEST_BODY), outcome_of_ours([data])
    try:
        parser.feed(data)
    except httpcore.RemoteProtocolError:
        return
    body = parser.take_whole()

    if body is not None:
        assert (body, parser.reusable) == (in_parts.body, in_parts.reusable)
        assert (parser.take_whole() or b"", parser.next_part()) == (b"", b"")


@pytest.mark.parametrize(
    "response", [OK + b"Content-Length: 2\r\n\r\n{}", CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"]
)
def test_a_plain_body_is_taken_whole_once_and_only_whole(response: bytes) -> None:
    parser, part = ResponseParser(REQUEST, REQUEST_BODY), ResponseParser(REQUEST, REQUEST_BODY)
    assert parser.take_whole() is None
    parser.feed(response)
    part.feed(response[:-1])

    assert (parser.take_whole(), part.take_whole()) == (b"{}", None)
    assert not parser.take_whole()


def test_a_plain_response_never_reaches_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all the comparisons above would compare h11 with itself."""
    monkeypatch.setattr(h11, "Connection", pytest.fail)

    for data in (OK + b"Content-Length: 2\r\n\r\n{}", CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"):
        assert outcome_of_ours([data]).reusable
        assert outcome_of_ours([data[:-1], data[-1:]]).reusable


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
def test_a_response_without_the_body_of_its_length_is_left_to_h11(method: str) -> None:
    request = httpcore.Request(method, "https://chatkit.test/", headers={"Host": "chatkit.test"})
    parser = ResponseParser(request, b"")
    parser.feed(OK + b"Content-Length: 2\r\n\r\n")

    assert parser.head is not None
    assert parser.next_part() in ({b""} if method == "HEAD" else {b"", None})


# Requests


def test_a_request_is_encoded_as_h11_encodes_it() -> None:
    connection = h11.Connection(h11.CLIENT)
    parts = [
        connection.send(event)
        for event in (
            h11.Request(method=REQUEST.method, target=REQUEST.url.target, headers=REQUEST.headers),
            h11.Data(data=REQUEST_BODY),
            h11.EndOfMessage(),
        )
    ]

    assert bytes(encode_request(REQUEST, REQUEST_BODY)) == b"".join(part or b"" for part in parts)


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
    request = httpcore.Request("POST", REQUEST.url, headers=[("Host", "a"), (name, value)])

    with pytest.raises(httpcore.LocalProtocolError) as caught:
        encode_request(request, b"")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "target"), [("PO ST", b"/"), ("POST", b"/a b"), ("POST", b"/\r\nX-A:"), ("", b"/")]
)
def test_a_request_line_cannot_bring_another_one(method: str, target: bytes) -> None:
    url = httpcore.URL(scheme=b"https", host=b"chatkit.test", port=None, target=target)

    with pytest.raises(httpcore.LocalProtocolError):
        encode_request(httpcore.Request(method, url, headers=[("Host", "a")]), b"")


def test_what_h11_cannot_take_after_the_end_is_a_protocol_error() -> None:
    parser = H11Parser(REQUEST, REQUEST_BODY, b"HTTP/1.0 200 OK\r\n")
    parser.feed(b"")

    with pytest.raises(httpcore.RemoteProtocolError):
        parser.feed(b"Content-Length: 0\r\n\r\n")


def test_nothing_is_known_before_the_first_byte() -> None:
    parser = ResponseParser(REQUEST, REQUEST_BODY)

    assert (parser.begun, parser.head, parser.next_part(), parser.reusable) == (
        False, None, None, False
    )  # fmt: skip
    with pytest.raises(httpcore.RemoteProtocolError, match="without sending a response"):
        parser.feed(b"")


def test_h11_has_nothing_more_before_the_head_and_after_the_end() -> None:
    parser = H11Parser(REQUEST, REQUEST_BODY, OK)
    assert parser.next_part() is None

    parser.feed(b"Content-Length: 0\r\n\r\n")
    assert [parser.next_part(), parser.next_part()] == [b"", b""]


def test_another_protocol_is_no_response() -> None:
    headers = [("Host", "chatkit.test"), ("Connection", "upgrade"), ("Upgrade", "other")]
    parser = ResponseParser(httpcore.Request("GET", REQUEST.url, headers=headers), b"")

    with pytest.raises(httpcore.RemoteProtocolError):
        parser.feed(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n")
