"""The fixtures for pytest, here and in a project of somebody else's."""

import asyncio
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import httpx
import httpx2
import httpx_aiohttp
import pytest
import respx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.testing import FakeChatKit, FakeServer
from chatkit_sessions.testing.pytest_plugin import (
    async_chatkit_client,
    chatkit_client,
    chatkit_environment,
    chatkit_fake,
    chatkit_server,
    guarded_transports,
)

pytest_plugins = ["pytester"]
__all__ = [
    "async_chatkit_client",
    "chatkit_client",
    "chatkit_environment",
    "chatkit_fake",
    "chatkit_server",
]

PROJECT = """
import asyncio
import os
import unittest

import pytest

from chatkit_sessions import ChatKitClient


def test_one(chatkit_fake, chatkit_client):
    chatkit_client.create_session("ada")
    chatkit_fake.assert_created(user="ada", times=1)


def test_another_has_an_api_of_its_own(chatkit_fake, chatkit_client):
    assert not chatkit_fake.sessions


def test_asyncio(chatkit_fake, async_chatkit_client):
    asyncio.run(async_chatkit_client.create_session("ada"))
    chatkit_fake.assert_created(times=1)


@pytest.mark.anyio
async def test_anyio(chatkit_fake, async_chatkit_client):
    await async_chatkit_client.create_session("ada")
    chatkit_fake.assert_created(times=1)


def test_server(chatkit_fake, chatkit_server):
    with ChatKitClient(
        api_key=chatkit_server.api_key,
        workflow_id=chatkit_server.workflow_id,
        base_url=chatkit_server.url,
    ) as chatkit:
        chatkit.create_session("ada")
    chatkit_fake.assert_created(times=1)


def test_environment(chatkit_fake, chatkit_environment):
    with ChatKitClient() as chatkit:
        chatkit.create_session("ada")
    chatkit_fake.assert_created(times=1)
"""


def test_a_client_asks_the_api_of_the_same_test(
    chatkit_fake: FakeChatKit,
    chatkit_client: ChatKitClient,
    async_chatkit_client: AsyncChatKitClient,
) -> None:
    session = chatkit_client.create_session("ada")
    asyncio.run(async_chatkit_client.delete_session(session.id))

    chatkit_fake.assert_deleted(user="ada", times=1)


def test_a_client_without_arguments_asks_the_server_of_the_same_test(
    chatkit_fake: FakeChatKit, chatkit_server: FakeServer, chatkit_environment: dict[str, str]
) -> None:
    with ChatKitClient() as chatkit:
        chatkit.create_session("ada")

    assert chatkit_environment["OPENAI_BASE_URL"] == chatkit_server.url
    assert chatkit_server.fake is chatkit_fake
    chatkit_fake.assert_created(user="ada", times=1)


KEY = "sk-proj-0123456789abcdefghijKEY"
REAL_URL = "https://api.openai.com/v1"


def sync_client(
    http_client: httpx.Client | httpx2.Client | None = None, base_url: str = REAL_URL
) -> ChatKitClient:
    return ChatKitClient(
        api_key=KEY, workflow_id="wf_real", base_url=base_url, http_client=http_client
    )


def async_client(
    http_client: httpx.AsyncClient | httpx2.AsyncClient | None = None,
) -> AsyncChatKitClient:
    return AsyncChatKitClient(
        api_key=KEY, workflow_id="wf_real", base_url=REAL_URL, http_client=http_client
    )


SYNC_CLIENTS: dict[str, Callable[[], ChatKitClient]] = {
    "own": sync_client,
    "region": lambda: sync_client(base_url="https://us.api.openai.com/v1"),
    "httpx": lambda: sync_client(httpx.Client()),
    "httpx2": lambda: sync_client(httpx2.Client()),
}
ASYNC_CLIENTS: dict[str, Callable[[], AsyncChatKitClient]] = {
    "own": async_client,
    "httpx": lambda: async_client(httpx.AsyncClient()),
    "httpx2": lambda: async_client(httpx2.AsyncClient()),
    "aiohttp": lambda: async_client(httpx_aiohttp.HttpxAiohttpClient()),
}
REJECTED = r"called (us\.)?api\.openai\.com while the fixture `chatkit_environment` is in use"


@pytest.mark.usefixtures("chatkit_environment")
@pytest.mark.parametrize("make", SYNC_CLIENTS.values(), ids=SYNC_CLIENTS)
def test_a_client_that_calls_openai_while_the_environment_is_in_use_is_an_error(
    make: Callable[[], ChatKitClient],
) -> None:
    with make() as chatkit, pytest.raises(AssertionError, match=REJECTED) as caught:
        chatkit.create_session("ada")

    assert KEY not in str(caught.value)


@pytest.mark.usefixtures("chatkit_environment")
@pytest.mark.parametrize("make", ASYNC_CLIENTS.values(), ids=ASYNC_CLIENTS)
def test_an_async_client_that_calls_openai_while_the_environment_is_in_use_is_an_error(
    make: Callable[[], AsyncChatKitClient],
) -> None:
    async def main() -> None:
        async with make() as chatkit:
            with pytest.raises(AssertionError, match=REJECTED):
                await chatkit.create_session("ada")

    asyncio.run(main())


@pytest.mark.usefixtures("chatkit_environment")
def test_what_does_not_leave_the_process_or_is_not_chatkits_passes(
    chatkit_fake: FakeChatKit, respx_mock: respx.MockRouter
) -> None:
    models = respx_mock.get("https://api.openai.com/v1/models").respond(200)
    chatkit_fake.add_api_key(KEY)
    chatkit_fake.add_workflow("wf_real")
    sync_client(httpx.Client(transport=chatkit_fake.transport())).create_session("ada")

    assert httpx.get("https://api.openai.com/v1/models").status_code == 200
    assert models.called
    chatkit_fake.assert_created(user="ada", times=1)


def test_packages_that_are_not_installed_need_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("httpx2", "httpx_aiohttp"):
        monkeypatch.setitem(sys.modules, package, None)

    guarded = [transport for transport, _, _ in guarded_transports()]

    assert guarded == [httpx.HTTPTransport, httpx.AsyncHTTPTransport]


@pytest.mark.usefixtures("few_plugins")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        pytest.param(["-n", "1"], marks=pytest.mark.slow),
        pytest.param(["-p", "no:xdist"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_project_has_the_fixtures_by_one_line(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makeconftest('pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]')
    pytester.makepyfile(PROJECT)

    result = pytester.runpytest_subprocess("-W", "error", *arguments)

    result.assert_outcomes(passed=7)  # anyio's runs under asyncio and under trio


def test_whoever_does_not_ask_for_them_does_not_have_them() -> None:
    plugins = entry_points(group="pytest11")

    assert plugins.select(name="anyio"), "those that are loaded without being asked for"
    assert [each for each in plugins if "chatkit" in each.value] == []


@pytest.mark.usefixtures("few_plugins")
def test_a_failed_assertion_shows_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    checks = ("created", "refreshed", "deleted")
    pytester.makepyfile(
        "from chatkit_sessions.testing import FakeChatKit\n"
        + "".join(f"def test_{each}():\n    FakeChatKit().assert_{each}()\n" for each in checks)
    )

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    result.assert_outcomes(failed=3)
    for line, each in zip((3, 5, 7), checks, strict=True):
        result.stdout.fnmatch_lines(
            [
                f">*FakeChatKit().assert_{each}()",
                f"E*AssertionError: expected at least 1 {each} session(s), saw none at all",
                f"*.py:{line}: AssertionError",
            ]
        )
    result.stdout.no_fnmatch_line("*fake.py*")
