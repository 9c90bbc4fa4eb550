"""How often a user asked this process."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import pytest

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions._sessions.rate_limit import MAX_USERS, REQUESTS, RequestCounts
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    EndpointRequest,
)
from chatkit_sessions.stores import Entry, MemorySessionStore
from support import Connect, Script, Time, ok
from workers import AsyncFailingStore, FailingStore, inner

if TYPE_CHECKING:
    import asyncio


def test_a_user_may_ask_again_when_the_first_request_counts_no_more(time: Time) -> None:
    counts = RequestCounts(2)

    def admit() -> float:
        return counts.admit("ada", lambda: time.monotonic)

    assert admit() == 0
    time.advance(20)
    assert (admit(), admit()) == (0, 41)
    time.advance(41)
    assert (admit(), admit()) == (0, 20)


def test_what_is_taken_back_does_not_count(time: Time) -> None:
    counts = RequestCounts(1)
    counts.take_back("ada")

    for _ in range(3):
        assert counts.admit("ada", lambda: time.monotonic) == 0
        counts.take_back("ada")


def test_it_is_bounded_in_memory(time: Time) -> None:
    counts = RequestCounts(1)

    for number in range(MAX_USERS + 1):
        counts.admit(str(number), lambda: time.monotonic)

    assert counts.admit("0", lambda: time.monotonic) == 0, "made room"
    assert counts.admit(str(MAX_USERS), lambda: time.monotonic) > 0


class SlowStore(FailingStore):
    """A store that takes four seconds to read the requests of the last minute."""

    time: Time

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        if list(names) == [REQUESTS]:
            self.time.advance(4)
        return super().get(group, names)


def test_the_look_up_in_the_store_is_part_of_the_endpoint_s_timeout(
    connect: Connect, time: Time
) -> None:
    plain = SlowStore(MemorySessionStore(namespace="shop", clock=lambda: time.monotonic))
    plain.time = time
    script = Script([ok(user="ada")])
    store = plain if connect.kind == "sync" else AsyncFailingStore(plain)
    client: object = inner(connect(script, store=store))
    asked = EndpointRequest(
        method="POST",
        path="/session",
        url="https://shop.example/session",
        headers={"sec-fetch-site": "same-origin"},
    )

    if isinstance(client, ChatKitClient):
        told = ChatKitEndpoint(client, timeout=10).handle(asked, user="ada")
    else:
        endpoint = AsyncChatKitEndpoint(cast("AsyncChatKitClient", client), timeout=10)
        told = cast("asyncio.Runner", connect._runner).run(endpoint.handle(asked, user="ada"))

    assert told.status_code == 200
    assert script.requests[0].extensions["timeout"]["read"] == pytest.approx(6)
