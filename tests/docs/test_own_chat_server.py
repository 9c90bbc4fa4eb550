"""The tutorial's chat server of one's own, and the same as an ending of the other tutorial."""

import asyncio
import importlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import cast

import httpx
import pytest
from chatkit.store import NotFoundError, Store
from chatkit.types import (
    FileAttachment,
    InferenceOptions,
    ThreadMetadata,
    UserMessageItem,
    UserMessageTextContent,
)
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from browsers import CHROMIUM, FLAGS, serving
from chatkit_sessions import AsyncChatKitClient, ChatKitClient, SessionStoreError
from chatkit_sessions.service import AsyncSessionsService, SessionContext, SessionsService
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit
from pages import code_of, files_of
from redis_server import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples/self_hosted/page"
FILES = files_of("docs/self-hosted.md")
TUTORIALS = ["docs/tutorial.md", "docs/es/tutorial.md"]
SESSION = "/api/chatkit/session"
JSON = dict[str, object]
Load = Callable[[dict[str, str], str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Load]:
    """Write files into the working directory, as a reader does, and import one of them."""

    def write_and_import(files: dict[str, str], name: str) -> ModuleType:
        for file, content in files.items():
            # Without the time between the words of a reply.
            (tmp_path / file).write_text(content.replace("asyncio.sleep(0.05)", "asyncio.sleep(0)"))
            monkeypatch.delitem(sys.modules, file.removesuffix(".py"), raising=False)
        shutil.copy(PAGE / "chatkit-fetch.js", tmp_path)
        return importlib.import_module(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] -- untyped
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield write_and_import
    for name in ("app", "chat", "own", "shared", "threads"):
        sys.modules.pop(name, None)


@pytest.fixture(params=["self-hosted.md", *TUTORIALS])
def app(request: pytest.FixtureRequest, load: Load, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The application of the tutorial, and the one that the other tutorial ends with.

    The latter is served where the local API's variables were set; the tutorial says which to unset.
    """
    if request.param == "self-hosted.md":
        made: FastAPI = load(FILES, "app").make_app("chat.db")
    else:
        others = files_of(request.param)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8089/v1")
        for name in ending_of(request.param).partition("$ unset ")[2].splitlines()[0].split():
            monkeypatch.delenv(name, raising=False)
        page = others["page.html"].partition('<script type="module">')[0]
        others["page.html"] = page + script_of(request.param)
        made = load(FILES | others, "own").make_own_app("chat.db")
    return made


def ending_of(tutorial: str) -> str:
    """The tutorial from its fifth step on: the ending with a chat server of one's own."""
    return (ROOT / tutorial).read_text().partition("\n## 5. ")[2]


def script_of(tutorial: str) -> str:
    """The script that replaces the page's, for a chat server of one's own."""
    script = ending_of(tutorial).partition('```html\n<script type="module">')[2]
    return '<script type="module">' + script.partition("```")[0]


def sign_in(browser: TestClient) -> dict[str, str]:
    """Sign Ada in, and return the headers with her secret."""
    if browser.post("/sign-in/ada").is_error:
        browser.get("/sign-in")
    secret = browser.post(SESSION, json={}).json()["client_secret"]
    return {"Authorization": f"Bearer {secret}"}


def user_input(text: str) -> JSON:
    content = [{"type": "input_text", "text": text}]
    return {"content": content, "attachments": [], "inference_options": {}}


def message(text: str) -> JSON:
    return {"type": "threads.create", "params": {"input": user_input(text)}}


def events_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def retry_of(streamed: str) -> JSON:
    """An item that does not exist, in the thread that began with a response."""
    thread = cast("JSON", events_of(streamed)[0]["thread"])
    return {"thread_id": thread["id"], "item_id": "msg_of_nobody"}


LIST: JSON = {"type": "threads.list", "params": {}}
FILE: JSON = {"name": "a.txt", "size": 1, "mime_type": "text/plain"}
ATTACH: JSON = {"type": "attachments.create", "params": FILE}
SOUND: JSON = {"audio_base64": "AAAA", "mime_type": "audio/webm"}
DICTATE: JSON = {"type": "input.transcribe", "params": SOUND}


def test_who_is_signed_in_chats_and_the_reply_arrives_in_pieces(app: FastAPI) -> None:
    with TestClient(app, base_url="http://localhost") as browser:
        assert browser.post("/chatkit", json=LIST).status_code == 401
        assert browser.post(SESSION, json={}).status_code == 401
        headers = sign_in(browser)

        streamed = browser.post("/chatkit", json=message("Hello there"), headers=headers).text
        listed = browser.post("/chatkit", json=LIST, headers=headers).json()
        foreign: JSON = {"type": "threads.get_by_id", "params": {"thread_id": "thr_of_bob"}}
        assert browser.post("/chatkit", json=foreign, headers=headers).status_code == 404
        assert browser.post("/chatkit", json={"type": "bogus"}, headers=headers).status_code == 400
        retry = {"type": "threads.retry_after_item", "params": retry_of(streamed)}
        assert browser.post("/chatkit", json=retry, headers=headers).status_code == 404
        for unsupported in (ATTACH, DICTATE):
            response = browser.post("/chatkit", json=unsupported, headers=headers)
            assert response.status_code == 400

    assert streamed.count('"delta":"') == 4
    assert '"text":"You said: Hello there "' in streamed
    assert [thread["title"] for thread in listed["data"]] == ["Hello there"]


@pytest.mark.parametrize("app", ["self-hosted.md"], indirect=True)
def test_signing_out_ends_the_secret_and_the_login(app: FastAPI) -> None:
    with TestClient(app, base_url="http://localhost") as browser:
        headers = sign_in(browser)
        assert browser.get("/user").json() == {"user": "ada"}
        assert browser.post("/chatkit", json=LIST, headers=headers).status_code == 200

        browser.post("/sign-out")

        assert browser.get("/user").json() == {"user": None}
        assert browser.post("/chatkit", json=LIST, headers=headers).status_code == 401
        assert browser.post("/sign-out").url.path == "/", "nobody is left to sign out"
        assert browser.post("/sign-in/eve").status_code == 404


@pytest.mark.parametrize("app", ["self-hosted.md"], indirect=True)
def test_signing_out_ends_the_login_during_a_store_outage(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise SessionStoreError("The session store does not respond.")

    with TestClient(app, base_url="http://localhost") as browser:
        sign_in(browser)
        monkeypatch.setattr(AsyncChatKitClient, "delete_sessions", fail)

        assert browser.post("/sign-out").status_code == 200

        assert browser.get("/user").json() == {"user": None}
    assert "Not all chat sessions of a user have ended" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_two_users_chat_in_the_page(app: FastAPI) -> None:
    own = any(getattr(route, "path", "") == "/user" for route in app.routes)
    with (
        serving(app) as origin,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser,
    ):
        page = new_page(browser)
        page.goto(origin)
        page.get_by_role("button" if own else "link", name="Sign in as Ada" if own else "").click()
        expect(page.get_by_role("status")).to_have_text("Status 200.")
        page.get_by_label("Message", exact=True).fill("How do I reset my password?")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_label("Answer")).to_have_text("You said: How do I reset my password? ")
        expect(page.get_by_role("listitem")).to_have_text("How do I reset my password?")
        if picture := os.environ.get("CHATKIT_SCREENSHOT_OWN"):
            page.screenshot(path=picture)
        page.reload()
        expect(page.get_by_role("listitem")).to_have_text("How do I reset my password?")

        if own:
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("button", name="Sign in as Bob").click()
            expect(page.get_by_role("status")).to_have_text("Status 200.")
            expect(page.get_by_role("listitem")).to_have_count(0)


def new_page(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 900, "height": 620}).new_page()
    page.set_default_timeout(30_000)
    page.route(
        "https://cdn.platform.openai.com/**",
        lambda route: route.fulfill(path=PAGE / "stand-in.js", content_type="text/javascript"),
    )
    return page


# Pages of other sites.


def test_sites_embed_the_chat_and_end_it_for_their_own_users_alone(load: Load) -> None:
    code = code_of("docs/platform.md", "python", "CORSMiddleware")
    app: FastAPI = load(FILES | {"app.py": code}, "app").make_app("chat.db")
    with serving(app) as origin, httpx.Client(base_url=origin, trust_env=False) as browser:
        shop, forum = (
            ChatKitClient(api_key=key, workflow_id="support", base_url=f"{origin}/sessions-api/v1")
            for key in ("a-long-key-of-the-shop", "a-long-key-of-the-forum")
        )
        of_shop, of_forum = (
            {"Authorization": f"Bearer {secret_of(site)}", "Origin": "https://shop.example"}
            for site in (shop, forum)
        )
        allowed = browser.post("/chatkit", json=message("Hello"), headers=of_shop)
        listed = browser.post("/chatkit", json=LIST, headers=of_forum).json()
        shop.delete_sessions("ada")
        statuses = [
            browser.post("/chatkit", json=LIST, headers=headers).status_code
            for headers in (of_shop, of_forum)
        ]
        preflights = [
            browser.options("/chatkit", headers={**PREFLIGHT, "Origin": page}).status_code
            for page in ("https://shop.example", "https://elsewhere.example")
        ]
        shop.close()
        forum.close()

    assert "You said: Hello" in allowed.text
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert listed["data"] == [], "of another site's ada"
    assert statuses == [401, 200]
    assert preflights == [200, 400]


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def secret_of(site: ChatKitClient) -> str:
    return site.create_session("ada").client_secret.get_secret_value()


# Several workers.


def test_workers_with_one_redis_accept_each_others_secrets(
    load: Load, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    code = code_of("docs/stores.md", "python", "def make_shared_app")
    make = cast(
        "Callable[[], FastAPI]", load(FILES | {"shared.py": code}, "shared").make_shared_app
    )
    with (
        TestClient(make(), base_url="http://localhost") as first,
        TestClient(make(), base_url="http://localhost") as second,
    ):
        headers = sign_in(first)
        assert second.post("/chatkit", json=LIST, headers=headers).status_code == 200

        first.post("/sign-out")
        assert second.post("/chatkit", json=LIST, headers=headers).status_code == 401


# The move from a hosted workflow.


@pytest.mark.parametrize("app", ["self-hosted.md"], indirect=True)
def test_a_page_with_a_secret_of_openais_gets_one_of_the_service(app: FastAPI) -> None:
    with FakeChatKit() as openai, TestClient(app, base_url="http://localhost") as browser:
        old = openai.client().create_session("ada").client_secret.get_secret_value()
        sign_in(browser)

        rejected = browser.post("/chatkit", json=LIST, headers={"Authorization": f"Bearer {old}"})
        new = browser.post(f"{SESSION}/refresh", json={"currentClientSecret": old}).json()
        headers = {"Authorization": f"Bearer {new['client_secret']}"}
        accepted = browser.post("/chatkit", json=LIST, headers=headers)
        browser.post("/sign-out")

    assert "client_secret_unknown" in rejected.text
    assert (rejected.status_code, accepted.status_code) == (401, 200)
    openai.assert_deleted(times=0)


def test_the_old_page_and_the_new_one_have_an_endpoint_each() -> None:
    names: dict[str, object] = {"signed_in_user": lambda: "ada"}
    exec(code_of("docs/platform.md", "python", "def add_endpoints"), names)  # noqa: S102 -- our own docs
    service = AsyncSessionsService(MemorySessionStore(), workflows={"support"})
    app = FastAPI()
    with FakeChatKit() as openai:
        add_endpoints = cast("Callable[..., None]", names["add_endpoints"])
        add_endpoints(app, openai.async_client(), service.client())
        with TestClient(app) as browser:
            old = browser.post(SESSION, json={}).json()["session_id"]
            new = browser.post("/api/own-chat/session", json={}).json()["session_id"]

    assert list(openai.sessions) == [old]
    assert old != new


# The model.


def model_of(asked: list[JSON]) -> FastAPI:
    """As much of OpenAI's Responses API as streams one reply."""
    app = FastAPI()

    @app.post("/responses")
    async def respond(request: Request) -> StreamingResponse:
        asked.append(await request.json())

        async def events() -> AsyncIterator[str]:
            for number, piece in enumerate(["Good ", "day."]):
                event: JSON = {
                    "type": "response.output_text.delta",
                    "delta": piece,
                    "content_index": 0,
                    "output_index": 0,
                    "item_id": "m",
                    "logprobs": [],
                    "sequence_number": number,
                }
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def test_with_a_key_the_model_replies_and_gets_the_thread(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[JSON] = []
    app = load(FILES, "app").make_app("chat.db")
    with (
        serving(model_of(asked)) as model,
        TestClient(app, base_url="http://localhost") as browser,
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", model)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        headers = sign_in(browser)
        first = browser.post("/chatkit", json=message("Hello"), headers=headers).text
        thread = events_of(first)[0]["thread"]
        params = {"input": user_input("Again"), "thread_id": cast("JSON", thread)["id"]}
        again = {"type": "threads.add_user_message", "params": params}
        browser.post("/chatkit", json=again, headers=headers)

    assert '"text":"Good day."' in first
    assert [each["input"] for each in asked] == [
        [{"role": "user", "content": "Hello"}],
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "Again"},
        ],
    ]


# The store.


@pytest.fixture
def store(load: Load) -> Store[SessionContext]:
    threads: Store[SessionContext] = load({"threads.py": FILES["threads.py"]}, "threads").Threads(
        "chat.db"
    )
    return threads


def context_of(user: str) -> SessionContext:
    service = SessionsService(MemorySessionStore(), workflows={"support"})
    secret = service.client(workflow_id="support").create_session(user).client_secret
    return service.verify(secret)


ADA, BOB = context_of("ada"), context_of("bob")
NOW = datetime.now(UTC)


def item(name: str, text: str = "Hi") -> UserMessageItem:
    return UserMessageItem(
        id=name,
        thread_id="thr_1",
        created_at=NOW,
        content=[UserMessageTextContent(text=text)],
        inference_options=InferenceOptions(),
    )


def test_a_thread_is_its_users_alone(store: Store[SessionContext]) -> None:
    thread = ThreadMetadata(id="thr_1", created_at=NOW, title="Hi")
    file = FileAttachment(id="atc_1", name="a.txt", mime_type="text/plain")

    async def run() -> None:
        await store.save_thread(thread, ADA)
        await store.add_thread_item("thr_1", item("msg_1"), ADA)
        await store.save_attachment(file, ADA)
        assert await store.load_thread("thr_1", ADA) == thread
        assert await store.load_item("thr_1", "msg_1", ADA) == item("msg_1")
        assert await store.load_attachment("atc_1", ADA) == file

        for missing in (
            store.load_thread("thr_1", BOB),
            store.load_item("thr_1", "msg_1", BOB),
            store.load_attachment("atc_1", BOB),
        ):
            with pytest.raises(NotFoundError):
                await missing
        assert (await store.load_threads(9, None, "desc", BOB)).data == []
        assert (await store.load_thread_items("thr_1", None, 9, "asc", BOB)).data == []
        await store.delete_thread("thr_1", BOB)
        await store.delete_thread_item("thr_1", "msg_1", BOB)
        await store.delete_attachment("atc_1", BOB)
        assert await store.load_item("thr_1", "msg_1", ADA) == item("msg_1")

        await store.delete_attachment("atc_1", ADA)
        await store.delete_thread("thr_1", ADA)
        assert (await store.load_thread_items("thr_1", None, 9, "asc", ADA)).data == []
        with pytest.raises(NotFoundError):
            await store.load_thread("thr_1", ADA)

    asyncio.run(run())


@pytest.mark.parametrize(("order", "names"), [("asc", "abcde"), ("desc", "edcba")])
def test_items_are_read_page_by_page_in_the_order_in_which_they_came(
    store: Store[SessionContext], order: str, names: str
) -> None:
    async def run() -> list[list[str]]:
        for name in "abcde":
            await store.add_thread_item("thr_1", item(name), ADA)
        await store.save_item("thr_1", item("a", "changed"), ADA)
        assert await store.load_item("thr_1", "a", ADA) == item("a", "changed")
        pages: list[list[str]] = []
        after: str | None = None
        while not pages or after:
            page = await store.load_thread_items("thr_1", after, 2, order, ADA)
            pages.append([each.id for each in page.data])
            after = page.after
            assert page.has_more is (after is not None)
        await store.delete_thread_item("thr_1", "c", ADA)
        rest = await store.load_thread_items("thr_1", None, 9, order, ADA)
        assert [each.id for each in rest.data] == list(names.replace("c", ""))
        return pages

    assert asyncio.run(run()) == [list(names[:2]), list(names[2:4]), list(names[4:])]
