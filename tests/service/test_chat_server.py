"""The chat server of the example and of the docs: whose threads it shows, and what is a 404."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.stores import MemorySessionStore

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/self_hosted"
INPUT: dict[str, object] = {
    "content": [{"type": "input_text", "text": "Hi"}],
    "attachments": [],
    "inference_options": {},
}


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLE))
    spec = importlib.util.spec_from_file_location("self_hosted_app", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(EXAMPLE))
    yield module
    sys.modules.pop("threads", None)


Ask = Callable[[str, str, dict[str, object]], httpx.Response]


@pytest.fixture(params=["example", "docs"])
def ask(request: pytest.FixtureRequest, example: ModuleType) -> Ask:
    """Send a request of the widget's, as a user."""
    if request.param == "example":
        store = MemorySessionStore(namespace="shop")
        service = AsyncSessionsService(store, workflows={"support"})
        app = cast("FastAPI", example.make_app(service))
    else:
        text = (ROOT / "docs/platform.md").read_text()
        snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict[str, object] = {"__name__": "__main__"}
        for snippet in [each for each in snippets if "def add_chat" in each]:
            exec(snippet, names)  # noqa: S102 -- the docs' own
        app = FastAPI()
        add_chat = cast("Callable[[FastAPI, object], None]", names["add_chat"])
        add_chat(app, example.Assistant(example.ThreadsInMemory()))
        service = cast("AsyncSessionsService", names["service"])
    issuing = SessionsService(cast("MemorySessionStore", service._store), workflows={"support"})
    secrets = {
        user: issuing.client(workflow_id="support")
        .create_session(user, state_variables={"plan": "pro"}, max_requests_per_1_minute=100)
        .client_secret.get_secret_value()
        for user in ("ada", "bob")
    }
    client = TestClient(app)

    def send(user: str, kind: str, params: dict[str, object]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secrets[user]}"}
        answer = client.post("/chatkit", json={"type": kind, "params": params}, headers=headers)
        return cast("httpx.Response", answer)

    return send


@pytest.fixture
def thread(ask: Ask) -> str:
    """The id of a thread of ada's."""
    events = ask("ada", "threads.create", {"input": INPUT}).text
    first = json.loads(events.partition("data: ")[2].partition("\n")[0])
    return cast("str", first["thread"]["id"])


def test_users_get_their_own_threads(ask: Ask, thread: str) -> None:
    found = ask("ada", "threads.get_by_id", {"thread_id": thread})

    assert found.status_code == 200
    assert [each["type"] for each in found.json()["items"]["data"]] == [
        "user_message",
        "assistant_message",
    ]
    assert ask("ada", "threads.update", {"thread_id": thread, "title": "Mine"}).is_success
    again = ask("ada", "threads.add_user_message", {"thread_id": thread, "input": INPUT})
    assert "Hello ada" in again.text


OTHERS: list[tuple[str, dict[str, object]]] = [
    ("threads.get_by_id", {}),
    ("threads.update", {"title": "Yours"}),
    ("threads.add_user_message", {"input": INPUT}),
]


@pytest.mark.parametrize(("kind", "more"), OTHERS)
@pytest.mark.parametrize("whose", ["ada's", "nobody's"])
def test_a_thread_that_is_not_the_users_is_a_404(
    ask: Ask, thread: str, kind: str, more: dict[str, object], whose: str
) -> None:
    thread_id = thread if whose == "ada's" else "thr_0"

    answer = ask("bob", kind, {"thread_id": thread_id, **more})

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_an_unknown_item_is_a_404_and_what_the_server_lacks_a_400(ask: Ask, thread: str) -> None:
    retry: dict[str, object] = {"thread_id": thread, "item_id": "msg_0"}
    file: dict[str, object] = {"name": "a.txt", "size": 1, "mime_type": "text/plain"}

    assert ask("ada", "threads.retry_after_item", retry).status_code == 404
    assert ask("ada", "attachments.create", file).status_code == 400
