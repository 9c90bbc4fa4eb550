"""FastAPI with a login, and sessions that every worker shares in Redis.

uvicorn --factory app:make_app --workers 2
"""

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.middleware.sessions import SessionMiddleware

from chatkit_sessions import AsyncChatKitClient, ChatKitError
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.stores.redis import AsyncRedisSessionStore

logger = logging.getLogger(__name__)


def signed_in_user(request: Request) -> str | None:
    """The user's id from the signed cookie; None: nobody is signed in."""
    user: str | None = request.session.get("user_id")
    return user


def make_app() -> FastAPI:
    """Make each worker's application, with its client and its connections to Redis."""
    store = AsyncRedisSessionStore.from_url(os.environ["REDIS_URL"], namespace="shop-production")
    chatkit = AsyncChatKitClient(store=store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with store, chatkit:
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(SessionMiddleware, secret_key=os.environ["LOGIN_SECRET"], same_site="strict")
    app.include_router(chatkit_router(chatkit, user=signed_in_user, reuse=True))

    @app.post("/sign-in", status_code=204)
    def sign_in(request: Request) -> None:
        request.session["user_id"] = "ada"  # replace this with your login

    @app.post("/sign-out", status_code=204)
    async def sign_out(request: Request) -> None:
        if user := signed_in_user(request):
            try:
                await chatkit.delete_sessions(user)  # of every worker and device
            except ChatKitError:  # the login ends all the same
                logger.exception("Not all chat sessions of a user have ended: they expire.")
        request.session.clear()

    return app
