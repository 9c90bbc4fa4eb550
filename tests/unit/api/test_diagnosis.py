"""Every error that the API is known to give gets its class and a hint that names what to check."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions._api.diagnosis import (
    Diagnosis,
    diagnose,
    ended_status,
    is_route_missing,
)
from chatkit_sessions.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BetaNotAvailableBadRequestError,
    BetaNotAvailableError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionNotFoundError,
    UnprocessableEntityError,
    WorkflowNotFoundError,
)
from chatkit_sessions.models import ChatKitErrorDetail

HOST = "gateway.example:8443"

BETA = "OpenAI-Beta: chatkit_beta=v1"
KEY = "OPENAI_API_KEY"
BASE_URL = "OPENAI_BASE_URL"
WORKFLOW = "OPENAI_CHATKIT_WORKFLOW_ID"
PROJECT = "OPENAI_PROJECT_ID"


def detail(
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    kind: str = "invalid_request_error",
) -> ChatKitErrorDetail:
    return ChatKitErrorDetail(message=message, type=kind, code=code, param=param)


NO_BETA = "You must provide the 'OpenAI-Beta' header to access the Chatkit API."
WRONG_KEY = "Incorrect API key provided: sk-***. You can find your API key at …"


@pytest.mark.parametrize(
    ("status", "error", "error_class", "names"),
    [
        pytest.param(
            401,
            detail(WRONG_KEY, code="invalid_api_key"),
            AuthenticationError,
            [KEY, "`api_key`", HOST],
            id="wrong-key",
        ),
        pytest.param(401, detail(WRONG_KEY), AuthenticationError, [KEY], id="wrong-key-by-text"),
        pytest.param(
            413,
            detail("The request body is longer than 65536 bytes."),
            APIStatusError,
            ["`state_variables`", "64 KiB", HOST],
            id="too-large",
        ),
        pytest.param(
            413, None, APIStatusError, ["`state_variables`", HOST], id="too-large-for-a-proxy"
        ),
        pytest.param(
            401,
            detail("Schlüssel ungültig", code="invalid_api_key"),
            AuthenticationError,
            ["mistyped, revoked", KEY],
            id="wrong-key-by-code",
        ),
        pytest.param(
            401,
            detail("Missing bearer or basic authentication in header"),
            AuthenticationError,
            ["Authorization header", HOST],
            id="no-key",
        ),
        pytest.param(
            400,
            detail(NO_BETA, code="invalid_beta"),
            BetaNotAvailableBadRequestError,
            [BETA, HOST],
            id="no-beta",
        ),
        pytest.param(400, detail(NO_BETA), BetaNotAvailableBadRequestError, [BETA], id="beta-text"),
        pytest.param(
            400,
            detail("no", code="invalid_beta"),
            BetaNotAvailableBadRequestError,
            [BETA],
            id="beta-code",
        ),
        pytest.param(
            403, detail("no", code="invalid_beta"), BetaNotAvailableError, [BETA], id="b3"
        ),
        pytest.param(
            404, detail("no", code="invalid_beta"), BetaNotAvailableError, [BETA], id="b4"
        ),
        pytest.param(
            400,
            detail(
                "Missing required parameter: 'user'.",
                param="user",
                code="missing_required_parameter",
            ),
            BadRequestError,
            ["requires a parameter", HOST],
            id="missing-field",
        ),
        pytest.param(
            400,
            detail("Invalid type for 'user': expected a string, but got an object instead."),
            BadRequestError,
            ["`user` is a string", "never an object"],
            id="user-an-object",
        ),
        pytest.param(
            400,
            detail("Unknown parameter: 'scope'."),
            BadRequestError,
            ["does not know a parameter", "Omit that option"],
            id="unknown-field",
        ),
        pytest.param(
            404,
            detail("Workflow with id 'wf_1' not found."),
            WorkflowNotFoundError,
            [WORKFLOW, "same project and organization", "2026-11-30", BASE_URL],
            id="workflow-unknown",
        ),
        pytest.param(
            404,
            detail("Workflow with id 'wf_session' not found."),
            WorkflowNotFoundError,
            [WORKFLOW],
            id="workflow-with-session-in-its-id",
        ),
        pytest.param(
            404,
            detail("Workflow with id 'my session' not found."),
            WorkflowNotFoundError,
            [WORKFLOW],
            id="workflow-with-session-as-a-word-of-its-id",
        ),
        pytest.param(
            400,
            detail(
                "Invalid 'session_id': 'x'. Expected an ID that begins with 'cksess'.",
                param="session_id",
                code="invalid_value",
            ),
            BadRequestError,
            ["`cksess`", "`session.id`", "not the client secret"],
            id="malformed-session-id",
        ),
        pytest.param(
            404,
            detail("Chatkit Session with id 'cksess_1' not found."),
            SessionNotFoundError,
            ["`cksess_…`", "same project"],
            id="session-unknown-straight-quotes",
        ),
        pytest.param(
            404,
            detail("Chatkit Session with id \u2018cksess_1\u2019 not found."),
            SessionNotFoundError,
            ["`cksess_…`"],
            id="session-unknown-curly-quotes",
        ),
        pytest.param(
            404,
            detail("Chatkit Session with id 'workflow' not found."),
            SessionNotFoundError,
            ["`cksess_…`"],
            id="session-with-workflow-in-its-id",
        ),
        pytest.param(
            404,
            detail("Invalid URL (POST /v1/chatkit/sessions/refresh)"),
            NotFoundError,
            [f"{HOST} has no such route", BASE_URL, "`/v1`"],
            id="route-unknown",
        ),
        pytest.param(
            404,
            detail("Invalid URL (POST /v1/workflow/session not found)"),
            NotFoundError,
            ["no such route"],
            id="route-that-holds-the-words-of-other-cases",
        ),
        pytest.param(
            404,
            detail("Invalid method for URL (GET /v1/chatkit/sessions/x)"),
            NotFoundError,
            ["no such route"],
            id="verb-unknown-404",
        ),
        pytest.param(
            405,
            detail("Invalid method for URL (GET /v1/chatkit/sessions/x)"),
            APIStatusError,
            ["no such route", HOST],
            id="verb-unknown-405",
        ),
        pytest.param(404, detail("Nothing here"), NotFoundError, ["ids", BASE_URL, HOST], id="404"),
        pytest.param(
            401,
            detail("You have insufficient permissions. Missing scopes: api.x.write."),
            AuthenticationError,
            ["restricted", "write access to ChatKit"],
            id="missing-scope-401",
        ),
        pytest.param(
            403,
            detail("You have insufficient permissions. Missing scopes: api.x.write."),
            PermissionDeniedError,
            ["restricted", "write access to ChatKit"],
            id="missing-scope-403",
        ),
        pytest.param(
            401,
            detail("no", code="mismatched_project"),
            AuthenticationError,
            [PROJECT, "OPENAI_ORG_ID"],
            id="mismatched-project-401",
        ),
        pytest.param(
            403,
            detail("no", code="mismatched_project"),
            PermissionDeniedError,
            [PROJECT, "OPENAI_ORG_ID"],
            id="mismatched-project-403",
        ),
        pytest.param(
            403,
            detail("no", code="unsupported_country_region_territory"),
            PermissionDeniedError,
            ["country or region"],
            id="region",
        ),
        pytest.param(401, detail("no"), AuthenticationError, [KEY, HOST], id="401"),
        pytest.param(403, detail("no"), PermissionDeniedError, ["permissions"], id="403"),
        pytest.param(
            429, detail("Slow down"), RateLimitError, ["`retry_after`", "limits"], id="rate-limit"
        ),
        pytest.param(
            500,
            detail(
                "The server had an error while processing your request. Sorry about that!",
                kind="server_error",
            ),
            InternalServerError,
            ["server's side", HOST, "request id"],
            id="server-fault",
        ),
        pytest.param(503, detail("no"), InternalServerError, ["server's side"], id="503"),
        pytest.param(599, detail("no"), InternalServerError, ["server's side"], id="599"),
        pytest.param(400, detail("no"), BadRequestError, ["argument to change"], id="400"),
        pytest.param(422, detail("no"), UnprocessableEntityError, ["argument to change"], id="422"),
        pytest.param(
            422,
            detail("Unknown parameter: 'x'."),
            UnprocessableEntityError,
            ["Omit that option"],
            id="422-unknown-field",
        ),
        pytest.param(409, detail("no"), ConflictError, [HOST, "message"], id="409"),
        pytest.param(418, detail("no"), APIStatusError, [HOST, "message"], id="418"),
        pytest.param(302, detail("no"), APIStatusError, [HOST], id="302-with-envelope"),
        pytest.param(502, None, InternalServerError, ["in front", "proxy", BASE_URL], id="html"),
        pytest.param(401, None, AuthenticationError, ["in front", HOST], id="html-401"),
        pytest.param(404, None, NotFoundError, ["in front", HOST, BASE_URL], id="html-404"),
        pytest.param(405, None, APIStatusError, ["in front", HOST], id="html-405"),
        pytest.param(429, None, RateLimitError, ["in front", HOST], id="html-429"),
        pytest.param(301, None, APIStatusError, ["Redirects", BASE_URL, HOST], id="redirect"),
        pytest.param(399, None, APIStatusError, ["Redirects"], id="399"),
    ],
)
def test_a_known_case_gets_its_class_and_a_hint_that_names_what_to_check(
    status: int, error: ChatKitErrorDetail | None, error_class: type, names: list[str]
) -> None:
    diagnosis = diagnose(status, error, host=HOST)

    assert diagnosis.error_type is error_class
    for name in names:
        assert name in diagnosis.hint
    assert "{" not in diagnosis.hint
    assert "}" not in diagnosis.hint
    assert diagnosis.hint.endswith(".")


class TestTheEndOfHostedWorkflows:
    """What OpenAI's API may say after 2026-11-30; the Assistants API's routes returned 404."""

    @pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com", "API.openai.com:443"])
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (404, detail("Invalid URL (POST /v1/chatkit/sessions)")),
            (404, None),
            (405, detail("Invalid method for URL (POST /v1/chatkit/sessions)")),
            (410, None),
            (410, detail("Gone.")),
            (400, detail("Hosted workflows have been deprecated.")),
            (403, detail("Agent Builder is no longer available.")),
            (404, detail("This product was shut down.")),
        ],
    )
    def test_is_named_with_what_takes_their_place(
        self, status: int, error: ChatKitErrorDetail | None, host: str
    ) -> None:
        diagnosis = diagnose(status, error, host=host)

        assert diagnosis.hint.startswith("Hosted workflows (`wf_…`) ended on 2026-11-30")
        assert "`chatkit_sessions.service`" in diagnosis.hint
        assert diagnosis.error_type is diagnose(status, error, host=HOST).error_type
        assert "2026-11-30" not in diagnose(status, error, host=HOST).hint

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, None),
            (404, detail("Workflow with id 'wf_1' not found.")),
            (400, detail("Parameter 'history' is deprecated.", param="history")),
            (429, detail("No longer available this minute.")),
            (500, detail("We shut down for a moment.")),
            (502, None),
            (301, None),
        ],
    )
    def test_is_not_seen_in_other_errors(
        self, status: int, error: ChatKitErrorDetail | None
    ) -> None:
        hint = diagnose(status, error, host="api.openai.com").hint

        assert "ended" not in hint

    @pytest.mark.parametrize(
        "host", ["api.openai.com.proxy.example", "notapi.openai.com", "openai.com"]
    )
    def test_is_not_what_another_host_speaks_of(self, host: str) -> None:
        assert "OPENAI_BASE_URL" in diagnose(404, None, host=host).hint
        assert "ended" not in diagnose(404, None, host=host).hint


def test_a_host_that_holds_braces_is_named_as_it_is() -> None:
    assert "{0}{host}" in diagnose(404, None, host="{0}{host}").hint


TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                *("workflow", "Session", "not found", "is", "already", "been", "expired"),
                *("cancelled", "Invalid URL", "Missing scopes", "{", "}", "{host}", "{0}", "%s"),
                *("'", "\n", " "),
            ]
        ),
        max_size=30,
    ).map(" ".join),
)


@given(
    st.integers(300, 599),
    st.none()
    | st.builds(
        ChatKitErrorDetail,
        message=TEXTS,
        type=st.text(),
        param=st.none() | st.text(),
        code=st.none() | st.text() | st.sampled_from(["invalid_beta", "invalid_api_key"]),
    ),
)
def test_any_answer_gets_a_diagnosis(status: int, error: ChatKitErrorDetail | None) -> None:
    diagnosis = diagnose(status, error, host=HOST)

    assert isinstance(diagnosis, Diagnosis)
    assert issubclass(diagnosis.error_type, APIStatusError)
    assert diagnosis.hint
    assert "{" not in diagnosis.hint
    assert is_route_missing(status, error) in {True, False}
    assert ended_status(status, error) in {None, "expired", "cancelled"}


@contextmanager
def at_most(seconds: float) -> Generator[None]:
    """End what computes for longer than that: a regular expression would for hours."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)  # the time of this process, not of the clock
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    "text",
    [
        "session " * 4_000 + "already " * 4_000,
        "session " * 8_000,
        "session is" + " " * 60_000,
        "session is " + "been " * 12_000,
        "workflow " * 7_000,
        "workflow session not " * 3_000,
    ],
    ids=["session-already", "session", "spaces", "been", "workflow", "nearly-not-found"],
)
@pytest.mark.parametrize("status", [400, 404])
def test_a_long_message_is_read_in_no_time(status: int, text: str) -> None:
    with at_most(1.0):
        diagnose(status, detail(text), host=HOST)
        ended_status(status, detail(text))


class TestRouteMissing:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (404, detail("Invalid URL (POST /v1/chatkit/sessions/refresh)")),
            (404, detail("invalid url (POST /v1)")),
            (404, detail("Invalid method for URL (GET /v1/chatkit/sessions/x)")),
            (405, detail("Invalid method for URL (GET /v1/chatkit/sessions/x)")),
            (405, detail("anything")),
            (405, None),
        ],
    )
    def test_said_for_good(self, status: int, error: ChatKitErrorDetail | None) -> None:
        assert is_route_missing(status, error)

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (404, None),
            (404, detail("Not Found")),
            (404, detail("Workflow with id 'Invalid URL' not found.")),
            (404, detail("Chatkit Session with id 'x' not found.")),
            (404, detail("Invalid URLs")),
            (400, detail("Invalid URL (POST /v1)")),
            (403, detail("Invalid URL (POST /v1)")),
            (500, detail("Invalid method for URL (GET /v1)")),
        ],
    )
    def test_not_said(self, status: int, error: ChatKitErrorDetail | None) -> None:
        assert not is_route_missing(status, error)


class TestSessionEnded:
    @pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
    @pytest.mark.parametrize(
        ("message", "ended"),
        [
            ("Chatkit Session with id 'cksess_1' is already cancelled.", "cancelled"),
            ("Session already canceled", "cancelled"),
            ("The session has already been cancelled.", "cancelled"),
            ("Session cksess_1 was cancelled", "cancelled"),
            ("Chatkit Session with id 'cksess_1' has expired.", "expired"),
            ("SESSION IS ALREADY EXPIRED", "expired"),
            ("Cannot cancel session 'x':\nit has already expired.", "expired"),
        ],
    )
    def test_said(self, status: int, message: str, ended: str) -> None:
        assert ended_status(status, detail(message)) == ended

    @pytest.mark.parametrize(
        "message",
        [
            "Chatkit Session with id 'cksess_1' not found.",
            "Chatkit Session with id 'expired' not found.",
            "Session cannot be cancelled",
            "Session 'x' is not cancelled",
            "Session x is not expired",
            "The request was cancelled",
            "Your plan has expired",
            "Obsessions are already expired",
            "",
        ],
    )
    def test_not_said(self, message: str) -> None:
        assert ended_status(400, detail(message)) is None

    @pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502])
    def test_not_taken_from_a_status_that_means_something_else(self, status: int) -> None:
        assert ended_status(status, detail("Session is already expired")) is None

    def test_not_taken_from_an_answer_without_envelope(self) -> None:
        assert ended_status(400, None) is None

    @pytest.mark.parametrize(
        "message",
        [
            "The session cannot be cancelled because your API key has expired.",
            "Your session token has expired.",
            "The session cookie is expired",
        ],
    )
    def test_what_else_may_expire_is_no_session(self, message: str) -> None:
        assert ended_status(400, detail(message)) is None
