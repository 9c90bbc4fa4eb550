"""A shop whose customers have a chat: the backend of somebody who uses the library."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header

from chatkit_sessions import AsyncChatKitClient
from chatkit_sessions.integrations import CreateSessionOptions
from chatkit_sessions.integrations.fastapi import chatkit_router

CUSTOMERS = {"token-of-ada": "ada", "token-of-bob": "bob"}


def customer(authorization: Annotated[str, Header()] = "") -> str | None:
    """Who is signed in, by a token; a real shop looks it up."""
    return CUSTOMERS.get(authorization.removeprefix("Bearer "))


def options(customer: Annotated[str | None, Depends(customer)]) -> CreateSessionOptions:
    """What the chat's workflow is told of the customer."""
    return {"state_variables": {"first_order": customer == "bob"}, "expires_after": 300}


def make_app(chatkit: AsyncChatKitClient) -> FastAPI:
    """The application, with whatever client it is to use."""
    app = FastAPI()
    app.include_router(chatkit_router(chatkit, user=customer, options=options, reuse=True))
    return app


async def close_account(chatkit: AsyncChatKitClient, customer: str) -> int:
    """End a customer's chats; tell how many there were."""
    sessions = [s for s in await chatkit.sessions_for(customer) if s.status == "active"]
    await chatkit.delete_sessions(customer)
    return len(sessions)
