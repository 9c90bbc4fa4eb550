"""The endpoint that the page with the widget calls, for your framework.

`chatkit_sessions.integrations.fastapi`, `.starlette`, `.litestar`, `.flask` and `.django` each have
one function that returns the routes. For any other framework, use `ChatKitEndpoint` or
`AsyncChatKitEndpoint`: they take a request as plain values and return a response. Only the
framework's own module imports the framework.
"""

from ._endpoint import AsyncChatKitEndpoint, ChatKitEndpoint
from ._requests import (
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
    ErrorCode,
    exact_cookie,
)

__all__ = [
    "MAX_BODY",
    "AsyncChatKitEndpoint",
    "ChatKitEndpoint",
    "CreateSessionOptions",
    "EndpointRequest",
    "EndpointResponse",
    "EndpointSettings",
    "ErrorCode",
    "exact_cookie",
]
