"""When a store is asked, and what is logged of an outage."""

import logging

import pytest

from chatkit_sessions import SessionStoreError
from chatkit_sessions._sessions.circuit_breaker import FAILURES, RETRY_STORE_AFTER, CircuitBreaker
from support import Time


class TestCircuitBreaker:
    error = SessionStoreError("The session store does not answer (too tired).")

    def test_a_store_that_answers_is_asked(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        breaker.record_success()

        assert breaker.allows_request()
        assert breaker.allows_request()

    def test_one_that_does_not_is_asked_once_a_second(self, time: Time) -> None:
        breaker = CircuitBreaker(lambda: time.monotonic)
        for _ in range(FAILURES):
            assert breaker.allows_request()
            breaker.record_failure(self.error, begun=breaker.now())

        assert breaker.is_open
        assert not breaker.allows_request()
        time.advance(RETRY_STORE_AFTER)
        assert breaker.allows_request()
        assert not breaker.allows_request()
        breaker.record_success()
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
                breaker.record_failure(self.error, begun=breaker.now())
            for _ in range(10):
                breaker.record_success()

        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert told == 2 * [
            (
                "WARNING",
                (
                    "The session store does not answer (too tired). Until it does, sessions are "
                    f"created without it. Hint: {self.error.hint}"
                ),
            ),
            ("INFO", "The session store responds again."),
        ]

    def test_many_failures_of_one_moment_are_no_outage(self, time: Time) -> None:
        """A busy process, or a broken connection: what begins after it is answered."""
        breaker = CircuitBreaker(lambda: time.monotonic)
        begun = breaker.now()
        time.advance(1)
        for _ in range(100):
            breaker.record_failure(self.error, begun=begun)

        assert not breaker.is_open
        breaker.record_success()
        breaker.record_failure(self.error, begun=breaker.now())
        assert not breaker.is_open
