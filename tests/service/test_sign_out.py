"""A sign-out ends every session of the user, whoever created it: after it, none verifies."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import cast

import pytest
from pydantic import SecretStr

from chatkit_sessions import ChatKitError, InvalidRequestError, SessionStoreError
from chatkit_sessions.service import InvalidClientSecretError, SessionsService
from chatkit_sessions.service._records import SESSION
from chatkit_sessions.service._rules import Headers, ServiceRequest
from chatkit_sessions.stores import Entry, MemorySessionStore
from chatkit_sessions.stores.base import Transaction
from redis_server import RedisServer, execute, execute_for_list
from services import API_KEY, OTHER_KEY, SESSIONS, BlockingService, Services, headers_for
from support import JSON, NOON

CANCEL = f"{SESSIONS}/cancel"
REFRESH = f"{SESSIONS}/refresh"


def is_active(service: BlockingService | SessionsService, secret: str) -> bool:
    try:
        service.verify(secret, count=False)
    except InvalidClientSecretError:
        return False
    return True


def test_it_ends_the_sessions_that_anybody_created(services: Services) -> None:
    over_rest, in_process = services(), services()
    created = [
        over_rest.create_secret(),
        in_process.client(project="shop").create_session("ada").client_secret.get_secret_value(),
        over_rest.ask(REFRESH, {"client_secret": over_rest.create_secret()})[1]["client_secret"],
    ]

    services().delete_sessions("ada")

    for secret in created:
        with pytest.raises(InvalidClientSecretError) as raised:
            over_rest.verify(str(secret))
        assert raised.value.reason == "cancelled"


def test_a_client_of_the_service_ends_what_others_created(services: Services) -> None:
    secret = services().create_secret()

    services().client(project="shop").delete_sessions("ada")

    assert not is_active(services(), secret)


def test_it_leaves_other_users_and_other_projects(service: BlockingService) -> None:
    kept = [service.create_secret("eve"), str(service.create(key=OTHER_KEY)["client_secret"])]
    service.create_secret()

    service.delete_sessions("ada")
    service.delete_sessions("nobody")

    assert [is_active(service, secret) for secret in kept] == [True, True]


def test_the_next_session_works_and_is_refreshed(service: BlockingService) -> None:
    service.create_secret()
    service.delete_sessions("ada")

    secret = service.create_secret()
    for _ in range(3):
        status, session = service.ask(REFRESH, {"client_secret": secret})
        secret = str(session["client_secret"])
        assert status == 200

    assert is_active(service, secret)
    service.delete_sessions("ada")
    assert not is_active(service, secret)


def test_a_day_after_a_sign_out_sessions_are_refreshed_as_before(services: Services) -> None:
    service = services()
    service.delete_sessions("ada")
    services.advance(86_395)
    secret = service.create_secret()

    services.advance(10)

    assert service.ask(REFRESH, {"client_secret": secret})[0] == 200


def test_the_active_sessions_of_a_user_are_listed(services: Services) -> None:
    service = services()
    first = service.create(expires_after={"anchor": "created_at", "seconds": 60})
    ended = service.create()
    service.ask(f"{SESSIONS}/{ended['id']}/cancel")
    services.advance(1)
    last = service.create()
    service.create("eve")

    assert [each.session_id for each in service.sessions_for("ada")] == [last["id"], first["id"]]
    assert service.sessions_for("ada", project="other") == []
    services.advance(60)
    assert [each.session_id for each in service.sessions_for("ada")] == [last["id"]]


@pytest.mark.parametrize("wrong", ["", None, 1, b"ada"])
def test_a_user_and_a_project_are_needed(
    services: Services, service: BlockingService, wrong: str
) -> None:
    for call in (service.sessions_for, service.delete_sessions):
        with pytest.raises(InvalidRequestError, match="`user`"):
            call(wrong)
        with pytest.raises(InvalidRequestError, match="`project`"):
            call("ada", project=wrong)
    assert services.store.calls == []


class TestTheRoute:
    def test_ends_the_sessions_of_the_keys_project(self, service: BlockingService) -> None:
        sessions = [service.create() for _ in range(3)]
        others = str(service.create(key=OTHER_KEY)["client_secret"])

        status, body = service.ask(CANCEL, {"user": "ada"})

        assert (status, body["object"], body["user"]) == (200, "chatkit.user", "ada")
        assert set(cast("list[str]", body["cancelled_sessions"])) == {e["id"] for e in sessions}
        assert not any(is_active(service, str(each["client_secret"])) for each in sessions)
        assert is_active(service, others)
        assert service.ask(CANCEL, {"user": "ada"})[1]["cancelled_sessions"] == []

    @pytest.mark.parametrize(
        ("content", "param"),
        [({}, "user"), ({"user": ""}, "user"), ({"user": 1}, "user"), ({"user": "a", "b": 1}, "b")],
    )
    def test_needs_a_user_and_nothing_else(
        self, services: Services, service: BlockingService, content: object, param: str
    ) -> None:
        status, body = service.ask(CANCEL, content)

        assert (status, cast("JSON", body["error"])["param"]) == (400, param)
        assert services.store.calls == []

    def test_needs_a_key(self, services: Services, service: BlockingService) -> None:
        assert service.ask(CANCEL, {"user": "ada"}, key="sk-another-key-of-somebody")[0] == 401
        assert services.store.calls == []

    def test_is_no_sessions_id(self, service: BlockingService) -> None:
        assert service.ask(CANCEL, method="GET")[0] == 405

    def test_is_announced_by_every_response(self, service: BlockingService) -> None:
        headers = Headers(headers_for(API_KEY).items())
        for request in (
            ServiceRequest("POST", CANCEL, headers, b'{"user": "ada"}'),
            ServiceRequest("POST", SESSIONS, headers, b"{}"),
            ServiceRequest("POST", SESSIONS),
        ):
            response = service.handle(request)
            assert response.headers["chatkit-extensions"] == "get, refresh, sign_out"

    def test_is_unavailable_in_a_store_outage(
        self, services: Services, service: BlockingService
    ) -> None:
        services.store.is_down = True

        assert service.ask(CANCEL, {"user": "ada"})[0] == 503


class TestRequestCounts:
    """A session that is ended early leaves its count to the user's next one."""

    def used(self, service: BlockingService, secret: str, requests: int) -> None:
        for _ in range(requests):
            service.verify(secret)

    def left(self, service: BlockingService, secret: str) -> int:
        admitted = 0
        while admitted < 20:
            try:
                service.verify(secret)
            except Exception:  # noqa: BLE001 -- whatever it is
                break
            admitted += 1
        return admitted

    def test_are_not_reset_by_a_refresh_with_other_options(self, service: BlockingService) -> None:
        chatkit = service.client(project="shop")
        secret = chatkit.create_session("ada", max_requests_per_1_minute=10).client_secret
        self.used(service, secret.get_secret_value(), 8)

        renewed = chatkit.refresh_session(secret, user="ada", max_requests_per_1_minute=9)

        assert self.left(service, renewed.client_secret.get_secret_value()) == 1

    def test_are_not_reset_by_ending_a_session(
        self, services: Services, service: BlockingService
    ) -> None:
        session = service.create()
        self.used(service, str(session["client_secret"]), 7)

        service.ask(f"{SESSIONS}/{session['id']}/cancel")

        assert self.left(service, service.create_secret()) == 3
        assert self.left(service, service.create_secret("eve")) == 10
        services.advance(61)
        assert self.left(service, service.create_secret()) == 10

    @pytest.mark.parametrize("end", ["cancel", "sign out"])
    def test_include_what_is_admitted_while_the_session_is_ended(self, end: str) -> None:
        for at in range(100):
            case = Interleaved()
            session = json.loads(case.create())
            path, content = f"{SESSIONS}/{session['id']}/cancel", {}
            if end == "sign out":
                path, content = CANCEL, {"user": "ada"}
            admitted = [case.admitted(session, most=1)]

            def use() -> None:
                admitted.append(case.admitted(session))  # noqa: B023

            if not case.run(lambda: case.ask(path, content), use, at):  # noqa: B023
                assert at > 2
                break
            admitted.append(case.admitted(json.loads(case.create())))
            assert sum(admitted) == 10, at
            assert not case.is_active(session["client_secret"])

    def test_are_not_reset_by_a_sign_out(self, service: BlockingService) -> None:
        self.used(service, service.create_secret(), 7)

        service.delete_sessions("ada")

        assert self.left(service, service.create_secret()) == 3


class SteppingStore(MemorySessionStore):
    """Counts its operations, and lets something happen before one of them."""

    def __init__(self) -> None:
        super().__init__(namespace="shop", clock=NOON.timestamp)
        self.operations = 0
        self.before: dict[int, Callable[[], object]] = {}

    def _step(self) -> None:
        number, self.operations = self.operations, self.operations + 1
        happens = self.before.pop(number, None)
        if happens is not None:
            happens()

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        self._step()
        return super().get(group, names)

    def names(self, group: str) -> list[str]:
        self._step()
        return super().names(group)

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        self._step()
        return super().commit(group, changes, when=when)


class Interleaved:
    """Two calls, of which one runs as a whole before one of the operations of the other."""

    def __init__(self) -> None:
        self.store = SteppingStore()
        self.service = SessionsService(self.store, api_keys={API_KEY: "shop"}, clock=lambda: NOON)
        self.old = self.secret_of(self.create())

    def ask(self, path: str, content: object) -> bytes:
        headers = Headers(headers_for(API_KEY).items())
        body = json.dumps(content).encode()
        return self.service.handle(ServiceRequest("POST", path, headers, body)).body

    def create(self) -> bytes:
        return self.ask(SESSIONS, {"user": "ada", "workflow": {"id": "support"}})

    def refresh(self) -> bytes:
        return self.ask(REFRESH, {"client_secret": self.old})

    def sign_out(self) -> None:
        self.service.delete_sessions("ada", project="shop")

    @staticmethod
    def secret_of(response: bytes) -> str:
        return str(json.loads(response).get("client_secret", ""))

    def is_active(self, secret: str) -> bool:
        return is_active(self.service, secret)

    def admitted(self, session: JSON, most: int = 20) -> int:
        """How many requests with a session's secret are admitted."""
        for number in range(most):
            try:
                self.service.verify(str(session["client_secret"]))
            except ChatKitError:
                return number
        return most

    def run(self, outer: Callable[[], object], inner: Callable[[], object], at: int) -> bool:
        """Whether the outer call had that many operations."""
        self.store.operations = 0
        self.store.before = {at: inner}
        outer()
        return not self.store.before


def test_a_refresh_during_a_sign_out_revives_nobody() -> None:
    for at in range(100):
        case = Interleaved()
        renewed: list[bytes] = []
        if not case.run(case.sign_out, lambda: renewed.append(case.refresh()), at):  # noqa: B023
            assert at > 3
            break
        assert not case.is_active(case.secret_of(renewed[0])), at
        assert not case.is_active(case.old)


def test_a_sign_out_during_a_refresh_leaves_nothing() -> None:
    for at in range(100):
        case = Interleaved()
        renewed: list[bytes] = []
        if not case.run(lambda: renewed.append(case.refresh()), case.sign_out, at):  # noqa: B023
            assert at > 3
            break
        assert not case.is_active(case.secret_of(renewed[0])), at
        assert not case.is_active(case.old)
        records = [
            value for (_, name), (value, *_) in case.store._entries.items() if name == SESSION
        ]
        assert all(json.loads(each)["cancelled"] for each in records), "nor a record of a session"


def test_a_sign_out_during_a_create_ends_what_was_returned_before() -> None:
    for at in range(100):
        case = Interleaved()
        if not case.run(case.create, case.sign_out, at):
            assert at > 1
            break
        assert not case.is_active(case.old)


def test_a_create_during_a_sign_out_is_ended_or_new() -> None:
    for at in range(100):
        case = Interleaved()
        created: list[bytes] = []
        if not case.run(case.sign_out, lambda: created.append(case.create()), at):  # noqa: B023
            assert at > 3
            break
        case.sign_out()
        assert not case.is_active(case.secret_of(created[0])), "the next one finds it in any case"


def test_a_session_that_is_lost_during_a_sign_out_has_ended() -> None:
    for at in range(100):
        case = Interleaved()
        group = case.service._flow._rules.group_of_secret(SecretStr(case.old))
        assert group is not None
        lose = partial(MemorySessionStore.commit, case.store, group, {SESSION: None}, when={})

        if not case.run(case.sign_out, lose, at):
            assert at > 2
            break
        assert not case.is_active(case.old)


def test_two_sign_outs_at_once_are_as_good_as_one() -> None:
    for at in range(100):
        case = Interleaved()
        if not case.run(case.sign_out, case.sign_out, at):
            assert at > 3
            break
        assert not case.is_active(case.old)
        case.old = case.secret_of(case.create())
        assert case.is_active(case.secret_of(case.refresh())), "a new session is a new session"


def test_after_an_error_midway_the_next_call_ends_the_rest() -> None:
    for at in range(100):
        case = Interleaved()
        secrets = [case.old, *(case.secret_of(case.create()) for _ in range(3))]
        numbers = iter(range(at, at + 2))

        def fail() -> None:
            for number in numbers:  # noqa: B023 -- the next attempt fails, too
                case.store.before[number + 1] = fail  # noqa: B023
                break
            raise SessionStoreError("The store is down.")

        case.store.operations = 0
        case.store.before = {at: fail}
        try:
            case.sign_out()
        except SessionStoreError:
            case.store.before = {}
        else:
            assert at > 6
            break
        case.sign_out()
        assert not any(map(case.is_active, secrets)), at


def test_a_user_may_have_hundreds_of_sessions() -> None:
    case = Interleaved()
    secrets = [case.secret_of(case.create()) for _ in range(300)]

    case.sign_out()

    assert not any(map(case.is_active, secrets))


class PipeliningStore(MemorySessionStore):
    """A store that reads entries of several groups in one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def get_many(self, entries: Sequence[tuple[str, str]]) -> list[Entry | None]:
        self.read.append(len(entries))
        return [self.get(group, [name])[0] for group, name in entries]


def test_no_operation_of_the_store_grows_with_a_users_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatkit_sessions._sessions.store_access._MAX_ENTRIES_READ", 4)
    store = PipeliningStore()
    service = SessionsService(store)
    client = service.client(workflow_id="support")
    secrets = [client.create_session("ada").client_secret.get_secret_value() for _ in range(5)]

    assert len(service.sessions_for("ada")) == 5
    service.delete_sessions("ada")

    assert store.read == [4, 4, 2] * 2
    assert not any(is_active(service, secret) for secret in secrets)


class LateStore(MemorySessionStore):
    """A store to which a network can deliver the requests of earlier attempts once more."""

    def __init__(self) -> None:
        super().__init__()
        self.delivered: list[Transaction] = []

    def commit(
        self, group: str, changes: Mapping[str, Entry | None], *, when: Mapping[str, bytes | None]
    ) -> bool:
        self.delivered.append(Transaction(group, changes, when))
        return super().commit(group, changes, when=when)


def test_a_change_that_arrives_again_afterwards_revives_nobody() -> None:
    store = LateStore()
    service = SessionsService(store)
    client = service.client(workflow_id="support")
    created = client.create_session("ada")
    service.verify(created.client_secret)
    renewed = client.refresh_session(created.client_secret, user="ada")
    service.verify(renewed.client_secret)
    service.delete_sessions("ada")

    for group, changes, when in list(store.delivered):
        store.commit(group, changes, when=when)
        for session in (created, renewed):
            assert not is_active(service, session.client_secret.get_secret_value())


class ReplicatedStore(MemorySessionStore):
    """A store whose replicas confirm what they are told to."""

    wait_replicas = 1
    confirms = False

    def commit_to_replicas(
        self, group: str, changes: Mapping[str, Entry | None], *, seconds: float
    ) -> bool:
        assert seconds > 0
        assert self.commit(group, changes, when={})
        return self.confirms


def test_what_too_few_replicas_confirm_is_an_error() -> None:
    service = SessionsService(ReplicatedStore(namespace="shop"))
    chatkit = service.client(workflow_id="support")
    secret = chatkit.create_session("ada").client_secret.get_secret_value()

    with pytest.raises(SessionStoreError, match="replicas"):
        service.delete_sessions("ada")

    assert not is_active(service, secret)


def test_what_enough_replicas_confirm_is_a_sign_out() -> None:
    store = ReplicatedStore(namespace="shop")
    store.confirms = True
    service = SessionsService(store)
    chatkit = service.client(workflow_id="support")
    secret = chatkit.create_session("ada").client_secret.get_secret_value()

    service.delete_sessions("ada")

    assert not is_active(service, secret)


def test_what_another_wrote_into_the_list_ends_nobody_elses_session(services: Services) -> None:
    service = services()
    others = service.create("eve")
    rules = service.wrapped._flow._rules
    group = rules.group_of_user("shop", "ada")
    (listed,) = services.store._store.names(rules.group_of_user("shop", "eve"))
    (entry,) = services.store._store.get(rules.group_of_user("shop", "eve"), [listed])
    assert entry is not None
    forged = {listed: entry, "session:zz": entry, "other": entry}
    for each in forged.values():
        object.__setattr__(each, "listed", True)
    services.store._store.commit(group, forged, when={})

    service.delete_sessions("ada")

    assert is_active(service, str(others["client_secret"]))


def test_every_key_in_redis_expires(redis_server: RedisServer) -> None:
    with ExitStack() as stack:
        service = Services("sync", "redis", redis_server, stack)(clock=None)
        secret = service.create_secret()
        service.verify(secret)
        service.ask(REFRESH, {"client_secret": secret})
        session = service.create()
        service.verify(str(session["client_secret"]))
        service.ask(f"{SESSIONS}/{session['id']}/cancel")
        service.delete_sessions("ada")

    with redis_server.client() as client:
        keys = execute_for_list(client, "KEYS", "*")
        lifetimes = [int(execute(client, "PTTL", key.decode())) for key in keys]
    assert len(keys) > 6
    assert all(0 < each <= 86_400_000 for each in lifetimes)
