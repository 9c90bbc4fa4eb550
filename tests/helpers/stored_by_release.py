"""What a release stores. Run it when a release is made, and keep what it writes:

    python tests/helpers/stored_by_release.py > tests/helpers/stored/0.11.0.json

It uses public names only, so that it ran with the code of the releases before it was written, too.
"""

import contextlib
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions.integrations import ChatKitEndpoint, EndpointRequest
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit, FakeClock

if TYPE_CHECKING:
    from chatkit_sessions import SessionOptions

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BASE_URL = "https://chatkit.test/v1"
OPTIONS: "SessionOptions" = {
    "workflow_version": "2",
    "state_variables": {"plan": "pro", "seats": 3, "ratio": 1.5, "trial": True},
    "tracing": False,
    "expires_after": timedelta(seconds=500),
    "max_requests_per_1_minute": 30,
    "file_upload": {"max_file_size": 5, "max_files": 2},
    "history": {"recent_threads": 3},
    "automatic_thread_titling": False,
}


def main() -> None:
    store = MemorySessionStore(namespace="shop", clock=NOON.timestamp)
    secrets = {**use_clients(store), **use_service(store)}
    json.dump({"secrets": secrets, "entries": entries_of(store)}, sys.stdout, indent=1)
    print()  # noqa: T201 -- what it is for


def entries_of(store: MemorySessionStore) -> list[dict[str, object]]:
    """All that lies in a store."""
    return [
        {
            "group": group,
            "name": name,
            "value": bytes(value).decode(),
            "seconds": end - NOON.timestamp(),
            "listed": name in store.names(group),
        }
        for (group, name), (value, end, *_) in store._entries.items()
    ]


def use_clients(store: MemorySessionStore) -> dict[str, str]:
    """What clients of an API store; the secrets, by what they are of."""
    fake = FakeChatKit(clock=FakeClock(NOON))
    chatkit = ChatKitClient(
        api_key=fake.api_key,
        workflow_id=fake.workflow_id,
        base_url=BASE_URL,
        max_retries=0,
        http_client=httpx.Client(transport=fake.transport()),
        store=store,
        clock=fake.clock.now,
    )
    shared = chatkit.get_or_create_session("ada", **OPTIONS)
    own = chatkit.create_session("ada")
    request = EndpointRequest(
        method="POST",
        path="/session",
        url="https://shop.example/session",
        headers={"content-type": "application/json"},
        body=b"{}",
    )
    assert ChatKitEndpoint(chatkit).handle(request, user="ada").status_code == 200
    chatkit.get_or_create_session("bob")
    chatkit.delete_sessions("bob")
    fake.fail_next(429, headers={"retry-after": "30"})
    with contextlib.suppress(ChatKitError):
        chatkit.get_or_create_session("eve")
    return {
        "of the API, shared": shared.client_secret.get_secret_value(),
        "of the API": own.client_secret.get_secret_value(),
    }


def use_service(store: MemorySessionStore) -> dict[str, str]:
    """What a service stores, and its clients; the secrets, by what they are of."""
    try:
        from chatkit_sessions.service import SessionsService  # noqa: PLC0415 -- not in 0.9.0
    except ImportError:
        return {}
    issuing = SessionsService(store, workflows={"support"}, clock=lambda: NOON)
    chatkit = issuing.client(workflow_id="support")
    shared = chatkit.get_or_create_session("ada", **OPTIONS)
    own = chatkit.create_session("ada")
    issuing.verify(own.client_secret)
    cancelled = chatkit.create_session("bob")
    chatkit.delete_session(cancelled.id)
    refreshed = chatkit.refresh_session(chatkit.create_session("carl").client_secret, user="carl")
    return {
        name: each.client_secret.get_secret_value()
        for name, each in {
            "all options": shared,
            "no option": own,
            "cancelled": cancelled,
            "refreshed": refreshed,
        }.items()
    }


if __name__ == "__main__":
    main()
