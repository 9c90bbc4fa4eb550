"""What the local API offers to those who test with it: tenants, rules, assertions, clients."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import cast, get_args

import httpx2
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    AsyncChatKitClient,
    AuthenticationError,
    ChatKitClient,
    ChatKitError,
    ChatKitSessionResponse,
    InternalServerError,
    RateLimitError,
    SessionNotFoundError,
    WorkflowNotFoundError,
)
from chatkit_sessions.testing import FakeChatKit, FakeClock
from chatkit_sessions.testing.faults import Fault
from support import NOON, Blocking, Kind


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit(clock=FakeClock(NOON))


Make = Callable[..., ChatKitClient]


@pytest.fixture
def make(fake: FakeChatKit, kind: Kind) -> Iterator[Make]:
    """Makes the local API's own clients, of either kind."""
    with asyncio.Runner() as runner:

        def make_blocking(**options: object) -> ChatKitClient:
            make = cast("Callable[..., AsyncChatKitClient]", fake.async_client)
            return cast("ChatKitClient", Blocking(make(**options), runner))

        yield fake.client if kind == "sync" else make_blocking


@pytest.fixture
def chatkit(make: Make) -> ChatKitClient:
    return make()


def secret_of(session: ChatKitSessionResponse) -> str:
    return session.client_secret.get_secret_value()


# Keys, workflows and projects


def test_a_project_may_have_several_keys_and_workflows(fake: FakeChatKit, make: Make) -> None:
    fake.add_api_key("sk-rotated")
    fake.add_workflow("wf_second")

    session = make(api_key="sk-rotated", workflow_id="wf_second").create_session("ada")

    assert (fake.sessions[session.id].workflow_id, fake.api_key) == ("wf_second", "sk-test")
    make().delete_session(session.id)
    fake.assert_deleted(user="ada", times=1)


def test_a_key_that_is_revoked_opens_nothing(fake: FakeChatKit, chatkit: ChatKitClient) -> None:
    fake.add_api_key("sk-next")

    fake.remove_api_key(fake.api_key)

    with pytest.raises(AuthenticationError):
        chatkit.create_session("ada")
    with pytest.raises(ValueError, match="there is no such key"):
        fake.remove_api_key(fake.api_key)


def test_a_workflow_that_is_taken_away_is_not_found(
    fake: FakeChatKit, chatkit: ChatKitClient
) -> None:
    fake.remove_workflow(fake.workflow_id)

    with pytest.raises(WorkflowNotFoundError):
        chatkit.create_session("ada")
    with pytest.raises(ValueError, match="no workflow wf_test in the project proj_test"):
        fake.remove_workflow(fake.workflow_id)


def test_projects_see_nothing_of_each_other(fake: FakeChatKit, make: Make) -> None:
    fake.add_api_key("sk-north", project="north")
    fake.add_workflow("wf_north", project="north")
    ours, theirs = make(), make(api_key="sk-north", workflow_id="wf_north")

    session = theirs.create_session("ada")

    with pytest.raises(WorkflowNotFoundError):
        ours.create_session("ada", workflow_id="wf_north")
    with pytest.raises(SessionNotFoundError):
        ours.delete_session(session.id)
    another = ours.refresh_session(session.client_secret, user="ada")
    assert fake.sessions[session.id].status == "active"
    assert [each.project for each in fake.sessions.values()] == ["north", "proj_test"]
    assert secret_of(another) != secret_of(session)


def test_a_key_belongs_to_one_project(fake: FakeChatKit) -> None:
    fake.add_api_key(fake.api_key)

    with pytest.raises(ValueError, match="the key is the project proj_test's already") as caught:
        fake.add_api_key(fake.api_key, project="north")
    assert fake.api_key not in str(caught.value)


# Sessions that end or never were


def test_a_session_can_be_let_expire(fake: FakeChatKit, chatkit: ChatKitClient) -> None:
    fake.read_route = True
    session = chatkit.create_session("ada")

    fake.expire(session.id)

    assert fake.sessions[session.id].status == "expired"
    assert fake.sessions[session.id].expires_at == NOON
    assert chatkit.get_session(session.id).status == "expired"
    renewed = chatkit.refresh_session(session.client_secret, user="ada")
    assert fake.sessions[renewed.id].refreshed_from is None, "a new one, in place of it"


def test_letting_a_session_expire_changes_nothing_once_it_has_ended(
    fake: FakeChatKit, chatkit: ChatKitClient
) -> None:
    session = chatkit.create_session("ada")
    chatkit.delete_session(session.id)

    fake.expire(session.id)

    assert fake.sessions[session.id].status == "cancelled"


def test_a_session_can_be_forgotten(fake: FakeChatKit, chatkit: ChatKitClient) -> None:
    session = chatkit.create_session("ada")

    fake.forget(session.id)

    with pytest.raises(SessionNotFoundError):
        chatkit.delete_session(session.id)
    assert not fake.sessions
    for change in (fake.forget, fake.expire):
        with pytest.raises(KeyError):
            change(session.id)


# Assertions


def test_assertions_tell_what_was_seen(fake: FakeChatKit, chatkit: ChatKitClient) -> None:
    first = chatkit.create_session("ada")
    chatkit.create_session("bob")
    second = chatkit.refresh_session(first.client_secret, user="ada")
    chatkit.delete_session(second.id)

    fake.assert_created(times=2)
    fake.assert_refreshed(user="ada", times=1)
    fake.assert_refreshed()
    fake.assert_deleted(user="ada", times=1)
    fake.assert_deleted(user="bob", times=0)
    expected: list[tuple[Callable[[], None], str]] = [
        (
            lambda: fake.assert_created(user="ada", times=2),
            "expected 2 created session(s) for user 'ada', saw 'ada': 1, 'bob': 1",
        ),
        (
            lambda: fake.assert_refreshed(user="bob"),
            "expected at least 1 refreshed session(s) for user 'bob', saw 'ada': 1",
        ),
        (lambda: fake.assert_deleted(times=0), "expected 0 deleted session(s), saw 'ada': 1"),
        (
            lambda: fake.assert_deleted(user="eve"),
            "expected at least 1 deleted session(s) for user 'eve', saw 'ada': 1",
        ),
    ]
    for check, message in expected:
        with pytest.raises(AssertionError) as caught:
            check()
        assert str(caught.value) == message


def test_what_ran_out_was_not_deleted(fake: FakeChatKit, chatkit: ChatKitClient) -> None:
    chatkit.create_session("ada")
    fake.clock.advance(minutes=11)

    with pytest.raises(AssertionError, match="saw none at all"):
        fake.assert_deleted()


# Rules


def test_everything_fails_until_the_api_recovers(fake: FakeChatKit, make: Make) -> None:
    chatkit = make(max_retries=0)
    fake.fail_next(503, times=None)

    for _ in range(5):
        with pytest.raises(InternalServerError):
            chatkit.create_session("ada")

    fake.recover()
    chatkit.create_session("ada")


def test_a_rule_tells_which_requests_fail(fake: FakeChatKit, make: Make) -> None:
    chatkit = make(max_retries=0)
    fake.fail_next(
        429,
        times=None,
        headers={"retry-after": "7"},
        when=lambda request: b'"user":"eve"' in request.body and len(fake.requests) > 1,
    )

    chatkit.create_session("eve")
    with pytest.raises(RateLimitError) as caught:
        chatkit.create_session("eve")
    chatkit.create_session("ada")

    assert caught.value.retry_after == 7
    fake.assert_created(user="eve", times=1)


def test_rules_are_used_up_in_the_order_in_which_they_were_set(
    fake: FakeChatKit, make: Make
) -> None:
    chatkit = make(max_retries=0)
    fake.fail_next(400, message="Cancelling fails.", operation="cancel")
    fake.fail_next(500, times=2)
    fake.fail_next(fault="reset", times=None)

    seen: list[type[ChatKitError]] = []
    for _ in range(4):
        with pytest.raises(ChatKitError) as caught:
            chatkit.create_session("ada")
        seen.append(type(caught.value))

    assert seen == [
        InternalServerError,
        InternalServerError,
        APIConnectionError,
        APIConnectionError,
    ]


# Clocks


@pytest.mark.parametrize("skew", [timedelta(hours=3), timedelta(minutes=-20)])
def test_the_apis_clock_may_be_another_than_the_backends(
    fake: FakeChatKit, chatkit: ChatKitClient, skew: timedelta
) -> None:
    fake.clock_skew = skew

    session = chatkit.get_or_create_session("ada")

    assert session.expires_at == NOON + skew + timedelta(minutes=10)
    assert session.answered_at == NOON + skew
    assert fake.sessions[session.id].status == "active"
    assert chatkit.get_or_create_session("ada").id == session.id, "told by no clock of ours"
    fake.clock.advance(minutes=10)
    assert fake.sessions[session.id].status == "expired"
    assert chatkit.get_or_create_session("ada").id != session.id


# Clients


def test_a_client_waits_for_nothing_and_the_clock_moves_on(
    fake: FakeChatKit, chatkit: ChatKitClient
) -> None:
    fake.fail_next(429, headers={"retry-after": "9"}, times=2)

    chatkit.create_session("ada")

    assert fake.clock.now() == NOON + timedelta(seconds=18)
    assert len(fake.requests) == 3


def test_as_a_context_manager_it_ends_its_clients() -> None:
    with FakeChatKit() as fake:
        clients = [fake.client(), fake.async_client()]
        fake.client().create_session("ada")

    with pytest.raises(RuntimeError, match="is closed"):
        cast("ChatKitClient", clients[0]).create_session("ada")
    with pytest.raises(RuntimeError, match="is closed"):
        asyncio.run(cast("AsyncChatKitClient", clients[1]).create_session("ada"))


def test_a_client_without_arguments_asks_the_server_that_the_environment_names(
    fake: FakeChatKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake.serve() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with ChatKitClient() as chatkit:
            chatkit.create_session("ada")

    fake.assert_created(user="ada", times=1)


# httpx2

OUTCOMES: dict[Fault | None, type[ChatKitError] | None] = {
    None: None,
    "reset": APIConnectionError,
    "hang": APITimeoutError,
    "drip": APITimeoutError,
    "truncate": APIConnectionError,
    "oversize": APIResponseValidationError,
}


@pytest.mark.parametrize(("fault", "outcome"), OUTCOMES.items())
def test_httpx2_has_a_transport_of_its_own_family(
    fake: FakeChatKit, kind: Kind, fault: Fault | None, outcome: type[ChatKitError] | None
) -> None:
    transport = fake.httpx2_transport()
    if fault is not None:
        fake.fail_next(fault=fault)
    caught: ChatKitError | None = None

    try:
        if kind == "sync":
            ChatKitClient(
                api_key=fake.api_key,
                workflow_id=fake.workflow_id,
                max_retries=0,
                http_client=httpx2.Client(transport=transport),
            ).create_session("ada")
        else:
            client = AsyncChatKitClient(
                api_key=fake.api_key,
                workflow_id=fake.workflow_id,
                max_retries=0,
                http_client=httpx2.AsyncClient(transport=transport),
            )
            asyncio.run(client.create_session("ada"))
    except ChatKitError as error:
        caught = error

    assert {*OUTCOMES} == {None, *get_args(Fault)}
    assert (type(caught) if caught else None) is outcome
    assert len(fake.requests) == 1


def test_httpx2_may_read_an_oversized_answer_to_its_end(fake: FakeChatKit) -> None:
    fake.fail_next(fault="oversize")

    with httpx2.Client(transport=fake.httpx2_transport()) as client:
        answer = client.get("https://chatkit.test/v1/")

    assert len(answer.content) > 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("package", "module"), [("httpx2", "httpx2_transport"), ("pytest", "pytest_plugin")]
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"chatkit_sessions.testing.{module}", raising=False)

    with pytest.raises(ImportError, match=f"pip install {package}"):
        importlib.import_module(f"chatkit_sessions.testing.{module}")
