"""`refresh_session`, over both clients: another secret for the same user, never the old one."""

import logging
from typing import cast

import httpx
import pytest
from pydantic import SecretStr

from chatkit_sessions import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    InternalServerError,
    InvalidRequestError,
    RateLimitError,
    SessionOptions,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import (
    KEY,
    NEW_SECRET,
    SECRET,
    WAYS,
    WORKFLOW,
    Answer,
    Connect,
    Script,
    Time,
    Way,
    invalid_url,
    ok,
    refused,
    session_json,
)

REFRESH = "POST /v1/chatkit/sessions/refresh"
CREATE = "POST /v1/chatkit/sessions"
CANCEL = "POST /v1/chatkit/sessions/{}/cancel"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


def refreshed(**changes: object) -> httpx.Response:
    return ok(id="cksess_refreshed", client_secret="ek_refreshed", **changes)


def cancelled(session_id: str) -> httpx.Response:
    return httpx.Response(200, json={"id": session_id, "status": "cancelled"})


def test_returns_the_refreshed_session(connect: Connect) -> None:
    script = Script([refreshed()])

    session = connect(script).refresh_session(SECRET, user="user_123")

    assert session.id == "cksess_refreshed"
    assert session.client_secret.get_secret_value() == "ek_refreshed"
    assert script.paths == [REFRESH]
    assert script.body() == {"client_secret": SECRET}


def test_takes_the_secret_as_a_model_holds_it(connect: Connect) -> None:
    script = Script([refreshed()])

    connect(script).refresh_session(SecretStr(SECRET), user="user_123")

    assert script.body() == {"client_secret": SECRET}


@pytest.mark.parametrize(
    "answer",
    [
        refreshed(user="somebody_else"),
        refreshed(user=None),
        refreshed(workflow={"id": "wf_other"}),
        refreshed(workflow=None),
        refreshed(status="expired"),
        refreshed(status="cancelled"),
        ok(id="cksess_refreshed", client_secret=SECRET),
        ok(id="cksess_refreshed", client_secret=""),
        ok(id="cksess_refreshed", client_secret=None),
        ok(id="cksess_refreshed", expires_at="never"),
    ],
    ids=[
        "another user's", "no user", "another workflow's", "no workflow", "expired", "cancelled",
        "the old secret",
        "an empty secret", "no secret", "an impossible date",
    ],
)  # fmt: skip
def test_cancels_an_answer_that_cannot_be_trusted_and_creates_a_session(
    connect: Connect, answer: httpx.Response
) -> None:
    script = Script([answer, cancelled("cksess_refreshed"), ok()])

    session = connect(script).refresh_session(SECRET, user="user_123", expires_after=60)

    assert session.client_secret.get_secret_value() == NEW_SECRET
    assert script.paths == [REFRESH, CANCEL.format("cksess_refreshed"), CREATE]
    assert script.body() == {
        "user": "user_123",
        "workflow": {"id": WORKFLOW},
        "expires_after": {"anchor": "created_at", "seconds": 60},
    }


def test_a_session_with_other_options_is_cancelled_and_a_new_one_takes_its_place(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    pro = {"id": WORKFLOW, "state_variables": {"plan": "pro"}}
    script = Script([refreshed(workflow=pro), cancelled("cksess_refreshed"), ok()])

    with caplog.at_level(logging.INFO, "chatkit_sessions"):
        session = connect(script).refresh_session(
            SECRET, user="user_123", state_variables={"plan": "free"}
        )

    assert session.id == "cksess_new"
    assert script.paths == [REFRESH, CANCEL.format("cksess_refreshed"), CREATE]
    assert script.body()["workflow"] == {"id": WORKFLOW, "state_variables": {"plan": "free"}}
    (line,) = caplog.records
    assert line.levelname == "INFO"
    assert line.getMessage().endswith("it has another `workflow.state_variables`")


def test_omitted_options_are_not_compared(connect: Connect) -> None:
    pro = {"id": WORKFLOW, "state_variables": {"plan": "pro"}}
    script = Script([refreshed(workflow=pro, rate_limits={"max_requests_per_1_minute": 99})])

    assert connect(script).refresh_session(SECRET, user="user_123").id == "cksess_refreshed"
    assert script.paths == [REFRESH]


@pytest.mark.parametrize("refresh_route", [True, False])
def test_a_refresh_gives_the_options_of_today_whether_or_not_the_server_has_the_route(
    connect: Connect, fake: FakeChatKit, server: FakeServer, *, refresh_route: bool
) -> None:
    fake.refresh_route = refresh_route
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    before: SessionOptions = {"expires_after": 300, "max_requests_per_1_minute": 100}
    today: SessionOptions = {**before, "max_requests_per_1_minute": 2}
    session = chatkit.create_session("user_123", **before)

    same = chatkit.refresh_session(session.client_secret, user="user_123", **before)
    fewer = chatkit.refresh_session(same.client_secret, user="user_123", **today)

    assert fake.sessions[same.id].refreshed_from == (session.id if refresh_route else None)
    assert fake.sessions[fewer.id].settings.max_requests_per_1_minute == 2
    if refresh_route:
        active = [each.id for each in fake.sessions.values() if each.status == "active"]
        assert active == [fewer.id], "the refreshed session with the limit of before is cancelled"


def test_a_session_that_cannot_be_cancelled_does_not_stop_the_new_one(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([refreshed(user="somebody_else"), refused(500), ok()])

    with caplog.at_level(logging.WARNING, "chatkit_sessions"):
        session = connect(script).refresh_session(SECRET, user="user_123")

    assert session.id == "cksess_new"
    assert len(script.requests) == 3, "cancelling it is tried once"
    assert "could not be cancelled" in caplog.text


@pytest.mark.parametrize("session_id", [None, 17, "", "../x", "ek_secret_as_id"])
def test_an_untrusted_answer_without_a_usable_id_cannot_be_cancelled(
    connect: Connect, session_id: object
) -> None:
    script = Script([ok(id=session_id, user="somebody_else"), ok()])

    connect(script).refresh_session(SECRET, user="user_123")

    assert script.paths == [REFRESH, CREATE]


@pytest.mark.parametrize(
    "answer",
    [
        refused(400, "Invalid 'client_secret'."),
        refused(401, "Incorrect API key provided.", code="invalid_api_key"),
        refused(404, "Chatkit Session with id 'cksess_1' not found."),
        httpx.Response(404, html="<h1>Not found</h1>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        refused(403),
        refused(422),
        httpx.Response(200, html="<h1>Please log in</h1>"),
        httpx.Response(200, content=b""),
    ],
    ids=[
        "400", "401", "404 session", "404 HTML", "404 of another make", "403", "422", "200 HTML",
        "200 empty",
    ],
)  # fmt: skip
def test_creates_a_session_where_the_refresh_is_refused(
    connect: Connect, answer: httpx.Response
) -> None:
    script = Script([answer, ok(), refreshed()])
    chatkit = connect(script)

    session = chatkit.refresh_session(SECRET, user="user_123")

    assert session.id == "cksess_new"
    assert script.paths == [REFRESH, CREATE]
    chatkit.refresh_session(SECRET, user="user_123")
    assert script.paths[2:] == [REFRESH], "that counted for one call alone"


def test_a_wrong_key_surfaces_as_the_error_of_create(connect: Connect) -> None:
    script = Script([refused(401, code="invalid_api_key")])

    with pytest.raises(AuthenticationError) as caught:
        connect(script).refresh_session(SECRET, user="user_123")

    assert script.paths == [REFRESH, CREATE]
    assert caught.value.__context__ is None, "one trouble, told once"


@pytest.mark.parametrize(
    "answer", [invalid_url, httpx.Response(405), httpx.Response(405, html="<h1>No</h1>")]
)
def test_remembers_for_ten_minutes_that_the_route_is_missing(
    connect: Connect, time: Time, answer: Answer
) -> None:
    script = Script([answer, ok(), ok(), refreshed()])
    chatkit = connect(script)

    chatkit.refresh_session(SECRET, user="user_123")
    time.advance(599)
    chatkit.with_options(timeout=5).refresh_session(SECRET, user="user_123")
    assert script.paths == [REFRESH, CREATE, CREATE]

    time.advance(1)
    assert chatkit.refresh_session(SECRET, user="user_123").id == "cksess_refreshed"
    assert script.paths[3:] == [REFRESH]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(429), RateLimitError),
        (refused(408), APIStatusError),
        (refused(409), APIStatusError),
        (refused(500), InternalServerError),
        (httpx.Response(302, headers={"location": "https://elsewhere.test/"}), APIStatusError),
    ],
)
def test_does_not_create_where_the_refresh_may_work_later(
    connect: Connect, answer: httpx.Response, error: type[APIStatusError]
) -> None:
    script = Script([answer])

    with pytest.raises(error):
        connect(script, max_retries=0).refresh_session(SECRET, user="user_123")

    assert script.paths == [REFRESH]


def test_does_not_create_where_no_answer_came(connect: Connect) -> None:
    script = Script([httpx.ConnectError("refused")])

    with pytest.raises(APIConnectionError):
        connect(script, max_retries=0).refresh_session(SECRET, user="user_123")

    assert script.paths == [REFRESH]


def test_both_requests_share_one_deadline(connect: Connect, time: Time) -> None:
    def slow_refusal(_: httpx.Request) -> httpx.Response:
        time.advance(31)
        return refused(400)

    script = Script([slow_refusal, ok()])

    with pytest.raises(APITimeoutError):
        connect(script, timeout=30).refresh_session(SECRET, user="user_123")

    assert script.paths == [REFRESH]


@pytest.mark.parametrize(
    ("secret", "flaw"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("*****", "is masked"),
        ("cksess_1", "is a session's id"),
        ("ek_\ud800", "not valid"),
    ],
)
def test_refuses_what_cannot_be_a_secret(connect: Connect, secret: str, flaw: str) -> None:
    script = Script([ok()])

    with pytest.raises(InvalidRequestError, match=flaw):
        connect(script).refresh_session(secret, user="user_123")

    assert script.requests == []


def test_rejects_an_option_that_does_not_exist_before_anything_is_sent(connect: Connect) -> None:
    script = Script([])
    options = cast("SessionOptions", {"expire_after": 60})

    with pytest.raises(TypeError, match="Did you mean 'expires_after'"):
        connect(script).refresh_session(SECRET, user="user_123", **options)

    assert script.requests == []


def test_checks_the_options_before_anything_is_sent(connect: Connect) -> None:
    script = Script([refreshed()])

    with pytest.raises(InvalidRequestError, match="expires_after"):
        connect(script).refresh_session(SECRET, user="user_123", expires_after=0)

    assert script.requests == []


@pytest.mark.parametrize("refresh_route", [True, False])
def test_works_over_real_connections(
    connect: Connect, fake: FakeChatKit, server: FakeServer, *, refresh_route: bool
) -> None:
    fake.refresh_route = refresh_route
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    session = chatkit.create_session("user_123")

    refreshed = chatkit.refresh_session(session.client_secret, user="user_123")

    assert refreshed.client_secret != session.client_secret
    assert refreshed.id != session.id
    assert fake.sessions[refreshed.id].user == "user_123"


def test_the_session_of_a_stolen_secret_is_not_handed_to_its_thief(
    connect: Connect, fake: FakeChatKit, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    theirs = chatkit.create_session("victim")

    mine = chatkit.refresh_session(theirs.client_secret, user="thief")

    assert fake.sessions[mine.id].user == "thief"
    still_open = [s.user for s in fake.sessions.values() if s.status == "active"]
    assert still_open == ["thief"]


def test_the_key_is_asked_for_each_request(connect: Connect) -> None:
    keys = iter(["sk-first", "sk-second"])
    script = Script([refused(400), ok()])

    connect(script, api_key=lambda: next(keys)).refresh_session(SECRET, user="user_123")

    sent = [request.headers["authorization"] for request in script.requests]
    assert sent == ["Bearer sk-first", "Bearer sk-second"]
    assert KEY not in sent


def test_names_the_flaw_of_a_rejected_answer_in_the_log(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    answer = httpx.Response(200, json=session_json(client_secret=SECRET))
    script = Script([answer, cancelled("cksess_new"), ok()])

    with caplog.at_level(logging.DEBUG, "chatkit_sessions"):
        connect(script).refresh_session(SECRET, user="user_123")

    assert "holds the secret that was presented" in caplog.text
    assert SECRET not in caplog.text
