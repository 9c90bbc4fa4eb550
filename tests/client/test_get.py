"""`get_session`, over both clients: from the API where it can tell, else from what was seen."""

from typing import cast

import httpx
import pytest

from chatkit_sessions import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ChatKitClient,
    ChatKitError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    SessionNotFoundError,
    SessionNotRecordedError,
    WorkflowNotFoundError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import (
    KEY,
    NEW_SECRET,
    SECRET,
    WAYS,
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

GET = "GET /v1/chatkit/sessions/cksess_new"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


def test_tells_what_the_api_answers(connect: Connect) -> None:
    script = Script([ok(novelty=1)])

    info = connect(script).get_session("cksess_new")

    assert script.paths == [GET]
    assert script.requests[0].content == b""
    assert (info.id, info.status, info.user, info.source) == (
        "cksess_new",
        "active",
        "user_123",
        "api",
    )
    assert info.request_id == "req_success"
    assert info.model_extra == {"novelty": 1}


def test_never_tells_a_secret(connect: Connect) -> None:
    info = connect(Script([ok()])).get_session("cksess_new")

    assert not hasattr(info, "client_secret")
    assert NEW_SECRET not in f"{info!r} {info} {info.model_dump()} {info.model_dump_json()}"


@pytest.mark.parametrize("status", ["active", None])
def test_a_session_past_its_expiry_is_expired_whatever_the_api_says(
    connect: Connect, time: Time, status: str | None
) -> None:
    time.advance(600)

    info = connect(Script([ok(status=status)])).get_session("cksess_new")

    assert info.status == "expired"


@pytest.mark.parametrize("status", ["cancelled", "expired", "paused"])
def test_a_status_that_is_not_active_stays(connect: Connect, time: Time, status: str) -> None:
    time.advance(601)

    assert connect(Script([ok(status=status)])).get_session("cksess_new").status == status


def test_an_answer_about_another_session_is_none(connect: Connect) -> None:
    with pytest.raises(APIResponseValidationError, match="another session"):
        connect(Script([ok(id="cksess_other")])).get_session("cksess_new")


def test_never_invents_that_a_session_is_active(connect: Connect) -> None:
    chatkit = connect(Script([ok(status=None), invalid_url]))
    session = chatkit.create_session("user_123")

    info = chatkit.get_session(session.id)

    assert info.source == "record"
    assert info.status is None


@pytest.mark.parametrize(
    "answer",
    [
        invalid_url,
        refused(404, "Invalid method for URL (GET /v1/chatkit/sessions/cksess_new)"),
        refused(405, "Invalid method for URL (GET /v1/chatkit/sessions/cksess_new)"),
        httpx.Response(405),
    ],
)
def test_answers_from_its_record_where_the_server_has_no_such_route(
    connect: Connect, time: Time, answer: Answer
) -> None:
    script = Script([ok(), answer, ok()])
    chatkit = connect(script)
    session = chatkit.create_session("user_123")

    info = chatkit.get_session(session.id)

    assert info.source == "record"
    assert (info.id, info.user, info.status) == (session.id, "user_123", "active")
    assert info.expires_at == session.expires_at
    assert info.workflow is not None
    assert info.workflow.id == "wf_test"
    # … and does not ask that route again for ten minutes.
    time.advance(599)
    assert chatkit.get_session(session.id).source == "record"
    assert script.paths[1:] == [GET]
    time.advance(1)
    assert chatkit.get_session(session.id).source == "api"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, html="<h1>Not found</h1>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404),
    ],
)
def test_another_404_counts_for_that_call_alone(connect: Connect, answer: httpx.Response) -> None:
    script = Script([ok(), answer, ok()])
    chatkit = connect(script)
    session = chatkit.create_session("user_123")

    assert chatkit.get_session(session.id).source == "record"
    assert chatkit.get_session(session.id).source == "api"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(404, "Chatkit Session with id 'cksess_new' not found."), SessionNotFoundError),
        (
            refused(404, "Chatkit Session with id \u2018cksess_new\u2019 not found."),
            SessionNotFoundError,
        ),
        (refused(404, "No such session.", code="session_not_found"), SessionNotFoundError),
        (refused(404, "No such session: 'cksess_new'"), NotFoundError),
        (refused(404, "Not here."), NotFoundError),
        (refused(404, "Workflow with id 'wf_1' not found."), WorkflowNotFoundError),
        (refused(401), AuthenticationError),
        (refused(400, "Invalid 'session_id': 'x'."), BadRequestError),
        (refused(500), InternalServerError),
        (httpx.Response(200, html="<h1>Log in</h1>"), APIResponseValidationError),
        (httpx.Response(200, json=session_json(expires_at="soon")), APIResponseValidationError),
    ],
)
def test_a_record_does_not_cover_up_what_the_server_says(
    connect: Connect, answer: httpx.Response, error: type[ChatKitError]
) -> None:
    chatkit = connect(Script([ok(), answer]), max_retries=0)
    session = chatkit.create_session("user_123")

    with pytest.raises(error):
        chatkit.get_session(session.id)


def test_says_so_when_nobody_can_tell(connect: Connect) -> None:
    chatkit = connect(Script([invalid_url]))

    with pytest.raises(SessionNotRecordedError, match="cksess_unseen") as caught:
        chatkit.get_session("cksess_unseen")

    assert "chatkit.test" in str(caught.value)
    assert caught.value.hint


def test_a_record_follows_the_clock(connect: Connect, time: Time) -> None:
    chatkit = connect(Script([ok(), invalid_url]))
    session = chatkit.create_session("user_123")

    time.advance(599)
    assert chatkit.get_session(session.id).status == "active"
    time.advance(1)
    assert chatkit.get_session(session.id).status == "expired"
    time.advance(24 * 3600 - 1)
    assert chatkit.get_session(session.id).status == "expired"
    time.advance(1)
    with pytest.raises(SessionNotRecordedError):
        chatkit.get_session(session.id)


def test_records_what_was_refreshed(connect: Connect) -> None:
    chatkit = connect(Script([ok(id="cksess_refreshed"), invalid_url]))
    session = chatkit.refresh_session(SECRET, user="user_123")

    assert chatkit.get_session(session.id).user == "user_123"


def test_completes_from_the_call_what_the_server_did_not_echo(connect: Connect) -> None:
    chatkit = connect(Script([ok(user=None, workflow=None), invalid_url]))
    session = chatkit.create_session("user_123", workflow_id="wf_asked")

    info = chatkit.get_session(session.id)

    assert info.user == "user_123"
    assert info.workflow is not None
    assert info.workflow.id == "wf_asked"


def test_clients_with_other_options_share_records_of_one_key_and_project(connect: Connect) -> None:
    chatkit = connect(Script([ok(), invalid_url]))
    session = chatkit.create_session("user_123")

    assert chatkit.with_options(timeout=3).get_session(session.id).source == "record"
    assert chatkit.with_options(api_key=KEY).get_session(session.id).source == "record"
    others: list[ChatKitClient] = [
        chatkit.with_options(project="proj_other"),
        chatkit.with_options(organization="org-other"),
        chatkit.with_options(api_key="sk-of-another-tenant"),
        chatkit.with_options(api_key=lambda: KEY),
    ]
    for other in others:
        with pytest.raises(SessionNotRecordedError):
            other.get_session(session.id)


def test_the_same_function_for_a_key_is_the_same_tenant(connect: Connect) -> None:
    chatkit = connect(Script([ok(), invalid_url]))

    def key_of_the_tenant() -> str:
        return "sk-tenant"

    session = chatkit.with_options(api_key=key_of_the_tenant).create_session("user_123")

    again = chatkit.with_options(api_key=key_of_the_tenant)
    assert again.get_session(session.id).source == "record"


def test_a_callable_that_cannot_be_told_apart_shares_with_nobody(connect: Connect) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]  # the point of it

        def __call__(self) -> str:
            return KEY

    source = Unhashable()
    chatkit = connect(Script([ok(), invalid_url]), api_key=source)
    session = chatkit.create_session("user_123")

    assert chatkit.get_session(session.id).source == "record"
    with pytest.raises(SessionNotRecordedError):
        chatkit.with_options(api_key=lambda: KEY).get_session(session.id)


def test_a_key_that_is_rotated_by_a_callable_keeps_the_records(connect: Connect) -> None:
    keys = iter(["sk-1", "sk-2", "sk-3"])
    chatkit = connect(Script([ok(), invalid_url]), api_key=lambda: next(keys))
    session = chatkit.create_session("user_123")

    assert chatkit.get_session(session.id).source == "record"
    assert chatkit.with_options(timeout=3).get_session(session.id).source == "record"


@pytest.mark.parametrize(
    "session_id", ["../x", "a/b", "%2e", "..", "", "a\nb", "c" * 1_000_000, "a b", "x?y", "x#y"]
)
def test_refuses_an_id_that_could_lead_elsewhere(connect: Connect, session_id: str) -> None:
    script = Script([ok()])

    with pytest.raises(InvalidRequestError, match="session_id"):
        connect(script).get_session(session_id)

    assert script.requests == []


def test_never_puts_a_secret_into_a_url(connect: Connect) -> None:
    script = Script([ok()])

    with pytest.raises(InvalidRequestError, match="secret") as caught:
        connect(script).get_session(SECRET)

    assert script.requests == []
    assert SECRET not in str(caught.value)


def test_escapes_what_an_opaque_id_may_hold(connect: Connect) -> None:
    script = Script([ok(id="séssion:🙂")])

    connect(script).get_session("séssion:🙂")

    assert script.paths == ["GET /v1/chatkit/sessions/s%C3%A9ssion%3A%F0%9F%99%82"]


def test_works_over_real_connections(
    connect: Connect, fake: FakeChatKit, server: FakeServer
) -> None:
    fake.read_route = True
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    session = chatkit.create_session("user_123")

    assert chatkit.get_session(session.id).source == "api"
    fake.read_route = False
    assert chatkit.get_session(session.id).source == "record"


def test_an_error_that_is_raised_is_an_api_error(connect: Connect) -> None:
    with pytest.raises(APIStatusError) as caught:
        connect(Script([refused(403)])).get_session("cksess_new")

    assert caught.value.status_code == 403
