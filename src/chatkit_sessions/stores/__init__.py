"""Stores: where clients record sessions and share them.

`MemorySessionStore`, the default, is for one process. `chatkit_sessions.stores.redis` has stores
for several processes. To write your own store, implement `SessionStore` or `AsyncSessionStore`.
"""

from .base import AsyncSessionStore, Entry, SessionStore
from .memory import MemorySessionStore

__all__ = ["AsyncSessionStore", "Entry", "MemorySessionStore", "SessionStore"]
