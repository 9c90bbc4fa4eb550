"""Many at once: threads, tasks and processes, over both stores."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions.service import ClientSecretRateLimitError, InvalidClientSecretError
from chatkit_sessions.service._rules import Headers, ServiceRequest
from redis_server import RedisServer
from services import (
    API_KEY,
    SESSIONS,
    BlockingService,
    Services,
    all_at_once,
    headers_for,
)
from workers import as_flow

AT_ONCE = 24
HELPERS = Path(__file__).parents[1] / "helpers"


def verification(service: BlockingService, secret: str) -> Callable[[], object]:
    return lambda: service.wrapped.verify(secret)


def request(service: BlockingService, path: str, body: bytes = b"") -> Callable[[], object]:
    headers = Headers(headers_for(API_KEY).items())
    return lambda: service.wrapped.handle(
        ServiceRequest("POST", f"{SESSIONS}/{path}", headers, body)
    )


def count_of(outcomes: list[object], status: int) -> int:
    return sum(getattr(each, "status_code", None) == status for each in outcomes)


def test_a_limit_admits_exactly_as_many(service: BlockingService) -> None:
    secret = service.create_secret(limit=10)

    outcomes = all_at_once(service, *[verification(service, secret)] * AT_ONCE)

    rejected = [each for each in outcomes if isinstance(each, Exception)]
    assert len(rejected) == AT_ONCE - 10
    assert {type(each).__name__ for each in rejected} == {"ClientSecretRateLimitError"}


def test_of_many_refreshes_one_succeeds(service: BlockingService) -> None:
    body = f'{{"client_secret": "{service.create_secret()}"}}'.encode()

    outcomes = all_at_once(service, *[request(service, "refresh", body)] * AT_ONCE)

    assert (count_of(outcomes, 200), count_of(outcomes, 400)) == (1, AT_ONCE - 1)


def test_every_change_may_be_made_twice(service: BlockingService, services: Services) -> None:
    """As over a connection that breaks after a change, before its reply."""
    services.store.repeats = 1_000

    first = service.create()
    status, second = service.ask(f"{SESSIONS}/refresh", {"client_secret": first["client_secret"]})

    assert status == 200
    assert service.ask(f"{SESSIONS}/{first['id']}", method="GET")[1]["status"] == "cancelled"
    assert service.verify(str(second["client_secret"]), count=False).session_id == second["id"]
    assert service.ask(f"{SESSIONS}/{second['id']}/cancel")[1]["status"] == "cancelled"
    service.create()
    service.delete_sessions("ada")
    assert service.sessions_for("ada") == []


def test_a_request_whose_count_is_made_twice_counts_as_two(
    service: BlockingService, services: Services
) -> None:
    secret = service.create_secret(limit=3)
    services.store.repeats = 1

    service.verify(secret)

    service.verify(secret)
    with pytest.raises(ClientSecretRateLimitError):
        service.verify(secret)


def test_of_many_refreshes_one_succeeds_even_if_changes_are_made_twice(
    service: BlockingService, services: Services
) -> None:
    services.store.repeats = 1_000

    test_of_many_refreshes_one_succeeds(service)


def test_a_cancelled_session_is_never_admitted_again(service: BlockingService) -> None:
    session = service.create(rate_limits={"max_requests_per_1_minute": 1_000})
    secret = str(session["client_secret"])
    cancelling = request(service, f"{session['id']}/cancel")

    outcomes = all_at_once(
        service,
        *[verification(service, secret)] * 10,
        cancelling,
        *[verification(service, secret)] * 10,
    )

    assert count_of(outcomes, 200) == 1
    for count in (True, False):
        with pytest.raises(InvalidClientSecretError):
            service.verify(secret, count=count)


def test_a_refresh_loses_no_request_that_is_counted_meanwhile(service: BlockingService) -> None:
    secret = service.create_secret(limit=100)
    body = f'{{"client_secret": "{secret}"}}'.encode()

    outcomes = all_at_once(
        service, *[verification(service, secret)] * 10, request(service, "refresh", body)
    )

    admitted = sum(not isinstance(each, Exception) for each in outcomes) - 1
    rules = service.wrapped._flow._rules
    (renewed,) = [each for each in outcomes if getattr(each, "status_code", 0) == 200]
    new = json.loads(renewed.body)["id"]  # type: ignore[attr-defined]
    counted = requests_of(service, rules.group_of_session(new))
    assert counted == admitted


def requests_of(service: BlockingService, group: str) -> int:
    """How many requests the store has counted."""
    looking = service.wrapped._flow._access.get(group, ["requests"], Deadline(time.monotonic, None))
    if service._runner is None:
        (entry,) = run_blocking(as_flow, looking)
    else:
        (entry,) = service._runner.run(looking)
    return 0 if entry is None else sum(int(pair.split(b"*")[1]) for pair in entry.value.split())


@pytest.mark.slow
def test_processes_agree(redis_server: RedisServer) -> None:
    with ExitStack() as stack:
        issuing = Services("sync", "redis", redis_server, stack)(clock=None)
        chatkit = issuing.client(project="shop")
        workers = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603 -- our own
                    [sys.executable, HELPERS / "service_worker.py", redis_server.url, "8"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        assert [read_line(worker) for worker in workers] == ["ready\n"] * 4

        def succeeded(what: str, *, limit: int) -> int:
            session = chatkit.create_session("ada", max_requests_per_1_minute=limit)
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{what} {session.client_secret.get_secret_value()}\n")
                worker.stdin.flush()
            if what == "outlive":
                chatkit.delete_sessions("ada")
            return sum(int(read_line(worker)) for worker in workers)

        assert succeeded("verify", limit=20) == 20
        assert succeeded("refresh", limit=20) == 1
        assert succeeded("outlive", limit=1_000_000) == 0


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
