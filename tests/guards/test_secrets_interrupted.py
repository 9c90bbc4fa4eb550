"""No secret is in a local variable of this library, wherever a signal interrupts a call.

`KeyboardInterrupt` is raised at every line of the library that a call passes, one after the other.
"""

import gc
import sys
import warnings
from collections.abc import Callable
from types import FrameType

import httpx
import pytest
from pydantic import SecretStr

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions.integrations import ChatKitEndpoint
from raw_server import raw_server, serve_sessions
from secrets_shown import (
    PACKAGE,
    assert_silent,
    bad,
    created,
    everything_shown,
    everything_walked,
    failed,
    refresh_request,
)
from support import BASE_URL, KEY, SECRET, WORKFLOW

pytestmark = pytest.mark.slow

# Between taking a lock and `with` nothing can be cleaned up: the next call would wait forever.
HOLDS_A_LOCK = ("stores/memory.py", "circuit_breaker.py")


class Interrupt:
    """Raises KeyboardInterrupt at the nth line of the library's own."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> "Interrupt | None":
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE) or path.endswith(HOLDS_A_LOCK):
            return None
        if event == "line" and not self.raised:
            self._left -= 1
            if self._left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


RESPONSES = [created, failed, bad]
CALLS: dict[str, Callable[[ChatKitClient], object]] = {
    "create": lambda chatkit: chatkit.create_session("user_123"),
    "get or create": lambda chatkit: chatkit.get_or_create_session("user_123"),
    "refresh": lambda chatkit: chatkit.refresh_session(SecretStr(SECRET), user="user_123"),
    "endpoint": lambda chatkit: ChatKitEndpoint(chatkit, rate_limit=None).handle(
        refresh_request(), user="user_123"
    ),
    "repr": lambda chatkit: repr(chatkit.create_session("user_123")),
}


def interrupted(call: Callable[[], object], *, at: int) -> BaseException | None:
    """What the call raised when it was interrupted at that line; None: it was too short."""
    interrupt, before = Interrupt(at), sys.gettrace()
    try:
        sys.settrace(interrupt)
        call()
    except KeyboardInterrupt as error:
        sys.settrace(before)
        return error
    except ChatKitError:
        pass
    finally:
        sys.settrace(before)
    return None


@pytest.mark.parametrize("respond", RESPONSES)
@pytest.mark.parametrize("name", CALLS)
def test_no_variable_holds_a_secret(
    name: str, respond: Callable[[httpx.Request], httpx.Response]
) -> None:
    transport = httpx.MockTransport(respond)
    line = 0
    while True:
        line += 1
        chatkit = ChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=BASE_URL,
            max_retries=0,
            http_client=httpx.Client(transport=transport),
        )
        error = interrupted(lambda chatkit=chatkit: CALLS[name](chatkit), at=line)  # type: ignore[misc]
        if error is None:
            break
        assert_silent(everything_walked(error))
        assert_silent(everything_shown(error))
    assert line > 100


def test_no_variable_holds_a_secret_over_the_library_s_own_connections() -> None:
    line = 0
    with raw_server(serve_sessions) as server, warnings.catch_warnings():
        # Between opening a socket and the line that remembers it, only its destructor can close it.
        warnings.simplefilter("ignore", ResourceWarning)
        while True:
            line += 1
            with ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit:
                error = interrupted(lambda chatkit=chatkit: CALLS["create"](chatkit), at=line)  # type: ignore[misc]
            if error is None:
                break
            assert_silent(everything_walked(error))
            assert_silent(everything_shown(error))
        gc.collect()
    assert line > 200
