"""The service against OpenAI's published API description, where a copy is at hand."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openapi_core.exceptions import OpenAPIError

from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.stores import MemorySessionStore
from contract import (
    assert_request_holds,
    assert_response_holds,
    contract_for_fuzzing,
    load_contract,
)
from contract_cases import ACCEPTED, EVERYTHING, MINIMAL, NAMES_OF_ACCEPTED, REJECTED
from service_servers import MOUNTINGS, PREFIX, Mounting, asgi_app, serving_service, wsgi_app
from services import API_KEY, headers_for

URL = "https://api.openai.com/v1/chatkit/sessions"
HEADERS = headers_for(API_KEY)

Ask = Callable[..., httpx.Response]


@pytest.fixture(autouse=True)
def _contract() -> None:
    load_contract()


@pytest.fixture(params=MOUNTINGS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Sends a request to a service that is mounted below a path."""
    store, keys = MemorySessionStore(), {API_KEY: "shop"}
    sync = SessionsService(store, workflows={"wf_test"}, api_keys=keys)
    awaited = AsyncSessionsService(store, workflows={"wf_test"}, api_keys=keys)

    async def send_asgi(request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi_app(awaited))) as client:
            return await client.send(request)

    def send(url: str, body: bytes, headers: dict[str, str] = HEADERS) -> httpx.Response:
        path = url.removeprefix("https://api.openai.com")
        asked = httpx.Request(
            "POST", f"http://testserver{PREFIX}{path}", headers=headers, content=body
        )
        if request.param == "ASGI":
            return asyncio.run(send_asgi(asked))
        with httpx.Client(transport=httpx.WSGITransport(wsgi_app(sync))) as client:
            return client.send(asked)

    return send


def assert_holds(url: str, response: httpx.Response) -> None:
    assert_response_holds("POST", url, response.status_code, response.headers, response.content)


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

    cancelled = ask(url, b"")

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["client_secret"] == ""
    assert_holds(url, cancelled)


def test_every_kind_of_rejection_holds(ask: Ask) -> None:
    rejected = [
        (URL, ask(URL, b"", {})),
        (URL, ask(URL, b"", {"authorization": "Bearer sk-wrong"})),
        (URL, ask(URL, b"", {"authorization": f"Bearer {API_KEY}"})),
        (URL, ask(URL, b"{")),
        (URL, ask(URL, b'{"user": "alice", "workflow": {"id": "wf_other"}}')),
        (URL, ask(URL, json.dumps(MINIMAL | {"user": "a" * 65_536}).encode())),
        (f"{URL}/cksess_1/cancel", ask(f"{URL}/cksess_1/cancel", b"")),
    ]

    assert [each.status_code for _, each in rejected] == [401, 401, 400, 400, 404, 413, 404]
    for url, response in rejected:
        assert_holds(url, response)


@pytest.mark.parametrize("mounting", MOUNTINGS)
def test_schemathesis_finds_nothing(mounting: Mounting, tmp_path: Path) -> None:
    """Requests that the contract allows are accepted, others rejected; every response holds."""
    with serving_service(mounting, API_KEY) as url:
        created = httpx.post(f"{url}/chatkit/sessions", headers=HEADERS, json=MINIMAL)
        contract = tmp_path / "contract.json"
        contract.write_text(
            json.dumps(contract_for_fuzzing(workflow_id="wf_test", session_id=created.json()["id"]))
        )
        found = subprocess.run(  # noqa: S603 -- our own
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", str(contract)),
                *("--url", url, "--max-examples", "50", "--no-color"),
                "--generation-deterministic",
                *("-H", f"Authorization: {HEADERS['authorization']}"),
                *("-H", f"OpenAI-Beta: {HEADERS['openai-beta']}"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert found.returncode == 0, found.stdout
    assert "Tested: 2" in found.stdout
