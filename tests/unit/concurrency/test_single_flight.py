"""Concurrent calls for the same thing share one in-flight call."""

from typing import TypeAlias

import pytest

from chatkit_sessions import APITimeoutError, ChatKitSessionResponse
from chatkit_sessions._concurrency.single_flight import Batches, SingleFlight
from chatkit_sessions._concurrency.threads import ThreadEvent, run_blocking
from support import session_json

Flights: TypeAlias = SingleFlight[ChatKitSessionResponse]
SESSION = ChatKitSessionResponse.model_validate(session_json())


@pytest.fixture
def single_flight() -> Flights:
    return SingleFlight(ThreadEvent)


def test_the_first_to_join_leads(single_flight: Flights) -> None:
    first, second = single_flight.new(), single_flight.new()

    assert single_flight.join("key", first) is first
    assert single_flight.join("key", second) is first
    assert single_flight.join("other key", second) is second


def test_waiters_get_the_leader_s_session(single_flight: Flights) -> None:
    own = single_flight.new()
    flight = single_flight.join("key", own)
    own.set_result(SESSION)

    single_flight.end("key", own)

    assert run_blocking(flight.done.wait_for, 0.0)
    assert flight.result() is SESSION


def test_nobody_waits_for_what_has_ended(single_flight: Flights) -> None:
    own = single_flight.new()
    single_flight.end("key", own)

    assert run_blocking(own.done.wait_for, 0.0)


def test_each_waiter_gets_a_copy_of_the_leader_s_error(
    single_flight: Flights,
) -> None:
    own, error = single_flight.new(), APITimeoutError("too late")
    own.set_error(error)

    raised: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(APITimeoutError, match="too late") as caught:
            own.result()
        raised.append(caught.value)

    assert len({id(error), *map(id, raised)}) == 3


def test_a_leader_that_gives_up_leaves_no_result(
    single_flight: Flights,
) -> None:
    own = single_flight.new()
    single_flight.join("key", own)

    single_flight.end("key", own)

    assert own.result() is None
    another = single_flight.new()
    assert single_flight.join("key", another) is another


def test_ending_a_flight_that_never_joined_ends_no_other(
    single_flight: Flights,
) -> None:
    leader, waiter = single_flight.new(), single_flight.new()
    single_flight.join("key", leader)

    single_flight.end("key", waiter)

    assert not run_blocking(leader.done.wait_for, 0.0)
    assert single_flight.join("key", waiter) is leader


class TestBatches:
    def test_a_flight_can_be_joined_until_it_starts(self) -> None:
        batches = Batches[str](ThreadEvent)
        first, second, third = batches.new(), batches.new(), batches.new()

        assert batches.join("key", first) is first
        assert batches.running("key") is None
        assert batches.join("key", second) is first
        batches.start("key", first)
        assert batches.join("key", second) is second
        assert batches.join("key", third) is second
        assert batches.running("key") is first

    def test_a_flight_that_ends_makes_way(self) -> None:
        batches = Batches[str](ThreadEvent)
        first, second = batches.new(), batches.new()
        batches.join("key", first)
        batches.start("key", first)
        batches.join("key", second)
        first.set_result("found")

        batches.end("key", first)

        assert run_blocking(first.done.wait_for, 0.0)
        assert first.result() == "found"
        assert batches.running("key") is None
        assert not run_blocking(second.done.wait_for, 0.0)

    def test_whoever_does_not_lead_ends_nothing(self) -> None:
        batches = Batches[str](ThreadEvent)
        first, second = batches.new(), batches.new()
        batches.join("key", first)
        batches.start("key", first)

        batches.end("key", second)

        assert batches.running("key") is first
        assert not run_blocking(first.done.wait_for, 0.0)
