"""What each framework's module does in the framework's own way."""

import asyncio
import functools
import importlib
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, cast

import httpx
import pytest
from django.db import connections
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.test import RequestFactory
from django.urls import include, path
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient as FastAPITestClient
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.testclient import TestClient as StarletteTestClient
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.local import LocalProxy

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ConfigurationError
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
    EndpointSettings,
)
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.flask import (
    chatkit_blueprint,
)
from chatkit_sessions.integrations.litestar import chatkit_handlers
from chatkit_sessions.integrations.starlette import AnonymousVisitor, chatkit_routes
from chatkit_sessions.testing import FakeChatKit
from endpoint_apps import LOGIN, ORIGIN, App, Backend, through_django
from support import JSON, Connect, Script, Time, ok
from workers import inner

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

FRAMEWORKS = ["django", "fastapi", "flask", "litestar", "starlette"]
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture
def chatkit(fake: FakeChatKit, time: Time) -> AsyncChatKitClient:
    return cast("AsyncChatKitClient", Backend("starlette", time, fake).client())


@pytest.fixture
def sync_chatkit(fake: FakeChatKit, time: Time) -> ChatKitClient:
    return cast("ChatKitClient", Backend("flask", time, fake).client())


def run(script: str) -> str:
    done = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


# Imports


def test_no_framework_is_imported_before_its_module_is() -> None:
    script = (
        "import sys, chatkit_sessions, chatkit_sessions.integrations as i; i.ChatKitEndpoint; "
        "chatkit_sessions.ChatKitClient, chatkit_sessions.testing.FakeChatKit; "
        "print(*sys.modules)"
    )

    assert not {"django", "fastapi", "flask", "litestar", "starlette"} & {*run(script).split()}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_that_is_missing_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == framework]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"chatkit_sessions.integrations.{framework}")

    with pytest.raises(ImportError, match=rf'pip install "chatkit-sessions\[{framework}\]"'):
        importlib.import_module(f"chatkit_sessions.integrations.{framework}")


# The neutral endpoint


def request(path: str = "/session", **changes: str) -> EndpointRequest:
    return EndpointRequest(
        method=changes.get("method", "POST"),
        path=path,
        url=f"{ORIGIN}/chat{path}",
        headers=JSON_TYPE,
        body=b'{"currentClientSecret": "ek_presented"}',
    )


def told_by(answer: EndpointResponse) -> object:
    return cast("JSON", json.loads(answer.body).get("error", {})).get("code")


@pytest.mark.parametrize("path", ["", "/", "/sessions", "/session/", "/session/a/b", "/session/a"])
def test_a_path_that_is_no_route_is_not_found(sync_chatkit: ChatKitClient, path: str) -> None:
    answer = ChatKitEndpoint(sync_chatkit).handle(request(path), user="ada")

    assert (answer.status_code, told_by(answer)) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PATCH", "post", ""])
def test_a_method_that_a_route_does_not_take_is_told(
    sync_chatkit: ChatKitClient, method: str
) -> None:
    answer = ChatKitEndpoint(sync_chatkit).handle(request(method=method), user="ada")

    assert (answer.status_code, told_by(answer)) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST, DELETE, OPTIONS"


def test_the_routes_are_told(sync_chatkit: ChatKitClient, chatkit: AsyncChatKitClient) -> None:
    routes = {"/session": ("POST", "DELETE", "OPTIONS"), "/session/refresh": ("POST", "OPTIONS")}

    assert ChatKitEndpoint(sync_chatkit).routes == routes
    by_id = {"/session/{session_id}": ("GET", "HEAD", "DELETE", "OPTIONS")}
    assert AsyncChatKitEndpoint(chatkit, session_by_id=True).routes == {**routes, **by_id}


@pytest.mark.parametrize(("settings", "seconds"), [({}, 10), ({"timeout": 3}, 3)])
def test_the_api_has_a_short_time_to_answer(
    connect: Connect, settings: EndpointSettings, seconds: float
) -> None:
    script = Script([ok()])
    client = inner(connect(script, timeout=600))

    if isinstance(client, ChatKitClient):
        ChatKitEndpoint(client, **settings).handle(request(), user="ada")
    else:
        endpoint = AsyncChatKitEndpoint(client, **settings)
        asyncio.run(endpoint.handle(request(), user="ada"))

    limits = cast("dict[str, float]", script.requests[0].extensions["timeout"])
    assert seconds - 1 < limits["read"] <= seconds


def test_neither_a_request_nor_an_answer_shows_its_secret(sync_chatkit: ChatKitClient) -> None:
    asked = request()
    asked = EndpointRequest(
        method="POST",
        path="/session",
        url=ORIGIN,
        headers={**JSON_TYPE, "Cookie": "login=of-ada"},
        body=asked.body,
    )

    answer = ChatKitEndpoint(sync_chatkit).handle(asked, user="ada")

    assert b"ek_" in answer.body
    assert b"ek_" in asked.body
    for shown in (repr(answer), repr(asked), str(answer.body), f"{asked.body!r}"):
        assert "ek_" not in shown
        assert "of-ada" not in shown


def test_an_origin_that_is_sent_twice_is_none(sync_chatkit: ChatKitClient) -> None:
    """As a proxy may write it: no origin can hide behind another."""
    asked = EndpointRequest(
        method="POST",
        path="/session",
        url=ORIGIN,
        headers={**JSON_TYPE, "origin": "https://evil.example", "Origin": ORIGIN},
    )

    assert ChatKitEndpoint(sync_chatkit).handle(asked, user="ada").status_code == 403


# Functions that cannot be called for a request


def make(framework: str, chatkit: object, sync_chatkit: object, **arguments: object) -> object:
    makers: dict[str, Callable[..., object]] = {
        "django": chatkit_urls,
        "fastapi": chatkit_router,
        "flask": chatkit_blueprint,
        "litestar": chatkit_handlers,
        "starlette": chatkit_routes,
    }
    client = sync_chatkit if framework in {"django", "flask"} else chatkit
    return makers[framework](**{"client": client, "user": lambda: "ada", **arguments})


@functools.cache
async def cached() -> str:
    raise AssertionError


def proxied() -> object:
    raise RuntimeError("Working outside of request context.")


async def waiting() -> str:
    raise AssertionError


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": "ada"}, "`user` must be a function, which is called for each request, got 'ada'"),
        ({"user": 7}, "`user` must be a function"),
        ({"user": LocalProxy(proxied)}, "`user` must be a function.*, got a LocalProxy"),
        ({"options": {"expires_after": 60}}, "`options` must be a function"),
        ({"options": LocalProxy(proxied)}, "`options` must be a function"),
        ({"client": LocalProxy(proxied)}, "`client` must be a function"),
        ({"user": cached}, "`user` is a coroutine function in `functools.cache`"),
        ({"client": cached}, "`client` is a coroutine function in `functools.cache`"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_what_cannot_be_called_for_a_request_is_refused_at_once(
    framework: str,
    chatkit: AsyncChatKitClient,
    sync_chatkit: ChatKitClient,
    arguments: dict[str, object],
    message: str,
) -> None:
    if framework == "django" and isinstance(arguments.get("client"), LocalProxy):
        return  # proxies are Flask's

    with pytest.raises(ConfigurationError, match=message):
        make(framework, chatkit, sync_chatkit, **arguments)


@pytest.mark.parametrize("framework", ["fastapi", "flask", "litestar", "starlette"])
def test_no_user_at_all_is_refused_at_once(
    framework: str, chatkit: AsyncChatKitClient, sync_chatkit: ChatKitClient
) -> None:
    with pytest.raises(ConfigurationError, match="`user` must be a function"):
        make(framework, chatkit, sync_chatkit, user=None)


@pytest.mark.parametrize("framework", ["django", "flask"])
@pytest.mark.parametrize("argument", ["user", "options"])
def test_a_synchronous_endpoint_refuses_what_has_to_be_awaited(
    framework: str, sync_chatkit: ChatKitClient, argument: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"`{argument}` is a coroutine function"):
        make(framework, None, sync_chatkit, **{argument: waiting})


def test_a_proxy_of_a_string_is_that_string(sync_chatkit: ChatKitClient, fake: FakeChatKit) -> None:
    app, user = Flask("shop"), LocalProxy(lambda: "ada")
    app.register_blueprint(chatkit_blueprint(sync_chatkit, user=lambda: cast("str", user)))

    answer = app.test_client().post("/api/chatkit/session", headers=JSON_TYPE)
    sync_chatkit.get_or_create_session(cast("str", user))

    assert answer.status_code == 200
    assert [session.user for session in fake.sessions.values()] == ["ada", "ada"]
    assert len(sync_chatkit.sessions_for(cast("str", user))) == 2
    sync_chatkit.delete_sessions(cast("str", user))
    assert {session.status for session in fake.sessions.values()} == {"cancelled"}


# Starlette


def test_starlettes_functions_may_wait_or_not(
    chatkit: AsyncChatKitClient, fake: FakeChatKit
) -> None:
    def user(request: StarletteRequest) -> str | None:
        return request.headers.get(LOGIN)

    async def options(_: StarletteRequest) -> CreateSessionOptions:
        return {"expires_after": 60}

    client = StarletteTestClient(
        Starlette(routes=chatkit_routes(chatkit, user=user, options=options))
    )

    answer = client.post("/api/chatkit/session", headers={**JSON_TYPE, LOGIN: "ada"})

    assert answer.status_code == 200
    (sent,) = fake.requests
    assert cast("JSON", sent.json)["expires_after"] == {"anchor": "created_at", "seconds": 60}


def test_an_open_cors_middleware_opens_nothing(
    chatkit: AsyncChatKitClient, fake: FakeChatKit
) -> None:
    everybody = Middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"]
    )
    routes = chatkit_routes(chatkit, user=lambda _: "ada")
    client = StarletteTestClient(Starlette(routes=routes, middleware=[everybody]))

    answer = client.post(
        "/api/chatkit/session", headers={**JSON_TYPE, "Origin": "https://evil.example"}
    )

    assert answer.status_code == 403
    assert not fake.requests


def test_a_body_that_comes_in_many_pieces_is_read_to_the_limit_only(
    chatkit: AsyncChatKitClient,
) -> None:
    read: list[int] = []

    async def app(scope: dict[str, object], _: object, send: object) -> None:
        async def receive() -> dict[str, object]:
            read.append(1)
            return {"type": "http.request", "body": b" " * 1024, "more_body": True}

        starlette = Starlette(routes=chatkit_routes(chatkit, user=lambda _: "ada"))
        await starlette(scope, receive, send)  # type: ignore[arg-type]  # as servers call it

    client = StarletteTestClient(app)  # type: ignore[arg-type]  # as above

    answer = client.post("/api/chatkit/session", headers=JSON_TYPE)

    assert answer.status_code == 413
    assert len(read) == 65


def test_a_visitors_cookie_needs_one_more_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)

    with pytest.raises(ImportError, match="pip install itsdangerous"):
        AnonymousVisitor("a secret key of sixteen bytes")


@pytest.mark.parametrize(
    ("trusted", "headers", "status"),
    [
        ("*", {"X-Forwarded-Host": "shop.example"}, 200),
        ("*", {"X-Forwarded-Host": "other.example, shop.example"}, 200),
        ("*", {"X-Forwarded-Host": "shop.example, other.example"}, 403),
        ("*", {}, 403),
        ("10.9.9.9", {"X-Forwarded-Host": "shop.example"}, 403),
    ],
)
def test_the_host_is_the_proxys_to_say_where_the_server_trusts_the_proxy(
    chatkit: AsyncChatKitClient, trusted: str, headers: dict[str, str], status: int
) -> None:
    app = Starlette(routes=chatkit_routes(chatkit, user=lambda _: "ada"))
    proxied = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]  # its own types

    async def from_the_proxy(scope: "Scope", receive: "Receive", send: "Send") -> None:
        await cast("ASGIApp", proxied)({**scope, "client": ("127.0.0.1", 4711)}, receive, send)

    client = StarletteTestClient(from_the_proxy, base_url="http://127.0.0.1:8000")
    forwarded = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", **headers}

    answer = client.post(
        "/api/chatkit/session", headers={**JSON_TYPE, "Origin": "https://shop.example", **forwarded}
    )

    assert answer.status_code == status


# FastAPI


def test_fastapis_user_is_any_dependency(chatkit: AsyncChatKitClient, fake: FakeChatKit) -> None:
    def account(token: str = "") -> SimpleNamespace:
        if not token:
            raise HTTPException(401, "Sign in first.")
        return SimpleNamespace(id="ada", plan="pro")

    def user(account: Annotated[SimpleNamespace, Depends(account)]) -> str:
        return cast("str", account.id)

    def options(account: Annotated[SimpleNamespace, Depends(account)]) -> CreateSessionOptions:
        return {"state_variables": {"plan": account.plan}}

    app = FastAPI()
    app.include_router(chatkit_router(chatkit, user=user, options=options))
    client = FastAPITestClient(app)

    refused = client.post("/api/chatkit/session", headers=JSON_TYPE)
    answer = client.post("/api/chatkit/session?token=1", headers=JSON_TYPE)

    assert (refused.status_code, refused.json()) == (401, {"detail": "Sign in first."})
    assert answer.status_code == 200
    (sent,) = fake.requests
    workflow = cast("JSON", cast("JSON", sent.json)["workflow"])
    assert (cast("JSON", sent.json)["user"], workflow["state_variables"]) == (
        "ada",
        {"plan": "pro"},
    )


def test_fastapi_documents_the_routes(chatkit: AsyncChatKitClient) -> None:
    app = FastAPI()
    app.include_router(chatkit_router(chatkit, user=lambda: "ada", session_by_id=True))

    schema = app.openapi()

    methods = {path: sorted(operations) for path, operations in schema["paths"].items()}
    assert methods == {
        "/api/chatkit/session": ["delete", "post"],
        "/api/chatkit/session/refresh": ["post"],
        "/api/chatkit/session/{session_id}": ["delete", "get"],
    }
    by_id = schema["paths"]["/api/chatkit/session/{session_id}"]["get"]
    assert [parameter["name"] for parameter in by_id["parameters"]] == ["session_id"]
    created = schema["paths"]["/api/chatkit/session"]["post"]["responses"]["200"]
    assert created["content"]["application/json"]["schema"]["$ref"].endswith("/BrowserSession")


def test_fastapis_client_is_any_dependency_that_tests_can_replace(
    chatkit: AsyncChatKitClient, fake: FakeChatKit
) -> None:
    def get_chatkit() -> AsyncChatKitClient:
        raise AssertionError("replaced")

    app = FastAPI()
    app.include_router(chatkit_router(get_chatkit, user=lambda: "ada"))
    app.dependency_overrides[get_chatkit] = lambda: chatkit

    answer = FastAPITestClient(app).post("/api/chatkit/session", headers=JSON_TYPE)

    assert answer.status_code == 200
    assert len(fake.sessions) == 1


@pytest.mark.parametrize("argument", ["user", "options"])
def test_fastapis_functions_without_annotations_are_told_what_to_write(
    chatkit: AsyncChatKitClient, argument: str
) -> None:
    def bare(request) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- what it is about
        del request

    functions: dict[str, Callable[..., object]] = {"user": lambda: "ada", argument: bare}

    with pytest.raises(ConfigurationError, match="has no annotation") as raised:
        chatkit_router(chatkit, **functions)  # type: ignore[arg-type]  # no setting among them

    assert f"The parameter `request` of `{argument}`" in raised.value.message
    assert "`request: Request`" in raised.value.hint


def test_fastapis_functions_may_have_any_signature_that_says_what_it_is(
    chatkit: AsyncChatKitClient,
) -> None:
    def user(request: Request, *, lax: bool = False, **_: object) -> str:
        del request, lax
        return "ada"

    def options() -> CreateSessionOptions:
        return {}

    router = chatkit_router(chatkit, user=functools.partial(user, lax=True), options=options)

    assert router.routes


def test_fastapis_schema_serves_generated_clients(chatkit: AsyncChatKitClient) -> None:
    app = FastAPI(generate_unique_id_function=lambda route: route.name)
    app.include_router(chatkit_router(chatkit, user=lambda: "ada", session_by_id=True))

    schema = app.openapi()

    operations = {
        each["operationId"]: each
        for methods in schema["paths"].values()
        for each in methods.values()
    }
    assert set(operations) == {
        "create_chatkit_session",
        "refresh_chatkit_session",
        "delete_chatkit_sessions",
        "get_chatkit_session",
        "delete_chatkit_session",
    }
    body = operations["refresh_chatkit_session"]["requestBody"]
    assert body["required"] is True
    fields = body["content"]["application/json"]["schema"]
    assert fields["required"] == ["currentClientSecret"]
    read = operations["get_chatkit_session"]["responses"]["200"]
    assert read["content"]["application/json"]["schema"]["$ref"].endswith("/SessionState")
    for each in operations.values():
        for status in ("400", "401", "403", "404", "409", "413", "415", "429", "502", "503", "504"):
            content = each["responses"][status]["content"]
            assert content["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


# Flask


def test_flask_can_have_several_blueprints(sync_chatkit: ChatKitClient) -> None:
    app = Flask("shop")
    app.register_blueprint(chatkit_blueprint(sync_chatkit, user=lambda: "ada"))
    app.register_blueprint(
        chatkit_blueprint(sync_chatkit, user=lambda: "ada", prefix="/other", name="other")
    )

    for path_ in ("/api/chatkit/session", "/other/session"):
        assert app.test_client().post(path_, headers=JSON_TYPE).status_code == 200


# Django


@pytest.fixture(params=["sync", "async"])
def django_chatkit(
    request: pytest.FixtureRequest, chatkit: AsyncChatKitClient, sync_chatkit: ChatKitClient
) -> ChatKitClient | AsyncChatKitClient:
    return sync_chatkit if request.param == "sync" else chatkit


def django_app(
    client: ChatKitClient | AsyncChatKitClient, urls: object, *, csrf: bool = False
) -> App:
    is_async = isinstance(client, AsyncChatKitClient)
    return App(through_django(urls, is_async=is_async, enforce_csrf_checks=csrf), "/api/chatkit")


def test_djangos_user_is_the_one_who_is_logged_in(
    django_chatkit: ChatKitClient | AsyncChatKitClient, fake: FakeChatKit
) -> None:
    app = django_app(django_chatkit, tuple(chatkit_urls(django_chatkit)))

    answer, refused = app.create("7"), app.create(None)

    assert (answer.status_code, refused.status_code) == (200, 401)
    assert [session.user for session in fake.sessions.values()] == ["7"]


def test_djangos_patterns_can_be_included(
    django_chatkit: ChatKitClient | AsyncChatKitClient,
) -> None:
    urls = (path("api/chatkit/", include(chatkit_urls(django_chatkit, prefix=""))),)

    assert django_app(django_chatkit, urls).create().status_code == 200


def test_djangos_protection_against_forged_requests_stays_on(
    django_chatkit: ChatKitClient | AsyncChatKitClient, fake: FakeChatKit
) -> None:
    app = django_app(django_chatkit, tuple(chatkit_urls(django_chatkit)), csrf=True)
    token = get_token(RequestFactory().get("/"))

    forged = [app.create(), app("DELETE", "/session"), app.refresh("ek_1")]
    genuine = app.create(Cookie=f"csrftoken={token}", X_CSRFToken=token)

    assert [answer.status_code for answer in forged] == [403, 403, 403]
    assert genuine.status_code == 200
    assert len(fake.requests) == 1


LISTED = "https://app.example.com"


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {"Origin": LISTED}, 200),  # it cannot read the token, and is named by the application
        ({}, {"Origin": "https://evil.example"}, 403),
        ({}, {"Origin": ORIGIN}, 403),
        ({}, {"Origin": ORIGIN, "X-CSRFToken": "…"}, 200),
        ({}, {"Origin": ORIGIN.replace("http", "https"), "X-CSRFToken": "…"}, 200),  # TLS in front
        ({"csrf_exempt": True}, {}, 200),
        ({"csrf_exempt": True}, {"Origin": ORIGIN}, 200),
        ({"csrf_exempt": True}, {"Origin": "https://evil.example"}, 403),
        ({"csrf_exempt": True}, {"Sec-Fetch-Site": "cross-site"}, 403),
    ],
    ids=str,
)
def test_djangos_token_is_asked_of_pages_that_can_have_it(
    django_chatkit: ChatKitClient | AsyncChatKitClient,
    settings: dict[str, bool],
    headers: dict[str, str],
    status: int,
) -> None:
    csrf_exempt = settings.get("csrf_exempt", False)
    urls = chatkit_urls(django_chatkit, allowed_origins=[LISTED], csrf_exempt=csrf_exempt)
    app = django_app(django_chatkit, tuple(urls), csrf=True)
    if "X-CSRFToken" in headers:
        token = get_token(RequestFactory().get("/"))
        headers = {**headers, "X-CSRFToken": token, "Cookie": f"csrftoken={token}"}

    answer = app("POST", "/session", headers=headers)

    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (
        LISTED if headers.get("Origin") == LISTED else None
    )


def test_djangos_token_is_asked_only_where_the_project_asks_for_it(
    django_chatkit: ChatKitClient | AsyncChatKitClient,
) -> None:
    is_async = isinstance(django_chatkit, AsyncChatKitClient)
    send = through_django(
        tuple(chatkit_urls(django_chatkit)),
        is_async=is_async,
        enforce_csrf_checks=True,
        middleware=["endpoint_apps.login_middleware"],
    )

    assert App(send, "/api/chatkit").create().status_code == 200


def test_djangos_login_page_does_not_stand_before_the_endpoint() -> None:
    """`LoginRequiredMiddleware`, Django's own; its models are why this runs apart."""
    script = """
import django
from django.conf import settings
from django.test import Client
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.testing import FakeChatKit
if django.VERSION >= (5, 1):
    contrib = "django.contrib."
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", LOGGING_CONFIG=None,
        SESSION_ENGINE=contrib + "sessions.backends.signed_cookies", LOGIN_URL="/login/",
        INSTALLED_APPS=[contrib + "auth", contrib + "contenttypes"],
        MIDDLEWARE=[contrib + "sessions.middleware.SessionMiddleware",
                    contrib + "auth.middleware.AuthenticationMiddleware",
                    contrib + "auth.middleware.LoginRequiredMiddleware"])
    django.setup()
    urlpatterns = chatkit_urls(FakeChatKit().client(), allowed_origins=["https://app.example"])
    path, page = "/api/chatkit/session", {"Origin": "https://app.example"}
    answer = Client().post(path, "{}", content_type="application/json", headers=page)
    preflight = Client().options(path, headers={**page, "Access-Control-Request-Method": "POST"})
    print(answer.status_code, answer.headers["Access-Control-Allow-Origin"], preflight.status_code)
"""

    assert run(script).strip() in {"401 https://app.example 204", ""}


@pytest.fixture
def _atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ATOMIC_REQUESTS` in two databases that do not exist: any transaction would fail."""
    default = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", default)
    monkeypatch.setitem(connections.settings, "other", default)


@pytest.mark.usefixtures("_atomic_requests")
def test_no_transaction_is_open_during_a_call_to_the_api(
    django_chatkit: ChatKitClient | AsyncChatKitClient,
) -> None:
    app = django_app(django_chatkit, tuple(chatkit_urls(django_chatkit)))

    assert app.create().status_code == 200


def test_django_needs_the_coroutine_function_and_not_its_coroutine(
    chatkit: AsyncChatKitClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def get_chatkit(_: HttpRequest) -> AsyncChatKitClient:
        return chatkit

    class Factory:
        async def __call__(self, _: HttpRequest) -> AsyncChatKitClient:
            return chatkit

    for function in (get_chatkit, Factory(), functools.partial(get_chatkit)):
        app = django_app(chatkit, tuple(chatkit_urls(function)))
        assert app.create().status_code == 200

    def wrapped(request: HttpRequest) -> object:
        return get_chatkit(request)

    send = through_django(
        tuple(chatkit_urls(cast("ChatKitClient", wrapped), csrf_exempt=True)),
        is_async=False,
        middleware=["endpoint_apps.login_middleware"],
    )
    assert App(send, "/api/chatkit").create().status_code == 502
    assert "Pass the coroutine function itself, as in `chatkit_urls(get_chatkit)`" in caplog.text


def test_django_refuses_a_host_that_is_not_its_own(sync_chatkit: ChatKitClient) -> None:
    app = django_app(sync_chatkit, tuple(chatkit_urls(sync_chatkit)))

    assert app.create(Host="evil.example").status_code == 400


# A server that other clients call, too


def test_httpx_is_no_browser_and_needs_no_origin(sync_chatkit: ChatKitClient) -> None:
    app = Flask("shop")
    app.register_blueprint(chatkit_blueprint(sync_chatkit, user=lambda: "ada"))
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url=ORIGIN) as client:
        answer = client.post("/api/chatkit/session", json={})

    assert answer.status_code == 200
