"""Connections that fail on demand, over HTTP and in process, as both clients meet them."""

import asyncio
import threading
from typing import Any, cast, get_args

import httpx
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ChatKitClient,
    ChatKitError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from chatkit_sessions.testing.faults import Fault, length_claimed, pieces_sent
from support import Connect, Ticking, Time

OUTCOMES: dict[Fault, type[ChatKitError]] = {
    "reset": APIConnectionError,
    "hang": APITimeoutError,
    "drip": APITimeoutError,
    "truncate": APIConnectionError,
    "oversize": APIResponseValidationError,
}


def timeout_of(fault: Fault) -> float:
    """A short one where nothing else ends the call."""
    return 0.15 if OUTCOMES[fault] is APITimeoutError else 30


@pytest.fixture(params=["over HTTP", "in process"])
def chatkit(
    request: pytest.FixtureRequest,
    connect: Connect,
    fake: FakeChatKit,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> ChatKitClient:
    if request.param == "over HTTP":
        monkeypatch.setattr("chatkit_sessions.testing.server._SECONDS_BETWEEN_DRIPS", 0.005)
        connect.time = Ticking(tick=0.002)
        return connect(api_key=fake.api_key, base_url=server.url, max_retries=0)
    return connect(fake.transport(), api_key=fake.api_key, max_retries=0)


@pytest.mark.parametrize(("fault", "outcome"), OUTCOMES.items())
def test_each_fault_has_its_outcome(
    chatkit: ChatKitClient, fake: FakeChatKit, fault: Fault, outcome: type[ChatKitError]
) -> None:
    fake.fail_next(fault=fault)

    with pytest.raises(outcome) as caught:
        chatkit.create_session("user_123", timeout=timeout_of(fault))

    assert type(caught.value) is outcome
    assert len(fake.requests) == 1


@pytest.mark.parametrize("fault", get_args(Fault))
def test_the_call_after_it_is_well(chatkit: ChatKitClient, fake: FakeChatKit, fault: Fault) -> None:
    fake.fail_next(fault=fault)
    with pytest.raises(ChatKitError):
        chatkit.create_session("user_123", timeout=timeout_of(fault))

    assert chatkit.create_session("user_123").status == "active"


@pytest.mark.parametrize(
    ("fault", "created"), [("reset", 0), ("hang", 0), ("drip", 1), ("truncate", 1), ("oversize", 1)]
)
def test_a_lost_request_creates_nothing_a_lost_answer_leaves_a_session(
    chatkit: ChatKitClient, fake: FakeChatKit, fault: Fault, created: int
) -> None:
    fake.fail_next(fault=fault)

    with pytest.raises(ChatKitError):
        chatkit.create_session("user_123", timeout=timeout_of(fault))

    assert len(fake.sessions) == created


def test_a_reset_is_made_up_for_by_a_retry(
    connect: Connect, fake: FakeChatKit, server: FakeServer, time: Time
) -> None:
    fake.fail_next(fault="reset", times=2)

    connect(api_key=fake.api_key, base_url=server.url).create_session("user_123")

    assert time.sleeps == [0.5, 1.0]
    fake.assert_created(user="user_123", times=1)


def test_a_fault_waits_for_its_operation(chatkit: ChatKitClient, fake: FakeChatKit) -> None:
    # Twice: over HTTP, a connection that was idle and breaks costs one free attempt.
    fake.fail_next(fault="reset", operation="cancel", times=2)

    session = chatkit.create_session("user_123")

    with pytest.raises(APIConnectionError):
        chatkit.delete_session(session.id)


def test_an_answer_that_drips_comes_byte_by_byte(fake: FakeChatKit, server: FakeServer) -> None:
    fake.fail_next(fault="drip")

    with httpx.stream("GET", f"{server.url}/x", timeout=60) as response:
        assert next(response.iter_raw()) == b"{"


def test_an_oversized_answer_is_json_all_the_same(fake: FakeChatKit) -> None:
    fake.fail_next(fault="oversize")

    with httpx.Client(transport=fake.transport()) as client:
        answer = client.get("http://fake.test/v1/x")

    assert len(answer.content) == int(answer.headers["content-length"]) > 64 * 1024 * 1024
    assert answer.json()["error"]["message"] == "Invalid URL (GET /v1/x)"


def test_leaving_the_server_ends_what_hangs_and_drips(fake: FakeChatKit) -> None:
    before = set(threading.enumerate())
    fake.fail_next(fault="hang")
    fake.fail_next(fault="drip")
    ended: list[str] = []

    def ask(url: str) -> None:
        try:
            httpx.get(url, timeout=60)
        except httpx.TransportError as error:
            ended.append(type(error).__name__)

    with fake.serve() as server:
        threads = [threading.Thread(target=ask, args=(f"{server.url}/x",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(fake.requests) < 2:
            threads[0].join(0.001)
    for thread in threads:
        thread.join()

    assert ended == ["RemoteProtocolError", "RemoteProtocolError"]
    assert not set(threading.enumerate()) - before


def test_the_whole_body_is_sent_where_nothing_fails() -> None:
    assert list(pieces_sent(b"body", None)) == [b"body"]
    assert length_claimed(b"body", None) == 4


def test_a_body_drips_byte_by_byte() -> None:
    assert list(pieces_sent(b"abc", "drip")) == [b"a", b"b", b"c"]


def test_an_oversized_body_is_as_long_as_it_says() -> None:
    assert sum(map(len, pieces_sent(b"{}", "oversize"))) == length_claimed(b"{}", "oversize")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "either status_code or fault"),
        ({"fault": "explosion"}, "must be one of drip, hang, oversize, reset, truncate"),
        ({"fault": "reset", "status_code": 500}, "fault goes with times and operation alone"),
        ({"fault": "reset", "message": "x"}, "fault goes with times and operation alone"),
        ({"fault": "reset", "times": 0}, "times must be 1 or more"),
        ({"fault": "reset", "when": asyncio.sleep}, "when must be a plain function"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    fake: FakeChatKit, arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        fake.fail_next(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_an_operation_that_does_not_exist_is_refused(fake: FakeChatKit) -> None:
    with pytest.raises(ValueError, match=r"operation must be one of .*create.*, not 'creat'"):
        fake.fail_next(503, operation=cast("Any", "creat"))
