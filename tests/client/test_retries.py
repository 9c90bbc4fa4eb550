"""Which attempts are repeated, and for how long a call goes on, over both clients."""

import asyncio
import logging
from typing import cast

import anyio
import httpx
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKitClient,
    ChatKitClient,
    ConfigurationError,
    InternalServerError,
    RateLimitError,
    RetryPolicy,
)
from chatkit_sessions._api.operations import get
from chatkit_sessions._concurrency.tasks import TaskEvent
from chatkit_sessions._concurrency.threads import run_blocking
from raw_server import Connection, raw_server
from support import KEY, WAYS, WORKFLOW, Connect, Script, Time, Way, ok, refused


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.ReadTimeout("timed out"),
        refused(408),
        refused(409),
        refused(429),
        refused(500),
        httpx.Response(503, html="<h1>Busy</h1>"),
        refused(400, headers={"x-should-retry": "true"}),
    ],
)
def test_tries_again_where_that_may_help(
    connect: Connect, time: Time, trouble: httpx.Response | Exception
) -> None:
    script = Script([trouble, trouble, ok()])

    session = connect(script).create_session("user_123")

    assert session.id == "cksess_new"
    assert time.sleeps == [0.5, 1.0]


@pytest.mark.parametrize(
    "trouble",
    [
        refused(400),
        refused(401),
        refused(403),
        refused(404),
        refused(422),
        refused(500, headers={"x-should-retry": "false"}),
    ],
)
def test_does_not_try_again_where_it_cannot_help(
    connect: Connect, time: Time, trouble: httpx.Response
) -> None:
    script = Script([trouble])

    with pytest.raises(APIStatusError):
        connect(script).create_session("user_123")

    assert len(script.requests) == 1
    assert time.sleeps == []


def test_gives_up_with_the_last_error(connect: Connect) -> None:
    script = Script([httpx.ConnectError("refused"), refused(500), refused(429)])

    with pytest.raises(RateLimitError):
        connect(script).create_session("user_123")

    assert len(script.requests) == 3


@pytest.mark.parametrize("max_retries", [0, RetryPolicy(max_retries=0)])
def test_retrying_can_be_switched_off(connect: Connect, max_retries: int | RetryPolicy) -> None:
    script = Script([refused(500)])

    with pytest.raises(InternalServerError):
        connect(script, max_retries=max_retries).create_session("user_123")

    assert len(script.requests) == 1


def test_a_policy_can_be_given(connect: Connect, time: Time) -> None:
    policy = RetryPolicy(max_retries=3, initial_delay=0.1, max_delay=0.2)
    script = Script([refused(500), refused(500), refused(500), ok()])

    connect(script, max_retries=policy).create_session("user_123")

    assert time.sleeps == [0.1, 0.2, 0.2]


def test_waits_as_long_as_the_answer_asks(connect: Connect, time: Time) -> None:
    script = Script([refused(429, headers={"retry-after": "7"}), ok()])

    connect(script).create_session("user_123")

    assert time.sleeps == [7.0]


@pytest.mark.parametrize("seconds", [121, 31])
def test_a_wait_that_is_too_long_ends_the_call_at_once(
    connect: Connect, time: Time, seconds: int
) -> None:
    script = Script([refused(429, headers={"retry-after": str(seconds)})])

    with pytest.raises(RateLimitError) as caught:
        connect(script, timeout=30).create_session("user_123")

    assert caught.value.retry_after == seconds
    assert time.sleeps == []


def test_the_deadline_is_for_all_attempts_together(connect: Connect, time: Time) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        time.advance(9)
        return refused(500)

    script = Script([slow])

    with pytest.raises(InternalServerError):
        connect(script, timeout=30, max_retries=10).create_session("user_123")

    assert len(script.requests) == 3, (
        "9 + 0.5 + 9 + 1 + 9 seconds leave no time for the wait of 2 and a fourth"
    )


def test_a_wait_that_took_longer_than_asked_for_ends_with_the_last_attempts_error(
    connect: Connect, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    def oversleep(_: float) -> None:
        time.advance(60)

    monkeypatch.setattr(time, "sleep", oversleep)
    script = Script([refused(503), ok()])

    with pytest.raises(InternalServerError) as caught:
        connect(script, timeout=30).create_session("user_123")

    assert caught.value.status_code == 503
    assert len(script.requests) == 1


def test_each_attempt_gets_the_time_that_is_left(connect: Connect, time: Time) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        time.advance(10)
        return refused(500)

    script = Script([slow, ok()])

    connect(script, timeout=30).create_session("user_123")

    limits = [request.extensions["timeout"] for request in script.requests]
    assert limits[0] == {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 30.0}
    assert limits[1] == {"connect": 5.0, "read": 19.5, "write": 19.5, "pool": 19.5}


@pytest.mark.parametrize("timeout", [3, 3.0])
def test_a_call_can_have_a_timeout_of_its_own(connect: Connect, timeout: float) -> None:
    script = Script([ok()])

    connect(script, timeout=30).create_session("user_123", timeout=timeout)

    limits = script.requests[0].extensions["timeout"]
    assert limits == {"connect": 3.0, "read": 3.0, "write": 3.0, "pool": 3.0}


def test_none_is_no_limit_but_for_connecting(connect: Connect) -> None:
    script = Script([ok()])

    connect(script, timeout=30).create_session("user_123", timeout=None)

    limits = script.requests[0].extensions["timeout"]
    assert limits == {"connect": 5.0, "read": None, "write": None, "pool": None}


def test_a_body_that_drips_beyond_the_deadline_ends_the_call(connect: Connect, time: Time) -> None:
    class Drip(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204 -- two protocols at once
            for _ in range(100):
                time.advance(1)
                yield b" "

        async def __aiter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204 -- as above
            for chunk in self:
                yield chunk

    script = Script([lambda _: httpx.Response(200, stream=Drip())])
    started = time.monotonic

    with pytest.raises(APITimeoutError):
        connect(script, timeout=5, max_retries=0).create_session("user_123")

    assert time.monotonic - started == 5


def test_every_attempt_and_retry_is_logged_without_secrets(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([refused(500), httpx.ConnectError("refused"), ok()])

    with caplog.at_level(logging.DEBUG, "chatkit_sessions"):
        connect(script).create_session("user_123")

    ours = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "chatkit_sessions"]
    create = "POST /chatkit/sessions"
    reach = "No complete response came from chatkit.test (ConnectError: refused)."
    assert ours == [
        ("DEBUG", f"{create}: 500 (request id req_failure)"),
        ("INFO", f"{create}: trying again in 0.500 s after 500 (request id req_failure)"),
        ("DEBUG", f"{create}: {reach}"),
        ("INFO", f"{create}: trying again in 1.000 s after {reach}"),
        ("DEBUG", f"{create}: 200 (request id req_success)"),
    ]
    assert KEY not in caplog.text


def refuse_first(connection: Connection) -> None:
    connection.receive()
    connection.answer(b"", status="500 Internal Server Error")
    connection.receive()
    connection.answer()


def test_what_a_query_holds_is_sent_but_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = RetryPolicy(max_retries=1, initial_delay=0.001)
    operation = get("cksess_new")._replace(query=(("user", "ada@example.com"),))

    with (
        raw_server(refuse_first) as server,
        ChatKitClient(api_key=KEY, base_url=server.url, max_retries=policy) as client,
        caplog.at_level(logging.DEBUG),
    ):
        calls = client._sessions.calls
        run_blocking(calls.perform, operation, calls.deadline(None))

        lines = [request.partition(b"\r\n")[0] for request in server.requests]

    assert lines == [b"GET /v1/chatkit/sessions/cksess_new?user=ada%40example.com HTTP/1.1"] * 2
    logged = [each.getMessage() for each in caplog.records]
    assert len(logged) == 5
    assert "ada" not in "".join(logged)


@pytest.mark.parametrize("max_retries", [-1, 1.5, True, "2"])
def test_refuses_a_number_of_retries_that_is_none(connect: Connect, max_retries: object) -> None:
    with pytest.raises(ConfigurationError, match="max_retries"):
        connect(Script([ok()]), max_retries=max_retries)  # type: ignore[arg-type]  # wrong on purpose


def test_a_connection_error_is_not_a_timeout(connect: Connect) -> None:
    with pytest.raises(APIConnectionError) as caught:
        connect(Script([httpx.ConnectError("no")]), max_retries=0).create_session("user_123")

    assert not isinstance(caught.value, APITimeoutError)


async def never(_: httpx.Request) -> httpx.Response:
    await anyio.sleep_forever()
    raise AssertionError  # pragma: no cover -- cancelled before


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_answer_that_never_begins_ends_with_the_deadline(backend: str) -> None:
    async def main() -> None:
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(never)) as http,
            AsyncChatKitClient(
                api_key=KEY, workflow_id="wf_1", http_client=http, timeout=0.01
            ) as chatkit,
        ):
            with pytest.raises(APITimeoutError, match="within the time that the call had"):
                await chatkit.create_session("user_123")

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelling_a_task_cancels_its_call_and_nothing_else(backend: str) -> None:
    async def main() -> None:
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(never)) as http,
            AsyncChatKitClient(api_key=KEY, workflow_id="wf_1", http_client=http) as chatkit,
        ):
            with anyio.move_on_after(0.01) as scope:
                await chatkit.create_session("user_123")
            assert scope.cancelled_caught

    anyio.run(main, backend=backend)


def test_tests_of_users_may_put_something_in_place_of_waiting_and_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As mock.patch("time.sleep") and freezegun do, before a client is made."""
    waits: list[float] = []
    now = 1_000.0

    def sleep(seconds: float) -> str:
        waits.append(seconds)
        return "what a mock returns"

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("random.random", lambda: 0.0)
    script = Script([refused(500, "try again"), ok(), ok()])
    with httpx.Client(transport=httpx.MockTransport(script)) as http_client:
        chatkit = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, http_client=http_client)

        chatkit.get_or_create_session("user_123")
        now += 3_600
        chatkit.get_or_create_session("user_123")

    assert waits == [0.5]
    assert len(script.requests) == 3


def test_waiting_for_another_call_ends_with_the_time_that_it_has() -> None:
    async def main() -> bool:
        return await TaskEvent().wait_for(0.0)

    assert asyncio.run(main()) is False
