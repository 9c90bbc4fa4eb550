"""The endpoint's decisions, on plain values."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import SecretBytes

from chatkit_sessions._api.arguments import validate_user
from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks, safe_repr
from chatkit_sessions._troubleshooting import reference
from chatkit_sessions.errors import (
    ChatKitError,
    RateLimitError,
)
from chatkit_sessions.models import BrowserSession, ChatKitSessionInfo, ChatKitSessionResponse

from ._actions import Action, Problem, parse_action
from ._errors import ERRORS, code_of
from ._messages import (
    MAX_BODY,
    EndpointRequest,
    EndpointResponse,
    ErrorBody,
    ErrorCode,
    SessionState,
    header,
)
from ._origins import AllowedOrigins, is_same_origin, origin_of, parse_origin
from ._paths import validate_paths

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
        return self.reject(request, code)

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
