"""Fixtures for pytest: the local API, clients of it, and a server.

A `conftest.py` at the root of your tests loads them:

    pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]

Each test has its own local API, so tests run in any order and in parallel.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from .fake_api import FakeChatKit

try:
    import pytest
except ModuleNotFoundError as _error:
    raise ImportError("The fixtures need pytest: pip install pytest") from _error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chatkit_sessions import AsyncChatKitClient, ChatKitClient

    from .fake_api import FakeServer

_HOST: Final = "api.openai.com"
_TRANSPORTS: Final = (
    ("httpx", "HTTPTransport", "handle_request"),
    ("httpx", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx2", "HTTPTransport", "handle_request"),
    ("httpx2", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx_aiohttp", "AiohttpTransport", "handle_async_request"),
)
"""What sends over a network. The library's own client uses the first two if they are replaced."""
_ADVICE: Final = (
    "A ChatKit client called {host} while the fixture `chatkit_environment` is in use: the client "
    "was made before the test, or with a `base_url` of its own. Make the client in the test, or "
    "pass `chatkit_client` or `async_chatkit_client` to the application."
)


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


class _URL(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...


class _Request(Protocol):
    @property
    def url(self) -> _URL: ...


def guarded_transports() -> Iterator[tuple[type, str, Callable[..., object]]]:
    """Each transport of the installed HTTP packages, its method, and what to put in its place."""
    for package, name, method in _TRANSPORTS:
        with suppress(ImportError):
            transport: type = getattr(importlib.import_module(package), name)
            yield transport, method, _guarded(getattr(transport, method))


def _guarded(send: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(send)
    def guarded(transport: object, request: _Request, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 -- passed on
        url = request.url
        if url.host.endswith(_HOST) and "/chatkit/" in url.path:
            raise AssertionError(_ADVICE.format(host=url.host))
        return send(transport, request, *args, **kwargs)

    return guarded
