"""The docs' applications, as the pages show them, under the tests that docs/testing.md shows."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pages import ROOT, code_of, files_of

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.usefixtures("few_plugins")

TUTORIALS = ["docs/tutorial.md", "docs/es/tutorial.md"]
TESTS = "docs/testing.md"
REAL_KEY = "sk-proj-0123456789abcdefghijKEY"


@pytest.fixture(params=TUTORIALS)
def project(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory with the files of the tutorial, and a key of OpenAI's in the environment."""
    tutorial: str = request.param
    files = {
        "app.py": code_of(tutorial, "python", "def make_app("),
        "page.html": code_of(tutorial, "html", "<title>"),
        "conftest.py": 'pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]\n',
        "test_app.py": code_of(TESTS, "python", "def test_the_app_makes_its_own_client"),
    }
    assert files["conftest.py"] in Path(__file__).parents[2].joinpath(TESTS).read_text()
    for name, content in files.items():
        (pytester.path / name).write_text(content)
    return pytester


# The two tutorials differ in comments only.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("project", "key"), [(TUTORIALS[0], ""), (TUTORIALS[1], REAL_KEY)], indirect=["project"]
)
def test_the_tests_of_the_docs_pass_whatever_key_is_exported(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_0123456789abcdef" if key else "")

    result = project.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=6)


@pytest.mark.slow
@pytest.mark.parametrize("project", TUTORIALS[:1], indirect=True)
def test_a_client_made_at_import_with_a_real_key_is_an_error_and_calls_nobody(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", REAL_KEY)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_0123456789abcdef")
    (project.path / "test_app.py").write_text(
        """
import pytest
from app import make_app
from fastapi.testclient import TestClient

app = make_app()


@pytest.mark.usefixtures("chatkit_environment")
def test_the_app():
    with TestClient(app) as browser:
        browser.get("/sign-in")
        browser.post("/api/chatkit/session", json={})
"""
    )

    result = project.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: A ChatKit client called api.openai.com while*"])
    result.stdout.no_fnmatch_line(f"*{REAL_KEY}*")


def test_the_app_is_imported_without_a_key(project: pytest.Pytester) -> None:
    subprocess.run([sys.executable, "-c", "import app"], cwd=project.path, check=True, timeout=60)


# The application of each framework with its own chat server.

DJANGO = "get_wsgi_application()"


def asynchronous_django() -> str:
    """The Django application with what the page has its reader replace."""
    code = code_of("docs/platform.md", "python", DJANGO).replace("wsgi", "asgi")
    replaced = code_of("docs/platform.md", "python", "async def end_chat")
    code = code.replace("import SessionContext,", "import AsyncSessionsService, SessionContext,")
    return code.replace("urlpatterns = [", f"{replaced}\n\nurlpatterns = [")


APPLICATIONS = {
    "FastAPI": lambda: files_of("docs/self-hosted.md")["app.py"],
    "Flask": lambda: code_of("docs/platform.md", "python", "import ResponseReturnValue"),
    "Django": lambda: code_of("docs/platform.md", "python", DJANGO),
    "Django, ASGI": asynchronous_django,
}
TESTS_OF_APPLICATIONS = {
    "FastAPI": 'TestClient(make_app(str(tmp_path / "chat.db")))',
    "Flask": ".test_client()",
    "Django": "from django.test import Client",
    "Django, ASGI": "from django.test import Client",
}
ONE_MORE_TEST = """
import inspect

import app
import httpx
from django.core.management import call_command
from fastapi.testclient import TestClient

INPUT = {
    "content": [{"type": "input_text", "text": "Hello there"}],
    "attachments": [],
    "inference_options": {},
}


def browser_of_the_app():
    served = app.application if hasattr(app, "application") else app.make_app("more.db")
    if hasattr(app, "application"):
        call_command("migrate", verbosity=0)
    if not inspect.iscoroutinefunction(served.__call__):
        transport = httpx.WSGITransport(served)
        return httpx.Client(transport=transport, base_url="http://localhost")
    return TestClient(served, base_url="http://localhost")


def token_of(browser):
    token = browser.cookies.get("csrftoken")
    return {"X-CSRFToken": token} if token else {}


def test_the_reply_arrives_in_pieces_and_a_foreign_thread_is_a_404():
    browser = browser_of_the_app()
    browser.get("/")
    browser.post("/sign-in/ada", headers=token_of(browser))
    headers = token_of(browser)
    assert browser.get("/user").json() == {"user": "ada"}
    assert browser.post("/sign-in/eve", headers=headers).status_code == 404
    script = browser.get("/chatkit-fetch.js")
    assert "export function createChatKitFetch" in script.text
    assert "javascript" in script.headers["content-type"]

    session = browser.post("/api/chatkit/session", json={}, headers=headers).json()
    headers = {"Authorization": f"Bearer {session['client_secret']}"}
    body = {"type": "threads.create", "params": {"input": INPUT}}
    streamed = browser.post("/chatkit", json=body, headers=headers)
    body = {"type": "threads.get_by_id", "params": {"thread_id": "thr_of_bob"}}

    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.count('"delta":"') == 4
    assert '"text":"You said: Hello there "' in streamed.text
    assert browser.post("/chatkit", json=body, headers=headers).status_code == 404
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", APPLICATIONS)
def test_the_tests_of_an_own_chat_server_pass(
    framework: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    files = {
        **files_of("docs/self-hosted.md"),
        **files_of("docs/platform.md"),
        "app.py": APPLICATIONS[framework](),
        "test_app.py": code_of(TESTS, "python", TESTS_OF_APPLICATIONS[framework]),
        "test_more.py": ONE_MORE_TEST,
    }
    for name, content in files.items():
        (pytester.path / name).write_text(content)
    shutil.copy(ROOT / "examples/self_hosted/page/chatkit-fetch.js", pytester.path)

    of_chatkit_itself = "ignore:Direct usage of named widget classes:DeprecationWarning"
    strict = ["-W", "error", "-W", of_chatkit_itself]
    result = pytester.runpytest_subprocess(*strict, "-p", "no:cacheprovider")

    result.assert_outcomes(passed=3 if framework == "FastAPI" else 2)
