"""What a service is given, and what it refuses."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from chatkit_sessions import ConfigurationError, InvalidRequestError
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.service._rules import Headers, ServiceRequest
from chatkit_sessions.service.flask import chatkit_session as flask_session
from chatkit_sessions.service.starlette import chatkit_session as starlette_session
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from secrets_shown import everything_shown
from services import SESSIONS, headers_for

KEY = "sk-service-of-the-shop-0123"
REDIS = "redis://127.0.0.1:1"


def status_for(service: SessionsService, key: str) -> int:
    return service.handle(
        ServiceRequest("POST", SESSIONS, Headers(headers_for(key).items()))
    ).status_code


@pytest.mark.parametrize("api_keys", [[KEY], (KEY,), {KEY}, iter([KEY]), [SecretStr(KEY)]])
def test_keys_may_be_any_collection(api_keys: Any) -> None:  # noqa: ANN401 -- many types
    service = SessionsService(MemorySessionStore(), api_keys=api_keys)

    assert [status_for(service, key) for key in (KEY, f"{KEY}2")] == [400, 401]


@pytest.mark.parametrize(
    "api_keys",
    [KEY, KEY.encode(), SecretStr(KEY), [f"{KEY} b"], [f"{KEY}é"], [f"{KEY}\n"], [""], [1], [b"a"]],
)
def test_other_keys_are_refused(api_keys: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="`api_keys`") as raised:
        SessionsService(MemorySessionStore(), api_keys=api_keys)

    assert KEY not in str(raised.value)


def test_a_key_has_16_characters_or_more() -> None:
    assert status_for(SessionsService(MemorySessionStore(), api_keys=["k" * 16]), "k" * 16) == 400

    with pytest.raises(ConfigurationError, match="16 characters or more, and one has 15"):
        SessionsService(MemorySessionStore(), api_keys=["k" * 15])


@pytest.mark.parametrize("project", ["shop", "shop-of-the-production-stage"])
@pytest.mark.parametrize(
    "key",
    [
        KEY,
        f"ek_{'0' * 64}",
        "Xn3kZ0p-1qXr_7yHq2M4vB9cT5wD8eF6gJ0kL3nP1sU",
        "eG4za1AwLTFxWHIvN3lIcTJNNHZCOWNUNXdEOGVGNmdKMA==",
        "4f" * 20,
    ],
)
def test_a_key_in_the_place_of_a_project_is_refused_with_the_right_order(
    project: str, key: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SessionsService(MemorySessionStore(), api_keys={project: key})

    assert 'api_keys={"sk-…": "shop"}' in raised.value.hint
    assert not any(key in text for text in everything_shown(raised.value))


@pytest.mark.parametrize(
    "project",
    [
        "shop",
        "sk-shop",
        "550e8400-e29b-41d4-a716-446655440000",
        "550e8400e29b41d4a716446655440000",
        "proj_xN3kZ0p1qXr7yHq2M4vB9cT5",
        "The shop of the production stage, 2026",
    ],
)
def test_a_name_is_no_key(project: str) -> None:
    assert status_for(SessionsService(MemorySessionStore(), api_keys={KEY: project}), KEY) == 400


@pytest.mark.parametrize("project", ["", None, 1])
def test_a_project_has_a_name(project: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="project"):
        SessionsService(MemorySessionStore(), api_keys={KEY: project})


@pytest.mark.parametrize(
    "workflows", ["support", b"support", [""], [1], {None}, [[]], 5, {"support "}]
)
def test_workflows_are_a_collection_of_ids(workflows: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="`workflows`"):
        SessionsService(MemorySessionStore(), workflows=workflows)


@pytest.mark.parametrize("store", [None, "redis://", MemorySessionStore, object()])
@pytest.mark.parametrize("service", [SessionsService, AsyncSessionsService])
def test_a_store_is_needed(service: Any, store: object) -> None:  # noqa: ANN401 -- either class
    with pytest.raises(ConfigurationError, match="must be a session store"):
        service(store)


def test_a_store_has_a_namespace() -> None:
    class Nameless(MemorySessionStore):
        namespace = None  # type: ignore[assignment]  # wrong on purpose

    with pytest.raises(ConfigurationError, match="`namespace` must be a string, not None"):
        SessionsService(Nameless())  # type: ignore[arg-type]  # wrong on purpose


def test_a_service_needs_a_store_of_its_kind() -> None:
    sync = RedisSessionStore.from_url(REDIS, namespace="shop")
    asynchronous = AsyncRedisSessionStore.from_url(REDIS, namespace="shop")

    with pytest.raises(ConfigurationError, match=r"AsyncSessionsService needs .* async functions"):
        AsyncSessionsService(sync)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"SessionsService needs .* plain functions"):
        SessionsService(asynchronous)  # type: ignore[arg-type]
    sync.close()


def test_services_of_other_namespaces_share_nothing() -> None:
    one = SessionsService(MemorySessionStore(namespace="shop"))
    group = one._flow._rules.group_of_session("cksess_" + "0" * 48)

    other = SessionsService(MemorySessionStore(namespace="forum"))
    assert other._flow._rules.group_of_session("cksess_" + "0" * 48) != group
    again = SessionsService(MemorySessionStore(namespace="shop"))
    assert again._flow._rules.group_of_session("cksess_" + "0" * 48) == group


@pytest.mark.parametrize("service", [SessionsService, AsyncSessionsService])
def test_the_repr_names_the_store(service: type[SessionsService]) -> None:
    shown = repr(service(MemorySessionStore(namespace="shop"), api_keys=[KEY]))

    assert "MemorySessionStore(namespace='shop'" in shown
    assert KEY not in shown


@pytest.mark.parametrize("service", [SessionsService, AsyncSessionsService])
def test_count_is_no_text(service: Any) -> None:  # noqa: ANN401 -- either class
    made = service(MemorySessionStore())
    call = made.verify if service is SessionsService else asyncio_verify(made)
    chatkit_session: Any = flask_session if service is SessionsService else starlette_session

    with pytest.raises(InvalidRequestError, match="`count` must be True, False or a function"):
        call("ek_1", count="no")
    with pytest.raises(InvalidRequestError, match="`count` must be"):
        chatkit_session(made, count="no")


def asyncio_verify(service: AsyncSessionsService) -> Callable[..., object]:
    return lambda *args, **kwargs: asyncio.run(service.verify(*args, **kwargs))
