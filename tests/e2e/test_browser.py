"""The example in a real browser: a page gets secrets, renews them, and other sites get nothing."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, Page, expect, sync_playwright

from chatkit_sessions import AsyncChatKitClient
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.testing import FakeChatKit, FakeServer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/web"
FRONTEND = ROOT / "docs/frontend.md"
WIDGET = (
    '<script src="https://cdn.platform.openai.com/deployments/chatkit/chatkit.js" async></script>'
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(
        not (EXAMPLE / "dist/main.js").exists(),
        reason="the page is not bundled: examples/web/build",
    ),
]


class Example(Protocol):
    def make_app(self, chatkit: AsyncChatKitClient) -> FastAPI: ...


def load_example() -> Example:
    spec = importlib.util.spec_from_file_location("example_app", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Example", module)


@contextmanager
def serving(app: FastAPI, host: str) -> Generator[str, None, None]:
    """Serve an application, in a thread; the origin of its pages."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 800, "height": 560})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.clock.install()
    yield page
    context.close()


def client_of(fake: FakeChatKit) -> AsyncChatKitClient:
    return AsyncChatKitClient(
        api_key=fake.api_key,
        workflow_id=fake.workflow_id,
        http_client=httpx.AsyncClient(transport=fake.transport()),
    )


def secrets_of(page: Page) -> list[str]:
    """What the widget was given."""
    secrets: object = page.evaluate("document.querySelector('openai-chatkit').secrets")
    return cast("list[str]", secrets)


def test_the_widgets_life_from_the_first_secret_to_signing_out(
    page: Page, fake: FakeChatKit
) -> None:
    with serving(load_example().make_app(client_of(fake)), "localhost") as origin:
        page.goto(origin)
        expect(page.get_by_text("Nobody is signed in.")).to_be_visible()
        assert not fake.requests

        page.get_by_role("button", name="Sign in as Ada").click()
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 1.")
        (session,) = fake.sessions.values()
        assert (session.user, secrets_of(page)) == ("ada", [session.client_secret])

        fake.clock.advance(seconds=46)
        page.clock.fast_forward(46_000)
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 2.")
        first, second = secrets_of(page)
        assert first != second
        assert {each.user for each in fake.sessions.values()} == {"ada"}
        assert second in {each.client_secret for each in fake.sessions.values()}

        picture = os.environ.get("CHATKIT_SCREENSHOT")
        if picture:
            page.screenshot(path=picture)

        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("Signed out: every secret has stopped working.")).to_be_visible()
        expect(page.get_by_text("Nobody is signed in.")).to_be_visible()
        assert {each.status for each in fake.sessions.values()} == {"cancelled"}


def test_a_user_who_signed_out_elsewhere_gets_no_other_secret(
    page: Page, fake: FakeChatKit
) -> None:
    with serving(load_example().make_app(client_of(fake)), "localhost") as origin:
        page.goto(origin)
        page.get_by_role("button", name="Sign in as Ada").click()
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 1.")
        page.evaluate("fetch('/login', {method: 'DELETE'})")
        sent = len(fake.requests)

        with page.expect_response("**/session/refresh") as refreshed:
            page.get_by_role("button", name="Renew now").click()

        assert refreshed.value.status == 401
        expect(page.get_by_role("status")).to_have_text("No connection.")
        expect(page.get_by_text("No secret: Nobody is signed in.")).to_be_visible()
        assert len(fake.requests) == sent


def snippet(language: str, containing: str, page: Path = FRONTEND) -> str:
    """A snippet of the docs."""
    snippets = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    (found,) = [each for each in snippets if containing in each]
    return cast("str", found)


def react_page() -> str:
    """The docs' React snippet, bundled and put on a page."""
    (esbuild,) = EXAMPLE.glob("node_modules/@esbuild/*/bin/esbuild")
    rendered = (
        'import { createRoot } from "react-dom/client";\n'
        'createRoot(document.getElementById("root")).render(<Chat />);'
    )
    bundled = subprocess.run(  # noqa: S603 -- our own
        [esbuild, "--bundle", "--loader=jsx", "--jsx=automatic", "--charset=utf8"],
        input=f"{snippet('jsx', 'getClientSecret')}\n{rendered}",
        cwd=EXAMPLE,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return f'{WIDGET}<div id="root"></div><script>{bundled}</script>'


@pytest.mark.parametrize("kind", ["React", "plain HTML"])
def test_the_snippets_of_the_docs_give_the_widget_its_secrets(
    page: Page, fake: FakeChatKit, kind: str
) -> None:
    html = react_page() if kind == "React" else snippet("html", "<openai-chatkit")
    app = open_app(fake)
    app.add_api_route("/", lambda: HTMLResponse(html))
    page.route(
        "https://cdn.platform.openai.com/**",
        lambda route: route.fulfill(path=EXAMPLE / "page/stand-in.js"),
    )

    with serving(app, "localhost") as origin:
        page.goto(origin)
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 1.")
        page.get_by_role("button", name="Renew now").click()
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 2.")

    first, second = secrets_of(page)
    assert first != second
    assert {first, second} <= {each.client_secret for each in fake.sessions.values()}


def test_the_tutorials_page_gets_a_session_once_somebody_signs_in(
    page: Page,
    fake: FakeChatKit,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    tutorial = ROOT / "docs/tutorial.md"
    (tmp_path / "page.html").write_text(snippet("html", "<title>", tutorial))
    names: dict[str, object] = {"__name__": "app"}
    exec(snippet("python", "def make_app(", tutorial), names)  # noqa: S102 -- our own docs
    page.route(
        "https://cdn.platform.openai.com/**",
        lambda route: route.fulfill(path=EXAMPLE / "page/stand-in.js"),
    )

    make_app = cast("Callable[[], FastAPI]", names["make_app"])
    with serving(make_app(), "localhost") as origin:
        page.goto(origin)
        expect(page.locator("p#status")).to_have_text("Nobody is signed in.")
        page.get_by_role("link", name="Sign in").click()
        expect(page.locator("p#status")).to_have_text(re.compile("Session cksess_"))
        page.get_by_role("button", name="Renew now").click()
        expect(page.get_by_role("status")).to_have_text("Connected with secret number 2.")

    assert {each.user for each in fake.sessions.values()} == {"ada"}


# What another site's page can try: with the browser's permission, or without asking for it.
ATTEMPTS = {
    "json": "{method: 'POST', credentials: 'include', body: '{}',"
    " headers: {'Content-Type': 'application/json'}}",
    "text": "{method: 'POST', credentials: 'include', body: '{}'}",
    "text, blindly": "{method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'}",
    "form, blindly": "{method: 'POST', mode: 'no-cors', body: new URLSearchParams({user: 'eve'})}",
    "sign out": "{method: 'DELETE', credentials: 'include'}",
}
TRY = """([url, request]) => fetch(url, (0, eval)('(' + request + ')'))
    .then(answer => answer.text(), error => error.name)"""


def open_app(fake: FakeChatKit, *allowed_origins: str) -> FastAPI:
    """An application in which everybody is signed in: no cookie protects it."""
    app = FastAPI()
    app.include_router(
        chatkit_router(client_of(fake), user=lambda: "ada", allowed_origins=allowed_origins)
    )
    return app


def other_site() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", lambda: HTMLResponse("<p>Another site</p>"))
    return app


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_gets_nothing(
    page: Page, fake: FakeChatKit, host: str, attempt: str
) -> None:
    with (
        serving(open_app(fake), "localhost") as origin,
        serving(other_site(), host) as elsewhere,
    ):
        page.goto(elsewhere)

        told = page.evaluate(TRY, [f"{origin}/api/chatkit/session", attempt])

    assert told in {"TypeError", ""}, "refused, or an answer that the page cannot read"
    assert not fake.requests


def test_a_page_of_a_listed_origin_gets_its_session(page: Page, fake: FakeChatKit) -> None:
    with (
        serving(other_site(), "127.0.0.1") as elsewhere,
        serving(open_app(fake, elsewhere), "localhost") as origin,
    ):
        page.goto(elsewhere)

        told = page.evaluate(TRY, [f"{origin}/api/chatkit/session", ATTEMPTS["json"]])
        ended = page.evaluate(TRY, [f"{origin}/api/chatkit/session", ATTEMPTS["sign out"]])

    (session,) = fake.sessions.values()
    assert session.client_secret in told
    assert (ended, session.status) == ("", "cancelled")
