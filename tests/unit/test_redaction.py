"""No secret in a text, however it is spelled there."""

import copy
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, strategies as st
from pydantic import JsonValue, SecretStr

from chatkit_sessions._redaction import (
    MASK,
    MaskedBytes,
    hidden_from_tracebacks,
    is_masked,
    mask,
    mask_json,
    names_a_secret,
    plain_headers,
    redact,
    redact_json,
    safe_repr,
    with_article,
    without_frames,
)

OPAQUE = SecretStr("Ab/Cd+eF=12\"\\é'&")

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as-it-is": str,
    "in-json": lambda secret: json.dumps(secret)[1:-1],
    "in-json-unescaped": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "in-json-with-escaped-slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", r"\/"),
    "in-a-url": lambda secret: quote(secret, safe=""),
    "in-a-url-path": quote,
    "in-a-form": quote_plus,
    "in-a-url-with-lower-case-escapes": lambda secret: (
        quote(secret, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
    ),
}


class TestGivenSecrets:
    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    @pytest.mark.parametrize(
        "secret", ["opaqueSecret1", "ab/cd+ef==", 'with"quote', "back\\slash", "ünïcode", "a b"]
    )
    def test_every_usual_spelling_is_masked(self, secret: str, spell: Callable[[str], str]) -> None:
        assert redact(f"<{spell(secret)}>", [SecretStr(secret)]) == f"<{MASK}>"

    def test_every_occurrence_is_masked(self) -> None:
        assert redact("x-s3-s3", [SecretStr("s3")]) == f"x-{MASK}-{MASK}"

    def test_several_secrets_are_masked(self) -> None:
        redacted = redact("a one b two", [SecretStr("one"), SecretStr("two")])

        assert redacted == f"a {MASK} b {MASK}"

    @pytest.mark.parametrize("order", [1, -1], ids=["short-first", "long-first"])
    def test_a_secret_that_begins_with_another_is_masked_whole(self, order: int) -> None:
        secrets = [SecretStr("prefix"), SecretStr("prefix-and-tail")][::order]

        assert "tail" not in redact("it is prefix-and-tail", secrets)

    def test_an_empty_secret_changes_nothing(self) -> None:
        assert redact("text", [SecretStr("")]) == "text"

    @given(
        st.text(min_size=1).filter(lambda secret: "*" not in secret),
        st.text(),
        st.text(),
        st.sampled_from([str, SPELLINGS["in-json"]]),
    )
    def test_no_secret_is_left_in_any_text(
        self, secret: str, before: str, after: str, spell: Callable[[str], str]
    ) -> None:
        redacted = redact(before + spell(secret) + after, [SecretStr(secret)])

        assert secret not in redacted
        assert spell(secret) not in redacted


class TestShapes:
    @pytest.mark.parametrize(
        ("text", "redacted"),
        [
            ("key sk-abc.", "key sk-***."),
            ("sk-proj-aB_9-x.y!", "sk-***!"),
            ("sk-ab****wxyz", "sk-***"),
            ('"ek_68f0"', '"ek_***"'),
            ("ek_a, ek_b", "ek_***, ek_***"),
            ("a=sk-1&b=ek_2", "a=sk-***&b=ek_***"),
            ("Bearer sk-1", "Bearer sk-***"),
            ("(sk-1)", "(sk-***)"),
            ("_sk-1", "_sk-***"),
            ("ek_-", "ek_***"),
        ],
    )
    def test_what_is_shaped_like_a_secret_is_masked(self, text: str, redacted: str) -> None:
        assert redact(text) == redacted

    @pytest.mark.parametrize(
        "text",
        ["risk-averse", "week_plan", "task-1", "sk-", "ek_", "sk-.", "SK-1", "", "wf_1 sk_1"],
    )
    def test_other_words_are_left(self, text: str) -> None:
        assert redact(text) == text

    @pytest.mark.parametrize("text", ["Bearer%20sk-abcdef", "key%3Dsk-abcdef", r"line\nsk-abcdef"])
    def test_an_escape_before_it_does_not_hide_it(self, text: str) -> None:
        assert "abcdef" not in redact(text)

    @given(st.text(), st.sampled_from(["sk-", "ek_"]), st.from_regex(r"\A[A-Za-z0-9_-]{4,}\Z"))
    def test_redacting_twice_changes_nothing_more(self, text: str, shape: str, tail: str) -> None:
        once = redact(f"{text} {shape}{tail}")

        assert once.endswith(f" {shape}***")
        assert redact(once) == once

    def test_a_long_text_is_read_in_one_go(self) -> None:
        assert redact("sk-" + "." * 200_000) == "sk-" + "." * 200_000


JSON_VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


class TestRedactJson:
    def test_strings_anywhere_are_redacted(self) -> None:
        document: JsonValue = {"a": ["x S3CRET", {"b": "ek_1"}], "n": 1, "f": 1.5, "t": True}

        redacted = redact_json(document, [SecretStr("S3CRET")])

        assert redacted == {
            "a": [f"x {MASK}", {"b": "ek_***"}],
            "n": 1,
            "f": 1.5,
            "t": True,
        }

    def test_names_are_redacted_too(self) -> None:
        assert redact_json({"S3CRET": 1, "ek_1": 2}, [SecretStr("S3CRET")]) == {
            MASK: 1,
            "ek_***": 2,
        }

    @pytest.mark.parametrize("value", ["x", 5, False, ["x"], {"a": "x"}])
    @pytest.mark.parametrize("name", ["client_secret", "accessToken", "API_KEY", "monkey"])
    def test_what_is_named_like_a_secret_is_masked(self, name: str, value: JsonValue) -> None:
        assert redact_json({name: value}) == {name: MASK}

    def test_null_under_such_a_name_stays_null(self) -> None:
        assert redact_json({"token": None}) == {"token": None}

    @pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [], {}])
    def test_what_holds_no_secret_is_left(self, value: JsonValue) -> None:
        assert redact_json(value) == value

    def test_the_original_is_left(self) -> None:
        document: JsonValue = {"a": ["ek_1"], "token": "t"}

        redact_json(document)

        assert document == {"a": ["ek_1"], "token": "t"}

    def test_secrets_may_be_an_iterator(self) -> None:
        assert redact_json(["S3", "S3"], iter([SecretStr("S3")])) == [MASK, MASK]

    @given(JSON_VALUES)
    def test_any_json_stays_json_of_the_same_shape(self, value: JsonValue) -> None:
        redacted = redact_json(value, [SecretStr("S3CRET-NEVER-THERE")])

        assert type(redacted) is type(value)
        json.dumps(redacted)


@pytest.mark.parametrize("name", ["secret", "client_secret", "Token", "apikey", "KEY", "tokens"])
def test_a_name_tells_a_secret(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["", "id", "user", "ke", "sec ret", "status"])
def test_a_name_tells_none(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    ("text", "masked"),
    [("*", True), (MASK, True), ("", False), ("**a", False), (" *", False), ("sk-***", False)],
)
def test_asterisks_alone_are_a_mask(text: str, *, masked: bool) -> None:
    assert is_masked(text) is masked


SHOWS: dict[str, Callable[[object], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": "{}".format,
    "percent-s": lambda value: "%s" % (value,),  # noqa: UP031 -- as loggers do
    "percent-r": lambda value: "%r" % (value,),  # noqa: UP031 -- as loggers do
    "in-a-list": lambda value: str([value]),
}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
class TestMaskedContainers:
    def test_bytes_show_their_length_only(self, show: Callable[[object], str]) -> None:
        assert show(MaskedBytes(b"S3CRET")).strip("[]") == "<6 bytes>"

    def test_copies_are_masked_too(self, show: Callable[[object], str]) -> None:
        for duplicate in (copy.copy, copy.deepcopy):
            assert "S3CRET" not in show(duplicate(MaskedBytes(b"S3CRET")))


def test_masked_containers_still_hold_what_they_hide() -> None:
    assert bytes(MaskedBytes(b"S3CRET")) == b"S3CRET"
    assert MaskedBytes(b"S3CRET").decode() == "S3CRET"


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


class TestHiddenFromTracebacks:
    def test_the_frames_of_a_function_and_below_are_no_part_of_what_it_raises(self) -> None:
        @hidden_from_tracebacks
        def fail(masked: SecretStr) -> None:
            plain = {masked.get_secret_value(): 1}
            try:
                plain.pop(masked.get_secret_value() + "!")
            finally:
                interrupt()

        with pytest.raises(KeyboardInterrupt) as caught:
            fail(OPAQUE)

        rendered = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert OPAQUE.get_secret_value() not in "".join(rendered.format())
        assert [frame.name for frame in rendered.stack][1:] == ["hidden"]
        assert caught.value.__context__ is None

    def test_its_name_document_and_result_stay(self) -> None:
        @hidden_from_tracebacks
        def double(number: int, *, plus: int = 0) -> int:
            """Twice as much."""
            return 2 * number + plus

        assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
        assert double(4, plus=1) == 9

    def test_a_class_that_takes_no_assignments_loses_its_frames_all_the_same(self) -> None:
        @dataclass(frozen=True)
        class FrozenError(Exception):
            number: int

        def fail() -> None:
            raise FrozenError(1) from LookupError("S3CRET")

        with pytest.raises(FrozenError) as caught:
            fail()

        error = without_frames(caught.value)
        assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


def test_headers_are_unwrapped_for_the_http_client_alone() -> None:
    headers: dict[str, str | SecretStr] = {"Authorization": OPAQUE, "Accept": "x"}

    assert OPAQUE.get_secret_value() not in repr(headers)
    assert plain_headers(headers) == {"Authorization": OPAQUE.get_secret_value(), "Accept": "x"}


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("x", "'x'"),
            ("é", "'\\xe9'"),
            ("\ud800", "'\\ud800'"),
            ("a\nb", "'a\\nb'"),
            (5, "5"),
            (1.5, "1.5"),
            (True, "True"),
            (None, "None"),
            ([], "a list"),
            ({}, "a dict"),
            (b"x", "a bytes"),
            (object(), "an object"),
            (10**5000, "an integer of very many digits"),
            ("ek_1", "'ek_***'"),
            ("x" * 58, f"'{'x' * 58}'"),
            (10**59, str(10**59)),
        ],
        ids=lambda value: ascii(value)[:12] if not isinstance(value, int) else "int",
    )
    def test_a_value_is_shown_in_ascii_and_without_secrets(self, value: object, text: str) -> None:
        assert safe_repr(value) == text

    @pytest.mark.parametrize("value", ["x" * 61, "é" * 40, "x" * 10**6, 10**100])
    def test_a_long_value_is_cut(self, value: object) -> None:
        text = safe_repr(value)

        assert "…" in text
        assert len(text) < 100

    @given(st.text(st.characters(codec=None, categories=None)) | st.integers() | st.floats())
    def test_any_value_is_short_and_survives_every_log(self, value: object) -> None:
        text = safe_repr(value)

        assert text.isprintable()
        assert len(text) < 100
        assert text.replace("…", "").isascii()


@pytest.mark.parametrize(
    ("noun", "phrase"), [("str", "a str"), ("object", "an object"), ("Int", "an Int")]
)
def test_a_type_gets_its_article(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase


def test_masking_takes_nothing_but_the_given_secrets() -> None:
    secrets = [SecretStr("S3")]

    assert mask("S3 sk-1", secrets) == f"{MASK} sk-1"
    assert mask_json({"token": ["S3", "sk-1", None, 5], 5: "S3", "S3": 1}, iter(secrets)) == {
        "token": [MASK, "sk-1", None, 5],
        5: MASK,
        MASK: 1,
    }
