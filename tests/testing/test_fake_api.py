"""What the local API answers, request by request."""

from __future__ import annotations

import json
import re
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions.testing import FakeChatKit, FakeClock, fake_api
from chatkit_sessions.testing.wire import FakeResponse, Headers, ServiceRequest

if TYPE_CHECKING:
    from chatkit_sessions.testing import FakeSession

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SESSIONS = "/v1/chatkit/sessions"
AUTHORIZED = {"authorization": "Bearer sk-test", "openai-beta": "chatkit_beta=v1"}
MINIMAL: dict[str, Any] = {"user": "alice", "workflow": {"id": "wf_test"}}
SECRET = "ek_very_secret"


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit(read_route=True, clock=FakeClock(NOON))


def ask(
    fake: FakeChatKit,
    path: str = SESSIONS,
    content: object = None,
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> FakeResponse:
    """Send a request whose body is `content`: bytes as they are, None for none, else JSON."""
    match content:
        case None:
            body = b""
        case bytes():
            body = content
        case _:
            body = json.dumps(content).encode()
    fields = AUTHORIZED if headers is None else headers
    return fake.handle(ServiceRequest(method, path, Headers(fields.items()), body))


def read(response: FakeResponse) -> dict[str, Any]:
    """Return the object in a successful answer."""
    assert response.status_code == 200, response.body
    content: dict[str, Any] = json.loads(response.body)
    return content


def error(response: FakeResponse) -> dict[str, Any]:
    """Return the inner error of an answer in the API's envelope."""
    content: dict[str, Any] = json.loads(response.body)
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    inner: dict[str, Any] = content["error"]
    return inner


def create(fake: FakeChatKit, user: str = "alice") -> FakeSession:
    created = read(ask(fake, content=MINIMAL | {"user": user}))
    return fake.sessions[created["id"]]


def refresh(fake: FakeChatKit, client_secret: str) -> FakeResponse:
    return ask(fake, f"{SESSIONS}/refresh", {"client_secret": client_secret})


class TestEveryAnswer:
    def test_carries_a_request_id_of_its_own(self, fake: FakeChatKit) -> None:
        first, second = ask(fake, content=MINIMAL), ask(fake, "/v1/nothing")

        assert re.fullmatch("req_[0-9a-f]{32}", first.headers["x-request-id"])
        assert first.headers["x-request-id"] != second.headers["x-request-id"]

    def test_is_json_of_a_stated_length(self, fake: FakeChatKit) -> None:
        response = ask(fake, content=MINIMAL)

        assert response.headers["content-type"] == "application/json"
        assert response.headers["content-length"] == str(len(response.body))

    def test_is_dated_by_the_clock(self, fake: FakeChatKit) -> None:
        fake.clock.advance(days=1, seconds=5)

        assert ask(fake).headers["date"] == "Mon, 02 Mar 2026 12:00:05 GMT"

    def test_to_head_has_no_body(self, fake: FakeChatKit) -> None:
        response = ask(fake, method="HEAD")

        assert (response.status_code, response.body) == (405, b"")
        assert int(response.headers["content-length"]) > 0


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path", "status_code", "message"),
        [
            ("POST", "/v1/chatkit", 404, "Invalid URL (POST /v1/chatkit)"),
            ("POST", "/chatkit/sessions", 404, "Invalid URL (POST /chatkit/sessions)"),
            ("POST", f"{SESSIONS}/", 404, f"Invalid URL (POST {SESSIONS}/)"),
            ("POST", f"{SESSIONS}//cancel", 404, f"Invalid URL (POST {SESSIONS}//cancel)"),
            ("POST", f"{SESSIONS}/a/b?q=1", 404, f"Invalid URL (POST {SESSIONS}/a/b)"),
            ("GET", SESSIONS, 405, f"Invalid method for URL (GET {SESSIONS})"),
            (
                "DELETE",
                f"{SESSIONS}/cksess_1",
                405,
                f"Invalid method for URL (DELETE {SESSIONS}/cksess_1)",
            ),
            (
                "GET",
                f"{SESSIONS}/refresh",
                405,
                f"Invalid method for URL (GET {SESSIONS}/refresh)",
            ),
            (
                "GET",
                f"{SESSIONS}/cksess_1/cancel",
                405,
                f"Invalid method for URL (GET {SESSIONS}/cksess_1/cancel)",
            ),
        ],
    )
    def test_that_are_not_there(
        self, fake: FakeChatKit, method: str, path: str, status_code: int, message: str
    ) -> None:
        response = ask(fake, path, method=method, headers={})

        assert response.status_code == status_code
        assert error(response) == {
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }

    def test_refresh_can_be_switched_off(self, fake: FakeChatKit) -> None:
        session = create(fake)
        fake.refresh_route = False

        response = refresh(fake, session.client_secret)

        assert response.status_code == 404
        assert error(response)["message"] == f"Invalid URL (POST {SESSIONS}/refresh)"

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_one_session_has_no_url_while_reading_is_off(
        self, fake: FakeChatKit, method: str
    ) -> None:
        session = create(fake)
        fake.read_route = False

        response = ask(fake, f"{SESSIONS}/{session.id}", method=method)

        assert response.status_code == 404
        assert error(response)["message"] == f"Invalid URL ({method} {SESSIONS}/{session.id})"

    def test_only_the_contract_s_are_there_by_default_besides_refresh(self) -> None:
        fake = FakeChatKit()

        assert (fake.refresh_route, fake.read_route) == (True, False)


class TestKey:
    @pytest.mark.parametrize(
        "authorization", [None, "", "Bearer", "Bearer  ", "Basic c2stdGVzdA=="]
    )
    def test_missing(self, fake: FakeChatKit, authorization: str | None) -> None:
        headers = {} if authorization is None else {"authorization": authorization}

        response = ask(fake, content=MINIMAL, headers=headers)

        assert response.status_code == 401
        assert error(response)["message"] == "Missing bearer or basic authentication in header"

    @pytest.mark.parametrize(
        ("api_key", "masked"),
        [
            ("sk-abcdefwxyz", "sk-ab****wxyz"),
            ("sk-abcdefghijwxyz", "sk-ab********wxyz"),
            ("sk-abcdewxyz", "************"),
            ("x", "*"),
        ],
    )
    def test_wrong_is_shown_by_its_ends_only(
        self, fake: FakeChatKit, api_key: str, masked: str
    ) -> None:
        headers = AUTHORIZED | {"authorization": f"Bearer {api_key}"}

        response = ask(fake, content=MINIMAL, headers=headers)

        assert response.status_code == 401
        assert error(response) == {
            "message": f"Incorrect API key provided: {masked}. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }

    def test_scheme_may_be_written_in_any_case(self, fake: FakeChatKit) -> None:
        headers = AUTHORIZED | {"authorization": "bearer sk-test"}

        assert ask(fake, content=MINIMAL, headers=headers).status_code == 200


class TestBetaHeader:
    @pytest.mark.parametrize("beta", [None, "", "chatkit_beta=v2", "assistants=v2"])
    def test_is_required(self, fake: FakeChatKit, beta: str | None) -> None:
        headers = {"authorization": "Bearer sk-test"}
        if beta is not None:
            headers["openai-beta"] = beta

        response = ask(fake, content=MINIMAL, headers=headers)

        assert response.status_code == 400
        assert error(response)["code"] == "invalid_beta"
        assert error(response)["message"].startswith(
            "You must provide the 'OpenAI-Beta' header to access the Chatkit API."
        )

    def test_may_name_other_features_as_well(self, fake: FakeChatKit) -> None:
        headers = AUTHORIZED | {"openai-beta": "assistants=v2, chatkit_beta=v1"}

        assert ask(fake, content=MINIMAL, headers=headers).status_code == 200


class TestOrderOfChecks:
    def test_is_route_then_key_then_beta_then_body(self, fake: FakeChatKit) -> None:
        broken = b"{"
        key_only = {"authorization": "Bearer sk-test"}

        messages = [
            error(ask(fake, "/v1/nothing", broken, headers={}))["message"],
            error(ask(fake, content=broken, headers={}))["message"],
            error(ask(fake, content=broken, headers=key_only))["message"],
            error(ask(fake, content=broken))["message"],
        ]

        assert [message.split()[0] for message in messages] == ["Invalid", "Missing", "You", "We"]


class TestCreate:
    def test_with_the_least_answers_the_defaults(self, fake: FakeChatKit) -> None:
        created = read(ask(fake, content=MINIMAL))

        assert re.fullmatch("cksess_[0-9a-f]{48}", created.pop("id"))
        assert re.fullmatch("ek_[0-9a-f]{64}", created.pop("client_secret"))
        assert created == {
            "object": "chatkit.session",
            "expires_at": int(NOON.timestamp()) + 600,
            "workflow": {
                "id": "wf_test",
                "version": None,
                "state_variables": None,
                "tracing": {"enabled": True},
            },
            "user": "alice",
            "rate_limits": {"max_requests_per_1_minute": 10},
            "max_requests_per_1_minute": 10,
            "status": "active",
            "chatkit_configuration": {
                "automatic_thread_titling": {"enabled": True},
                "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
                "history": {"enabled": True, "recent_threads": None},
            },
        }

    def test_with_every_option_answers_them_resolved(self, fake: FakeChatKit) -> None:
        variables = {"text": "é", "whole": 1, "decimal": 1.5, "flag": False}
        created = read(
            ask(
                fake,
                content={
                    "user": "alice",
                    "workflow": {
                        "id": "wf_test",
                        "version": "3",
                        "state_variables": variables,
                        "tracing": {"enabled": False},
                    },
                    "expires_after": {"anchor": "created_at", "seconds": 60},
                    "rate_limits": {"max_requests_per_1_minute": 7},
                    "chatkit_configuration": {
                        "automatic_thread_titling": {"enabled": False},
                        "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 2},
                        "history": {"enabled": False, "recent_threads": 5},
                    },
                },
            )
        )

        assert created["expires_at"] == int(NOON.timestamp()) + 60
        assert created["workflow"] == {
            "id": "wf_test",
            "version": "3",
            "state_variables": variables,
            "tracing": {"enabled": False},
        }
        assert created["rate_limits"] == {"max_requests_per_1_minute": 7}
        assert created["max_requests_per_1_minute"] == 7
        assert created["chatkit_configuration"] == {
            "automatic_thread_titling": {"enabled": False},
            "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 2},
            "history": {"enabled": False, "recent_threads": 5},
        }

    def test_with_uploads_on_answers_their_default_limits(self, fake: FakeChatKit) -> None:
        configuration = {"file_upload": {"enabled": True}}

        created = read(ask(fake, content=MINIMAL | {"chatkit_configuration": configuration}))

        assert created["chatkit_configuration"]["file_upload"] == {
            "enabled": True,
            "max_file_size": 512,
            "max_files": 10,
        }

    def test_takes_empty_option_objects_for_the_defaults(self, fake: FakeChatKit) -> None:
        options: dict[str, Any] = {"rate_limits": {}, "chatkit_configuration": {"history": {}}}

        created = read(ask(fake, content=MINIMAL | options))

        assert created["max_requests_per_1_minute"] == 10
        assert created["chatkit_configuration"]["history"]["enabled"] is True

    def test_takes_a_whole_decimal_for_an_integer(self, fake: FakeChatKit) -> None:
        options = {"expires_after": {"anchor": "created_at", "seconds": 300.0}}

        created = read(ask(fake, content=MINIMAL | options))

        assert created["expires_at"] == int(NOON.timestamp()) + 300

    def test_gives_each_session_its_own_id_and_secret(self, fake: FakeChatKit) -> None:
        first, second = create(fake), create(fake)

        assert first.id != second.id
        assert first.client_secret != second.client_secret

    def test_for_an_unknown_workflow_is_refused(self, fake: FakeChatKit) -> None:
        response = ask(fake, content={"user": "alice", "workflow": {"id": "wf_other"}})

        assert response.status_code == 404
        assert error(response) == {
            "message": "Workflow with id 'wf_other' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b"\xef\xbb\xbf{}",
            b'{"user": NaN}',
            b'{"user": 1e999}',
            b"[" * 99_999,
        ],
        ids=["empty", "cut off", "not UTF-8", "BOM", "NaN", "overflow", "deep"],
    )
    def test_with_malformed_json_is_refused(self, fake: FakeChatKit, body: bytes) -> None:
        response = ask(fake, content=body)

        assert response.status_code == 400
        assert error(response) == {
            "message": "We could not parse the JSON body of your request.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }

    @pytest.mark.parametrize(
        ("content", "param"),
        [
            ({}, "user"),
            ({"user": "alice"}, "workflow"),
            ({"user": "alice", "workflow": {}}, "workflow.id"),
            (MINIMAL | {"expires_after": {"seconds": 60}}, "expires_after.anchor"),
            (MINIMAL | {"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
        ],
    )
    def test_without_a_required_field_is_refused(
        self, fake: FakeChatKit, content: dict[str, Any], param: str
    ) -> None:
        response = ask(fake, content=content)

        assert response.status_code == 400
        assert error(response) == {
            "message": f"Missing required parameter: '{param}'.",
            "type": "invalid_request_error",
            "param": param,
            "code": "missing_required_parameter",
        }

    @pytest.mark.parametrize(
        ("content", "param"),
        [
            (MINIMAL | {"scope": "all"}, "scope"),
            ({"user": "alice", "workflow": {"id": "wf_test", "foo": 1}}, "workflow.foo"),
            (
                MINIMAL | {"chatkit_configuration": {"history": {"limit": 1}}},
                "chatkit_configuration.history.limit",
            ),
        ],
    )
    def test_with_an_unknown_field_is_refused(
        self, fake: FakeChatKit, content: dict[str, Any], param: str
    ) -> None:
        response = ask(fake, content=content)

        assert response.status_code == 400
        assert error(response) == {
            "message": f"Unknown parameter: '{param}'.",
            "type": "invalid_request_error",
            "param": param,
            "code": "unknown_parameter",
        }

    @pytest.mark.parametrize(
        ("content", "param", "expected", "found"),
        [
            (["user"], None, "an object", "an array"),
            (MINIMAL | {"user": {"id": "alice"}}, "user", "a string", "an object"),
            (MINIMAL | {"user": None}, "user", "a string", "null"),
            (MINIMAL | {"user": 7}, "user", "a string", "an integer"),
            (MINIMAL | {"workflow": "wf_test"}, "workflow", "an object", "a string"),
            (
                {"user": "alice", "workflow": {"id": "wf_test", "version": 1.5}},
                "workflow.version",
                "a string",
                "a decimal number",
            ),
            (
                {"user": "alice", "workflow": {"id": "wf_test", "tracing": {"enabled": 1}}},
                "workflow.tracing.enabled",
                "a boolean",
                "an integer",
            ),
            (
                MINIMAL | {"rate_limits": {"max_requests_per_1_minute": True}},
                "rate_limits.max_requests_per_1_minute",
                "an integer",
                "a boolean",
            ),
            (
                MINIMAL | {"rate_limits": {"max_requests_per_1_minute": 1.5}},
                "rate_limits.max_requests_per_1_minute",
                "an integer",
                "a decimal number",
            ),
            (
                {"user": "alice", "workflow": {"id": "wf_test", "state_variables": {"a": []}}},
                "workflow.state_variables.a",
                "a string, a number or a boolean",
                "an array",
            ),
        ],
    )
    def test_with_a_value_of_another_type_is_refused(
        self, fake: FakeChatKit, content: object, param: str | None, expected: str, found: str
    ) -> None:
        response = ask(fake, content=content)

        assert response.status_code == 400
        assert error(response) == {
            "message": f"Invalid type for '{param or 'body'}': expected {expected}, "
            f"but got {found} instead.",
            "type": "invalid_request_error",
            "param": param,
            "code": "invalid_type",
        }

    @pytest.mark.parametrize(
        ("options", "param", "code"),
        [
            ({"user": ""}, "user", "empty_string"),
            (
                {"expires_after": {"anchor": "created_at", "seconds": 0}},
                "expires_after.seconds",
                "integer_below_min_value",
            ),
            (
                {"expires_after": {"anchor": "created_at", "seconds": 601}},
                "expires_after.seconds",
                "integer_above_max_value",
            ),
            (
                {"expires_after": {"anchor": "last_active_at", "seconds": 60}},
                "expires_after.anchor",
                "invalid_value",
            ),
            (
                {"rate_limits": {"max_requests_per_1_minute": 0}},
                "rate_limits.max_requests_per_1_minute",
                "integer_below_min_value",
            ),
            (
                {"chatkit_configuration": {"file_upload": {"max_file_size": 513}}},
                "chatkit_configuration.file_upload.max_file_size",
                "integer_above_max_value",
            ),
            (
                {"chatkit_configuration": {"file_upload": {"max_files": 0}}},
                "chatkit_configuration.file_upload.max_files",
                "integer_below_min_value",
            ),
            (
                {"chatkit_configuration": {"history": {"recent_threads": -1}}},
                "chatkit_configuration.history.recent_threads",
                "integer_below_min_value",
            ),
        ],
    )
    def test_with_a_value_out_of_bounds_is_refused(
        self, fake: FakeChatKit, options: dict[str, Any], param: str, code: str
    ) -> None:
        response = ask(fake, content=MINIMAL | options)

        assert response.status_code == 400
        assert (error(response)["param"], error(response)["code"]) == (param, code)

    @pytest.mark.parametrize(
        ("variables", "accepted"),
        [
            ({f"name{number}": number for number in range(64)}, True),
            ({f"name{number}": number for number in range(65)}, False),
            ({"x" * 64: 1}, True),
            ({"x" * 65: 1}, False),
            ({"text": "x" * 10_485_760}, True),
            ({"text": "x" * 10_485_761}, False),
        ],
        ids=["64 names", "65 names", "64 letters", "65 letters", "10 MiB", "more than 10 MiB"],
    )
    def test_bounds_state_variables(
        self, fake: FakeChatKit, variables: dict[str, Any], *, accepted: bool
    ) -> None:
        workflow = {"id": "wf_test", "state_variables": variables}

        response = ask(fake, content={"user": "alice", "workflow": workflow})

        assert response.status_code == (200 if accepted else 400)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": 601}},
                (
                    "Invalid 'expires_after.seconds': integer above maximum value. "
                    "Expected a value <= 600, but got 601 instead."
                ),
            ),
            (
                MINIMAL | {"expires_after": {"anchor": "now", "seconds": 1}},
                "Invalid value: 'now'. Supported values are: 'created_at'.",
            ),
        ],
    )
    def test_says_what_it_expected(
        self, fake: FakeChatKit, content: dict[str, Any], message: str
    ) -> None:
        assert error(ask(fake, content=content))["message"] == message


class TestCancel:
    def test_answers_the_session_without_its_secret(self, fake: FakeChatKit) -> None:
        created = read(ask(fake, content=MINIMAL))

        cancelled = read(ask(fake, f"{SESSIONS}/{created['id']}/cancel"))

        assert cancelled == created | {"status": "cancelled", "client_secret": ""}

    def test_twice_is_no_error(self, fake: FakeChatKit) -> None:
        path = f"{SESSIONS}/{create(fake).id}/cancel"

        assert read(ask(fake, path)) == read(ask(fake, path))

    def test_of_an_expired_session_leaves_it_expired(self, fake: FakeChatKit) -> None:
        session = create(fake)
        fake.clock.advance(minutes=10)

        answer = read(ask(fake, f"{SESSIONS}/{session.id}/cancel"))

        assert (answer["status"], answer["client_secret"]) == ("expired", "")

    def test_reads_the_id_percent_decoded(self, fake: FakeChatKit) -> None:
        session = create(fake)
        encoded = session.id.replace("_", "%5F")

        assert read(ask(fake, f"{SESSIONS}/{encoded}/cancel"))["id"] == session.id

    def test_of_a_malformed_id_is_refused(self, fake: FakeChatKit) -> None:
        response = ask(fake, f"{SESSIONS}/ek%2Fnonsense/cancel")

        assert response.status_code == 400
        assert error(response) == {
            "message": "Invalid 'session_id': 'ek/nonsense'. "
            "Expected an ID that begins with 'cksess'.",
            "type": "invalid_request_error",
            "param": "session_id",
            "code": "invalid_value",
        }

    def test_of_an_unknown_session_is_refused(self, fake: FakeChatKit) -> None:
        response = ask(fake, f"{SESSIONS}/cksess_1/cancel")

        assert response.status_code == 404
        assert error(response) == {
            "message": "Chatkit Session with id 'cksess_1' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


class TestRefresh:
    def test_opens_another_session_like_the_first(self, fake: FakeChatKit) -> None:
        created = read(
            ask(fake, content=MINIMAL | {"rate_limits": {"max_requests_per_1_minute": 3}})
        )
        fake.clock.advance(minutes=9)

        refreshed = read(refresh(fake, created["client_secret"]))

        assert refreshed["id"] != created["id"]
        assert refreshed["client_secret"] != created["client_secret"]
        assert refreshed["expires_at"] == created["expires_at"] + 9 * 60
        changed = ("id", "client_secret", "expires_at")
        assert {name: refreshed[name] for name in refreshed if name not in changed} == {
            name: created[name] for name in created if name not in changed
        }

    def test_cancels_the_first_session(self, fake: FakeChatKit) -> None:
        session = create(fake)

        refreshed = read(refresh(fake, session.client_secret))

        assert fake.sessions[session.id].status == "cancelled"
        assert fake.sessions[refreshed["id"]].refreshed_from == session.id

    def test_of_an_unknown_secret_is_refused_without_repeating_it(self, fake: FakeChatKit) -> None:
        create(fake)

        response = refresh(fake, SECRET)

        assert response.status_code == 400
        assert error(response) == {
            "message": "Invalid 'client_secret': the session it belongs to is unknown "
            "or has ended.",
            "type": "invalid_request_error",
            "param": "client_secret",
            "code": "invalid_value",
        }

    def test_of_an_expired_session_is_refused(self, fake: FakeChatKit) -> None:
        session = create(fake)
        fake.clock.advance(minutes=10)

        assert refresh(fake, session.client_secret).status_code == 400

    def test_of_a_cancelled_session_is_refused(self, fake: FakeChatKit) -> None:
        session = create(fake)
        ask(fake, f"{SESSIONS}/{session.id}/cancel")

        assert refresh(fake, session.client_secret).status_code == 400

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ({}, "missing_required_parameter"),
            ({"client_secret": 1}, "invalid_type"),
            ({"client_secret": SECRET, "user": "alice"}, "unknown_parameter"),
        ],
    )
    def test_reads_its_body_as_strictly_as_create(
        self, fake: FakeChatKit, content: dict[str, Any], code: str
    ) -> None:
        response = ask(fake, f"{SESSIONS}/refresh", content)

        assert (response.status_code, error(response)["code"]) == (400, code)


class TestRead:
    def test_answers_the_session_without_its_secret(self, fake: FakeChatKit) -> None:
        created = read(ask(fake, content=MINIMAL))

        found = read(ask(fake, f"{SESSIONS}/{created['id']}", method="GET"))

        assert found == created | {"client_secret": ""}

    def test_works_the_status_out_by_the_clock(self, fake: FakeChatKit) -> None:
        session = create(fake)
        path = f"{SESSIONS}/{session.id}"

        fake.clock.advance(minutes=9, seconds=59)
        before = read(ask(fake, path, method="GET"))["status"]
        fake.clock.advance(seconds=1)
        after = read(ask(fake, path, method="GET"))["status"]

        assert (before, after) == ("active", "expired")

    @pytest.mark.parametrize(("session_id", "status_code"), [("cksess_1", 404), ("other", 400)])
    def test_of_no_session_is_refused(
        self, fake: FakeChatKit, session_id: str, status_code: int
    ) -> None:
        response = ask(fake, f"{SESSIONS}/{session_id}", method="GET")

        assert response.status_code == status_code


class TestSessions:
    def test_are_snapshots_with_everything_that_was_resolved(self, fake: FakeChatKit) -> None:
        session = create(fake)

        assert (session.user, session.workflow_id) == ("alice", "wf_test")
        assert (session.workflow_version, session.state_variables) == (None, None)
        assert (session.created_at, session.expires_at) == (NOON, NOON + timedelta(minutes=10))
        assert session.settings.max_requests_per_1_minute == 10

        fake.clock.advance(minutes=10)

        assert session.status == "active"
        assert fake.sessions[session.id].status == "expired"

    def test_live_for_whole_seconds(self) -> None:
        fake = FakeChatKit(clock=FakeClock(NOON.replace(microsecond=900_000)))

        assert create(fake).created_at == NOON

    def test_do_not_show_their_secret(self, fake: FakeChatKit) -> None:
        session = create(fake)

        assert session.client_secret not in repr(session)

    def test_are_forgotten_oldest_first(
        self, fake: FakeChatKit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fake_api, "MAX_SESSIONS", 2)

        ids = [create(fake).id for _ in range(3)]

        assert list(fake.sessions) == ids[1:]


class TestRequests:
    def test_are_recorded_refused_ones_included(self, fake: FakeChatKit) -> None:
        ask(fake, content=MINIMAL)
        ask(fake, "/v1/nothing?q=1", method="GET", headers={"X-Mine": "1"})

        first, second = fake.requests

        assert (first.method, first.path, first.json) == ("POST", SESSIONS, MINIMAL)
        assert json.loads(first.body) == MINIMAL
        assert (second.method, second.path, second.json) == ("GET", "/v1/nothing?q=1", None)
        assert dict(second.headers) == {"x-mine": "1"}
        assert second.headers["X-MINE"] == "1"

    def test_join_headers_that_were_sent_twice(self) -> None:
        headers = Headers([("OpenAI-Beta", "a=1"), ("openai-beta", "b=2")])

        assert dict(headers) == {"openai-beta": "a=1, b=2"}
        assert len(headers) == 1

    def test_do_not_show_keys_and_secrets(self, fake: FakeChatKit) -> None:
        refresh(fake, SECRET)
        (request,) = fake.requests

        shown = repr(request) + repr(request.headers)

        assert "refresh" in shown
        assert SECRET not in shown
        assert "sk-test" not in shown

    def test_answers_do_not_show_secrets_either(self, fake: FakeChatKit) -> None:
        response = ask(fake, content=MINIMAL)

        assert repr(response) == "FakeResponse(status_code=200)"


class TestAssertCreated:
    def test_counts_each_user_s_sessions(self, fake: FakeChatKit) -> None:
        create(fake, "alice")
        create(fake, "alice")
        create(fake, "bob")

        fake.assert_created()
        fake.assert_created(times=3)
        fake.assert_created(user="alice")
        fake.assert_created(user="alice", times=2)
        fake.assert_created(user="carol", times=0)

    def test_leaves_out_refreshes_and_refusals(self, fake: FakeChatKit) -> None:
        refresh(fake, create(fake).client_secret)
        ask(fake, content={})

        fake.assert_created(times=1)

    def test_says_what_was_seen_instead(self, fake: FakeChatKit) -> None:
        create(fake, "alice")
        create(fake, "alice")
        create(fake, "bob")

        with pytest.raises(AssertionError) as raised:
            fake.assert_created(user="alice", times=1)

        assert str(raised.value) == (
            "expected 1 created session(s) for user 'alice', saw 'alice': 2, 'bob': 1"
        )

    def test_says_that_nothing_was_seen(self, fake: FakeChatKit) -> None:
        with pytest.raises(AssertionError, match=r"^expected at least 1 .*, saw none at all$"):
            fake.assert_created()


class TestFailNext:
    def test_answers_the_next_request_only(self, fake: FakeChatKit) -> None:
        fake.fail_next(500)

        first, second = ask(fake, content=MINIMAL), ask(fake, content=MINIMAL)

        assert (first.status_code, second.status_code) == (500, 200)
        assert error(first) == {
            "message": "The server had an error while processing your request. Sorry about that!",
            "type": "server_error",
            "param": None,
            "code": None,
        }
        assert len(fake.requests) == 2
        assert first.headers["x-request-id"].startswith("req_")

    @pytest.mark.parametrize(
        ("status_code", "message", "error_type"),
        [
            (400, "Bad Request", "invalid_request_error"),
            (429, "Rate limit reached for requests. Please try again later.", "requests"),
            (499, "Refused", "invalid_request_error"),
        ],
    )
    def test_has_words_for_every_status(
        self, fake: FakeChatKit, status_code: int, message: str, error_type: str
    ) -> None:
        fake.fail_next(status_code)

        refused = error(ask(fake))

        assert (refused["message"], refused["type"]) == (message, error_type)

    def test_takes_the_words_it_is_given(self, fake: FakeChatKit) -> None:
        fake.fail_next(403, message="No.", type="t", code="c", param="p")

        assert error(ask(fake)) == {"message": "No.", "type": "t", "param": "p", "code": "c"}

    def test_adds_and_replaces_headers(self, fake: FakeChatKit) -> None:
        fake.fail_next(429, headers={"Retry-After": "1", "X-Request-ID": "req_mine"})

        headers = ask(fake).headers

        assert headers["retry-after"] == "1"
        assert headers["x-request-id"] == "req_mine"
        assert headers["content-type"] == "application/json"

    @pytest.mark.parametrize("body", ["<h1>Bad gateway</h1>", b"<h1>Bad gateway</h1>"])
    def test_answers_a_given_body_as_it_is(self, fake: FakeChatKit, body: str | bytes) -> None:
        fake.fail_next(502, body=body)

        response = ask(fake)

        assert response.body == b"<h1>Bad gateway</h1>"
        assert response.headers["content-type"] == "text/html"

    def test_lets_a_given_body_be_of_any_type(self, fake: FakeChatKit) -> None:
        fake.fail_next(200, body="{}", headers={"Content-Type": "application/json"})

        response = ask(fake)

        assert (response.status_code, response.body) == (200, b"{}")
        assert response.headers["content-type"] == "application/json"

    def test_sends_no_body_where_http_has_none(self, fake: FakeChatKit) -> None:
        fake.fail_next(204)

        response = ask(fake)

        assert response.body == b""
        assert "content-length" not in response.headers

    def test_can_be_kept_for_one_operation(self, fake: FakeChatKit) -> None:
        session = create(fake)
        fake.fail_next(503, operation="cancel", times=2)

        statuses = [
            ask(fake, "/v1/nothing").status_code,
            ask(fake, content=MINIMAL).status_code,
            *(ask(fake, f"{SESSIONS}/{session.id}/cancel").status_code for _ in range(3)),
        ]

        assert statuses == [404, 200, 503, 503, 200]

    def test_takes_the_place_of_a_route_that_is_off(self, fake: FakeChatKit) -> None:
        fake.refresh_route = False
        fake.fail_next(503, operation="refresh")

        assert refresh(fake, SECRET).status_code == 503

    def test_is_used_up_in_order(self, fake: FakeChatKit) -> None:
        fake.fail_next(500)
        fake.fail_next(501)

        assert [ask(fake).status_code for _ in range(2)] == [500, 501]

    @pytest.mark.parametrize("status_code", [101, 199, 600])
    def test_refuses_what_is_no_final_status(self, fake: FakeChatKit, status_code: int) -> None:
        with pytest.raises(ValueError, match="status_code must be 200 to 599"):
            fake.fail_next(status_code)

    def test_refuses_no_times(self, fake: FakeChatKit) -> None:
        with pytest.raises(ValueError, match="times must be 1 or more"):
            fake.fail_next(500, times=0)


class TestClock:
    def test_stands_still_where_it_was_started(self) -> None:
        clock = FakeClock(NOON)

        assert clock.now() == NOON

        clock.advance(days=1, hours=1, minutes=1, seconds=0.5)

        assert clock.now() == datetime(2026, 3, 2, 13, 1, 0, 500_000, tzinfo=UTC)

    def test_runs_on_real_time_by_default(self) -> None:
        clock = FakeClock()
        clock.advance(hours=1)

        before = datetime.now(UTC)
        shown = clock.now()
        after = datetime.now(UTC)

        assert before <= shown - timedelta(hours=1) <= after

    def test_shows_utc_whatever_it_was_started_in(self) -> None:
        clock = FakeClock(NOON.astimezone(timezone(timedelta(hours=5))))

        assert clock.now() == NOON
        assert clock.now().tzinfo is UTC

    def test_needs_a_time_zone(self) -> None:
        with pytest.raises(ValueError, match="aware"):
            FakeClock(NOON.replace(tzinfo=None))

    def test_never_goes_back(self) -> None:
        with pytest.raises(ValueError, match="only moves forward, not by -1"):
            FakeClock(NOON).advance(seconds=-1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "user",
        "workflow",
        "id",
        "version",
        "state_variables",
        "tracing",
        "enabled",
        "expires_after",
        "anchor",
        "seconds",
        "rate_limits",
        "chatkit_configuration",
        "file_upload",
        "history",
    ]
)
NEARLY_RIGHT = st.recursive(
    JSON | st.just("wf_test"), lambda inner: st.dictionaries(NAMES, inner), max_leaves=12
)
BODIES = st.binary() | (JSON | NEARLY_RIGHT).map(lambda content: json.dumps(content).encode())
PATHS = st.text() | st.lists(
    st.sampled_from(["v1", "chatkit", "sessions", "refresh", "cancel", "cksess_1", "%ff", "?"]),
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))


class TestAnything:
    @given(body=BODIES)
    def test_as_a_create_body_is_accepted_or_refused_in_the_envelope(self, body: bytes) -> None:
        response = ask(FakeChatKit(), content=body)

        if response.status_code != 200:
            assert 400 <= response.status_code < 500
            error(response)

    @given(
        method=st.sampled_from(["GET", "POST", "DELETE"]) | st.text(string.ascii_uppercase),
        path=PATHS,
    )
    def test_as_a_path_is_accepted_or_refused_in_the_envelope(self, method: str, path: str) -> None:
        response = ask(FakeChatKit(read_route=True), path, MINIMAL, method=method)

        if response.status_code != 200 and method != "HEAD":
            assert 400 <= response.status_code < 500
            error(response)
