"""Whether to try again, and when."""

import dataclasses
import math
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from chatkit_sessions._config.retry_policy import (
    FailedAttempt,
    RetryPolicy,
    parse_retry_after,
    parse_should_retry,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def delay(
    failure: FailedAttempt,
    policy: RetryPolicy | None = None,
    *,
    retries_done: int = 0,
    remaining: float | None = None,
    random: float = 0.0,
) -> float | None:
    return (policy or RetryPolicy()).delay(
        failure, retries_done=retries_done, remaining=remaining, random=lambda: random
    )


class TestPolicy:
    def test_a_pickle_names_the_public_package_and_no_private_module(self) -> None:
        pickled = pickle.dumps(RetryPolicy(max_retries=5))

        assert pickle.loads(pickled) == RetryPolicy(max_retries=5)  # noqa: S301 -- our own bytes
        assert b"_config" not in pickled

    def test_its_defaults_are_those_of_the_official_sdk(self) -> None:
        policy = RetryPolicy()

        assert policy.max_retries == 2
        assert policy.initial_delay == 0.5
        assert policy.max_delay == 8.0
        assert policy.jitter == 0.25
        assert policy.max_retry_after == 120.0

    @pytest.mark.parametrize(
        "settings",
        [
            {"max_retries": 0},
            {"max_retries": 10**6},
            {"initial_delay": 0.001},
            {"initial_delay": 8},
            {"initial_delay": 1, "max_delay": 1},
            {"jitter": 0},
            {"jitter": 1},
            {"max_retry_after": 0},
            {"max_delay": 1_000_000, "max_retry_after": 1_000_000},
        ],
        ids=str,
    )
    def test_it_takes_its_bounds(self, settings: dict[str, Any]) -> None:
        policy = RetryPolicy(**settings)

        assert all(getattr(policy, name) == value for name, value in settings.items())

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"max_retries": -1}, "`max_retries` must be a whole number, 0 or more, got -1"),
            ({"max_retries": 1.0}, "`max_retries` must be a whole number, 0 or more, got 1.0"),
            ({"max_retries": True}, "`max_retries` must be a whole number"),
            ({"max_retries": "2"}, "`max_retries` must be a whole number"),
            ({"max_retries": None}, "`max_retries` must be a whole number"),
            ({"initial_delay": 0}, "`initial_delay` must be more than 0"),
            (
                {"initial_delay": -0.1},
                "`initial_delay` must be finite and 0 or more (at most 1,000,000), got -0.1",
            ),
            ({"initial_delay": 8.001}, "at most `max_delay`, got 8.001 and 8.0"),
            ({"initial_delay": "1"}, "`initial_delay` must be a number, got '1'"),
            ({"initial_delay": True}, "`initial_delay` must be a number, got True"),
            ({"initial_delay": math.nan}, "`initial_delay` must be finite"),
            ({"max_delay": 0.4}, "at most `max_delay`, got 0.5 and 0.4"),
            ({"max_delay": math.inf}, "`max_delay` must be finite"),
            ({"max_delay": None}, "`max_delay` must be a number"),
            ({"jitter": -0.01}, "`jitter` must be finite and 0 or more"),
            ({"jitter": 1.01}, "`jitter` must be between 0 and 1, got 1.01"),
            ({"jitter": math.nan}, "`jitter` must be finite"),
            ({"max_retry_after": -1}, "`max_retry_after` must be finite and 0 or more"),
            (
                {"max_retry_after": 1_000_001},
                "`max_retry_after` must be finite and 0 or more (at most 1,000,000), got 1000001",
            ),
            ({"max_retry_after": math.inf}, "`max_retry_after` must be finite"),
            ({"max_retry_after": False}, "`max_retry_after` must be a number"),
        ],
        ids=str,
    )
    def test_it_refuses_what_lies_beyond(self, settings: dict[str, Any], named: str) -> None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the text is compared below
            RetryPolicy(**settings)

        assert named in str(caught.value)
        assert str(caught.value).startswith("`")

    @pytest.mark.parametrize("name", ["initial_delay", "max_delay", "jitter", "max_retry_after"])
    def test_an_integer_beyond_every_float_is_refused_like_any_other_value(self, name: str) -> None:
        settings: dict[str, Any] = {name: 10**400}

        with pytest.raises(ValueError, match=name):
            RetryPolicy(**settings)

    def test_it_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(RetryPolicy(), "max_retries", 5)  # noqa: B010 -- the type checker knows better

    def test_it_is_a_value(self) -> None:
        assert RetryPolicy(max_retries=3) == RetryPolicy(max_retries=3)
        assert hash(RetryPolicy(max_retries=3)) == hash(RetryPolicy(max_retries=3))
        assert dataclasses.replace(RetryPolicy(), jitter=0).jitter == 0

    def test_its_settings_have_names(self) -> None:
        positional: Any = RetryPolicy

        with pytest.raises(TypeError):
            positional(3)


class TestFailure:
    def test_it_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            setattr(FailedAttempt(), "status_code", 5)  # noqa: B010 -- the type checker knows better


class TestBackoff:
    def test_it_doubles_up_to_its_bound(self) -> None:
        policy = RetryPolicy(max_retries=10)

        delays = [delay(FailedAttempt(), policy, retries_done=n) for n in range(6)]

        assert delays == [0.5, 1, 2, 4, 8, 8]

    def test_jitter_shortens_it_by_its_share(self) -> None:
        assert delay(FailedAttempt(), random=1.0) == 0.375
        assert delay(FailedAttempt(), RetryPolicy(jitter=0), random=0.9) == 0.5
        assert delay(FailedAttempt(), RetryPolicy(jitter=0.5), random=0.5) == 0.375

    @given(
        st.floats(0.001, 100),
        st.floats(0, 100),
        st.floats(0, 1),
        st.integers(0, 10**9),
        st.floats(0, 1, exclude_max=True),
    )
    def test_it_stays_between_the_jittered_and_the_full_delay(
        self, initial: float, more: float, jitter: float, done: int, random: float
    ) -> None:
        policy = RetryPolicy(
            max_retries=10**10, initial_delay=initial, max_delay=initial + more, jitter=jitter
        )

        waited = delay(FailedAttempt(), policy, retries_done=done, random=random)

        assert waited is not None
        full = min(initial * 2.0 ** min(done, 100), initial + more)
        assert full * (1 - jitter) * 0.999999 <= waited <= full

    @pytest.mark.parametrize("done", [61, 1023, 1024, 10**6, 10**18])
    def test_a_great_number_of_retries_is_no_trouble(self, done: int) -> None:
        assert delay(FailedAttempt(), RetryPolicy(max_retries=10**19), retries_done=done) == 8

    @pytest.mark.parametrize(("done", "waits"), [(0, True), (1, True), (2, False), (3, False)])
    def test_it_ends_with_the_last_retry(self, done: int, *, waits: bool) -> None:
        assert (delay(FailedAttempt(), retries_done=done) is not None) is waits

    def test_zero_retries_switch_it_off(self) -> None:
        assert (
            delay(FailedAttempt(status_code=500, retry_after=1), RetryPolicy(max_retries=0)) is None
        )


class TestWhatIsRepeated:
    def test_no_answer(self) -> None:
        assert delay(FailedAttempt()) == 0.5

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 501, 502, 503, 504, 529, 599])
    def test_these_statuses(self, status: int) -> None:
        assert delay(FailedAttempt(status_code=status)) == 0.5

    @pytest.mark.parametrize("status", [200, 301, 302, 400, 401, 403, 404, 405, 410, 422, 499])
    def test_not_these(self, status: int) -> None:
        assert delay(FailedAttempt(status_code=status)) is None

    @pytest.mark.parametrize("status", [400, 404, 429, 500])
    def test_the_answer_itself_can_override_an_error_status(self, status: int) -> None:
        assert delay(FailedAttempt(status_code=status, should_retry=True)) == 0.5
        assert delay(FailedAttempt(status_code=status, should_retry=False)) is None

    @pytest.mark.parametrize("status", [200, 201, 204, 301, 302, 307, 399])
    def test_what_is_no_error_status_is_never_repeated(self, status: int) -> None:
        assert delay(FailedAttempt(status_code=status, should_retry=True)) is None


class TestWaitThatTheAnswerAsksFor:
    @pytest.mark.parametrize("seconds", [0.001, 1, 119.9, 120])
    def test_it_is_kept_to_the_second(self, seconds: float) -> None:
        failure = FailedAttempt(status_code=429, retry_after=seconds)

        assert delay(failure, retries_done=1, random=0.9) == seconds

    @pytest.mark.parametrize("seconds", [120.001, 3600, 1e300])
    def test_too_long_a_wait_ends_the_call(self, seconds: float) -> None:
        assert delay(FailedAttempt(status_code=429, retry_after=seconds)) is None

    def test_how_long_is_too_long_can_be_set(self) -> None:
        failure = FailedAttempt(status_code=429, retry_after=5)

        assert delay(failure, RetryPolicy(max_retry_after=5)) == 5
        assert delay(failure, RetryPolicy(max_retry_after=4.9)) is None

    def test_it_does_not_make_a_status_worth_repeating(self) -> None:
        assert delay(FailedAttempt(status_code=404, retry_after=1)) is None


class TestTimeLeft:
    @pytest.mark.parametrize(
        "failure", [FailedAttempt(), FailedAttempt(status_code=429, retry_after=0.5)]
    )
    @pytest.mark.parametrize(
        ("remaining", "waits"),
        [(0.51, True), (0.5, False), (0.1, False), (0.0, False), (-1, False)],
    )
    def test_a_wait_that_outlasts_it_is_not_begun(
        self, failure: FailedAttempt, remaining: float, *, waits: bool
    ) -> None:
        assert delay(failure, remaining=remaining) == (0.5 if waits else None)

    def test_without_limit_any_wait_is_begun(self) -> None:
        assert delay(FailedAttempt(status_code=503, retry_after=120), remaining=None) == 120


class TestShouldRetryHeader:
    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("true", True),
            ("false", False),
            (" True ", True),
            ("FALSE", False),
            ("", None),
            ("1", None),
            ("yes", None),
            ("truefalse", None),
        ],
    )
    def test_true_false_or_nothing(self, text: str, *, meaning: bool | None) -> None:
        assert parse_should_retry({"x-should-retry": text}) is meaning

    def test_absent(self) -> None:
        assert parse_should_retry({}) is None

    @given(st.text())
    def test_any_text_has_one_of_three_meanings(self, text: str) -> None:
        assert parse_should_retry({"x-should-retry": text}) in {True, False, None}


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


IN_90_SECONDS = http_date(NOW + timedelta(seconds=90))
A_MINUTE_AGO = http_date(NOW - timedelta(seconds=60))


class TestRetryAfterHeader:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "5"}, 5),
            ({"retry-after": " 5 "}, 5),
            ({"retry-after": "0.25"}, 0.25),
            ({"retry-after": "3600"}, 3600),
            ({"retry-after-ms": "250"}, 0.25),
            ({"retry-after-ms": "1.5"}, 0.0015),
            ({"retry-after": IN_90_SECONDS}, 90),
            ({"retry-after": "Sun, 22 Nov 2026 10:00:01 GMT"}, 1),
            ({"retry-after": "Sun, 22 Nov 2026 10:01:30 -0000"}, 90),
            ({"retry-after": "Sun, 22 Nov 2026 12:01:30 +0200"}, 90),
            ({"retry-after": "Sunday, 22-Nov-26 10:01:30 GMT"}, 90),
            ({"retry-after": "Sun Nov 22 10:01:30 2026"}, 90),
            ({"retry-after-ms": "250", "retry-after": "5"}, 0.25),
            ({"retry-after-ms": "soon", "retry-after": "5"}, 5),
            ({"retry-after-ms": "0", "retry-after": "5"}, 5),
            ({"retry-after-ms": "-1", "retry-after": IN_90_SECONDS}, 90),
        ],
        ids=str,
    )
    def test_milliseconds_before_seconds_before_a_date(
        self, headers: dict[str, str], seconds: float
    ) -> None:
        assert parse_retry_after(headers, now=NOW) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "0",
            "0.0",
            "-5",
            "nan",
            "inf",
            "-inf",
            "1e999",
            "1e3",
            "1_000",
            "\u0665",
            "+5",
            "soon",
            "5 seconds",
            "0x10",
            A_MINUTE_AGO,
            http_date(NOW),
            "Sun, 22 Nov 1826 10:01:30 GMT",
            "Sun, 99 Nov 2026 10:01:30 GMT",
            "Sun, 22 Nov 99999999999999999999 10:01:30 GMT",
            "Sun, 22 Nov 2026 10:01:30 +9999",
            "Sun, 22 Nov 2026 10:01:30 +999999999999999999999999",
            "Sat, 01 Jan 0001 00:00:00 +2359",
            ",",
            "9" * 5000 + ":",
        ],
        ids=lambda text: text[:50] or "empty",
    )
    @pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
    def test_nonsense_says_nothing(self, name: str, text: str) -> None:
        assert parse_retry_after({name: text}, now=NOW) is None

    def test_so_few_milliseconds_that_no_second_is_left_say_nothing(self) -> None:
        assert parse_retry_after({"retry-after-ms": "5e-324"}, now=NOW) is None

    def test_absent(self) -> None:
        assert parse_retry_after({}, now=NOW) is None

    def test_a_date_is_counted_from_the_moment_given_whatever_its_zone(self) -> None:
        from_elsewhere = NOW.astimezone(tz=None)

        assert parse_retry_after({"retry-after": IN_90_SECONDS}, now=from_elsewhere) == 90

    @settings(max_examples=5 * settings().max_examples)
    @given(
        st.one_of(
            st.text(),
            st.floats().map(repr),
            st.integers().map(str),
            st.text(alphabet="0123456789٣۵५１.eE+-_ naif"),  # noqa: RUF001 -- digits of other scripts
            st.datetimes().map(str),
            st.datetimes(timezones=st.just(UTC)).map(format_datetime),
            st.lists(
                st.sampled_from(
                    [
                        *("Sun,", "Sun", "Nov", "22", "2026", "99", "0", "-1", "9999", "10:01:30"),
                        *("25:61:61", "10.01.30", "GMT", "EST", "-0000", "+0200", "+9999", "-2359"),
                        *("-99999999", "9999999999999999999999", "22-Nov-26", "+", "-", ":", ","),
                        *(".", "am", "(a)", "\u0662\u0662"),
                    ]
                ),
                max_size=9,
            ).map(" ".join),
        ),
        st.sampled_from(["retry-after", "retry-after-ms"]),
    )
    @example("Sun, 22 Nov 2026 10:01:30 +99999999999999999999", "retry-after")
    @example("\u0665", "retry-after")
    @example("1_000", "retry-after")
    @example("Fri, 31 Dec 9999 23:59:59 -2359", "retry-after")
    def test_any_text_gives_nothing_or_a_finite_wait(self, text: str, name: str) -> None:
        seconds = parse_retry_after({name: text}, now=NOW)

        assert seconds is None or (math.isfinite(seconds) and seconds > 0)
