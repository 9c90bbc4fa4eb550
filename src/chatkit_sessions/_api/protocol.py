"""Operation → request; status, headers and body → the result or a typed error. No socket here."""

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import JsonValue, SecretStr, ValidationError

from chatkit_sessions._config.retry import parse_retry_after, parse_should_retry
from chatkit_sessions._config.settings import Config
from chatkit_sessions._redaction import MaskedBytes, MaskedHeaders, redact, redact_json
from chatkit_sessions._version import __version__
from chatkit_sessions.errors import APIResponseValidationError, APIStatusError
from chatkit_sessions.models import ChatKitErrorDetail, ChatKitErrorResponse

from .diagnosis import diagnose, is_redirect
from .operations import Operation, UnacceptableAnswerError, describe_validation_error

T = TypeVar("T")
KeyCallable = TypeVar("KeyCallable")

MAX_SUCCESS_BODY: Final = 1024 * 1024
"""Bytes of a success answer that are read; a session takes about one thousandth of it."""
MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error answer that are read."""

_MONTHS: Final[list[str]] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
]  # fmt: skip
_DATE: Final = re.compile(
    r"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) (?P<month>"
    + "|".join(_MONTHS)
    + r") (?P<year>20[0-9]{2}) (?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2}) GMT"
)
_MAX_QUOTED: Final = 500
_MAX_DEPTH: Final = 64
_MAX_SECRET: Final = 1024
_CHARACTERS_OF_SECRETS: Final = string.ascii_letters + string.digits + "_-.+/=*%\\~"


@dataclass(frozen=True, slots=True)
class Request:
    """What an HTTP client is asked to send."""

    method: str
    url: str
    headers: MaskedHeaders
    body: MaskedBytes | None
    secrets: tuple[SecretStr, ...]
    """What it holds and no text may quote."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read as far as `max_body` allows."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    """Found by names in lower case."""
    body: bytes = field(repr=False)
    flaw: str | None = None
    """What keeps the body from being read in full, None where it is all there."""


def build_request(
    operation: Operation[object], config: Config[KeyCallable], key: SecretStr
) -> Request:
    """Add to an operation what every call carries (the API's reference, "Authentication")."""
    headers = MaskedHeaders(
        {
            "Authorization": f"Bearer {key.get_secret_value()}",
            "OpenAI-Beta": "chatkit_beta=v1",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"chatkit-sessions/{__version__}",
        }
    )
    if operation.body is not None:
        headers["Content-Type"] = "application/json"
    if config.organization is not None:
        headers["OpenAI-Organization"] = config.organization
    if config.project is not None:
        headers["OpenAI-Project"] = config.project
    return Request(
        operation.method,
        config.base_url + operation.path,
        headers,
        operation.body,
        secrets=(key, *operation.secrets),
    )


def is_success(status_code: int) -> bool:
    """Whether a status is 2xx."""
    return HTTPStatus.OK <= status_code < HTTPStatus.MULTIPLE_CHOICES


def max_body(status_code: int) -> int:
    """How many bytes of an answer's body are worth reading."""
    return MAX_SUCCESS_BODY if is_success(status_code) else MAX_ERROR_BODY


def request_id(headers: Mapping[str, str], secrets: tuple[SecretStr, ...]) -> str | None:
    """The API's name of the request, as far as it can be shown."""
    value = headers.get("x-request-id")
    return _quotable(value, secrets) if value else None


def read_answer(
    operation: Operation[T], answer: Answer, *, key: SecretStr, host: str, now: datetime
) -> T:
    """Make an operation's result of an answer.

    Args:
        operation: What was asked.
        answer: What came back.
        key: The key that was sent, so that no text quotes it.
        host: Where the call went, for hints.
        now: The present, for a `retry-after` that is a date.

    Raises:
        APIResponseValidationError: A success answer that is not what the contract says.
        APIStatusError: Any other status, as its subclass.
    """
    secrets = (key, *operation.secrets)
    if is_success(answer.status_code):
        return _read_success(operation, answer, secrets)
    detail, body = _read_error_body(answer, secrets)
    recovered = operation.read_refusal(answer.status_code, detail)
    if recovered is not None:
        return recovered
    raise _status_error(answer, detail, body, secrets=secrets, host=host, now=now)


def _read_success(operation: Operation[T], answer: Answer, secrets: tuple[SecretStr, ...]) -> T:
    named = request_id(answer.headers, secrets)
    result = _parse_success(operation, answer, named)
    if not isinstance(result, _Flaw):
        return result
    content_type = _quotable(answer.headers.get("content-type"), secrets)
    raise APIResponseValidationError(
        f"The answer ({content_type or 'no content type'}, {len(answer.body):,} bytes) is not what "
        f"the contract says: {result.reason}.",
        status_code=answer.status_code,
        content_type=content_type,
        content_length=len(answer.body),
        request_id=named,
        hint="Something other than the ChatKit sessions API may have answered (a proxy, a login "
        "page, a gateway). Check OPENAI_BASE_URL (or `base_url`); the session may exist all the "
        "same and then expires by itself.",
    )


def parse_date(text: str) -> str | None:
    """Read a `Date` header as ISO 8601; None where it is none (RFC 9110, section 5.6.7).

    Of the formats that HTTP has had, only the one that servers may still send is read, and of
    centuries the present one.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    month = _MONTHS.index(match["month"]) + 1
    text = f"{match['year']}-{month:02}-{match['day']}T{match['time']}+00:00"
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why a success answer is none, without anything of it."""

    reason: str


def _parse_success(operation: Operation[T], answer: Answer, named: str | None) -> T | _Flaw:
    """Raises nothing: an error's traceback would hold this frame, and with it the new secret."""
    try:
        document = _decode(answer)
        if not isinstance(document, dict):
            return _Flaw("it is JSON but not an object")
        answered_at = parse_date(answer.headers.get("date", ""))
        return operation.read({**document, "request_id": named, "answered_at": answered_at})
    except ValidationError as error:
        return _Flaw(describe_validation_error(error))
    except (_Unreadable, UnacceptableAnswerError) as error:
        return _Flaw(str(error))


class _Unreadable(Exception):  # noqa: N818 -- never leaves this module
    """Why a body is no JSON document of ours. Holds nothing of the body."""


def _decode(answer: Answer) -> JsonValue:
    if answer.flaw is not None:
        raise _Unreadable(answer.flaw)
    if not answer.body:
        raise _Unreadable("it is empty")
    try:
        document = _JSON.decode(answer.body.decode())
    except UnicodeDecodeError:
        flaw = "it is not UTF-8"
    except RecursionError:
        flaw = "it is nested too deeply"
    except ValueError:
        flaw = "it is not JSON"
    else:
        if _may_break(answer.body):
            _check(document, depth=0)
        return cast("JsonValue", document)
    raise _Unreadable(flaw)


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


_JSON: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _may_break(body: bytes) -> bool:
    """Whether `_check` can find anything; it goes through every value, which takes its time."""
    return b"\\u" in body or body.count(b"[") + body.count(b"{") > _MAX_DEPTH


def _check(value: object, *, depth: int) -> None:
    """Refuse what Python's reader takes and what later breaks: lone surrogates, endless nesting."""
    if depth > _MAX_DEPTH:
        raise _Unreadable("it is nested too deeply")
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
        raise _Unreadable("it holds a lone surrogate") from None


def _read_error_body(
    answer: Answer, secrets: tuple[SecretStr, ...]
) -> tuple[ChatKitErrorDetail | None, JsonValue]:
    """The API's own error where there is one, and the body for `APIStatusError.body`."""
    try:
        document = _decode(answer)
    except _Unreadable:
        text = answer.body.decode(errors="replace")
        if answer.flaw is not None:
            # Where it was cut off, half of a secret may stand that nothing recognises.
            whole_words = len(text.rstrip(_CHARACTERS_OF_SECRETS))
            text = text[: max(whole_words, len(text) - _MAX_SECRET)]
        return None, redact(text, secrets) or None
    body = cast("JsonValue", redact_json(document, secrets))
    try:
        return ChatKitErrorResponse.model_validate(body).error, body
    except ValidationError:
        return None, body


def _status_error(
    answer: Answer,
    detail: ChatKitErrorDetail | None,
    body: JsonValue,
    *,
    secrets: tuple[SecretStr, ...],
    host: str,
    now: datetime,
) -> APIStatusError:
    diagnosis = diagnose(answer.status_code, detail, host=host)
    return diagnosis.error_type(
        _message(answer, detail, secrets),
        status_code=answer.status_code,
        error=detail,
        body=body,
        request_id=request_id(answer.headers, secrets),
        retry_after=parse_retry_after(answer.headers, now=now),
        should_retry=parse_should_retry(answer.headers),
        hint=diagnosis.hint,
    )


def _message(
    answer: Answer, detail: ChatKitErrorDetail | None, secrets: tuple[SecretStr, ...]
) -> str:
    """What happened, in the API's words or, without its envelope, in ours and unquoted."""
    if is_redirect(answer.status_code):
        target = _redirect_target(answer.headers.get("location", ""))
        return f"A redirect to {_quotable(target, secrets) or 'nowhere that can be told'}"
    if detail is not None:
        return _quotable(detail.message, secrets) or "The API gives no message"
    content_type = _quotable(answer.headers.get("content-type"), secrets)
    return f"An answer without the API's error envelope ({content_type or 'no content type'})"


def _redirect_target(location: str) -> str:
    """Without credentials, query and fragment: a redirect likes to carry what it was given."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    if not host and "@" in parts.path:
        return ""
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _quotable(text: str | None, secrets: tuple[SecretStr, ...]) -> str | None:
    """Text from elsewhere on one line, short, printable and without secrets."""
    if not text:
        return None
    line = redact(text, secrets)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    return line if len(line) <= _MAX_QUOTED else line[:_MAX_QUOTED] + "…"
