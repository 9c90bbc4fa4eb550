"""What the deployments that people have do around the endpoint."""

import json
from typing import Literal, cast

import pytest

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ConfigurationError
from chatkit_sessions.integrations import CreateSessionOptions, EndpointSettings
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from endpoint_apps import (
    LOGIN,
    ORIGIN,
    App,
    Backend,
    Wiring,
    assert_refused,
    secret_of,
)
from support import Time

PAGE = "https://app.example.com"
SAME_ORIGIN = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}


# What a framework does around a view


def test_a_page_can_read_what_the_application_raises(backend: Backend) -> None:
    app = backend.app(allowed_origins=[PAGE], wiring=Wiring(refuses=True))

    refused = app.create(Origin=PAGE)
    own = app.create(Origin=ORIGIN)

    assert (refused.status_code, own.status_code) == (403, 403)
    assert refused.headers["access-control-allow-origin"] == PAGE
    assert refused.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in own.headers
    assert refused.headers["vary"] == own.headers["vary"] == "Origin"


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_a_cookie_that_the_application_sets_reaches_the_page(backend: Backend) -> None:
    app = backend.app(wiring=Wiring(sets_cookie=True))

    for answer in (app.create(), app.create(user=None)):
        assert answer.headers["set-cookie"].startswith("seen=yes")


@pytest.mark.parametrize("framework", ["fastapi"])
def test_a_preflight_passes_what_guards_the_whole_application(backend: Backend) -> None:
    app = backend.app(allowed_origins=[PAGE], wiring=Wiring(needs_login=True))
    wanted = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}

    preflight = app("OPTIONS", "/session", user=None, headers=wanted)
    nobody = app.create(user=None, Origin=PAGE)

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert nobody.status_code == 401
    assert nobody.headers["access-control-allow-origin"] == PAGE
    assert app.create(Origin=PAGE).status_code == 200


# A client made later


def test_a_client_can_be_made_when_a_request_needs_it(backend: Backend, fake: FakeChatKit) -> None:
    made: list[ChatKitClient | AsyncChatKitClient] = []

    def client() -> ChatKitClient | AsyncChatKitClient:
        if not made:
            made.append(backend.client())
        return made[0]

    app = backend.app(wiring=Wiring(late_client=client))
    assert not made

    assert secret_of(app.create()) != secret_of(app.create())
    app("DELETE", "/session")

    assert len(made) == 1
    assert {session.status for session in fake.sessions.values()} == {"cancelled"}


def test_what_returns_no_client_is_reported_in_the_log(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    app = backend.app(wiring=Wiring(late_client=lambda: None))

    assert_refused(app.create(), 502, "configuration_error")
    assert "needs the client" in caplog.text


# Paths


@pytest.mark.parametrize("prefix", ["/chat/", "chat", "/chat"])
def test_slashes_around_a_prefix_make_no_difference(backend: Backend, prefix: str) -> None:
    app = App(backend.app(prefix=prefix).send, "/chat")

    assert app.create().status_code == 200


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_routes_can_be_at_the_root(backend: Backend, prefix: str) -> None:
    assert App(backend.app(prefix=prefix).send, "").create().status_code == 200


@pytest.mark.parametrize(
    "prefix", ["/a b", "/a//b", "/a?b", "/a#b", "/../b", "/a/.", "/a%20b", "/a\n", "/a\\b", 7, None]
)
def test_what_cannot_be_a_path_is_no_prefix(backend: Backend, prefix: object) -> None:
    with pytest.raises(ConfigurationError, match="`prefix` must be a path"):
        backend.app(prefix=cast("str", prefix))


def test_routes_have_the_names_that_existing_pages_call(backend: Backend) -> None:
    app = backend.app(
        prefix="/api", session_path="/create-session", refresh_path="/refresh", session_by_id=True
    )

    created = app("POST", "/create-session", json_body={})
    body = {"currentClientSecret": secret_of(created)}
    refreshed = app("POST", "/refresh", json_body=body)
    read = app("GET", f"/create-session/{refreshed.json['session_id']}")

    assert secret_of(refreshed) != secret_of(created)
    assert read.json["status"] == "active"
    assert app("DELETE", "/create-session").status_code == 204
    assert app("POST", "/session").status_code == 404


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"session_path": ""}, "`session_path` must be a path"),
        ({"session_path": "start"}, "`session_path` must be a path"),
        ({"refresh_path": "/refresh/"}, "`refresh_path` must be a path"),
        ({"session_path": "/{tenant}/session"}, "must not have variables, got '/{tenant}/session'"),
        ({"refresh_path": "/<name>"}, "must not have variables, got '/<name>'"),
        ({"session_path": "/a", "refresh_path": "/a"}, "must differ, got '/a' for both"),
    ],
)
def test_paths_that_cannot_be_are_rejected(
    backend: Backend, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        backend.app(**cast("EndpointSettings", settings))


# Requests as pages and guides send them


@pytest.mark.parametrize(
    "headers",
    [
        SAME_ORIGIN,
        {"Origin": ORIGIN},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_a_page_need_not_name_the_type_of_a_body_that_it_does_not_send(
    backend: Backend, headers: dict[str, str]
) -> None:
    app = backend.app(allowed_origins=[PAGE])

    assert app("POST", "/session", content_type=None, headers=headers).status_code == 200
    with_body = app("POST", "/session", content_type=None, headers=headers, content=b"{}")
    assert_refused(with_body, 415, "unsupported_media_type")


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none"}], ids=str)
def test_elsewhere_the_header_that_is_missing_is_named(app: App, headers: dict[str, str]) -> None:
    answer = app("POST", "/session", content_type=None, headers=headers)

    assert_refused(answer, 415, "unsupported_media_type")
    assert answer.error_message == "The header `Content-Type: application/json` is missing."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is missing"),
        (b"{}", "is missing"),
        (b'{"currentClientSecret": null}', "is missing"),
        (b'{"client_secret": "ek_1"}', "is missing"),
        (b'{"currentClientSecret": 7}', "is not a client secret"),
    ],
)
def test_a_refresh_without_the_secret_says_what_is_missing(
    app: App, content: bytes, told: str
) -> None:
    answer = app("POST", "/session/refresh", content=content)

    assert_refused(answer, 400, "invalid_request")
    assert f"`currentClientSecret` {told}" in answer.error_message


# The server's own origin


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("shop.example:443", "https://shop.example"),
        ("shop.example:8443", "https://shop.example:8443"),
        ("SHOP.example", "http://shop.example"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("shop.example.", "https://shop.example."),
    ],
)
def test_a_page_of_this_server_gets_its_session_whatever_the_host(
    backend: Backend, host: str, origin: str
) -> None:
    headers = {"Host": host, "Origin": origin, "Sec-Fetch-Site": "same-origin"}

    assert backend.app()("POST", "/session", headers=headers).status_code == 200


def test_a_page_without_tls_is_another_than_the_server_with_it(backend: Backend) -> None:
    app = backend.app(wiring=Wiring(origin=ORIGIN.replace("http", "https")))

    assert app.create(Origin=ORIGIN.replace("http", "https")).status_code == 200
    assert app.create(Origin=ORIGIN).status_code == 403


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "flask"])  # Django rejects the host
def test_a_host_may_have_an_underscore(app: App) -> None:
    headers = {"Host": "my_shop.example", "Origin": "https://my_shop.example"}

    assert app("POST", "/session", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("shop.example:443", "https://shop.example:8443"),
        ("shop.example:8443", "https://shop.example"),
        ("shop.example", "https://shop.example:80"),
        ("shop.example", "https://shop.example.evil.example"),
        ("shop.example:443", "http://shop.example"),
    ],
)
def test_a_page_of_another_port_or_host_gets_nothing(app: App, host: str, origin: str) -> None:
    answer = app("POST", "/session", headers={"Host": host, "Origin": origin})

    assert_refused(answer, 403, "origin_not_allowed")


def test_a_page_cannot_name_the_servers_host_itself(app: App) -> None:
    """No page can send this header without a preflight; and nothing vouches for it here."""
    headers = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}

    assert_refused(app("POST", "/session", headers=headers), 403, "origin_not_allowed")


def test_the_log_names_both_origins_and_what_to_set(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app("POST", "/session", headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site"})

    (record,) = [each for each in caplog.records if each.name == "chatkit_sessions"]
    told = record.getMessage()
    for each in (PAGE, ORIGIN, "cross-site", "Host header", "`allowed_origins`", "explain CORS"):
        assert each in told


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://pr-12.preview.example.com", 200),
        ("https://a.b.preview.example.com", 403),
        ("https://preview.example.com", 403),
        ("http://pr-12.preview.example.com", 403),
        ("https://pr-12.preview.example.com:8443", 403),
        ("https://pr-12.preview.example.com.evil.example", 403),
        ("https://evilpreview.example.com", 403),
        ("https://.preview.example.com", 403),
        ("https://*.preview.example.com", 403),
    ],
)
def test_a_pattern_allows_one_label(backend: Backend, origin: str, status: int) -> None:
    app = backend.app(allowed_origins=["https://*.preview.example.com"])

    answer = app.create(Origin=origin)

    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


# Limits


def test_the_routes_by_id_are_counted_and_ask_the_api_no_more_than_once(
    backend: Backend, fake: FakeChatKit
) -> None:
    app = backend.app(session_by_id=True, rate_limit=5)
    path = f"/session/{app.create().json['session_id']}"

    statuses = [app("DELETE", path).status_code for _ in range(6)]

    assert statuses == [204] * 4 + [429] * 2
    assert len([each for each in fake.requests if each.path.endswith("/cancel")]) == 1
    assert app("GET", path).status_code == 429
    assert app("DELETE", "/session").status_code == 204, "signing out is never refused"


@pytest.mark.parametrize("read_route", [False, True])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_id_that_cannot_be_one_is_not_there(
    backend: Backend, fake: FakeChatKit, method: str, *, read_route: bool
) -> None:
    fake.read_route = read_route
    app = backend.app(session_by_id=True)

    assert_refused(app(method, "/session/abc"), 404, "not_found")


@pytest.mark.parametrize("code", ["invalid_beta", None])
def test_another_error_of_reading_is_no_missing_session(
    backend: Backend, fake: FakeChatKit, code: str | None
) -> None:
    fake.read_route = True
    app = backend.app(session_by_id=True)
    fake.fail_next(400, code=code)

    assert_refused(app("GET", "/session/cksess_1"), 502, "configuration_error")


class CountingStore(MemorySessionStore):
    commits = 0

    def commit(self, *arguments: object, **named: object) -> bool:
        self.commits += 1
        return super().commit(*arguments, **named)  # type: ignore[arg-type]  # as they came


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_what_this_process_can_refuse_itself_does_not_reach_the_store(
    backend: Backend, time: Time
) -> None:
    store = CountingStore(namespace="shop", clock=lambda: time.monotonic)
    app = backend.app(backend.client(store), rate_limit=2)
    assert [app.create().status_code for _ in range(2)] == [200, 200]
    commits = store.commits

    assert [app.create().status_code for _ in range(10)] == [429] * 10
    assert store.commits == commits


def test_what_the_store_refuses_does_not_count_in_the_process(backend: Backend, time: Time) -> None:
    store = MemorySessionStore(namespace="shop", clock=lambda: time.monotonic)
    one, other = [backend.app(backend.client(store), rate_limit=2) for _ in range(2)]
    assert [one.create().status_code for _ in range(2)] == [200, 200]
    time.advance(30)
    assert [other.create().status_code for _ in range(5)] == [429] * 5

    time.advance(31)  # a request counts for a minute, and up to a second longer

    assert [other.create().status_code for _ in range(3)] == [200, 200, 429]


def test_the_users_of_two_clients_are_counted_apart(backend: Backend) -> None:
    tenants = [backend.client(MemorySessionStore(namespace=each)) for each in ("north", "south")]
    turn = iter(tenants * 2)
    app = backend.app(rate_limit=1, wiring=Wiring(late_client=lambda: next(turn)))

    assert [app.create().status_code for _ in range(4)] == [200, 200, 429, 429]


@pytest.mark.parametrize("field", ["code", "type"])
@pytest.mark.parametrize("value", ["insufficient_quota", "billing_hard_limit_reached"])
def test_a_quota_that_is_used_up_is_no_rate_limit(
    app: App,
    fake: FakeChatKit,
    caplog: pytest.LogCaptureFixture,
    field: Literal["code", "type"],
    value: str,
) -> None:
    code, kind = (value, None) if field == "code" else (None, value)
    fake.fail_next(429, code=code, type=kind, headers={"retry-after": "7"})

    answer = app.create()

    assert_refused(answer, 502, "configuration_error")
    assert "retry-after" not in answer.headers
    ours = [record for record in caplog.records if record.name == "chatkit_sessions"]
    assert [record.levelname for record in ours] == ["ERROR"]


# A sign-out meanwhile


@pytest.mark.parametrize("reuse", [False, True])
def test_a_sign_out_while_a_session_is_created_is_409(
    backend: Backend, fake: FakeChatKit, caplog: pytest.LogCaptureFixture, *, reuse: bool
) -> None:
    store = MemorySessionStore(namespace="shop")
    elsewhere = cast("ChatKitClient", Backend("flask", backend.time, fake).client(store))

    def sign_out(_: object) -> bool:
        elsewhere.delete_sessions("ada")
        return False

    fake.fail_next(500, operation="create", when=sign_out)
    app = backend.app(backend.client(store), reuse=reuse)

    assert_refused(app.create(), 409, "session_deleted")
    assert [session.status for session in fake.sessions.values()] == ["cancelled"]
    ours = [record for record in caplog.records if record.name == "chatkit_sessions"]
    assert [record.levelname for record in ours] == ["WARNING"]
    fake.recover()
    assert app.create().status_code == 200


# Several workflows from one page


@pytest.mark.parametrize(("name", "workflow"), [("sales", "wf_sales"), ("evil", "wf_support")])
def test_the_application_maps_a_name_in_the_body_to_a_workflow(
    backend: Backend, fake: FakeChatKit, name: str, workflow: str
) -> None:
    wiring = Wiring(reads_body=("options",))

    def options() -> CreateSessionOptions:
        asked = cast("dict[str, str]", json.loads(wiring.bodies[-1]))
        workflows = {"sales": "wf_sales"}
        return {"workflow_id": workflows.get(asked["assistant"], "wf_support")}

    wiring.options = options
    fake.add_workflow("wf_sales")
    fake.add_workflow("wf_support")
    app = backend.app(wiring=wiring)

    app("POST", "/session", json_body={"assistant": name}, headers={LOGIN: "ada"})

    (session,) = fake.sessions.values()
    assert session.workflow_id == workflow
