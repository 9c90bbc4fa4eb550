"""The fixtures for pytest, here and in a project of somebody else's."""

import asyncio

import pytest

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.testing import FakeChatKit, FakeServer
from chatkit_sessions.testing.pytest_plugin import (
    async_chatkit_client,
    chatkit_client,
    chatkit_environment,
    chatkit_fake,
    chatkit_server,
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


@pytest.mark.parametrize("arguments", [[], ["-n", "2"], ["-p", "no:xdist"]], ids=str)
def test_a_project_has_the_fixtures_by_one_line(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makeconftest('pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]')
    pytester.makepyfile(PROJECT)

    result = pytester.runpytest_subprocess("-W", "error", *arguments)

    result.assert_outcomes(passed=7)  # anyio's runs under asyncio and under trio


def test_whoever_does_not_ask_for_them_does_not_have_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n"
        "def test_none(request):\n"
        "    assert 'chatkit_sessions' not in sys.modules\n"
        "    assert not request.config.pluginmanager.hasplugin('chatkit_sessions')\n"
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=1)
