"""Create, refresh, get and delete OpenAI ChatKit sessions from a Python backend.

>>> from chatkit_sessions import ChatKitClient
>>> with ChatKitClient() as chatkit:  # OPENAI_API_KEY, OPENAI_CHATKIT_WORKFLOW_ID
...     session = chatkit.create_session("user_123")
...     answer = session.for_browser()

Names are imported when they are first used: `import chatkit_sessions` alone costs next to nothing.
"""

from ._version import __version__

TYPE_CHECKING = False  # as in typing, whose import takes longer than everything here
if TYPE_CHECKING:
    from ._client.async_client import AsyncChatKitClient
    from ._client.sync_client import ChatKitClient
    from ._config.retry import RetryPolicy
    from ._config.settings import NOT_GIVEN, NotGiven
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
        SessionDeletedError,
        SessionNotFoundError,
        SessionNotRecordedError,
        SessionStoreError,
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
    "SessionDeletedError",
    "SessionNotFoundError",
    "SessionNotRecordedError",
    "SessionStoreError",
    "StateVariable",
    "UnprocessableEntityError",
    "WorkflowNotFoundError",
    "__version__",
]

if not TYPE_CHECKING:  # pragma: no branch
    import importlib

    _MODULES = {"errors", "integrations", "models", "stores", "testing"}
    _HOMES = {
        "APIConnectionError": "errors",
        "APIResponseValidationError": "errors",
        "APIStatusError": "errors",
        "APITimeoutError": "errors",
        "AsyncChatKitClient": "_client.async_client",
        "AuthenticationError": "errors",
        "BadRequestError": "errors",
        "BetaNotAvailableBadRequestError": "errors",
        "BetaNotAvailableError": "errors",
        "BrowserSession": "models",
        "ChatKitClient": "_client.sync_client",
        "ChatKitError": "errors",
        "ChatKitErrorDetail": "models",
        "ChatKitErrorResponse": "models",
        "ChatKitSessionInfo": "models",
        "ChatKitSessionResponse": "models",
        "ChatKitWorkflow": "models",
        "ChatKitWorkflowTracing": "models",
        "ChatSessionAutomaticThreadTitling": "models",
        "ChatSessionChatKitConfiguration": "models",
        "ChatSessionFileUpload": "models",
        "ChatSessionHistory": "models",
        "ChatSessionRateLimits": "models",
        "ConfigurationError": "errors",
        "ConflictError": "errors",
        "FileUpload": "models",
        "History": "models",
        "InternalServerError": "errors",
        "InvalidRequestError": "errors",
        "NOT_GIVEN": "_config.settings",
        "NotFoundError": "errors",
        "NotGiven": "_config.settings",
        "PermissionDeniedError": "errors",
        "RateLimitError": "errors",
        "RetryPolicy": "_config.retry",
        "SessionDeletedError": "errors",
        "SessionNotFoundError": "errors",
        "SessionNotRecordedError": "errors",
        "SessionStoreError": "errors",
        "StateVariable": "models",
        "UnprocessableEntityError": "errors",
        "WorkflowNotFoundError": "errors",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for (PEP 562), and keep it for the next time."""
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        home = importlib.import_module(f".{_HOMES[name]}", __name__)
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        """Tell the public names, imported or not."""
        return sorted({*globals(), *__all__, *_MODULES})
