"""The local API behind httpx, without a socket."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import httpx

from chatkit_sessions.testing import FakeChatKit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HEADERS = {"Authorization": "Bearer sk-test", "OpenAI-Beta": "chatkit_beta=v1"}
BODY = {"user": "alice", "workflow": {"id": "wf_test"}}


def sync_client(fake: FakeChatKit, base_url: str = "https://fake.test/v1") -> httpx.Client:
    return httpx.Client(transport=fake.transport(), base_url=base_url, headers=HEADERS)


def async_client(fake: FakeChatKit) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=fake.transport(), base_url="https://fake.test/v1", headers=HEADERS
    )


def test_serves_a_sync_client() -> None:
    fake = FakeChatKit()

    with sync_client(fake) as client:
        response = client.post("/chatkit/sessions", json=BODY)

    assert response.status_code == 200
    assert response.json()["user"] == "alice"
    assert response.headers["x-request-id"].startswith("req_")
    fake.assert_created(user="alice", times=1)


def test_serves_an_async_client() -> None:
    fake = FakeChatKit()

    async def call() -> httpx.Response:
        async with async_client(fake) as client:
            return await client.post("/chatkit/sessions", json=BODY)

    assert anyio.run(call).json()["user"] == "alice"


def test_one_transport_serves_both() -> None:
    fake = FakeChatKit()
    transport = fake.transport()
    url = "https://fake.test/v1/chatkit/sessions"

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, headers=HEADERS) as client:
            return await client.post(url, json=BODY)

    with httpx.Client(transport=transport, headers=HEADERS) as client:
        statuses = [client.post(url, json=BODY).status_code, anyio.run(call).status_code]

    assert statuses == [200, 200]


def test_accepts_any_host() -> None:
    fake = FakeChatKit()

    with sync_client(fake, "http://gateway.internal:8080/v1") as client:
        assert client.post("/chatkit/sessions", json=BODY).status_code == 200


def test_records_what_httpx_sent() -> None:
    fake = FakeChatKit()

    with sync_client(fake) as client:
        client.post("/chatkit/sessions", params={"page": "ä"}, json=BODY)

    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v1/chatkit/sessions?page=%C3%A4")
    assert request.headers["openai-beta"] == "chatkit_beta=v1"
    assert request.json == BODY


def test_reads_a_streamed_body() -> None:
    fake = FakeChatKit()

    def pieces() -> Iterator[bytes]:
        yield b'{"user": "alice", '
        yield b'"workflow": {"id": "wf_test"}}'

    async def async_pieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    async def call() -> httpx.Response:
        async with async_client(fake) as client:
            return await client.post("/chatkit/sessions", content=async_pieces())

    with sync_client(fake) as client:
        assert client.post("/chatkit/sessions", content=pieces()).status_code == 200
    assert anyio.run(call).status_code == 200


def test_answers_can_be_streamed() -> None:
    with (
        sync_client(FakeChatKit()) as client,
        client.stream("POST", "/chatkit/sessions", json=BODY) as response,
    ):
        assert b"".join(response.iter_bytes()).startswith(b'{"id":"cksess_')


def test_answers_head_without_a_body() -> None:
    with sync_client(FakeChatKit()) as client:
        response = client.head("/chatkit/sessions")

    assert (response.status_code, response.content) == (405, b"")
    assert int(response.headers["content-length"]) > 0


def test_is_all_that_needs_httpx() -> None:
    # The package itself imports httpx, so the modules are loaded beside a bare stand-in for it.
    program = (
        "import importlib.machinery, importlib.util, sys, types\n"
        "spec = importlib.util.find_spec('chatkit_sessions')\n"
        "package = types.ModuleType('chatkit_sessions')\n"
        "package.__path__ = spec.submodule_search_locations\n"
        "sys.modules['chatkit_sessions'] = package\n"
        "import chatkit_sessions.testing\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'httpx'])\n"
        "chatkit_sessions.testing.FakeChatKit().transport()\n"
        "print('httpx' in sys.modules)\n"
    )

    run = subprocess.run(  # noqa: S603 - this interpreter, a constant program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert run.stdout.split("\n")[:2] == ["[]", "True"]
