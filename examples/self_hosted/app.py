"""A ChatKit server of your own, the sessions that it needs, and the page: without OpenAI's API.

Run it with `examples/self_hosted/run`, which bundles the page first.
"""

import argparse
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import uvicorn
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import NotFoundError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ThreadItemDoneEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
)
from fastapi import APIRouter, Cookie, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from threads import ThreadsInMemory

from chatkit_sessions.integrations import CreateSessionOptions
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.service import AsyncSessionsService, SessionContext
from chatkit_sessions.service.fastapi import chatkit_session
from chatkit_sessions.stores import MemorySessionStore

HERE = Path(__file__).parent
PAGE = HERE / "page"
BUNDLE = HERE / "dist" / "main.js"
USERS = ("ada", "bob")


class Assistant(ChatKitServer[SessionContext]):
    """Says hello; call your model here."""

    async def respond(
        self,
        thread: ThreadMetadata,
        input_user_message: UserMessageItem | None,  # noqa: ARG002 -- for your model
        context: SessionContext,
    ) -> AsyncIterator[ThreadStreamEvent]:
        """Respond to a message."""
        thread.title = f"A thread of {context.user}"
        text = f"Hello {context.user}, you are on the plan {context.state_variables['plan']}."
        yield ThreadItemDoneEvent(
            item=AssistantMessageItem(
                id=self.store.generate_item_id("message", thread, context),
                thread_id=thread.id,
                created_at=datetime.now(UTC),
                content=[AssistantMessageContent(text=text)],
            )
        )


class Login:
    """Your login: here a cookie with a token, and no password."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {}
        self.router = APIRouter(prefix="/login")
        self.router.add_api_route("", self.show, methods=["GET"])
        self.router.add_api_route("/{user}", self.sign_in, methods=["POST"])
        self.router.add_api_route("", self.sign_out, methods=["DELETE"])

    def current_user(self, login: Annotated[str, Cookie()] = "") -> str | None:
        """Return who is signed in."""
        return self._users.get(login)

    def show(self, login: Annotated[str, Cookie()] = "") -> dict[str, str | None]:
        """Return who is signed in, for the page."""
        return {"user": self.current_user(login)}

    def sign_in(self, user: str, response: Response) -> dict[str, str]:
        """Sign a user in."""
        if user not in USERS:
            raise HTTPException(404)
        token = secrets.token_urlsafe()
        self._users[token] = user
        response.set_cookie("login", token, httponly=True, samesite="strict")
        return {"user": user}

    def sign_out(self, response: Response, login: Annotated[str, Cookie()] = "") -> None:
        """Sign the user out."""
        self._users.pop(login, None)
        response.delete_cookie("login")


async def respond(server: Assistant, request: Request, context: SessionContext) -> Response:
    """Let the chat server process a request. A thread or item that is not the user's is a 404."""
    try:
        result = await server.process(await request.body(), context)
        if not isinstance(result, StreamingResult):
            return Response(result.json, media_type="application/json")
        events = aiter(result)
        first = await anext(events)  # before the response has begun
    except (NotFoundError, StopAsyncIteration):  # StopAsyncIteration: no such item to retry
        raise HTTPException(404) from None
    except (ValueError, RuntimeError):  # not what a widget sends, or not supported
        raise HTTPException(400) from None

    async def stream() -> AsyncIterator[bytes]:
        yield first
        async for event in events:
            yield event

    return StreamingResponse(stream(), media_type="text/event-stream")


def make_app(service: AsyncSessionsService, bundle: Path = BUNDLE) -> FastAPI:
    """The whole application."""
    app = FastAPI()
    login = Login()
    app.include_router(login.router)

    # The page's sessions, as with OpenAI's API …
    def options() -> CreateSessionOptions:
        return {"expires_after": 300, "state_variables": {"plan": "pro"}}

    chatkit = service.client(workflow_id="support")
    app.include_router(chatkit_router(chatkit, user=login.current_user, options=options))

    # … and the chat server, which knows from the secret whose request it is.
    assistant = Assistant(ThreadsInMemory())

    @app.post("/chatkit")
    async def chat(
        request: Request, session: Annotated[SessionContext, Depends(chatkit_session(service))]
    ) -> Response:
        return await respond(assistant, request, session)

    @app.get("/main.js")
    def main_script() -> Response:
        if not bundle.exists():
            raise HTTPException(404, "The page is not bundled yet: examples/self_hosted/build")
        return FileResponse(bundle)

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def main() -> None:
    """Serve the application until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    service = AsyncSessionsService(MemorySessionStore(), workflows={"support"})
    print(f"Open http://localhost:{port} (Ctrl-C ends it)")
    uvicorn.run(make_app(service), port=port, log_level="warning")


if __name__ == "__main__":
    main()
