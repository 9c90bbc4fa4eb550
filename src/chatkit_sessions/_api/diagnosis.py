"""An error response → the error's class and a hint that says what to check.

The cases, their statuses and texts are those that the API is known to return; a case is recognised
by its text alone where the API gives it no code.
"""

import re
from http import HTTPStatus
from typing import Final, NamedTuple

from chatkit_sessions._config.retry_policy import FOR_NOW
from chatkit_sessions.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BetaNotAvailableBadRequestError,
    BetaNotAvailableError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionNotFoundError,
    UnprocessableEntityError,
    WorkflowNotFoundError,
)
from chatkit_sessions.models import ChatKitErrorDetail


class Diagnosis(NamedTuple):
    """The class of the error and its hint; `{host}` is filled in by `diagnose`."""

    error_type: type[APIStatusError]
    hint: str


_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}

_BETA = (
    "The API did not see or accept the header `OpenAI-Beta: chatkit_beta=v1`, which this library "
    "always sends. Check whether a proxy or gateway at {host} drops it, and whether ChatKit is "
    "available to the key's organization."
)
_WRONG_KEY = (
    "The API key is not valid: mistyped, revoked, or of another service. Compare OPENAI_API_KEY "
    "(or the `api_key` you passed) with https://platform.openai.com/api-keys and check that "
    "{host} is the service that issued it."
)
_NO_KEY = (
    "The request arrived without its Authorization header. This library always sends it: check "
    "whether a proxy or gateway at {host} removes it."
)
_MISSING_SCOPES = (
    "The key is restricted and lacks a permission. Give it write access to ChatKit (or all "
    "permissions) at https://platform.openai.com/api-keys, or use a key that has it."
)
_MISMATCHED_PROJECT = (
    "The key belongs to another project or organization than the one named in the request. Check "
    "OPENAI_PROJECT_ID and OPENAI_ORG_ID (or `project` and `organization`), or omit them."
)
_REGION = (
    "The API rejects calls from the country or region of this machine's network address. Check "
    "where the backend, or the proxy that it goes through, is hosted."
)
_WORKFLOW = (
    "Check that the id (OPENAI_CHATKIT_WORKFLOW_ID or `workflow_id`) is complete, that the "
    "workflow is published and active, and that the key belongs to the same project and "
    "organization: this is the most frequent cause. Agent Builder, where hosted workflows are "
    "made, closes on 2026-11-30; afterwards also check whether the workflow still exists, and set "
    "OPENAI_BASE_URL where a ChatKit-compatible server has taken its place."
)
_OWN_SETTINGS: Final = {
    "workflows": "Pass one of them: OPENAI_CHATKIT_WORKFLOW_ID, `workflow_id`, or that of an "
    "endpoint's `options`. Or add this one to the `workflows` of your service.",
    "api_keys": "Compare OPENAI_API_KEY (or `api_key`) with the `api_keys` of your service, and "
    "check that {host} is where it runs.",
}
"""For a service of this library, whose messages name its settings."""
_OWN_SERVICE: Final = re.compile(r"\bThis service's `(workflows|api_keys)`")
_SESSION = (
    "No session of this id exists for the key's project. Check that the id (`cksess_…`) is the "
    "one that `create_session` returned, and that it was created with a key of the same project."
)
_ROUTE = (
    "{host} has no such route. Check OPENAI_BASE_URL (or `base_url`): it names the API's root and "
    "usually ends in `/v1`; a gateway or ChatKit-compatible server may not offer this call."
)
_ENDED = (
    "Hosted workflows (`wf_…`) ended on 2026-11-30, so {host} no longer creates sessions for them. "
    'Issue sessions of your own chat server with `chatkit_sessions.service`: docs, "After '
    "2026-11-30\". Before that day, check OPENAI_BASE_URL (or `base_url`) if it is set: OpenAI's "
    "ends in `/v1`."
)
_MALFORMED_SESSION_ID = (
    "A session's id begins with `cksess`. Check that `session.id` was passed, not the client "
    "secret, the user or the workflow id."
)
_USER_TYPE = (
    "`user` is a string that identifies your end user, never an object. This library sends a "
    "string: check whether a gateway at {host} rewrites the request."
)
_MISSING_PARAMETER = (
    "The API requires a parameter that this request did not have. Check whether a gateway at "
    "{host} rewrites requests, and whether a newer version of this library knows the parameter."
)
_UNKNOWN_PARAMETER = (
    "The API does not know a parameter of this request. Omit that option, and check whether a "
    "newer version of this library, or of the server at {host}, supports it."
)
_BAD_REQUEST = "The API rejects the request; its message names the argument to change."
_UNAUTHORIZED = (
    "{host} does not accept the key. Check OPENAI_API_KEY (or `api_key`), and the project and "
    "organization that it belongs to."
)
_FORBIDDEN = (
    "The key is valid but does not permit this call. Check its permissions and its project at "
    "https://platform.openai.com/api-keys."
)
_NOT_FOUND = (
    "Check the ids in the request and OPENAI_BASE_URL (or `base_url`): the call went to {host}."
)
_RATE_LIMIT = (
    "Too many requests. Wait as long as `retry_after` says, create fewer sessions, and check the "
    "limits of the key's organization."
)
_QUOTA = (
    "The key's organization or project has no quota left, and waiting does not help. Check plan, "
    "credit and budget at https://platform.openai.com/settings/organization/billing."
)
_PROXY_LOGIN = (
    "A proxy asks for a user name and a password. Put them into the variable that names the proxy: "
    "HTTPS_PROXY=http://user:password@proxy.example.com:3128."
)
_TOO_LARGE = (
    "The request is too large for {host}, or for a proxy before it. Pass a shorter `user`, or "
    "fewer or shorter `state_variables`: a service of this library accepts 64 KiB."
)
_SERVER = (
    "The fault is on the server's side at {host}. Try again later; if it lasts, look at "
    "https://status.openai.com and give the request id to OpenAI's support."
)
_REDIRECT = (
    "Redirects are not followed, so that neither key nor user data is sent to another host. Set "
    "OPENAI_BASE_URL (or `base_url`) to the API's final address; the call went to {host}."
)
_NOT_THE_API = (
    "The response is not the API's: something in front of it responded (a proxy, a CDN, a login "
    "page), or {host} is not the API. Check OPENAI_BASE_URL (or `base_url`) and the proxy "
    "settings of this machine."
)
_OTHER = "The API at {host} returned an undocumented response; its message may say more."

_OTHER_HINTS: Final[dict[type[APIStatusError], str]] = {
    RateLimitError: _RATE_LIMIT,
    InternalServerError: _SERVER,
}

_NO_QUOTA: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
)

# Of a message, so that no expression takes long; the API's are shorter by far.
_MAX_READ: Final = 1000

_BETA_MESSAGE = re.compile(r"must provide the '?OpenAI-Beta'? header", re.IGNORECASE)
_ROUTE_MESSAGE = re.compile(r"^Invalid (URL|method for URL)\b", re.IGNORECASE)
_OPENAI = re.compile(r"([a-z]+\.)?api\.openai\.com(:\d+)?", re.IGNORECASE)
_DEPRECATED = re.compile(
    r"deprecat|sunset|discontinued|retired|shut ?down|no longer (available|supported|offered)",
    re.IGNORECASE,
)
# Statuses that say something about the request, and neither its key nor its moment.
_DEPRECATION_STATUSES = frozenset({400, 403, 404, 405, 410, 422})
# The first of the two words names what is missing; the other may be part of its id.
_NOT_FOUND_MESSAGE = re.compile(r"\b(workflow|session)\b.*\bnot found\b", re.IGNORECASE | re.DOTALL)
# "session", perhaps its id (quoted, or with a digit or an underscore in it), and that it has ended:
# nothing else of a session's that can expire, such as a cookie, may stand between.
_ENDED_MESSAGE = re.compile(
    r"\bsession(?:\s+with\s+id)?"
    r"(?:\s+(?:[\"'`\u2018\u201c][^\s\"'`\u2019\u201d]+[\"'`\u2019\u201d]|[^\s_\d]*[_\d]\S*))?:?(?:\s+it)?"
    r"(?:\s+(?:already|is|was|has|been))+\s+(cancell?ed|expired)\b",
    re.IGNORECASE,
)
# Not 401 and 403: there an expired session is a gateway's login.
_ENDED_STATUSES = frozenset({400, 404, 409, 410, 422})


def diagnose(status_code: int, detail: ChatKitErrorDetail | None, *, host: str) -> Diagnosis:
    """Choose the error's class and write its hint.

    Args:
        status_code: Any status that is not 2xx.
        detail: The API's error; None if the response had none (HTML, plain text, nothing).
        host: The called host, such as `api.openai.com`.
    """
    error_type, hint = (
        _diagnose_bare(status_code)
        if detail is None or is_redirect(status_code)
        else _diagnose_envelope(status_code, detail)
    )
    if status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        hint = _TOO_LARGE
    if _OPENAI.fullmatch(host) and _has_ended(status_code, detail):
        hint = _ENDED
    own = None if detail is None else _OWN_SERVICE.search(detail.message[:_MAX_READ])
    if own is not None:
        hint = _OWN_SETTINGS[own[1]]
    return Diagnosis(error_type, hint.format(host=host))


def _has_ended(status_code: int, detail: ChatKitErrorDetail | None) -> bool:
    """Whether OpenAI's API reports that it no longer offers this product.

    After the Assistants API was closed, its routes returned 404.
    """
    if status_code == HTTPStatus.GONE or is_route_missing(status_code, detail):
        return True
    if detail is None:
        return status_code == HTTPStatus.NOT_FOUND
    about_all = status_code in _DEPRECATION_STATUSES and detail.param is None
    return about_all and _DEPRECATED.search(detail.message[:_MAX_READ]) is not None


def is_permanent(detail: ChatKitErrorDetail | None) -> bool:
    """Whether an error lasts until somebody pays, so that another attempt cannot succeed."""
    return detail is not None and not _NO_QUOTA.isdisjoint({detail.code, detail.type})


def is_route_missing(status_code: int, detail: ChatKitErrorDetail | None) -> bool:
    """Whether the response says that the server lacks the route, and not for this call alone."""
    if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return True
    return (
        status_code == HTTPStatus.NOT_FOUND
        and detail is not None
        and _ROUTE_MESSAGE.search(detail.message) is not None
    )


def is_rejection(status_code: int) -> bool:
    """Whether the server rejects a request for good, rather than for now."""
    is_client_error = HTTPStatus.BAD_REQUEST <= status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_client_error and status_code not in FOR_NOW


def ended_status(status_code: int, detail: ChatKitErrorDetail | None) -> str | None:
    """`cancelled` or `expired` if a cancel is rejected because the session has already ended."""
    if detail is None or status_code not in _ENDED_STATUSES:
        return None
    found = _ENDED_MESSAGE.search(detail.message[:_MAX_READ])
    if found is None:
        return None
    return "expired" if found[1].lower() == "expired" else "cancelled"


def error_type_of(status_code: int) -> type[APIStatusError]:
    """The error's class if the response says no more than its status."""
    if status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return InternalServerError
    return _BY_STATUS.get(status_code, APIStatusError)


def is_redirect(status_code: int) -> bool:
    """Whether a status is 3xx."""
    return HTTPStatus.MULTIPLE_CHOICES <= status_code < HTTPStatus.BAD_REQUEST


def _diagnose_bare(status_code: int) -> Diagnosis:
    hint = _REDIRECT if is_redirect(status_code) else _NOT_THE_API
    if status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        hint = _PROXY_LOGIN
    return Diagnosis(error_type_of(status_code), hint)


def _diagnose_envelope(status_code: int, detail: ChatKitErrorDetail) -> Diagnosis:
    message, code = detail.message, detail.code
    if code == "invalid_beta" or _BETA_MESSAGE.search(message):
        bad_request = status_code == HTTPStatus.BAD_REQUEST
        return Diagnosis(
            BetaNotAvailableBadRequestError if bad_request else BetaNotAvailableError, _BETA
        )
    error_type = error_type_of(status_code)
    if error_type in {AuthenticationError, PermissionDeniedError}:
        return Diagnosis(error_type, _key_hint(error_type, message, code))
    if is_route_missing(status_code, detail):
        return Diagnosis(error_type, _ROUTE)
    if error_type is NotFoundError:
        return _diagnose_not_found(message, code)
    if error_type in {BadRequestError, UnprocessableEntityError}:
        return Diagnosis(error_type, _request_hint(detail))
    hint = _QUOTA if is_permanent(detail) else _OTHER_HINTS.get(error_type, _OTHER)
    return Diagnosis(error_type, hint)


def _diagnose_not_found(message: str, code: str | None) -> Diagnosis:
    if code == "session_not_found":
        return Diagnosis(SessionNotFoundError, _SESSION)
    found = _NOT_FOUND_MESSAGE.search(message[:_MAX_READ])
    if found is None:
        return Diagnosis(NotFoundError, _NOT_FOUND)
    if found[1].lower() == "session":
        return Diagnosis(SessionNotFoundError, _SESSION)
    return Diagnosis(WorkflowNotFoundError, _WORKFLOW)


def _key_hint(error_type: type[APIStatusError], message: str, code: str | None) -> str:
    if code == "mismatched_project":
        return _MISMATCHED_PROJECT
    if code == "unsupported_country_region_territory":
        return _REGION
    if "missing scopes" in message.lower():
        return _MISSING_SCOPES
    if code == "invalid_api_key" or message.startswith("Incorrect API key"):
        return _WRONG_KEY
    if message.startswith("Missing bearer"):
        return _NO_KEY
    return _UNAUTHORIZED if error_type is AuthenticationError else _FORBIDDEN


def _request_hint(detail: ChatKitErrorDetail) -> str:
    message = detail.message
    if message.startswith("Missing required parameter"):
        return _MISSING_PARAMETER
    if message.startswith("Unknown parameter"):
        return _UNKNOWN_PARAMETER
    if message.startswith("Invalid type for 'user'"):
        return _USER_TYPE
    if message.startswith("Invalid 'session_id'"):
        return _MALFORMED_SESSION_ID
    return _BAD_REQUEST
