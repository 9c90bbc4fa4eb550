"""The service does what the package's description of the API says, wherever it is mounted."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask
from openapi_core.exceptions import OpenAPIError
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from chatkit_sessions.service import (
    AsyncSessionsService,
    SessionsApp,
    SessionsService,
    SessionsWSGIApp,
)
from chatkit_sessions.stores import MemorySessionStore
from contract import assert_request_holds, assert_response_holds, fuzz
from contract_cases import ACCEPTED, EVERYTHING, MINIMAL, NAMES_OF_ACCEPTED, REJECTED
from service_servers import MOUNTINGS, PREFIX, Mounting, asgi_app, serving_service, wsgi_app
from services import API_KEY, headers_for

URL = "https://api.openai.com/v1/chatkit/sessions"
HEADERS = headers_for(API_KEY)

Ask = Callable[..., httpx.Response]

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from starlette.types import ASGIApp


def fastapi_app(service: AsyncSessionsService) -> "ASGIApp":
    app = FastAPI()
    app.mount(PREFIX, SessionsApp(service))
    return app


def flask_app(service: SessionsService) -> "WSGIApplication":
    return DispatcherMiddleware(Flask(__name__), {PREFIX: SessionsWSGIApp(service)})


ASGI_APPS: "dict[str, Callable[[AsyncSessionsService], ASGIApp]]" = {
    "Starlette": asgi_app,
    "FastAPI": fastapi_app,
}
WSGI_APPS: "dict[str, Callable[[SessionsService], WSGIApplication]]" = {
    "WSGI": wsgi_app,
    "Flask": flask_app,
}


@pytest.fixture(params=[*ASGI_APPS, *WSGI_APPS])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Sends a request to a service that is mounted below a path."""
    name: str = request.param
    store, keys = MemorySessionStore(), {API_KEY: "shop"}
    sync = SessionsService(store, workflows={"wf_test"}, api_keys=keys)
    awaited = AsyncSessionsService(store, workflows={"wf_test"}, api_keys=keys)

    async def send_asgi(request: httpx.Request) -> httpx.Response:
        transport = httpx.ASGITransport(ASGI_APPS[name](awaited))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.send(request)

    def send(
        url: str, body: bytes = b"", headers: dict[str, str] = HEADERS, *, method: str = "POST"
    ) -> httpx.Response:
        path = url.removeprefix("https://api.openai.com")
        asked = httpx.Request(
            method, f"http://testserver{PREFIX}{path}", headers=headers, content=body
        )
        if name in ASGI_APPS:
            return asyncio.run(send_asgi(asked))
        with httpx.Client(transport=httpx.WSGITransport(WSGI_APPS[name](sync))) as client:
            return client.send(asked)

    return send


def assert_holds(url: str, response: httpx.Response, *, method: str = "POST") -> None:
    assert_response_holds(method, url, response.status_code, response.headers, response.content)


@pytest.mark.parametrize("content", ACCEPTED, ids=NAMES_OF_ACCEPTED)
def test_both_accept(ask: Ask, content: dict[str, object]) -> None:
    body = json.dumps(content).encode()

    created = ask(URL, body)

    assert_request_holds("POST", URL, HEADERS, body)
    assert created.status_code == 200
    assert_holds(URL, created)


@pytest.mark.parametrize("content", REJECTED, ids=json.dumps)
def test_both_reject(ask: Ask, content: object) -> None:
    body = json.dumps(content).encode()

    rejected = ask(URL, body)

    with pytest.raises(OpenAPIError):
        assert_request_holds("POST", URL, HEADERS, body)
    assert rejected.status_code == 400
    assert_holds(URL, rejected)


def test_cancelled_sessions_hold(ask: Ask) -> None:
    created = ask(URL, json.dumps(EVERYTHING).encode()).json()
    url = f"{URL}/{created['id']}/cancel"

    cancelled = ask(url)

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["client_secret"] == ""
    assert_request_holds("POST", url, HEADERS, b"")
    assert_holds(url, cancelled)


def test_sessions_that_are_read_hold(ask: Ask) -> None:
    created = ask(URL, json.dumps(EVERYTHING).encode()).json()
    url = f"{URL}/{created['id']}"

    read, missing = ask(url, method="GET"), ask(f"{URL}/cksess_1", method="GET")

    assert (read.status_code, missing.status_code) == (200, 404)
    assert_request_holds("GET", url, HEADERS, b"")
    for each in (read, missing):
        assert_holds(url, each, method="GET")


def test_sessions_that_are_refreshed_hold(ask: Ask) -> None:
    created = ask(URL, json.dumps(EVERYTHING).encode()).json()
    url = f"{URL}/refresh"
    body = json.dumps({"client_secret": created["client_secret"]}).encode()

    responses = [ask(url, body), ask(url, body)]

    assert [each.status_code for each in responses] == [200, 400]
    assert_request_holds("POST", url, HEADERS, body)
    for each in responses:
        assert_holds(url, each)


@pytest.mark.parametrize("content", [None, {}, {"client_secret": 1}, {"client_secret": "", "a": 1}])
def test_both_reject_a_refresh(ask: Ask, content: object) -> None:
    url, body = f"{URL}/refresh", json.dumps(content).encode()

    rejected = ask(url, body)

    with pytest.raises(OpenAPIError):
        assert_request_holds("POST", url, HEADERS, body)
    assert rejected.status_code == 400
    assert_holds(url, rejected)


@pytest.mark.parametrize("missing", ["authorization", "openai-beta"])
def test_both_reject_a_request_without_key_or_beta_header(ask: Ask, missing: str) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    body = json.dumps(MINIMAL).encode()

    rejected = ask(URL, body, headers)

    with pytest.raises(OpenAPIError):
        assert_request_holds("POST", URL, headers, body)
    assert rejected.status_code == (401 if missing == "authorization" else 400)
    assert_holds(URL, rejected)


def test_every_kind_of_rejection_holds(ask: Ask) -> None:
    rejected = [
        (URL, ask(URL, b"", {})),
        (URL, ask(URL, b"", {"authorization": "Bearer sk-wrong"})),
        (URL, ask(URL, b"", {"authorization": f"Bearer {API_KEY}"})),
        (URL, ask(URL, b"{")),
        (URL, ask(URL, b'{"user": "alice", "workflow": {"id": "wf_other"}}')),
        (URL, ask(URL, json.dumps(MINIMAL | {"user": "a" * 65_536}).encode())),
        (f"{URL}/cksess_1/cancel", ask(f"{URL}/cksess_1/cancel")),
    ]

    assert [each.status_code for _, each in rejected] == [401, 401, 400, 400, 404, 413, 404]
    for url, response in rejected:
        assert_holds(url, response)


@pytest.mark.slow
@pytest.mark.parametrize("mounting", MOUNTINGS)
def test_schemathesis_finds_nothing(mounting: Mounting, tmp_path: Path) -> None:
    """Requests that are allowed are accepted, others rejected; every response holds."""
    with serving_service(mounting, API_KEY) as url:
        session = httpx.post(f"{url}/chatkit/sessions", headers=HEADERS, json=MINIMAL).json()

        fuzz(
            url,
            api_key=API_KEY,
            workflow_id="wf_test",
            session_id=session["id"],
            path=tmp_path,
            examples=50 if mounting == "ASGI" else 10,  # the rules are the same
        )
