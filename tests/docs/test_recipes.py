"""The recipes for other frameworks, as they stand in the docs."""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pytest
from aiohttp.test_utils import TestClient as AiohttpClient, TestServer as AiohttpServer
from aiohttp.typedefs import Handler
from aiohttp.web import Request, RequestKey, StreamResponse, middleware
from fastapi import FastAPI
from flask import Flask
from litestar.enums import ScopeType
from litestar.testing import TestClient as LitestarClient
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute
from starlette.testclient import TestClient as StarletteClient

from chatkit_sessions import ChatKitClient
from chatkit_sessions.testing import FakeChatKit, FakeServer
from endpoint_apps import through_django
from support import logging_as_it_was

if TYPE_CHECKING:
    from aiohttp.web import Application
    from fastapi import APIRouter
    from flask import Blueprint
    from litestar import Litestar
    from starlette.routing import BaseRoute

    from chatkit_sessions import AsyncChatKitClient
    from support import JSON

DOCUMENT = Path(__file__).parents[2] / "docs/endpoint.md"
JSON_TYPE = {"Content-Type": "application/json"}
Asked = tuple[str, str, dict[str, str], bytes]
Ask = Callable[[dict[str, object], list[Asked]], list[tuple[int, dict[str, str], bytes]]]


def ask_aiohttp(
    recipe: dict[str, object], requests: list[Asked]
) -> list[tuple[int, dict[str, str], bytes]]:
    @middleware
    async def sign_in(request: Request, handler: Handler) -> StreamResponse:
        if "X-Login" in request.headers:
            request[cast("RequestKey[str]", recipe["USER_ID"])] = request.headers["X-Login"]
        return await handler(request)

    app = cast("Application", recipe["app"])
    app.middlewares.append(sign_in)

    async def main() -> list[tuple[int, dict[str, str], bytes]]:
        answers: list[tuple[int, dict[str, str], bytes]] = []
        async with AiohttpClient(AiohttpServer(app)) as client:
            for method, path, headers, body in requests:
                async with client.request(method, path, headers=headers, data=body) as answer:
                    told = {name.lower(): value for name, value in answer.headers.items()}
                    answers.append((answer.status, told, await answer.read()))
        return answers

    return asyncio.run(main())


def ask_litestar(
    recipe: dict[str, object], requests: list[Asked]
) -> list[tuple[int, dict[str, str], bytes]]:
    async def sign_in(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            login = dict(scope["headers"]).get(b"x-login")
            scope["user"] = login and login.decode()
        await cast("Litestar", recipe["app"])(scope, receive, send)

    answers: list[tuple[int, dict[str, str], bytes]] = []
    with LitestarClient(sign_in) as client:
        for method, path, headers, body in requests:
            answer = client.request(method, path, headers=headers, content=body)
            answers.append((answer.status_code, dict(answer.headers), answer.content))
    return answers


def ask_with_framework(name: str, recipe: dict[str, object], paths: list[str]) -> list[int]:
    """The statuses of Ada's POSTs."""
    headers = {**JSON_TYPE, "X-Login": "ada"}
    if name == "Flask":
        with cast("ChatKitClient", recipe["chatkit"]):
            app = Flask("shop")
            app.register_blueprint(cast("Blueprint", recipe["blueprint"]))
            flask = app.test_client()
            return [flask.post(path, headers=headers).status_code for path in paths]
    if name == "Django":
        with cast("ChatKitClient", recipe["chatkit"]):
            send = through_django(
                tuple(cast("list[object]", recipe["urlpatterns"])), is_async=False
            )
            answers = [send("POST", path, headers=headers, content=b"{}") for path in paths]
            return [answer.status_code for answer in answers]
    application = Starlette(routes=cast("list[BaseRoute]", recipe.get("routes")))
    if name == "FastAPI":
        application = fastapi = FastAPI()
        fastapi.include_router(cast("APIRouter", recipe["router"]))
    with StarletteClient(application) as client:
        statuses = [client.post(path, headers=headers).status_code for path in paths]
        assert client.portal is not None
        client.portal.call(cast("AsyncChatKitClient", recipe["chatkit"]).aclose)
    return statuses


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize("name", ["FastAPI", "Starlette", "Flask", "Django"])
def test_a_recipe_lets_the_page_choose_among_workflows(
    monkeypatch: pytest.MonkeyPatch, fake: FakeChatKit, server: FakeServer, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    fake.add_workflow("wf_sales")
    fake.add_workflow("wf_support")
    recipe = re.search(rf"\*\*{name}\*\*\n\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert recipe is not None
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(compile(recipe[1], str(DOCUMENT), "exec"), vars(module))  # noqa: S102 -- our own docs

    path = "/api/chatkit/session"
    paths = [f"{path}?assistant=sales", path, f"{path}?assistant=wf_secret"]
    statuses = ask_with_framework(name, vars(module), paths)

    assert statuses == [200, 200, 422 if name == "FastAPI" else 200]
    workflows = [each.workflow_id for each in fake.sessions.values()]
    assert workflows[:2] == ["wf_sales", "wf_support"]
    assert workflows[2:] in ([], ["wf_support"])


@pytest.fixture
def _logging() -> Iterator[None]:
    with logging_as_it_was():
        yield


SESSION = "/api/chatkit/session"


def sign_in_and_ask_starlette(app: "Starlette") -> list[int]:
    async def sign_in(request: StarletteRequest) -> StarletteResponse:
        request.session["user_id"] = "ada"
        return StarletteResponse()

    app.router.routes.append(StarletteRoute("/sign-in", sign_in))
    with StarletteClient(app) as client:
        first = client.post(SESSION, json={}).status_code
        client.get("/sign-in")
        return [first, client.post(SESSION, json={}).status_code]


def sign_in_and_ask_flask(app: "Flask") -> list[int]:
    client = app.test_client()
    first = client.post(SESSION, json={}).status_code
    with client.session_transaction() as session:
        session["user_id"] = "ada"
    return [first, client.post(SESSION, json={}).status_code]


@pytest.mark.parametrize("origin", ["passed", "from the environment"])
@pytest.mark.parametrize("name", ["FastAPI", "Starlette", "Flask"])
def test_an_application_of_the_docs_takes_a_client_or_makes_one(
    monkeypatch: pytest.MonkeyPatch, fake: FakeChatKit, server: FakeServer, name: str, origin: str
) -> None:
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(compile(recipe_of(name), str(DOCUMENT), "exec"), vars(module))  # noqa: S102 -- our own docs
    make_app = cast("Callable[..., object]", vars(module)["make_app"])
    client = fake.client() if name == "Flask" else fake.async_client()
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)

    with ExitStack() as stack:
        # Flask has no place where the process's client is closed.
        vars(module)["ChatKitClient"] = lambda: stack.enter_context(ChatKitClient())
        app = make_app(client) if origin == "passed" else make_app()
        if name == "Flask":
            statuses = sign_in_and_ask_flask(cast("Flask", app))
        else:
            statuses = sign_in_and_ask_starlette(cast("Starlette", app))

    assert statuses == [401, 200]
    fake.assert_created(user="ada", times=1)


def test_djangos_urls_are_imported_without_a_key_and_make_one_client(
    monkeypatch: pytest.MonkeyPatch, fake: FakeChatKit, server: FakeServer
) -> None:
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(compile(recipe_of("Django"), str(DOCUMENT), "exec"), vars(module))  # noqa: S102 -- our own docs
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    urls = tuple(cast("list[object]", vars(module)["urlpatterns"]))
    send = through_django(urls, is_async=False)

    headers = {**JSON_TYPE, "X-Login": "ada"}
    answers = [send("POST", SESSION, headers=headers, content=b"{}") for _ in range(2)]

    assert [each.status_code for each in answers] == [200, 200]
    fake.assert_created(user="ada", times=2)
    get_chatkit = cast("Callable[[], ChatKitClient]", vars(module)["get_chatkit"])
    with get_chatkit() as chatkit:
        assert chatkit is get_chatkit()


def recipe_of(framework: str) -> str:
    """The code below a framework's heading."""
    text = DOCUMENT.read_text()
    found = re.search(
        rf"^## {framework}\n.*?^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[1]


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize(("name", "ask"), [("aiohttp", ask_aiohttp), ("Litestar", ask_litestar)])
def test_a_recipe_gives_the_whole_endpoint(
    monkeypatch: pytest.MonkeyPatch, fake: FakeChatKit, server: FakeServer, name: str, ask: Ask
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", server.workflow_id)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    recipe = re.search(
        rf"^###? {name}\n\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    assert recipe is not None
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(compile(recipe[1], str(DOCUMENT), "exec"), vars(module))  # noqa: S102 -- our own docs
    ada = {**JSON_TYPE, "X-Login": "ada"}
    foreign = {**ada, "Origin": "https://evil.example"}
    secret = json.dumps({"currentClientSecret": "ek_gone", "user": "eve"}).encode()

    created, refreshed, signed_out, nobody, refused, plain, large, unknown, preflight = ask(
        vars(module),
        [
            ("POST", "/api/chatkit/session", ada, b"{}"),
            ("POST", "/api/chatkit/session/refresh", ada, secret),
            ("DELETE", "/api/chatkit/session", ada, b""),
            ("POST", "/api/chatkit/session", JSON_TYPE, b"{}"),
            ("POST", "/api/chatkit/session", foreign, b"{}"),
            ("POST", "/api/chatkit/session", {**ada, "Content-Type": "text/plain"}, b"{}"),
            ("POST", "/api/chatkit/session", ada, b" " * 100_000),
            ("GET", "/api/chatkit/session/cksess_1", ada, b""),
            ("OPTIONS", "/api/chatkit/session", foreign, b""),
        ],
    )

    sessions = {each.client_secret: each for each in fake.sessions.values()}
    for status, headers, body in (created, refreshed):
        assert status == 200
        assert headers["cache-control"] == "no-store"
        assert headers["content-type"].startswith("application/json")
        told = cast("JSON", json.loads(body))
        assert sessions[cast("str", told["client_secret"])].user == "ada"
    assert (signed_out[0], signed_out[2]) == (204, b"")
    assert {each.status for each in sessions.values()} == {"cancelled"}
    others = [nobody, refused, plain, large, unknown, preflight]
    assert [status for status, _, _ in others] == [401, 403, 415, 413, 404, 403]
    assert cast("JSON", json.loads(refused[2]))["error"]
