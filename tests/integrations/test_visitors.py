"""Anonymous visitors: whose cookie counts, and which keys sign it."""

import re
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import cast

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from flask import Flask
from hypothesis import example, given, strategies as st
from itsdangerous import TimestampSigner
from starlette.requests import Request

from chatkit_sessions import ConfigurationError
from chatkit_sessions.integrations import exact_cookie
from chatkit_sessions.integrations.django import anonymous_visitor as django_visitor
from chatkit_sessions.integrations.flask import anonymous_visitor as flask_visitor
from chatkit_sessions.integrations.starlette import AnonymousVisitor
from chatkit_sessions.testing import FakeChatKit
from endpoint_apps import VISITOR_KEY, Answer, Backend, Framework, Wiring

NAME = "__Host-chatkit_visitor"
SALT = "chatkit_sessions.visitor"
MAX_AGE = 365 * 24 * 3600
# What Python's `str.strip` removes; browsers take all of these for part of a name.
SPACES = [" \x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u2000", "\u2003", "\u2028", "\u3000"]


def cookie_of(answer: Answer) -> tuple[str, str]:
    """The cookie as a browser sends it back, and what is said of it."""
    (name,) = cookies = SimpleCookie(answer.headers["set-cookie"])
    return f"{name}={cookies[name].value}", answer.headers["set-cookie"].lower()


def test_a_visitor_keeps_an_id_in_a_signed_cookie(backend: Backend, fake: FakeChatKit) -> None:
    browsers = [backend.app(wiring=Wiring(visitors=True)) for _ in range(3)]
    cookie, told = cookie_of(browsers[0].create())

    again = browsers[1]("POST", "/session", headers={"Cookie": cookie})
    browsers[2].create()

    one, same, another = [session.user for session in fake.sessions.values()]
    assert one == same != another
    assert all((user or "").startswith("visitor_") for user in (one, another))
    assert "set-cookie" not in again.headers
    for each in ("__host-", "secure", "httponly", "samesite=lax", "path=/", "max-age=31536000"):
        assert each in told
    assert "domain" not in told


def test_a_visitor_cannot_choose_an_id(backend: Backend, fake: FakeChatKit) -> None:
    cookie, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    name, _, value = cookie.partition("=")

    for forged in (f"{name}=visitor_of_ada", f"{name}=x{value}", f"{name}={value}x", f"{name}="):
        app = backend.app(wiring=Wiring(visitors=True))
        assert "set-cookie" in app("POST", "/session", headers={"Cookie": forged}).headers

    users = [session.user for session in fake.sessions.values()]
    assert len(set(users)) == len(users) == 5


def test_a_visitor_is_the_same_throughout_a_request(backend: Backend, fake: FakeChatKit) -> None:
    app = backend.app(wiring=Wiring(visitors=True), rate_limit=None)

    answer = app.create()

    assert len(answer.headers.get_list("set-cookie")) == 1
    assert len(fake.sessions) == 1


# Planted by the page of another host


def users_of(backend: Backend, *cookies: str) -> list[str]:
    """The visitors that the endpoint takes browsers with these cookies for."""
    for cookie in cookies:
        backend.app(wiring=Wiring(visitors=True))("POST", "/session", headers={"Cookie": cookie})
    return [session.user or "" for session in backend.fake.sessions.values()][-len(cookies) :]


@pytest.mark.parametrize("space", SPACES, ids=ascii)
def test_white_space_before_a_cookies_name_makes_it_another_cookie(
    backend: Backend, space: str
) -> None:
    planted, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    own, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    attacker, victim = [session.user for session in backend.fake.sessions.values()]
    in_bytes = space.encode().decode("latin-1")

    for sent in dict.fromkeys([space, in_bytes]):
        if ord(max(sent)) > 0xFF:  # no header has it
            continue
        both, alone = users_of(backend, f"{own}; {sent}{planted}", f"{sent}{planted}")
        assert both == victim
        assert alone not in {attacker, victim}


def test_a_cookie_that_is_sent_twice_is_nobodys(backend: Backend) -> None:
    planted, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    own, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    known = [session.user for session in backend.fake.sessions.values()]

    (visitor,) = users_of(backend, f"{own}; {planted}")

    assert visitor not in known
    assert visitor.startswith("visitor_")


def test_another_name_is_another_cookie(backend: Backend) -> None:
    cookie, _ = cookie_of(backend.app(wiring=Wiring(visitors=True)).create())
    (known,) = [session.user for session in backend.fake.sessions.values()]
    value = cookie.partition("=")[2]

    names = [NAME.upper(), f"{NAME} ", f"x{NAME}", f"={NAME}"]
    assert known not in users_of(backend, *[f"{name}={value}" for name in names])
    assert users_of(backend, f"a=b;{cookie};c=d") == [known]


def signed_by_the_application(framework: Framework, value: str) -> str:
    """The value as the application's own key signs it."""
    if framework.startswith("django"):
        response = HttpResponse()
        response.set_signed_cookie(NAME, value, salt=SALT)
        return response.cookies[NAME].value
    return TimestampSigner(VISITOR_KEY, salt=SALT).sign(value).decode()


def test_a_signed_value_that_is_no_visitor_does_not_count(
    backend: Backend, framework: Framework
) -> None:
    user, visitor = users_of(
        backend,
        f"{NAME}={signed_by_the_application(framework, 'ada')}",
        f"{NAME}={signed_by_the_application(framework, 'visitor_1')}",
    )

    assert user.startswith("visitor_")
    assert user != visitor == "visitor_1"


def test_a_cookie_counts_for_a_year(
    backend: Backend, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookies: list[str] = []
    now = time.time()
    for seconds in (MAX_AGE - 3600, MAX_AGE + 3600):
        with monkeypatch.context() as past:
            past.setattr(time, "time", lambda seconds=seconds: now - seconds)
            cookies.append(f"{NAME}={signed_by_the_application(framework, 'visitor_1')}")

    young, old = users_of(backend, *cookies)

    assert young == "visitor_1" != old


COOKIE_NAMES = st.text(st.characters(codec="latin-1", exclude_characters=";= \t"), max_size=6)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters=";"), max_size=6)
PADDING = st.text(st.sampled_from(" \t"), max_size=2)


@given(
    pairs=st.lists(st.tuples(COOKIE_NAMES, VALUES, PADDING), max_size=6),
    name=st.sampled_from(["", "a", "__Host-a"]) | COOKIE_NAMES,
    cut=st.integers(0, 6),
)
@example(pairs=[("a", " 0 ", "")], name="a", cut=0)
def test_the_exact_cookie_is_the_only_pair_with_that_name(
    pairs: list[tuple[str, str, str]], name: str, cut: int
) -> None:
    written = [f"{pad}{key}={value}" for key, value, pad in pairs]
    headers = [";".join(written[:cut]), ";".join(written[cut:])]
    named = [value.rstrip(" \t") for key, value, _ in pairs if key == name]

    expected = named[0] if len(named) == 1 else None

    assert exact_cookie(headers, name) == expected
    assert exact_cookie("; ".join(written), name) == expected


@given(st.text(st.characters(codec="latin-1")))
def test_no_header_makes_a_cookie_of_a_name_that_is_not_in_it(header: str) -> None:
    value = exact_cookie(header, NAME)

    assert value is None or re.search(rf"(^|;)[ \t]*{NAME}={re.escape(value)}[ \t]*(;|$)", header)


def test_without_a_header_there_is_no_cookie() -> None:
    assert exact_cookie(None, NAME) is None
    assert exact_cookie([], NAME) is None
    assert exact_cookie(NAME, NAME) is None


# The key


def through_starlette(*keys: str | None) -> None:
    AnonymousVisitor(keys[0])(Request({"type": "http", "headers": []}))  # type: ignore[arg-type]  # None is refused


def through_flask(*keys: str | None) -> None:
    app = Flask("shop")
    config = cast("dict[str, object]", app.config)
    config |= {"SECRET_KEY": keys[0], "SECRET_KEY_FALLBACKS": [*keys[1:]]}
    with app.test_request_context("/"):
        flask_visitor()


def through_django(*keys: str | None) -> None:
    with override_settings(SECRET_KEY=keys[0] or " ", SECRET_KEY_FALLBACKS=[*keys[1:]]):
        django_visitor(HttpRequest())


LONG = "k" * 16


@pytest.mark.parametrize(
    "keys", [[""], ["k" * 15], ["ü" * 7], [None]], ids=["empty", "short", "short in bytes", "none"]
)
@pytest.mark.parametrize("visit", [through_starlette, through_flask, through_django])
def test_a_key_that_others_can_guess_is_refused(
    visit: Callable[..., None], keys: list[str | None]
) -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes") as raised:
        visit(*keys)

    assert "kkk" not in f"{raised.value}{raised.value.__traceback__}"
    visit(LONG)
    visit("ü" * 8)


@pytest.mark.parametrize("visit", [through_flask, through_django])
def test_an_older_key_that_others_can_guess_is_refused(visit: Callable[..., None]) -> None:
    visit(LONG, LONG)

    with pytest.raises(ConfigurationError, match="at least 16 bytes, got 0"):
        visit(LONG, LONG, "")
