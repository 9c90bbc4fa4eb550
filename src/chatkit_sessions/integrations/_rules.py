"""The endpoint's decisions, on plain values."""

import inspect
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from pydantic import SecretBytes

from chatkit_sessions._api.arguments import validate_user
from chatkit_sessions._api.diagnosis import is_permanent
from chatkit_sessions._config.validation import is_coroutine_function
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks, safe_repr, type_of
from chatkit_sessions._troubleshooting_page import reference
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ChatKitError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    RateLimitError,
    SessionDeletedError,
    SessionNotFoundError,
    SessionNotRecordedError,
    SessionStoreError,
)
from chatkit_sessions.models import BrowserSession, ChatKitSessionInfo, ChatKitSessionResponse
from chatkit_sessions.options import OPTION_NAMES, SessionOptions, did_you_mean

from ._requests import (
    MAX_BODY,
    Action,
    EndpointRequest,
    EndpointResponse,
    ErrorBody,
    ErrorCode,
    Problem,
    SessionState,
    header,
    parse_action,
    validate_paths,
)

logger: Final = logging.getLogger("chatkit_sessions")


_PREFLIGHT_SECONDS: Final = 600
_UPSTREAM_RETRY_AFTER: Final = 5.0
"""Seconds to wait if the API limits the rate without a `retry-after`."""


class EndpointRules:
    """The responses of an endpoint with these settings.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        *,
        session_by_id: bool,
        allowed_origins: Iterable[str],
        session_path: str,
        refresh_path: str,
    ) -> None:
        self._allowed_origins = AllowedOrigins(allowed_origins)
        self._paths = paths = validate_paths(session_path, refresh_path)
        routes: dict[str, tuple[str, ...]] = {
            paths.session: ("POST", "DELETE", "OPTIONS"),
            paths.refresh: ("POST", "OPTIONS"),
        }
        if session_by_id:
            routes[paths.by_id] = ("GET", "HEAD", "DELETE", "OPTIONS")
        self.routes: Final = MappingProxyType(routes)
        """The methods of each path."""

    def screen(self, request: EndpointRequest) -> EndpointResponse | None:
        """The response that needs neither user nor body: to a preflight, or a rejection."""
        problem = self._problem_with_head(request)
        if problem is None:
            if request.method == "OPTIONS":
                return self._respond(request, 204, headers=self._preflight(request))
            return None
        if problem.code == "origin_not_allowed":
            self._log_rejected_origin(request)
        if problem.code == "method_not_allowed":
            methods = ", ".join(self._methods(request))
            return self._reject(request, problem, headers={"Allow": methods})
        return self._reject(request, problem)

    def decide(self, request: EndpointRequest, user: str) -> Action | EndpointResponse:
        """The action for a user, or the response if the request is rejected.

        Raises:
            InvalidRequestError: The application's `user` is not a valid id.
        """
        user = validate_user(user)
        if len(request.body) > MAX_BODY:
            return self.reject(request, "request_too_large")
        if _is_cut_off(request):
            return self.reject_incomplete(request)
        if request.body and request.method == "POST" and not _is_json(request):
            return self._reject(request, _NO_JSON)
        action = parse_action(request, user, self._paths)
        return self._reject(request, action) if isinstance(action, Problem) else action

    def _problem_with_head(self, request: EndpointRequest) -> Problem | None:
        """Why the method, path or headers reject a request; None: they do not."""
        methods = self._methods(request)
        if not methods:
            return Problem("not_found")
        if not self._is_from_an_allowed_page(request):
            return Problem("origin_not_allowed")
        if request.method not in methods:
            return Problem("method_not_allowed")
        if request.method == "POST" and not _is_json(request):
            # Browsers send some other types cross-origin without a preflight.
            sent = header(request, "content-type")
            if sent or not self._is_vouched_for(request):
                return Problem("unsupported_media_type") if sent else _NO_JSON
        if _content_length(request) > MAX_BODY:
            return Problem("request_too_large")
        return None

    def _log_rejected_origin(self, request: EndpointRequest) -> None:
        origin = safe_repr(header(request, "origin"))
        own = safe_repr("/".join(request.url.split("/", 3)[:3]))
        logger.warning(
            "%s %s: rejected a page of origin %s (Sec-Fetch-Site: %s), which is neither this "
            "server's own, %s, nor allowed. If the page is yours and of this server, let the proxy "
            "pass on the Host header and the scheme; if it is of another server, add its origin to "
            "`allowed_origins`. %s",
            *(request.method, self._route_of(request), origin),
            *(safe_repr(header(request, "sec-fetch-site")), own, reference("CORS")),
        )

    def _route_of(self, request: EndpointRequest) -> str:
        return self._paths.route_of(request.path)[0]

    def _methods(self, request: EndpointRequest) -> tuple[str, ...]:
        return self.routes.get(self._route_of(request), ())

    def succeed(
        self,
        request: EndpointRequest,
        result: ChatKitSessionResponse | ChatKitSessionInfo | None,
    ) -> EndpointResponse:
        """The success response."""
        if result is None:
            return self._respond(request, 204)
        return self._respond(request, 200, _encode(result))

    def fail(self, request: EndpointRequest, error: ChatKitError) -> EndpointResponse:
        """The response to an error: the log gets all of it, the page its code."""
        code: ErrorCode = code_of(error)
        status_code = ERRORS[code].status_code
        logger.log(
            logging.ERROR if status_code >= 500 else logging.WARNING,  # noqa: PLR2004 -- HTTP's
            "%s %s: responded with %d %s: %s",
            *(request.method, self._route_of(request), status_code, code, error),
        )
        if isinstance(error, RateLimitError) and code == "rate_limit_exceeded":
            return self.limit(request, error.retry_after or _UPSTREAM_RETRY_AFTER)
        headers = {"Retry-After": "1"} if code == "store_unavailable" else None
        return self.reject(request, code, headers=headers)

    def limit(self, request: EndpointRequest, seconds: float) -> EndpointResponse:
        """The response to too many requests, of the user or the application."""
        headers = {"Retry-After": str(math.ceil(seconds))}
        return self.reject(request, "rate_limit_exceeded", headers=headers)

    def reject(
        self, request: EndpointRequest, code: ErrorCode, *, headers: Mapping[str, str] | None = None
    ) -> EndpointResponse:
        """An error response."""
        return self._reject(request, Problem(code), headers=headers)

    def reject_incomplete(self, request: EndpointRequest) -> EndpointResponse:
        """The response to a client that went away before its body was complete."""
        logger.warning(
            "%s %s: the client went away before its body was complete.",
            *(request.method, self._route_of(request)),
        )
        return self.reject(request, "invalid_request")

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """The headers that let a page of an allowed origin read any response."""
        if origin is None or origin not in self._allowed_origins:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
        }

    def _reject(
        self,
        request: EndpointRequest,
        problem: Problem,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> EndpointResponse:
        status_code, message = ERRORS[problem.code]
        error: ErrorBody = {"error": {"code": problem.code, "message": problem.message or message}}
        body = SecretBytes(json.dumps(error).encode())
        return self._respond(request, status_code, body, headers=headers)

    def _respond(
        self,
        request: EndpointRequest,
        status_code: int,
        body: SecretBytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> EndpointResponse:
        common = {"Cache-Control": "no-store", "Vary": "Origin"}
        if body:
            common["Content-Type"] = "application/json"
        common |= self.cors_headers(header(request, "origin"))
        return EndpointResponse(
            status_code=status_code,
            headers={**common, **(headers or {})},
            body=MaskedBytes(body.get_secret_value() if body else b""),
        )

    # https://fetch.spec.whatwg.org/#cors-preflight-request
    def _preflight(self, request: EndpointRequest) -> dict[str, str]:
        methods = ", ".join(self._methods(request))
        origin = header(request, "origin")
        if origin is None or origin not in self._allowed_origins:
            return {"Allow": methods}
        wanted = header(request, "access-control-request-headers") or ""
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": wanted if _NAMES.fullmatch(wanted) else "content-type",
            "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        }

    # https://www.w3.org/TR/fetch-metadata/: pages cannot set these two headers.
    def _is_from_an_allowed_page(self, request: EndpointRequest) -> bool:
        origin, site = header(request, "origin"), header(request, "sec-fetch-site")
        if origin is None:
            return site in {None, "same-origin", "none"}
        if origin in self._allowed_origins:
            return True
        if origin == "null":  # as Firefox sends of every page with `Referrer-Policy: no-referrer`
            return site == "same-origin"
        page = parse_origin(origin)
        is_own = page is not None and is_same_origin(page, origin_of(request.url))
        return is_own and site in {None, "same-origin", "none"}

    def _is_vouched_for(self, request: EndpointRequest) -> bool:
        """Whether the browser names the page's origin; a wrong origin is rejected before."""
        return (
            header(request, "origin") is not None
            or header(request, "sec-fetch-site") == "same-origin"
        )


_NO_JSON: Final = Problem(
    "unsupported_media_type", "The header `Content-Type: application/json` is missing."
)
_MAX_DIGITS: Final = 10
"""Enough to see that a length is too large: Python rejects integers of very many digits."""
# Names of headers, separated by commas: nothing that could end a header.
_NAMES: Final = re.compile(r"[A-Za-z0-9_\-]+(, ?[A-Za-z0-9_\-]+)*")


def _content_length(request: EndpointRequest) -> int:
    length = header(request, "content-length") or ""
    return int(length[:_MAX_DIGITS]) if length.isdecimal() else 0


def _is_cut_off(request: EndpointRequest) -> bool:
    """Whether less has arrived than the headers say, as some servers pass it on."""
    # A transfer coding overrides the length, and a framework may have undone a content coding.
    is_exact = not (header(request, "transfer-encoding") or header(request, "content-encoding"))
    return is_exact and len(request.body) < _content_length(request)


def _is_json(request: EndpointRequest) -> bool:
    essence = (header(request, "content-type") or "").partition(";")[0]
    return essence.strip(" \t").lower() == "application/json"


@hidden_from_tracebacks
def _encode(result: ChatKitSessionResponse | ChatKitSessionInfo) -> SecretBytes:
    return SecretBytes(json.dumps(_to_json(result)).encode())


def _to_json(
    result: ChatKitSessionResponse | ChatKitSessionInfo,
) -> BrowserSession | SessionState:
    if isinstance(result, ChatKitSessionResponse):
        return result.for_browser()
    return {
        "session_id": result.id,
        "status": result.status,
        "expires_at": result.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


class EndpointError(NamedTuple):
    """The response to the page."""

    status_code: int
    message: str


ERRORS: Final[Mapping[ErrorCode, EndpointError]] = {
    "invalid_request": EndpointError(400, "The request's body is not valid for this route."),
    "unauthenticated": EndpointError(401, "Nobody is signed in."),
    "origin_not_allowed": EndpointError(403, "Pages of this origin may not create chat sessions."),
    "not_found": EndpointError(404, "There is no such session."),
    "method_not_allowed": EndpointError(405, "This route does not support this method."),
    "session_deleted": EndpointError(409, "The user has signed out meanwhile."),
    "request_too_large": EndpointError(413, "The request's body is too large."),
    "unsupported_media_type": EndpointError(415, "The body's type must be application/json."),
    "rate_limit_exceeded": EndpointError(
        429, "Too many requests for chat sessions: try again later."
    ),
    "configuration_error": EndpointError(502, "The chat is not set up correctly."),
    "upstream_error": EndpointError(502, "The chat service failed: try again."),
    "store_unavailable": EndpointError(
        503, "Chat sessions cannot be looked up just now: try again."
    ),
    "upstream_timeout": EndpointError(504, "The chat service did not respond in time: try again."),
}

# The first match counts. The application must fix any other error: the key, the workflow, …
_CODES_OF_ERRORS: Final[tuple[tuple[type[ChatKitError], ErrorCode], ...]] = (
    (RateLimitError, "rate_limit_exceeded"),
    (APITimeoutError, "upstream_timeout"),
    (SessionNotFoundError, "not_found"),
    (SessionNotRecordedError, "not_found"),
    (SessionDeletedError, "session_deleted"),
    (SessionStoreError, "store_unavailable"),
    (APIConnectionError, "upstream_error"),
    (APIResponseValidationError, "upstream_error"),
    (ConflictError, "upstream_error"),
    (InternalServerError, "upstream_error"),
    (ChatKitError, "configuration_error"),
)


def code_of(error: ChatKitError) -> ErrorCode:
    """The code for an error of this library."""
    if isinstance(error, RateLimitError) and is_permanent(error.error):
        return "configuration_error"
    return next(code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind))


_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?P<host>[a-z0-9._~\-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """A scheme, a host and a port, normalised so that equal origins compare equal."""

    scheme: str
    host: str
    port: int | None
    """None: the scheme's own."""


def parse_origin(text: str) -> Origin | None:
    """Parse an origin; None for any other text, such as `null` or a URL with a path."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, port = match["scheme"].lower(), match["port"] and int(match["port"])
    default = DEFAULT_PORTS.get(scheme)
    return Origin(scheme, match["host"].lower(), None if port in {None, default} else int(port))


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute URL; None if it has none."""
    scheme, separator, rest = url.partition("://")
    return parse_origin(scheme + separator + re.split(r"[/?#]", rest, maxsplit=1)[0])


def is_same_origin(page: Origin, own: Origin | None) -> bool:
    """Whether a page comes from this server.

    If a proxy ends TLS, the server sees plain http, but the page is https, and the `Host` header
    may have the proxy's port. An http page of an https server is cross-origin.
    """
    if own is None or page.host != own.host:
        return False
    if page.scheme == own.scheme:
        return page.port == own.port
    return (page.scheme, own.scheme) == ("https", "http") and own.port in {
        page.port,
        DEFAULT_PORTS["https"] if page.port is None else page.port,
    }


class AllowedOrigins:
    """The origins whose pages may call the endpoint, besides the server's own.

    Args:
        origins: The setting: origins, and patterns whose first label is `*`.

    Raises:
        ConfigurationError: An element is neither.
    """

    def __init__(self, origins: object) -> None:
        if isinstance(origins, str | bytes) or not isinstance(origins, Iterable):
            raise ConfigurationError(
                f"`allowed_origins` must be a list of origins, got {safe_repr(origins)}."
            )
        self._exact: set[Origin] = set()
        self._patterns: set[Origin] = set()
        for each in cast("Iterable[object]", origins):
            text = each if isinstance(each, str) else ""
            is_pattern = "://*." in text
            origin = parse_origin(text.replace("://*.", "://", 1))
            # One label after the star would allow every site of a top-level domain.
            if origin is None or (is_pattern and not _HOST_BELOW.fullmatch(origin.host)):
                raise ConfigurationError(
                    "`allowed_origins` must be origins such as https://app.example.com, without a "
                    "path, or with a first label `*` such as https://*.preview.example.com, got "
                    f"{safe_repr(each)}.",
                    hint="List every origin whose pages may get their users' secrets. Names with "
                    "other than ASCII letters are written in Punycode, as browsers send them.",
                )
            (self._patterns if is_pattern else self._exact).add(origin)

    def __contains__(self, text: str) -> bool:
        origin = parse_origin(text)
        if origin is None:
            return False
        first, _, rest = origin.host.partition(".")
        return origin in self._exact or (
            first != "" and origin._replace(host=rest) in self._patterns
        )


_HOST_BELOW: Final = re.compile(r"[^.\[]+(\.[^.]+)+")


MAX_RATE_LIMIT: Final = 1_000


def validate_rate_limit(limit: object) -> int | None:
    """Reject an invalid limit.

    Raises:
        ConfigurationError: The limit is not a whole number within the bounds.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_RATE_LIMIT:
        raise ConfigurationError(
            f"`rate_limit` must be a whole number from 1 to {MAX_RATE_LIMIT:,}, or None for no "
            f"limit, got {safe_repr(limit)}."
        )
    return limit


def validate_client(client: object, expected: type, *, endpoint: str) -> None:
    """Reject an async client where a sync one is expected, and the other way round.

    Raises:
        ConfigurationError: The client is not of that type.
    """
    if inspect.iscoroutine(client):
        client.close()  # nobody will await it
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got a coroutine.",
            hint="Pass the coroutine function itself, as in `chatkit_urls(get_chatkit)`, not a "
            "function that calls it.",
        )
    if not isinstance(client, expected):
        is_service = hasattr(client, "client") and hasattr(client, "verify")
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got {type_of(client)}.",
            hint="Pass a client of the service: `service.client()`." if is_service else None,
        )


def validate_function(function: object, argument: str, *, awaits: bool) -> None:
    """Reject what cannot be called for a request, when the endpoint is made.

    Args:
        function: The application's function.
        argument: The argument's name.
        awaits: Whether the endpoint awaits coroutines.

    Raises:
        ConfigurationError: It is not a function, or one whose result would be of no use.
    """
    # Looked up on the type: outside of a request, a proxy raises for everything else.
    is_proxy = hasattr(type(function), "_get_current_object")
    if is_proxy or not callable(function):
        given = f"a {type(function).__name__}" if is_proxy else safe_repr(function)
        raise ConfigurationError(
            f"`{argument}` must be a function, which is called for each request, got {given}.",
            hint=f"Pass a function, such as `{argument}=lambda: …`, with the parameters that your "
            "framework's functions take.",
        )
    if hasattr(function, "cache_info") and is_coroutine_function(inspect.unwrap(function)):
        raise ConfigurationError(
            f"`{argument}` is a coroutine function in `functools.cache`, which returns the "
            "coroutine of the first call again, and a coroutine can be awaited once.",
            hint="Keep the function's result instead of its coroutine, and pass the coroutine "
            "function itself.",
        )
    if not awaits and is_coroutine_function(function):
        raise ConfigurationError(
            f"`{argument}` is a coroutine function, but the endpoint is synchronous.",
            hint="Pass a plain function. With an AsyncChatKitClient, Django's views are "
            "asynchronous.",
        )


def validate_options(options: object) -> SessionOptions:
    """Reject what the application's `options` returned by mistake; the client validates the values.

    Raises:
        ConfigurationError: It is not a dictionary, or an option does not exist.
    """
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"`options` must return a dictionary of a session's options or None, got "
            f"{safe_repr(options)}."
        )
    for name in cast("Mapping[object, object]", options):
        if name not in OPTION_NAMES:
            raise ConfigurationError(
                f"`options` returned {safe_repr(name)}, which is not an option of a session."
                f"{did_you_mean(name, OPTION_NAMES)}",
                hint=f"The options are {', '.join(sorted(OPTION_NAMES))}.",
            )
    return cast("SessionOptions", options)


def require_owner(info: ChatKitSessionInfo, user: str) -> None:
    """Reveal nothing about another user's session, not even that it exists.

    Raises:
        SessionNotRecordedError: The session is not this user's.
    """
    if info.user != user:
        raise SessionNotRecordedError("The session is not this user's.")
