"""Every Python block of the README and the docs is as well typed as the source: mypy --strict."""

import re
import subprocess
import sys
from pathlib import Path

from pages import DOCUMENTS, ROOT, files_of_all

# Some blocks go on where an earlier one ended; that their names exist shows when they run. Some of
# the libraries that they import, such as celery, have no types.
HEADER = (
    '# mypy: disable-error-code="name-defined,no-any-return,import-untyped,untyped-decorator"'
    ", untyped-calls-exclude=redis"
)


# Whose `app` a block imports, if it is not the tutorial's: what each of the two contains.
APPLICATIONS = {
    'make_app("chat.db", service)': '"""The page, the login, the sessions',
    ".test_client()": "import ResponseReturnValue",
    'TestClient(make_app(str(tmp_path / "chat.db")))': '"""The page, the login, the sessions',
}


def test_every_python_block_is_typed_strictly(tmp_path: Path) -> None:
    for name, content in files_of_all().items():
        if name.endswith(".py"):
            (tmp_path / name).write_text(content)
    blocks: dict[str, str] = {}
    for document in DOCUMENTS:
        text = document.read_text()
        page = re.sub(r"\W", "_", str(document.relative_to(ROOT).with_suffix("")))
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 1
            blocks[f"{page}_line_{line}"] = block[1]
    for name, code in blocks.items():
        imported = "app"
        for test, application in APPLICATIONS.items():
            if test in code:
                (imported,) = [module for module, other in blocks.items() if application in other]
        own = code.replace("from app import", f"from {imported} import")
        (tmp_path / f"{name}.py").write_text(f"{HEADER}\n{own}")

    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    checked = subprocess.run(  # noqa: S603 -- our own
        [*command, "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )

    assert checked.returncode == 0, checked.stdout
