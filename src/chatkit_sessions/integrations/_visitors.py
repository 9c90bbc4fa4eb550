"""Anonymous visitors: a random id for each browser, in a signed cookie."""

import secrets
from collections.abc import Iterable
from typing import Final

from chatkit_sessions.errors import ConfigurationError

# https://developer.mozilla.org/docs/Web/HTTP/Headers/Set-Cookie: no other host can set it.
COOKIE: Final = "__Host-chatkit_visitor"
SALT: Final = "chatkit_sessions.visitor"
"""Separates these signatures from others with the same key."""
VISITOR_KEY: Final = "chatkit_sessions.visitor"
"""Where a request's environment keeps the id of a new visitor."""
MAX_AGE: Final = 365 * 24 * 60 * 60
"""Seconds for which the cookie is valid, and for which a browser keeps it."""
MIN_KEY: Final = 16
"""The fewest bytes of a key: others can try all shorter ones."""

_PREFIX: Final = "visitor_"


def new_visitor() -> str:
    """A random visitor id that is never one of the application's user ids."""
    return f"{_PREFIX}{secrets.token_urlsafe(18)}"


def parse_visitor(signed: object) -> str | None:
    """The visitor id in a cookie whose signature is right; None if it is none.

    The same key may sign something else under the same salt by mistake. That is no user id.
    """
    text = signed.decode("ascii", "replace") if isinstance(signed, bytes) else signed
    return text if isinstance(text, str) and text.startswith(_PREFIX) else None


def exact_cookie(cookie_header: str | Iterable[str] | None, name: str) -> str | None:
    """Return the value of the cookie with exactly this name.

    Use this function instead of your framework's cookies if the name begins with `__Host-` or
    `__Secure-`. Frameworks remove every kind of white space around a name, but browsers do not.
    So a page of another host below your domain can set a cookie `__Host-…` with a no-break space
    before its name, which a framework reads as `__Host-…`.

    Args:
        cookie_header: The value of the request's `Cookie` header, as it was sent. Its values, if
            it was sent more than once. None: the request has none.
        name: The cookie's name.

    Returns:
        The value; None if there is no such cookie, or more than one.
    """
    headers = [cookie_header] if isinstance(cookie_header, str) else cookie_header or ()
    # https://httpwg.org/specs/rfc6265.html#cookie: only a space separates.
    pairs = [pair.strip(" \t").partition("=") for each in headers for pair in each.split(";")]
    values = [value for found, separator, value in pairs if (found, separator) == (name, "=")]
    return values[0] if len(values) == 1 else None


def validate_secret_keys(keys: Iterable[object], setting: str) -> None:
    """Reject keys with which others could sign a cookie.

    Args:
        keys: Every key whose signatures count.
        setting: What the keys are called.

    Raises:
        ConfigurationError: A key is missing, no text or too short.
    """
    shortest = min(map(_size, keys))
    if shortest < MIN_KEY:
        raise ConfigurationError(
            f"{setting} signs the visitors' cookies: it must have at least {MIN_KEY} bytes, "
            f"got {shortest}.",
            hint="Make one with `python -c 'import secrets; print(secrets.token_hex(32))'`, and "
            "use it in every process.",
        )


def _size(key: object) -> int:
    if isinstance(key, str):
        return len(key.encode())
    return len(key) if isinstance(key, bytes) else 0
