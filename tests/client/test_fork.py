"""A child of `fork()` waits for no lock that a thread of its parent held, wherever that thread was.

In a process of its own, because pytest's has threads of others. A thread makes each call, and the
endpoint's; it stops at every function of the library and of functools, and at every line of what
takes a lock. At each stop the process forks, and the child makes calls that take every lock.
"""

import subprocess
import sys
import textwrap
from typing import Literal

import pytest

pytestmark = pytest.mark.slow

SCRIPT = textwrap.dedent(
    """
    import asyncio, functools, gc, os, signal, sys, threading, warnings
    from pathlib import Path

    import anyio._backends._asyncio  # which httpcore imports with the first call
    import chatkit_sessions
    from chatkit_sessions import AsyncChatKitClient, ChatKitClient
    from chatkit_sessions.integrations import (
        AsyncChatKitEndpoint, ChatKitEndpoint, EndpointRequest,
    )
    from chatkit_sessions.testing import FakeChatKit

    REQUEST = EndpointRequest(
        method="POST", path="/session", url="http://shop.test/session",
        headers={"content-type": "application/json"}, body=b"{}",
    )
    warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on: of threads
    # Not logging: it holds its own locks while the process forks.
    WATCHED = str(Path(chatkit_sessions.__file__).parent), functools.__file__
    NOT_WATCHED = str(Path(chatkit_sessions.__file__).parent / "testing")
    seen, last, stopped, go_on = set(), [], threading.Event(), threading.Event()

    def trace(frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(WATCHED) or code.co_filename.startswith(NOT_WATCHED):
            return None
        place = code if event == "call" else (code, frame.f_lineno)
        takes_a_lock = any("lock" in name.replace("clock", "") for name in code.co_names)
        if place not in seen and (event == "call" or event == "line" and takes_a_lock):
            seen.add(place)
            last[:] = [place]
            stop()
        return trace

    def stop():
        sys.settrace(None)
        stopped.set()
        go_on.wait()
        go_on.clear()
        sys.settrace(trace)

    def make(user, timeout=None):
        def call(name, *arguments, **options):
            result = getattr(chatkit, name)(*arguments, **options)
            return asyncio.run(wait(result)) if asyncio.iscoroutine(result) else result

        async def wait(result):
            return await result

        session = call("get_or_create_session", user, timeout=timeout)
        answer = endpoint.handle(REQUEST, user=user)
        if asyncio.iscoroutine(answer):
            answer = asyncio.run(wait(answer))
        assert answer.status_code == 200, answer
        yield
        session = call("create_session", user, timeout=timeout)
        yield
        session = call("refresh_session", session.client_secret, user=user, timeout=timeout)
        yield
        call("get_session", session.id, timeout=timeout)
        call("sessions_for", user)
        yield
        call("delete_session", session.id, timeout=timeout)
        yield
        call("delete_sessions", user, timeout=timeout)

    def calls(user):
        sys.settrace(trace)
        for _ in make(user):
            pass
        sys.settrace(None)
        stopped.set()

    def in_a_child():
        if (child := os.fork()) == 0:
            signal.alarm(20)
            calls_of_a_child = make("ada", timeout=15)
            for _ in range(3):
                next(calls_of_a_child)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    endpoints = {ChatKitClient: ChatKitEndpoint, AsyncChatKitClient: AsyncChatKitEndpoint}
    kind = {"sync": ChatKitClient, "async": AsyncChatKitClient}[sys.argv[1]]
    with FakeChatKit().serve() as server:
        chatkit = kind(api_key=server.api_key, workflow_id=server.workflow_id, base_url=server.url)
        endpoint = endpoints[kind](chatkit, rate_limit=1000)
        gc.freeze()  # what a child would copy to count references
        thread = threading.Thread(target=calls, args=("bob",), daemon=True)
        thread.start()
        forks = 0
        while stopped.wait(60) and thread.is_alive():
            stopped.clear()
            if not thread.is_alive():
                break
            forks += 1
            assert in_a_child() == 0, last
            go_on.set()
        assert forks > 50, forks
        print("ended", flush=True)
        os._exit(0)
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork() on Windows")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_child_waits_for_a_lock_of_its_parent(kind: Literal["sync", "async"]) -> None:
    done = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", SCRIPT, kind],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr[-2000:]
