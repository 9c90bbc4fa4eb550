"""Every Python snippet of the README and the docs runs, against the local API."""

import doctest
import importlib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest
from django.test import override_settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import chatkit_sessions
import chatkit_sessions.integrations.django
import chatkit_sessions.integrations.fastapi
import chatkit_sessions.integrations.flask
import chatkit_sessions.integrations.litestar
import chatkit_sessions.integrations.starlette
import chatkit_sessions.service
import chatkit_sessions.service.django
import chatkit_sessions.service.fastapi
import chatkit_sessions.service.flask
import chatkit_sessions.service.starlette
import chatkit_sessions.stores.redis
import chatkit_sessions.testing
from chatkit_sessions._troubleshooting_page import SITE
from chatkit_sessions.testing import FakeServer
from pages import files_of_all
from redis_server import ACL_RULES, RedisServer, is_installed
from support import current_event_loop, logging_as_it_was

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture
def _environment(
    request: pytest.FixtureRequest,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[None]:
    for name, content in files_of_all().items():
        (tmp_path / name).write_text(content)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.setattr(sys, "argv", ["app.py", "version"])  # of Django's commands
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] -- untyped
    if is_installed():
        redis: RedisServer = request.getfixturevalue("redis_server")
        monkeypatch.setenv("REDIS_URL", redis.url)
    else:  # a store that does not answer keeps nobody from a session
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("LOGIN_SECRET", "a secret of the tests")
    monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", server.workflow_id)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    importlib.import_module("endpoint_apps")  # sets Django up
    cached = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["REDIS_URL"]}
    with override_settings(CACHES={"default": cached}):
        yield
    for name in ("app", "chat", "own", "pieces", "threads"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_snippet_runs(document: Path) -> None:
    snippets = list(Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT)).parse(document))

    with logging_as_it_was(), current_event_loop():
        for snippet in snippets:
            # As in a script: frameworks look up the module that a function is of.
            snippet.document.namespace["__name__"] = "__main__"
            snippet.evaluate()

    assert len(snippets) == document.read_text().count("```python\n")


def test_the_rules_for_a_redis_user_are_those_that_are_tried() -> None:
    rules = re.search(
        r"ACL SETUSER chatkit (.*?)```", (ROOT / "docs/stores.md").read_text(), re.DOTALL
    )

    assert rules is not None
    assert rules[1].split() == ACL_RULES.replace("{password}", "password").split()


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(
    "module", [chatkit_sessions, chatkit_sessions.service, chatkit_sessions.testing]
)
def test_every_example_in_a_packages_docstring_runs(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)

    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, *sorted(ROOT.glob("[CS]*.md"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text())

    for target, anchor in links:
        page = document.parent / target if target else document
        assert page.exists(), target
        if anchor:
            assert anchor in anchors(page), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def test_no_link_leads_to_an_address_of_ours_that_nobody_owns_yet() -> None:
    written = [*DOCUMENTS, *ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    written += [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.json")]
    links = [
        link
        for path in written
        for link in re.findall(r"https?://[^\s\"')>]+", path.read_text())
        if re.search(r"chatkit[-_]?sessions", link) and ".invalid" not in link
    ]

    assert [link for link in links if SITE is None or not link.startswith(SITE)] == []


def test_the_metadata_links_to_the_docs_as_soon_as_they_have_an_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project.get("urls", {}).get("Documentation") == SITE


def test_on_pypi_the_readme_links_to_nothing_that_is_not_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]
    readme = (ROOT / "README.md").read_text()
    for each in settings["hooks"]["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(each["pattern"], each["replacement"], readme)

    assert "Tutorial" in readme
    for link in re.findall(r"\]\(([^)]*)\)", readme):
        assert link.startswith(SITE or "https://"), link


def test_the_architectures_page_knows_every_module() -> None:
    table = (ROOT / "docs/architecture.md").read_text().partition("## Modules")[2]
    named: dict[str, set[str]] = {}
    room = ""
    for row in re.findall(r"^\|(.*?)\|(.*?)\|", table, re.MULTILINE):
        room = row[0].strip(" `") or room
        named.setdefault(room, set()).update(re.findall(r"`([\w*]+)`", row[1]))
    package = Path(chatkit_sessions.__file__).parent

    for path in package.rglob("*.py"):
        room = path.parent.name if path.parent != package else "the root"
        if path.stem != "__init__" and room != "testing":
            assert any(fnmatch(path.stem, name) for name in named[room]), path


def test_the_picture_of_the_error_tree_is_the_real_tree() -> None:
    picture = (ROOT / "docs/pictures/errors.svg").read_text()
    drawn = re.findall(r'<text class="name" x="(\d+)"[^>]*>(\w+)<', picture)

    parents: dict[str, str] = {}
    branch: list[tuple[int, str]] = []
    for indent, name in drawn:
        branch = [(left, above) for left, above in branch if left < int(indent)]
        parents[name] = branch[-1][1] if branch else "Exception"
        branch.append((int(indent), name))

    errors = {name for name in chatkit_sessions.__all__ if name.endswith("Error")}
    assert parents == {
        name: getattr(chatkit_sessions, name).__bases__[0].__name__ for name in errors
    }


def test_the_drawn_error_tree_is_the_real_one() -> None:
    drawn = set(re.findall(r"[─ ] ?(\w+Error)\b", chatkit_sessions.errors.__doc__ or ""))

    real = {name for name in chatkit_sessions.__all__ if name.endswith("Error")}
    assert real <= drawn


def test_every_error_has_its_section_in_troubleshooting() -> None:
    sections = anchors(ROOT / "docs/troubleshooting.md")

    public = [*chatkit_sessions.__all__, *chatkit_sessions.service.__all__]
    errors = {name.lower() for name in public if name.endswith("Error")}
    assert errors <= sections


PUBLIC: list[ModuleType] = [
    chatkit_sessions,
    chatkit_sessions.testing,
    chatkit_sessions.stores,
    chatkit_sessions.stores.redis,
    chatkit_sessions.integrations,
    chatkit_sessions.integrations.django,
    chatkit_sessions.integrations.fastapi,
    chatkit_sessions.integrations.flask,
    chatkit_sessions.integrations.litestar,
    chatkit_sessions.integrations.starlette,
    chatkit_sessions.service,
    chatkit_sessions.service.django,
    chatkit_sessions.service.fastapi,
    chatkit_sessions.service.flask,
    chatkit_sessions.service.starlette,
]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(module: ModuleType) -> None:
    pages = [page.read_text() for page in (ROOT / "docs/reference").glob("*.md")]
    directives = {
        name
        for page in pages
        for name in re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)", page, re.MULTILINE)
    }

    assert set(module.__all__) - {"__version__"} <= directives


def test_the_reference_says_where_each_name_is() -> None:
    page = (ROOT / "docs/reference/client.md").read_text()
    rows = re.findall(r"^\| `(chatkit_sessions\.[\w.]+)` \| (.+) \|$", page, re.MULTILINE)

    assert {module: sorted(re.findall(r"`(\w+)`", names)) for module, names in rows} == {
        module.__name__: sorted(module.__all__) for module in PUBLIC if module is not PUBLIC[0]
    }


@pytest.mark.parametrize("name", ["client", "server"])
def test_the_reference_shows_methods_that_a_base_class_has(name: str) -> None:
    page = (ROOT / f"docs/reference/{name}.md").read_text()

    for client in re.findall(
        r"^\.\. autoclass:: \w+(?:Client|Endpoint)\n((?: .*\n)*)", page, re.MULTILINE
    ):
        assert ":inherited-members:" in client


def quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples/quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quickstart_shows_four_calls_and_three_troubles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["quickstart.py"])

    quickstart().main()

    shown = capsys.readouterr().out
    for call in ("create_session(", "refresh_session(", "get_session(", "delete_session("):
        assert shown.count(call) >= 2, "once with each client"
    for trouble in ("AuthenticationError", "WorkflowNotFoundError", "BetaNotAvailable"):
        assert trouble in shown
    assert shown.count("Hint: ") == 3
    assert "ek_" not in shown


def test_the_quickstart_without_a_key_says_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["quickstart.py", "--live"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(SystemExit) as stopped:
        quickstart().main()

    assert stopped.value.code == 1
    assert "No API key: set OPENAI_API_KEY" in capsys.readouterr().out


@pytest.mark.usefixtures("_environment")
def test_the_quickstart_runs_live_with_the_settings_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["quickstart.py", "--live"])

    quickstart().main()

    shown = capsys.readouterr().out
    assert "The real API" in shown
    assert shown.count("Hint: ") == 2
