"""What users meet when the API refuses, over both clients: the class, the facts, the hint."""

import ssl
from typing import cast

import httpx
import httpx2
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BetaNotAvailableError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    WorkflowNotFoundError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import BASE_URL, WAYS, Connect, Script, Way, invalid_url, refused


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return cast("Way", request.param)


def test_an_invalid_key_is_named_with_where_to_find_a_valid_one(
    connect: Connect, server: FakeServer
) -> None:
    chatkit = connect(api_key="sk-wrong-0123456789", base_url=server.url)

    with pytest.raises(AuthenticationError) as caught:
        chatkit.create_session("user_123")

    error = caught.value
    assert error.status_code == 401
    assert error.error is not None
    assert error.error.code == "invalid_api_key"
    assert "OPENAI_API_KEY" in str(error)
    assert "https://platform.openai.com/api-keys" in str(error)


def test_an_unknown_workflow_is_named_with_its_usual_causes(
    connect: Connect, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url, workflow_id="wf_elsewhere")

    with pytest.raises(WorkflowNotFoundError) as caught:
        chatkit.create_session("user_123")

    text = str(caught.value)
    assert text.startswith("404: Workflow with id 'wf_elsewhere' not found. (request id req_")
    for cause in ("published", "active", "same project", "2026-11-30", "OPENAI_BASE_URL"):
        assert cause in text


@pytest.mark.parametrize("status_code", [400, 403, 404])
def test_a_missing_beta_is_named_whatever_the_status(connect: Connect, status_code: int) -> None:
    answer = refused(status_code, "You must provide the header.", code="invalid_beta")

    with pytest.raises(BetaNotAvailableError, match="chatkit_beta=v1") as caught:
        connect(Script([answer])).create_session("user_123")

    assert isinstance(caught.value, BadRequestError) == (status_code == 400)


@pytest.mark.parametrize(
    ("answer", "error", "advice"),
    [
        (
            refused(401, "Missing bearer or basic authentication in header"),
            AuthenticationError,
            "proxy",
        ),
        (
            refused(401, "You have insufficient permissions. Missing scopes: x"),
            AuthenticationError,
            "write access to ChatKit",
        ),
        (
            refused(403, "Missing scopes: api.chatkit.write"),
            PermissionDeniedError,
            "write access to ChatKit",
        ),
        (refused(401, code="mismatched_project"), AuthenticationError, "OPENAI_PROJECT_ID"),
        (refused(403, code="mismatched_project"), PermissionDeniedError, "OPENAI_PROJECT_ID"),
        (
            refused(403, code="unsupported_country_region_territory"),
            PermissionDeniedError,
            "region",
        ),
        (refused(401), AuthenticationError, "OPENAI_API_KEY"),
        (refused(403), PermissionDeniedError, "permissions"),
        (refused(400, "Missing required parameter: 'user'."), BadRequestError, "newer version"),
        (
            refused(400, "Invalid type for 'user': expected a string, but got an object instead."),
            BadRequestError,
            "never an object",
        ),
        (refused(400, "Unknown parameter: 'scope'"), BadRequestError, "Omit that option"),
        (
            refused(400, "Invalid 'session_id': 'x'. Expected an ID that begins with 'cksess'."),
            BadRequestError,
            "begins with `cksess`",
        ),
        (refused(400), BadRequestError, "names the argument"),
        (invalid_url, NotFoundError, "chatkit.test has no such route"),
        (refused(404, "Not here."), NotFoundError, "chatkit.test"),
        (refused(409), ConflictError, "chatkit.test"),
        (refused(422), UnprocessableEntityError, "names the argument"),
        (refused(429), RateLimitError, "retry_after"),
        (refused(500, "The server had an error"), InternalServerError, "status.openai.com"),
        (refused(418), APIStatusError, "chatkit.test"),
        (httpx.Response(502, html="<h1>Bad gateway</h1>"), InternalServerError, "proxy"),
        (httpx.Response(403, text="Forbidden"), PermissionDeniedError, "proxy"),
        (httpx.Response(404), NotFoundError, "OPENAI_BASE_URL"),
    ],
)
def test_each_trouble_says_what_to_check(
    connect: Connect, answer: httpx.Response, error: type[APIStatusError], advice: str
) -> None:
    with pytest.raises(APIStatusError) as caught:
        connect(Script([answer]), max_retries=0).create_session("user_123")

    assert type(caught.value) is error
    assert advice in caught.value.hint
    assert caught.value.hint in str(caught.value)


def test_an_error_carries_what_a_handler_needs(connect: Connect) -> None:
    answer = refused(
        429, "Slow down.", code="rate_limit_exceeded", headers={"retry-after-ms": "1500"}
    )

    with pytest.raises(RateLimitError) as caught:
        connect(Script([answer]), max_retries=0).create_session("user_123")

    error = caught.value
    assert (error.status_code, error.request_id, error.retry_after) == (429, "req_failure", 1.5)
    assert error.message == "Slow down."
    assert error.error is not None
    assert (error.error.code, error.error.type) == ("rate_limit_exceeded", "invalid_request_error")
    assert error.body == {
        "error": {
            "message": "Slow down.",
            "type": "invalid_request_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }


def test_a_redirect_is_not_followed_but_told(connect: Connect) -> None:
    target = "https://elsewhere.test/v1/chatkit/sessions?token=abc#top"
    script = Script([httpx.Response(307, headers={"location": target})])

    with pytest.raises(APIStatusError) as caught:
        connect(script, http_options={"follow_redirects": True}).create_session("user_123")

    assert len(script.requests) == 1
    assert "https://elsewhere.test/v1/chatkit/sessions" in str(caught.value)
    assert "token=abc" not in str(caught.value)


def test_a_redirect_in_the_apis_envelope_is_told_as_one(connect: Connect) -> None:
    answer = refused(308, "Moved.", headers={"location": "https://elsewhere.test/v1"})

    with pytest.raises(APIStatusError, match=r"A redirect to https://elsewhere\.test/v1") as caught:
        connect(Script([answer])).create_session("user_123")

    assert "not followed" in caught.value.hint


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (httpx.ConnectError("Connection refused"), APIConnectionError),
        (httpx.ReadError(""), APIConnectionError),
        (httpx.RemoteProtocolError("Server disconnected"), APIConnectionError),
        (httpx.ConnectTimeout("timed out"), APITimeoutError),
        (httpx.ReadTimeout(""), APITimeoutError),
        (ssl.SSLError(1, "certificate verify failed"), APIConnectionError),
        (ConnectionResetError(104, "Connection reset by peer"), APIConnectionError),
        (httpx.DecodingError("broken gzip"), APIConnectionError),
    ],
)
def test_no_answer_is_a_connection_error_that_names_the_host_and_keeps_its_cause(
    connect: Connect, trouble: Exception, error: type[APIConnectionError]
) -> None:
    with pytest.raises(APIConnectionError) as caught:
        connect(Script([trouble]), max_retries=0).create_session("user_123")

    assert type(caught.value) is error
    assert "chatkit.test" in str(caught.value)
    assert type(trouble).__name__ in str(caught.value)
    cause = caught.value.__cause__
    if isinstance(cause, httpx2.RequestError):  # the same error, as httpx2 has it
        assert (type(cause).__name__, str(cause)) == (type(trouble).__name__, str(trouble))
    else:
        assert cause is trouble


def test_the_cause_no_longer_holds_the_request_with_the_key(connect: Connect) -> None:
    with pytest.raises(APIConnectionError) as caught:
        connect(Script([httpx.ConnectError("refused")]), max_retries=0).create_session("user_123")

    cause = caught.value.__cause__
    assert isinstance(cause, httpx.ConnectError | httpx2.ConnectError)
    family = httpx if isinstance(cause, httpx.ConnectError) else httpx2
    assert isinstance(cause.request, family.Request)
    assert str(cause.request.url) == f"{BASE_URL}/chatkit/sessions"
    assert "authorization" not in cause.request.headers
    assert cause.request.content == b""
    assert cause.__traceback__ is None


def test_nobody_listening_is_a_connection_error(connect: Connect, fake: FakeChatKit) -> None:
    with fake.serve() as server:
        gone = server.url
    chatkit = connect(base_url=gone, max_retries=0)

    with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1"):
        chatkit.create_session("user_123")
