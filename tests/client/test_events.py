"""What clients and services report to `on_event`: enough for metrics, and nothing secret."""

import asyncio
import logging
from collections.abc import Sequence
from unittest.mock import Mock

import httpx
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    ChatKitClient,
    ConfigurationError,
    Event,
    RateLimitError,
    SessionStoreError,
)
from chatkit_sessions._sessions.store_access import CircuitBreaker
from chatkit_sessions.integrations import ChatKitEndpoint, EndpointRequest
from chatkit_sessions.service import (
    AsyncSessionsService,
    ClientSecretRateLimitError,
    InvalidClientSecretError,
    SessionsService,
)
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from support import Connect, Script, ok, refused

OUTAGE = SessionStoreError("The store is out.")


def test_what_the_api_is_asked_is_reported_with_how_it_ended(connect: Connect) -> None:
    events: list[Event] = []
    missing = refused(404, code="session_not_found")
    chatkit = connect(
        Script([ok(), missing, refused(429), refused(500), refused(401)]),
        on_event=events.append,
        max_retries=1,
    )

    chatkit.create_session("user_123")
    chatkit.delete_session("cksess_1", missing_ok=True)
    with pytest.raises(Exception, match="500"):
        chatkit.create_session("user_123")
    with pytest.raises(Exception, match="401"):
        chatkit.create_session("user_123")

    assert events == [
        ("create", "ok"),
        ("cancel", "SessionNotFoundError"),
        ("retry", "RateLimitError"),
        ("create", "InternalServerError"),
        ("create", "AuthenticationError"),
    ]


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (httpx.ConnectError("refused"), APIConnectionError),
        (httpx.Response(200, html="<h1>Login</h1>"), APIResponseValidationError),
    ],
)
def test_what_brings_no_session_is_reported_by_its_class(
    connect: Connect, trouble: httpx.Response | Exception, error: type[Exception]
) -> None:
    events: list[Event] = []
    chatkit = connect(Script([trouble]), on_event=events.append, max_retries=0)

    with pytest.raises(error):
        chatkit.create_session("ada")

    assert events == [("create", error.__name__)]


def test_a_reused_and_a_refreshed_session_are_reported(fake: FakeChatKit) -> None:
    events: list[Event] = []
    with ChatKitClient(
        api_key=fake.api_key,
        workflow_id=fake.workflow_id,
        http_client=httpx.Client(transport=fake.transport()),
        on_event=events.append,
    ) as chatkit:
        first = chatkit.get_or_create_session("ada")
        chatkit.get_or_create_session("ada")
        second = chatkit.refresh_session(first.client_secret, user="ada")
        assert chatkit.refresh_session(first.client_secret, user="ada") == second
        derived = chatkit.with_options(workflow_id=fake.workflow_id, store=MemorySessionStore())
        derived.get_or_create_session("ada")

    assert [name for name, _ in events] == ["create", "reuse", "refresh", "reuse", "create"]
    assert {outcome for _, outcome in events} == {"ok"}
    secrets = {each.client_secret for each in fake.sessions.values()} | {"ada", fake.api_key}
    assert not secrets & {part for event in events for part in event}


@pytest.mark.parametrize("worker_counts", [True, False], ids=["here", "in the store"])
def test_the_endpoints_own_limit_is_reported(fake: FakeChatKit, worker_counts: bool) -> None:  # noqa: FBT001 -- pytest passes it
    events: list[Event] = []
    with ChatKitClient(
        api_key=fake.api_key,
        workflow_id=fake.workflow_id,
        http_client=httpx.Client(transport=fake.transport()),
        on_event=events.append,
    ) as chatkit:
        endpoints = [ChatKitEndpoint(chatkit, rate_limit=1) for _ in range(2)]
        request = EndpointRequest(
            method="POST",
            path="/session",
            url="https://shop.test/api/chatkit/session",
            headers={"content-type": "application/json"},
            body=b"{}",
        )
        endpoints[0].handle(request, user="ada")
        limited = endpoints[0 if worker_counts else 1].handle(request, user="ada")

    assert limited.status_code == 429
    assert events == [("create", "ok"), ("endpoint_limit", "rejected")]


class StoreThatFails(MemorySessionStore):
    """A store with outages."""

    is_out = False

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        if self.is_out:
            raise OUTAGE
        return super().get(group, names)


def test_an_outage_is_reported_once_when_it_begins_and_once_when_it_ends(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    store = StoreThatFails()
    chatkit = connect(Script([ok() for _ in range(4)]), store=store, on_event=events.append)

    store.is_out = True
    chatkit.create_session("user_123")
    chatkit.create_session("user_123")
    store.is_out = False
    monkeypatch.setattr(CircuitBreaker, "allows_request", Mock(return_value=True))
    chatkit.create_session("user_123")

    assert [event for event in events if event.name == "store"] == [
        ("store", "outage"),
        ("store", "recovered"),
    ]


def test_a_service_reports_every_verification_and_its_clients_calls() -> None:
    events: list[Event] = []
    store = StoreThatFails()
    service = SessionsService(store, workflows={"support"}, on_event=events.append)
    with service.client(workflow_id="support") as chatkit:
        session = chatkit.create_session("ada", max_requests_per_1_minute=1)
        service.verify(session.client_secret)
        with pytest.raises(ClientSecretRateLimitError):
            service.verify(session.client_secret)
        for secret in (None, "ek_unknown"):
            with pytest.raises(InvalidClientSecretError):
                service.verify(secret)
        chatkit.delete_session(session.id)
        with pytest.raises(InvalidClientSecretError):
            service.verify(session.client_secret)
        store.is_out = True
        with pytest.raises(SessionStoreError):
            service.verify(session.client_secret)

    assert events == [
        ("create", "ok"),
        ("verify", "ok"),
        ("verify", "ClientSecretRateLimitError"),
        ("verify", "missing"),
        ("verify", "unknown"),
        ("cancel", "ok"),
        ("verify", "cancelled"),
        ("store", "outage"),
        ("verify", "SessionStoreError"),
    ]


def test_an_async_service_reports_the_same() -> None:
    events: list[Event] = []

    async def run() -> None:
        service = AsyncSessionsService(MemorySessionStore(), on_event=events.append)
        async with service.client(workflow_id="support") as chatkit:
            session = await chatkit.create_session("ada")
            await service.verify(session.client_secret)

    asyncio.run(run())

    assert events == [("create", "ok"), ("verify", "ok")]


def test_a_function_that_fails_fails_no_call(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError(event.name)

    with caplog.at_level(logging.ERROR, "chatkit_sessions"):
        session = connect(Script([ok()]), on_event=broken).create_session("user_123")

    assert session.id == "cksess_new"
    assert caplog.messages == ["`on_event` raised an exception for 'create'."]


def test_an_interrupt_of_the_function_is_the_callers(connect: Connect) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt(event.name)

    with pytest.raises(KeyboardInterrupt):
        connect(Script([refused(429)]), on_event=interrupt).create_session("ada")


async def coroutine(event: Event) -> None:
    raise AssertionError(event)


class AsyncFunction:
    async def __call__(self, event: Event) -> None:
        raise AssertionError(event)


@pytest.mark.parametrize("on_event", ["print", coroutine, AsyncFunction()])
def test_what_cannot_be_called_is_rejected(connect: Connect, on_event: object) -> None:
    with pytest.raises(ConfigurationError, match="`on_event` must be a function, and not a cor"):
        connect(Script([]), on_event=on_event)
    with pytest.raises(ConfigurationError, match="`on_event`"):
        SessionsService(MemorySessionStore(), on_event=on_event)  # type: ignore[arg-type]  # what is tried


def test_rate_limits_of_the_api_have_their_class(connect: Connect) -> None:
    events: list[Event] = []

    with pytest.raises(RateLimitError):
        connect(Script([refused(429)]), on_event=events.append, max_retries=0).create_session("ada")

    assert events == [("create", "RateLimitError")]
