"""Operation → request; status, headers and body → the result or a typed error. No socket here."""

import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import urlencode, urlsplit

from pydantic import JsonValue, SecretBytes, SecretStr, ValidationError
from pydantic_core import from_json

from chatkit_sessions._config.retry_policy import parse_retry_after, parse_should_retry
from chatkit_sessions._config.settings import Settings
from chatkit_sessions._redaction import hidden_from_tracebacks, redact, redact_json
from chatkit_sessions._version import __version__
from chatkit_sessions.errors import APIResponseValidationError
from chatkit_sessions.models import ChatKitErrorDetail, ChatKitErrorResponse

from .diagnosis import diagnose, is_redirect
from .operations import Operation, UnacceptableResponseError, describe_validation_error

T = TypeVar("T")

MAX_SUCCESS_BODY: Final = 1024 * 1024
"""Bytes of a success response that are read; a session takes about one thousandth of it."""
MAX_ESCAPED: Final = 6
"""Bytes that JSON may take for one: `\\u003c` for `<`."""
MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error response that are read."""

EXTENSIONS_HEADER: Final = "chatkit-extensions"
SIGN_OUT_EXTENSION: Final = "sign_out"
"""What the sessions service of this library lists in that header (`openapi.json`)."""
_UNREADABLE_RESPONSE: Final = (
    "The response may come from something other than the ChatKit sessions API (a proxy, a login "
    "page, a gateway). Check OPENAI_BASE_URL (or `base_url`); the session may exist and then "
    "expires by itself."
)
_MIXED_UP_RESPONSES: Final = (
    "Something between here and the API (a gateway, a cache, a proxy) seems to give one request "
    "the response to another. Check what OPENAI_BASE_URL (or `base_url`) names, before it shows "
    "one user the chats of another."
)
_REQUEST_ID: Final = "x-request-id"
_MAX_DEPTH: Final = 64
_MAX_QUOTED: Final = 500
_MAX_SECRET: Final = 1024
_CHARACTERS_OF_SECRETS: Final = string.ascii_letters + string.digits + "_-.+/=*%\\~"

_MONTHS: Final[list[str]] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
]  # fmt: skip
_HTTP_DATE: Final = re.compile(
    rf"[A-Z][a-z]{{2}}, ([0-9]{{2}}) ({'|'.join(_MONTHS)}) (20[0-9]{{2}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)

Headers: TypeAlias = Mapping[str, str | SecretStr]


class Request(NamedTuple):
    """A request for an HTTP client to send.

    Its secrets are unwrapped only where the HTTP client's own request is built: tools that show
    local variables slice bytes and walk through mappings.
    """

    method: str
    url: str
    headers: Headers
    body: SecretBytes | None
    secrets: tuple[SecretStr, ...]
    """The secrets in it, which no text may quote."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, read up to `max_body` bytes."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    """Their names are in lower case."""
    body: SecretBytes
    body_error: str | None = None
    """Why the body is not complete; None where it is."""


class CommonHeaders(NamedTuple):
    """The headers of all requests of a client with one key; built once (see `build_request`)."""

    key: SecretStr
    without_body: Headers
    with_body: Headers


def common_headers(settings: Settings, key: SecretStr) -> CommonHeaders:
    """Build the headers of a client's requests (the API's reference, "Authentication")."""
    headers: dict[str, str | SecretStr] = {
        "Authorization": SecretStr(f"Bearer {key.get_secret_value()}"),
        "OpenAI-Beta": "chatkit_beta=v1",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"chatkit-sessions/{__version__}",
    }
    if settings.organization is not None:
        headers["OpenAI-Organization"] = settings.organization
    if settings.project is not None:
        headers["OpenAI-Project"] = settings.project
    return CommonHeaders(key, headers, {**headers, "Content-Type": "application/json"})


def build_request(operation: Operation[object], base_url: str, headers: CommonHeaders) -> Request:
    """Build an operation's request, with the headers of every call."""
    url = base_url + operation.path
    if operation.query:
        url = f"{url}?{urlencode(operation.query)}"
    return Request(
        operation.method,
        url,
        headers.without_body if operation.body is None else headers.with_body,
        operation.body,
        (headers.key, *operation.secrets),
    )


def is_success(status_code: int) -> bool:
    """Whether a status is 2xx."""
    return status_code // 100 == 2  # noqa: PLR2004 -- an enumeration's members cost a call each


def max_body(status_code: int, *, sent: int = 0) -> int:
    """The most bytes of a response's body to read.

    Args:
        status_code: The response's.
        sent: Bytes of the request's body. A session repeats its state variables, of which the
            contract allows many megabytes.
    """
    if not is_success(status_code):
        return MAX_ERROR_BODY
    return MAX_SUCCESS_BODY + MAX_ESCAPED * sent


@hidden_from_tracebacks
def parse_request_id(response: Response, secrets: tuple[SecretStr, ...]) -> str | None:
    """The API's id of the request, printable and without secrets."""
    return _quotable(response.headers.get(_REQUEST_ID), secrets)


@hidden_from_tracebacks
def parse_response(
    operation: Operation[T],
    response: Response,
    *,
    key: SecretStr,
    host: str,
    now: Callable[[], datetime],
) -> T:
    """Parse a response into an operation's result.

    Args:
        operation: The operation of the request.
        response: The response.
        key: The key that was sent, which no text quotes.
        host: The called host, for hints.
        now: Returns the current time, for a `retry-after` that is a date.

    Raises:
        APIResponseValidationError: A success response that is not what the contract says.
        APIStatusError: Any other status, as its subclass.
    """
    secrets = (key, *operation.secrets)
    request_id = _quotable(response.headers.get(_REQUEST_ID), secrets)
    if is_success(response.status_code):
        result = _parse_success(operation, response, request_id)
        if isinstance(result, UnacceptableResponseError):
            raise _validation_error(response, result, secrets, request_id=request_id)
        return result
    detail, body = _parse_error_body(response, secrets)
    recovered = operation.parse_error(response.status_code, detail)
    if recovered is not None:
        return recovered
    diagnosis = diagnose(response.status_code, detail, host=host)
    raise diagnosis.error_type(
        _message(response, detail, secrets),
        status_code=response.status_code,
        error=detail,
        body=body,
        request_id=request_id,
        retry_after=parse_retry_after(response.headers, now=now()),
        should_retry=parse_should_retry(response.headers),
        hint=diagnosis.hint,
    )


def _parse_success(
    operation: Operation[T], response: Response, request_id: str | None
) -> T | UnacceptableResponseError:
    """The result, or why there is none: raised here, the error would have a context."""
    try:
        document = _decode(response)
        if not isinstance(document, dict):
            return UnacceptableResponseError("it is JSON but not an object")
        answered_at = parse_http_date(response.headers.get("date", ""))
        return operation.parse({**document, "request_id": request_id, "answered_at": answered_at})
    except ValidationError as error:
        return UnacceptableResponseError(describe_validation_error(error))
    except UnacceptableResponseError as error:
        return error


def _validation_error(
    response: Response,
    problem: UnacceptableResponseError,
    secrets: tuple[SecretStr, ...],
    *,
    request_id: str | None,
) -> APIResponseValidationError:
    content_type = _quotable(response.headers.get("content-type"), secrets)
    return APIResponseValidationError(
        f"The response ({content_type or 'no content type'}, {len(response.body):,} bytes) is not "
        f"what the contract says: {problem}.",
        status_code=response.status_code,
        content_type=content_type,
        content_length=len(response.body),
        request_id=request_id,
        hint=_MIXED_UP_RESPONSES if problem.mixed_up else _UNREADABLE_RESPONSE,
        session_id=problem.session_id,
    )


def parse_http_date(text: str) -> datetime | None:
    """Read a `Date` header; None where it is none (RFC 9110, section 5.6.7).

    Of the formats that HTTP has had, only the one that servers may still send is read, and of
    centuries the present one.
    """
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    time = int(hour), int(minute), int(second)
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), *time, tzinfo=UTC)
    except ValueError:
        return None


def _decode(response: Response) -> JsonValue:
    if response.body_error is not None:
        raise UnreadableBodyError(response.body_error)
    return decode_json(response.body.get_secret_value())


def _parse_error_body(
    response: Response, secrets: tuple[SecretStr, ...]
) -> tuple[ChatKitErrorDetail | None, JsonValue]:
    """The API's own error where there is one, and the body for `APIStatusError.body`."""
    try:
        document = _decode(response)
    except UnreadableBodyError:
        text = response.body.get_secret_value().decode(errors="replace")
        if response.body_error is not None:
            # Where it was cut off, half of a secret may stand that nothing recognises.
            whole_words = len(text.rstrip(_CHARACTERS_OF_SECRETS))
            text = text[: max(whole_words, len(text) - _MAX_SECRET)]
        return None, redact(text, secrets) or None
    body = cast("JsonValue", redact_json(document, secrets))
    try:
        return ChatKitErrorResponse.model_validate(body).error, body
    except ValidationError:
        return None, body


def _message(
    response: Response, detail: ChatKitErrorDetail | None, secrets: tuple[SecretStr, ...]
) -> str:
    """What happened, in the API's words or, without its envelope, in ours and unquoted."""
    if is_redirect(response.status_code):
        target = _redirect_target(response.headers.get("location", ""))
        return f"A redirect to {_quotable(target, secrets) or 'an unreadable location'}"
    if detail is not None:
        return _quotable(detail.message, secrets) or "The API returned no message"
    content_type = _quotable(response.headers.get("content-type"), secrets)
    return f"A response without the API's error envelope ({content_type or 'no content type'})"


def _redirect_target(location: str) -> str:
    """The target without credentials, query and fragment: redirects often repeat them."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    if not host and "@" in parts.path:
        return ""
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _quotable(text: str | None, secrets: tuple[SecretStr, ...]) -> str | None:
    """Foreign text on one line: short, printable and without secrets."""
    if not text:
        return None
    line = redact(text, secrets)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    return line if len(line) <= _MAX_QUOTED else line[:_MAX_QUOTED] + "…"


class UnreadableBodyError(UnacceptableResponseError):
    """Why a body is not a JSON document. Holds nothing of the body."""


def decode_json(body: bytes) -> JsonValue:
    """Decode a response's body.

    Raises:
        UnreadableBodyError: The body is not UTF-8 or not JSON, or holds what breaks later: a lone
            surrogate, nesting without end, `NaN`.
    """
    if not body:
        raise UnreadableBodyError("it is empty")
    document = _decode_plain(body)
    plain = document is not None
    if not plain:
        document = _decode_strictly(body)
    if not plain or body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        _check(document, depth=0)  # visits every value, which takes its time
    return document


def _decode_plain(body: bytes) -> JsonValue:
    """Decode by pydantic's parser, which is the faster; None leaves it to the other one."""
    try:
        document: JsonValue = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    return document


def _decode_strictly(body: bytes) -> JsonValue:
    try:
        document: JsonValue = _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it is not JSON"
    else:
        return document
    raise UnreadableBodyError(problem)


def _reject_constant(name: str) -> float:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_reject_constant)


def _check(value: object, *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise UnreadableBodyError("it is nested too deeply")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _check(item, depth=depth + 1)
    elif isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            _check_text(name)
            _check(item, depth=depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableBodyError("it holds a lone surrogate") from None
