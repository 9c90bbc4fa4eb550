"""Which pages are of which origin."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions.integrations._rules import (
    AllowedOrigins,
    Origin,
    is_same_origin,
    origin_of,
    parse_origin,
)

SCHEMES = st.sampled_from(["http", "https"])
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9\-]{0,10}[a-z0-9])?(\.[a-z]{2,6})?", fullmatch=True)
PORTS = st.none() | st.integers(1, 65_535)


def written(scheme: str, host: str, port: int | None) -> str:
    return f"{scheme}://{host}" + (f":{port}" if port else "")


@given(SCHEMES, HOSTS, PORTS)
def test_an_origin_is_what_a_url_begins_with(scheme: str, host: str, port: int | None) -> None:
    text = written(scheme, host, port)

    origin = parse_origin(text)

    assert origin is not None
    assert (origin.scheme, origin.host) == (scheme, urlsplit(text).hostname)
    for rest in ("", "/", "/path?a=b", "?a=/", "#x"):
        assert origin_of(text + rest) == origin
    assert parse_origin(text.upper()) == origin
    assert is_same_origin(origin, origin)


@given(SCHEMES, HOSTS)
def test_the_port_that_a_scheme_has_anyway_makes_no_difference(scheme: str, host: str) -> None:
    port = {"http": 80, "https": 443}[scheme]

    assert parse_origin(written(scheme, host, port)) == parse_origin(written(scheme, host, None))


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    origin = parse_origin(text)
    origin_of(text)

    if origin is not None:
        assert parse_origin(written(*origin)) == origin
        assert text in AllowedOrigins([text])


@given(st.tuples(SCHEMES, HOSTS, PORTS), st.tuples(SCHEMES, HOSTS, PORTS))
def test_pages_of_another_host_or_port_are_of_another_origin(
    page_parts: tuple[str, str, int | None], own_parts: tuple[str, str, int | None]
) -> None:
    page, own = parse_origin(written(*page_parts)), parse_origin(written(*own_parts))

    assert page is not None
    assert own is not None
    if is_same_origin(page, own):
        assert (page.host, page.port) == (own.host, own.port)
        assert (page.scheme, own.scheme) != ("http", "https")


@pytest.mark.parametrize(
    "text",
    [
        *("null", "", "*", "https://", "https:///", "//a.example", "a.example", "https://a.example/"),
        *("https://a.example?x", "https://u:p@a.example", "https://a b", "https://a.example:"),
        *("https://a.example:123456", "https://a.example\n", " https://a.example", "https://é.example"),
        *("https://[::1", "https://a.example, https://a.example", "https://a.example:\u0661"),
    ],
)  # fmt: skip
def test_what_is_no_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


def test_apps_and_addresses_have_origins_too() -> None:
    assert parse_origin("capacitor://localhost") == Origin("capacitor", "localhost", None)
    assert parse_origin("http://[::1]:8000") == Origin("http", "[::1]", 8000)


def test_a_server_behind_a_proxy_that_ends_tls_takes_pages_of_https_for_its_own() -> None:
    http, https = Origin("http", "a.example", None), Origin("https", "a.example", None)

    assert is_same_origin(https, http)
    assert not is_same_origin(http, https), "somebody on the way may have written that page"
    assert not is_same_origin(http, None)
