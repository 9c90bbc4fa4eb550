"""Hosts whose clocks are minutes apart, over one Redis: its clock is the one that counts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from chatkit_sessions.service import InvalidClientSecretError, SessionsService
from chatkit_sessions.service._records import SESSION
from chatkit_sessions.stores import Entry, MemorySessionStore
from redis_server import RedisServer
from services import API_KEY, SESSIONS, BlockingService, Services
from support import NOON, Kind

SKEWS = [timedelta(minutes=3), timedelta(minutes=-3)]


@pytest.fixture
def services(kind: Kind, redis_server: RedisServer) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(kind, "redis", redis_server, stack)


@pytest.fixture
def service(services: Services) -> BlockingService:
    return services(clock=None)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Go on as a host whose clock is that much ahead."""

    def go_on(skew: timedelta) -> None:
        class Skewed(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain one
                return datetime.now(tz) + skew

        for module in ("service._rules", "_client.calls"):
            monkeypatch.setattr(f"chatkit_sessions.{module}.datetime", Skewed)

    return go_on


@pytest.mark.parametrize("skew", SKEWS)
def test_a_session_of_one_host_is_the_same_on_another(
    service: BlockingService, on_host: Callable[[timedelta], None], skew: timedelta
) -> None:
    on_host(skew)
    session = service.create(expires_after={"anchor": "created_at", "seconds": 120})
    secret = str(session["client_secret"])
    created = datetime.now(UTC)

    on_host(-skew)
    context = service.verify(secret)
    _, read = service.ask(f"{SESSIONS}/{session['id']}", method="GET")

    assert abs((context.expires_at - created).total_seconds() - 120) < 10
    assert read["status"] == "active"
    assert read["expires_at"] == session["expires_at"] == int(context.expires_at.timestamp())
    status, renewed = service.ask(f"{SESSIONS}/refresh", {"client_secret": secret})
    assert status == 200
    assert 0 <= int(str(renewed["expires_at"])) - int(str(session["expires_at"])) < 10
    assert service.ask(f"{SESSIONS}/{renewed['id']}/cancel")[1]["status"] == "cancelled"


@pytest.mark.parametrize("skew", SKEWS)
def test_a_session_that_has_expired_has_expired_on_every_host(
    services: Services,
    service: BlockingService,
    on_host: Callable[[timedelta], None],
    skew: timedelta,
) -> None:
    session = service.create(expires_after={"anchor": "created_at", "seconds": 120})
    secret = str(session["client_secret"])
    assert services.server is not None
    services.server.advance(121)

    on_host(skew)

    with pytest.raises(InvalidClientSecretError) as raised:
        service.verify(secret)
    assert raised.value.reason == "expired"
    assert service.ask(f"{SESSIONS}/refresh", {"client_secret": secret})[0] == 400
    for path, method in (("", "GET"), ("/cancel", "POST")):
        read = service.ask(f"{SESSIONS}/{session['id']}{path}", method=method)[1]
        assert read["status"] == "expired"


@pytest.mark.parametrize("skew", SKEWS)
def test_a_client_in_process_reuses_and_reads_a_session_by_that_clock(
    service: BlockingService, on_host: Callable[[timedelta], None], skew: timedelta
) -> None:
    client = service.client(project="shop")
    on_host(skew)
    session = client.get_or_create_session("ada", expires_after=120, min_remaining=100)
    on_host(-skew)

    again = client.get_or_create_session("ada", expires_after=120, min_remaining=100)

    assert again.id == session.id
    assert client.get_session(session.id).status == "active"
    assert [info.status for info in client.sessions_for("ada")] == ["active"]


class LateStore(MemorySessionStore):
    """A store with a clock of its own, at which new sessions arrive late."""

    def __init__(self) -> None:
        self.seconds = NOON.timestamp()
        super().__init__(clock=lambda: self.seconds)

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        if SESSION in changes and when == {SESSION: None}:
            self.seconds += 30
        return super().commit(group, changes, when=when)


@pytest.mark.parametrize("refreshes", [False, True])
def test_a_session_that_is_stored_late_expires_when_it_says_so(*, refreshes: bool) -> None:
    store = LateStore()
    service = BlockingService(SessionsService(store, api_keys={API_KEY: "shop"}), None)
    session = service.create()
    if refreshes:
        _, session = service.ask(f"{SESSIONS}/refresh", {"client_secret": session["client_secret"]})
    secret, expires_at = str(session["client_secret"]), float(str(session["expires_at"]))

    store.seconds = expires_at - 1
    assert service.verify(secret).user == "ada"
    store.seconds = expires_at

    with pytest.raises(InvalidClientSecretError, match="expired"):
        service.verify(secret)
