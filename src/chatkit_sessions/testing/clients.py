"""Clients that call the local API in process, without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient

if TYPE_CHECKING:
    from .fake import FakeChatKit

BASE_URL: Final = "https://chatkit.test/v1"
"""Nothing connects to it: the transport responds."""


class _InProcess:
    """What both clients do: move the local API's clock in place of waiting, and hold no socket."""

    _runtime: Any
    _lifetime: Any

    def _wait_by_clock_of(self, fake: FakeChatKit) -> None:
        def sleep(seconds: float) -> None:
            fake.clock.advance(seconds=seconds)

        self._runtime = self._runtime._replace(sleep=sleep)

    def end(self) -> None:
        """Close the client, in whatever event loop."""
        self._lifetime.close()


class InProcessClient(_InProcess, ChatKitClient):
    """A client of the local API; its settings are those of `FakeChatKit.client`."""

    def __init__(self, fake: FakeChatKit, api_key: str, workflow_id: str, max_retries: int) -> None:
        super().__init__(
            api_key=api_key,
            workflow_id=workflow_id,
            base_url=BASE_URL,
            max_retries=max_retries,
            http_client=httpx.Client(transport=fake.transport()),
            clock=fake.clock.now,
        )
        self._wait_by_clock_of(fake)


class InProcessAsyncClient(_InProcess, AsyncChatKitClient):
    """An async client of the local API; its settings are those of `FakeChatKit.client`."""

    def __init__(self, fake: FakeChatKit, api_key: str, workflow_id: str, max_retries: int) -> None:
        super().__init__(
            api_key=api_key,
            workflow_id=workflow_id,
            base_url=BASE_URL,
            max_retries=max_retries,
            http_client=httpx.AsyncClient(transport=fake.transport()),
            clock=fake.clock.now,
        )
        self._wait_by_clock_of(fake)


# What their reprs and their errors say.
InProcessClient.__name__ = ChatKitClient.__name__
InProcessAsyncClient.__name__ = AsyncChatKitClient.__name__
