"""The routes as ASGI and WSGI applications: paths, bodies, HEAD, other kinds of connection."""

import asyncio
import io
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import pytest

from chatkit_sessions import ChatKitClient, ConfigurationError
from chatkit_sessions.service import (
    AsyncSessionsService,
    SessionsApp,
    SessionsService,
    SessionsWSGIApp,
)
from chatkit_sessions.service._rules import MAX_REQUEST_BODY
from chatkit_sessions.stores import MemorySessionStore
from service_servers import MOUNTINGS, Mounting, serving_service
from services import API_KEY, SESSIONS, headers_for

Message = MutableMapping[str, Any]
BODY = b'{"user": "ada", "workflow": {"id": "support"}}'


def asgi(
    path: str, chunks: list[bytes], *, method: str = "POST", root_path: str | None = None
) -> tuple[list[Message], int]:
    """What the application sends, and how many chunks of the body it read."""
    app = SessionsApp(AsyncSessionsService(MemorySessionStore(), api_keys=[API_KEY]))
    sent: list[Message] = []
    waiting = list(chunks)

    async def receive() -> Message:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in headers_for(API_KEY).items()]
    scope: Message = {"type": "http", "method": method, "path": path, "headers": headers}
    if root_path is not None:
        scope["root_path"] = root_path
    asyncio.run(app(scope, receive, send))
    return sent, len(chunks) - len(waiting)


def wsgi(body: bytes, **changes: object) -> tuple[str, dict[str, str], bytes]:
    app = SessionsWSGIApp(SessionsService(MemorySessionStore(), api_keys=[API_KEY]))
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:  # noqa: ANN401 -- WSGI's
        started.append((status, headers))

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": SESSIONS,
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {API_KEY}",
        "HTTP_OPENAI_BETA": "chatkit_beta=v1",
        **changes,
    }
    content = b"".join(app(environ, start))
    ((status, headers),) = started
    return status, dict(headers), content


def test_asgi_reads_a_body_in_pieces() -> None:
    (start, body), _ = asgi(SESSIONS, [BODY[:10], BODY[10:]])

    assert start["status"] == 200
    assert b"cksess_" in body["body"]
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()


@pytest.mark.parametrize("root_path", ["", "/api", "/größe"])
def test_asgi_finds_its_routes_below_the_path_that_it_is_mounted_at(root_path: str) -> None:
    (start, _), _ = asgi(f"{root_path}{SESSIONS}", [BODY], root_path=root_path)

    assert start["status"] == 200


@pytest.mark.parametrize("mounted", ["ASGI", "WSGI"])
def test_a_path_is_shown_as_it_was_sent(mounted: str) -> None:
    if mounted == "ASGI":
        (_, body), _ = asgi("/v1/größe\n", [BODY])
        shown = body["body"]
    else:
        _, _, shown = wsgi(BODY, PATH_INFO="/v1/größe\n".encode().decode("latin-1"))

    assert b"(POST /v1/gr%C3%B6%C3%9Fe%0A)" in shown


def test_asgi_stops_reading_a_body_that_is_too_long() -> None:
    (start, _), read = asgi(SESSIONS, [b" " * MAX_REQUEST_BODY, b" ", b" ", b" "])

    assert (start["status"], read) == (413, 2)


def test_asgi_does_nothing_for_a_client_that_is_gone() -> None:
    store = MemorySessionStore()
    app = SessionsApp(AsyncSessionsService(store, api_keys=[API_KEY]))
    messages: list[Message] = [
        {"type": "http.request", "body": BODY, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        raise AssertionError

    headers = [(name.encode(), value.encode()) for name, value in headers_for(API_KEY).items()]
    scope: Message = {"type": "http", "method": "POST", "path": SESSIONS, "headers": headers}
    asyncio.run(app(scope, receive, send))

    assert messages == []
    assert not store._entries


@pytest.mark.parametrize("mounting", MOUNTINGS)
def test_a_response_has_one_date_which_the_client_reads(mounting: Mounting) -> None:
    with (
        serving_service(mounting, API_KEY) as url,
        ChatKitClient(api_key=API_KEY, workflow_id="wf_test", base_url=url) as chatkit,
    ):
        session = chatkit.create_session("ada")

    assert session.answered_at is not None


def test_asgi_sends_no_body_to_head() -> None:
    (start, body), _ = asgi(SESSIONS, [b""], method="HEAD")

    assert (start["status"], body["body"]) == (405, b"")


@pytest.mark.parametrize(
    ("app", "service"), [(SessionsApp, AsyncSessionsService), (SessionsWSGIApp, SessionsService)]
)
def test_routes_that_would_reject_every_key_are_not_made(
    app: Callable[[Any], object], service: Callable[[MemorySessionStore], object]
) -> None:
    with pytest.raises(ConfigurationError, match="has no `api_keys`"):
        app(service(MemorySessionStore()))


def test_a_wrong_key_is_told_whose_keys_are_accepted() -> None:
    status, _, body = wsgi(BODY, HTTP_AUTHORIZATION="Bearer sk-of-somebody-else")

    assert status == "401 Unauthorized"
    assert b"This service's `api_keys` do not have it." in body
    assert b"openai.com" not in body


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_asgi_leaves_other_connections_alone(kind: str) -> None:
    app = SessionsApp(AsyncSessionsService(MemorySessionStore(), api_keys=[API_KEY]))

    async def never(*_: object) -> Any:  # noqa: ANN401 -- never called
        raise AssertionError

    asyncio.run(app({"type": kind}, never, never))


def test_wsgi_responds() -> None:
    status, headers, content = wsgi(BODY, CONTENT_TYPE="application/json")

    assert status == "200 OK"
    assert headers["content-length"] == str(len(content))
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "200 OK"),
        ({"CONTENT_LENGTH": ""}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "", "wsgi.input_terminated": True}, "200 OK"),
        ({"CONTENT_LENGTH": "-1"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "9" * 5000}, f"413 {HTTPStatus(413).phrase}"),
        ({"CONTENT_LENGTH": "0" * 5000}, "400 Bad Request"),
        ({"PATH_INFO": "/v1/nothing"}, "404 Not Found"),
    ],
)
def test_wsgi_reads_as_much_as_there_is(changes: dict[str, object], expected: str) -> None:
    assert wsgi(BODY, **changes)[0] == expected


def test_wsgi_reads_one_byte_more_than_is_allowed() -> None:
    source = io.BytesIO(b" " * (2 * MAX_REQUEST_BODY))

    unknown = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    status, _, _ = wsgi(b"", **{**unknown, "wsgi.input": source})

    assert (status.partition(" ")[0], source.tell()) == ("413", MAX_REQUEST_BODY + 1)


def test_wsgi_sends_no_body_to_head() -> None:
    status, headers, content = wsgi(b"", REQUEST_METHOD="HEAD")

    assert (status, content) == ("405 Method Not Allowed", b"")
    assert int(headers["content-length"]) > 0
