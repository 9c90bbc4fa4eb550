"""Create, refresh, get and delete OpenAI ChatKit sessions from a Python backend.

>>> from chatkit_sessions import ChatKitClient
>>> with ChatKitClient() as chatkit:  # OPENAI_API_KEY, OPENAI_CHATKIT_WORKFLOW_ID
...     session = chatkit.create_session("user_123")
...     answer = session.for_browser()
"""

from ._async_client import AsyncChatKitClient
from ._config import NOT_GIVEN, NotGiven
from ._retry import RetryPolicy
from ._sync_client import ChatKitClient
from ._version import __version__
from .errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BetaNotAvailableBadRequestError,
    BetaNotAvailableError,
    ChatKitError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionNotFoundError,
    SessionNotRecordedError,
    UnprocessableEntityError,
    WorkflowNotFoundError,
)
from .models import (
    BrowserSession,
    ChatKitErrorDetail,
    ChatKitErrorResponse,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
    ChatKitWorkflowTracing,
    ChatSessionAutomaticThreadTitling,
    ChatSessionChatKitConfiguration,
    ChatSessionFileUpload,
    ChatSessionHistory,
    ChatSessionRateLimits,
    FileUpload,
    History,
    StateVariable,
)

__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncChatKitClient",
    "AuthenticationError",
    "BadRequestError",
    "BetaNotAvailableBadRequestError",
    "BetaNotAvailableError",
    "BrowserSession",
    "ChatKitClient",
    "ChatKitError",
    "ChatKitErrorDetail",
    "ChatKitErrorResponse",
    "ChatKitSessionInfo",
    "ChatKitSessionResponse",
    "ChatKitWorkflow",
    "ChatKitWorkflowTracing",
    "ChatSessionAutomaticThreadTitling",
    "ChatSessionChatKitConfiguration",
    "ChatSessionFileUpload",
    "ChatSessionHistory",
    "ChatSessionRateLimits",
    "ConfigurationError",
    "ConflictError",
    "FileUpload",
    "History",
    "InternalServerError",
    "InvalidRequestError",
    "NotFoundError",
    "NotGiven",
    "PermissionDeniedError",
    "RateLimitError",
    "RetryPolicy",
    "SessionNotFoundError",
    "SessionNotRecordedError",
    "StateVariable",
    "UnprocessableEntityError",
    "WorkflowNotFoundError",
    "__version__",
]
