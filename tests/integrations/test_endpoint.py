"""The endpoint behaves the same in every framework: what it answers, and whom it refuses."""

import json
import logging
import re
from typing import TYPE_CHECKING, Any, cast

import pytest

from chatkit_sessions import ConfigurationError
from chatkit_sessions.integrations import (
    MAX_BODY,
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    CreateSessionOptions,
    EndpointSettings,
)
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from endpoint_apps import (
    FRAMEWORKS,
    ORIGIN,
    Answer,
    App,
    Backend,
    Framework,
    Wiring,
    assert_refused,
    secret_of,
)
from support import JSON, Time
from workers import AsyncFailingStore, FailingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAGE = "https://app.example.com"
FOREIGN = "https://evil.example"


# The routes


def test_a_page_gets_a_session_of_the_user_who_is_signed_in(app: App, fake: FakeChatKit) -> None:
    answer = app.create("ada")

    (session,) = fake.sessions.values()
    assert session.user == "ada"
    assert answer.json == {
        "client_secret": session.client_secret,
        "expires_at": "2026-11-22T12:10:00Z",
        "session_id": session.id,
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Origin"


def test_each_page_gets_a_session_of_its_own_unless_they_are_reused(backend: Backend) -> None:
    app, reusing = backend.app(), backend.app(reuse=True)

    assert secret_of(app.create()) != secret_of(app.create())
    assert secret_of(reusing.create()) == secret_of(reusing.create())
    assert secret_of(reusing.create("ada")) != secret_of(reusing.create("bob"))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("has_route", [True, False])
def test_a_refresh_gives_another_secret_of_the_same_user(
    backend: Backend, fake: FakeChatKit, *, reuse: bool, has_route: bool
) -> None:
    fake.refresh_route = has_route
    app = backend.app(reuse=reuse)
    first = secret_of(app.create())

    answer = app.refresh(first)

    assert secret_of(answer) != first
    assert {session.user for session in fake.sessions.values()} == {"ada"}


def test_signing_out_ends_the_sessions_of_that_user_alone(app: App, fake: FakeChatKit) -> None:
    for user in ("ada", "ada", "bob"):
        app.create(user)

    answer = app("DELETE", "/session")

    assert (answer.status_code, answer.body) == (204, b"")
    assert answer.headers["cache-control"] == "no-store"
    statuses = [(session.user, session.status) for session in fake.sessions.values()]
    assert statuses == [("ada", "cancelled"), ("ada", "cancelled"), ("bob", "active")]


def test_sessions_cannot_be_asked_for_by_id_unless_that_is_switched_on(app: App) -> None:
    session_id = app.create().json["session_id"]

    for method in ("GET", "DELETE"):
        assert app(method, f"/session/{session_id}").status_code == 404


def test_a_user_can_read_and_end_a_session_by_its_id(backend: Backend, fake: FakeChatKit) -> None:
    app = backend.app(session_by_id=True)
    session_id = cast("str", app.create().json["session_id"])

    told = app("GET", f"/session/{session_id}")
    head = app("HEAD", f"/session/{session_id}")
    ended = app("DELETE", f"/session/{session_id}")
    then = app("GET", f"/session/{session_id}")

    expires_at = "2026-11-22T12:10:00Z"
    assert told.json == {"session_id": session_id, "status": "active", "expires_at": expires_at}
    assert (head.status_code, ended.status_code, ended.body) == (200, 204, b"")
    assert then.json["status"] == "cancelled"
    assert fake.sessions[session_id].status == "cancelled"


@pytest.mark.parametrize("read_route", [False, True])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_somebody_elses_session_is_not_there(
    backend: Backend, fake: FakeChatKit, method: str, *, read_route: bool
) -> None:
    fake.read_route = read_route
    app = backend.app(session_by_id=True)
    session_id = cast("str", app.create("bob").json["session_id"])

    others = app(method, f"/session/{session_id}", user="ada")
    unknown = app(method, "/session/cksess_unknown", user="ada")
    no_id = app(method, "/session/a b", user="ada")

    for answer in (others, unknown, no_id):
        assert_refused(answer, 404, "not_found")
    assert others.body == unknown.body == no_id.body
    assert fake.sessions[session_id].status == "active"


def test_a_session_that_the_api_has_forgotten_counts_as_ended(
    backend: Backend, fake: FakeChatKit
) -> None:
    app = backend.app(session_by_id=True)
    session_id = cast("str", app.create().json["session_id"])
    message = f"Chatkit Session with id '{session_id}' not found."
    fake.fail_next(404, message=message, code="session_not_found", operation="cancel")

    assert app("DELETE", f"/session/{session_id}").status_code == 204


@pytest.mark.parametrize("prefix", ["/chat", "/a/b"])
def test_the_routes_are_below_the_prefix(backend: Backend, prefix: str) -> None:
    app = backend.app(prefix=prefix)

    assert secret_of(app.refresh(secret_of(app.create())))


def test_another_method_is_not_allowed(app: App) -> None:
    assert app("GET", "/session").status_code == 405
    assert app("PUT", "/session").status_code == 405
    assert app("DELETE", "/session/refresh").status_code == 405


# Who the user is, and what the session is


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/session"),
        ("POST", "/session/refresh"),
        ("DELETE", "/session"),
        ("GET", "/session/cksess_1"),
        ("DELETE", "/session/cksess_1"),
    ],
)
@pytest.mark.parametrize("user", [None, ""])
def test_nobody_gets_anything_without_signing_in(
    backend: Backend, fake: FakeChatKit, method: str, path: str, user: str | None
) -> None:
    app = backend.app(session_by_id=True, wiring=Wiring(user=lambda _: user))

    answer = app(method, path, json_body={"currentClientSecret": "ek_1", "user": "ada"})

    assert_refused(answer, 401, "unauthenticated")
    assert not fake.requests


def test_a_body_decides_nothing(app: App, fake: FakeChatKit) -> None:
    body = {"user": "bob", "workflow": {"id": "wf_other"}, "workflow_id": "wf_other", "reuse": True}

    created = app("POST", "/session", json_body=body)
    app(
        "POST",
        "/session/refresh",
        json_body={**body, "currentClientSecret": secret_of(created)},
    )

    assert len(fake.sessions) == 2
    for session in fake.sessions.values():
        assert (session.user, session.workflow_id) == ("ada", fake.workflow_id)


@pytest.mark.parametrize("has_route", [False, True])
def test_somebody_elses_secret_gives_a_session_of_ones_own(
    app: App, fake: FakeChatKit, *, has_route: bool
) -> None:
    fake.refresh_route = has_route
    others = app.create("bob")

    answer = app.refresh(secret_of(others), user="ada")

    assert fake.sessions[cast("str", answer.json["session_id"])].user == "ada"
    secrets = {each.client_secret for each in fake.sessions.values() if each.user == "bob"}
    assert secret_of(answer) not in secrets
    if not has_route:  # a server that has one may end what it refreshes, whoever asks
        assert fake.sessions[cast("str", others.json["session_id"])].status == "active"


def test_the_application_decides_the_options_of_a_session(
    backend: Backend, fake: FakeChatKit
) -> None:
    options: CreateSessionOptions = {
        "state_variables": {"plan": "pro"},
        "expires_after": 120,
        "max_requests_per_1_minute": 3,
    }
    app = backend.app(wiring=Wiring(options=lambda: options))

    app.create()

    sent = cast("JSON", fake.requests[0].json)
    assert cast("JSON", sent["workflow"])["state_variables"] == {"plan": "pro"}
    assert sent["expires_after"] == {"anchor": "created_at", "seconds": 120}
    assert sent["rate_limits"] == {"max_requests_per_1_minute": 3}


@pytest.mark.parametrize("framework", sorted({*FRAMEWORKS} - {"fastapi"}))  # it runs dependencies
def test_options_are_asked_for_only_where_somebody_is_signed_in(backend: Backend) -> None:
    def options() -> CreateSessionOptions:
        raise AssertionError("asked")

    app = backend.app(wiring=Wiring(options=options))

    assert app.create(user=None).status_code == 401


@pytest.mark.parametrize("user", [7, {"id": 7}])
def test_a_user_that_is_no_id_is_told_in_the_log(
    backend: Backend, caplog: pytest.LogCaptureFixture, user: object
) -> None:
    app = backend.app(wiring=Wiring(user=lambda _: user))

    assert_refused(app.create(), 502, "configuration_error")
    assert "`user` must be a string that identifies your end user" in caplog.text


def test_options_that_cannot_be_are_told_in_the_log(
    backend: Backend, fake: FakeChatKit, caplog: pytest.LogCaptureFixture
) -> None:
    app = backend.app(wiring=Wiring(options=lambda: {"expires_after": 3600}))

    assert_refused(app.create(), 502, "configuration_error")
    assert "`expires_after` must be 1 to 600 seconds, got 3600" in caplog.text
    assert not fake.requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expire_after": 300}, "'expire_after', which is not .* Did you mean 'expires_after'?"),
        ({"timeout": 1}, "'timeout', which is not an option of a session.\nHint: The options are"),
        ({1: 2}, "returned 1, which is not an option of a session.\nHint: The options are"),
        ([("tracing", True)], "must return a dictionary of .* or None, got a list"),
    ],
)
def test_options_that_do_not_exist_are_named_in_the_log(
    backend: Backend,
    fake: FakeChatKit,
    caplog: pytest.LogCaptureFixture,
    options: object,
    message: str,
) -> None:
    app = backend.app(wiring=Wiring(options=lambda: options))

    for answer in (app.create(), app.refresh("ek_1")):
        assert_refused(answer, 502, "configuration_error")
    assert len(re.findall(f"`options` .*{message}", caplog.text)) == 2
    assert not fake.requests


# Bodies


@pytest.mark.parametrize("content", [b"{", b"[]", b'"text"', b"null", b"\xff", b"[" * 60_000])
@pytest.mark.parametrize("path", ["/session", "/session/refresh"])
def test_a_body_that_is_no_json_object_is_refused(app: App, path: str, content: bytes) -> None:
    assert_refused(app("POST", path, content=content), 400, "invalid_request")


@pytest.mark.parametrize(
    "secret", [None, "", "  ", 7, ["ek_1"], "**********", "cksess_1", "\ud800"]
)
def test_what_is_no_secret_is_not_refreshed(app: App, fake: FakeChatKit, secret: object) -> None:
    assert_refused(app.refresh(secret), 400, "invalid_request")
    assert not fake.requests


def test_a_refresh_without_a_body_is_refused(app: App) -> None:
    assert_refused(app("POST", "/session/refresh"), 400, "invalid_request")
    assert_refused(app("POST", "/session/refresh", json_body={}), 400, "invalid_request")


def test_a_body_that_is_too_large_is_refused(app: App, fake: FakeChatKit) -> None:
    largest = b'{"a":"' + b"x" * (MAX_BODY - 8) + b'"}'

    assert app("POST", "/session", content=largest).status_code == 200
    fits_not = app("POST", "/session", content=largest + b" ")
    by_far = app("POST", "/session", content=largest * 40)

    for answer in (fits_not, by_far):
        assert_refused(answer, 413, "request_too_large")
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/json-seq",
        "text/plain, application/json",
    ],
)
@pytest.mark.parametrize("path", ["/session", "/session/refresh"])
def test_what_a_page_can_send_without_asking_its_browser_is_refused(
    app: App, fake: FakeChatKit, path: str, content_type: str | None
) -> None:
    content = b'{"currentClientSecret": "ek_1"}'

    answer = app("POST", path, content=content, content_type=content_type)

    assert_refused(answer, 415, "unsupported_media_type")
    assert not fake.requests


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_say_more_of_its_type(app: App, content_type: str) -> None:
    assert app("POST", "/session", content_type=content_type).status_code == 200


# Errors


@pytest.mark.parametrize(
    ("upstream", "code", "status_code", "told"),
    [
        (401, "invalid_api_key", 502, "configuration_error"),
        (403, None, 502, "configuration_error"),
        (404, "workflow_not_found", 502, "configuration_error"),
        (400, "invalid_beta", 502, "configuration_error"),
        (400, None, 502, "configuration_error"),
        (422, None, 502, "configuration_error"),
        (409, None, 502, "upstream_error"),
        (500, None, 502, "upstream_error"),
        (503, None, 502, "upstream_error"),
        (429, None, 429, "rate_limit_exceeded"),
    ],
)
def test_an_error_of_the_api_reaches_the_page_as_a_code_and_the_log_in_full(
    app: App,
    fake: FakeChatKit,
    caplog: pytest.LogCaptureFixture,
    *,
    upstream: int,
    code: str | None,
    status_code: int,
    told: str,
) -> None:
    fake.fail_next(
        upstream, message="Upstream words.", code=code, headers={"x-request-id": "req_77"}
    )

    answer = app.create()

    assert_refused(answer, status_code, told)
    assert b"Upstream" not in answer.body
    assert b"req_77" not in answer.body
    (record,) = [record for record in caplog.records if "responded with" in record.getMessage()]
    assert record.name == "chatkit_sessions"
    assert record.levelno == (logging.WARNING if upstream == 429 else logging.ERROR)
    message = record.getMessage()
    assert message.startswith(f"POST /session: responded with {status_code} {told}: {upstream}: ")
    assert "Upstream words." in message
    assert "req_77" in message
    assert "\nHint: " in message
    assert len(fake.requests) == 1, "no worker waits for a second attempt"


@pytest.mark.parametrize(
    ("retry_after", "told"), [("7", "7"), ("0.2", "1"), (None, "5"), ("100000", "100000")]
)
def test_a_rate_limit_of_the_api_is_passed_on_at_once(
    app: App, fake: FakeChatKit, retry_after: str | None, told: str
) -> None:
    fake.fail_next(429, headers={"retry-after": retry_after} if retry_after else None)

    answer = app.create()

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == told


@pytest.mark.parametrize(
    ("fault", "status_code", "told"),
    [("hang", 504, "upstream_timeout"), ("reset", 502, "upstream_error")],
)
def test_an_api_that_does_not_answer_is_told(
    app: App, fake: FakeChatKit, fault: str, status_code: int, told: str
) -> None:
    fake.fail_next(fault="hang" if fault == "hang" else "reset")

    assert_refused(app.create(), status_code, told)
    assert len(fake.requests) == 1


def test_an_answer_that_makes_no_sense_is_told(app: App, fake: FakeChatKit) -> None:
    fake.fail_next(200, body="<p>Hello</p>")

    assert_refused(app.create(), 502, "upstream_error")


def test_a_wrong_key_is_a_trouble_of_the_configuration(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    app = backend.app(backend.client(api_key="sk-wrong-key-of-somebody"))

    assert_refused(app.create(), 502, "configuration_error")
    assert_refused(app.refresh("ek_1"), 502, "configuration_error")
    assert "sk-wrong" not in caplog.text


def test_a_store_that_does_not_answer_keeps_a_user_from_signing_out_but_not_from_a_session(
    backend: Backend, time: Time
) -> None:
    store = FailingStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    app = backend.app(backend.client(AsyncFailingStore(store) if backend.is_async else store))
    store.out = True

    assert app.create().status_code == 200
    answer = app("DELETE", "/session")
    assert_refused(answer, 503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"


def test_the_call_ends_with_an_error_once_the_client_is_closed(backend: Backend) -> None:
    client = backend.client()
    app = backend.app(client)
    client._sessions.calls.lifetime.close()

    with pytest.raises(RuntimeError, match="is closed"):
        app.create()


# Other origins


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"{ORIGIN}:8080"},
        {"Origin": f"{ORIGIN}.evil.example"},
        {"Origin": f"{FOREIGN}, {ORIGIN}"},
        {"Origin": f"{ORIGIN}/"},
        {"Origin": "http://user@testserver"},
        {"Origin": "ftp://testserver"},
        {"Origin": "*"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": ""},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
        {"Origin": f"{PAGE}.evil.example"},
        {"Origin": f"{PAGE}:8443"},
        {"Origin": PAGE.replace("https", "http")},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/session"), ("POST", "/session/refresh"), ("DELETE", "/session")]
)
def test_a_page_of_another_origin_gets_nothing(
    backend: Backend,
    fake: FakeChatKit,
    caplog: pytest.LogCaptureFixture,
    *,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    app = backend.app(allowed_origins=[PAGE])

    answer = app(method, path, headers=headers, json_body={"currentClientSecret": "ek_1"})

    assert_refused(answer, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    assert not fake.requests
    assert "nor allowed" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": ORIGIN},
        {"Origin": "HTTP://TestServer:80"},
        {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": ORIGIN.replace("http", "https")},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},  # Firefox under `no-referrer`
    ],
    ids=str,
)
def test_a_page_of_the_same_origin_gets_its_session(app: App, headers: dict[str, str]) -> None:
    answer = app("POST", "/session", headers=headers)

    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", [None, "cross-site", "same-site"])
def test_a_page_of_a_listed_origin_gets_its_session(backend: Backend, site: str | None) -> None:
    app = backend.app(allowed_origins=["https://other.example:8443", PAGE])
    headers = {"Origin": PAGE, **({"Sec-Fetch-Site": site} if site else {})}

    answer = app("POST", "/session", headers=headers)
    refused = app("POST", "/session", headers=headers, user=None)

    assert answer.status_code == 200
    assert refused.status_code == 401
    for each in (answer, refused):
        assert each.headers["access-control-allow-origin"] == PAGE
        assert each.headers["access-control-allow-credentials"] == "true"
        assert each.headers["access-control-expose-headers"] == "Retry-After"
        assert each.headers["vary"] == "Origin"


def preflight(app: App, origin: str | None, **wanted: str) -> Answer:
    headers = {"Access-Control-Request-Method": "POST"} if origin else {}
    headers |= {"Origin": origin} if origin else {}
    headers |= {f"Access-Control-Request-{name}": value for name, value in wanted.items()}
    return app("OPTIONS", "/session", user=None, headers=headers)


@pytest.mark.parametrize("wanted", ["content-type", "content-type,x-csrftoken", "a, b"])
def test_a_preflight_of_a_listed_origin_is_answered(backend: Backend, wanted: str) -> None:
    answer = preflight(backend.app(allowed_origins=[PAGE]), PAGE, Headers=wanted)

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "POST, DELETE, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == wanted
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    assert "*" not in str(answer.headers)


def test_a_preflight_which_has_no_cookies_asks_nobody_who_is_signed_in(backend: Backend) -> None:
    def user(_: str | None) -> None:
        raise AssertionError("asked")

    app = backend.app(allowed_origins=[PAGE], wiring=Wiring(user=user))

    assert preflight(app, PAGE).status_code == 204


@pytest.mark.parametrize("wanted", ["", "*", "a b", "a;b"])
def test_a_preflight_allows_nothing_that_is_no_name_of_a_header(
    backend: Backend, wanted: str
) -> None:
    answer = preflight(backend.app(allowed_origins=[PAGE]), PAGE, Headers=wanted)

    assert answer.headers["access-control-allow-headers"] == "content-type"


@pytest.mark.parametrize("origin", [FOREIGN, "null", "*"])
def test_a_preflight_of_another_origin_is_refused(backend: Backend, origin: str) -> None:
    answer = preflight(backend.app(allowed_origins=[PAGE]), origin, Headers="content-type")

    assert_refused(answer, 403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, ORIGIN])
def test_whoever_is_of_the_same_origin_can_ask_for_the_methods(
    app: App, origin: str | None
) -> None:
    answer = preflight(app, origin)

    assert (answer.status_code, answer.headers["allow"]) == (204, "POST, DELETE, OPTIONS")
    assert "access-control-allow-origin" not in answer.headers


# Limits


def test_a_flood_is_stopped_and_nobody_else_is(app: App, fake: FakeChatKit, time: Time) -> None:
    answers = [app.create() for _ in range(29)]
    time.advance(20)
    answers.append(app.refresh(secret_of(answers[0])))
    sent = len(fake.requests)

    refused = [app.create(), app.refresh(secret_of(answers[1]))]
    other = app.create("bob")

    assert {answer.status_code for answer in answers} == {200}
    for answer in refused:
        assert_refused(answer, 429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "41"
    assert other.status_code == 200
    assert len(fake.requests) == sent + 1

    time.advance(41)
    assert [app.create().status_code for _ in range(30)] == [200] * 29 + [429]


@pytest.mark.parametrize(("limit", "admitted"), [(2, 2), (None, 40)])
def test_the_limit_is_the_applications_to_set(
    backend: Backend, limit: int | None, admitted: int
) -> None:
    app = backend.app(rate_limit=limit)

    statuses = [app.create().status_code for _ in range(40)]

    assert statuses == [200] * admitted + [429] * (40 - admitted)


def test_what_is_refused_does_not_count(backend: Backend) -> None:
    app = backend.app(rate_limit=1)

    app("POST", "/session", content=b"{")
    app.create(user=None)
    app.create(Origin=FOREIGN)

    assert app.create().status_code == 200


def test_workers_with_one_store_count_together_and_others_apart(
    backend: Backend, time: Time
) -> None:
    shared = MemorySessionStore(namespace="shop", clock=lambda: time.monotonic)
    together = [backend.app(backend.client(shared), rate_limit=3) for _ in range(2)]
    apart = [backend.app(rate_limit=3) for _ in range(2)]

    assert [app.create().status_code for app in together * 2] == [200, 200, 200, 429]
    assert [app.create().status_code for app in apart * 2] == [200] * 4


def test_the_process_counts_by_itself_while_the_store_does_not_answer(
    backend: Backend, time: Time
) -> None:
    store = FailingStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    app = backend.app(
        backend.client(AsyncFailingStore(store) if backend.is_async else store), rate_limit=2
    )
    store.out = True

    assert [app.create().status_code for _ in range(3)] == [200, 200, 429]


class CountingStore(MemorySessionStore):
    """Counts what it is asked."""

    operations = 0

    def get(self, group: str, names: "Sequence[str]") -> list[Entry | None]:
        self.operations += 1
        return super().get(group, names)


def test_who_is_over_the_limit_in_this_process_costs_the_store_nothing(
    backend: Backend, time: Time
) -> None:
    store = CountingStore(namespace="shop", clock=lambda: time.monotonic)
    app = backend.app(backend.client(store), rate_limit=2)
    assert [app.create().status_code for _ in range(2)] == [200, 200]
    asked = store.operations

    assert [app.create().status_code for _ in range(5)] == [429] * 5
    assert 0 < asked == store.operations


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allowed_origins": ["*"]}, "`allowed_origins` must be origins such as"),
        ({"allowed_origins": ["null"]}, "`allowed_origins` must be origins such as"),
        ({"allowed_origins": ["https://a.example/"]}, "`allowed_origins` must be origins such as"),
        ({"allowed_origins": ["a.example"]}, "`allowed_origins` must be origins such as"),
        ({"allowed_origins": "https://a.example"}, "must be a list of origins"),
        ({"allowed_origins": None}, "must be a list of origins, got None"),
        ({"allowed_origins": [5]}, "`allowed_origins` must be origins such as .*, got 5"),
        ({"rate_limit": 0}, "`rate_limit` must be a whole number from 1 to 1,000"),
        ({"rate_limit": 1001}, "`rate_limit` must be"),
        ({"rate_limit": True}, "`rate_limit` must be"),
        ({"rate_limit": 1.5}, "`rate_limit` must be"),
        ({"timeout": 0}, "`timeout`"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    backend: Backend, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        backend.app(**cast("EndpointSettings", settings))


def test_the_other_kind_of_client_is_refused(time: Time, fake: FakeChatKit) -> None:
    wrong: list[tuple[Framework, Framework, str]] = [
        ("starlette", "flask", "AsyncChatKitEndpoint needs the client AsyncChatKitClient"),
        ("fastapi", "flask", "AsyncChatKitEndpoint needs the client AsyncChatKitClient"),
        ("flask", "fastapi", "ChatKitEndpoint needs the client ChatKitClient"),
    ]
    for framework, other, message in wrong:
        client = Backend(other, time, fake).client()
        with pytest.raises(ConfigurationError, match=message):
            Backend(framework, time, fake).app(client)


# Secrets


def test_no_secret_is_shown(
    backend: Backend, fake: FakeChatKit, caplog: pytest.LogCaptureFixture
) -> None:
    app = backend.app(session_by_id=True, allowed_origins=[PAGE])
    answers: list[Callable[[], Answer]] = [
        app.create,
        lambda: app.refresh("ek_from_the_browser_0123456789"),
        lambda: app("POST", "/session/refresh", content=b'"ek_from_the_browser_0123456789"'),
        lambda: app("POST", "/session", headers={"Origin": "https://ek_from_the_browser_012345"}),
    ]

    with caplog.at_level(logging.DEBUG, "chatkit_sessions"):
        for upstream in (None, 400, 500):
            if upstream:
                echo = "ek_from_the_browser_0123456789 sk-test"
                fake.fail_next(upstream, message=echo, times=5)
            for ask in answers:
                assert "ek_" not in repr(ask())

    assert caplog.records
    shown = caplog.text
    assert "ek_from" not in shown
    for session in fake.sessions.values():
        assert session.client_secret not in shown
    assert fake.api_key not in json.dumps(shown)


@pytest.mark.parametrize("make", [ChatKitEndpoint, AsyncChatKitEndpoint])
def test_a_setting_that_does_not_exist_is_named_with_a_similar_one(
    make: Any,  # noqa: ANN401 -- either class
) -> None:
    with pytest.raises(
        TypeError, match=r"an endpoint has no setting 'resue'\. Did you mean 'reuse'"
    ):
        make(None, resue=True)


@pytest.mark.parametrize(
    ("make", "service"),
    [(ChatKitEndpoint, SessionsService), (AsyncChatKitEndpoint, AsyncSessionsService)],
)
def test_a_service_is_no_client(make: Any, service: Any) -> None:  # noqa: ANN401 -- either class
    with pytest.raises(ConfigurationError, match="SessionsService") as raised:
        make(service(MemorySessionStore()))

    assert raised.value.hint.startswith("Pass a client of the service: `service.client()`.")
