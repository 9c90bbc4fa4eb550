"""The endpoint that the widget's page talks to, for your backend's framework.

`chatkit_sessions.integrations.fastapi`, `.starlette`, `.flask` and `.django` each hold one function
that returns the routes. For any other framework there are `ChatKitEndpoint` and
`AsyncChatKitEndpoint` here: a request goes in as plain values and a response comes out. No
framework is imported unless you import its module.
"""

from ._async_endpoint import AsyncChatKitEndpoint
from ._messages import (
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
    ErrorCode,
)
from ._sync_endpoint import ChatKitEndpoint

__all__ = [
    "MAX_BODY",
    "AsyncChatKitEndpoint",
    "ChatKitEndpoint",
    "CreateSessionOptions",
    "EndpointRequest",
    "EndpointResponse",
    "EndpointSettings",
    "ErrorCode",
]
