"""Create, refresh, get and delete a ChatKit session, with both clients, and meet three troubles.

python examples/quickstart.py           against the local API of chatkit_sessions.testing
python examples/quickstart.py --live    against the real API: OPENAI_API_KEY and
                                        OPENAI_CHATKIT_WORKFLOW_ID have to be set
"""

import argparse
import asyncio
import sys
import textwrap

from chatkit_sessions import (
    AsyncChatKitClient,
    AuthenticationError,
    BetaNotAvailableError,
    ChatKitClient,
    ChatKitError,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    WorkflowNotFoundError,
)
from chatkit_sessions.testing import FakeChatKit

USER = "user_123"


def show_session(call: str, session: ChatKitSessionResponse) -> None:
    print(f"  {call}")
    print(f"    → {session.id}, {session.status}, {session.expires_in():.0f} s left")
    print(f"      secret {session.client_secret}, request {session.request_id}")


def show_info(call: str, info: ChatKitSessionInfo) -> None:
    origin = "the API" if info.source == "api" else "this client's record"
    print(f"  {call}")
    print(f"    → {info.id}, {info.status} (says {origin})")


def show_error(call: str, error: ChatKitError) -> None:
    print(f"  {call}")
    print(f"    → {type(error).__name__}")
    for line in str(error).splitlines():
        print(
            textwrap.indent(
                textwrap.fill(line, 92, break_on_hyphens=False, break_long_words=False), "      "
            )
        )


def four_calls(chatkit: ChatKitClient) -> None:
    print("ChatKitClient")
    session = chatkit.create_session(USER, expires_after=300)
    show_session(f"create_session({USER!r}, expires_after=300)", session)
    refreshed = chatkit.refresh_session(session.client_secret, user=USER)
    show_session(f"refresh_session(session.client_secret, user={USER!r})", refreshed)
    show_info("get_session(refreshed.id)", chatkit.get_session(refreshed.id))
    chatkit.delete_session(refreshed.id)
    show_info("delete_session(refreshed.id), then get_session", chatkit.get_session(refreshed.id))


async def four_calls_awaited(chatkit: AsyncChatKitClient) -> None:
    print("\nAsyncChatKitClient")
    async with chatkit:
        session = await chatkit.create_session(USER, expires_after=300)
        show_session(f"await create_session({USER!r}, expires_after=300)", session)
        refreshed = await chatkit.refresh_session(session.client_secret, user=USER)
        show_session(f"await refresh_session(session.client_secret, user={USER!r})", refreshed)
        show_info("await get_session(refreshed.id)", await chatkit.get_session(refreshed.id))
        await chatkit.delete_session(refreshed.id)
        ended = await chatkit.get_session(refreshed.id)
        show_info("await delete_session(refreshed.id), then get_session", ended)


def three_troubles(chatkit: ChatKitClient, fake: FakeChatKit | None) -> None:
    print("\nThree troubles, and what to check")
    try:
        chatkit.with_options(api_key="sk-not-a-valid-key").create_session(USER)
    except AuthenticationError as error:
        show_error("an invalid API key", error)
    try:
        chatkit.create_session(USER, workflow_id="wf_does_not_exist")
    except WorkflowNotFoundError as error:
        show_error("a workflow that is not there", error)
    if fake is None:
        print("  the beta not being available: cannot be provoked from outside")
        return
    message = "You must provide the 'OpenAI-Beta' header to access the Chatkit API."
    fake.fail_next(400, message=message, code="invalid_beta")
    try:
        chatkit.create_session(USER)
    except BetaNotAvailableError as error:
        show_error("the beta not being available", error)


def main() -> None:
    parser = argparse.ArgumentParser(description="The four calls and three troubles.")
    parser.add_argument("--live", action="store_true", help="use the real API and your key")
    if parser.parse_args().live:
        print("The real API, with the key and the workflow of the environment\n")
        try:
            with ChatKitClient() as chatkit:
                four_calls(chatkit)
                asyncio.run(four_calls_awaited(AsyncChatKitClient()))
                three_troubles(chatkit, None)
        except ChatKitError as error:
            show_error("ended early", error)
            sys.exit(1)
        return
    fake = FakeChatKit()
    with fake.serve() as server:
        print(f"The local API at {server.url}: no key, no network\n")
        with ChatKitClient(
            api_key=server.api_key, workflow_id=server.workflow_id, base_url=server.url
        ) as chatkit:
            four_calls(chatkit)
            awaited = AsyncChatKitClient(
                api_key=server.api_key, workflow_id=server.workflow_id, base_url=server.url
            )
            asyncio.run(four_calls_awaited(awaited))
            three_troubles(chatkit, fake)


if __name__ == "__main__":
    main()
