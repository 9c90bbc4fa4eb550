"""How often a user asked this process."""

from chatkit_sessions.integrations import _limits
from chatkit_sessions.integrations._limits import RequestCounts
from support import Time


def test_a_user_may_ask_again_when_the_first_request_is_a_minute_old(time: Time) -> None:
    counts = RequestCounts(2)

    def admit() -> float:
        return counts.admit("ada", lambda: time.monotonic)

    assert admit() == 0
    time.advance(20)
    assert (admit(), admit()) == (0, 40)
    time.advance(40)
    assert (admit(), admit()) == (0, 20)


def test_what_is_taken_back_does_not_count(time: Time) -> None:
    counts = RequestCounts(1)
    counts.take_back("ada")

    for _ in range(3):
        assert counts.admit("ada", lambda: time.monotonic) == 0
        counts.take_back("ada")


def test_it_is_bounded_in_memory(time: Time) -> None:
    counts = RequestCounts(1)

    for number in range(_limits.MAX_USERS + 1):
        counts.admit(str(number), lambda: time.monotonic)

    assert counts.admit("0", lambda: time.monotonic) == 0, "made room"
    assert counts.admit(str(_limits.MAX_USERS), lambda: time.monotonic) > 0
