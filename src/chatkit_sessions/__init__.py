"""Create, refresh, get and delete OpenAI ChatKit sessions from a Python backend.

>>> from chatkit_sessions import ChatKitClient
>>> with ChatKitClient() as chatkit:  # OPENAI_API_KEY, OPENAI_CHATKIT_WORKFLOW_ID
...     session = chatkit.create_session("user_123")
...     response = session.for_browser()

Names are imported on first use, so `import chatkit_sessions` alone is fast.
"""

from ._version import __version__ as __version__

# As in typing, whose import takes longer than everything here; jedi skips what stands below False.
TYPE_CHECKING = bool(0)
if TYPE_CHECKING:
    __all__: list[str]

    from ._client.async_client import AsyncChatKitClient as AsyncChatKitClient
    from ._client.sync_client import ChatKitClient as ChatKitClient
    from ._config.retry_policy import RetryPolicy as RetryPolicy
    from ._config.settings import (
        NOT_GIVEN as NOT_GIVEN,
        NotGiven as NotGiven,
    )
    from .errors import (
        APIConnectionError as APIConnectionError,
        APIResponseValidationError as APIResponseValidationError,
        APIStatusError as APIStatusError,
        APITimeoutError as APITimeoutError,
        AuthenticationError as AuthenticationError,
        BadRequestError as BadRequestError,
        BetaNotAvailableBadRequestError as BetaNotAvailableBadRequestError,
        BetaNotAvailableError as BetaNotAvailableError,
        ChatKitError as ChatKitError,
        ConfigurationError as ConfigurationError,
        ConflictError as ConflictError,
        InternalServerError as InternalServerError,
        InvalidRequestError as InvalidRequestError,
        NotFoundError as NotFoundError,
        PermissionDeniedError as PermissionDeniedError,
        RateLimitError as RateLimitError,
        SessionDeletedError as SessionDeletedError,
        SessionNotFoundError as SessionNotFoundError,
        SessionNotRecordedError as SessionNotRecordedError,
        SessionStoreError as SessionStoreError,
        UnprocessableEntityError as UnprocessableEntityError,
        WorkflowNotFoundError as WorkflowNotFoundError,
    )
    from .events import Event as Event, OnEvent as OnEvent
    from .models import (
        BrowserSession as BrowserSession,
        ChatKitErrorDetail as ChatKitErrorDetail,
        ChatKitErrorResponse as ChatKitErrorResponse,
        ChatKitSessionInfo as ChatKitSessionInfo,
        ChatKitSessionResponse as ChatKitSessionResponse,
        ChatKitWorkflow as ChatKitWorkflow,
        ChatKitWorkflowTracing as ChatKitWorkflowTracing,
        ChatSessionAutomaticThreadTitling as ChatSessionAutomaticThreadTitling,
        ChatSessionChatKitConfiguration as ChatSessionChatKitConfiguration,
        ChatSessionFileUpload as ChatSessionFileUpload,
        ChatSessionHistory as ChatSessionHistory,
        ChatSessionRateLimits as ChatSessionRateLimits,
    )
    from .options import (
        FileUpload as FileUpload,
        History as History,
        SessionOptions as SessionOptions,
        StateVariable as StateVariable,
    )

if not TYPE_CHECKING:  # pragma: no branch
    import importlib

    _MODULES = {
        *("errors", "events", "integrations", "models", "options", "service", "stores", "testing"),
    }
    _NAMES = {
        "_client.async_client": "AsyncChatKitClient",
        "_client.sync_client": "ChatKitClient",
        "_config.retry_policy": "RetryPolicy",
        "_config.settings": "NOT_GIVEN NotGiven",
        "events": "Event OnEvent",
        "errors": """
            APIConnectionError APIResponseValidationError APIStatusError APITimeoutError
            AuthenticationError BadRequestError BetaNotAvailableBadRequestError
            BetaNotAvailableError ChatKitError ConfigurationError ConflictError
            InternalServerError InvalidRequestError NotFoundError PermissionDeniedError
            RateLimitError SessionDeletedError SessionNotFoundError SessionNotRecordedError
            SessionStoreError UnprocessableEntityError WorkflowNotFoundError
        """,
        "models": """
            BrowserSession ChatKitErrorDetail ChatKitErrorResponse ChatKitSessionInfo
            ChatKitSessionResponse ChatKitWorkflow ChatKitWorkflowTracing
            ChatSessionAutomaticThreadTitling ChatSessionChatKitConfiguration
            ChatSessionFileUpload ChatSessionHistory ChatSessionRateLimits
        """,
        "options": "FileUpload History SessionOptions StateVariable",
    }
    _MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
    __all__ = sorted(["__version__", *_MODULE_OF])  # noqa: PLE0605 -- of the table

    def __getattr__(name: str) -> object:
        """Import a name on first use (PEP 562), and keep it."""
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        module = importlib.import_module(f".{_MODULE_OF[name]}", __name__)
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        """List the public names, imported or not."""
        return sorted({*globals(), *__all__, *_MODULES})
