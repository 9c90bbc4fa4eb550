"""When a store is asked, and what is logged of an outage."""

import logging

import pytest

from chatkit_sessions import SessionStoreError
from chatkit_sessions._sessions.store_access import FAILURES, RETRY_STORE_AFTER, CircuitBreaker
from support import Time


class TestCircuitBreaker:
    error = SessionStoreError("The session store does not answer (too tired).")

    def test_a_store_that_answers_is_asked(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        breaker.record_success(breaker.begin())

        assert breaker.allows_request()
        assert breaker.allows_request()

    def test_one_that_does_not_is_asked_once_a_second(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        for _ in range(FAILURES):
            assert breaker.allows_request()
            breaker.record_failure(self.error, breaker.begin())

        assert breaker.is_open
        assert not breaker.allows_request()
        time.advance(RETRY_STORE_AFTER)
        assert breaker.allows_request()
        assert not breaker.allows_request()
        breaker.record_success(breaker.begin())
        assert breaker.allows_request()
        assert breaker.allows_request()

    def test_an_outage_is_logged_once_at_its_beginning_and_its_end(
        self, time: Time, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "chatkit_sessions")
        breaker = CircuitBreaker(lambda: time.monotonic)

        for _ in range(2):
            for _ in range(10):
                time.advance(10)
                breaker.record_failure(self.error, breaker.begin())
            for _ in range(10):
                breaker.record_success(breaker.begin())

        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert told == 2 * [
            (
                "WARNING",
                (
                    "The session store does not answer (too tired). Until it does, clients create "
                    "sessions that they cannot share, and a service responds with 503. "
                    f"Hint: {self.error.hint}"
                ),
            ),
            ("INFO", "The session store responds again."),
        ]

    def test_many_failures_of_one_moment_are_no_outage(self, time: Time) -> None:
        """A busy process, or a broken connection: what begins after it is answered."""
        breaker = CircuitBreaker(lambda: time.monotonic)
        begun = [breaker.begin() for _ in range(100)]
        for number in begun:
            breaker.record_failure(self.error, number)

        assert not breaker.is_open
        breaker.record_success(breaker.begin())
        breaker.record_failure(self.error, breaker.begin())
        assert not breaker.is_open

    def test_what_succeeds_after_it_was_given_up_does_not_end_an_outage(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        given_up = 0
        for _ in range(FAILURES):
            given_up = breaker.begin()
            breaker.record_failure(self.error, given_up)

        assert not breaker.record_success(given_up)
        assert breaker.is_open
        assert breaker.record_success(breaker.begin())
        assert not breaker.is_open

    def test_a_failure_says_nothing_of_what_came_after_it_began(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        arrived = breaker.latest
        number = breaker.begin()
        arrived_later = breaker.latest

        breaker.record_failure(self.error, number)

        assert breaker.has_failed_since(arrived)
        assert not breaker.has_failed_since(arrived_later)

    def test_a_read_ends_no_outage_that_a_write_began(
        self, time: Time, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "chatkit_sessions")
        breaker = CircuitBreaker(lambda: time.monotonic)
        for _ in range(10):
            for _ in range(FAILURES):
                breaker.record_failure(self.error, breaker.begin(), writes=True)
            assert not breaker.allows_request()
            time.advance(RETRY_STORE_AFTER)
            assert breaker.allows_request()
            assert not breaker.record_success(breaker.begin(), writes=False)
            assert breaker.allows_request(), "a write is to find out"

        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert breaker.record_success(breaker.begin(), writes=True)
        assert not breaker.record_success(breaker.begin(), writes=True)
        assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]

    def test_neither_does_it_begin_one_with_a_single_write_that_fails(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        for _ in range(3):
            breaker.record_failure(self.error, breaker.begin(), writes=True)
            assert not breaker.record_success(breaker.begin(), writes=False)

        assert not breaker.is_open
