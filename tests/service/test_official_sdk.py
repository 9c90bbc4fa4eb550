"""OpenAI's own Python SDK, with the service in place of OpenAI's API."""

from collections.abc import Iterator

import anyio
import openai
import pytest

from service_servers import MOUNTINGS, serving_service
from services import API_KEY


@pytest.fixture(params=MOUNTINGS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving_service(request.param, API_KEY) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=0) as connected:
        yield connected


def test_creates_and_cancels(client: openai.OpenAI) -> None:
    sessions = client.beta.chatkit.sessions

    created = sessions.create(
        user="alice",
        workflow={"id": "wf_test", "state_variables": {"plan": "pro", "seats": 3}},
        expires_after={"anchor": "created_at", "seconds": 300},
        chatkit_configuration={"file_upload": {"enabled": True, "max_files": 2}},
    )
    cancelled = sessions.cancel(created.id)

    assert created.client_secret.startswith("ek_")
    assert created.workflow.state_variables == {"plan": "pro", "seats": 3}
    assert created.chatkit_configuration.file_upload.max_files == 2
    assert (created.status, cancelled.status) == ("active", "cancelled")
    assert cancelled.client_secret == ""


def test_creates_and_cancels_asynchronously(url: str) -> None:
    async def create_and_cancel() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=url, api_key=API_KEY) as client:
            sessions = client.beta.chatkit.sessions
            created = await sessions.create(user="alice", workflow={"id": "wf_test"})
            return created.status, (await sessions.cancel(created.id)).status

    assert anyio.run(create_and_cancel) == ("active", "cancelled")


def test_raises_the_errors_that_it_has_for_the_api(url: str, client: openai.OpenAI) -> None:
    sessions = client.beta.chatkit.sessions
    with (
        openai.OpenAI(base_url=url, api_key="sk-abcdefghwxyz", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match=r"sk-ab\*+wxyz") as rejected,
    ):
        stranger.beta.chatkit.sessions.create(user="alice", workflow={"id": "wf_test"})
    assert rejected.value.code == "invalid_api_key"
    assert rejected.value.request_id

    with pytest.raises(openai.NotFoundError, match="Workflow with id 'wf_other' not found"):
        sessions.create(user="alice", workflow={"id": "wf_other"})
    with pytest.raises(openai.NotFoundError, match="Chatkit Session with id"):
        sessions.cancel("cksess_1")
    with pytest.raises(openai.BadRequestError) as empty:
        sessions.create(user="", workflow={"id": "wf_test"})
    assert (empty.value.param, empty.value.code) == ("user", "empty_string")
