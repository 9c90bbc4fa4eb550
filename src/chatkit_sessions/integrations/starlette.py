"""The endpoint as routes of Starlette, or of any application that takes them.

It needs Starlette: `pip install "chatkit-sessions[starlette]"`.
"""

from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Final, NamedTuple, Unpack, cast

from chatkit_sessions._client.async_client import AsyncChatKitClient

from ._async_endpoint import AsyncChatKitEndpoint, awaited
from ._flow import Hooks
from ._messages import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
)
from ._paths import validate_prefix
from ._sentry import keep_body_from_sentry
from ._visitors import COOKIE, MAX_AGE, SALT, new_visitor

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
    """Make the routes that the widget's page calls.

    Args:
        client: Makes the sessions; or a function that returns it for a request, such as
            `lambda request: request.state.chatkit`. It stays yours to close, when the application
            ends.
        user: Returns, from your login, the id of who is signed in; None: nobody. A function, or a
            coroutine function if it has to wait.
        options: Returns the options of a session that this request creates, in the same way; it is
            called only where somebody is signed in. Omitted: the API's defaults.
        prefix: What the routes' paths begin with.
        settings: See `AsyncChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), **settings)
    start = validate_prefix(prefix)

    def route(path: str, methods: tuple[str, ...]) -> Route:
        mounted = Mounted(endpoint, path)

        class EndpointRoute(Route):
            async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
                await mounted.guard(super().handle, scope, receive, send)

        async def handle(request: Request) -> Response:
            hooks = awaited(
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
        """Run a route, but do what suits no page in another way than the framework.

        What needs neither user nor body is responded to before the application is asked anything,
        nobody reads more of a body than its bound, and a page can read what the application raises.
        """
        asked = _plain(Request(scope), self.path)
        response = self.endpoint.screen(asked)
        if response is None:
            headers = self.endpoint.cors_headers(asked)
            try:
                await app(scope, _bounded(receive), _readable(scope, send, headers))
            except ClientDisconnect:
                response = self.endpoint.reject(asked, "invalid_request")
            else:
                return
        await _to_response(response)(scope, receive, send)

    async def respond(self, request: Request, hooks: Hooks) -> Response:
        """Let the endpoint respond to a request that came to this route."""
        keep_body_from_sentry()
        asked = _plain(request, self.path)
        try:
            return _to_response(await self.endpoint.serve(asked, hooks))
        except _BodyTooLargeError:
            return _to_response(self.endpoint.reject(asked, "request_too_large"))


class AnonymousVisitor:
    """The id of a visitor who is not signed in: a `user` for the routes, or part of one.

    The id is random, and the visitor's browser keeps it in a signed cookie. It begins with
    `visitor_`. It needs itsdangerous, as Starlette's sessions do.

    Args:
        secret_key: Signs the cookies; keep it secret, and the same for all processes.
    """

    def __init__(self, secret_key: str) -> None:
        try:
            from itsdangerous import TimestampSigner  # noqa: PLC0415 -- only this class needs it
        except ModuleNotFoundError as error:
            raise ImportError("Signed cookies need one more: pip install itsdangerous") from error
        self._signer = TimestampSigner(secret_key, salt=SALT)

    def __call__(self, request: Request) -> str:
        """Return the visitor's id; a new visitor gets a cookie with the response."""
        from itsdangerous import BadSignature  # noqa: PLC0415 -- as above

        made = cast("str | None", request.scope.get(_VISITOR))
        if made is not None:
            return made
        try:
            return self._signer.unsign(request.cookies.get(COOKIE, ""), max_age=MAX_AGE).decode()
        except BadSignature:
            visitor = request.scope[_VISITOR] = new_visitor()
            request.scope[_VISITOR_COOKIE] = self._signer.sign(visitor).decode()
            return visitor


class _BodyTooLargeError(HTTPException):
    """The body is larger than the endpoint takes, and some of it has not been read."""

    def __init__(self) -> None:
        super().__init__(413)


def _bounded(receive: Receive) -> Receive:
    """Receive a body up to its bound, whoever reads it."""
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
    """Send what a page of an allowed origin can read, also where the application raised."""

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
    # Starlette's `request.url` is of what the server was called, where there is no Host header.
    host = _forwarded_host(request) or request.headers.get("host") or request.url.netloc
    return EndpointRequest(
        method=request.method,
        path=path.format(**request.path_params),
        url=f"{request.url.scheme}://{host}",
        headers=_joined(request),
    )


def _joined(request: Request) -> dict[str, str]:
    """The headers by name, those that were sent several times in one."""
    return {name: ", ".join(request.headers.getlist(name)) for name in request.headers}


def _forwarded_host(request: Request) -> str | None:
    """The host that a proxy says was asked for, where the server trusts the proxy.

    uvicorn and granian take the client's address from `X-Forwarded-For` then, with a port of 0, but
    leave the host to the application. Those of hypercorn and gunicorn rewrite the `Host` header.
    """
    if request.client is None or request.client.port != 0:
        return None
    hosts = request.headers.getlist("x-forwarded-host")
    return hosts[-1].rpartition(",")[2].strip() if hosts else None


def _to_response(response: EndpointResponse) -> Response:
    return Response(response.body, response.status_code, response.headers)
