"""The local API does what the package's description of the API says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openapi_core.exceptions import OpenAPIError

from chatkit_sessions.testing import FakeChatKit
from chatkit_sessions.testing.wire import FakeResponse, Headers, ServiceRequest
from contract import assert_request_holds, assert_response_holds, fuzz
from contract_cases import ACCEPTED, EVERYTHING, MINIMAL, NAMES_OF_ACCEPTED, REJECTED

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://api.openai.com/v1/chatkit/sessions"
HEADERS = {
    "authorization": "Bearer sk-test",
    "openai-beta": "chatkit_beta=v1",
    "content-type": "application/json",
}


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit()


def ask(
    fake: FakeChatKit, url: str, body: bytes, headers: dict[str, str] | None = None
) -> FakeResponse:
    path = url.removeprefix("https://api.openai.com")
    fields = HEADERS if headers is None else headers
    return fake.handle(ServiceRequest("POST", path, Headers(fields.items()), body))


def assert_answer_holds(url: str, response: FakeResponse) -> None:
    assert_response_holds("POST", url, response.status_code, response.headers, response.body)


@pytest.mark.parametrize("content", ACCEPTED, ids=NAMES_OF_ACCEPTED)
def test_both_accept(fake: FakeChatKit, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()

    created = ask(fake, URL, body)

    assert_request_holds("POST", URL, HEADERS, body)
    assert created.status_code == 200
    assert_answer_holds(URL, created)


@pytest.mark.parametrize("content", REJECTED, ids=json.dumps)
def test_both_refuse(fake: FakeChatKit, content: object) -> None:
    body = json.dumps(content).encode()

    refused = ask(fake, URL, body)

    with pytest.raises(OpenAPIError):
        assert_request_holds("POST", URL, HEADERS, body)
    assert refused.status_code == 400
    assert_answer_holds(URL, refused)


@pytest.mark.parametrize("minutes", [0, 10], ids=["active", "expired"])
def test_cancelled_sessions_hold(fake: FakeChatKit, minutes: int) -> None:
    created = json.loads(ask(fake, URL, json.dumps(EVERYTHING).encode()).body)
    url = f"{URL}/{created['id']}/cancel"
    fake.clock.advance(minutes=minutes)

    cancelled = ask(fake, url, b"")

    assert_request_holds("POST", url, HEADERS, b"")
    assert cancelled.status_code == 200
    assert_answer_holds(url, cancelled)


def test_every_kind_of_refusal_holds(fake: FakeChatKit) -> None:
    fake.fail_next(500, operation="cancel")

    refused = [
        (URL, ask(fake, URL, b"", {})),
        (URL, ask(fake, URL, b"", {"authorization": "Bearer sk-wrong"})),
        (URL, ask(fake, URL, b"", {"authorization": "Bearer sk-test"})),
        (URL, ask(fake, URL, b"{")),
        (URL, ask(fake, URL, b'{"user": "alice", "workflow": {"id": "wf_other"}}')),
        *((url, ask(fake, url, b"")) for url in [f"{URL}/cksess_1/cancel"] * 2),
    ]

    assert [answer.status_code for _, answer in refused] == [401, 401, 400, 400, 404, 500, 404]
    for url, answer in refused:
        assert_answer_holds(url, answer)


def test_an_answer_that_breaks_the_contract_is_noticed(fake: FakeChatKit) -> None:
    fake.fail_next(200, body='{"id": "cksess_1"}', headers={"content-type": "application/json"})

    with pytest.raises(OpenAPIError):
        assert_answer_holds(URL, ask(fake, URL, b"{}"))


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Requests that are allowed are accepted, others rejected, and every response holds."""
    fake = FakeChatKit(read_route=True, sign_out_route=True)
    session = json.loads(ask(fake, URL, json.dumps(MINIMAL).encode()).body)

    with fake.serve() as server:
        fuzz(
            server.url,
            api_key=fake.api_key,
            workflow_id=fake.workflow_id,
            session_id=session["id"],
            path=tmp_path,
            examples=10,  # the rules are the service's
        )

    assert len(fake.requests) > 200
