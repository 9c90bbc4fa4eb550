"""An argument of the wrong type may hold a secret, such as a URL with its password."""

import inspect
import traceback
from collections.abc import Callable
from functools import partial

import pytest
from pydantic import SecretStr

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ConfigurationError, RetryPolicy
from chatkit_sessions.integrations import AsyncChatKitEndpoint, ChatKitEndpoint
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.integrations.litestar import chatkit_handlers
from chatkit_sessions.integrations.starlette import AnonymousVisitor, chatkit_routes
from chatkit_sessions.service import (
    AsyncSessionsService,
    SessionsApp,
    SessionsService,
    SessionsWSGIApp,
    flask,
    starlette,
)
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from secrets_shown import assert_silent, everything_shown
from support import KEY

PASSWORD = "hunter2-and-much-more"
URL = f"redis://user:{PASSWORD}@cache.example.com/0"
MISTAKES: dict[str, object] = {
    "URL": URL,
    "long password": URL.replace("user:", "x" * 200),
    "query": f"redis://cache.example.com/0?password={PASSWORD}",
    "bytes": URL.encode(),
    "secret": SecretStr(URL),
    "list": [URL],
    "tuple": (URL,),
    "set": {URL},
    "keys": {URL: 1},
    "values": {"shop": (URL,)},
}

SERVICE = SessionsService(MemorySessionStore())
ASYNC_SERVICE = AsyncSessionsService(MemorySessionStore())
CLIENT = ChatKitClient(api_key=KEY)
ASYNC_CLIENT = AsyncChatKitClient(api_key=KEY)


def nobody() -> None:
    """Nobody is signed in."""


ENDPOINT = ("reuse", "session_by_id", "allowed_origins", "rate_limit", "timeout", "session_path")
CALLS: list[tuple[Callable[..., object], dict[str, object], tuple[str, ...]]] = [
    (ChatKitClient, {"api_key": KEY}, ()),
    (AsyncChatKitClient, {"api_key": KEY}, ()),
    (CLIENT.with_options, {}, ()),
    (ASYNC_CLIENT.with_options, {}, ()),
    (RetryPolicy, {}, ()),
    (SessionsService, {"store": MemorySessionStore()}, ()),
    (AsyncSessionsService, {"store": MemorySessionStore()}, ()),
    (SERVICE.client, {}, ()),
    (ASYNC_SERVICE.client, {}, ()),
    (SERVICE.verify, {"client_secret": "ek_"}, ()),
    (SERVICE.sessions_for, {"user": "ada"}, ()),
    (SERVICE.delete_sessions, {"user": "ada"}, ()),
    (SessionsApp, {}, ()),
    (SessionsWSGIApp, {}, ()),
    (flask.chatkit_session, {"service": SERVICE}, ()),
    (starlette.chatkit_session, {"service": ASYNC_SERVICE}, ()),
    (MemorySessionStore, {}, ()),
    (RedisSessionStore, {"namespace": "shop"}, ()),
    (AsyncRedisSessionStore, {"namespace": "shop"}, ()),
    (RedisSessionStore.from_url, {"url": "redis://127.0.0.1:1", "namespace": "shop"}, ()),
    (AsyncRedisSessionStore.from_url, {"url": "redis://127.0.0.1:1", "namespace": "shop"}, ()),
    (ChatKitEndpoint, {"client": CLIENT}, ENDPOINT),
    (AsyncChatKitEndpoint, {"client": ASYNC_CLIENT}, ENDPOINT),
    (chatkit_router, {"client": ASYNC_CLIENT, "user": nobody}, ENDPOINT),
    (chatkit_routes, {"client": ASYNC_CLIENT, "user": nobody}, ENDPOINT),
    (chatkit_handlers, {"client": ASYNC_CLIENT, "user": nobody}, ENDPOINT),
    (chatkit_blueprint, {"client": CLIENT, "user": nobody}, ENDPOINT),
    (AnonymousVisitor, {}, ()),
]
ARGUMENTS = [
    pytest.param(call, usual, argument, id=f"{call.__qualname__}-{argument}")
    for call, usual, settings in CALLS
    for name, each in inspect.signature(call).parameters.items()
    if each.kind is not each.VAR_KEYWORD
    for argument in (name, *(settings if name == "client" else ()))
]
MAY_BE_SECRET = {"api_key", "api_keys", "store", "http_client", "url", "client_secret"}
"""Arguments whose text not even a frame's local variables show."""


@pytest.mark.parametrize(("call", "usual", "argument"), ARGUMENTS)
def test_no_rejection_of_an_argument_shows_it(
    call: Callable[..., object], usual: dict[str, object], argument: str
) -> None:
    for mistake in MISTAKES.values():
        try:
            call(**{**usual, argument: mistake})
        except Exception as error:  # noqa: BLE001 -- whichever it is
            shown = [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
            if argument in MAY_BE_SECRET and isinstance(mistake, str):
                shown += everything_shown(error)
            assert_silent(shown, [PASSWORD])


@pytest.mark.parametrize(
    "call",
    [SessionsService, partial(ChatKitClient, api_key=KEY), CLIENT.with_options, SERVICE.client],
)
@pytest.mark.parametrize("url", [URL, SecretStr(URL)])
def test_the_url_of_a_store_is_for_from_url(call: Callable[..., object], url: object) -> None:
    with pytest.raises(ConfigurationError, match="not a string") as raised:
        call(store=url)

    assert "Pass the URL to `RedisSessionStore.from_url`" in raised.value.hint


@pytest.mark.parametrize("call", [AsyncSessionsService, partial(AsyncChatKitClient, api_key=KEY)])
def test_an_async_store_has_its_own_from_url(call: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        call(store=URL)

    assert "Pass the URL to `AsyncRedisSessionStore.from_url`" in raised.value.hint
