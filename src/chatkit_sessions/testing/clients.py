"""Clients that call the local API in process, without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from chatkit_sessions import AsyncChatKitClient, ChatKitClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fake import FakeChatKit

BASE_URL: Final = "https://chatkit.test/v1"
"""Nothing connects to it: the transport responds."""


class InProcessClient(ChatKitClient):
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
        io = self._sessions.io
        io.runtime = io.runtime._replace(sleep=_sleep_by_clock_of(fake))

    def end(self) -> None:
        """Close the client, which holds no socket."""
        self._sessions.calls.lifetime.close()


class InProcessAsyncClient(AsyncChatKitClient):
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
        io = self._sessions.io
        io.runtime = io.runtime._replace(sleep=_sleep_by_clock_of(fake))

    def end(self) -> None:
        """Close the client, in whatever event loop."""
        self._sessions.calls.lifetime.close()


def _sleep_by_clock_of(fake: FakeChatKit) -> Callable[[float], None]:
    """What moves the local API's clock in place of waiting."""
    return lambda seconds: fake.clock.advance(seconds=seconds)


# What their reprs and their errors say.
InProcessClient.__name__ = ChatKitClient.__name__
InProcessAsyncClient.__name__ = AsyncChatKitClient.__name__
