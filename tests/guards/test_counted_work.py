"""Guards of speed that no clock decides: what is imported, called and opened is counted.

The bounds have some room; whoever exceeds one has made every user's process or call do more.
"""

import asyncio
import gc
import subprocess
import sys
from typing import Self

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from raw_server import raw_server, serve_sessions
from support import KEY, WORKFLOW, Connect


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh Python has imported, but for those it starts with."""
    script = (
        f"import sys; before = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    )
    done = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_hardly_anything() -> None:
    imported = modules_after("import chatkit_sessions")

    assert {"chatkit_sessions", "chatkit_sessions._version"} <= imported
    assert len(imported) <= 10, imported


def test_the_sync_client_imports_nothing_of_the_async_one() -> None:
    imported = modules_after("from chatkit_sessions import ChatKitClient")

    assert "asyncio" not in imported
    own = {name for name in imported if name.startswith("chatkit_sessions")}
    assert not {name for name in own if "async" in name or "trio" in name}


def test_an_error_class_imports_no_http_client() -> None:
    imported = modules_after("from chatkit_sessions import APIStatusError")

    assert not {"httpx", "httpcore", "asyncio"} & imported


def test_little_is_imported_up_to_the_first_session_that_httpx_and_pydantic_do_without() -> None:
    with raw_server(serve_sessions) as server:
        options = f"api_key={KEY!r}, workflow_id={WORKFLOW!r}, base_url={server.url!r}"
        imported = modules_after(
            "from chatkit_sessions import ChatKitClient\n"
            f"ChatKitClient({options}).create_session('user_123')\n"
        )
        peers = modules_after(
            "import httpx, pydantic\n"
            "class Session(pydantic.BaseModel):\n    id: str\n"
            f"response = httpx.Client().post({server.url!r} + '/chatkit/sessions')\n"
            "Session.model_validate(response.json())\n"
        )

    others = {name for name in imported - peers if not name.startswith("chatkit_sessions")}
    assert len(others) <= 10, others


class Counting:
    """Counts the functions written in Python that are called, or gone on with, meanwhile."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, _frame: object, event: str, _argument: object) -> None:
        self.calls += event == "call"


def test_a_sync_create_takes_a_bounded_number_of_function_calls() -> None:
    """138 when this was written."""
    with (
        raw_server(serve_sessions) as server,
        ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit,
    ):
        chatkit.create_session("user_123")

        with Counting() as counted:
            chatkit.create_session("user_123")

    assert 100 < counted.calls < 150


def test_an_async_create_takes_a_bounded_number_of_function_calls() -> None:
    """202 when this was written, the event loop's included."""

    async def main(url: str) -> int:
        async with AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url) as chatkit:
            await chatkit.create_session("user_123")

            with Counting() as counted:
                await chatkit.create_session("user_123")
            return counted.calls

    with raw_server(serve_sessions) as server:
        assert 100 < asyncio.run(main(server.url)) < 218


def test_a_request_is_written_at_once(connect: Connect) -> None:
    """Head and body: a server that reads as soon as it can sees both."""
    with raw_server(serve_sessions) as server:
        connect(base_url=server.url).create_session("user_123")

        assert (len(server.requests), server.reads) == (1, 1)


def test_calls_leave_no_garbage_that_refers_to_itself() -> None:
    """What only the garbage collector can free makes it run the oftener, for the whole process."""
    with (
        raw_server(serve_sessions) as server,
        ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit,
    ):
        garbage: list[int] = []
        for _ in range(3):  # what earlier tests leave is found once
            chatkit.create_session("user_123")
            gc.collect()
            for _ in range(10):
                chatkit.create_session("user_123")
            garbage.append(gc.collect())

        assert min(garbage) < 10, garbage
