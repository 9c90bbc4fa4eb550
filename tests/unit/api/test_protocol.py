"""Requests carry what they must; any answer becomes a result or an error that quotes no secret."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import SecretBytes, SecretStr, ValidationError

from chatkit_sessions import __version__
from chatkit_sessions._api import operations
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.protocol import (
    MAX_ERROR_BODY,
    MAX_SUCCESS_BODY,
    Request,
    Response,
    build_request,
    common_headers,
    is_success,
    max_body,
    parse_http_date,
    parse_request_id,
    parse_response,
)
from chatkit_sessions._api.refresh import RejectedSession, refresh
from chatkit_sessions._config.retry_policy import RetryPolicy
from chatkit_sessions._config.settings import Settings
from chatkit_sessions._redaction import plain_headers
from chatkit_sessions.errors import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    ChatKitError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    WorkflowNotFoundError,
)
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
)
from chatkit_sessions.options import SessionOptions
from support_unit import rendered

HOST = "gateway.example"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SECONDS = 1_795_341_600
KEY = 'k/Opaque+Key"0123=='
SECRET = 's/Opaque+Secret"0123=='
FRESH = "fresh/Opaque+Secret"

NO_OPTIONS: SessionOptions = {
    "workflow_version": None,
    "state_variables": None,
    "tracing": None,
    "expires_after": None,
    "max_requests_per_1_minute": None,
    "file_upload": None,
    "history": None,
    "automatic_thread_titling": None,
}
CREATE = operations.create("user_1", workflow_id="wf_1", options=NO_OPTIONS)
REFRESH = refresh(SECRET, user="user_1", workflow_id="wf_1", create_body=b"{}")
GET = operations.get("cksess_1")
CANCEL = operations.cancel("cksess_1")

SESSION: dict[str, Any] = {
    "id": "cksess_1",
    "client_secret": FRESH,
    "expires_at": SECONDS,
    "user": "user_1",
    "workflow": {"id": "wf_1"},
}


def response(
    status: int = 200,
    body: object = None,
    headers: dict[str, str] | None = None,
    *,
    body_error: str | None = None,
) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(
        status,
        {"content-type": "application/json", **(headers or {})},
        SecretBytes(raw),
        body_error,
    )


def read(given: Response, operation: Operation[Any] = CREATE) -> Any:  # noqa: ANN401 -- any result
    return parse_response(operation, given, key=SecretStr(KEY), host=HOST, now=lambda: NOW)


def invalid(given: Response, operation: Operation[Any] = CREATE) -> APIResponseValidationError:
    with pytest.raises(APIResponseValidationError) as caught:
        read(given, operation)
    return caught.value


def refused(given: Response, operation: Operation[Any] = CREATE) -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        read(given, operation)
    return caught.value


def envelope(message: str = "no", **more: object) -> dict[str, object]:
    return {"error": {"message": message, "type": "t", "param": None, "code": None, **more}}


def request_for(operation: Operation[Any], settings: Settings, key: str) -> Request:
    return build_request(operation, settings.base_url, common_headers(settings, SecretStr(key)))


class TestRequest:
    def config(self, **changes: str | None) -> Settings:
        config: Settings = Settings(
            api_key=SecretStr(KEY),
            workflow_id="wf_1",
            base_url="https://gateway.example/v1",
            organization=changes.get("organization"),
            project=changes.get("project"),
            timeout=None,
            retry_policy=RetryPolicy(),
        )
        return config

    def test_with_a_body(self) -> None:
        request = request_for(CREATE, self.config(), KEY)

        assert request.method == "POST"
        assert request.url == "https://gateway.example/v1/chatkit/sessions"
        assert request.body is not None
        assert request.body.get_secret_value() == b'{"user":"user_1","workflow":{"id":"wf_1"}}'
        assert plain_headers(request.headers) == {
            "Authorization": f"Bearer {KEY}",
            "OpenAI-Beta": "chatkit_beta=v1",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"chatkit-sessions/{__version__}",
            "Content-Type": "application/json",
        }

    def test_with_a_query(self) -> None:
        operation = GET._replace(query=(("user", "ada&b=1@example.com"), ("limit", "20")))

        request = request_for(operation, self.config(), KEY)

        assert request.url == (
            f"https://gateway.example/v1{GET.path}?user=ada%26b%3D1%40example.com&limit=20"
        )

    @pytest.mark.parametrize("operation", [GET, CANCEL], ids=["get", "cancel"])
    def test_without_a_body_it_names_no_content_type(self, operation: Operation[Any]) -> None:
        request = request_for(operation, self.config(), KEY)

        assert request.body is None
        assert request.method == operation.method
        assert request.url == f"https://gateway.example/v1{operation.path}"
        assert set(request.headers) == {
            *("Authorization", "OpenAI-Beta", "Accept", "Accept-Encoding", "User-Agent"),
        }

    @pytest.mark.parametrize(
        ("settings", "added"),
        [
            ({"organization": "org-1"}, {"OpenAI-Organization": "org-1"}),
            ({"project": "proj_1"}, {"OpenAI-Project": "proj_1"}),
            (
                {"organization": "org-1", "project": "proj_1"},
                {"OpenAI-Organization": "org-1", "OpenAI-Project": "proj_1"},
            ),
        ],
        ids=["organization", "project", "both"],
    )
    def test_organization_and_project_are_sent_if_they_are_set(
        self, settings: dict[str, str | None], added: dict[str, str]
    ) -> None:
        plain = request_for(CREATE, self.config(), KEY).headers

        headers = request_for(CREATE, self.config(**settings), KEY).headers

        assert dict(headers) == {**plain, **added}

    def test_the_key_is_the_one_handed_in(self) -> None:
        request = request_for(GET, self.config(), "another")

        assert plain_headers(request.headers)["Authorization"] == "Bearer another"

    def test_it_names_what_no_text_may_quote(self) -> None:
        plain = request_for(GET, self.config(), KEY)
        refreshing = request_for(REFRESH, self.config(), KEY)

        assert plain.secrets == (SecretStr(KEY),)
        assert refreshing.secrets == (SecretStr(KEY), SecretStr(SECRET))

    def test_its_repr_holds_neither_key_nor_body(self) -> None:
        request = request_for(REFRESH, self.config(organization="org-1"), KEY)

        shown = repr(request) + str(request)
        assert "Opaque" not in shown
        assert "/chatkit/sessions/refresh" in shown
        assert "OpenAI-Organization" in shown

    def test_it_is_frozen(self) -> None:
        request = request_for(GET, self.config(), KEY)

        with pytest.raises(AttributeError):
            setattr(request, "url", "x")  # noqa: B010 -- the type checker knows better


def test_what_a_call_is_made_of_can_neither_be_changed_nor_show_a_secret() -> None:
    settings = TestRequest().config()
    headers = common_headers(settings, SecretStr(KEY))
    values: list[Any] = [REFRESH, headers, build_request(REFRESH, settings.base_url, headers)]

    for value in values:
        assert "Opaque" not in f"{value} {value!r}"
        for name in value._fields:
            with pytest.raises(AttributeError):
                setattr(value, name, None)


def test_the_repr_of_an_answer_holds_neither_headers_nor_body() -> None:
    shown = repr(response(200, SESSION, {"x-secret": FRESH}))

    assert FRESH not in shown
    assert json.dumps(FRESH)[1:-1] not in shown
    assert "200" in shown


@pytest.mark.parametrize(
    ("status", "success"),
    [(199, False), (200, True), (201, True), (204, True), (299, True), (300, False), (404, False)],
)
def test_success_is_2xx_and_has_more_room(status: int, *, success: bool) -> None:
    assert is_success(status) is success
    assert max_body(status) == (MAX_SUCCESS_BODY if success else MAX_ERROR_BODY)
    assert (MAX_SUCCESS_BODY, MAX_ERROR_BODY) == (1_048_576, 65_536)


def named(headers: dict[str, str]) -> Response:
    return Response(200, headers, SecretBytes(b""))


class TestRequestId:
    def test_it_is_the_header(self) -> None:
        assert parse_request_id(named({"x-request-id": "req_1"}), ()) == "req_1"

    @pytest.mark.parametrize("headers", [{}, {"x-request-id": ""}], ids=["absent", "empty"])
    def test_there_may_be_none(self, headers: dict[str, str]) -> None:
        assert parse_request_id(named(headers), ()) is None

    def test_it_is_short_and_on_one_line(self) -> None:
        headers = {"x-request-id": "a\r\nb\x1b" + "c" * 10_000}
        shown = parse_request_id(named(headers), ())

        assert shown is not None
        assert shown.startswith("a  b ")
        assert len(shown) == 501
        assert shown.isprintable()


class TestSuccess:
    @pytest.mark.parametrize("status", [200, 201, 202, 299])
    def test_create_gives_the_session_with_the_request_id(self, status: int) -> None:
        session = read(response(status, SESSION, {"x-request-id": "req_1"}))

        assert isinstance(session, ChatKitSessionResponse)
        assert session.client_secret.get_secret_value() == FRESH
        assert session.request_id == "req_1"

    def test_a_request_id_in_the_body_does_not_count(self) -> None:
        assert read(response(200, {**SESSION, "request_id": "forged"})).request_id is None

    def test_the_content_type_does_not_matter(self) -> None:
        assert read(Response(200, {}, SecretBytes(json.dumps(SESSION).encode()))).id == "cksess_1"

    def test_unknown_fields_and_statuses_are_no_obstacle(self) -> None:
        session = read(response(200, {**SESSION, "status": "dreaming", "novelty": [1]}))

        assert session.status == "dreaming"
        assert session.model_extra == {"novelty": [1]}

    def test_get_gives_the_session_without_its_secret(self) -> None:
        info = read(response(200, SESSION), GET)

        assert isinstance(info, ChatKitSessionInfo)
        assert info.source == "api"
        assert FRESH not in repr(vars(info))

    def test_cancel_gives_the_cancelled_session(self) -> None:
        cancelled = read(response(200, {"id": "cksess_1", "status": "cancelled"}), CANCEL)

        assert isinstance(cancelled, CancelledSession)

    def test_refresh_gives_the_session_or_what_to_reject(self) -> None:
        assert isinstance(read(response(200, SESSION), REFRESH), ChatKitSessionResponse)
        assert isinstance(
            read(response(200, {**SESSION, "client_secret": SECRET}), REFRESH), RejectedSession
        )


FLAWED: dict[str, tuple[bytes, str]] = {
    "html": (b"<html><title>Sign in, confidential</title></html>", "it is not JSON"),
    "empty": (b"", "it is empty"),
    "blank": (b"  ", "it is not JSON"),
    "array": (b'["confidential"]', "it is JSON but not an object"),
    "text": (b'"confidential"', "it is JSON but not an object"),
    "number": (b"5", "it is JSON but not an object"),
    "null": (b"null", "it is JSON but not an object"),
    "not-utf-8": (b'{"confidential": "\xff"}', "it is not UTF-8"),
    "utf-16": ('{"a": "confidential"}'.encode("utf-16"), "it is not UTF-8"),
    "byte-order-mark": (b'\xef\xbb\xbf{"a": "confidential"}', "it is not JSON"),
    "truncated": (json.dumps({**SESSION, "note": "confidential"}).encode()[:-5], "it is not JSON"),
    "two-documents": (b'{"a": 1}{"confidential": 1}', "it is not JSON"),
    "nan": (b'{"confidential": NaN}', "it is not JSON"),
    "infinity": (b'{"confidential": -Infinity}', "it is not JSON"),
    "deep-array": (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
    "deep-object": (b'{"confidential":' * 100_000 + b"1" + b"}" * 100_000, "too deeply"),
    "rather-deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "it is nested too deeply"),
    "lone-surrogate": (b'{"confidential": "\\ud800"}', "it holds a lone surrogate"),
    "lone-surrogate-in-a-name": (b'{"confidential \\udfff": 1}', "it holds a lone surrogate"),
    "lone-surrogate-in-a-list": (b'{"confidential": [{"a": "\\ud83d"}]}', "lone surrogate"),
    "huge-integer": (b'{"a": ' + b"9" * 5000 + b"}", "it is not JSON"),
    "nothing-in-it": (b"{}", "`client_secret` Field required (missing)"),
    "without-secret": (b'{"id": "s", "expires_at": 1795341600}', "`client_secret`"),
    "empty-secret": (b'{"id": "s", "expires_at": 1795341600, "client_secret": ""}', "`client_s"),
    "masked-secret": (b'{"id":"s","expires_at":1795341600,"client_secret":"****"}', "is masked"),
    "impossible-date": (
        b'{"id": "s", "client_secret": "confidential", "expires_at": "2026-02-30T00:00:00Z"}',
        "`expires_at`",
    ),
    "infinite-date": (
        b'{"id": "s", "client_secret": "confidential", "expires_at": 1e999}',
        "`expires_at`",
    ),
    "wrong-type": (
        b'{"id": "s", "client_secret": ["confidential"], "expires_at": 1795341600}',
        "`client_secret` Input should be a valid string",
    ),
    "wrong-type-with-a-name-of-its-own": (
        json.dumps(
            {**SESSION, "workflow": {"id": "wf", "state_variables": {"confidential": None}}}
        ).encode(),
        "`workflow.state_variables",
    ),
}


WHOLE_REASONS: dict[str, tuple[bytes, str]] = {
    **{
        name: FLAWED[name]
        for name in (
            *("html", "empty", "array", "not-utf-8", "deep-array", "rather-deep"),
            "lone-surrogate",
        )
    },
    "rather-deep-object": (b'{"a":' * 66 + b"1" + b"}" * 66, "it is nested too deeply"),
    "lone-surrogate-further-on": (b'{"a": ["b", "\\ud800"]}', "it holds a lone surrogate"),
}


class TestSuccessThatIsNone:
    @pytest.mark.parametrize(("body", "reason"), FLAWED.values(), ids=FLAWED)
    def test_it_is_described_and_not_quoted(self, body: bytes, reason: str) -> None:
        headers = {"content-type": "text/html; charset=utf-8", "x-request-id": "req_1"}

        error = invalid(response(201, body, headers))

        assert reason in str(error)
        assert f"{len(body):,} bytes" in str(error)
        assert "text/html; charset=utf-8" in str(error)
        assert str(error).startswith("201: ")
        assert "(request id req_1)" in str(error)
        assert "OPENAI_BASE_URL" in str(error)
        assert error.status_code == 201
        assert error.content_type == "text/html; charset=utf-8"
        assert error.content_length == len(body)
        assert error.request_id == "req_1"
        assert "confidential" not in str(error) + repr(vars(error))
        assert "confidential" not in rendered(error)

    @pytest.mark.parametrize(("body", "reason"), FLAWED.values(), ids=FLAWED)
    def test_nothing_that_holds_the_body_hangs_on_it(self, body: bytes, reason: str) -> None:
        error = invalid(response(200, body))

        assert reason
        assert error.__cause__ is None
        assert error.__context__ is None
        frames = error.__traceback__
        while frames is not None:
            assert not any(
                isinstance(local, ValidationError) for local in frames.tb_frame.f_locals.values()
            )
            frames = frames.tb_next

    @pytest.mark.parametrize(("body", "reason"), WHOLE_REASONS.values(), ids=WHOLE_REASONS)
    def test_it_is_told_in_one_sentence_with_a_hint(self, body: bytes, reason: str) -> None:
        error = invalid(response(200, body))

        assert error.message == (
            f"The response (application/json, {len(body):,} bytes) is not what the contract says: "
            f"{reason}."
        )
        assert error.hint.startswith("The response may come from something other than the ChatKit ")
        assert "the session may exist and then expires by itself." in error.hint

    @pytest.mark.parametrize("operation", [GET, CANCEL], ids=["get", "cancel"])
    def test_an_answer_about_another_session_is_none(self, operation: Operation[Any]) -> None:
        another = {**SESSION, "id": "cksess_2", "status": "cancelled"}

        error = invalid(response(200, another), operation)

        assert "is not what the contract says: it is about another session." in error.message
        assert "cksess_2" not in rendered(error)

    def test_what_was_not_read_in_full_says_why(self) -> None:
        error = invalid(response(200, SESSION, body_error="it is larger than 1 MiB"))

        assert "it is larger than 1 MiB" in str(error)

    def test_without_content_type_it_says_so(self) -> None:
        error = invalid(Response(200, {}, SecretBytes(b"confidential")))

        assert error.content_type is None
        assert error.request_id is None
        assert "(no content type, 12 bytes)" in str(error)

    @pytest.mark.parametrize("operation", [GET, CANCEL], ids=["get", "cancel"])
    def test_get_and_cancel_are_judged_too(self, operation: Operation[Any]) -> None:
        assert "`id`" in str(invalid(response(200, {"id": 5}), operation))

    def test_a_cancel_answered_with_an_active_session_is_no_success(self) -> None:
        assert "must not be active" in str(
            invalid(response(200, {**SESSION, "status": "active"}), CANCEL)
        )


class TestErrorAnswer:
    def test_the_envelope_becomes_the_error(self) -> None:
        body = envelope("Workflow with id 'wf_1' not found.", param="workflow.id", code="nope")

        error = refused(response(404, body, {"x-request-id": "req_1"}))

        assert type(error) is WorkflowNotFoundError
        assert error.status_code == 404
        assert error.error == ChatKitErrorDetail(
            message="Workflow with id 'wf_1' not found.", type="t", param="workflow.id", code="nope"
        )
        assert error.body == body
        assert error.request_id == "req_1"
        assert error.retry_after is None
        assert error.should_retry is None
        assert str(error).startswith("404: Workflow with id 'wf_1' not found. (request id req_1)")
        assert error.hint in str(error)

    def test_message_and_type_are_envelope_enough(self) -> None:
        error = refused(response(401, {"error": {"message": "m", "type": "t"}}))

        assert type(error) is AuthenticationError
        assert error.error is not None
        assert error.message == "m"

    def test_an_envelope_without_text_is_still_one(self) -> None:
        error = refused(response(400, envelope("")))

        assert error.error is not None
        assert error.message == "The API returned no message"

    @pytest.mark.parametrize(
        ("body", "kept"),
        [
            (b'{"detail": "Not Found"}', {"detail": "Not Found"}),
            (b'{"error": "text"}', {"error": "text"}),
            (b'{"error": {"message": "m"}}', {"error": {"message": "m"}}),
            (b"[1, 2]", [1, 2]),
            (b'"text"', "text"),
            (b"null", None),
            (b"", None),
            (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
            (b"no healthy upstream", "no healthy upstream"),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b'{"a": NaN}', '{"a": NaN}'),
            (b"[" * 1000, "[" * 1000),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_without_envelope_it_tells_what_came_instead(self, body: bytes, kept: object) -> None:
        error = refused(response(502, body, {"content-type": "text/html", "x-request-id": "r"}))

        assert type(error) is InternalServerError
        assert error.error is None
        assert error.body == kept
        assert error.message == "A response without the API's error envelope (text/html)"
        assert error.request_id == "r"
        assert HOST in str(error)

    def test_without_content_type_it_says_so(self) -> None:
        assert "(no content type)" in str(refused(Response(500, {}, SecretBytes(b""))))

    def test_a_body_cut_off_is_kept_as_text_without_its_last_word(self) -> None:
        """Half of a secret is not known as one."""
        body = f'{{"error": "your key {KEY[:6]}'.encode()

        error = refused(response(500, body, body_error="it is larger than 64 KiB"))

        assert error.body == '{"error": "your key '

    def test_only_the_last_word_of_a_body_cut_off_is_left_out(self) -> None:
        error = refused(response(500, b"failed with your key sk-Opaq", body_error="it broke off"))

        assert error.body == "failed with your key "

    @pytest.mark.parametrize("last", list("azAZ09_-.+/=*%\\~"))
    def test_that_word_is_made_of_whatever_a_secret_or_its_spelling_is(self, last: str) -> None:
        error = refused(response(500, f"<p>key: Op{last}".encode(), body_error="it broke off"))

        assert error.body == "<p>key: "

    def test_a_target_with_credentials_but_no_host_is_not_quoted(self) -> None:
        error = refused(response(302, b"", {"location": "https:user:confidential@login.example"}))

        assert "confidential" not in str(error)
        assert error.message == "A redirect to an unreadable location"

    def test_a_redirect_names_its_target_without_query_and_fragment(self) -> None:
        location = "https://login.example/in?next=confidential#confidential"

        error = refused(response(302, b"", {"location": location}))

        assert type(error) is APIStatusError
        assert error.message == "A redirect to https://login.example/in"
        assert "confidential" not in str(error) + repr(vars(error))
        assert "OPENAI_BASE_URL" in str(error)

    @pytest.mark.parametrize("location", ["?next=confidential", "#confidential"])
    def test_a_redirect_to_a_query_only_is_told_without_it(self, location: str) -> None:
        error = refused(response(302, b"", {"location": location}))

        assert "None" not in str(error)
        assert "confidential" not in str(error)

    def test_a_redirect_does_not_quote_the_credentials_in_its_target(self) -> None:
        error = refused(response(302, b"", {"location": "https://u:confidential@login.example/"}))

        assert "confidential" not in str(error)

    @pytest.mark.parametrize(
        ("location", "told"),
        [
            ("/in", "/in"),
            ("//login.example/in", "//login.example/in"),
            ("http://login.example:8080/in", "http://login.example:8080/in"),
            ("//u:confidential@login.example/in", "//login.example/in"),
            ("https://login.example/@user", "https://login.example/@user"),
        ],
    )
    def test_a_redirect_names_any_kind_of_target(self, location: str, told: str) -> None:
        assert (
            refused(response(307, b"", {"location": location})).message == f"A redirect to {told}"
        )

    @pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "http://[::1"}])
    def test_a_redirect_to_nowhere_is_one_still(self, headers: dict[str, str]) -> None:
        error = refused(response(302, b"", headers))

        assert error.message == "A redirect to an unreadable location"

    @pytest.mark.parametrize("status", [199, 503])
    def test_what_is_no_redirect_is_not_called_one(self, status: int) -> None:
        error = refused(response(status, b"", {"location": "https://elsewhere.example/"}))

        assert "redirect" not in str(error).lower()

    def test_a_long_message_is_cut_and_kept_on_one_line(self) -> None:
        error = refused(response(400, envelope("a\n\x1b[31m" + "b" * 10_000)))

        assert len(error.message) == 501
        assert error.message.startswith("a  [31mbbb")
        assert error.message.isprintable()

    @pytest.mark.parametrize(
        ("headers", "retry_after", "should_retry"),
        [
            ({}, None, None),
            ({"retry-after": "7"}, 7, None),
            ({"retry-after-ms": "250", "retry-after": "7"}, 0.25, None),
            ({"retry-after": "Sun, 22 Nov 2026 10:01:30 GMT"}, 90, None),
            ({"retry-after": "soon", "x-should-retry": "false"}, None, False),
            ({"x-should-retry": "true"}, None, True),
        ],
        ids=str,
    )
    def test_it_says_when_to_try_again(
        self, headers: dict[str, str], retry_after: float | None, *, should_retry: bool | None
    ) -> None:
        error = refused(response(429, envelope(), headers))

        assert type(error) is RateLimitError
        assert error.retry_after == retry_after
        assert error.should_retry is should_retry

    def test_a_cancel_refused_because_the_session_has_ended_is_success(self) -> None:
        body = envelope("Chatkit Session with id 'cksess_1' is already cancelled.")

        assert read(response(400, body), CANCEL) == CancelledSession(
            id="cksess_1", status="cancelled"
        )
        assert isinstance(refused(response(400, body), GET), APIStatusError)

    def test_another_refusal_of_a_cancel_is_an_error(self) -> None:
        assert type(refused(response(404, b"Not found"), CANCEL)) is NotFoundError

    def test_nothing_hangs_on_it(self) -> None:
        for body in (b"<html>", json.dumps(envelope()).encode(), b'{"error": 5}'):
            error = refused(response(500, body))

            assert error.__cause__ is None
            assert error.__context__ is None


ECHOES: dict[str, Callable[[str], Response]] = {
    "message": lambda s: response(401, envelope(f"Incorrect API key provided: {s}.")),
    "type": lambda s: response(400, envelope(type=s)),
    "param": lambda s: response(400, envelope(param=s)),
    "code": lambda s: response(400, envelope(code=s)),
    "unknown-field-of-the-envelope": lambda s: response(400, envelope(novelty={"deep": [s]})),
    "name-in-the-envelope": lambda s: response(400, {**envelope(), f"x {s}": {s: 1}}),
    "json-without-envelope": lambda s: response(500, {"echo": [{"request": f"Bearer {s}"}]}),
    "escaped-twice": lambda s: response(500, {"request": json.dumps({"secret_not": s})}),
    "html": lambda s: response(502, f"<p>{s}</p>".encode()),
    "text-with-json": lambda s: response(502, f"failed: {json.dumps({'a': s})}".encode()),
    "url": lambda s: response(502, f"GET /?key={quote(s, safe='')}".encode()),
    "url-path": lambda s: response(502, f"GET /{quote(s)}".encode()),
    "truncated-json": lambda s: response(400, json.dumps(envelope(s)).encode()[:-3]),
    "x-request-id": lambda s: response(500, envelope(), {"x-request-id": s}),
    "content-type": lambda s: response(500, b"", {"content-type": f"text/html; a={s}"}),
    "location": lambda s: response(302, b"", {"location": f"https://x.example/{s}"}),
    "location-quoted": lambda s: response(
        302, b"", {"location": f"https://x.example/{quote(s, safe='')}"}
    ),
    "location-query": lambda s: response(302, b"", {"location": f"https://x.example/?k={s}"}),
    "retry-after": lambda s: response(429, envelope(), {"retry-after": s, "x-should-retry": s}),
    "success-html": lambda s: response(200, f"<p>{s}</p>".encode()),
    "success-field": lambda s: response(200, {"id": [s], "expires_at": s}),
    "success-request-id": lambda s: response(200, b"", {"x-request-id": s}),
    "success-content-type": lambda s: response(200, b"", {"content-type": f"a/b; c={s}"}),
    "success-name": lambda s: response(
        200, {**SESSION, "workflow": {"id": "wf", "state_variables": {s: None}}}
    ),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("secret", [KEY, SECRET, "sk-proj-Opaque0123", "ek_Opaque0123"])
def test_neither_key_nor_secret_is_quoted_wherever_it_is_echoed(
    echo: Callable[[str], Response], secret: str
) -> None:
    operation = refresh(SECRET, user="u", workflow_id="w", create_body=b"{}")
    outcome: object
    traceback = ""
    try:
        outcome = read(echo(secret), operation)
    except ChatKitError as error:
        outcome, traceback = error, rendered(error)

    assert isinstance(outcome, ChatKitError | RejectedSession)
    for text in (str(outcome), repr(outcome), traceback):
        assert "Opaque" not in text
    if isinstance(outcome, ChatKitError):
        assert "Opaque" not in repr(vars(outcome)) + repr(outcome.args)


@pytest.mark.parametrize("operation", [CREATE, GET, CANCEL], ids=["create", "get", "cancel"])
@pytest.mark.parametrize(
    "failed",
    [
        response(200, {**SESSION, "expires_at": "soon"}),
        response(200, {**SESSION, "id": 5}),
        response(200, SESSION, body_error="it broke off"),
        response(500, {**SESSION, **envelope()}),
    ],
    ids=["impossible-date", "no-id", "cut-off", "server-fault"],
)
def test_a_traceback_with_local_variables_holds_neither_key_nor_fresh_secret(
    failed: Response, operation: Operation[Any]
) -> None:
    with pytest.raises(ChatKitError) as caught:
        read(failed, operation)

    assert "Opaque" not in rendered(caught.value)
    assert "parse_response" in rendered(caught.value)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
ANY_SESSION = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text() | ANY_JSON,
        "client_secret": st.text() | ANY_JSON,
        "expires_at": st.integers(SECONDS, SECONDS + 10**6) | st.floats() | ANY_JSON,
        "user": st.just("user_1") | ANY_JSON,
        "status": st.sampled_from(["active", "cancelled"]) | ANY_JSON,
        "workflow": st.fixed_dictionaries(
            {"id": st.just("wf_1") | ANY_JSON}, optional={"state_variables": ANY_JSON}
        )
        | ANY_JSON,
        "error": st.fixed_dictionaries(
            {"message": st.text() | ANY_JSON, "type": st.text()},
            optional={"code": ANY_JSON, "param": ANY_JSON},
        )
        | ANY_JSON,
        "novelty": ANY_JSON,
    },
)
ANY_BODY = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode(errors="replace")),
    ANY_JSON.map(lambda value: json.dumps(value).encode()),
    ANY_SESSION.map(lambda value: json.dumps(value).encode()),
    ANY_SESSION.map(lambda value: json.dumps({**SESSION, **value}).encode()),
    ANY_SESSION.map(lambda value: json.dumps({**SESSION, "novelty": value}).encode()),
    ANY_SESSION.map(lambda value: json.dumps(value, allow_nan=True).encode()[:-1]),
)
ANY_HEADERS = st.dictionaries(
    st.sampled_from(["x-request-id", "content-type", "location", "retry-after", "retry-after-ms"]),
    st.text(),
)


@settings(max_examples=4 * settings().max_examples)
@given(
    st.sampled_from([CREATE, REFRESH, GET, CANCEL]),
    st.sampled_from([200, 201, 302, 400, 401, 404, 405, 429, 500]) | st.integers(200, 599),
    ANY_HEADERS,
    ANY_BODY,
)
def test_any_answer_gives_a_result_or_an_error_of_this_library(
    operation: Operation[Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    try:
        result = read(Response(status, headers, SecretBytes(body)), operation)
    except APIResponseValidationError as error:
        assert is_success(status)
        assert error.__context__ is None  # noqa: PT017
        assert str(error)  # noqa: PT017
    except APIStatusError as error:
        assert not is_success(status)
        assert error.__context__ is None  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017
    else:
        assert isinstance(
            result, ChatKitSessionResponse | ChatKitSessionInfo | CancelledSession | RejectedSession
        )
        assert is_success(status) or operation is CANCEL
        if not isinstance(result, RejectedSession):
            result.model_dump_json()


@given(ANY_SESSION, st.sampled_from([CREATE, REFRESH, GET, CANCEL]))
def test_a_result_can_always_be_shown_and_dumped(
    changes: dict[str, Any], operation: Operation[Any]
) -> None:
    given_session = {**SESSION, "novelty": changes, "workflow": {"id": "wf_1", **changes}}
    try:
        result = read(response(200, given_session), operation)
    except APIResponseValidationError:
        return

    assert repr(result).encode()
    if not isinstance(result, RejectedSession):
        assert json.loads(result.model_dump_json())
        assert FRESH not in repr(result)


@pytest.mark.parametrize("user", ["\ud7ff", "\ue000", "\uffff", "🙂", "\U0010ffff"])
def test_every_character_but_a_surrogate_is_taken(user: str) -> None:
    body = json.dumps({**SESSION, "user": user}).encode()
    operation = operations.create(user, workflow_id="wf_1", options=NO_OPTIONS)

    assert read(Response(200, {}, SecretBytes(body)), operation).user == user


def test_a_body_may_be_nested_as_deep_as_the_bound_and_no_deeper() -> None:
    def nested(depth: int) -> Response:
        """A session whose unknown field holds that many lists, itself at depth 1."""
        value: object = "leaf"
        for _ in range(depth):
            value = [value]
        return response(200, {**SESSION, "novelty": value})

    assert read(nested(63)).model_extra is not None
    assert "nested too deeply" in str(invalid(nested(64)))


def test_the_bounds_of_bodies_are_those_that_the_docs_tell() -> None:
    assert (max_body(200), max_body(299)) == (1_048_576, 1_048_576)
    assert (max_body(199), max_body(300), max_body(500)) == (65_536, 65_536, 65_536)


def test_a_success_may_repeat_what_was_sent_with_every_byte_escaped() -> None:
    assert max_body(200, sent=10) == 1_048_576 + 60
    assert max_body(400, sent=10) == 65_536


def test_an_error_that_names_a_location_is_no_redirect() -> None:
    error = refused(response(400, b"<html>", {"location": "https://elsewhere.example/"}))

    assert "redirect" not in error.message.lower()


def test_of_one_long_word_that_is_cut_off_all_is_kept_but_what_a_secret_could_be() -> None:
    error = refused(response(500, b"x" * 3000, body_error="it is longer than 65,536 bytes"))

    assert error.body == "x" * (3000 - 1024)


@pytest.mark.parametrize(("length", "told"), [(500, "b" * 500), (501, "b" * 500 + "…")])
def test_a_message_is_cut_beyond_500_characters(length: int, told: str) -> None:
    assert refused(response(400, envelope("b" * length))).message == told


def test_a_300_is_a_redirect() -> None:
    error = refused(response(300, b"", {"location": "https://elsewhere.example/"}))

    assert error.message == "A redirect to https://elsewhere.example/"


def test_an_answer_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(response(200, SESSION), "body", b"")  # noqa: B010 -- a type checker refuses it, too


class TestDate:
    @given(moment=st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)))  # noqa: DTZ001 -- hypothesis wants naive bounds
    def test_is_read_as_servers_write_it(self, moment: datetime) -> None:
        moment = moment.replace(microsecond=0, tzinfo=UTC)

        told = parse_http_date(format_datetime(moment, usegmt=True))

        assert told == moment

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "yesterday",
            "Sun, 32 Nov 2026 12:00:00 GMT",
            "Sun, 30 Feb 2026 12:00:00 GMT",
            "Sun, 22 Nov 2026 24:61:00 GMT",
            "Sun, 22 Nov 1999 12:00:00 GMT",
            "Sun, 22 Nov 2026 12:00:00 +0100",
            "Sun, 22 Nov 2026 12:00:00",
            "Sunday, 22-Nov-26 12:00:00 GMT",
            "Sun Nov 22 12:00:00 2026",
            "Sun, 22 Nov 2026 12:00:00 GMT ",
            "\u0663\u0663, 22 Nov 2026 12:00:00 GMT",
        ],
    )
    def test_that_is_none_is_none(self, text: str) -> None:
        assert parse_http_date(text) is None

    @given(text=st.text())
    def test_of_any_text_breaks_nothing(self, text: str) -> None:
        told = parse_http_date(text)

        assert told is None or told.tzinfo is UTC

    @pytest.mark.parametrize("date", ["Sun, 22 Nov 2026 12:00:00 GMT", "nonsense", ""])
    def test_is_told_with_the_session_and_never_makes_it_unreadable(self, date: str) -> None:
        body = json.dumps(
            {"id": "x", "client_secret": "ek_1", "expires_at": SECONDS, "answered_at": "soon"}
        ).encode()

        session = parse_response(
            CREATE,
            Response(200, {"date": date}, SecretBytes(body)),
            key=SecretStr(KEY),
            host=HOST,
            now=lambda: NOW,
        )

        expected = datetime(2026, 11, 22, 12, 0, tzinfo=UTC) if date.startswith("Sun") else None
        assert session.answered_at == expected
