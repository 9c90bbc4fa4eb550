"""`create_session`, over both clients."""

from datetime import UTC, datetime, timedelta
from typing import cast

import httpx
import pytest
import respx

from chatkit_sessions import (
    APIResponseValidationError,
    ChatKitClient,
    ConfigurationError,
    InvalidRequestError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import (
    BASE_URL,
    KEY,
    NEW_SECRET,
    WAYS,
    WORKFLOW,
    Answer,
    Connect,
    Script,
    Way,
    ok,
    session_json,
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


def test_returns_the_session_that_the_api_answers(connect: Connect) -> None:
    chatkit = connect(Script([ok()]))

    session = chatkit.create_session("user_123")

    assert session.id == "cksess_new"
    assert session.client_secret.get_secret_value() == NEW_SECRET
    assert session.expires_at == datetime(2026, 11, 22, 12, 10, tzinfo=UTC)
    assert session.status == "active"
    assert session.user == "user_123"
    assert session.request_id == "req_success"


def test_gives_the_browser_the_secret_in_plain_text(connect: Connect) -> None:
    chatkit = connect(Script([ok()]))

    browser = chatkit.create_session("user_123").for_browser()

    assert browser == {
        "client_secret": NEW_SECRET,
        "expires_at": "2026-11-22T12:10:00Z",
        "session_id": "cksess_new",
    }


def test_sends_one_post_with_the_headers_of_every_call(connect: Connect) -> None:
    script = Script([ok()])
    chatkit = connect(script, organization="org-1", project="proj_1")

    chatkit.create_session("user_123")

    (request,) = script.requests
    assert (request.method, str(request.url)) == ("POST", f"{BASE_URL}/chatkit/sessions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["openai-beta"] == "chatkit_beta=v1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["openai-organization"] == "org-1"
    assert request.headers["openai-project"] == "proj_1"


def test_leaves_to_the_api_what_is_left_out(connect: Connect) -> None:
    script = Script([ok()])

    connect(script).create_session("user_123")

    assert script.body() == {"workflow": {"id": WORKFLOW}, "user": "user_123"}


def test_sends_every_option_as_the_contract_names_it(connect: Connect) -> None:
    script = Script([ok(workflow={"id": "wf_other"})])

    connect(script).create_session(
        "user_123",
        workflow_id="wf_other",
        workflow_version="3",
        state_variables={"plan": "pro", "seats": 4, "ratio": 0.5, "trial": True},
        tracing=False,
        expires_after=timedelta(minutes=5),
        max_requests_per_1_minute=20,
        file_upload={"max_file_size": 16, "max_files": 3},
        history={"recent_threads": 5},
        automatic_thread_titling=False,
    )

    assert script.body() == {
        "user": "user_123",
        "workflow": {
            "id": "wf_other",
            "version": "3",
            "state_variables": {"plan": "pro", "seats": 4, "ratio": 0.5, "trial": True},
            "tracing": {"enabled": False},
        },
        "expires_after": {"anchor": "created_at", "seconds": 300},
        "rate_limits": {"max_requests_per_1_minute": 20},
        "chatkit_configuration": {
            "automatic_thread_titling": {"enabled": False},
            "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 3},
            "history": {"recent_threads": 5},
        },
    }


def test_accepts_a_response_that_repeats_megabytes_of_state_variables(connect: Connect) -> None:
    cart = "<" * 1_500_000
    script = Script([ok(workflow={"id": WORKFLOW, "state_variables": {"cart": cart}})])

    session = connect(script).create_session("user_123", state_variables={"cart": cart})

    assert session.workflow is not None
    assert session.workflow.state_variables == {"cart": cart}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"expires_after": 601}, "`expires_after` must be 1 to 600 seconds, got 601"),
        ({"expires_after": True}, "`expires_after`"),
        ({"max_requests_per_1_minute": 0}, "`max_requests_per_1_minute` must be 1 or more, got 0"),
        ({"state_variables": {str(n): n for n in range(65)}}, "at most 64 entries, got 65"),
        ({"file_upload": {"max_file_size": 513}}, "must be 1 to 512, got 513"),
        ({"workflow_id": " wf_1"}, "`workflow_id` has white space around it"),
        ({"timeout": 0}, "`timeout` must be more than 0 seconds"),
    ],
)
def test_refuses_what_the_contract_forbids_before_sending(
    connect: Connect, options: dict[str, object], named: str
) -> None:
    script = Script([ok()])
    chatkit = connect(script)

    with pytest.raises(InvalidRequestError) as caught:
        chatkit.create_session("user_123", **options)  # type: ignore[arg-type]  # wrong on purpose

    assert named in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert script.requests == []


@pytest.mark.parametrize(
    ("user", "advice"),
    [({"id": "u1"}, 'user["id"]'), (17, "`str(user)`"), (None, "pass its id as a string")],
)
def test_says_what_to_pass_for_a_user_that_is_not_a_string(
    connect: Connect, user: object, advice: str
) -> None:
    script = Script([ok()])

    with pytest.raises(InvalidRequestError, match="`user` must be a string") as caught:
        connect(script).create_session(cast("str", user))

    assert advice in str(caught.value)
    assert script.requests == []


def test_a_user_that_was_not_awaited_is_named(connect: Connect) -> None:
    async def user() -> str:
        raise AssertionError

    with pytest.raises(InvalidRequestError, match="got a coroutine: await it"):
        connect(Script([ok()])).create_session(cast("str", user()))


def test_needs_a_workflow_only_when_a_call_does(connect: Connect) -> None:
    script = Script([ok(workflow={"id": "wf_9"})])
    chatkit = connect(script, workflow_id=None)

    with pytest.raises(ConfigurationError, match="OPENAI_CHATKIT_WORKFLOW_ID") as caught:
        chatkit.create_session("user_123")

    assert "pass one to `service.client`, or to the call" in caught.value.hint
    assert script.requests == []
    assert chatkit.create_session("user_123", workflow_id="wf_9").id == "cksess_new"


@pytest.mark.parametrize(
    ("changes", "expiry"),
    [
        (
            {"expires_at": "2026-11-22T13:00:00+01:00"},
            NOON_UTC := datetime(2026, 11, 22, 12, tzinfo=UTC),
        ),
        ({"expires_at": "2026-11-22T12:00:00"}, NOON_UTC),
        ({"expires_at": int(NOON_UTC.timestamp())}, NOON_UTC),
    ],
)
def test_reads_what_compatible_servers_answer(
    connect: Connect, changes: dict[str, object], expiry: datetime
) -> None:
    answer = httpx.Response(201, json=session_json(**changes, status="paused", novelty={"a": [1]}))

    session = connect(Script([answer])).create_session("user_123")

    assert session.expires_at == expiry
    assert session.status == "paused"
    assert session.model_extra == {"novelty": {"a": [1]}}


def broken_compression(_: httpx.Request) -> httpx.Response:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    return httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"this is no gzip"))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<h1>Please log in</h1>"),
        httpx.Response(200, content=b""),
        httpx.Response(204),
        httpx.Response(200, json=[]),
        httpx.Response(200, content=b'{"id": "\xff"}'),
        httpx.Response(200, content=b"[" * 100_000 + b"]" * 100_000),
        httpx.Response(200, json=session_json(client_secret=None)),
        httpx.Response(200, json=session_json(client_secret="")),
        httpx.Response(200, json=session_json(client_secret="**********")),
        httpx.Response(200, json=session_json(expires_at=99_999_999_999)),
        broken_compression,
        httpx.Response(200, content=b" " * (1024 * 1024 + 1)),
    ],
    ids=[
        "html", "empty", "204", "not an object", "not UTF-8", "too deep", "no secret",
        "empty secret", "masked secret", "impossible date", "broken compression", "too long",
    ],
)  # fmt: skip
def test_does_not_trust_a_success_that_is_none(connect: Connect, answer: Answer) -> None:
    script = Script([answer])
    # respx reads a body before the client does, and fails itself where it cannot be decoded.
    unread: dict[str, object] | None = {} if answer is broken_compression else None
    chatkit = connect(script, http_options=unread)

    with pytest.raises(APIResponseValidationError) as caught:
        chatkit.create_session("user_123")

    assert 200 <= caught.value.status_code <= 204
    assert len(script.requests) == 1, "a session may exist: it is not asked for twice"


def test_is_seen_by_respx(connect: Connect, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(f"{BASE_URL}/chatkit/sessions").mock(return_value=ok())
    chatkit = connect()

    session = chatkit.create_session("user_123")

    assert session.id == "cksess_new"
    assert route.call_count == 1


def test_works_over_real_connections(
    connect: Connect, fake: FakeChatKit, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)

    session = chatkit.create_session("user_123", expires_after=300)

    fake.assert_created(user="user_123", times=1)
    assert fake.sessions[session.id].client_secret == session.client_secret.get_secret_value()
    assert session.rate_limits is not None
    assert session.rate_limits.max_requests_per_1_minute == 10


@pytest.mark.parametrize("user", ["ü-ß-日本", "🙂" * 1000, "a\r\nb", "../x", "u" * 1_000_000])
def test_any_user_arrives_as_it_is(
    connect: Connect, fake: FakeChatKit, server: FakeServer, user: str
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)

    session = chatkit.create_session(user)

    assert session.user == user
    assert fake.sessions[session.id].user == user


def test_the_workflow_comes_from_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.test/openai/v1/")
    script = Script([ok(workflow={"id": "wf_environment"})])

    chatkit = connect(script, api_key=None, workflow_id=None, base_url=None)
    chatkit.create_session("user_123")

    assert str(script.requests[0].url) == "https://gateway.test/openai/v1/chatkit/sessions"
    assert script.body()["workflow"] == {"id": "wf_environment"}
    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_takes_no_options_that_do_not_exist(connect: Connect) -> None:
    chatkit: ChatKitClient = connect(Script([ok()]))

    with pytest.raises(TypeError, match="expire_after"):
        chatkit.create_session("user_123", expire_after=3)  # type: ignore[call-arg]  # a typo
