"""Where clients keep what several workers of a backend are to share.

`MemorySessionStore` is of one process and the default; `chatkit_sessions.stores.redis` holds the
stores that processes share. `SessionStore` and `AsyncSessionStore` are what a store of your own
has to offer.
"""

from .base import AsyncSessionStore, Entry, SessionStore
from .memory import MemorySessionStore

__all__ = ["AsyncSessionStore", "Entry", "MemorySessionStore", "SessionStore"]
