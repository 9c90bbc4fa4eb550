"""The tutorial's application, as the page shows it, under the tests that docs/testing.md shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from pages import code_of

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
        "test_app.py": code_of(TESTS, "python", "from app import make_app"),
    }
    assert files["conftest.py"] in Path(__file__).parents[2].joinpath(TESTS).read_text()
    for name, content in files.items():
        (pytester.path / name).write_text(content)
    return pytester


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", REAL_KEY], ids=["no key", "a real key"])
def test_the_tests_of_the_docs_pass_whatever_key_is_exported(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_0123456789abcdef" if key else "")

    result = project.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=6)


@pytest.mark.slow
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
