"""Ids of anonymous visitors, which each framework keeps in its own signed cookie."""

import secrets
from typing import Final

# https://developer.mozilla.org/docs/Web/HTTP/Headers/Set-Cookie: no other host can set it.
COOKIE: Final = "__Host-chatkit_visitor"
SALT: Final = "chatkit_sessions.visitor"
"""Separates these signatures from others with the same key."""
MAX_AGE: Final = 365 * 24 * 60 * 60
"""Seconds for which the cookie is valid, and for which a browser keeps it."""


def new_visitor() -> str:
    """A random visitor id that is never one of the application's user ids."""
    return f"visitor_{secrets.token_urlsafe(18)}"
