"""OpenAI's own Python SDK finds in the local API what it expects of the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import openai
import pytest

from chatkit_sessions.testing import FakeChatKit, FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.beta.chatkit import ChatSession


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeChatKit().serve() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key=server.api_key, max_retries=0) as connected:
        yield connected


def test_creates_and_cancels(client: openai.OpenAI, server: FakeServer) -> None:
    sessions = client.beta.chatkit.sessions

    created = sessions.create(
        user="alice",
        workflow={"id": server.workflow_id, "state_variables": {"plan": "pro", "seats": 3}},
        expires_after={"anchor": "created_at", "seconds": 300},
        chatkit_configuration={"file_upload": {"enabled": True, "max_files": 2}},
    )
    cancelled = sessions.cancel(created.id)

    assert created.client_secret.startswith("ek_")
    assert created.workflow.state_variables == {"plan": "pro", "seats": 3}
    assert created.chatkit_configuration.file_upload.max_files == 2
    assert (created.status, cancelled.status) == ("active", "cancelled")
    assert cancelled.client_secret == ""
    server.fake.assert_created(user="alice", times=1)


def test_creates_and_cancels_asynchronously(server: FakeServer) -> None:
    async def create_and_cancel() -> tuple[ChatSession, ChatSession]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=server.api_key) as client:
            sessions = client.beta.chatkit.sessions
            created = await sessions.create(user="alice", workflow={"id": server.workflow_id})
            return created, await sessions.cancel(created.id)

    created, cancelled = anyio.run(create_and_cancel)

    assert (created.status, cancelled.status) == ("active", "cancelled")


def test_raises_authentication_error_for_a_wrong_key(server: FakeServer) -> None:
    with (
        openai.OpenAI(base_url=server.url, api_key="sk-abcdefghwxyz", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match=r"sk-ab\*+wxyz") as raised,
    ):
        client.beta.chatkit.sessions.create(user="alice", workflow={"id": server.workflow_id})

    assert raised.value.code == "invalid_api_key"
    assert raised.value.request_id


def test_raises_not_found_error_for_an_unknown_workflow(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Workflow with id 'wf_other' not found"):
        client.beta.chatkit.sessions.create(user="alice", workflow={"id": "wf_other"})


def test_raises_bad_request_error_that_names_the_parameter(
    client: openai.OpenAI, server: FakeServer
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.beta.chatkit.sessions.create(user="", workflow={"id": server.workflow_id})

    assert (raised.value.param, raised.value.code) == ("user", "empty_string")


def test_retries_a_server_fault(server: FakeServer) -> None:
    server.fake.fail_next(500, headers={"retry-after-ms": "1"})

    with openai.OpenAI(base_url=server.url, api_key=server.api_key, max_retries=1) as client:
        client.beta.chatkit.sessions.create(user="alice", workflow={"id": server.workflow_id})

    assert len(server.fake.requests) == 2
    server.fake.assert_created(times=1)
