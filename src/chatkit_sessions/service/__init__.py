"""Sessions that your own backend issues, by the contract of OpenAI's sessions API.

For a chat server of your own that has no session of its own to rely on:

    >>> from chatkit_sessions.service import SessionsService
    >>> from chatkit_sessions.stores import MemorySessionStore
    >>> service = SessionsService(MemorySessionStore(), workflows={"support"})
    >>> chatkit = service.client(workflow_id="support")
    >>> session = chatkit.create_session("ada")
    >>> service.verify(session.client_secret).user
    'ada'

`service.client()` is an ordinary `ChatKitClient`, so the endpoint that your page calls stays as it
is. `chatkit_sessions.service.fastapi`, `.starlette`, `.flask` and `.django` each hold
`chatkit_session`, which verifies the requests to your chat server. `SessionsApp` and
`SessionsWSGIApp` offer the routes to backends in other processes and languages.
"""

from ._apps import SessionsApp, SessionsWSGIApp
from ._records import SessionContext
from ._services import AsyncSessionsService, SessionsService
from ._settings import SessionSettings
from .errors import ClientSecretRateLimitError, InvalidClientSecretError

__all__ = [
    "AsyncSessionsService",
    "ClientSecretRateLimitError",
    "InvalidClientSecretError",
    "SessionContext",
    "SessionSettings",
    "SessionsApp",
    "SessionsService",
    "SessionsWSGIApp",
]
