"""What looks like an application in the docs runs as it stands, by the command beneath it.

aiohttp's and Litestar's are in `test_recipes.py`, Django's in `e2e/test_redis_examples.py`.
"""

import importlib
import inspect
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from starlette.testclient import TestClient

from chatkit_sessions.testing import FakeServer
from pages import DOCUMENTS, ROOT, files_of_all

LOOKS_LIKE_AN_APPLICATION = re.compile(
    r"^app = (?!web|Litestar)|^def (make_app|make_own_app)\(", re.MULTILINE
)
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r'^\$ (?:uvicorn (?P<factory>--factory )?|gunicorn "|flask --app )'
    r"(?P<module>\w+)(?::(?P<name>\w+)|(?= run))",
    re.MULTILINE,
)


def applications() -> list[tuple[str, str, str]]:
    """Page and line, code, and the next command, of each application."""
    found: list[tuple[str, str, str]] = []
    for document in DOCUMENTS:
        text = document.read_text()
        for block in BLOCKS.finditer(text):
            if block[1] == "python" and LOOKS_LIKE_AN_APPLICATION.search(block[2]):
                line = text[: block.start()].count("\n") + 1
                after = [each[2] for each in BLOCKS.finditer(text, block.end())]
                command = next(filter(COMMAND.search, after), "")
                found.append((f"{document.relative_to(ROOT)}:{line}", block[2], command))
    return [each for each in found if "/sessions-api" not in each[1]]


@pytest.mark.parametrize(
    ("code", "command"), [pytest.param(*rest, id=where) for where, *rest in applications()]
)
def test_an_application_serves_by_the_command_beneath_it(
    code: str,
    command: str,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    wanted = COMMAND.search(command)
    assert wanted is not None, "no command beneath it"
    environment = {**server.environment, "LOGIN_SECRET": "a secret", "REDIS_URL": "redis://[::1]:1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    files = files_of_all()
    for name, content in {**files, f"{wanted['module']}.py": code}.items():
        (tmp_path / name).write_text(content)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] -- untyped

    with ExitStack() as stack:
        stack.callback(lambda: [sys.modules.pop(name.removesuffix(".py"), None) for name in files])
        module = importlib.import_module(wanted["module"])
        made = getattr(module, wanted["name"] or "make_app")
        app = made() if wanted["factory"] or inspect.isfunction(made) else made
        if isinstance(app, Flask):
            status = app.test_client().post("/api/chatkit/session", json={}).status_code
        else:
            browser = stack.enter_context(TestClient(app, base_url="http://localhost"))
            status = browser.post("/api/chatkit/session", json={}).status_code

    assert status in {200, 401}
