"""Clients of the library that ask the local API in process, and wait for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient

if TYPE_CHECKING:
    from .fake import FakeChatKit

BASE_URL: Final = "https://chatkit.test/v1"
"""Nothing goes there: the transport answers."""


def make_client(
    fake: FakeChatKit, api_key: str | None, workflow_id: str | None, max_retries: int
) -> ChatKitClient:
    """Make a synchronous one; what is None is the API's own."""
    client = ChatKitClient(
        api_key=api_key or fake.api_key,
        workflow_id=workflow_id or fake.workflow_id,
        base_url=BASE_URL,
        max_retries=max_retries,
        http_client=httpx.Client(transport=fake.transport()),
        clock=fake.clock.now,
    )
    client._sleep = lambda seconds: fake.clock.advance(seconds=seconds)  # noqa: SLF001 - in place of waiting
    return client


def make_async_client(
    fake: FakeChatKit, api_key: str | None, workflow_id: str | None, max_retries: int
) -> AsyncChatKitClient:
    """Make an asynchronous one; what is None is the API's own."""
    client = AsyncChatKitClient(
        api_key=api_key or fake.api_key,
        workflow_id=workflow_id or fake.workflow_id,
        base_url=BASE_URL,
        max_retries=max_retries,
        http_client=httpx.AsyncClient(transport=fake.transport()),
        clock=fake.clock.now,
    )

    async def advance(seconds: float) -> None:
        fake.clock.advance(seconds=seconds)

    client._sleep = advance  # noqa: SLF001 - in place of waiting
    return client
