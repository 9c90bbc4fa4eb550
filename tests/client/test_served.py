"""The rules of the four calls, over both clients and real connections to the served local API."""

from datetime import timedelta

import pytest

from chatkit_sessions import (
    APIStatusError,
    BadRequestError,
    BetaNotAvailableError,
    ChatKitClient,
    InternalServerError,
    RateLimitError,
    SessionNotFoundError,
    SessionNotRecordedError,
    UnprocessableEntityError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import Connect, Time


@pytest.fixture
def chatkit(connect: Connect, server: FakeServer) -> ChatKitClient:
    return connect(api_key=server.api_key, base_url=server.url)


def test_every_option_of_create_is_taken(chatkit: ChatKitClient, fake: FakeChatKit) -> None:
    session = chatkit.create_session(
        "user_123",
        workflow_version="3",
        state_variables={"plan": "pro", "seats": 4, "ratio": 0.5, "trial": True},
        tracing=False,
        expires_after=timedelta(minutes=5),
        max_requests_per_1_minute=20,
        file_upload={"max_file_size": 16, "max_files": 3},
        history={"recent_threads": 5},
        automatic_thread_titling=False,
    )

    assert session.workflow is not None
    assert session.workflow.version == "3"
    assert session.workflow.state_variables == {
        "plan": "pro",
        "seats": 4,
        "ratio": 0.5,
        "trial": True,
    }
    assert session.max_requests_per_1_minute == 20
    kept = fake.sessions[session.id]
    assert kept.expires_at - kept.created_at == timedelta(minutes=5)


@pytest.mark.parametrize("status_code", [400, 401, 403, 404, 405, 422])
@pytest.mark.parametrize("body", [None, "<h1>No</h1>"], ids=["envelope", "HTML"])
def test_a_refused_refresh_leads_to_a_new_session(
    chatkit: ChatKitClient, fake: FakeChatKit, status_code: int, body: str | None
) -> None:
    session = chatkit.create_session("user_123")
    fake.fail_next(status_code, body=body, operation="refresh")

    refreshed = chatkit.refresh_session(session.client_secret, user="user_123")

    assert refreshed.client_secret != session.client_secret
    fake.assert_created(user="user_123", times=2)


@pytest.mark.parametrize("body", ["<h1>Please log in</h1>", "", "null"])
def test_a_refresh_that_answers_nonsense_leads_to_a_new_session(
    chatkit: ChatKitClient, fake: FakeChatKit, body: str
) -> None:
    session = chatkit.create_session("user_123")
    fake.fail_next(200, body=body, operation="refresh")

    chatkit.refresh_session(session.client_secret, user="user_123")

    fake.assert_created(user="user_123", times=2)


@pytest.mark.parametrize(
    ("status_code", "error"), [(429, RateLimitError), (500, InternalServerError)]
)
def test_a_refresh_that_may_work_later_is_tried_again_and_then_raised(
    chatkit: ChatKitClient,
    fake: FakeChatKit,
    time: Time,
    status_code: int,
    error: type[APIStatusError],
) -> None:
    session = chatkit.create_session("user_123")
    fake.fail_next(status_code, operation="refresh", times=3)

    with pytest.raises(error):
        chatkit.refresh_session(session.client_secret, user="user_123")

    assert time.sleeps == [0.5, 1.0]
    fake.assert_created(user="user_123", times=1)


def test_a_missing_refresh_route_is_asked_for_once(
    chatkit: ChatKitClient, fake: FakeChatKit
) -> None:
    fake.refresh_route = False
    session = chatkit.create_session("user_123")

    for _ in range(3):
        session = chatkit.refresh_session(session.client_secret, user="user_123")

    asked = [request.path for request in fake.requests if request.path.endswith("/refresh")]
    assert len(asked) == 1


@pytest.mark.parametrize("read_route", [True, False])
def test_get_follows_a_session_through_its_life(
    chatkit: ChatKitClient, fake: FakeChatKit, *, read_route: bool
) -> None:
    fake.read_route = read_route
    session = chatkit.create_session("user_123")

    before = chatkit.get_session(session.id)
    chatkit.delete_session(session.id)
    after = chatkit.get_session(session.id)

    assert (before.id, before.user, before.source) == (
        session.id,
        "user_123",
        "api" if read_route else "record",
    )
    assert after.status == "cancelled"


@pytest.mark.parametrize(
    ("read_route", "error"), [(True, SessionNotFoundError), (False, SessionNotRecordedError)]
)
def test_get_of_a_session_that_never_was(
    chatkit: ChatKitClient, fake: FakeChatKit, error: type[Exception], *, read_route: bool
) -> None:
    fake.read_route = read_route

    with pytest.raises(error):
        chatkit.get_session("cksess_" + "0" * 48)


def test_delete_of_a_session_that_never_was(chatkit: ChatKitClient) -> None:
    chatkit.delete_session("cksess_" + "0" * 48, missing_ok=True)
    with pytest.raises(SessionNotFoundError):
        chatkit.delete_session("cksess_" + "0" * 48)
    with pytest.raises(BadRequestError, match="begins with `cksess`"):
        chatkit.delete_session("session_1", missing_ok=True)


def test_a_secret_that_has_ended_gives_a_new_session(
    chatkit: ChatKitClient, fake: FakeChatKit
) -> None:
    session = chatkit.create_session("user_123", expires_after=1)
    fake.clock.advance(seconds=2)

    refreshed = chatkit.refresh_session(session.client_secret, user="user_123")

    assert fake.sessions[refreshed.id].status == "active"


@pytest.mark.parametrize(
    ("status_code", "code", "error"),
    [
        (400, "invalid_beta", BetaNotAvailableError),
        (403, "invalid_beta", BetaNotAvailableError),
        (422, None, UnprocessableEntityError),
    ],
)
def test_errors_arrive_as_what_they_are(
    chatkit: ChatKitClient,
    fake: FakeChatKit,
    status_code: int,
    code: str | None,
    error: type[APIStatusError],
) -> None:
    fake.fail_next(status_code, code=code)

    with pytest.raises(error) as caught:
        chatkit.create_session("user_123")

    assert caught.value.status_code == status_code
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")
