"""Reading a body within its bound, whatever it is compressed with and however it is cut."""

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, strategies as st

from chatkit_sessions._api.protocol import MAX_ERROR_BODY, MAX_SUCCESS_BODY, Response
from chatkit_sessions._http.exchange import Body

BOMB = gzip.compress(bytes(4 * MAX_SUCCESS_BODY))


def read(
    *chunks: bytes, status: int = 200, coding: str | None = None, decoded: bool = False
) -> Response:
    headers = {} if coding is None else {"Content-Encoding": coding}
    body = Body(status, httpx.Headers(headers), decoded=decoded)
    for chunk in chunks:
        if not body.add(chunk):
            break
    return body.response()


def as_it_is(data: bytes) -> bytes:
    return data


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": as_it_is,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP ": gzip.compress,
    "deflate": zlib.compress,
}


@given(
    content=st.binary(max_size=2000),
    coding=st.sampled_from(sorted(CODINGS)),
    cuts=st.lists(st.integers(0, 2100), max_size=5),
)
def test_any_body_is_read_however_it_is_cut(content: bytes, coding: str, cuts: list[int]) -> None:
    sent = CODINGS[coding](content)
    bounds = [0, *sorted(cuts), len(sent)]
    chunks = [sent[start:end] for start, end in pairwise(bounds)]

    answer = read(*chunks, coding=coding)

    assert (answer.body.get_secret_value(), answer.body_error) == (content, None)


@given(sent=st.binary(max_size=300), coding=st.sampled_from([*sorted(CODINGS), "br", "a, b", ""]))
def test_any_bytes_give_an_answer(sent: bytes, coding: str) -> None:
    answer = read(sent, coding=coding)

    assert answer.status_code == 200
    assert len(answer.body.get_secret_value()) <= MAX_SUCCESS_BODY


def test_several_gzip_members_are_one_body() -> None:
    sent = gzip.compress(b"one ") + gzip.compress(b"two")

    assert read(sent, coding="gzip").body.get_secret_value() == b"one two"
    assert (
        read(sent[:10], sent[10:25], sent[25:], coding="gzip").body.get_secret_value() == b"one two"
    )


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "sent", [b"this is none", gzip.compress(b"cut off")[:-9]], ids=["none", "cut"]
)
def test_a_broken_compression_is_a_flaw(coding: str, sent: bytes) -> None:
    assert read(sent, coding=coding).body_error == "its compression is broken"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_a_compression_that_was_not_asked_for_is_a_flaw(coding: str) -> None:
    answer = read(b"abc", coding=coding)

    assert answer.body_error == "it comes in a compression that was not asked for"
    assert answer.body.get_secret_value() == b""


def test_an_empty_body_is_complete_in_any_compression() -> None:
    assert read(coding="gzip").body_error is None


def test_a_body_that_is_decoded_already_is_not_decoded_again() -> None:
    assert read(b"{}", coding="gzip", decoded=True).body.get_secret_value() == b"{}"


@pytest.mark.parametrize(("status", "limit"), [(200, MAX_SUCCESS_BODY), (500, MAX_ERROR_BODY)])
def test_exactly_the_limit_is_read_and_no_byte_more(status: int, limit: int) -> None:
    assert read(b" " * limit, status=status).body_error is None

    beyond = read(b" " * limit, b"x", status=status)

    assert beyond.body_error == f"it is longer than {limit:,} bytes"
    assert beyond.body.get_secret_value() == b" " * limit


def test_a_bomb_is_inflated_no_further_than_the_limit() -> None:
    body = Body(200, {"content-encoding": "gzip"}, decoded=False)

    assert not body.add(BOMB)

    assert len(body._content) == MAX_SUCCESS_BODY + 1
    assert body.response().body_error == f"it is longer than {MAX_SUCCESS_BODY:,} bytes"


def test_nothing_more_is_taken_once_there_is_a_flaw() -> None:
    body = Body(200, {"content-encoding": "gzip"}, decoded=False)

    assert not body.add(b"broken gzip")
    assert not body.add(gzip.compress(b"{}"))

    assert body.response().body.get_secret_value() == b""


def test_a_bomb_behind_another_gzip_member_is_inflated_no_further_either() -> None:
    body = Body(200, {"content-encoding": "gzip"}, decoded=False)

    assert not body.add(gzip.compress(b" " * 1000) + BOMB)

    assert len(body._content) == MAX_SUCCESS_BODY + 1
