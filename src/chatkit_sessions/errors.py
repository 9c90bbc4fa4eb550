"""The exceptions of this library.

    ChatKitError
    ├── ConfigurationError              no key, no workflow id, key over plain http to a remote host
    ├── InvalidRequestError             an argument outside the contract; also a ValueError
    ├── SessionNotRecordedError         get: the API has no route, and no record exists
    ├── SessionDeletedError             `delete_sessions` was called for the user meanwhile
    ├── SessionStoreError               the session store is unavailable
    ├── APIConnectionError              no response, or an incomplete one
    │   └── APITimeoutError             … within the call's timeout
    ├── APIResponseValidationError      a 2xx that does not match the contract
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

`args` are what an error's class can be called with to restore it, in types that JSON has: task
queues send no more of it. Only the response's body is not among them.
"""

from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from pydantic import JsonValue

from ._troubleshooting_page import reference
from .models import ChatKitErrorDetail

_REFERENCE: Final = "See: "
_Error = TypeVar("_Error", bound="ChatKitError")


class ChatKitError(Exception):
    """The base class of all errors of this library.

    Attributes:
        message: What happened.
        hint: What to check, in a few sentences, and the command that prints more about this kind of
            error.
    """

    _advice: ClassVar[str] = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self._restored_by(message, hint)
        self.message = message
        where = reference(_section(type(self)))
        advice = (hint or self._advice).removesuffix(where).rstrip()
        self.hint: str = f"{advice} {where}".lstrip()

    def _restored_by(self, *args: object) -> None:
        Exception.__init__(self, *args)

    def __str__(self) -> str:
        label = "" if self.hint.startswith(_REFERENCE) else "Hint: "
        return f"{self._headline()}\n{label}{self.hint}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._headline()!r})"

    def _headline(self) -> str:
        return self.message

    def __reduce__(
        self,
    ) -> tuple[Callable[..., "ChatKitError"], tuple[object, ...], dict[str, object]]:
        """Pickle a subclass of the user's, too, whatever its arguments are."""
        return _blank, (type(self), *self.args), vars(self)


def _section(error_type: type[ChatKitError]) -> str:
    """The error's section; for a user's subclass, the section of its public base class."""
    return next(each.__name__ for each in error_type.__mro__ if each.__module__ in _PUBLIC)


_PUBLIC: Final = {__name__, "chatkit_sessions.service.errors"}


def _blank(error_type: type[_Error], *args: object) -> _Error:
    return error_type.__new__(error_type, *args)


class ConfigurationError(ChatKitError):
    """A setting is missing or invalid; nothing was sent."""


class InvalidRequestError(ChatKitError, ValueError):
    """An argument is outside the bounds of OpenAI's API description; nothing was sent."""


class SessionNotRecordedError(ChatKitError):
    """The API has no route to read a session, and no record of the session exists."""


class SessionDeletedError(ChatKitError):
    """`delete_sessions` was called for the user while this call created a session.

    The new session, if any, is cancelled.
    """


class SessionStoreError(ChatKitError):
    """The session store is unavailable, and the call needs it.

    `delete_session` raises it after the API has cancelled the session. The store was not updated
    and may return the session until it expires: delete it again.
    """


class APIConnectionError(ChatKitError):
    """No response arrived, or an incomplete one. The request may have taken effect.

    Attributes:
        answered: Whether a complete response arrived that the HTTP client could not decode. The
            call is not retried, because a session may exist.
        permanent: Whether a retry cannot help until a setting changes, such as with an untrusted
            certificate. The call is not retried.
    """

    permanent: bool = False  # 0.9.0 pickled its errors without it

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        answered: bool = False,  # noqa: FBT001, FBT002 -- see `args` in the module's docstring
        permanent: bool = False,  # noqa: FBT001, FBT002 -- as above
    ) -> None:
        super().__init__(message, hint)
        self._restored_by(message, hint, answered, permanent)
        self.answered = answered
        self.permanent = permanent


class APITimeoutError(APIConnectionError):
    """No complete response arrived within the call's timeout."""


class APIResponseValidationError(ChatKitError):
    """A success response does not match the contract, or names another user or workflow.

    The error never quotes the body.

    Attributes:
        status_code: The HTTP status, 200 to 299.
        content_type: The response's content type; None if it had none.
        content_length: How many bytes of the body were read.
        request_id: The API's id of the request; None if the response had none.
        session_id: The id of the other user's session, which the client has tried to cancel; None
            in other cases.
    """

    session_id: str | None = None  # 0.9.0 pickled its errors without it

    def __init__(  # noqa: PLR0917 -- see `args` in the module's docstring
        self,
        message: str,
        status_code: int,
        content_type: str | None,
        content_length: int,
        request_id: str | None,
        session_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint)
        self._restored_by(
            message, status_code, content_type, content_length, request_id, session_id, hint,
        )  # fmt: skip
        self.status_code = status_code
        self.content_type = content_type
        self.content_length = content_length
        self.request_id = request_id
        self.session_id = session_id

    def _headline(self) -> str:
        return _headline(self.status_code, self.message, self.request_id)


class APIStatusError(ChatKitError):
    """The API, or a proxy in front of it, returned an error status.

    Attributes:
        status_code: The HTTP status.
        error: The `error` object of the response: message, type, param and code. None if the
            response has none.
        body: The response's JSON, else its text, with secrets redacted; None if it was empty.
        request_id: The API's id of the request, for OpenAI's support; None if there was none.
        retry_after: Seconds to wait, from `retry-after-ms` or `retry-after`; None without either.
        should_retry: The value of `x-should-retry`; None if it is neither `true` nor `false`.
        hint: What to check, and the command that prints more about it.
    """

    def __init__(  # noqa: PLR0917 -- see `args` in the module's docstring
        self,
        message: str,
        status_code: int,
        request_id: str | None = None,
        error: ChatKitErrorDetail | dict[str, str | None] | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,  # noqa: FBT001 -- see `args` in the module's docstring
        hint: str | None = None,
        *,
        body: JsonValue = None,
    ) -> None:
        super().__init__(message, hint)
        if isinstance(error, dict):
            error = ChatKitErrorDetail.model_validate(error)
        self._restored_by(
            message, status_code, request_id, detail_as_dict(error), retry_after, should_retry,
            hint,
        )  # fmt: skip
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


def detail_as_dict(error: ChatKitErrorDetail | None) -> dict[str, str | None] | None:
    """The known fields of the API's error: unknown ones may hold anything."""
    if error is None:
        return None
    return {
        "message": error.message, "type": error.type, "param": error.param, "code": error.code,
    }  # fmt: skip


def _headline(status_code: int, message: str, request_id: str | None) -> str:
    named = f" (request id {request_id})" if request_id else ""
    return f"{status_code}: {message}{named}"


class BadRequestError(APIStatusError):
    """400: the API rejects the request."""


class AuthenticationError(APIStatusError):
    """401: the API rejects the key."""


class PermissionDeniedError(APIStatusError):
    """403: the key is valid, but may not do this."""


class NotFoundError(APIStatusError):
    """404: the workflow, session or route does not exist, or not for this key."""


class WorkflowNotFoundError(NotFoundError):
    """404: the key's project has no workflow with this id."""


class SessionNotFoundError(NotFoundError):
    """404: the key's project has no session with this id."""


class ConflictError(APIStatusError):
    """409: the request conflicts with another one."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed, and the API rejects it."""


class RateLimitError(APIStatusError):
    """429: too many requests, or no quota left; see `retry_after`."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


class BetaNotAvailableError(APIStatusError):
    """Code `invalid_beta`: the API did not get or accept the `OpenAI-Beta` header."""


class BetaNotAvailableBadRequestError(BetaNotAvailableError, BadRequestError):
    """`BetaNotAvailableError` with status 400: also a `BadRequestError`."""
