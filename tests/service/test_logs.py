"""What operators see of a service: why requests are rejected, and never a secret or a key."""

import asyncio
import logging
from contextlib import suppress

import pytest

from chatkit_sessions import ChatKitError
from chatkit_sessions.service import (
    AsyncSessionsService,
    ClientSecretRateLimitError,
    InvalidClientSecretError,
    SessionsService,
)
from chatkit_sessions.stores import MemorySessionStore
from services import API_KEY, SESSIONS, BlockingService, Services
from support import Kind

PREFIX = "A request is rejected: "


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "chatkit_sessions")


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == level]


def reject(service: BlockingService, secret: str | None, *, workflow_id: str | None = None) -> None:
    with pytest.raises((InvalidClientSecretError, ClientSecretRateLimitError)):
        service.verify(secret, workflow_id=workflow_id)


def test_a_rejected_secret_is_logged_with_its_reason_and_its_session(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    service = services(workflows={"support", "sales"})
    session = service.create(rate_limits={"max_requests_per_1_minute": 1})
    secret, session_id = str(session["client_secret"]), session["id"]
    service.verify(secret)
    reject(service, secret)
    reject(service, secret, workflow_id="sales")
    services.advance(600)
    reject(service, secret)
    other = service.create()
    service.ask(f"{SESSIONS}/{other['id']}/cancel")
    reject(service, str(other["client_secret"]))
    service.ask(f"{SESSIONS}/refresh", {"client_secret": other["client_secret"]})

    limit, *reasons = lines(caplog)

    assert limit.startswith(f"{PREFIX}The rate limit is reached; the next request is ")
    assert limit.endswith(f"(session: {session_id})")
    assert reasons == [
        f"{PREFIX}The client secret is not one of this service's sessions. (session: {session_id})",
        f"{PREFIX}The client secret's session has expired. (session: {session_id})",
        f"{PREFIX}The client secret's session is cancelled. (session: {other['id']})",
        f"{PREFIX}The client secret's session is cancelled. (session: {other['id']})",
    ]


def test_whose_secret_is_wrong_learns_no_session_and_neither_does_the_log(
    service: BlockingService, caplog: pytest.LogCaptureFixture
) -> None:
    secret = service.create_secret()

    for wrong in (None, "ek_1", f"{secret[:-1]}{'1' if secret[-1] == '0' else '0'}"):
        reject(service, wrong)
    service.ask(f"{SESSIONS}/refresh", {"client_secret": "ek_1"})

    unknown = f"{PREFIX}The client secret is not one of this service's sessions. (session: unknown)"
    missing = f"{PREFIX}The request has no client secret. (session: unknown)"
    assert lines(caplog) == [missing, unknown, unknown, unknown]


def test_the_first_unknown_secret_in_a_store_of_one_process_is_a_warning(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as runner:
        issuing, verifying = in_memory(kind, runner), in_memory(kind, runner)
        secret = issuing.create_secret()

        assert issuing.verify(secret).user == "ada"
        reject(issuing, "ek_1")
        assert lines(caplog, logging.WARNING) == []
        for _ in range(3):
            reject(verifying, secret)

    (warning,) = lines(caplog, logging.WARNING)
    assert "MemorySessionStore" in warning
    assert "Several workers or hosts need one store" in warning


def test_a_service_to_which_all_secrets_are_unknown_warns_once(
    services: Services, service: BlockingService, caplog: pytest.LogCaptureFixture
) -> None:
    known, unknown = service.create_secret(), f"ek_{'0' * 64}"

    other = services()
    for _ in range(2):
        reject(other, unknown)
    assert lines(caplog, logging.WARNING) == []
    for _ in range(3):
        reject(other, unknown)
    (warning,) = lines(caplog, logging.WARNING)
    assert warning.startswith("All client secrets so far are unknown to this service, whose store ")
    assert "need the same store and namespace" in warning

    service.verify(known)
    for _ in range(5):
        reject(service, unknown)
    assert lines(caplog, logging.WARNING) == [warning]


def in_memory(kind: Kind, runner: asyncio.Runner) -> BlockingService:
    """A service as a worker has it that shares no store."""
    if kind == "sync":
        return BlockingService(SessionsService(MemorySessionStore(), api_keys={API_KEY: "s"}), None)
    asynchronous = AsyncSessionsService(MemorySessionStore(), api_keys={API_KEY: "s"})
    return BlockingService(asynchronous, runner)


def test_no_secret_and_no_key_is_in_any_line(
    services: Services, service: BlockingService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = service.create(rate_limits={"max_requests_per_1_minute": 1})
    secret = str(session["client_secret"])
    client = service.client(project="shop")
    own = client.create_session("ada").client_secret.get_secret_value()
    wrong = f"{secret[:-4]}0000"
    for each in (secret, secret, own, wrong):
        with suppress(ChatKitError):
            service.verify(each)
        service.ask(f"{SESSIONS}/refresh", {"client_secret": each})
    service.ask(key=f"{API_KEY}x", content={})
    services.store.is_down = True
    for each in (secret, own, wrong):
        with suppress(ChatKitError):
            service.verify(each)
        service.ask(f"{SESSIONS}/refresh", {"client_secret": each})

    assert len(caplog.records) > 6
    for each in (secret, own, wrong, API_KEY):
        assert each[-12:] not in caplog.text
        assert each not in caplog.text
