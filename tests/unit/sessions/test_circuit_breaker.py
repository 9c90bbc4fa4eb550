"""When a store is asked, and what is logged of an outage."""

import logging

import pytest

from chatkit_sessions import SessionStoreError
from chatkit_sessions._sessions.circuit_breaker import RETRY_STORE_AFTER, CircuitBreaker
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
        breaker.record_failure(self.error)

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
                breaker.record_failure(self.error)
            for _ in range(10):
                breaker.record_success()

        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert told == 2 * [
            (
                "WARNING",
                (
                    "The session store does not answer (too tired). Until it does, sessions are "
                    "created without it."
                ),
            ),
            ("INFO", "The session store responds again."),
        ]
