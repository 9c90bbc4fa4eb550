"""Seconds for which a machine was suspended, told by two clocks."""

import time
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions._concurrency.clocks import (
    Suspension,
    clock_that_goes_on,
    seconds_with_suspension,
)
from chatkit_sessions.testing import FakeChatKit
from support import Connect
from workers import inner

if TYPE_CHECKING:
    from collections.abc import Callable


class Machine:
    """Whose monotonic clock stands still while it is suspended."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def suspend(self, seconds: float) -> None:
        self.wall += seconds

    def suspension(self) -> Suspension:
        return Suspension(lambda: self.wall, lambda: self.monotonic)


def test_time_that_passes_is_no_suspension() -> None:
    machine = Machine()
    suspension = machine.suspension()
    machine.run(5_000)

    assert suspension() == 0


def test_each_suspension_is_added() -> None:
    machine = Machine()
    suspension = machine.suspension()
    for seconds in (660, 30):
        machine.run(5)
        machine.suspend(seconds)
        suspension()

    assert suspension() == pytest.approx(690)


def test_clocks_that_differ_by_less_than_a_second_tell_none() -> None:
    machine = Machine()
    suspension = machine.suspension()
    machine.suspend(0.9)

    assert suspension() == 0
    machine.suspend(0.9)
    assert suspension() == pytest.approx(1.8), "many short ones are one"


def test_a_wall_clock_that_is_set_back_takes_nothing_away() -> None:
    machine = Machine()
    suspension = machine.suspension()
    machine.suspend(60)
    assert suspension() == 60
    machine.wall -= 3_600
    assert suspension() == 60
    machine.suspend(60)

    assert suspension() == 120


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e6, 1e6))))
def test_it_never_goes_back_and_misses_no_more_than_a_second(
    steps: list[tuple[bool, float]],
) -> None:
    machine = Machine()
    suspension, before, slept = machine.suspension(), 0.0, 0.0
    for runs, seconds in steps:
        if runs:
            machine.run(abs(seconds))
        else:
            machine.suspend(seconds)  # or the clock is set back
            slept += seconds
        now = suspension()
        assert now >= before
        assert now >= slept - 1.001
        before = now


def test_the_clock_is_the_machines_own_or_the_walls() -> None:
    assert clock_that_goes_on(None) is time.time
    assert clock_that_goes_on(time.CLOCK_MONOTONIC)() == pytest.approx(time.monotonic(), abs=60)
    assert seconds_with_suspension() >= time.monotonic() - 60


# What a client makes of it


@pytest.fixture
def client(connect: Connect, fake: FakeChatKit) -> ChatKitClient:
    """Without a clock of the test's."""
    http = connect.http_client(transport=fake.transport())
    make = ChatKitClient if connect.kind == "sync" else AsyncChatKitClient
    made = cast("Callable[..., ChatKitClient]", make)(
        api_key=fake.api_key, workflow_id=fake.workflow_id, http_client=http
    )
    made._sessions.io.runtime = made._sessions.io.runtime._replace(suspended=lambda: 0.0)
    return connect.adopt(made)


def suspend(client: ChatKitClient, seconds: float) -> None:
    one = inner(client)
    one._sessions.io.runtime = one._sessions.io.runtime._replace(suspended=lambda: seconds)


def test_a_session_that_expired_during_a_suspension_is_not_returned(client: ChatKitClient) -> None:
    first = client.get_or_create_session("ada")
    assert client.get_or_create_session("ada") == first

    suspend(client, 660)

    assert client.get_or_create_session("ada") != first


def test_no_time_limit_is_over_because_of_a_suspension(client: ChatKitClient) -> None:
    deadline = inner(client)._sessions.calls.deadline(30)

    suspend(client, 660)

    assert deadline.remaining() == 30
