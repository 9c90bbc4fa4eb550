"""A silent Redis: every request ends with an error, and the first one after the outage is right."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Literal, TypeAlias, cast, get_args

import pytest
import redis
import redis.asyncio

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ChatKitError, SessionStoreError
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.service._rules import Headers, ServiceRequest, ServiceResponse
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from redis_server import RedisServer
from services import API_KEY, SESSIONS, BlockingService, all_at_once, headers_for
from support import Kind
from troubled_redis import TroubledRedis, troubled

Make: TypeAlias = Literal["from_url", "own client"]
TIMEOUT = 0.25
"""Seconds in which a Redis has to respond."""
HURRY = 0.05
"""The same where it is only to be silent."""
AT_ONCE = 100


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TroubledRedis]:
    with troubled(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def timeout() -> float:
    return TIMEOUT


@pytest.fixture(params=get_args(Make))
def service(
    request: pytest.FixtureRequest, kind: Kind, proxy: TroubledRedis, timeout: float
) -> Iterator[BlockingService]:
    """A service over a Redis that a test troubles."""
    url, make = f"redis://127.0.0.1:{proxy.port}/0", cast("Make", request.param)
    settings = {"namespace": "shop", "timeout": timeout}
    options = {"workflows": {"support"}, "api_keys": {API_KEY: "shop"}}
    with ExitStack() as stack:
        if kind == "sync":
            store = cast("Callable[..., RedisSessionStore]", RedisSessionStore.from_url)(
                url, **settings
            )
            if make == "own client":
                own = stack.enter_context(closing(redis.Redis(port=proxy.port)))
                store = cast("Callable[..., RedisSessionStore]", RedisSessionStore)(own, **settings)
            stack.enter_context(store)
            yield BlockingService(
                cast("Callable[..., SessionsService]", SessionsService)(store, **options), None
            )
            return
        runner = stack.enter_context(asyncio.Runner())
        if make == "from_url":
            make_url = cast(
                "Callable[..., AsyncRedisSessionStore]", AsyncRedisSessionStore.from_url
            )
            awaited = make_url(url, **settings)
            stack.callback(lambda: runner.run(awaited.aclose()))
        else:
            client = redis.asyncio.Redis(port=proxy.port)
            stack.callback(lambda: runner.run(client.aclose()))
            make_own = cast("Callable[..., AsyncRedisSessionStore]", AsyncRedisSessionStore)
            awaited = make_own(client, **settings)
        make_service = cast("Callable[..., AsyncSessionsService]", AsyncSessionsService)
        yield BlockingService(make_service(awaited, **options), runner)


def outcome_of(told: object) -> object:
    """What a caller got: a status or an error's name."""
    if isinstance(told, ChatKitError):
        return "store" if "SessionStoreError" in {c.__name__ for c in type(told).__mro__} else told
    return told.status_code if isinstance(told, ServiceResponse) else told


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_many_requests_at_once_all_end_with_one_warning(
    service: BlockingService, proxy: TroubledRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatkit_sessions")
    session = service.create(rate_limits={"max_requests_per_1_minute": 1_000})
    secret = str(session["client_secret"])
    headers = Headers(headers_for(API_KEY).items())
    read = ServiceRequest("GET", f"{SESSIONS}/{session['id']}", headers)
    client = service.wrapped.client(workflow_id="support", project="shop")
    proxy.is_silent = True

    told = all_at_once(
        service,
        *[lambda: service.wrapped.verify(secret)] * AT_ONCE,
        *[lambda: service.wrapped.handle(read)] * AT_ONCE,
        *[lambda: client.create_session("ada")] * AT_ONCE,
    )
    again = all_at_once(service, *[lambda: service.wrapped.verify(secret)] * AT_ONCE)

    outcomes = [outcome_of(each) for each in told + again]
    assert outcomes == ["store"] * AT_ONCE + [503] * AT_ONCE + ["store"] * 2 * AT_ONCE
    (warning,) = warnings_of(caplog)
    assert "a service responds with 503" in warning
    assert secret not in caplog.text
    proxy.is_silent = False
    assert service.verify(secret).user == "ada"
    assert caplog.records[-1].getMessage() == "The session store responds again."
    assert service.client(project="shop").create_session("ada").user == "ada"


CALLS: dict[str, Callable[[ChatKitClient | AsyncChatKitClient, str], object]] = {
    "create": lambda client, _: client.create_session("ada"),
    "reuse": lambda client, _: client.get_or_create_session("ada"),
    "refresh": lambda client, secret: client.refresh_session(secret, user="ada"),
    "get": lambda client, _: client.get_session(f"cksess_{'0' * 48}"),
    "list": lambda client, _: client.sessions_for("ada"),
    "delete": lambda client, _: client.delete_session(f"cksess_{'0' * 48}", missing_ok=True),
    "sign out": lambda client, _: client.delete_sessions("ada"),
}


def secret_of(service: BlockingService) -> str:
    """The secret of a new session; on a busy machine, Redis may not respond within its limit."""
    client = service.client(project="shop")
    while True:
        with suppress(SessionStoreError):
            return client.create_session("ada").client_secret.get_secret_value()


@pytest.mark.parametrize("timeout", [HURRY])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_of_a_client_in_process_ends(
    service: BlockingService,
    proxy: TroubledRedis,
    call: Callable[[ChatKitClient | AsyncChatKitClient, str], object],
) -> None:
    client = service.wrapped.client(workflow_id="support", project="shop")
    secret = secret_of(service)
    proxy.is_silent = True

    told = all_at_once(service, *[lambda: call(client, secret)] * 8)

    assert [outcome_of(each) for each in told] == ["store"] * 8
