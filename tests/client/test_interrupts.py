"""An exception out of nowhere, as Ctrl-C and signal handlers raise it, leaves nothing behind.

It is raised at every line of the library that a sync call passes, one after the other.
"""

import gc
import linecache
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType

import pytest

import chatkit_sessions
from chatkit_sessions import ChatKitClient
from chatkit_sessions._concurrency.single_flight import SingleFlight
from chatkit_sessions.testing import FakeChatKit

PACKAGE = Path(chatkit_sessions.__file__).parent
ROOMS = tuple(str(PACKAGE / room) for room in ("_client", "_concurrency", "_sessions"))


END: FunctionType = vars(SingleFlight)["end"]


def is_cleaning_up(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not END.__code__:
        frame = frame.f_back
    return frame is not None


class Interrupt:
    """Raises KeyboardInterrupt at the nth line of the library's own.

    Not within what ends a flight: nothing can clean up after what cleans up.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> "Interrupt | None":
        if not frame.f_code.co_filename.startswith(ROOMS) or is_cleaning_up(frame):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Python runs no signal handler between a lock's block and the end of its `with`.
        if event == "line" and not any(each in line for each in ("single_flight.end(", "_lock.")):
            self._left -= 1
            if self._left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


def interrupted(call: Callable[[], object], *, at: int) -> bool:
    """Make the call and raise at that line; whether the call was long enough."""
    interrupt, before = Interrupt(at), sys.gettrace()
    try:
        sys.settrace(interrupt)
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupt.raised


CALLS: dict[str, Callable[[ChatKitClient, str], object]] = {
    "create": lambda chatkit, user: chatkit.create_session(user),
    "get or create": lambda chatkit, user: chatkit.get_or_create_session(user),
    "refresh": lambda chatkit, user: chatkit.refresh_session("ek_of_before", user=user),
    "sign out": lambda chatkit, user: chatkit.delete_sessions(user),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupt_leaves_nothing_locked_and_nothing_pending(
    call: Callable[[ChatKitClient, str], object],
) -> None:
    with FakeChatKit() as fake, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chatkit = fake.client()
        at = 0
        while True:
            at += 1
            user = f"user_{at}"
            if call is CALLS["sign out"]:
                chatkit.get_or_create_session(user)
            if not interrupted(partial(call, chatkit, user), at=at):
                break
            # A call that waited for a flight of before would never end: nobody else is there.
            assert chatkit._registry.single_flight._in_flight.get() == {}
            chatkit.get_or_create_session(user)
            chatkit.delete_sessions(user)
        gc.collect()
    # Such as that a coroutine was never awaited.
    assert [str(each.message) for each in caught] == []
    assert at > 50
