"""The endpoint in every framework, each asked through its own test client."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, Unpack, cast, get_args

import django
import httpx
from django.conf import settings as django_settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient as DjangoAsyncClient, Client as DjangoClient, override_settings
from django.utils.decorators import sync_and_async_middleware
from fastapi import (
    Depends,
    FastAPI,
    HTTPException as FastAPIHTTPException,
    Request as FastAPIRequest,
    Response as FastAPIResponse,
)
from fastapi.testclient import TestClient as FastAPITestClient
from flask import (
    Flask,
    Response as FlaskResponse,
    after_this_request,
    request as flask_request,
)
from litestar import Litestar, Request as LitestarRequest
from litestar.exceptions import PermissionDeniedException
from litestar.types import (
    ASGIApp as LitestarApp,
    Receive,
    Scope as LitestarScope,
    Send as LitestarSend,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.testclient import TestClient as StarletteTestClient
from starlette.types import ASGIApp
from werkzeug.exceptions import Forbidden

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.integrations import CreateSessionOptions, EndpointSettings
from chatkit_sessions.integrations.django import (
    anonymous_visitor as django_visitor,
    chatkit_urls,
)
from chatkit_sessions.integrations.fastapi import (
    AnonymousVisitor as FastAPIVisitor,
    chatkit_router,
)
from chatkit_sessions.integrations.flask import (
    anonymous_visitor as flask_visitor,
    chatkit_blueprint,
)
from chatkit_sessions.integrations.litestar import (
    AnonymousVisitor as LitestarVisitor,
    chatkit_handlers,
)
from chatkit_sessions.integrations.starlette import (
    AnonymousVisitor as StarletteVisitor,
    chatkit_routes,
)
from chatkit_sessions.testing import FakeChatKit
from support import JSON, Time

if TYPE_CHECKING:
    from chatkit_sessions.stores import MemorySessionStore

Framework: TypeAlias = Literal[
    "starlette", "fastapi", "litestar", "flask", "django", "django async"
]
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)

ORIGIN = "http://testserver"
PREFIX = "/api/chatkit"
VISITOR_KEY = "a key of no use elsewhere"
DJANGO_KEY = "another of no use elsewhere"
LOGIN = "X-Login"
"""The header that stands for a cookie here: whoever it names is signed in."""


@dataclass(frozen=True)
class Answer:
    status_code: int
    headers: httpx.Headers
    body: bytes = field(repr=False)

    @property
    def json(self) -> JSON:
        return cast("JSON", json.loads(self.body))

    @property
    def error_message(self) -> str:
        return cast("str", cast("JSON", self.json["error"])["message"])

    @property
    def error_code(self) -> object:
        return cast("JSON", self.json["error"])["code"]


class Send(Protocol):
    def __call__(
        self, method: str, path: str, *, headers: dict[str, str], content: bytes
    ) -> Answer: ...


Place: TypeAlias = Literal["before", "user", "options", "after"]


@dataclass
class Wiring:
    """What the application hands to the endpoint, and what it does around it.

    By default the user is who the header names, there are no options, and nothing is done.
    """

    user: Callable[[str | None], object] = lambda login: login
    options: Callable[[], object] | None = None
    reads_body: tuple[Place, ...] = ()
    """Where code of the application reads the body."""
    bodies: list[bytes] = field(default_factory=list[bytes])
    """What it read."""
    refuses: bool = False
    """Whether `user` raises what the framework has for 403."""
    needs_login: bool = False
    """Whether the whole application lets nobody in who is not signed in (FastAPI)."""
    sets_cookie: bool = False
    """Whether `user` sets a cookie (FastAPI and Flask)."""
    visitors: bool = False
    """Whether the user is an anonymous visitor."""
    late_client: Callable[[], object] | None = None
    """Returns the client when a request needs it."""
    settings: dict[str, object] = field(default_factory=dict[str, object])
    """What the framework's function alone takes."""
    origin: str = ORIGIN
    """Where the application is served."""

    def who(self, login: str | None, *, refusal: Exception, visitor: Callable[[], str]) -> object:
        """Who is signed in."""
        if self.refuses:
            raise refusal
        if self.visitors:
            assert visitor() == visitor()
            return visitor()
        return self.user(login)

    def read(self, place: Place, read: Callable[[], bytes]) -> None:
        """Read the body in that place, if it is to be read there."""
        if place in self.reads_body:
            self.bodies.append(read())

    async def aread(self, place: Place, read: Callable[[], Awaitable[bytes]]) -> None:
        """Read the body as `read` does."""
        if place in self.reads_body:
            self.bodies.append(await read())


class App:
    """An application of one framework, as a browser meets it."""

    def __init__(self, send: Send, prefix: str) -> None:
        self.send = send
        self._prefix = prefix

    def __call__(
        self,
        method: str,
        path: str,
        *,
        user: str | None = "ada",
        json_body: object = None,
        content: bytes | None = None,
        content_type: str | None = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = {LOGIN: user} if user is not None else {}
        if method == "POST" and content_type is not None:
            sent["Content-Type"] = content_type
        if content is None:
            content = b"" if json_body is None else json.dumps(json_body).encode()
        return self.send(
            method, self._prefix + path, headers={**sent, **(headers or {})}, content=content
        )

    def create(self, user: str | None = "ada", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self("POST", "/session", user=user, headers=sent)

    def refresh(self, client_secret: object, user: str | None = "ada") -> Answer:
        body = {"currentClientSecret": client_secret}
        return self("POST", "/session/refresh", user=user, json_body=body)


class Backend:
    """The local API, a clock for everything, and applications of one framework."""

    def __init__(self, framework: Framework, time: Time, fake: FakeChatKit) -> None:
        self.framework: Framework = framework
        self.time = time
        self.fake = fake
        self.is_async = framework not in {"flask", "django"}

    def client(
        self, store: object = None, api_key: str | None = None, max_retries: int = 2
    ) -> ChatKitClient | AsyncChatKitClient:
        key = self.fake.api_key if api_key is None else api_key
        transport = self.fake.transport()
        if self.is_async:
            return AsyncChatKitClient(
                api_key=key,
                workflow_id=self.fake.workflow_id,
                http_client=httpx.AsyncClient(transport=transport),
                store=cast("MemorySessionStore | None", store),
                max_retries=max_retries,
                clock=lambda: self.time.now,
            )
        return ChatKitClient(
            api_key=key,
            workflow_id=self.fake.workflow_id,
            http_client=httpx.Client(transport=transport),
            store=cast("MemorySessionStore | None", store),
            max_retries=max_retries,
            clock=lambda: self.time.now,
        )

    def app(
        self,
        client: ChatKitClient | AsyncChatKitClient | None = None,
        *,
        wiring: Wiring | None = None,
        prefix: str = PREFIX,
        **settings: Unpack[EndpointSettings],
    ) -> App:
        make = _MAKERS[self.framework]
        send = make(client or self.client(), wiring or Wiring(), prefix, settings)
        return App(send, prefix)


def secret_of(answer: Answer) -> str:
    assert answer.status_code == 200
    return cast("str", answer.json["client_secret"])


def assert_refused(answer: Answer, status_code: int, code: str) -> None:
    assert answer.status_code == status_code
    error = cast("JSON", answer.json["error"])
    assert set(error) == {"code", "message"}
    assert error["code"] == code
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


class ReadingMiddleware(BaseHTTPMiddleware):
    """Reads the body before the view, and again after it, as logs and audits do."""

    def __init__(self, app: ASGIApp, wiring: Wiring) -> None:
        super().__init__(app)
        self._wiring = wiring

    async def dispatch(
        self, request: StarletteRequest, call_next: RequestResponseEndpoint
    ) -> StarletteResponse:
        await request.body()  # whoever reads it afterwards only, gets nothing, says Starlette
        await self._wiring.aread("before", request.body)
        response = await call_next(request)
        await self._wiring.aread("after", request.body)
        return response


def _starlette(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    visitor = StarletteVisitor(VISITOR_KEY)

    async def user(request: StarletteRequest) -> str | None:
        await wiring.aread("user", request.body)
        who = wiring.who(
            request.headers.get(LOGIN),
            refusal=StarletteHTTPException(403),
            visitor=lambda: visitor(request),
        )
        return cast("str | None", who)

    async def options(request: StarletteRequest) -> CreateSessionOptions:
        await wiring.aread("options", request.body)
        return _options_of(wiring)

    def later(get: Callable[[], object]) -> Callable[[StarletteRequest], object]:
        return lambda _: get()

    routes = chatkit_routes(
        _late(client, wiring, later),
        user=user,
        options=options if wiring.options else None,
        prefix=prefix,
        **settings,
    )
    middleware = [Middleware(ReadingMiddleware, wiring=wiring)] if wiring.reads_body else []
    app = Starlette(routes=routes, middleware=middleware)
    return _through_httpx(StarletteTestClient(app, base_url=wiring.origin))


def _fastapi(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    visitor = FastAPIVisitor(VISITOR_KEY)

    async def user(request: FastAPIRequest, response: FastAPIResponse) -> object:
        await wiring.aread("user", request.body)
        if wiring.sets_cookie:
            response.set_cookie("seen", "yes")
        return wiring.who(
            request.headers.get(LOGIN),
            refusal=FastAPIHTTPException(403),
            visitor=lambda: visitor(request),
        )

    async def options(request: FastAPIRequest) -> CreateSessionOptions:
        await wiring.aread("options", request.body)
        return _options_of(wiring)

    async def around(request: FastAPIRequest) -> AsyncIterator[None]:
        if wiring.needs_login and LOGIN not in request.headers:
            raise FastAPIHTTPException(401)
        await wiring.aread("before", request.body)
        yield
        await wiring.aread("after", request.body)

    app = FastAPI(dependencies=[Depends(around)])
    app.include_router(
        chatkit_router(
            _late(client, wiring, lambda get: get),
            user=user,
            options=options if wiring.options else None,
            prefix=prefix,
            **settings,
        )
    )
    return _through_httpx(FastAPITestClient(app, base_url=wiring.origin))


def _late(client: object, wiring: Wiring, adapt: Callable[[Callable[[], object]], object]) -> Any:  # noqa: ANN401 -- each framework's
    """The client, or in the framework's way the function that returns it."""
    return client if wiring.late_client is None else adapt(wiring.late_client)


def _through_httpx(client: StarletteTestClient) -> Send:
    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = client.request(method, path, headers=sent, content=content)
        return Answer(answer.status_code, httpx.Headers(answer.headers), answer.content)

    return send


def _propagate(_: object, error: Exception) -> Any:  # noqa: ANN401 -- it never returns
    raise error


def _litestar(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    visitor = LitestarVisitor(VISITOR_KEY)

    async def user(request: LitestarRequest[Any, Any, Any]) -> str | None:
        await wiring.aread("user", request.body)
        who = wiring.who(
            request.headers.get(LOGIN),
            refusal=PermissionDeniedException(),
            visitor=lambda: visitor(request),
        )
        return cast("str | None", who)

    async def options(request: LitestarRequest[Any, Any, Any]) -> CreateSessionOptions:
        await wiring.aread("options", request.body)
        return _options_of(wiring)

    def later(get: Callable[[], object]) -> Callable[[object], object]:
        return lambda _: get()

    def reading(app: LitestarApp) -> LitestarApp:
        async def middleware(scope: LitestarScope, receive: Receive, send: LitestarSend) -> None:
            request: LitestarRequest[Any, Any, Any] = LitestarRequest(scope, receive)
            await wiring.aread("before", request.body)
            await app(scope, receive, send)
            await wiring.aread("after", request.body)

        return middleware

    handlers = chatkit_handlers(
        _late(client, wiring, later),
        user=user,
        options=options if wiring.options else None,
        prefix=prefix,
        **settings,
    )
    middleware = [reading] if wiring.reads_body else []
    app = Litestar(
        handlers,
        middleware=middleware,
        exception_handlers={RuntimeError: _propagate},
        openapi_config=None,
        logging_config=None,
    )
    return _through_httpx(StarletteTestClient(cast("ASGIApp", app), base_url=wiring.origin))


def _flask(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    def user() -> str | None:
        wiring.read("user", flask_request.get_data)
        if wiring.sets_cookie:
            after_this_request(_see)
        login = flask_request.headers.get(LOGIN)
        who = wiring.who(login, refusal=Forbidden(), visitor=flask_visitor)
        return cast("str | None", who)

    def options() -> CreateSessionOptions:
        wiring.read("options", flask_request.get_data)
        return _options_of(wiring)

    def before() -> None:
        wiring.read("before", flask_request.get_data)

    def after(response: FlaskResponse) -> FlaskResponse:
        wiring.read("after", flask_request.get_data)
        return response

    app = Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.secret_key = VISITOR_KEY
    app.before_request(before)
    app.after_request(after)
    app.register_blueprint(
        chatkit_blueprint(
            _late(client, wiring, lambda get: get),
            user=user,
            options=options if wiring.options else None,
            prefix=prefix,
            **settings,
        )
    )
    test_client = app.test_client(use_cookies=False)

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        answer = test_client.open(
            path, method=method, headers=headers, data=content, base_url=wiring.origin
        )
        return Answer(answer.status_code, httpx.Headers(list(answer.headers)), answer.data)

    return send


def _see(response: FlaskResponse) -> FlaskResponse:
    response.set_cookie("seen", "yes")
    return response


@sync_and_async_middleware
def login_middleware(
    get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], object]:
    """Django's `request.user`, without a database."""

    def sign_in(request: HttpRequest) -> None:
        login = request.headers.get(LOGIN)
        user = SimpleNamespace(
            pk=int(login) if login and login.isdigit() else login,
            is_authenticated=login is not None,
        )

        async def auser() -> SimpleNamespace:
            return user

        vars(request).update(user=user, auser=auser)

    if inspect.iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            sign_in(request)
            return await cast("Awaitable[HttpResponse]", get_response(request))

        return middleware

    def sync_middleware(request: HttpRequest) -> object:
        sign_in(request)
        return get_response(request)

    return sync_middleware


@sync_and_async_middleware
def reading_middleware(
    get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], object]:
    """Reads the body before the view and after it, as logs and audits do."""

    def read(place: Place, request: HttpRequest) -> None:
        _reading.read(place, lambda: request.body)

    if inspect.iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            read("before", request)
            response = await cast("Awaitable[HttpResponse]", get_response(request))
            read("after", request)
            return response

        return middleware

    def sync_middleware(request: HttpRequest) -> object:
        read("before", request)
        response = get_response(request)
        read("after", request)
        return response

    return sync_middleware


_reading = Wiring()


@contextlib.contextmanager
def _read_by(wiring: Wiring) -> Generator[None, None, None]:
    """Django makes its middlewares itself: tell the one above whom it reads for."""
    global _reading  # noqa: PLW0603 -- see above
    before, _reading = _reading, wiring
    try:
        yield
    finally:
        _reading = before


def _django(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    def user(request: HttpRequest) -> str | None:
        wiring.read("user", lambda: request.body)
        who = wiring.who(
            request.headers.get(LOGIN),
            refusal=PermissionDenied(),
            visitor=lambda: django_visitor(request),
        )
        return cast("str | None", who)

    async def user_async(request: HttpRequest) -> str | None:
        return user(request)

    def options(request: HttpRequest) -> CreateSessionOptions:
        wiring.read("options", lambda: request.body)
        return _options_of(wiring)

    is_async = isinstance(client, AsyncChatKitClient)

    def later(get: Callable[[], object]) -> Callable[[HttpRequest], object]:
        async def get_async(_: HttpRequest) -> object:
            return get()

        return get_async if is_async else lambda _: get()

    urls = chatkit_urls(
        _late(client, wiring, later),
        user=user_async if is_async else user,
        options=options if wiring.options else None,
        prefix=prefix,
        csrf_exempt=bool(wiring.settings.get("csrf_exempt")),
        **settings,
    )
    middleware = [*django_settings.MIDDLEWARE, "endpoint_apps.reading_middleware"]
    send = through_django(
        tuple(urls),
        is_async=is_async,
        middleware=middleware,
        secure=wiring.origin.startswith("https:"),
    )

    def send_for_wiring(
        method: str, path: str, *, headers: dict[str, str], content: bytes
    ) -> Answer:
        with _read_by(wiring):
            return send(method, path, headers=headers, content=content)

    return send_for_wiring


class PlainClient(DjangoAsyncClient):
    """Django's client, which would send its own `Host` and `Cookie` beside the given ones."""

    def _base_scope(self, **request: Any) -> Any:  # noqa: ANN401 -- Django's
        scope = cast("JSON", super()._base_scope(**request))  # type: ignore[misc]  # the stubs lack it
        headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
        sent = [each for each in headers if each != (b"cookie", b"")]
        return {**scope, "headers": list(dict(sent).items())}


def through_django(
    urls: object,
    *,
    is_async: bool,
    enforce_csrf_checks: bool = False,
    middleware: Sequence[str] | None = None,
    secure: bool = False,
) -> Send:
    """Send through the real middleware, cross-site request forgery's included."""

    async def ask_async(
        method: str, path: str, content: bytes, headers: dict[str, str]
    ) -> HttpResponse:
        client = PlainClient(enforce_csrf_checks=enforce_csrf_checks)
        headers = {**headers}
        # Where there is a body, only the argument counts, and only the header where there is none.
        content_type = headers.pop("Content-Type", "") if content else ""
        asked: object = client.generic(
            method, path, content, content_type, secure=secure, headers=headers
        )
        return await cast("Awaitable[HttpResponse]", asked)

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        with override_settings(
            ROOT_URLCONF=urls, MIDDLEWARE=middleware or django_settings.MIDDLEWARE
        ):
            answer = (
                asyncio.run(ask_async(method, path, content, headers))
                if is_async
                else (
                    DjangoClient(enforce_csrf_checks=enforce_csrf_checks).generic(
                        method, path, content, "", secure=secure, headers=headers
                    )
                )
            )
        cookies = [("Set-Cookie", each.OutputString()) for each in answer.cookies.values()]
        told = httpx.Headers([*answer.items(), *cookies])
        return Answer(answer.status_code, told, answer.content)

    return send


def _options_of(wiring: Wiring) -> CreateSessionOptions:
    assert wiring.options is not None
    return cast("CreateSessionOptions", wiring.options())


_MAKERS: dict[Framework, Callable[[object, Wiring, str, EndpointSettings], Send]] = {
    "starlette": _starlette,
    "fastapi": _fastapi,
    "litestar": _litestar,
    "flask": _flask,
    "django": _django,
    "django async": _django,
}

if not django_settings.configured:
    django_settings.configure(
        ALLOWED_HOSTS=["testserver", "shop.example", "xn--mnchen-3ya.example", "[::1]"],
        MIDDLEWARE=[
            "django.middleware.csrf.CsrfViewMiddleware",
            "endpoint_apps.login_middleware",
        ],
        SECRET_KEY=DJANGO_KEY,
    )
    django.setup()
