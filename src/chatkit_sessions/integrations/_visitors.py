"""Visitors who are not signed in: what each framework keeps of them, in its own signed cookie."""

import secrets
from typing import Final

# https://developer.mozilla.org/docs/Web/HTTP/Headers/Set-Cookie: no other host can set it.
COOKIE: Final = "__Host-chatkit_visitor"
SALT: Final = "chatkit_sessions.visitor"
"""Keeps what is signed here apart from whatever else is signed with the same key."""
MAX_AGE: Final = 365 * 24 * 60 * 60
"""Seconds for which a browser keeps the cookie, and for which it is valid."""


def new_visitor() -> str:
    """A visitor's id that nobody can guess, and no user of the application's has."""
    return f"visitor_{secrets.token_urlsafe(18)}"
