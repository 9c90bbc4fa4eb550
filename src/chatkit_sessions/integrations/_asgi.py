"""What the ASGI frameworks share: a request's head, a bounded body, headers, visitors' cookies."""

import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import SimpleCookie
from typing import Any, Final, NamedTuple, TypeAlias, cast

from chatkit_sessions._redaction import MASK, hidden_from_tracebacks

from ._endpoint import AsyncChatKitEndpoint, Hooks
from ._requests import (
    COOKIE_MAX_AGE,
    COOKIE_NAME,
    COOKIE_SALT,
    MAX_BODY,
    VISITOR_KEY,
    EndpointRequest,
    EndpointResponse,
    exact_cookie,
    new_visitor,
    parse_visitor,
    validate_secret_keys,
)
from ._rules import DEFAULT_PORTS

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_VISITOR_COOKIE: Final = "chatkit_sessions.visitor_cookie"


class RouteGuard(NamedTuple):
    """The endpoint at the route of one path."""

    endpoint: AsyncChatKitEndpoint
    path: str

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a route with the endpoint's rules around it.

        - A request that needs neither user nor body gets its response before the application runs.
        - A body is read up to its bound only.
        - A page of an allowed origin can also read the application's errors.
        """
        page_request = _endpoint_request(scope, self.path)
        response = self.endpoint.screen(page_request)
        if response is None:
            headers = self.endpoint.cors_headers(page_request)
            try:
                await app(scope, _bounded(receive), _readable(scope, send, headers))
            except _UnreadBodyError as error:  # the application's own code has read it
                response = self._reject(page_request, error)
            else:
                return
        await _send(response, send)

    async def respond(self, scope: Scope, hooks: Hooks) -> EndpointResponse:
        """Respond to a request to this route."""
        _keep_body_from_sentry()
        page_request = _endpoint_request(scope, self.path)
        try:
            return await self.endpoint.serve(page_request, hooks)
        except _UnreadBodyError as error:
            return self._reject(page_request, error)

    def _reject(self, page_request: EndpointRequest, error: "_UnreadBodyError") -> EndpointResponse:
        if isinstance(error, _BodyTooLargeError):
            return self.endpoint.reject(page_request, "request_too_large")
        return self.endpoint.reject_incomplete(page_request)


class VisitorCookies:
    """Ids of anonymous visitors, in cookies.

    Args:
        secret_key: Signs the cookies.

    Raises:
        ConfigurationError: The key is too short.
        ImportError: itsdangerous is not installed.
    """

    @hidden_from_tracebacks
    def __init__(self, secret_key: str) -> None:
        try:
            from itsdangerous import TimestampSigner  # noqa: PLC0415 -- only this class needs it
        except ModuleNotFoundError as error:
            raise ImportError("Signed cookies need one more: pip install itsdangerous") from error
        validate_secret_keys([secret_key], "`secret_key`")
        self._signer = TimestampSigner(secret_key, salt=COOKIE_SALT)

    def visitor_of(self, scope: Scope) -> str:
        """Return the visitor's id; a new visitor gets a cookie with the response."""
        made = cast("str | None", scope.get(VISITOR_KEY))
        visitor = made or self._known(scope)
        if visitor is None:
            visitor = scope[VISITOR_KEY] = new_visitor()
            scope[_VISITOR_COOKIE] = self._signer.sign(visitor).decode()
        return visitor

    def _known(self, scope: Scope) -> str | None:
        """The visitor of the request's cookie; None if it has no valid one."""
        from itsdangerous import BadSignature  # noqa: PLC0415 -- as above

        cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        signed = exact_cookie(cookies, COOKIE_NAME)
        try:
            return parse_visitor(self._signer.unsign(signed or "", max_age=COOKIE_MAX_AGE))
        except BadSignature:
            return None


class _UnreadBodyError(Exception):
    """A body cannot be read to its end."""


class _BodyTooLargeError(_UnreadBodyError):
    """The body is too large; the rest of it was not read."""


class _ClientGoneError(_UnreadBodyError):
    """The client went away before the body was complete."""


def _bounded(receive: Receive) -> Receive:
    """Limit how much of a body any reader receives."""
    size, is_complete = 0, False

    async def bounded() -> Message:
        nonlocal size, is_complete
        message = await receive()
        if message["type"] == "http.disconnect" and not is_complete:
            raise _ClientGoneError
        size += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if size > MAX_BODY:
            del message  # local variables are part of tracebacks
            raise _BodyTooLargeError
        return message

    return bounded


def _readable(scope: Scope, send: Send, headers: Mapping[str, str]) -> Send:
    """Add CORS headers and the visitor's cookie, also to the application's error responses."""

    async def readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            replaced = {name.lower().encode() for name in headers}
            sent = [each for each in message.get("headers", ()) if each[0].lower() not in replaced]
            sent += _encode(headers)
            if not any(_varies_by_origin(*each) for each in sent):
                sent.append((b"vary", b"Origin"))
            if _VISITOR_COOKIE in scope:
                sent.append((b"set-cookie", _visitor_cookie(scope[_VISITOR_COOKIE])))
            message["headers"] = sent
        await send(message)

    return readable


def _varies_by_origin(name: bytes, value: bytes) -> bool:
    return name.lower() == b"vary" and b"origin" in value.lower()


def _visitor_cookie(value: str) -> bytes:
    cookie = SimpleCookie({COOKIE_NAME: value})
    settings = {"path": "/", "max-age": str(COOKIE_MAX_AGE), "samesite": "Lax"}
    cookie[COOKIE_NAME].update({**settings, "secure": "yes", "httponly": "yes"})
    return cookie[COOKIE_NAME].OutputString().encode()


async def _send(response: EndpointResponse, send: Send) -> None:
    headers = _encode({**response.headers, "Content-Length": str(len(response.body))})
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})


def _encode(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def _endpoint_request(scope: Scope, path: str) -> EndpointRequest:
    """The request without its body; a repeated header's values are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    host = _forwarded_host(scope, headers) or headers.get("host") or _server_of(scope)
    return EndpointRequest(
        method=scope["method"],
        path=path.format(**scope.get("path_params", {})),
        url=f"{scope.get('scheme', 'http')}://{host}",
        headers=headers,
    )


def _forwarded_host(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """The public host from `X-Forwarded-Host`, if the server trusts the proxy.

    uvicorn and granian then take the client's address from `X-Forwarded-For`, with port 0, but
    leave the host to the application. hypercorn's and gunicorn's rewrite the `Host` header.
    """
    client, hosts = scope.get("client"), headers.get("x-forwarded-host")
    if client is None or client[1] != 0 or hosts is None:
        return None
    return hosts.rpartition(",")[2].strip(" \t")


def _server_of(scope: Scope) -> str:
    """The server's own address, for a request without a `Host` header."""
    host, port = scope.get("server") or ("", None)
    is_default = port in {None, DEFAULT_PORTS.get(scope.get("scheme", "http"))}
    return host if is_default else f"{host}:{port}"


def _keep_body_from_sentry() -> None:
    """Mask the current request's body in all later events of Sentry's: it contains a secret.

    Sentry's integrations record request bodies by default. They mask fields by name, but not
    `currentClientSecret`.
    """
    sentry: Any = sys.modules.get("sentry_sdk")
    # With an integration, each request has its own scope.
    if sentry is not None and any(map(sentry.get_client().get_integration, _WATCHED)):
        sentry.get_isolation_scope().add_event_processor(_without_body)


_WATCHED: Final = ("starlette", "litestar")


def _without_body(event: dict[str, object], _: object) -> dict[str, object]:
    request = cast("dict[str, object]", event.get("request", {}))
    if "data" in request:
        request["data"] = MASK
    return event
