"""No secret is in a local variable of this library, wherever a signal interrupts a call.

`KeyboardInterrupt` is raised at every line of the library that a call passes, one after the other.
"""

import gc
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import FrameType

import httpx
import pytest

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions.integrations import ChatKitEndpoint
from chatkit_sessions.service import SessionsService
from chatkit_sessions.service._records import parse_record
from chatkit_sessions.stores.redis import RedisSessionStore
from raw_server import raw_server, serve_sessions
from redis_server import RedisServer
from secrets_shown import (
    PACKAGE,
    PARTS,
    assert_silent,
    bad,
    created,
    everything_shown,
    everything_walked,
    failed,
    refresh_request,
)
from support import BASE_URL, KEY, WORKFLOW

pytestmark = pytest.mark.slow

# Between taking a lock and `with` nothing can be cleaned up: the next call would wait forever.
HOLDS_A_LOCK = ("MemorySessionStore.", "CircuitBreaker.")


class Interrupt:
    """Raises KeyboardInterrupt at the nth line of the library's own, once it counts them."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.counts = True
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> "Interrupt | None":
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or code.co_qualname.startswith(HOLDS_A_LOCK):
            return None
        if event == "line" and self.counts and not self.raised:
            self._left -= 1
            if self._left == 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


CALLS: dict[str, Callable[[ChatKitClient], object]] = {
    "create": lambda chatkit: chatkit.create_session("user_123"),
    "get or create": lambda chatkit: chatkit.get_or_create_session("user_123"),
    # Within it, `refresh_session`: whatever stack that has, the endpoint's ends with.
    "endpoint": lambda chatkit: ChatKitEndpoint(chatkit, rate_limit=None).handle(
        refresh_request(), user="user_123"
    ),
}


def is_interrupted(
    call: Callable[[], object],
    interrupt: Interrupt,
    shows: Sequence[Callable[[BaseException], Iterable[str]]] = (
        everything_walked,
        everything_shown,
    ),
    parts: Sequence[str] = PARTS,
) -> bool:
    """Make a call, and look at what its interrupt shows; False: the call was too short."""
    before = sys.gettrace()
    try:
        sys.settrace(interrupt)
        call()
    except KeyboardInterrupt as error:
        sys.settrace(before)
        for show in shows:
            assert_silent(show(error), parts)
        return True
    except ChatKitError:
        pass
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("respond", [created, failed, bad])
@pytest.mark.parametrize("name", CALLS)
def test_no_variable_holds_a_secret(
    name: str, respond: Callable[[httpx.Request], httpx.Response]
) -> None:
    line = 0
    is_long_enough = True
    while is_long_enough:
        line += 1
        interrupt = Interrupt(line)
        # Up to the response, a call is the same whatever that is.
        interrupt.counts = respond is created

        def respond_and_count(
            request: httpx.Request, interrupt: Interrupt = interrupt
        ) -> httpx.Response:
            interrupt.counts = True
            return respond(request)

        chatkit = ChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=BASE_URL,
            max_retries=0,
            http_client=httpx.Client(transport=httpx.MockTransport(respond_and_count)),
        )
        is_long_enough = is_interrupted(partial(CALLS[name], chatkit), interrupt)
    assert line > (100 if respond is created else 50)


def test_no_variable_shows_a_secret_that_redis_replies(redis_server: RedisServer) -> None:
    """Masked, it is bytes all the same: who slices them sees it."""
    line = 0
    is_long_enough = True
    # The next call waits so long for a turn that an interrupted one has lost.
    with RedisSessionStore.from_url(redis_server.url, namespace="shop", timeout=0.05) as store:
        while is_long_enough:
            line += 1
            with ChatKitClient(
                api_key=KEY,
                workflow_id=WORKFLOW,
                base_url=BASE_URL,
                max_retries=0,
                store=store,
                http_client=httpx.Client(transport=httpx.MockTransport(created)),
            ) as chatkit:
                chatkit.get_or_create_session("user_123")
                hit = partial(chatkit.get_or_create_session, "user_123")
                is_long_enough = is_interrupted(hit, Interrupt(line), [everything_shown])
    assert line > 100


@pytest.mark.parametrize("count", [True, False])
def test_no_variable_shows_a_secret_or_what_is_stored_while_it_is_verified(
    redis_server: RedisServer, *, count: bool
) -> None:
    open_store = partial(RedisSessionStore.from_url, redis_server.url, namespace="shop")
    with (
        open_store() as store,
        SessionsService(store).client(workflow_id="support") as chatkit,
    ):
        secret = chatkit.create_session(
            "user_123",
            max_requests_per_1_minute=10_000,
            state_variables={"plan": "confidential"},
        ).client_secret
    parts = [secret.get_secret_value()[-12:], "confidential"]
    line = 0
    is_long_enough = True
    while is_long_enough:
        line += 1
        parse_record.cache_clear()
        with open_store() as store:  # an interrupted call has lost the turn to send
            verify = partial(SessionsService(store).verify, secret, count=count)
            is_long_enough = is_interrupted(verify, Interrupt(line), [everything_shown], parts)
    assert line > 100


def test_no_variable_holds_a_secret_while_a_session_is_shown() -> None:
    with ChatKitClient(
        api_key=KEY,
        workflow_id=WORKFLOW,
        base_url=BASE_URL,
        http_client=httpx.Client(transport=httpx.MockTransport(created)),
    ) as chatkit:
        session = chatkit.create_session("user_123")
    line = 1
    while is_interrupted(partial(repr, session), Interrupt(line)):
        line += 1
    assert line > 5


@pytest.mark.parametrize("is_watched", [False, True])
def test_no_variable_holds_a_secret_over_the_library_s_own_connections(
    monkeypatch: pytest.MonkeyPatch, *, is_watched: bool
) -> None:
    if is_watched:  # as by what changes a function's code and leaves a note on it
        monkeypatch.setattr(httpx.HTTPTransport.handle_request, "note", "", raising=False)
    line = 0
    is_long_enough = True
    with raw_server(serve_sessions) as server, warnings.catch_warnings():
        # Between opening a socket and the line that remembers it, only its destructor can close it.
        warnings.simplefilter("ignore", ResourceWarning)
        while is_long_enough:
            line += 1
            with ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit:
                create = partial(CALLS["create"], chatkit)
                is_long_enough = is_interrupted(create, Interrupt(line))
        gc.collect()
    assert line > 200
