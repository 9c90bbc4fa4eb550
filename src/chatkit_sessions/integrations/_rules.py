"""What the endpoint responds: every decision, on plain values."""

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
from chatkit_sessions.errors import (
    ChatKitError,
    ConfigurationError,
    RateLimitError,
    SessionNotRecordedError,
)
from chatkit_sessions.models import ChatKitSessionInfo, ChatKitSessionResponse

from ._actions import BY_ID, REFRESH, SESSION, Action, parse_action, route_of
from ._errors import ERRORS, code_of
from ._messages import MAX_BODY, EndpointRequest, EndpointResponse, ErrorCode, header
from ._origins import is_same_origin, origin_of, parse_origin, validate_allowed_origins

logger: Final = logging.getLogger("chatkit_sessions")

MAX_RATE_LIMIT: Final = 1_000

_PREFLIGHT_SECONDS: Final = 600
_UPSTREAM_RETRY_AFTER: Final = 5.0
"""Seconds to wait where the API limits the rate and does not say for how long."""


class EndpointRules:
    """What an endpoint with these settings does with a request.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(self, *, session_by_id: bool, allowed_origins: Iterable[str]) -> None:
        self._allowed_origins = validate_allowed_origins(allowed_origins)
        routes: dict[str, tuple[str, ...]] = {
            SESSION: ("POST", "DELETE", "OPTIONS"),
            REFRESH: ("POST", "OPTIONS"),
        }
        if session_by_id:
            routes[BY_ID] = ("GET", "HEAD", "DELETE", "OPTIONS")
        self.routes: Final = MappingProxyType(routes)
        """The methods of each path."""

    def decide(self, request: EndpointRequest, user: str | None) -> Action | EndpointResponse:
        """What to do, or the answer where there is nothing to do.

        Raises:
            InvalidRequestError: The user is none that the application should have given.
        """
        code = self._problem_with(request, user)
        if code == "origin_not_allowed":
            logger.warning(
                "%s %s: refused a page of the origin %s, which is neither that of %s nor allowed",
                *(request.method, route_of(request.path)[0]),
                *(safe_repr(header(request, "origin")), safe_repr(request.url.partition("?")[0])),
            )
        if code == "method_not_allowed":
            return self.reject(request, code, headers={"Allow": ", ".join(self._methods(request))})
        if code is not None:
            return self.reject(request, code)
        if request.method == "OPTIONS":
            return self._respond(request, 204, headers=self._preflight(request))
        action = parse_action(request, validate_user(user))
        return action if isinstance(action, tuple) else self.reject(request, action)

    def _problem_with(self, request: EndpointRequest, user: str | None) -> ErrorCode | None:
        method, methods = request.method, self._methods(request)
        # The first that is so counts.
        problems: dict[ErrorCode, bool] = {
            "not_found": not methods,
            "origin_not_allowed": not self._is_from_an_allowed_page(request),
            "method_not_allowed": method not in methods,
            # A page can send any other type anywhere without asking its browser's permission.
            "unsupported_media_type": method == "POST" and not _is_json(request),
            "request_too_large": len(request.body) > MAX_BODY,
            "unauthenticated": method != "OPTIONS" and (user is None or user == ""),
        }
        return next((code for code, applies in problems.items() if applies), None)

    def _methods(self, request: EndpointRequest) -> tuple[str, ...]:
        return self.routes.get(route_of(request.path)[0], ())

    def succeed(
        self,
        request: EndpointRequest,
        result: ChatKitSessionResponse | ChatKitSessionInfo | None,
    ) -> EndpointResponse:
        """The answer where everything went well."""
        if result is None:
            return self._respond(request, 204)
        return self._respond(request, 200, _encode(result))

    def fail(self, request: EndpointRequest, error: ChatKitError) -> EndpointResponse:
        """The answer to an error, which goes to the log in full and to the page as a code."""
        code: ErrorCode = code_of(error)
        status_code = ERRORS[code].status_code
        logger.log(
            logging.ERROR if status_code >= 500 else logging.WARNING,  # noqa: PLR2004 -- HTTP's
            "%s %s: answered with %d %s: %s",
            *(request.method, route_of(request.path)[0], status_code, code, error),
        )
        if isinstance(error, RateLimitError):
            return self.limit(request, error.retry_after or _UPSTREAM_RETRY_AFTER)
        return self.reject(request, code)

    def limit(self, request: EndpointRequest, seconds: float) -> EndpointResponse:
        """The answer to a user, or an application, that asks too often."""
        headers = {"Retry-After": str(math.ceil(seconds))}
        return self.reject(request, "rate_limit_exceeded", headers=headers)

    def reject(
        self, request: EndpointRequest, code: ErrorCode, *, headers: Mapping[str, str] | None = None
    ) -> EndpointResponse:
        """The answer that says no."""
        status_code, message = ERRORS[code]
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        return self._respond(request, status_code, SecretBytes(body), headers=headers)

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
        origin = header(request, "origin")
        if origin is not None and self._is_listed(origin):
            common["Access-Control-Allow-Origin"] = origin
            common["Access-Control-Allow-Credentials"] = "true"
            common["Access-Control-Expose-Headers"] = "Retry-After"
        return EndpointResponse(
            status_code=status_code,
            headers={**common, **(headers or {})},
            body=MaskedBytes(body.get_secret_value() if body else b""),
        )

    # https://fetch.spec.whatwg.org/#cors-preflight-request
    def _preflight(self, request: EndpointRequest) -> dict[str, str]:
        methods = ", ".join(self._methods(request))
        origin = header(request, "origin")
        if origin is None or not self._is_listed(origin):
            return {"Allow": methods}
        wanted = header(request, "access-control-request-headers") or ""
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": wanted if _NAMES.fullmatch(wanted) else "content-type",
            "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
        }

    # https://www.w3.org/TR/fetch-metadata/: pages cannot set these two headers.
    def _is_from_an_allowed_page(self, request: EndpointRequest) -> bool:
        origin = header(request, "origin")
        if origin is not None:
            if self._is_listed(origin):
                return True
            page = parse_origin(origin)
            if page is None or not is_same_origin(page, origin_of(request.url)):
                return False
        return header(request, "sec-fetch-site") in {None, "same-origin", "none"}

    def _is_listed(self, origin: str) -> bool:
        return parse_origin(origin) in self._allowed_origins


# Names of headers, with commas between them; and so nothing that ends a header.
_NAMES: Final = re.compile(r"[A-Za-z0-9_\-]+(, ?[A-Za-z0-9_\-]+)*")


def validate_rate_limit(limit: object) -> int | None:
    """Refuse a limit that is none.

    Raises:
        ConfigurationError: It is not a whole number within the bounds.
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
    """Refuse the client of the other colour.

    Raises:
        ConfigurationError: It is no client of that type.
    """
    if not isinstance(client, expected):
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got {safe_repr(client)}."
        )


def require_owner(info: ChatKitSessionInfo, user: str) -> None:
    """Refuse to tell of somebody else's session that it exists.

    Raises:
        SessionNotRecordedError: The session is not known to be the user's.
    """
    if info.user != user:
        raise SessionNotRecordedError("The session is not this user's.")


def _is_json(request: EndpointRequest) -> bool:
    essence = (header(request, "content-type") or "").partition(";")[0]
    return essence.strip().lower() == "application/json"


@hidden_from_tracebacks
def _encode(result: ChatKitSessionResponse | ChatKitSessionInfo) -> SecretBytes:
    return SecretBytes(json.dumps(_to_json(result)).encode())


def _to_json(result: ChatKitSessionResponse | ChatKitSessionInfo) -> Mapping[str, object]:
    if isinstance(result, ChatKitSessionResponse):
        return result.for_browser()
    return {
        "session_id": result.id,
        "status": result.status,
        "expires_at": result.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
