"""No client secret and no API key is stored, logged or shown."""

import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from chatkit_sessions import ChatKitError, ConfigurationError
from chatkit_sessions.service import (
    ClientSecretRateLimitError,
    InvalidClientSecretError,
    SessionsService,
)
from chatkit_sessions.service._rules import Headers, ServiceRequest
from chatkit_sessions.stores import MemorySessionStore
from services import API_KEY, OTHER_KEY, SESSIONS, BlockingService, Services, headers_for

PACKAGE = "chatkit_sessions"


def everything_shown(error: BaseException) -> Iterator[str]:
    """All that error trackers can show: messages, attributes, our frames' local variables."""
    current: BaseException | None = error
    while current is not None:
        yield from (repr(current), str(current), repr(vars(current)))
        yield from traceback.format_exception(current)
        frames = traceback.walk_tb(current.__traceback__)
        for frame in traceback.StackSummary.extract(frames, capture_locals=True):
            if f"/{PACKAGE}/" in frame.filename:
                yield f"{frame.name}: {frame.locals}"
        current = current.__cause__ or current.__context__


def assert_silent(texts: Iterator[str], *secrets: str) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text
            assert secret[-12:] not in text, "not a part of it either"


def test_the_store_holds_no_secret_and_no_key(services: Services) -> None:
    service = services()
    secret = service.create_secret()
    service.verify(secret)
    _, renewed = service.ask(f"{SESSIONS}/refresh", {"client_secret": secret})
    session = service.client().get_or_create_session("ada")
    in_process = session.client_secret.get_secret_value()

    held = services.stored()

    assert '"user":"ada"' in held
    # What a client shares among processes is shared in its own records: the secret of a session
    # that is to be reused.
    issued_by_routes = (secret, str(renewed["client_secret"]), API_KEY, OTHER_KEY)
    assert_silent(iter([held]), *issued_by_routes)
    records = [part for part in held.split("b'") if "secret_digest" in part]
    assert len(records) == 3
    assert_silent(iter(records), in_process)


@pytest.mark.parametrize("reason", ["unknown", "cancelled", "rate limit", "outage", "shape"])
@pytest.mark.parametrize("wrap", [str, SecretStr])
def test_no_error_of_verify_shows_a_secret(
    services: Services,
    service: BlockingService,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    wrap: Callable[[str], str | SecretStr],
) -> None:
    session = service.create(rate_limits={"max_requests_per_1_minute": 1})
    secret = str(session["client_secret"])
    service.verify(secret)
    if reason == "cancelled":
        service.ask(f"{SESSIONS}/{session['id']}/cancel")
    if reason == "outage":
        services.store.is_down = True
    presented = {"unknown": secret[:-4] + "0000", "shape": secret + "0"}.get(reason, secret)

    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ChatKitError) as raised,
    ):
        service.verify(wrap(presented))

    assert_silent(everything_shown(raised.value), secret[:-4], presented, API_KEY)
    assert_silent((repr(vars(each)) for each in caplog.records), secret[:-4], API_KEY)


def test_no_unexpected_error_shows_a_secret_or_a_key(
    services: Services, service: BlockingService
) -> None:
    services.store.saves_round_trips = False  # it would verify without a commit
    secret = service.create_secret()

    def fail() -> None:
        raise ZeroDivisionError

    body = f'{{"client_secret": "{secret}"}}'.encode()
    request = ServiceRequest(
        "POST", f"{SESSIONS}/refresh", Headers(headers_for(API_KEY).items()), body
    )
    for call in (lambda: service.verify(secret), lambda: service.handle(request)):
        services.store.before_commit = fail
        with pytest.raises(ZeroDivisionError) as raised:
            call()
        assert_silent(everything_shown(raised.value), secret, API_KEY)


def test_no_error_of_the_configuration_shows_a_key() -> None:
    with pytest.raises(ConfigurationError) as raised:
        SessionsService(MemorySessionStore(), api_keys={f"{API_KEY} ": "shop"})

    assert_silent(everything_shown(raised.value), API_KEY)


def test_no_response_but_the_one_with_a_new_session_holds_its_secret(
    service: BlockingService,
) -> None:
    session = service.create()
    secret = str(session["client_secret"])
    path = f"{SESSIONS}/{session['id']}"

    answers = [
        service.ask(path, method="GET"),
        service.ask(f"{path}/cancel"),
        service.ask(f"{SESSIONS}/refresh", {"client_secret": secret}),
    ]

    assert_silent(map(repr, answers), secret)


def test_nothing_shows_a_secret_in_its_repr(service: BlockingService) -> None:
    secret = service.create_secret()
    request = ServiceRequest(
        "POST", SESSIONS, Headers(headers_for(API_KEY).items()), secret.encode()
    )

    shown = map(repr, (service.wrapped, service.verify(secret), request, service.handle(request)))

    assert_silent(shown, secret, API_KEY)


@pytest.mark.parametrize(
    "error", [InvalidClientSecretError("expired"), ClientSecretRateLimitError(12.5)]
)
def test_errors_survive_pickling_and_copying(
    error: InvalidClientSecretError | ClientSecretRateLimitError,
) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 -- ours
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
