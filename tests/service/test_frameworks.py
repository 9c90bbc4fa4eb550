"""`chatkit_session` in every framework: who gets in, what is counted, how requests are rejected."""

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

import httpx
import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path as url_pattern
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.testclient import TestClient
from flask import Flask, request as flask_request
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chatkit_sessions import ConfigurationError
from chatkit_sessions._sessions.store_access import state_of
from chatkit_sessions.service import (
    AsyncSessionsService,
    SessionContext,
    SessionsApp,
    SessionsService,
    SessionsWSGIApp,
)
from chatkit_sessions.service.django import chatkit_session as django_session
from chatkit_sessions.service.fastapi import chatkit_session as fastapi_session
from chatkit_sessions.service.flask import chatkit_session as flask_session
from chatkit_sessions.service.starlette import chatkit_session as starlette_session
from chatkit_sessions.stores import AsyncSessionStore, Entry, MemorySessionStore
from endpoint_apps import Answer, Send, through_django
from services import CountedStore

Framework: TypeAlias = Literal["starlette", "fastapi", "flask", "django", "django async"]
READS = ["threads.list", "threads.get_by_id", "items.list"]
WRITES = ["threads.create", "threads.add_user_message", "items.feedback", 1, None]


class HangingStore(CountedStore):
    """A counted store whose reads can hang."""

    timeout = 20.0

    def __init__(self, store: MemorySessionStore) -> None:
        super().__init__(store)
        self._responds = threading.Event()
        self._responds.set()

    def hang(self) -> Callable[[], None]:
        """Hang until the returned function is called."""
        self._responds.clear()
        return self._responds.set

    def hangs(self) -> bool:
        return not self._responds.is_set()

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        assert self._responds.wait(60)
        return super().get(group, names)


class Awaited:
    """The same for async services."""

    namespace = "shop"

    def __init__(self, store: HangingStore) -> None:
        self._store = store
        self.timeout = store.timeout

    async def get(self, *args: Any) -> Any:  # noqa: ANN401 -- passed on
        if self._store.hangs():
            await asyncio.Event().wait()
        return self._store.get(*args)

    async def names(self, *args: Any) -> Any:  # noqa: ANN401 -- passed on
        return self._store.names(*args)

    async def commit(self, *args: Any, when: Any) -> Any:  # noqa: ANN401 -- passed on
        return self._store.commit(*args, when=when)


class ChatServer:
    """A chat server of one framework that says whose request it was, and returns the body."""

    def __init__(
        self,
        framework: Framework,
        **options: Any,  # noqa: ANN401 -- passed on
    ) -> None:
        self.store = HangingStore(MemorySessionStore(namespace="shop"))
        self.issuing = SessionsService(self.store, workflows={"support", "sales"})
        awaited = cast("AsyncSessionStore", Awaited(self.store))
        asynchronous = AsyncSessionsService(awaited, workflows={"support", "sales"})
        self.executors = [state_of(store).executor for store in (self.store, awaited)]
        makers: dict[Framework, Callable[[], Send]] = {
            "starlette": lambda: _starlette(asynchronous, options),
            "fastapi": lambda: _fastapi(asynchronous, options),
            "flask": lambda: _flask(self.issuing, options),
            "django": lambda: _django(self.issuing, options),
            "django async": lambda: _django_async(asynchronous, options),
        }
        self._send = makers[framework]()

    def secret(
        self, *, limit: int = 10, workflow_id: str = "support", project: str = "shop"
    ) -> str:
        client = self.issuing.client(workflow_id=workflow_id, project=project)
        session = client.create_session("ada", max_requests_per_1_minute=limit)
        return session.client_secret.get_secret_value()

    def post(self, authorization: str | None, content: object = None) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        return self._send("POST", "/chatkit", headers=headers, content=body)


def through_starlette(app: Starlette) -> Send:
    client = TestClient(app)

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        answer = client.request(method, path, headers=headers, content=content)
        return Answer(answer.status_code, httpx.Headers(dict(answer.headers)), answer.content)

    return send


def through_flask(app: Flask) -> Send:
    client = app.test_client()

    def send(method: str, path: str, *, headers: dict[str, str], content: bytes) -> Answer:
        answer = client.open(path, method=method, headers=headers, data=content)
        return Answer(answer.status_code, httpx.Headers(list(answer.headers)), answer.data)

    return send


def said(session: SessionContext, body: bytes) -> dict[str, str]:
    return {"user": session.user, "body": body.decode("latin-1")}


def _starlette(service: AsyncSessionsService, options: dict[str, Any]) -> Send:
    session_of = starlette_session(service, **options)

    async def chat(request: Request) -> Response:
        session = await session_of(request)
        return JSONResponse(said(session, await request.body()))

    return through_starlette(Starlette(routes=[Route("/chatkit", chat, methods=["POST"])]))


def _fastapi(service: AsyncSessionsService, options: dict[str, Any]) -> Send:
    app = FastAPI()

    @app.post("/chatkit")
    async def chat(
        request: Request,
        session: Annotated[SessionContext, Depends(fastapi_session(service, **options))],
    ) -> dict[str, str]:
        return said(session, await request.body())

    return through_starlette(app)


def _flask(service: SessionsService, options: dict[str, Any]) -> Send:
    app = Flask(__name__)
    current_session = flask_session(service, **options)

    @app.post("/chatkit")
    def chat() -> dict[str, str]:
        return said(current_session(), flask_request.get_data())

    return through_flask(app)


def _django(service: SessionsService, options: dict[str, Any]) -> Send:
    @django_session(service, **options)
    def chat(request: HttpRequest, session: SessionContext) -> HttpResponse:
        return JsonResponse(said(session, request.body))

    urls = (url_pattern("chatkit", chat),)
    return through_django(urls, is_async=False, enforce_csrf_checks=True)


def _django_async(service: AsyncSessionsService, options: dict[str, Any]) -> Send:
    @django_session(service, **options)
    async def chat(request: HttpRequest, session: SessionContext) -> HttpResponse:
        return JsonResponse(said(session, request.body))

    urls = (url_pattern("chatkit", chat),)
    return through_django(urls, is_async=True, enforce_csrf_checks=True)


EXTRAS = ["starlette", "flask", "django"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    name = f"chatkit_sessions.service.{extra}"
    monkeypatch.setitem(sys.modules, extra, None)
    for module in [each for each in sys.modules if each.startswith(f"{extra}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, name)

    with pytest.raises(ImportError, match=rf"chatkit-sessions\[{extra}\]"):
        importlib.import_module(name)


@pytest.fixture(params=get_args(Framework))
def framework(request: pytest.FixtureRequest) -> Framework:
    return cast("Framework", request.param)


@pytest.fixture
def server(framework: Framework) -> ChatServer:
    return ChatServer(framework)


def test_a_valid_secret_gets_in_and_the_view_reads_the_body(server: ChatServer) -> None:
    answer = server.post(f"Bearer {server.secret()}", {"type": "threads.create"})

    assert answer.status_code == 200
    assert answer.json == {"user": "ada", "body": '{"type": "threads.create"}'}


def test_only_secrets_of_its_workflow_and_project_get_in(framework: Framework) -> None:
    server = ChatServer(framework, workflow_id="support", project="shop")

    assert server.post(f"Bearer {server.secret()}").status_code == 200
    for secret in (server.secret(workflow_id="sales"), server.secret(project="forum")):
        answer = server.post(f"Bearer {secret}")
        assert answer.status_code == 401
        assert cast("dict[str, object]", answer.json["error"])["code"] == "client_secret_unknown"


def test_a_workflow_that_the_service_does_not_have_is_rejected_at_once(
    framework: Framework,
) -> None:
    with pytest.raises(ConfigurationError, match="This service has no workflow 'suport'") as raised:
        ChatServer(framework, workflow_id="suport")

    assert raised.value.hint.startswith("This service's `workflows` are 'sales', 'support'.")


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (starlette_session, SessionsService),
        (fastapi_session, SessionsService),
        (SessionsApp, SessionsService),
        (flask_session, AsyncSessionsService),
        (SessionsWSGIApp, AsyncSessionsService),
    ],
)
def test_a_service_of_the_other_kind_is_rejected_at_once(
    make: Callable[..., object], other: type[SessionsService | AsyncSessionsService]
) -> None:
    with pytest.raises(ConfigurationError, match=f"`service` must be .*, got an? {other.__name__}"):
        make(other(MemorySessionStore()))


def test_what_is_no_service_is_rejected_at_once() -> None:
    with pytest.raises(ConfigurationError, match="`service` must be the SessionsService"):
        django_session(cast("SessionsService", None))


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "client_secret_missing"),
        ("", "client_secret_missing"),
        ("Basic YWRhOmFkYQ==", "client_secret_missing"),
        ("Bearer", "client_secret_missing"),
        ("Bearer  ", "client_secret_missing"),
        ("Bearer ek_1", "client_secret_unknown"),
        ("bearer ek_" + "0" * 64, "client_secret_unknown"),
        ("Bearer ek_" + "0" * 1_000_000, "client_secret_unknown"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_requests_are_rejected_with_401(
    server: ChatServer, authorization: str | None, code: str
) -> None:
    answer = server.post(authorization)

    assert (answer.status_code, answer.error_code) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(cast("dict[str, object]", answer.json["error"])) == {"code", "message"}


@pytest.mark.parametrize("framework", ["django async"])
def test_an_asynchronous_view_of_django_opts_out_of_transactions(
    framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", default)
    server = ChatServer(framework)

    assert server.post(f"Bearer {server.secret()}").status_code == 200


def test_a_session_that_has_ended_is_named(server: ChatServer) -> None:
    session = server.issuing.client(workflow_id="support").create_session("ada")
    server.issuing.client(workflow_id="support").delete_session(session.id)

    answer = server.post(f"Bearer {session.client_secret.get_secret_value()}")

    assert (answer.status_code, answer.error_code) == (401, "client_secret_cancelled")


def test_too_many_requests_are_rejected_with_429(server: ChatServer) -> None:
    authorization = f"Bearer {server.secret(limit=1)}"
    assert server.post(authorization).status_code == 200

    answer = server.post(authorization)

    assert (answer.status_code, answer.error_code) == (429, "rate_limit_exceeded")
    assert 59 <= int(answer.headers["retry-after"]) <= 61


@pytest.mark.parametrize("service", [SessionsService, AsyncSessionsService])
def test_a_view_of_django_is_of_its_services_kind(
    service: type[SessionsService | AsyncSessionsService],
) -> None:
    decorate = django_session(service(MemorySessionStore()))

    def plain(request: HttpRequest, session: SessionContext) -> HttpResponse:
        raise AssertionError((request, session))

    async def asynchronous(request: HttpRequest, session: SessionContext) -> HttpResponse:
        raise AssertionError((request, session))

    if service is SessionsService:
        decorate(plain)
        with pytest.raises(ConfigurationError, match=r"an async function, .* a SessionsService"):
            decorate(asynchronous)
    else:
        decorate(asynchronous)
        with pytest.raises(ConfigurationError, match=r"a plain function, .* an AsyncSessionsServ"):
            decorate(plain)


def test_a_store_outage_is_503(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    authorization = f"Bearer {server.secret()}"
    server.store.is_down = True

    answer = server.post(authorization)

    assert (answer.status_code, answer.error_code) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "ERROR" in {each.levelname for each in caplog.records if "with 503: " in each.message}
    server.store.is_down = False
    assert server.post(authorization).status_code == 200


def test_a_store_that_never_responds_is_503_too(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorization = f"Bearer {server.secret()}"
    let_go = server.store.hang()
    for executor in server.executors:  # what responds, before and after, has all its time
        monkeypatch.setattr(executor, "timeout", 0.05)

    answer = server.post(authorization)

    assert (answer.status_code, answer.error_code) == (503, "store_unavailable")
    let_go()
    assert server.post(authorization).status_code == 200


def test_what_only_reads_is_not_counted(server: ChatServer) -> None:
    authorization = f"Bearer {server.secret(limit=1)}"

    answers = [server.post(authorization, {"type": kind}).status_code for kind in READS]
    answers += [server.post(authorization, {"type": "threads.create"}).status_code]
    answers += [server.post(authorization, {"type": kind}).status_code for kind in READS]

    assert answers == [200] * 7


@pytest.mark.parametrize(
    "content",
    [*[{"type": kind} for kind in WRITES], [], "threads.list", b"", b"\xff", b"[" * 9_999],
)
def test_everything_else_is_counted(server: ChatServer, content: object) -> None:
    authorization = f"Bearer {server.secret(limit=1)}"

    assert server.post(authorization, content).status_code == 200
    assert server.post(authorization, content).status_code == 429


@pytest.mark.parametrize(("length", "status"), [(65_536, 200), (65_537, 429)])
def test_a_long_body_counts_unread(server: ChatServer, length: int, status: int) -> None:
    authorization = f"Bearer {server.secret(limit=1)}"
    content = b'{"type": "threads.list"}'.ljust(length)

    assert server.post(authorization, content).status_code == 200
    assert server.post(authorization, content).status_code == status


def test_nobody_makes_the_server_read_a_body_of_unknown_length() -> None:
    async def receive() -> dict[str, object]:
        raise AssertionError

    headers = [(b"authorization", b"Bearer ek_" + b"0" * 64), (b"transfer-encoding", b"chunked")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    session_of = starlette_session(AsyncSessionsService(MemorySessionStore()))

    with pytest.raises(HTTPException, match="401"):
        asyncio.run(cast("Any", session_of(request)))


@pytest.mark.parametrize(("count", "status"), [(True, 429), (False, 200)])
def test_what_is_counted_can_be_said(framework: Framework, *, count: bool, status: int) -> None:
    server = ChatServer(framework, count=count)
    authorization = f"Bearer {server.secret(limit=1)}"

    kinds = ("threads.create", "threads.list")
    statuses = [server.post(authorization, {"type": kind}).status_code for kind in kinds]

    assert statuses == [200, status]


def rejecting_app() -> FastAPI:
    app = FastAPI()
    session = Depends(fastapi_session(AsyncSessionsService(MemorySessionStore())))

    @app.get("/", dependencies=[session])
    def chat() -> None: ...

    return app


def test_the_applications_own_handler_of_401_comes_first() -> None:
    app = rejecting_app()

    @app.exception_handler(401)
    async def sign_in(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(f"Sign in: {error.detail}", 401)

    assert TestClient(app).get("/").text == "Sign in: The request has no client secret."


def test_outside_of_an_application_the_rejection_is_an_http_exception() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    session_of = starlette_session(AsyncSessionsService(MemorySessionStore()))

    with pytest.raises(HTTPException) as raised:
        asyncio.run(cast("Any", session_of(request)))

    assert raised.value.status_code == 401
    assert raised.value.headers is not None
    assert raised.value.headers["WWW-Authenticate"] == "Bearer"
