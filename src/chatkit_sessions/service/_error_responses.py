"""Every error of the API, with its status, message, code and parameter."""

from __future__ import annotations

from http.client import responses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._bodies import JsonValue

_SERVER_FAULT = (
    "The server had an error while processing your request. Sorry about that!",
    "server_error",
)
_RATE_LIMITED = ("Rate limit reached for requests. Please try again later.", "requests")

_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class ErrorResponse(Exception):  # noqa: N818 - the API's response, not a fault of the program
    """A request that the API rejects.

    Args:
        status_code: The HTTP status of the response.
        message: The error's message.
        error_type: The error's `type`.
        code: The error's `code`; None if the API has none for it.
        param: The invalid field, as a dotted path; None if there is none.
        headers: Additional headers of the response.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        error_type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers: Mapping[str, str] = dict(headers or {})
        self.status_code = status_code
        self.message = message
        self.error_type = error_type
        self.code = code
        self.param = param

    def envelope(self) -> JsonValue:
        """Return the body of the response."""
        return {
            "error": {
                "message": self.message,
                "type": self.error_type,
                "param": self.param,
                "code": self.code,
            }
        }


def default_error(status_code: int) -> tuple[str, str]:
    """The default message and type for a status."""
    if status_code >= 500:  # noqa: PLR2004 - where HTTP's server errors begin
        return _SERVER_FAULT
    if status_code == 429:  # noqa: PLR2004 - HTTP's Too Many Requests
        return _RATE_LIMITED
    return responses.get(status_code, "Refused"), "invalid_request_error"


def invalid_url(method: str, path: str) -> ErrorResponse:
    """The route does not exist."""
    return ErrorResponse(404, f"Invalid URL ({method} {path})")


def invalid_method(method: str, path: str, *, allowed: Iterable[str]) -> ErrorResponse:
    """The route exists, but not for this method."""
    return ErrorResponse(
        405, f"Invalid method for URL ({method} {path})", headers={"allow": ", ".join(allowed)}
    )


def missing_api_key() -> ErrorResponse:
    """The request has no key."""
    return ErrorResponse(401, "Missing bearer or basic authentication in header")


def incorrect_api_key(api_key: str, *, as_openai: bool) -> ErrorResponse:
    """The key is unknown; the message shows only its ends."""
    advice = "This service's `api_keys` do not have it."
    if as_openai:
        advice = "You can find your API key at https://platform.openai.com/account/api-keys."
    return ErrorResponse(
        401,
        f"Incorrect API key provided: {_masked(api_key)}. {advice}",
        code="invalid_api_key",
    )


def missing_beta_header() -> ErrorResponse:
    """The request lacks the header of the ChatKit beta."""
    return ErrorResponse(
        400,
        "You must provide the 'OpenAI-Beta' header to access the Chatkit API. "
        "Please try again by setting the header 'OpenAI-Beta: chatkit_beta=v1'.",
        code="invalid_beta",
    )


def malformed_json() -> ErrorResponse:
    """The body is not JSON."""
    return ErrorResponse(400, "We could not parse the JSON body of your request.")


def missing_parameter(param: str) -> ErrorResponse:
    """A required field is missing."""
    return _invalid(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)


def unknown_parameter(param: str) -> ErrorResponse:
    """A field that the API does not know."""
    return _invalid(f"Unknown parameter: '{param}'.", "unknown_parameter", param)


def invalid_type(param: str, expected: str, value: JsonValue) -> ErrorResponse:
    """A value of another JSON type; an empty `param` stands for the whole body."""
    found = _JSON_TYPES[type(value)]
    return _invalid(
        f"Invalid type for '{param or 'body'}': expected {expected}, but got {found} instead.",
        "invalid_type",
        param or None,
    )


def integer_below_minimum(param: str, minimum: int, value: int) -> ErrorResponse:
    """A number smaller than the contract allows."""
    return _invalid(
        f"Invalid '{param}': integer below minimum value. "
        f"Expected a value >= {minimum}, but got {value} instead.",
        "integer_below_min_value",
        param,
    )


def integer_above_maximum(param: str, maximum: int, value: int) -> ErrorResponse:
    """A number greater than the contract allows."""
    return _invalid(
        f"Invalid '{param}': integer above maximum value. "
        f"Expected a value <= {maximum}, but got {value} instead.",
        "integer_above_max_value",
        param,
    )


def string_above_maximum_length(param: str, maximum: int, length: int) -> ErrorResponse:
    """A text longer than the contract allows."""
    return _invalid(
        f"Invalid '{param}': string too long. Expected a string with maximum length {maximum}, "
        f"but got a string with length {length} instead.",
        "string_above_max_length",
        param,
    )


def empty_string(param: str) -> ErrorResponse:
    """An empty text."""
    return _invalid(
        f"Invalid '{param}': empty string. Expected a string with minimum length 1, "
        "but got an empty string instead.",
        "empty_string",
        param,
    )


def object_above_maximum_properties(param: str, maximum: int, count: int) -> ErrorResponse:
    """A map with more entries than the contract allows."""
    return _invalid(
        f"Invalid '{param}': too many properties. Expected an object with at most {maximum} "
        f"properties, but got an object with {count} properties instead.",
        "object_above_max_properties",
        param,
    )


def unsupported_value(param: str, value: str, supported: str) -> ErrorResponse:
    """A text that is not the one allowed."""
    return _invalid(
        f"Invalid value: '{value}'. Supported values are: '{supported}'.", "invalid_value", param
    )


def ended_client_secret() -> ErrorResponse:
    """A secret that cannot be refreshed; the message does not repeat it."""
    return _invalid(
        "Invalid 'client_secret': the session it belongs to is unknown or has ended.",
        "invalid_value",
        "client_secret",
    )


def malformed_session_id(session_id: str) -> ErrorResponse:
    """A malformed session id."""
    return _invalid(
        f"Invalid 'session_id': '{session_id}'. Expected an ID that begins with 'cksess'.",
        "invalid_value",
        "session_id",
    )


def session_not_found(session_id: str) -> ErrorResponse:
    """A session that does not exist for this key's project."""
    return ErrorResponse(404, f"Chatkit Session with id '{session_id}' not found.")


def workflow_not_found(workflow_id: str, advice: str = "") -> ErrorResponse:
    """A workflow that does not exist for this key's project."""
    return ErrorResponse(404, f"Workflow with id '{workflow_id}' not found.{advice}")


def request_too_large(maximum: int) -> ErrorResponse:
    """The body is longer than the server accepts."""
    return ErrorResponse(413, f"The request body is longer than {maximum} bytes.")


def incomplete_request() -> ErrorResponse:
    """The client went away before its body was complete."""
    return ErrorResponse(400, "The request body is shorter than its Content-Length.")


def store_unavailable() -> ErrorResponse:
    """The session store is unavailable."""
    message = "The session store is unavailable. Please try again later."
    return ErrorResponse(503, message, error_type="server_error", headers={"retry-after": "1"})


def _invalid(message: str, code: str, param: str | None) -> ErrorResponse:
    return ErrorResponse(400, message, code=code, param=param)


def _masked(api_key: str) -> str:
    shown_first, shown_last = 5, 4
    hidden = len(api_key) - shown_first - shown_last
    if hidden < shown_last:
        return "*" * len(api_key)
    return api_key[:shown_first] + "*" * hidden + api_key[-shown_last:]
