"""The example with a chat server of its own, in a real browser: two users, renewals, rejections.

The page, its `fetch`, `@openai/chatkit-react`, FastAPI and openai-chatkit are the real ones; a
stand-in takes the place of the element that OpenAI serves.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Route, expect, sync_playwright

from browsers import CHROMIUM, FLAGS, serving
from chatkit_sessions import SessionStoreError
from chatkit_sessions.service import AsyncSessionsService
from chatkit_sessions.stores import Entry, MemorySessionStore

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/self_hosted"
WEB = ROOT / "examples/web"
FRONTEND = ROOT / "docs/frontend.md"
SESSION = "/api/chatkit/session"
MESSAGE: dict[str, object] = {
    "type": "threads.create",
    "params": {
        "input": {
            "content": [{"type": "input_text", "text": "Hi"}],
            "attachments": [],
            "inference_options": {},
        }
    },
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(
        not (WEB / "node_modules/@openai").exists(),
        reason="the page's packages are not installed: examples/web/build",
    ),
]


class Example(Protocol):
    def make_app(self, service: AsyncSessionsService, bundle: Path) -> FastAPI: ...


class FlakyStore(MemorySessionStore):
    """A store in memory that can be unavailable."""

    is_down = False

    def get(self, group: str, names: Sequence[str]) -> list[Entry | None]:
        if self.is_down:
            raise SessionStoreError("The store is down.")
        return super().get(group, names)


@pytest.fixture(scope="module")
def example() -> Iterator[Example]:
    sys.path.insert(0, str(EXAMPLE))
    spec = importlib.util.spec_from_file_location("self_hosted_app", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(EXAMPLE))
    yield cast("Example", module)
    sys.modules.pop("threads", None)


def bundle(source: str, target: Path) -> Path:
    """A script of the example's folder, with what it imports."""
    (esbuild,) = WEB.glob("node_modules/@esbuild/*/bin/esbuild")
    subprocess.run(  # noqa: S603 -- our own
        [
            *(esbuild, "--bundle", "--loader=jsx", "--jsx=automatic", "--charset=utf8"),
            f"--outfile={target}",
        ],
        input=source,
        cwd=EXAMPLE / "page",
        env={**os.environ, "NODE_PATH": str(WEB / "node_modules")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return target


@pytest.fixture(scope="module")
def main_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist") / "main.js"
    return bundle((EXAMPLE / "page/main.jsx").read_text(), target)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore(namespace="shop")


@pytest.fixture
def service(store: FlakyStore) -> AsyncSessionsService:
    return AsyncSessionsService(store, workflows={"support"})


@pytest.fixture
def origin(example: Example, service: AsyncSessionsService, main_js: Path) -> Iterator[str]:
    with serving(example.make_app(service, main_js)) as origin:
        yield origin


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A browser of its own, with the requests that its page sends."""

    def __init__(self, browser: Browser, origin: str) -> None:
        self.context = browser.new_context()
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.sent: list[str] = []
        self.page.on("request", lambda request: self.sent.append(request.url))
        self.origin = origin

    def sign_in(self, user: str) -> None:
        self.page.goto(self.origin)
        self.page.get_by_role("button", name=f"Sign in as {user}").click()
        expect(self.page.get_by_role("status")).to_have_text("Status 200.")

    def say(self, text: str) -> None:
        self.page.get_by_label("Message").fill(text)
        self.page.get_by_role("button", name="Send").click()

    def statuses_of(self, body: object, times: int = 1) -> list[int]:
        """What as many requests of the widget's at once are answered with."""
        script = """async ([body, times]) => {
            const widget = document.querySelector("openai-chatkit");
            const sent = Array.from({ length: times }, () => widget.request(body));
            return (await Promise.all(sent)).map((response) => response.status);
        }"""
        return cast("list[int]", self.page.evaluate(script, [body, times]))

    def sessions_asked_for(self) -> list[str]:
        paths = [url.removeprefix(self.origin) for url in self.sent]
        return [path for path in paths if path.startswith(SESSION)]


@pytest.fixture
def visit(browser: Browser, origin: str) -> Iterator[Callable[[], Visitor]]:
    visitors: list[Visitor] = []

    def make() -> Visitor:
        visitors.append(Visitor(browser, origin))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.context.close()


LIST: dict[str, object] = {"type": "threads.list", "params": {}}


def test_two_users_never_see_each_others_threads(visit: Callable[[], Visitor]) -> None:
    ada, bob = visit(), visit()
    ada.sign_in("ada")
    ada.say("Hi")
    expect(ada.page.get_by_label("Answer")).to_have_text("Hello ada, you are on the plan pro.")
    expect(ada.page.get_by_role("listitem")).to_have_text(["A thread of ada"])

    bob.sign_in("bob")
    expect(bob.page.get_by_role("listitem")).to_have_count(0)
    bob.say("Hi")
    expect(bob.page.get_by_label("Answer")).to_have_text("Hello bob, you are on the plan pro.")

    expect(bob.page.get_by_role("listitem")).to_have_text(["A thread of bob"])
    ada.page.reload()
    expect(ada.page.get_by_role("listitem")).to_have_text(["A thread of ada"])


def test_parallel_requests_share_one_secret(visit: Callable[[], Visitor]) -> None:
    ada = visit()
    ada.sign_in("ada")

    assert ada.statuses_of(LIST, times=8) == [200] * 8
    assert ada.sessions_asked_for() == [SESSION]


def test_parallel_requests_wait_for_one_renewal(visit: Callable[[], Visitor]) -> None:
    ada = visit()
    ada.page.clock.install()
    ada.sign_in("ada")
    ada.page.clock.fast_forward(280_000)

    assert ada.statuses_of(LIST, times=8) == [200] * 8
    assert ada.sessions_asked_for() == [SESSION, f"{SESSION}/refresh"]


def test_a_secret_is_renewed_before_it_ends_whatever_the_pages_clock_says(
    visit: Callable[[], Visitor],
) -> None:
    ada = visit()
    ada.page.clock.install(time=datetime.now(UTC) + timedelta(days=1))
    ada.sign_in("ada")

    ada.page.clock.fast_forward(260_000)
    assert ada.statuses_of(LIST) == [200]
    assert ada.sessions_asked_for() == [SESSION]

    ada.page.clock.fast_forward(15_000)
    assert ada.statuses_of(LIST) == [200]
    assert ada.sessions_asked_for() == [SESSION, f"{SESSION}/refresh"]


def sign_out_elsewhere(visitor: Visitor) -> None:
    """End the user's sessions, but not the login, as on another device."""
    cookies = {each.get("name", ""): each.get("value", "") for each in visitor.context.cookies()}
    response = httpx.delete(f"{visitor.origin}{SESSION}", cookies=cookies)
    assert response.status_code == 204


def test_after_a_401_the_secret_is_renewed_once_and_the_request_repeated(
    visit: Callable[[], Visitor],
) -> None:
    ada = visit()
    ada.sign_in("ada")
    sign_out_elsewhere(ada)
    ada.sent.clear()

    assert ada.statuses_of(LIST, times=4) == [200] * 4
    assert ada.sessions_asked_for() == [f"{SESSION}/refresh"]


def test_who_is_not_signed_in_any_more_gets_401_and_no_other_secret(
    visit: Callable[[], Visitor],
) -> None:
    ada = visit()
    ada.sign_in("ada")
    sign_out_elsewhere(ada)
    ada.page.evaluate("fetch('/login', { method: 'DELETE' })")
    ada.sent.clear()

    assert ada.statuses_of(LIST) == [401]
    assert ada.sessions_asked_for() == [f"{SESSION}/refresh", SESSION]


def test_a_route_that_only_creates_sessions_is_enough(visit: Callable[[], Visitor]) -> None:
    ada = visit()
    ada.page.route(f"**{SESSION}/refresh", lambda route: route.fulfill(status=404))
    ada.page.route(f"**{SESSION}", with_the_secret_alone)
    ada.sign_in("ada")

    for _ in range(2):
        sign_out_elsewhere(ada)
        ada.sent.clear()

        assert ada.statuses_of(LIST, times=4) == [200] * 4
        assert ada.sessions_asked_for() == [f"{SESSION}/refresh", SESSION]


def with_the_secret_alone(route: Route) -> None:
    """Respond as a route of one's own that returns nothing but the secret."""
    response = route.fetch()
    route.fulfill(response=response, json={"client_secret": response.json()["client_secret"]})


def test_a_reached_rate_limit_is_passed_on(visit: Callable[[], Visitor]) -> None:
    ada = visit()
    ada.sign_in("ada")

    statuses = ada.statuses_of(MESSAGE, times=12)

    assert sorted(statuses) == [200] * 10 + [429] * 2
    assert ada.statuses_of(LIST) == [200], "reading goes on"
    assert ada.sessions_asked_for() == [SESSION]


def test_a_store_outage_is_passed_on_and_over_without_a_reload(
    visit: Callable[[], Visitor], store: FlakyStore
) -> None:
    ada = visit()
    ada.sign_in("ada")

    store.is_down = True
    assert ada.statuses_of(LIST) == [503]
    store.is_down = False
    assert ada.statuses_of(LIST) == [200]
    assert ada.sessions_asked_for() == [SESSION]


def test_signing_out_ends_the_secret(visit: Callable[[], Visitor]) -> None:
    ada = visit()
    ada.sign_in("ada")
    with ada.page.expect_request("**/chatkit") as sent:
        ada.say("Hi")
    authorization = sent.value.headers["authorization"]
    expect(ada.page.get_by_label("Answer")).to_have_text(re.compile("Hello"))

    ada.page.get_by_role("button", name="Sign out ada").click()
    expect(ada.page.get_by_text("Nobody is signed in.")).to_be_visible()

    rejected = httpx.post(
        f"{ada.origin}/chatkit", json=LIST, headers={"Authorization": authorization}
    )
    assert (rejected.status_code, rejected.json()["error"]["code"]) == (
        401,
        "client_secret_cancelled",
    )


def test_a_request_for_a_session_has_the_headers_that_the_page_adds(
    visit: Callable[[], Visitor],
) -> None:
    ada = visit()
    ada.sign_in("ada")

    with ada.page.expect_request(f"**{SESSION}") as sent:
        ada.page.evaluate(
            """async (source) => {
                const script = "data:text/javascript," + encodeURIComponent(source);
                const { createChatKitFetch } = await import(script);
                const sessionHeaders = { "X-CSRFToken": "a token" };
                await createChatKitFetch({ sessionHeaders })("/chatkit", { method: "POST" });
            }""",
            (EXAMPLE / "page/chatkit-fetch.js").read_text(),
        )

    assert sent.value.headers["x-csrftoken"] == "a token"


def snippet(language: str, containing: str) -> str:
    snippets = re.findall(rf"```{language}\n(.*?)```", FRONTEND.read_text(), re.DOTALL)
    (found,) = [each for each in snippets if containing in each]
    return cast("str", found)


def test_the_docs_show_the_fetch_of_the_example() -> None:
    shown = snippet("js", "export function createChatKitFetch")

    assert shown == (EXAMPLE / "page/chatkit-fetch.js").read_text()


def test_the_react_snippet_of_the_docs_chats(
    example: Example, service: AsyncSessionsService, browser: Browser, tmp_path: Path
) -> None:
    rendered = (
        'import { createRoot } from "react-dom/client";\n'
        'fetch("/login/ada", { method: "POST" }).then(() =>\n'
        '  createRoot(document.getElementById("root")).render(<Chat />));'
    )
    script = bundle(f"{snippet('jsx', 'createChatKitFetch')}\n{rendered}", tmp_path / "main.js")

    with serving(example.make_app(service, script)) as origin:
        visitor = Visitor(browser, origin)
        visitor.page.goto(origin)
        expect(visitor.page.get_by_role("status")).to_have_text("Status 200.")
        visitor.say("Hi")
        expect(visitor.page.get_by_label("Answer")).to_have_text(re.compile("Hello ada"))
        visitor.context.close()
