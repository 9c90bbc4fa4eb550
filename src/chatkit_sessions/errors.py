"""Everything that this library raises.

    ChatKitError
    ├── ConfigurationError              no key, no workflow id, key over plain http to a remote host
    ├── InvalidRequestError             an argument outside the contract; also a ValueError
    ├── SessionNotRecordedError         get: the API cannot say, this client never saw the session
    ├── SessionDeletedError             the user's sessions were deleted while this was under way
    ├── SessionStoreError               the session store does not respond
    ├── APIConnectionError              no response, or it broke off
    │   └── APITimeoutError             … within the time that the call had
    ├── APIResponseValidationError      a 2xx that is not what the contract says
    └── APIStatusError                  any other status
        ├── BadRequestError             400
        ├── AuthenticationError         401
        ├── PermissionDeniedError       403
        ├── NotFoundError               404
        │   ├── WorkflowNotFoundError
        │   └── SessionNotFoundError
        ├── ConflictError               409
        ├── UnprocessableEntityError    422
        ├── RateLimitError              429
        ├── InternalServerError         500 and above
        └── BetaNotAvailableError       code invalid_beta, whatever the status
            └── BetaNotAvailableBadRequestError     with 400; a BadRequestError, too

The names are those of the official SDK, if it has one. No message, attribute or cause of an error
holds an API key or a client secret: text from elsewhere is redacted before it becomes part of one.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import JsonValue

from .models import ChatKitErrorDetail

TROUBLESHOOTING: Final = "https://chatkit-sessions.readthedocs.io/en/stable/troubleshooting.html"
"""The page that has a section for each of these."""

_Error = TypeVar("_Error", bound="ChatKitError")


class ChatKitError(Exception):
    """The root of all errors of this library.

    Attributes:
        message: What happened.
        hint: What to check, in a few sentences, and where to read on; only the latter if the
            message says it all.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint: str = f"{hint or ''} See: {_section(type(self))}".lstrip()

    def __str__(self) -> str:
        return f"{self._headline()}\nHint: {self.hint}"

    def _headline(self) -> str:
        return self.message

    def __reduce__(
        self,
    ) -> tuple[
        Callable[[type["ChatKitError"], str], "ChatKitError"],
        tuple[type["ChatKitError"], str],
        dict[str, object],
    ]:
        """Survive pickling, as task queues do to errors, in spite of the keyword-only arguments."""
        return _blank, (type(self), self.message), vars(self)


def _section(error_type: type[ChatKitError]) -> str:
    """The address of the error's section in troubleshooting, or of the nearest class of ours."""
    ours = next(each for each in error_type.__mro__ if each.__module__ == __name__)
    return f"{TROUBLESHOOTING}#{ours.__name__.lower()}"


def _blank(error_type: type[_Error], message: str) -> _Error:
    return error_type.__new__(error_type, message)


class ConfigurationError(ChatKitError):
    """The client cannot work with what it was given; nothing was sent."""


class InvalidRequestError(ChatKitError, ValueError):
    """An argument is outside the API's contract; nothing was sent."""


class SessionNotRecordedError(ChatKitError):
    """The API has no route for reading a session, and none recorded the session."""


class SessionDeletedError(ChatKitError):
    """`delete_sessions` ended the user's sessions while a call that creates one was under way.

    The session that it may have created is cancelled.
    """


class SessionStoreError(ChatKitError):
    """The session store does not respond, and the call cannot do without it.

    `delete_session` raises it after the API has cancelled the session: the store was not updated,
    and may return the session until it expires; delete it again.
    """


class APIConnectionError(ChatKitError):
    """No response came, or it broke off. The request may have taken effect.

    Attributes:
        answered: Whether a whole response came that the HTTP client could not decode; such a call
            is not repeated, because a session may exist.
        permanent: Whether another attempt cannot succeed before a setting has changed, such as for
            a certificate that is not trusted; such a call is not repeated.
    """

    permanent: bool = False  # 0.9.0 pickled its errors without it

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        answered: bool = False,
        permanent: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.answered = answered
        self.permanent = permanent


class APITimeoutError(APIConnectionError):
    """No complete response came within the time that the call had."""


class APIResponseValidationError(ChatKitError):
    """A success response that is not what the contract says, or about another user or workflow.

    The body is never quoted.

    Attributes:
        status_code: The HTTP status, 200 to 299.
        content_type: The response's content type, None where it had none.
        content_length: How many bytes of the body were read.
        request_id: The API's name of the request, None where the response had none.
        session_id: The session of another user or workflow that the response was about, which the
            client has cancelled if the API responded; None where there is none.
    """

    session_id: str | None = None  # 0.9.0 pickled its errors without it

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        content_type: str | None,
        content_length: int,
        request_id: str | None,
        session_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.content_type = content_type
        self.content_length = content_length
        self.request_id = request_id
        self.session_id = session_id

    def _headline(self) -> str:
        return _headline(self.status_code, self.message, self.request_id)


class APIStatusError(ChatKitError):
    """The API, or something in front of it, returned another status than success.

    Attributes:
        status_code: The HTTP status.
        error: The inner part of the API's error response; None where it sent none.
        body: The decoded JSON of the response, else its text, None where it was empty; redacted.
        request_id: The API's name of the request, for OpenAI's support; None where there was none.
        retry_after: Seconds that the server asks to wait; None where it did not say.
        should_retry: What the response's `x-should-retry` says; None where it had none.
        hint: What to check, and where to read on.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        error: ChatKitErrorDetail | None = None,
        body: JsonValue = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.error = error
        self.body = body
        self.request_id = request_id
        self.retry_after = retry_after
        self.should_retry = should_retry

    @property
    def code(self) -> str | None:
        """`error.code`, the API's short name of the case; None if there is none."""
        return self.error.code if self.error else None

    @property
    def param(self) -> str | None:
        """`error.param`, the argument at fault; None if the API names none."""
        return self.error.param if self.error else None

    @property
    def type(self) -> str | None:
        """`error.type`, the API's class of the error; None if `error` is None."""
        return self.error.type if self.error else None

    def _headline(self) -> str:
        return _headline(self.status_code, self.message, self.request_id)


def _headline(status_code: int, message: str, request_id: str | None) -> str:
    named = f" (request id {request_id})" if request_id else ""
    return f"{status_code}: {message}{named}"


class BadRequestError(APIStatusError):
    """400: the API rejects the request as it is."""


class AuthenticationError(APIStatusError):
    """401: the API does not accept the key."""


class PermissionDeniedError(APIStatusError):
    """403: the key is valid, but may not do this."""


class NotFoundError(APIStatusError):
    """404: the workflow, the session or the route does not exist, or not for this key."""


class WorkflowNotFoundError(NotFoundError):
    """404: no workflow of this id is visible to the key's project."""


class SessionNotFoundError(NotFoundError):
    """404: no session of this id is visible to the key's project."""


class ConflictError(APIStatusError):
    """409: the request collides with another one."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed, and the API rejects it."""


class RateLimitError(APIStatusError):
    """429: too many requests, or no quota left; see `retry_after`."""


class InternalServerError(APIStatusError):
    """500 and above: the fault is on the server's side."""


class BetaNotAvailableError(APIStatusError):
    """The API did not accept the `OpenAI-Beta` header: ChatKit's beta is not available here."""


class BetaNotAvailableBadRequestError(BetaNotAvailableError, BadRequestError):
    """The same with status 400; caught as either of its two parents."""
