"""The shop's tests: no key, no network, no waiting."""

import pytest
from fastapi.testclient import TestClient
from shop import close_account, make_app

from chatkit_sessions import AsyncChatKitClient
from chatkit_sessions.testing import FakeChatKit

SESSION = "/api/chatkit/session"


@pytest.fixture
def shop(async_chatkit_client: AsyncChatKitClient) -> TestClient:
    """The shop, with Ada signed in; it asks `chatkit_fake`."""
    return TestClient(
        make_app(async_chatkit_client), headers={"Authorization": "Bearer token-of-ada"}
    )


def test_a_customer_gets_a_chat(shop: TestClient, chatkit_fake: FakeChatKit) -> None:
    answer = shop.post(SESSION, json={})

    assert answer.status_code == 200
    chatkit_fake.assert_created(user="ada", times=1)
    (session,) = chatkit_fake.sessions.values()
    assert answer.json()["client_secret"] == session.client_secret
    assert session.state_variables == {"first_order": False}


def test_a_page_that_is_loaded_again_keeps_its_chat(
    shop: TestClient, chatkit_fake: FakeChatKit
) -> None:
    first = shop.post(SESSION, json={}).json()
    chatkit_fake.clock.advance(minutes=3)
    assert shop.post(SESSION, json={}).json() == first

    chatkit_fake.clock.advance(minutes=2)  # 5 minutes: the session has run out
    assert shop.post(SESSION, json={}).json() != first
    chatkit_fake.assert_created(user="ada", times=2)


def test_a_stranger_gets_none(shop: TestClient, chatkit_fake: FakeChatKit) -> None:
    answer = shop.post(SESSION, json={}, headers={"Authorization": "Bearer stolen"})

    assert answer.status_code == 401
    assert not chatkit_fake.requests


def test_the_chats_secret_is_renewed(shop: TestClient, chatkit_fake: FakeChatKit) -> None:
    first = shop.post(SESSION, json={}).json()["client_secret"]

    answer = shop.post(f"{SESSION}/refresh", json={"currentClientSecret": first})

    assert answer.json()["client_secret"] != first
    chatkit_fake.assert_refreshed(user="ada", times=1)


@pytest.mark.parametrize(
    ("trouble", "status_code"),
    [
        ({"status_code": 500}, 502),
        ({"status_code": 429, "headers": {"retry-after": "7"}}, 429),
        ({"fault": "hang"}, 504),
        ({"fault": "truncate"}, 502),
    ],
)
def test_a_page_is_told_of_troubles(
    shop: TestClient, chatkit_fake: FakeChatKit, trouble: dict[str, object], status_code: int
) -> None:
    chatkit_fake.fail_next(**trouble)  # type: ignore[arg-type]  # one of its arguments each

    assert shop.post(SESSION, json={}).status_code == status_code
    chatkit_fake.clock.advance(seconds=10)  # until then nobody asks again, as `retry-after` wants
    assert shop.post(SESSION, json={}).status_code == 200, "and then it is well again"


@pytest.mark.anyio
async def test_closing_an_account_ends_its_chats(
    async_chatkit_client: AsyncChatKitClient, chatkit_fake: FakeChatKit
) -> None:
    for user in ("ada", "ada", "bob"):
        await async_chatkit_client.create_session(user)

    assert await close_account(async_chatkit_client, "ada") == 2

    chatkit_fake.assert_deleted(user="ada", times=2)
    chatkit_fake.assert_deleted(user="bob", times=0)


@pytest.mark.asyncio
async def test_it_is_the_same_under_pytest_asyncio(
    async_chatkit_client: AsyncChatKitClient, chatkit_fake: FakeChatKit
) -> None:
    await async_chatkit_client.create_session("ada")

    assert await close_account(async_chatkit_client, "ada") == 1
    chatkit_fake.assert_deleted(user="ada", times=1)
