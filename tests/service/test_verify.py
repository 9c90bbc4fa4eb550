"""Whose request is it: what `verify` returns and raises, for both services over both stores."""

import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from chatkit_sessions import (
    ChatKitError,
    ConfigurationError,
    InvalidRequestError,
    SessionStoreError,
)
from chatkit_sessions._sessions.rate_limit import count_request
from chatkit_sessions.service import ClientSecretRateLimitError, InvalidClientSecretError
from chatkit_sessions.stores import Entry
from redis_server import running_redis
from services import API_KEY, OTHER_KEY, SESSIONS, BlockingService, Services
from support import JSON, NOON, Kind


def reason_of(
    service: BlockingService,
    secret: str | SecretStr | None,
    *,
    workflow_id: str | None = None,
    project: str | None = None,
) -> str:
    with pytest.raises(InvalidClientSecretError) as raised:
        service.verify(secret, workflow_id=workflow_id, project=project)
    return raised.value.reason


def refresh(service: BlockingService, secret: str) -> tuple[int, str]:
    status, session = service.ask(f"{SESSIONS}/refresh", {"client_secret": secret})
    return status, str(session.get("client_secret"))


def test_the_session_behind_a_secret_is_returned(service: BlockingService) -> None:
    session = service.create(
        workflow={"id": "support", "version": "2", "state_variables": {"plan": "pro", "seats": 3}},
        expires_after={"anchor": "created_at", "seconds": 300},
        chatkit_configuration={"file_upload": {"enabled": True, "max_files": 2}},
    )

    context = service.verify(str(session["client_secret"]))

    assert (context.session_id, context.user, context.project) == (session["id"], "ada", "shop")
    assert (context.workflow_id, context.workflow_version) == ("support", "2")
    assert context.state_variables == {"plan": "pro", "seats": 3}
    assert context.expires_at == NOON + timedelta(seconds=300)
    assert (context.settings.file_upload, context.settings.max_files) == (True, 2)


def test_a_session_without_variables_has_none_of_them(service: BlockingService) -> None:
    assert service.verify(service.create_secret()).state_variables == {}


def test_what_is_returned_cannot_be_changed(service: BlockingService) -> None:
    context = service.verify(service.create_secret())

    with pytest.raises(AttributeError):
        context.user = "eve"  # type: ignore[misc]
    with pytest.raises(TypeError):
        context.state_variables["plan"] = "pro"  # type: ignore[index]


def test_the_variables_of_two_requests_are_two(service: BlockingService) -> None:
    session = service.create(workflow={"id": "support", "state_variables": {"seats": 3}})
    secret = str(session["client_secret"])
    first = service.verify(secret).settings.state_variables
    assert isinstance(first, dict)
    first["seats"] = 100

    assert service.verify(secret).settings.state_variables == {"seats": 3}


def test_a_secret_may_be_wrapped(service: BlockingService) -> None:
    assert service.verify(SecretStr(service.create_secret())).user == "ada"


@pytest.mark.parametrize("secret", [None, "", SecretStr("")])
def test_no_secret_is_missing(
    services: Services, service: BlockingService, secret: str | SecretStr | None
) -> None:
    assert reason_of(service, secret) == "missing"
    assert services.store.calls == []


@pytest.mark.parametrize(
    "secret",
    ["ek_", "ek_1", "x", "sk-test", "é" * 67, "ek_" + "A" * 64, "٣" * 64, "ek_" + "0" * 1_000_000],
    ids=lambda secret: str(secret)[:8],
)
def test_what_is_not_shaped_like_a_secret_costs_no_call_of_the_store(
    services: Services, service: BlockingService, secret: str
) -> None:
    assert reason_of(service, secret) == "unknown"
    assert services.store.calls == []


@pytest.mark.parametrize("given", [b"ek_1", 1, ["ek_1"]])
def test_what_no_request_carries_is_a_mistake_of_the_caller(
    service: BlockingService,
    given: Any,  # noqa: ANN401 -- many types
) -> None:
    with pytest.raises(InvalidRequestError, match="as a string or a SecretStr"):
        service.verify(given)


def test_a_session_is_not_its_secret(service: BlockingService) -> None:
    session = service.client().create_session("ada")

    with pytest.raises(InvalidRequestError, match="got a ChatKitSessionResponse"):
        service.verify(session)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (f"Bearer ek_{'0' * 64}", "begins with `Bearer `: pass the secret alone"),
        ("**********", "is masked"),
        (f"cksess_{'0' * 48}", "is a session's id"),
        (" ", "is empty"),
    ],
)
def test_an_unknown_text_is_rejected_with_what_it_looks_like(
    service: BlockingService, caplog: pytest.LogCaptureFixture, secret: str, problem: str
) -> None:
    caplog.set_level("INFO", "chatkit_sessions")

    with pytest.raises(InvalidClientSecretError) as raised:
        service.verify(secret)

    assert raised.value.reason == "unknown"
    assert raised.value.message.startswith(f"The client secret {problem}")
    assert raised.value.message in caplog.text


def test_a_wrong_a_foreign_and_a_cut_secret_are_unknown(
    services: Services, service: BlockingService
) -> None:
    secret = service.create_secret()
    other = service.create_secret("eve")
    services.store.calls.clear()
    wrong_digit = secret[:-1] + ("0" if secret[-1] != "0" else "1")

    assert reason_of(service, wrong_digit) == "unknown"
    assert reason_of(service, secret[:27] + other[27:]) == "unknown"
    assert reason_of(service, other[:27] + secret[27:]) == "unknown"
    assert reason_of(service, secret[:-1]) == "unknown"
    assert reason_of(service, f"{secret}\n") == "unknown"
    assert len(services.store.calls) == 3


def test_an_expired_session_is_reported_to_who_has_its_secret(
    services: Services, service: BlockingService
) -> None:
    secret = service.create_secret()
    wrong = secret[:-4] + "0000"
    services.advance(599)
    assert service.verify(secret).user == "ada"

    services.advance(1)

    assert reason_of(service, secret) == "expired"
    assert reason_of(service, wrong) == "unknown"


def test_an_expired_session_is_forgotten_after_an_hour(
    services: Services, service: BlockingService
) -> None:
    secret = service.create_secret()

    services.advance(600 + 3_601)

    assert reason_of(service, secret) == "unknown"


def test_a_cancelled_session_is_reported_to_who_has_its_secret(service: BlockingService) -> None:
    session = service.create()
    secret = str(session["client_secret"])

    service.ask(f"{SESSIONS}/{session['id']}/cancel")

    assert reason_of(service, secret) == "cancelled"
    assert reason_of(service, secret[:-4] + "0000") == "unknown"


def test_another_process_verifies_what_this_one_issued(services: Services) -> None:
    secret = services().create_secret()

    assert services(api_keys=()).verify(secret).user == "ada"


def test_a_secret_is_for_one_workflow_and_one_project(services: Services) -> None:
    service = services(workflows={"support", "sales"})
    secret = service.create_secret()

    assert service.verify(secret, workflow_id="support", project="shop").user == "ada"
    for workflow_id, project in (("sales", None), (None, "forum"), ("support", "forum")):
        assert reason_of(service, secret, workflow_id=workflow_id, project=project) == "unknown"


@pytest.mark.parametrize(
    ("audience", "kind", "message"),
    [
        ({"workflow_id": "suport"}, ConfigurationError, "has no workflow 'suport'"),
        ({"workflow_id": ""}, InvalidRequestError, "`workflow_id` must be a string of 1 character"),
        ({"workflow_id": ["support"]}, InvalidRequestError, "`workflow_id` must be a string"),
        ({"project": ""}, InvalidRequestError, "`project` must be a string of 1 character or more"),
        ({"project": 5}, InvalidRequestError, "`project` must be a string"),
    ],
)
def test_no_secret_is_unknown_because_of_a_mistake_of_the_chat_server(
    services: Services, audience: dict[str, Any], kind: type[Exception], message: str
) -> None:
    service = services(workflows={"support", "sales"})

    with pytest.raises(kind, match=message):
        service.verify(service.create_secret(), **audience)


def test_without_workflows_of_its_own_a_service_knows_any(services: Services) -> None:
    service = services(workflows=None)

    assert reason_of(service, service.create_secret(), workflow_id="suport") == "unknown"


def test_a_secret_for_others_is_unknown_even_if_it_has_ended(services: Services) -> None:
    service = services(workflows={"support", "sales"})
    secret = service.create_secret()
    services.advance(601)

    assert reason_of(service, secret, workflow_id="sales") == "unknown"
    assert reason_of(service, secret, workflow_id="support") == "expired"


def test_a_workflow_that_the_service_does_not_have_any_more_ends(services: Services) -> None:
    before = services(workflows={"support", "sales"})
    session = before.create(workflow={"id": "sales"})
    secret = str(session["client_secret"])

    service = services(workflows={"support"})

    assert reason_of(service, secret) == "unknown"
    assert refresh(service, secret)[0] == 400
    assert before.verify(secret).workflow_id == "sales", "for those who have it"
    assert service.ask(f"{SESSIONS}/{session['id']}/cancel")[0] == 200
    assert reason_of(before, secret) == "cancelled"


def test_the_rate_limit_counts_over_a_sliding_minute(
    services: Services, service: BlockingService
) -> None:
    secret = service.create_secret(limit=2)
    service.verify(secret)
    services.advance(20)
    service.verify(secret)
    services.advance(10)

    with pytest.raises(ClientSecretRateLimitError) as raised:
        service.verify(secret)

    assert 29 < raised.value.retry_after <= 31.1
    services.advance(31)
    assert service.verify(secret).user == "ada"


def test_a_rejected_request_is_not_counted(services: Services, service: BlockingService) -> None:
    secret = service.create_secret(limit=1)
    service.verify(secret)
    for _ in range(3):
        with pytest.raises(ClientSecretRateLimitError):
            service.verify(secret)

    services.advance(61)

    assert service.verify(secret).user == "ada"


def test_requests_that_only_read_are_neither_counted_nor_limited(service: BlockingService) -> None:
    secret = service.create_secret(limit=1)

    for _ in range(3):
        service.verify(secret, count=False)
    service.verify(secret)

    assert service.verify(secret, count=False).user == "ada"


def test_a_refresh_carries_the_count_over(service: BlockingService) -> None:
    secret = service.create_secret(limit=2)
    service.verify(secret)

    status, renewed = refresh(service, secret)

    assert status == 200
    service.verify(renewed)
    with pytest.raises(ClientSecretRateLimitError):
        service.verify(renewed)
    assert reason_of(service, secret) == "cancelled"


class TestTheLimitOfAUser:
    def test_counts_all_sessions_of_the_user_in_every_process(self, services: Services) -> None:
        one, other = [services(max_requests_per_user_per_1_minute=3) for _ in range(2)]
        secrets = [one.create_secret() for _ in range(4)]
        one.verify(secrets[0])
        one.verify(secrets[1])
        other.verify(secrets[2])

        with pytest.raises(ClientSecretRateLimitError) as raised:
            other.verify(secrets[3])

        assert 59 < raised.value.retry_after <= 61
        assert other.verify(one.create_secret("bob")).user == "bob"
        assert other.verify(secrets[3], count=False).user == "ada"
        services.advance(62)
        assert other.verify(secrets[3]).user == "ada"

    def test_outlives_a_refresh(self, services: Services) -> None:
        service = services(max_requests_per_user_per_1_minute=1)
        secret = service.create_secret()
        service.verify(secret)

        _, renewed = refresh(service, secret)

        with pytest.raises(ClientSecretRateLimitError):
            service.verify(renewed)

    def test_does_not_count_what_the_session_s_own_limit_rejects(self, services: Services) -> None:
        service = services(max_requests_per_user_per_1_minute=2)
        secret = service.create_secret(limit=1)
        service.verify(secret)
        for _ in range(3):
            with pytest.raises(ClientSecretRateLimitError):
                service.verify(secret)

        assert service.verify(service.create_secret()).user == "ada"

    def test_is_of_one_project(self, services: Services) -> None:
        service = services(max_requests_per_user_per_1_minute=1)
        service.verify(service.create_secret())

        session = service.create(key=OTHER_KEY)

        assert service.verify(str(session["client_secret"])).project == "other"

    def test_counts_a_request_once_though_others_count_meanwhile(self, services: Services) -> None:
        service = services(max_requests_per_user_per_1_minute=2)
        secret = service.create_secret()
        services.store.conflicts = 3

        service.verify(secret)

        assert services.store.conflicts == 0
        service.verify(secret)
        with pytest.raises(ClientSecretRateLimitError):
            service.verify(secret)

    def test_ends_as_an_outage_if_it_can_never_be_counted(
        self, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = services(max_requests_per_user_per_1_minute=2)
        secret = service.create_secret()
        monkeypatch.setattr("chatkit_sessions.service._flow._MAX_ATTEMPTS", 3)
        services.store.conflicts = 3

        with pytest.raises(SessionStoreError, match="too fast"):
            service.verify(secret)

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10"])
    def test_is_a_number(self, services: Services, limit: object) -> None:
        with pytest.raises(ConfigurationError, match="max_requests_per_user_per_1_minute"):
            services(max_requests_per_user_per_1_minute=limit)


def test_a_request_that_is_counted_while_the_session_is_cancelled_is_rejected(
    services: Services, service: BlockingService
) -> None:
    services.store.saves_round_trips = False  # one call could not be interrupted
    session = service.create()

    services.store.before_commit = lambda: cancel_in_store(services, service, session)

    assert reason_of(service, str(session["client_secret"])) == "cancelled"


@pytest.mark.parametrize("counted", [True, False])
def test_a_session_that_ends_while_the_body_is_read_is_rejected(
    services: Services, service: BlockingService, *, counted: bool
) -> None:
    cancelled, expired = service.create(), service.create()

    def read_while_it_is_cancelled() -> bool:
        cancel_in_store(services, service, cancelled)
        return counted

    def read_until_it_expires() -> bool:
        services.advance(600)
        return counted

    with pytest.raises(InvalidClientSecretError, match="cancelled"):
        service.verify(str(cancelled["client_secret"]), count=read_while_it_is_cancelled)
    with pytest.raises(InvalidClientSecretError, match="expired"):
        service.verify(str(expired["client_secret"]), count=read_until_it_expires)


async def counts_nothing() -> bool:
    return False


@pytest.mark.parametrize("count", [counts_nothing, partial(counts_nothing)])
def test_a_coroutine_function_decides_in_async_code_and_is_rejected_in_sync_code(
    services: Services, count: Callable[[], Awaitable[bool]]
) -> None:
    service = services()
    secret = service.create_secret(limit=1)

    if services.kind == "async":
        service.verify(secret, count=count)
    else:
        message = "`count` is an async function: SessionsService needs a plain one"
        with pytest.raises(ConfigurationError, match=message):
            service.verify(secret, count=count)

    assert service.verify(secret).user == "ada", "nothing was counted"


def cancel_in_store(services: Services, service: BlockingService, session: JSON) -> None:
    """Cancel a session while the service of a test may be in the middle of its event loop."""
    group = service.wrapped._flow._rules.group_of_session(str(session["id"]))
    (entry,) = services.store._store.get(group, ["session"])
    assert entry is not None
    changed = json.loads(entry.value) | {"cancelled": True}
    cancelled = type(entry)(type(entry.value)(json.dumps(changed).encode()), entry.seconds)
    services.store._store.commit(group, {"session": cancelled}, when={})


def test_a_request_counted_meanwhile_is_counted_as_well(
    services: Services, service: BlockingService
) -> None:
    services.store.saves_round_trips = False  # as above
    secret = service.create_secret(limit=2)
    group = service.wrapped._flow._rules.group_of_secret(SecretStr(secret))
    assert group is not None
    entry = Services.__call__(services)  # another process

    def count() -> None:
        counted = count_request(None, limit=2)
        assert isinstance(counted, Entry)
        services.store._store.commit(group, {"requests": counted}, when={})

    services.store.before_commit = count
    service.verify(secret)

    with pytest.raises(ClientSecretRateLimitError):
        entry.verify(secret)


def test_a_change_that_never_succeeds_ends_as_an_outage(
    services: Services, service: BlockingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.store.saves_round_trips = False  # as above
    session = service.create()
    secret = str(session["client_secret"])
    monkeypatch.setattr("chatkit_sessions.service._flow._MAX_ATTEMPTS", 0)

    with pytest.raises(SessionStoreError, match="too fast"):
        service.verify(secret)
    assert refresh(service, secret)[0] == 503
    assert service.ask(f"{SESSIONS}/{session['id']}/cancel")[0] == 503


def test_a_store_outage_is_an_error_and_over_without_a_restart(
    services: Services, service: BlockingService
) -> None:
    secret = service.create_secret()
    services.store.is_down = True

    with pytest.raises(SessionStoreError):
        service.verify(secret)
    status, body = service.ask(content={"user": "ada", "workflow": {"id": "support"}})

    assert (status, body["error"]) == (
        503,
        {
            "message": "The session store is unavailable. Please try again later.",
            "type": "server_error",
            "param": None,
            "code": None,
        },
    )
    services.store.is_down = False
    assert service.verify(secret).user == "ada"


@pytest.mark.parametrize("value", [b"?", b"[]", b"{}", b'{"settings": {}}', b'{"settings": 1}'])
def test_what_another_release_stored_is_no_session(
    services: Services, service: BlockingService, value: bytes
) -> None:
    session = service.create()
    group = service.wrapped._flow._rules.group_of_session(str(session["id"]))
    (entry,) = services.store._store.get(group, ["session"])
    assert entry is not None
    other = type(entry)(type(entry.value)(value), entry.seconds)
    services.store._store.commit(group, {"session": other}, when={})

    assert reason_of(service, str(session["client_secret"])) == "unknown"
    assert service.ask(f"{SESSIONS}/{session['id']}", method="GET")[0] == 404


def test_verifying_takes_one_call_of_the_store_and_counting_two_or_one(
    services: Services, service: BlockingService
) -> None:
    saves = services.store_kind == "redis"
    secret = service.create_secret()
    assert services.store.calls == ["get", "commit", "commit"], "the session, and its user's list"
    services.store.calls.clear()

    service.verify(secret, count=False)
    assert services.store.calls == ["get_many" if saves else "get"]
    services.store.calls.clear()

    service.verify(secret)
    assert services.store.calls == (["run_script"] if saves else ["get", "commit"])


def test_a_session_is_created_by_the_store_s_clock_without_another_call(services: Services) -> None:
    service = services(clock=None)
    service.create()

    saves = services.store_kind == "redis"
    reading = ["get_with_time"] if saves else ["get", "now"]
    assert services.store.calls == [*reading, "commit", "commit"]


def test_errors_say_what_happened_and_what_to_check(service: BlockingService) -> None:
    with pytest.raises(ChatKitError) as raised:
        service.verify("ek_1")

    assert str(raised.value).startswith("The client secret is not one of this service's sessions.")
    assert "MemorySessionStore" in raised.value.hint
    assert API_KEY not in str(raised.value)


def test_a_redis_that_was_down_serves_again(kind: Kind) -> None:
    with running_redis() as redis, ExitStack() as stack:
        service = Services(kind, "redis", redis, stack)(clock=None)
        secret = service.create_secret()
        redis.stop()

        with pytest.raises(SessionStoreError):
            service.verify(secret)
        assert service.ask(content={"user": "ada", "workflow": {"id": "support"}})[0] == 503

        redis.start()  # empty
        assert reason_of(service, secret) == "unknown"
        assert service.verify(service.create_secret()).user == "ada"
