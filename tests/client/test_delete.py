"""`delete_session`, over both clients: the secret stops working."""

from typing import cast

import httpx
import pytest

from chatkit_sessions import (
    APIResponseValidationError,
    BadRequestError,
    ChatKitError,
    ConflictError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    SessionNotFoundError,
    SessionNotRecordedError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import WAYS, Answer, Connect, Script, Time, Way, invalid_url, ok, refused, session_json

NOT_FOUND = refused(404, "Chatkit Session with id 'cksess_new' not found.")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


def cancelled(**changes: object) -> httpx.Response:
    return ok(status="cancelled", client_secret="", **changes)


@pytest.mark.parametrize(
    "answer",
    [
        cancelled(),
        httpx.Response(
            200,
            json={
                "id": "cksess_new",
                "object": "chatkit.session",
                "status": "cancelled",
                "workflow": {"id": "wf_test"},
            },
        ),
        ok(status="expired"),
        ok(status="ended"),
        httpx.Response(200, json={"id": "cksess_new"}),
    ],
    ids=["full", "hardly more than the id", "expired", "unknown status", "the id alone"],
)
def test_cancels_the_session(connect: Connect, answer: httpx.Response) -> None:
    script = Script([answer])

    connect(script).delete_session("cksess_new")

    assert script.paths == ["POST /v1/chatkit/sessions/cksess_new/cancel"]
    assert script.requests[0].content == b""


@pytest.mark.parametrize(
    "answer",
    [
        refused(400, "Chatkit Session with id 'cksess_new' is already cancelled."),
        refused(409, "This session has already been canceled."),
        refused(410, "The session has expired."),
        refused(400, "Session cksess_new was cancelled at 12:00."),
    ],
)
def test_a_session_that_has_ended_already_counts_as_deleted(
    connect: Connect, answer: httpx.Response
) -> None:
    script = Script([answer])

    connect(script).delete_session("cksess_new")

    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NOT_FOUND, SessionNotFoundError),
        (refused(400, "Invalid 'session_id': 'x'."), BadRequestError),
        (refused(409, "Another request is being processed."), ConflictError),
        (refused(500, "The session has expired."), InternalServerError),
        (refused(401, "Your session has expired, please log in."), ChatKitError),
        (ok(status="active"), APIResponseValidationError),
        (httpx.Response(200, html="<h1>Log in</h1>"), APIResponseValidationError),
        (httpx.Response(200, json={"ok": True}), APIResponseValidationError),
        (cancelled(id="cksess_other"), APIResponseValidationError),
        (httpx.Response(204), APIResponseValidationError),
    ],
)
def test_says_when_the_session_may_live_on(
    connect: Connect, answer: httpx.Response, error: type[ChatKitError]
) -> None:
    with pytest.raises(error):
        connect(Script([answer]), max_retries=0).delete_session("cksess_new")


def test_missing_ok_forgives_a_session_that_the_api_does_not_know(connect: Connect) -> None:
    connect(Script([NOT_FOUND])).delete_session("cksess_new", missing_ok=True)


@pytest.mark.parametrize(
    "answer",
    [
        invalid_url,
        httpx.Response(404, html="<h1>Not found</h1>"),
        httpx.Response(404),
        refused(404, "Workflow with id 'wf_1' not found."),
    ],
)
def test_missing_ok_forgives_no_other_404(connect: Connect, answer: Answer) -> None:
    with pytest.raises(NotFoundError):
        connect(Script([answer])).delete_session("cksess_new", missing_ok=True)


def test_get_knows_of_the_deletion(connect: Connect) -> None:
    chatkit = connect(Script([ok(), cancelled(), invalid_url]))
    session = chatkit.create_session("user_123")

    chatkit.delete_session(session.id)

    info = chatkit.get_session(session.id)
    assert (info.status, info.user, info.expires_at) == (
        "cancelled",
        "user_123",
        session.expires_at,
    )


@pytest.mark.parametrize(
    ("answer", "status", "user"),
    [
        (cancelled(), "cancelled", "user_123"),
        (httpx.Response(200, json={"id": "cksess_new", "status": "cancelled"}), "cancelled", None),
        (httpx.Response(200, json={"id": "cksess_new"}), "cancelled", None),
        (refused(400, "The session has expired."), "expired", None),
    ],
)
def test_get_knows_of_the_deletion_of_a_session_created_elsewhere(
    connect: Connect, time: Time, answer: httpx.Response, status: str, user: str | None
) -> None:
    chatkit = connect(Script([answer, invalid_url]))

    chatkit.delete_session("cksess_new")

    info = chatkit.get_session("cksess_new")
    assert (info.status, info.user, info.source) == (status, user, "record")
    assert 0 <= info.expires_in(now=time.now) <= 600


@pytest.mark.parametrize("missing_ok", [True, False])
def test_a_session_that_the_api_does_not_know_is_forgotten(
    connect: Connect, *, missing_ok: bool
) -> None:
    chatkit = connect(Script([ok(), NOT_FOUND, invalid_url]))
    session = chatkit.create_session("user_123")

    try:
        chatkit.delete_session(session.id, missing_ok=missing_ok)
    except SessionNotFoundError:
        assert not missing_ok

    with pytest.raises(SessionNotRecordedError):
        chatkit.get_session(session.id)


def test_refuses_an_id_that_could_lead_elsewhere(connect: Connect) -> None:
    script = Script([cancelled()])

    with pytest.raises(InvalidRequestError, match="session_id"):
        connect(script).delete_session("../../models")

    assert script.requests == []


def test_works_over_real_connections(
    connect: Connect, fake: FakeChatKit, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    session = chatkit.create_session("user_123")

    chatkit.delete_session(session.id)
    chatkit.delete_session(session.id)

    assert fake.sessions[session.id].status == "cancelled"
    with pytest.raises(SessionNotFoundError):
        chatkit.delete_session("cksess_" + "0" * 48)


def test_an_answer_that_was_echoed_for_create_is_no_deletion(connect: Connect) -> None:
    answer = httpx.Response(200, json=session_json())

    with pytest.raises(APIResponseValidationError, match="active"):
        connect(Script([answer])).delete_session("cksess_new")
