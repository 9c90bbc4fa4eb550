"""The routes as ASGI and WSGI applications, to serve or mount without a framework."""

from __future__ import annotations

import logging
from contextlib import suppress
from http.client import responses
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from chatkit_sessions._redaction import MaskedBytes, redact

from ._error_responses import incomplete_request
from ._rules import MAX_REQUEST_BODY, Headers, ServiceRequest, ServiceResponse
from ._services import AsyncSessionsService, SessionsService, validate_service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    _Message: TypeAlias = MutableMapping[str, Any]

logger: Final = logging.getLogger("chatkit_sessions")

_MOST_DIGITS: Final = 18


class SessionsApp:
    """The service's routes as an ASGI application.

    Serve it or mount it under a path. `/v1` below that path is the clients' base URL.

    Args:
        service: The service that handles the requests.

    Raises:
        ConfigurationError: The service is of another class, or has no `api_keys`.
    """

    def __init__(self, service: AsyncSessionsService) -> None:
        validate_service(service, AsyncSessionsService, needs_keys=True)
        self._service = service

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Handle one HTTP request; ignore lifespan events and websockets."""
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        request = ServiceRequest(scope["method"], quote(path), headers)
        try:
            response = await self._service.handle(request, read=lambda: _read_body(receive))
        except _ClientGoneError:
            _log_incomplete(request)
            return
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in _fields(response)
        ]
        start = {"type": "http.response.start", "status": response.status_code, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": _body(response, scope["method"])})


class SessionsWSGIApp:
    """The service's routes as a WSGI application.

    Serve it or mount it under a path. `/v1` below that path is the clients' base URL.

    Args:
        service: The service that handles the requests.

    Raises:
        ConfigurationError: The service is of another class, or has no `api_keys`.
    """

    def __init__(self, service: SessionsService) -> None:
        validate_service(service, SessionsService, needs_keys=True)
        self._service = service

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one HTTP request."""
        method = environ["REQUEST_METHOD"]
        path = quote(environ.get("PATH_INFO", "").encode("latin-1"))
        request = ServiceRequest(method, path, Headers(_headers(environ).items()))

        def read() -> bytes:
            length = _length_to_read(environ)
            body = b""
            with suppress(OSError):
                body = MaskedBytes(environ["wsgi.input"].read(length))
            if len(body) < length and environ.get("CONTENT_LENGTH"):
                _log_incomplete(request)
                raise incomplete_request()
            return body

        response = self._service.handle(request, read=read)
        reason = responses.get(response.status_code, "")
        start_response(f"{response.status_code} {reason}", _fields(response))
        return [_body(response, method)]


class _ClientGoneError(Exception):
    """The client closed the connection before its body was complete."""


def _log_incomplete(request: ServiceRequest) -> None:
    logger.warning(
        "%s %s: the client went away before its body was complete.",
        request.method,
        redact(request.path),
    )


async def _read_body(receive: Callable[[], Awaitable[_Message]]) -> bytes:
    """The body, or enough of it to see that it is too long."""
    parts: list[bytes] = []
    length, more = 0, True
    while more and length <= MAX_REQUEST_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        parts.append(MaskedBytes(message.get("body", b"")))
        length += len(parts[-1])
        more = message.get("more_body", False)
        del message  # local variables are part of tracebacks
    return MaskedBytes(b"".join(parts))


def _length_to_read(environ: Mapping[str, Any]) -> int:
    """How many bytes of a body to read: at most one more than is allowed."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        # Python parses no number of more than 4,300 digits.
        return (
            MAX_REQUEST_BODY + 1
            if len(length) > _MOST_DIGITS
            else min(int(length), MAX_REQUEST_BODY + 1)
        )
    # Without a length, there is a body only if the server marks its end.
    return MAX_REQUEST_BODY + 1 if environ.get("wsgi.input_terminated") else 0


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    named = {
        name.removeprefix("HTTP_").replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    # The one header that is read and that CGI names differently.
    length = environ.get("CONTENT_LENGTH")
    return named | {"content-length": length} if length else named


def _fields(response: ServiceResponse) -> list[tuple[str, str]]:
    # Servers write `Date` themselves, and uvicorn does so beside one that is there.
    return [(name, value) for name, value in response.headers.items() if name != "date"]


def _body(response: ServiceResponse, method: str) -> bytes:
    return b"" if method == "HEAD" else bytes(response.body)
