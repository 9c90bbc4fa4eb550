"""Clients of the library that ask the local API in process, and wait for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient

if TYPE_CHECKING:
    from .fake import FakeChatKit

BASE_URL: Final = "https://chatkit.test/v1"
"""Nothing goes there: the transport responds."""


class InProcessClient(ChatKitClient):
    """A client of the local API, which moves its clock in place of waiting.

    Args:
        fake: The local API.
        api_key: None: the local API's own.
        workflow_id: None: the local API's own.
        max_retries: As for `ChatKitClient`.
    """

    def __init__(
        self, fake: FakeChatKit, api_key: str | None, workflow_id: str | None, max_retries: int
    ) -> None:
        super().__init__(
            api_key=api_key or fake.api_key,
            workflow_id=workflow_id or fake.workflow_id,
            base_url=BASE_URL,
            max_retries=max_retries,
            http_client=httpx.Client(transport=fake.transport()),
            clock=fake.clock.now,
        )

        def sleep(seconds: float) -> None:
            fake.clock.advance(seconds=seconds)

        self._runtime = self._runtime._replace(sleep=sleep)

    def end(self) -> None:
        """Close the client, which holds no socket."""
        self._lifetime.close()


InProcessClient.__name__ = ChatKitClient.__name__  # what its repr and its errors say


class InProcessAsyncClient(AsyncChatKitClient):
    """An async client of the local API, which moves its clock in place of waiting.

    Args:
        fake: The local API.
        api_key: None: the local API's own.
        workflow_id: None: the local API's own.
        max_retries: As for `AsyncChatKitClient`.
    """

    def __init__(
        self, fake: FakeChatKit, api_key: str | None, workflow_id: str | None, max_retries: int
    ) -> None:
        super().__init__(
            api_key=api_key or fake.api_key,
            workflow_id=workflow_id or fake.workflow_id,
            base_url=BASE_URL,
            max_retries=max_retries,
            http_client=httpx.AsyncClient(transport=fake.transport()),
            clock=fake.clock.now,
        )

        def sleep(seconds: float) -> None:
            fake.clock.advance(seconds=seconds)

        self._runtime = self._runtime._replace(sleep=sleep)

    def end(self) -> None:
        """Close the client, which holds no socket, in whatever event loop."""
        self._lifetime.close()


InProcessAsyncClient.__name__ = AsyncChatKitClient.__name__  # as above
