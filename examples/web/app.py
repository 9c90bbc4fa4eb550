"""A page with the chat widget, and the backend that it needs.

Run it with `examples/web/run`, which bundles the page first. It uses the local ChatKit API, where a
stand-in takes the place of OpenAI's widget; with `--live`, the real API and the real widget.
"""

import argparse
import contextlib
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from chatkit_sessions import AsyncChatKitClient, ConfigurationError
from chatkit_sessions.integrations import CreateSessionOptions
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.testing import FakeChatKit

HERE = Path(__file__).parent
PAGE = HERE / "page"
BUNDLE = HERE / "dist" / "main.js"
WIDGET = "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js"


def make_app(chatkit: AsyncChatKitClient, *, live: bool = False) -> FastAPI:
    """The whole application; it closes the client when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with chatkit:
            yield

    app = FastAPI(lifespan=lifespan)
    signed_in: dict[str, str] = {}  # your login: here a cookie with a token, and no password

    def current_user(login: Annotated[str, Cookie()] = "") -> str | None:
        return signed_in.get(login)

    def options() -> CreateSessionOptions:
        return {"expires_after": 60}  # so short that you can watch the secret being renewed

    app.include_router(chatkit_router(chatkit, user=current_user, options=options, reuse=True))

    @app.get("/login")
    async def tell(user: Annotated[str | None, Depends(current_user)]) -> dict[str, str | None]:
        return {"user": user}

    @app.post("/login")
    async def sign_in(response: Response) -> dict[str, str]:
        token = secrets.token_urlsafe()
        signed_in[token] = "ada"
        response.set_cookie("login", token, httponly=True, samesite="strict")
        return {"user": "ada"}

    @app.delete("/login")
    async def sign_out(response: Response, login: Annotated[str, Cookie()] = "") -> None:
        signed_in.pop(login, None)
        response.delete_cookie("login")

    @app.get("/element.js")
    async def element() -> Response:
        return RedirectResponse(WIDGET) if live else FileResponse(PAGE / "stand-in.js")

    @app.get("/main.js")
    async def bundle() -> Response:
        if not BUNDLE.exists():
            raise HTTPException(404, "The page is not bundled yet: examples/web/build")
        return FileResponse(BUNDLE)

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def main() -> None:
    """Serve the application until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="use the real API, with OPENAI_API_KEY")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if arguments.live:
            try:
                chatkit = AsyncChatKitClient()
            except ConfigurationError as error:
                sys.exit(str(error))
        else:
            server = stack.enter_context(FakeChatKit().serve())
            chatkit = AsyncChatKitClient(
                api_key=server.api_key, workflow_id=server.workflow_id, base_url=server.url
            )
        print(f"Open http://localhost:{arguments.port} (Ctrl-C ends it)")
        uvicorn.run(
            make_app(chatkit, live=arguments.live), port=arguments.port, log_level="warning"
        )


if __name__ == "__main__":
    main()
