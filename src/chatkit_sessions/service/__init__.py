"""Issue ChatKit sessions yourself, with the same API as OpenAI's.

Use it if your own chat server cannot rely on your login's session:

    >>> from chatkit_sessions.service import SessionsService
    >>> from chatkit_sessions.stores import MemorySessionStore
    >>> service = SessionsService(MemorySessionStore(), workflows={"support"})
    >>> chatkit = service.client(workflow_id="support")
    >>> session = chatkit.create_session("ada")
    >>> service.verify(session.client_secret).user
    'ada'

`service.client()` is a normal `ChatKitClient`, so your page's endpoint stays as it is.
`chatkit_sessions.service.fastapi`, `.starlette`, `.flask` and `.django` each have
`chatkit_session`, which verifies the requests to your chat server. `SessionsApp` and
`SessionsWSGIApp` serve the routes to backends in other processes and languages.
"""

from ._apps import SessionsApp, SessionsWSGIApp
from ._bodies import SessionSettings
from ._records import SessionContext
from ._services import AsyncSessionsService, SessionsService
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
