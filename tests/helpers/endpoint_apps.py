"""The endpoint in every framework, each asked through its own test client."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, Unpack, cast, get_args

import django
import httpx
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient as DjangoAsyncClient, Client as DjangoClient, override_settings
from django.utils.decorators import sync_and_async_middleware
from fastapi import FastAPI, Request as FastAPIRequest
from fastapi.testclient import TestClient as FastAPITestClient
from flask import Flask, request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.testclient import TestClient as StarletteTestClient

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.integrations import CreateSessionOptions, EndpointSettings
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit
from support import JSON, Time

if TYPE_CHECKING:
    from chatkit_sessions.stores import MemorySessionStore

Framework: TypeAlias = Literal["starlette", "fastapi", "flask", "django", "django async"]
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)

ORIGIN = "http://testserver"
PREFIX = "/api/chatkit"
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
    def error_code(self) -> object:
        return cast("JSON", self.json["error"])["code"]


class Send(Protocol):
    def __call__(
        self, method: str, path: str, *, headers: dict[str, str], content: bytes
    ) -> Answer: ...


@dataclass
class Wiring:
    """What the application hands to the endpoint: by default who the header names, no options."""

    user: Callable[[str | None], object] = lambda login: login
    options: Callable[[], object] | None = None


class App:
    """An application of one framework, as a browser meets it."""

    def __init__(self, send: Send, prefix: str) -> None:
        self._send = send
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
        return self._send(
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


def _starlette(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    async def user(request: StarletteRequest) -> str | None:
        return cast("str | None", wiring.user(request.headers.get(LOGIN)))

    def options(_: StarletteRequest) -> CreateSessionOptions:
        return _options_of(wiring)

    routes = chatkit_routes(
        cast("AsyncChatKitClient", client),
        user=user,
        options=options if wiring.options else None,
        prefix=prefix,
        **settings,
    )
    return _through_httpx(StarletteTestClient(Starlette(routes=routes), base_url=ORIGIN))


def _fastapi(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    def user(request: FastAPIRequest) -> object:
        return wiring.user(request.headers.get(LOGIN))

    async def options() -> CreateSessionOptions:
        return _options_of(wiring)

    app = FastAPI()
    app.include_router(
        chatkit_router(
            cast("AsyncChatKitClient", client),
            user=user,
            options=options if wiring.options else None,
            prefix=prefix,
            **settings,
        )
    )
    return _through_httpx(FastAPITestClient(app, base_url=ORIGIN))


def _through_httpx(client: StarletteTestClient) -> Send:
    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        answer = client.request(method, path, headers=headers, content=content)
        return Answer(answer.status_code, httpx.Headers(answer.headers), answer.content)

    return send


def _flask(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    def user() -> str | None:
        return cast("str | None", wiring.user(flask_request.headers.get(LOGIN)))

    def options() -> CreateSessionOptions:
        return _options_of(wiring)

    app = Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.register_blueprint(
        chatkit_blueprint(
            cast("ChatKitClient", client),
            user=user,
            options=options if wiring.options else None,
            prefix=prefix,
            **settings,
        )
    )
    test_client = app.test_client()

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        answer = test_client.open(
            path, method=method, headers=headers, data=content, base_url=ORIGIN
        )
        return Answer(answer.status_code, httpx.Headers(list(answer.headers)), answer.data)

    return send


@sync_and_async_middleware
def login_middleware(
    get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], object]:
    """Django's `request.user`, without a database."""

    def sign_in(request: HttpRequest) -> None:
        login = request.headers.get(LOGIN)
        user = SimpleNamespace(pk=int(login) if login and login.isdigit() else login)

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


def _django(client: object, wiring: Wiring, prefix: str, settings: EndpointSettings) -> Send:
    def user(request: HttpRequest) -> str | None:
        return cast("str | None", wiring.user(request.headers.get(LOGIN)))

    async def user_async(request: HttpRequest) -> str | None:
        return user(request)

    def options(_: HttpRequest) -> CreateSessionOptions:
        return _options_of(wiring)

    is_async = isinstance(client, AsyncChatKitClient)
    urls = chatkit_urls(
        cast("ChatKitClient | AsyncChatKitClient", client),
        user=user_async if is_async else user,
        options=options if wiring.options else None,
        prefix=prefix,
        **settings,
    )
    return through_django(tuple(urls), is_async=is_async)


def through_django(urls: object, *, is_async: bool, enforce_csrf_checks: bool = False) -> Send:
    """Send through the real middleware, cross-site request forgery's included."""

    async def ask_async(
        method: str, path: str, content: bytes, headers: dict[str, str]
    ) -> HttpResponse:
        client = DjangoAsyncClient(enforce_csrf_checks=enforce_csrf_checks)
        client.cookies.load(headers.pop("Cookie", ""))  # it sends a header of its own
        # Where there is a body, only the argument counts, and only the header where there is none.
        content_type = headers.pop("Content-Type", "") if content else ""
        asked: object = client.generic(method, path, content, content_type, headers=headers)
        return await cast("Awaitable[HttpResponse]", asked)

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        with override_settings(ROOT_URLCONF=urls):
            answer = (
                asyncio.run(ask_async(method, path, content, headers))
                if is_async
                else (
                    DjangoClient(enforce_csrf_checks=enforce_csrf_checks).generic(
                        method, path, content, "", headers=headers
                    )
                )
            )
        return Answer(answer.status_code, httpx.Headers(list(answer.items())), answer.content)

    return send


def _options_of(wiring: Wiring) -> CreateSessionOptions:
    assert wiring.options is not None
    return cast("CreateSessionOptions", wiring.options())


_MAKERS: dict[Framework, Callable[[object, Wiring, str, EndpointSettings], Send]] = {
    "starlette": _starlette,
    "fastapi": _fastapi,
    "flask": _flask,
    "django": _django,
    "django async": _django,
}

if not django_settings.configured:
    django_settings.configure(
        ALLOWED_HOSTS=["testserver"],
        MIDDLEWARE=[
            "django.middleware.csrf.CsrfViewMiddleware",
            "endpoint_apps.login_middleware",
        ],
        SECRET_KEY="of no use elsewhere",
    )
    django.setup()
