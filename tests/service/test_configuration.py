"""What a service is given, and what it refuses."""

from typing import Any

import pytest
from pydantic import SecretStr

from chatkit_sessions import ConfigurationError
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.service._wire import Headers, Request
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from services import SESSIONS, headers_for

REDIS = "redis://127.0.0.1:1"


def status_for(service: SessionsService, key: str) -> int:
    return service.handle(Request("POST", SESSIONS, Headers(headers_for(key).items()))).status_code


@pytest.mark.parametrize(
    "api_keys", [["key-a"], ("key-a",), {"key-a"}, iter(["key-a"]), [SecretStr("key-a")]]
)
def test_keys_may_be_any_collection(api_keys: Any) -> None:  # noqa: ANN401 -- many types
    service = SessionsService(MemorySessionStore(), api_keys=api_keys)

    assert [status_for(service, key) for key in ("key-a", "key-b")] == [400, 401]


@pytest.mark.parametrize(
    "api_keys",
    ["key-a", b"key-a", SecretStr("key-a"), [""], ["a b"], ["schlüssel"], ["a\n"], [1], [b"key-a"]],
)
def test_other_keys_are_refused(api_keys: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="`api_keys`") as raised:
        SessionsService(MemorySessionStore(), api_keys=api_keys)

    assert "key-a" not in str(raised.value)


@pytest.mark.parametrize("project", ["", None, 1])
def test_a_project_has_a_name(project: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="project"):
        SessionsService(MemorySessionStore(), api_keys={"key-a": project})


@pytest.mark.parametrize("workflows", ["support", b"support", [""], [1], {None}])
def test_workflows_are_a_collection_of_ids(workflows: Any) -> None:  # noqa: ANN401 -- many types
    with pytest.raises(ConfigurationError, match="`workflows`"):
        SessionsService(MemorySessionStore(), workflows=workflows)


@pytest.mark.parametrize("store", [None, "redis://", MemorySessionStore, object()])
@pytest.mark.parametrize("service", [SessionsService, AsyncSessionsService])
def test_a_store_is_needed(service: Any, store: object) -> None:  # noqa: ANN401 -- either class
    with pytest.raises(ConfigurationError, match="must be a session store"):
        service(store)


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
    shown = repr(service(MemorySessionStore(namespace="shop"), api_keys=["key-a"]))

    assert "MemorySessionStore(namespace='shop'" in shown
    assert "key-a" not in shown
