"""The secret or the key is checked before the body is read, and what arrives is bounded."""

import asyncio
import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.test import override_settings
from django.urls import path as url_pattern
from fastapi import Depends, FastAPI
from flask import Flask, request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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
from chatkit_sessions.stores import MemorySessionStore
from endpoint_apps import ORIGIN
from services import API_KEY, OTHER_KEY, SESSIONS

Message: TypeAlias = MutableMapping[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
Served: TypeAlias = Literal["starlette", "fastapi", "flask", "django"]
CHAT = "/chatkit"
HOST = ORIGIN.removeprefix("http://")
READ = b'{"type": "threads.list"}'
CREATE = b'{"user": "ada", "workflow": {"id": "support"}}'
BETA = ("OpenAI-Beta", "chatkit_beta=v1")


def ask_asgi(app: Any, path: str, headers: Headers, *pieces: bytes | None) -> tuple[int, bytes]:  # noqa: ANN401 -- any application
    """Status and body of the response; a body of no pieces must not be read, None: gone."""
    waiting, sent = [*pieces], list[Message]()

    async def receive() -> Message:
        if not waiting and pieces:
            await asyncio.Event().wait()  # the client waits for the response
        piece = waiting.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"] if sent else 0, b"".join(each.get("body", b"") for each in sent)


class Gone(io.BytesIO):
    """A body whose client goes away."""

    def read(self, *_: object) -> bytes:
        raise OSError("connection lost")

    def readinto(self, *_: object) -> int:
        raise OSError("connection lost")


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError

    def readinto(self, *_: object) -> int:
        raise AssertionError


def ask_wsgi(
    app: Callable[..., Iterable[bytes]], path: str, headers: Headers, body: io.BytesIO
) -> tuple[int, bytes]:
    started: list[str] = []

    def start(status: str, *_: object) -> None:
        started.append(status)

    environ: dict[str, object] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.input": body,
        "wsgi.input_terminated": True,  # as gunicorn says
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    content = b"".join(app(environ, start))
    return int(started[0].partition(" ")[0]), content


def starlette_app(service: AsyncSessionsService) -> Starlette:
    session_of = starlette_session(service)

    async def chat(request: Request) -> Response:
        session = await session_of(request)
        return JSONResponse({"user": session.user, "length": len(await request.body())})

    return Starlette(routes=[Route(CHAT, chat, methods=["POST"])])


def fastapi_app(service: AsyncSessionsService) -> FastAPI:
    app = FastAPI()

    @app.post(CHAT)
    async def chat(
        request: Request, session: Annotated[SessionContext, Depends(fastapi_session(service))]
    ) -> dict[str, object]:
        return {"user": session.user, "length": len(await request.body())}

    return app


def flask_app(service: SessionsService) -> Flask:
    app, session_of = Flask("shop"), flask_session(service)

    @app.post(CHAT)
    def chat() -> dict[str, object]:
        return {"user": session_of().user, "length": len(flask_request.get_data())}

    return app


def django_urls(service: SessionsService) -> tuple[object, ...]:
    @django_session(service)
    def chat(request: HttpRequest, session: SessionContext) -> JsonResponse:
        return JsonResponse({"user": session.user, "length": len(request.body)})

    return (url_pattern(CHAT.lstrip("/"), chat),)


class ChatServer:
    """A chat server of one framework, over a store whose sessions the test makes."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.store = MemorySessionStore()
        self.service = SessionsService(self.store)
        session = self.service.client(workflow_id="support").create_session(
            "ada", max_requests_per_1_minute=2
        )
        self.secret = session.client_secret.get_secret_value()

    def ask(
        self, authorization: Sequence[str], *, length: str | None, body: bytes | Unread | None
    ) -> tuple[int, str]:
        """Status, and the error's code or the user; a body of None: the client goes away."""
        headers = [*(("Authorization", each) for each in authorization)]
        headers += [("Content-Type", "application/json"), ("Host", HOST)]
        if length is not None:
            headers.append(("Content-Length", length))
        status, content = self._send(headers, body)
        said = json.loads(content)
        return status, said["error"]["code"] if "error" in said else said["user"]

    def _send(self, headers: Headers, body: bytes | Unread | None) -> tuple[int, bytes]:
        if self.framework in {"starlette", "fastapi"}:
            make = starlette_app if self.framework == "starlette" else fastapi_app
            app = make(AsyncSessionsService(self.store))
            pieces = (
                [] if isinstance(body, Unread) else [body[:3] if body else b"{", body and body[3:]]
            )
            return ask_asgi(app, CHAT, headers, *pieces)
        stream = Gone() if body is None else body if isinstance(body, Unread) else io.BytesIO(body)
        if self.framework == "flask":
            return ask_wsgi(flask_app(self.service), CHAT, headers, stream)
        with override_settings(ROOT_URLCONF=django_urls(self.service)):
            return ask_wsgi(cast("Any", WSGIHandler()), CHAT, headers, stream)


@pytest.fixture(params=["starlette", "fastapi", "flask", "django"])
def server(request: pytest.FixtureRequest) -> ChatServer:
    return ChatServer(cast("str", request.param))


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours; Django has one of its own for each response of 400."""
    return [each.getMessage() for each in caplog.records if each.name == "chatkit_sessions"]


# The chat server


@pytest.mark.parametrize("authorization", [[], ["Bearer ek_1"], [f"Bearer ek_{'0' * 64}"]])
def test_without_a_valid_secret_the_body_is_not_read(
    server: ChatServer, authorization: list[str]
) -> None:
    status, code = server.ask(authorization, length="5", body=Unread())

    assert (status, code.startswith("client_secret_")) == (401, True)


def test_over_the_sessions_limit_a_body_of_unknown_length_is_not_read(server: ChatServer) -> None:
    secret = [f"Bearer {server.secret}"]
    assert [server.ask(secret, length=None, body=b"{}")[0] for _ in range(2)] == [200, 200]

    assert server.ask(secret, length=None, body=Unread()) == (429, "rate_limit_exceeded")


def test_two_authorization_headers_are_rejected(server: ChatServer) -> None:
    right, wrong = f"Bearer {server.secret}", f"Bearer ek_{'0' * 64}"

    for both in (
        [right, wrong],
        [wrong, right],
        [right, right],
        [right, "Basic YTpi"],
        ["", right],
    ):
        assert server.ask(both, length="5", body=Unread())[0] == 401
    assert server.ask([right], length=str(len(READ)), body=READ) == (200, "ada")


@pytest.mark.parametrize("body", [READ[:-1], READ + b" ", READ + b" " * 100_000])
def test_a_body_of_another_length_than_the_header_says_is_rejected(
    server: ChatServer, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    found = server.ask([f"Bearer {server.secret}"], length=str(len(READ)), body=body)

    if server.framework == "django" and len(body) > len(READ):
        assert found == (200, "ada")  # Django reads no more than the header says
    else:
        assert found == (400, "invalid_request")
        assert len(lines_of(caplog)) == 1


def test_a_client_that_goes_away_leaves_one_line_and_no_traceback(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    found = server.ask([f"Bearer {server.secret}"], length="100", body=None)

    assert found == (400, "invalid_request")
    (line,) = lines_of(caplog)
    assert line == (
        "A request to the chat server was rejected with 400: "
        "The request's body is not as long as its Content-Length."
    )
    assert not any(each.exc_info for each in caplog.records)


def test_a_transfer_coding_beside_a_length_makes_a_request_count_unread(
    server: ChatServer,
) -> None:
    secret = f"Bearer {server.secret}"
    headers = [
        ("Authorization", secret),
        ("Content-Length", "24"),
        ("Transfer-Encoding", "chunked"),
    ]

    statuses = [server._send(headers, READ)[0] for _ in range(2)]

    assert statuses == [200, 200]
    assert server._send(headers, Unread())[0] == 429


def test_djangos_own_bound_may_be_narrower() -> None:
    server = ChatServer("django")

    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        headers = [("Authorization", f"Bearer {server.secret}"), ("Content-Length", str(len(READ)))]
        assert server._send(headers, READ)[0] == 400


# The service's routes


def ask_service(
    mounting: str, path: str, headers: Headers, *pieces: bytes | None
) -> tuple[int, bytes]:
    """Ask the routes; a body of no pieces must not be read, None: the client is gone."""
    if mounting == "ASGI":
        app = SessionsApp(AsyncSessionsService(MemorySessionStore(), api_keys=[API_KEY]))
        return ask_asgi(app, path, headers, *pieces)
    if not pieces:
        body: io.BytesIO = Unread()
    else:
        body = Gone() if None in pieces else io.BytesIO(b"".join(each or b"" for each in pieces))
    wsgi = SessionsWSGIApp(SessionsService(MemorySessionStore(), api_keys=[API_KEY]))
    return ask_wsgi(cast("Any", wsgi), path, headers, body)


KEY = ("Authorization", f"Bearer {API_KEY}")


@pytest.mark.parametrize("mounting", ["ASGI", "WSGI"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SESSIONS, [BETA], 401),
        (SESSIONS, [BETA, ("Authorization", f"Bearer {OTHER_KEY}")], 401),
        (SESSIONS, [BETA, KEY, KEY], 401),
        (SESSIONS, [BETA, KEY, ("Authorization", f"Bearer {OTHER_KEY}")], 401),
        (SESSIONS, [KEY], 400),
        ("/v1/nothing", [BETA, KEY], 404),
        (SESSIONS, [BETA, KEY, ("Content-Length", "65537")], 413),
        (SESSIONS, [BETA, KEY, ("Content-Length", "9" * 5000)], 413),
    ],
)
def test_a_request_that_is_rejected_anyway_is_not_read(
    mounting: str, path: str, headers: Headers, status: int
) -> None:
    assert ask_service(mounting, path, headers)[0] == status


@pytest.mark.parametrize("mounting", ["ASGI", "WSGI"])
def test_a_backend_that_goes_away_leaves_one_line_and_no_session(
    mounting: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [BETA, KEY, ("Content-Length", str(len(CREATE) + 1))]

    status, _ = ask_service(mounting, SESSIONS, headers, CREATE, None)

    assert status == {"ASGI": 0, "WSGI": 400}[mounting]  # ASGI: nobody is there to read it
    line = f"POST {SESSIONS}: the client went away before its body was complete."
    assert lines_of(caplog) == [line]


def test_a_shorter_body_than_the_header_says_creates_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = [BETA, KEY, ("Content-Length", str(len(CREATE) + 1))]

    status, body = ask_service("WSGI", SESSIONS, headers, CREATE)

    assert (status, b"shorter than its Content-Length" in body) == (400, True)
    assert len(lines_of(caplog)) == 1


# Real servers

ASGI_CHAT = """
from typing import Annotated
from fastapi import Depends, FastAPI
from chatkit_sessions.service import AsyncSessionsService, SessionContext, SessionsApp
from chatkit_sessions.service.fastapi import chatkit_session
from chatkit_sessions.stores import MemorySessionStore
service = AsyncSessionsService(MemorySessionStore(), api_keys=[KEY])
chatkit = service.client(workflow_id="support")
app = FastAPI()
@app.get("/secret")
async def secret():
    return (await chatkit.create_session("ada")).client_secret.get_secret_value()
@app.post("/chatkit")
async def chat(session: Annotated[SessionContext, Depends(chatkit_session(service))]):
    return {}
app.mount("/api", SessionsApp(service))
"""
WSGI_CHAT = """
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from chatkit_sessions.service import SessionsService, SessionsWSGIApp
from chatkit_sessions.service.flask import chatkit_session
from chatkit_sessions.stores import MemorySessionStore
service = SessionsService(MemorySessionStore(), api_keys=[KEY])
chatkit = service.client(workflow_id="support")
session_of = chatkit_session(service)
app = Flask("shop")
@app.get("/secret")
def secret():
    return [chatkit.create_session("ada").client_secret.get_secret_value()]
@app.post("/chatkit")
def chat():
    session_of()
    return {}
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/api": SessionsWSGIApp(service)})
"""
SERVERS: dict[str, tuple[str, list[str]]] = {
    "uvicorn h11": (ASGI_CHAT, ["uvicorn", "--http", "h11", "chat:app", "--fd"]),
    "uvicorn httptools": (ASGI_CHAT, ["uvicorn", "--http", "httptools", "chat:app", "--fd"]),
    "gunicorn": (WSGI_CHAT, ["gunicorn", "chat:app", "--bind"]),
}


@contextmanager
def running(server: str, folder: Path) -> Generator[tuple[int, Path], None, None]:
    """The port of a server, and the file that it logs to."""
    code, arguments = SERVERS[server]
    (folder / "chat.py").write_text(code.replace("KEY", repr(API_KEY)))
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        fd = listener.fileno()
        at = f"fd://{fd}" if server == "gunicorn" else str(fd)
        process = subprocess.Popen(  # noqa: S603 -- our own
            [sys.executable, "-m", *arguments, at],
            cwd=folder,
            pass_fds=[fd],
            stdout=log,
            stderr=log,
        )
        try:
            yield listener.getsockname()[1], folder / "log"
        finally:
            process.terminate()
            process.wait(20)


def ask_socket(port: int, head: str, body: bytes = b"", *, leave: bool = False) -> bytes:
    """The beginning of the response; a client that leaves says so, and waits for the end."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        lines = f"{head}\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\r\n"
        connection.sendall(lines.encode() + body)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while (b"\r\n\r\n" not in received) and (piece := connection.recv(65536)):
            received += piece
        return received.partition(b"\r\n")[0] + b"|" + received.partition(b"\r\n\r\n")[2]


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_real_servers_reject_before_the_body_and_survive_a_client_that_leaves(
    server: str, tmp_path: Path
) -> None:
    with running(server, tmp_path) as (port, log):
        (secret,) = re.findall("ek_[0-9a-f]+", httpx.get(f"http://127.0.0.1:{port}/secret").text)
        right = f"Authorization: Bearer {secret}"
        # The body never comes: who waits for it, waits for ever.
        chunked = "POST /chatkit HTTP/1.1\r\nTransfer-Encoding: chunked"
        assert b" 401 " in ask_socket(port, chunked)
        assert b" 401 " in ask_socket(port, "POST /chatkit HTTP/1.1\r\nContent-Length: 60000")
        twice = f"POST /chatkit HTTP/1.1\r\n{right}\r\n{right}\r\nContent-Length: 60000"
        assert b" 401 " in ask_socket(port, twice)
        route = f"POST /api{SESSIONS} HTTP/1.1\r\nContent-Length: 60000"
        assert b" 401 " in ask_socket(port, route)
        before = log.read_text()
        ask_socket(
            port, f"POST /chatkit HTTP/1.1\r\n{right}\r\nContent-Length: 9", b"{", leave=True
        )
        read = ask_socket(port, f"POST /chatkit HTTP/1.1\r\n{right}\r\nContent-Length: 2", b"{}")
        assert b" 200 " in read
        told = log.read_text().removeprefix(before)

    ours = [line for line in told.splitlines() if "HTTP/1.1" not in line]
    assert len(ours) == 1, told
    assert "rejected with 400" in ours[0]
