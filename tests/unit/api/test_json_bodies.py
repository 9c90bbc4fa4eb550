"""Responses' JSON is read as strictly as before, whichever parser reads it."""

import json

import pytest
from hypothesis import example, given, strategies as st

from chatkit_sessions._api import protocol
from chatkit_sessions._api.protocol import UnreadableBodyError, decode_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def strictly(body: bytes) -> object:
    """What Python's own parser makes of a body that our rules permit; an exception's type else."""
    try:
        document: object = json.loads(body.decode(), parse_constant=pytest.fail.Exception)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, TypeError):
        return UnreadableBodyError
    return document


def read(body: bytes) -> object:
    try:
        return decode_json(body)
    except UnreadableBodyError:
        return UnreadableBodyError


@given(value=VALUES, escapes=st.sampled_from(["all", "few"]), indent=st.sampled_from([None, 1]))
def test_every_document_is_read_as_it_was_written(
    value: object, escapes: str, indent: int | None
) -> None:
    try:
        body = json.dumps(value, ensure_ascii=escapes == "all", indent=indent).encode()
    except UnicodeEncodeError:
        return

    assert repr(read(body)) == repr(strictly(body))


@given(
    st.lists(
        st.sampled_from(
            [b"{", b"}", b"[", b"]", b'"', b"a", b":", b",", b"1", b"-", b".", b"e", b"0", b"null",
             b"true", b" ", b"\n", b"\x00", b"\\u", b"d800", b"\\n", b"\xff", b"\xc3\xa9", b"\x0c"]
        ),
        max_size=12,
    ).map(b"".join)
)  # fmt: skip
@example(b'"\\ud800"')
@example(b'{"a": 1, "a": 2}')
@example(b"\xef\xbb\xbf{}")
@example(b"1e999")
@example(b"-0")
@example(b"1" * 4301)
@example(b"")
def test_any_bytes_mean_what_they_mean_to_pythons_own_parser(body: bytes) -> None:
    assert repr(read(body)) == repr(strictly(body))


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"-Infinity", b'{"a": NaN}'])
def test_what_is_no_number_in_json_is_none_here(body: bytes) -> None:
    assert read(body) is UnreadableBodyError


def test_an_ordinary_response_never_needs_the_slower_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "_DECODER", None)

    assert decode_json(b'{"id": "cksess_\\u00e9", "n": [1, 2.5, true, null]}') == {
        "id": "cksess_é", "n": [1, 2.5, True, None]
    }  # fmt: skip
