"""Fixtures for pytest: the local API, clients of it, and a server.

A `conftest.py` at the root of your tests loads them:

    pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]

Each test has its own local API, so tests run in any order and in parallel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fake import FakeChatKit
from .guard import guarded_transports

try:
    import pytest
except ModuleNotFoundError as _error:
    raise ImportError("The fixtures need pytest: pip install pytest") from _error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatkit_sessions import AsyncChatKitClient, ChatKitClient

    from .server import FakeServer


@pytest.fixture
def chatkit_fake() -> Iterator[FakeChatKit]:
    """The local API, which the other fixtures of the same test call."""
    with FakeChatKit() as fake:
        yield fake


@pytest.fixture
def chatkit_client(chatkit_fake: FakeChatKit) -> ChatKitClient:
    """A client that calls `chatkit_fake` in process."""
    return chatkit_fake.client()


@pytest.fixture
def async_chatkit_client(chatkit_fake: FakeChatKit) -> AsyncChatKitClient:
    """An asynchronous client that calls `chatkit_fake` in process, in any event loop."""
    return chatkit_fake.async_client()


@pytest.fixture
def chatkit_server(chatkit_fake: FakeChatKit) -> Iterator[FakeServer]:
    """`chatkit_fake` over HTTP on this machine: `.url`, `.api_key`, `.workflow_id`."""
    with chatkit_fake.serve() as server:
        yield server


@pytest.fixture
def chatkit_environment(
    chatkit_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Environment variables that make a `ChatKitClient()` without arguments call `chatkit_server`.

    A client that calls api.openai.com instead, because it was made earlier or with another
    `base_url`, gets an AssertionError. Nothing is sent.
    """
    for transport, method, guarded in guarded_transports():
        monkeypatch.setattr(transport, method, guarded)
    for name, value in chatkit_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    return chatkit_server.environment
