"""Other code may read the body, too, and nobody reads more of it than there may be."""

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, cast, get_args

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.test import override_settings
from fastapi import FastAPI, Request
from flask import Flask
from litestar import Litestar, Request as LitestarRequest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Scope

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.integrations import MAX_BODY
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.integrations.litestar import chatkit_handlers
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit
from endpoint_apps import LOGIN, Backend, Place, Wiring, secret_of
from support import Time

PLACES: tuple[Place, ...] = get_args(Place)


# Read by others


@pytest.mark.parametrize("places", [*((place,) for place in PLACES), PLACES], ids="+".join)
def test_a_body_can_be_read_by_other_code_too(backend: Backend, places: tuple[Place, ...]) -> None:
    wiring = Wiring(options=dict, reads_body=places)
    app = backend.app(wiring=wiring)
    secret = secret_of(app.create())
    wiring.bodies.clear()

    answer = app.refresh(secret)

    assert secret_of(answer) != secret
    sent = json.dumps({"currentClientSecret": secret}).encode()
    assert wiring.bodies == [sent] * len(places)


def test_a_page_that_asks_for_nothing_is_rejected_before_the_body_is_read(
    backend: Backend,
) -> None:
    wiring = Wiring(reads_body=("user",))
    app = backend.app(wiring=wiring)

    app.create(Origin="https://evil.example")
    app("POST", "/session", content_type="text/plain", content=b"{}")
    app("PUT", "/session")
    app("POST", "/session", content=b" " * (MAX_BODY + 1))

    assert not wiring.bodies


# Bodies that come in pieces, without a length, or not to their end


class Pieces:
    """A body as an ASGI server passes it on: what was read of it is counted."""

    def __init__(self, *pieces: bytes, gone: bool = False) -> None:
        self._pieces = [*pieces]
        self._gone = gone
        self.read = 0

    async def receive(self) -> Message:
        self.read += 1
        if self._pieces:
            piece = self._pieces.pop(0)
            more = bool(self._pieces) or self._gone
            return {"type": "http.request", "body": piece, "more_body": more}
        if not self._gone:
            await asyncio.Event().wait()  # the client waits for the response
        return {"type": "http.disconnect"}


async def who(request: HTTPConnection) -> str | None:
    return request.headers.get(LOGIN)


async def who_is_it(request: LitestarRequest[Any, Any, Any]) -> str | None:
    return request.headers.get(LOGIN)


async def who_asks(request: HttpRequest) -> str | None:
    return request.headers.get(LOGIN)


@contextlib.contextmanager
def asgi_app(framework: str, client: AsyncChatKitClient) -> Generator[ASGIApp, None, None]:
    if framework == "django async":
        with override_settings(
            ROOT_URLCONF=tuple(chatkit_urls(client, user=who_asks, csrf_exempt=True))
        ):
            yield cast("ASGIApp", ASGIHandler())
    elif framework == "litestar":
        handlers = chatkit_handlers(client, user=who_is_it)
        yield cast("ASGIApp", Litestar(handlers, logging_config=None))
    elif framework == "fastapi":
        app = FastAPI()
        app.include_router(chatkit_router(client, user=who))
        yield app
    else:
        yield Starlette(routes=chatkit_routes(client, user=who))


def ask_asgi(
    app: ASGIApp,
    pieces: Pieces,
    *,
    user: str | None = "ada",
    length: str | None = None,
    changes: Mapping[str, object] | None = None,
) -> tuple[int, str]:
    """The status and the body of what the application sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    if length is not None:  # beside a transfer coding, as uvicorn with h11 passes both on
        headers += [(b"content-length", length.encode()), (b"transfer-encoding", b"chunked")]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/chatkit/session",
        "raw_path": b"/api/chatkit/session",
        "root_path": "",
        "query_string": b"",
        "headers": [*headers, *([(LOGIN.lower().encode(), user.encode())] if user else [])],
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        **(changes or {}),
    }
    asyncio.run(cast("Coroutine[object, object, None]", app(scope, pieces.receive, send)))
    return sent[0]["status"] if sent else 0, b"".join(m.get("body", b"") for m in sent).decode()


ASGI = ["starlette", "fastapi", "litestar", "django async"]


@pytest.fixture
def chatkit(fake: FakeChatKit, time: Time) -> AsyncChatKitClient:
    return cast("AsyncChatKitClient", Backend("starlette", time, fake).client())


@pytest.mark.parametrize("framework", ASGI)
def test_a_body_of_unknown_length_is_taken(framework: str, chatkit: AsyncChatKitClient) -> None:
    with asgi_app(framework, chatkit) as app:
        status, body = ask_asgi(app, Pieces(b"{", b"", b"}"))

    assert status == 200
    assert "client_secret" in body


@pytest.mark.parametrize("framework", ASGI)
def test_a_body_of_unknown_length_that_is_too_large_is_rejected(
    framework: str, chatkit: AsyncChatKitClient
) -> None:
    with asgi_app(framework, chatkit) as app:
        status, body = ask_asgi(app, Pieces(*[b" " * 1024] * 70))

    assert (status, "request_too_large" in body) == (413, True)


@pytest.mark.parametrize(
    "framework", ["starlette", "fastapi", "litestar"]
)  # Django's server reads it all
def test_no_more_of_a_body_is_read_than_there_may_be(
    framework: str, chatkit: AsyncChatKitClient
) -> None:
    pieces, unread = Pieces(*[b" " * 1024] * 1000), Pieces(*[b" " * 1024] * 1000)

    with asgi_app(framework, chatkit) as app:
        ask_asgi(app, pieces)
        status, _ = ask_asgi(app, unread, user=None)

    assert pieces.read == 65
    assert (status, unread.read) == (401, 0)


@pytest.mark.parametrize("framework", ASGI)
def test_what_arrives_counts_and_not_what_the_header_says(
    framework: str, chatkit: AsyncChatKitClient
) -> None:
    with asgi_app(framework, chatkit) as app:
        small, _ = ask_asgi(app, Pieces(b"{", b"}"), length="5")
        large, body = ask_asgi(app, Pieces(*[b" " * 1024] * 70), length="5")

    assert (small, large, "request_too_large" in body) == (200, 413, True)


@pytest.mark.parametrize(
    ("server", "origin", "status"),
    [
        (("10.0.0.1", 80), b"http://10.0.0.1", 200),
        (("10.0.0.1", 8000), b"http://10.0.0.1:8000", 200),
        (("10.0.0.1", 8000), b"http://10.0.0.1", 403),
        (None, b"http://10.0.0.1", 403),
    ],
)
@pytest.mark.parametrize("framework", ["starlette", "fastapi", "litestar"])
def test_without_a_host_header_the_servers_own_address_counts(
    framework: str, chatkit: AsyncChatKitClient, server: object, origin: bytes, status: int
) -> None:
    headers = [(b"content-type", b"application/json"), (LOGIN.lower().encode(), b"ada")]
    changes = {"headers": [*headers, (b"origin", origin)], "server": server}

    with asgi_app(framework, chatkit) as app:
        assert ask_asgi(app, Pieces(b"{}"), changes=changes)[0] == status


CUT_OFF = ["POST /session: the client went away before its body was complete."]


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours, none of which may have a traceback."""
    assert not any(each.exc_info for each in caplog.records)
    return [each.getMessage() for each in caplog.records if each.name == "chatkit_sessions"]


@pytest.mark.parametrize("framework", ASGI)
@pytest.mark.parametrize("user", ["ada", None])
def test_a_page_that_goes_away_in_mid_body_leaves_one_line_in_the_log(
    framework: str,
    chatkit: AsyncChatKitClient,
    user: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with asgi_app(framework, chatkit) as app:
        status, _ = ask_asgi(app, Pieces(b"{", gone=True), user=user)

    # Django's server does not even begin with a request whose body never came.
    is_read = user is not None and framework != "django async"
    assert status == {"django async": 0}.get(framework, 400 if user else 401)
    assert lines_of(caplog) == (CUT_OFF if is_read else [])


def test_a_page_that_goes_away_while_the_applications_own_code_reads_is_none_either(
    chatkit: AsyncChatKitClient,
) -> None:
    async def user(request: Request) -> str:
        return str(await request.json())

    for app in (Starlette(routes=chatkit_routes(chatkit, user=user)), FastAPI()):
        if isinstance(app, FastAPI):
            app.include_router(chatkit_router(chatkit, user=user))
        status, _ = ask_asgi(app, Pieces(b"{", gone=True))
        assert status == 400
        status, _ = ask_asgi(app, Pieces(*[b" " * 1024] * 70))
        assert status == 413


class Gone(io.BytesIO):
    """A body whose client goes away."""

    def read(self, *_: object) -> bytes:
        raise OSError("connection lost")

    def readinto(self, *_: object) -> int:
        raise OSError("connection lost")


@pytest.mark.parametrize("framework", ["flask", "django"])
@pytest.mark.parametrize(
    ("given", "status"),
    [
        ((Gone, b"", "10"), 400),
        ((io.BytesIO, b"", "10"), 400),
        ((io.BytesIO, b"{}", "10"), 400),
        ((io.BytesIO, b" " * 70_000, "70000"), 413),
        ((io.BytesIO, b"{}", "2"), 200),
        ((io.BytesIO, b"", ""), 200),
        ((io.BytesIO, b"{}", "9" * 5000), 413),
    ],
    ids=["gone", "gone at once", "cut off", "large", "small", "none", "absurd"],
)
def test_a_wsgi_server_may_pass_any_body_on(
    fake: FakeChatKit,
    framework: str,
    given: tuple[type[io.BytesIO], bytes, str],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream, content, length = given
    client = fake.client()
    started: list[str] = []
    asked = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/chatkit/session",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "HTTP_HOST": "testserver",
        "CONTENT_TYPE": "application/json",
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "wsgi.input": stream(content),
        "CONTENT_LENGTH": length,
        "wsgi.input_terminated": framework == "flask",  # as gunicorn says
    }

    def start(line: str, *_: object) -> None:
        started.append(line)

    urls = tuple(chatkit_urls(client, user=lambda _: "ada", csrf_exempt=True))
    with override_settings(ROOT_URLCONF=urls):
        app = cast("Callable[..., Iterable[bytes]]", WSGIHandler())
        if framework == "flask":
            flask = Flask("shop")
            flask.register_blueprint(chatkit_blueprint(client, user=lambda: "ada"))
            app = cast("Callable[..., Iterable[bytes]]", flask)
        list(app(asked, start))

    assert started[0].startswith(str(status))
    assert lines_of(caplog) == (CUT_OFF if status == 400 else [])
    assert len(fake.sessions) == (status == 200)


def test_django_keeps_a_body_that_a_middleware_has_read(fake: FakeChatKit, time: Time) -> None:
    wiring = Wiring(options=dict, reads_body=("before",))
    app = Backend("django", time, fake).app(wiring=wiring)

    assert app.create().status_code == 200
    assert len(wiring.bodies) == 1


def test_djangos_own_bound_may_be_narrower(fake: FakeChatKit, time: Time) -> None:
    app = Backend("django", time, fake).app()

    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        answer = app("POST", "/session", content=b" " * 200 + b"{}")

    assert (answer.status_code, answer.error_code) == (413, "request_too_large")


def test_flask_bounds_what_comes_without_a_length(fake: FakeChatKit, time: Time) -> None:
    app = Flask("shop")
    client = cast("ChatKitClient", Backend("flask", time, fake).client())
    app.register_blueprint(chatkit_blueprint(client, user=lambda: "ada"))
    whole = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}

    statuses = [
        app.test_client()
        .post(
            "/api/chatkit/session",
            input_stream=io.BytesIO(content),
            environ_overrides=whole,
            headers={"Content-Type": "application/json"},
        )
        .status_code
        for content in (b"{}", b" " * 70_000)
    ]

    assert statuses == [200, 413]


def test_flasks_own_bound_may_be_narrower(fake: FakeChatKit, time: Time) -> None:
    app = Flask("shop")
    app.config["MAX_CONTENT_LENGTH"] = 100
    client = cast("ChatKitClient", Backend("flask", time, fake).client())
    app.register_blueprint(chatkit_blueprint(client, user=lambda: "ada"))

    answer = app.test_client().post("/api/chatkit/session", json={"a": "x" * 200})

    assert (answer.status_code, "request_too_large" in answer.text) == (413, True)
