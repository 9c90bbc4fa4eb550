"""The endpoint as Starlette routes.

Install it with `pip install "chatkit-sessions[starlette]"`.
"""

from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Final, NamedTuple, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient
from chatkit_sessions._redaction import hidden_from_tracebacks

from ._endpoint import AsyncChatKitEndpoint, Hooks
from ._requests import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
    validate_prefix,
)
from ._sentry import keep_body_from_sentry
from ._visitors import (
    COOKIE,
    MAX_AGE,
    SALT,
    exact_cookie,
    new_visitor,
    parse_visitor,
    validate_secret_keys,
)

try:
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as _error:
    raise ImportError(
        'The routes for Starlette need it: pip install "chatkit-sessions[starlette]"'
    ) from _error

__all__ = ["AnonymousVisitor", "chatkit_routes"]

_VISITOR: Final = "chatkit_sessions.visitor"
_VISITOR_COOKIE: Final = "chatkit_sessions.visitor_cookie"


def chatkit_routes(
    client: AsyncChatKitClient
    | Callable[[Request], AsyncChatKitClient | Awaitable[AsyncChatKitClient]],
    *,
    user: Callable[[Request], str | Awaitable[str | None] | None],
    options: Callable[[Request], CreateSessionOptions | Awaitable[CreateSessionOptions]]
    | None = None,
    prefix: str = DEFAULT_PREFIX,
    **settings: Unpack[EndpointSettings],
) -> list[Route]:
    """Make the routes that the page calls, for `Starlette(routes=…)`.

    Args:
        client: The client, or a function that returns it for a request, such as
            `lambda request: request.state.chatkit`. Close the client when the application ends.
        user: Returns the id of the signed-in user, from your login. None: nobody is signed in. It
            may be a coroutine function.
        options: Returns the options of a session that this request creates. It is called only if a
            user is signed in, and may be a coroutine function. Default: the API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`.
        settings: See `EndpointSettings`.

    Returns:
        The routes.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    endpoint.validate_functions(user=user, options=options)
    start = validate_prefix(prefix)

    def route(path: str, methods: tuple[str, ...]) -> Route:
        mounted = Mounted(endpoint, path)

        class EndpointRoute(Route):
            async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
                await mounted.guard(super().handle, scope, receive, send)

        async def handle(request: Request) -> Response:
            hooks = Hooks(
                lambda: endpoint.client(request),
                lambda: user(request),
                request.body,
                lambda: options(request) if options else None,
            )
            return await mounted.respond(request, hooks)

        return EndpointRoute(start + path, handle, methods=list(methods))

    return [route(path, methods) for path, methods in endpoint.routes.items()]


class Mounted(NamedTuple):
    """The endpoint at the route of one path."""

    endpoint: AsyncChatKitEndpoint
    path: str

    async def guard(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a route with the endpoint's rules around it.

        - A request that needs neither user nor body gets its response before the application runs.
        - A body is read up to its bound only.
        - A page of an allowed origin can also read the application's errors.
        """
        asked = _plain(Request(scope), self.path)
        response = self.endpoint.screen(asked)
        if response is None:
            headers = self.endpoint.cors_headers(asked)
            try:
                await app(scope, _bounded(receive), _readable(scope, send, headers))
            except ClientDisconnect:
                response = self.endpoint.reject_incomplete(asked)
            else:
                return
        await _to_response(response)(scope, receive, send)

    async def respond(self, request: Request, hooks: Hooks) -> Response:
        """Respond to a request to this route."""
        keep_body_from_sentry()
        asked = _plain(request, self.path)
        try:
            return _to_response(await self.endpoint.serve(asked, hooks))
        except _BodyTooLargeError:
            return _to_response(self.endpoint.reject(asked, "request_too_large"))


class AnonymousVisitor:
    """Returns the ids of anonymous visitors. Pass an instance as `user`, or call it in yours.

    An id is random and begins with `visitor_`. The browser keeps it for a year, in a signed cookie.
    Needs itsdangerous: `pip install itsdangerous`.

    Args:
        secret_key: Signs the cookies: 16 bytes or more. Keep it secret, and use the same key in
            all processes.

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
        self._signer = TimestampSigner(secret_key, salt=SALT)

    def __call__(self, request: Request) -> str:
        """Return the visitor's id; a new visitor gets a cookie with the response."""
        made = cast("str | None", request.scope.get(_VISITOR))
        visitor = made or self._known(request)
        if visitor is None:
            visitor = request.scope[_VISITOR] = new_visitor()
            request.scope[_VISITOR_COOKIE] = self._signer.sign(visitor).decode()
        return visitor

    def _known(self, request: Request) -> str | None:
        """The visitor of the request's cookie; None if it has no valid one."""
        from itsdangerous import BadSignature  # noqa: PLC0415 -- as above

        signed = exact_cookie(request.headers.getlist("cookie"), COOKIE)
        try:
            return parse_visitor(self._signer.unsign(signed or "", max_age=MAX_AGE))
        except BadSignature:
            return None


class _BodyTooLargeError(HTTPException):
    """The body is too large; the rest of it was not read."""

    def __init__(self) -> None:
        super().__init__(413)


def _bounded(receive: Receive) -> Receive:
    """Limit how much of a body any reader receives."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            del message  # local variables are part of tracebacks
            raise _BodyTooLargeError
        return message

    return bounded


def _readable(scope: Scope, send: Send, headers: dict[str, str]) -> Send:
    """Add CORS headers, also to the application's error responses."""

    async def readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent = MutableHeaders(scope=message)
            sent.update(headers)
            if "origin" not in sent.get("vary", "").lower():
                sent.add_vary_header("Origin")
            if _VISITOR_COOKIE in scope:
                sent.append("set-cookie", _visitor_cookie(scope[_VISITOR_COOKIE]))
        await send(message)

    return readable


def _visitor_cookie(value: str) -> str:
    cookie = SimpleCookie({COOKIE: value})
    settings = {"path": "/", "max-age": str(MAX_AGE), "samesite": "Lax"}
    cookie[COOKIE].update({**settings, "secure": "yes", "httponly": "yes"})
    return cookie[COOKIE].OutputString()


def _plain(request: Request, path: str) -> EndpointRequest:
    headers = _joined(request)
    # Without a Host header, Starlette's `request.url` has the server's own address.
    host = _forwarded_host(request) or headers.get("host") or request.url.netloc
    return EndpointRequest(
        method=request.method,
        path=path.format(**request.path_params),
        url=f"{request.url.scheme}://{host}",
        headers=headers,
    )


def _joined(request: Request) -> dict[str, str]:
    """The headers by name; a repeated header's values are joined."""
    return {name: ", ".join(request.headers.getlist(name)) for name in request.headers}


def _forwarded_host(request: Request) -> str | None:
    """The public host from `X-Forwarded-Host`, if the server trusts the proxy.

    uvicorn and granian then take the client's address from `X-Forwarded-For`, with port 0, but
    leave the host to the application. hypercorn's and gunicorn's rewrite the `Host` header.
    """
    if request.client is None or request.client.port != 0:
        return None
    hosts = request.headers.getlist("x-forwarded-host")
    return hosts[-1].rpartition(",")[2].strip(" \t") if hosts else None


def _to_response(response: EndpointResponse) -> Response:
    return Response(response.body, response.status_code, response.headers)
