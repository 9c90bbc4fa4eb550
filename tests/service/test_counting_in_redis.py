"""The script that checks a secret and counts a request: it decides as the service does."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import SecretStr

from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.rate_limit import COUNT_IN_REDIS, count_request
from chatkit_sessions.service import ClientSecretRateLimitError, InvalidClientSecretError
from chatkit_sessions.stores import Entry
from chatkit_sessions.stores._redis_commands import Script
from chatkit_sessions.stores.redis import RedisSessionStore
from redis_server import RedisServer
from services import BlockingService, Services
from support import Kind

KEY = "chatkit:{group}:requests"
COUNT = Script.of(f"""
local milliseconds, real = 0, redis
local redis = {{call = function(name, ...)
  if name == 'PTTL' then return tonumber(ARGV[2]) end  -- time stands still
  if name == 'SET' then milliseconds = select(4, ...) end
  return real.call(name, ...)
end}}
{COUNT_IN_REDIS}
local wait = count_request(KEYS[1], tonumber(ARGV[1]))
return {{string.format('%.6f', wait), redis.call('GET', KEYS[1]), milliseconds}}
""")
BUCKETS = st.lists(
    st.tuples(st.floats(0, 62), st.integers(1, 30)).map(lambda pair: f"{pair[0]:.6f}*{pair[1]}")
    | st.floats(0, 62).map("{:.3f}".format)
    | st.sampled_from(["-1*2", "of another release", "2*", "*", "1*1*1"]),
    max_size=70,
).map(" ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BUCKETS | st.none(), st.integers(1, 70_000), st.integers(1, 40))
def test_a_script_counts_as_the_library_does(
    redis_server: RedisServer, value: str | None, milliseconds: int, limit: int
) -> None:
    with (
        redis_server.client() as client,
        RedisSessionStore.from_url(redis_server.url, namespace="shop") as store,
    ):
        client.delete(KEY)
        if value is not None:
            client.set(KEY, value)
        left = -2 if value is None else milliseconds
        reply = store.run_script(COUNT, "group", ["requests"], [limit, left])

    wait, kept, ends = cast("tuple[bytes, bytes | None, int]", reply)
    before = None if value is None else Entry(MaskedBytes(value.encode()), left / 1000)
    expected = count_request(before, limit=limit)
    if isinstance(expected, Entry):
        assert (float(wait), kept, ends) == (0, expected.value, round(expected.seconds * 1000))
    else:
        assert float(wait) == pytest.approx(expected, abs=1e-5)
        assert (kept or b"").decode() == (value or "")


@pytest.fixture
def redis_services(kind: Kind, redis_server: RedisServer) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(kind, "redis", redis_server, stack)


def change_record(services: Services, service: BlockingService, secret: str, text: str) -> None:
    """Replace what is stored of the session of a secret by what is not written like that."""
    group = service.wrapped._flow._rules.group_of_secret(SecretStr(secret))
    assert group is not None
    (entry,) = services.store._store.get(group, ["session"])
    assert entry is not None
    record = json.loads(entry.value)
    del record["settings"]["max_requests_per_1_minute"]
    record["refreshed_from"] = text
    stored = json.dumps(record).encode()
    services.store._store.commit(
        group, {"session": Entry(MaskedBytes(stored), entry.seconds)}, when={}
    )


@pytest.mark.parametrize("text", ["ada", "\ud800"], ids=["as another release", "not in Lua"])
def test_a_record_that_lacks_the_limit_has_the_default(redis_services: Services, text: str) -> None:
    service = redis_services()
    secret = service.create_secret(limit=3)
    change_record(redis_services, service, secret, text)

    for _ in range(10):
        service.verify(secret)
    with pytest.raises(ClientSecretRateLimitError):
        service.verify(secret)


def test_a_secret_of_another_audience_is_not_counted(redis_services: Services) -> None:
    service = redis_services(workflows={"support", "sales"})
    secret = service.create_secret(limit=1)

    for workflow_id, project in (
        ("sales", None),
        (None, "other"),
        (None, "\ud800"),
    ):
        with pytest.raises(InvalidClientSecretError):
            service.verify(secret, workflow_id=workflow_id, project=project)
    with pytest.raises(InvalidClientSecretError):
        redis_services(workflows={"sales"}).verify(secret)

    service.verify(secret, workflow_id="support", project="shop")
    with pytest.raises(ClientSecretRateLimitError):
        service.verify(secret)


def test_an_expired_session_is_not_counted_by_the_store_s_clock(redis_services: Services) -> None:
    service = redis_services(clock=None)
    secret = service.create_secret()
    service.verify(secret)
    redis_services.advance(601)

    with pytest.raises(InvalidClientSecretError) as raised:
        service.verify(secret)

    assert raised.value.reason == "expired"
