"""Every Python block of the README and the docs is as well typed as the source: mypy --strict."""

import re
import subprocess
import sys
from pathlib import Path

from pages import DOCUMENTS, ROOT, files_of

# Some blocks go on where an earlier one ended; that their names exist shows when they run. Some of
# the libraries that they import, such as celery, have no types.
HEADER = (
    '# mypy: disable-error-code="name-defined,no-any-return,import-untyped,untyped-decorator"'
    ", untyped-calls-exclude=redis"
)


def test_every_python_block_is_typed_strictly(tmp_path: Path) -> None:
    for name, content in (files_of("docs/self-hosted.md") | files_of("docs/tutorial.md")).items():
        if name.endswith(".py"):
            (tmp_path / name).write_text(content)
    for document in DOCUMENTS:
        text = document.read_text()
        page = re.sub(r"\W", "_", str(document.relative_to(ROOT).with_suffix("")))
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 1
            (tmp_path / f"{page}_line_{line}.py").write_text(f"{HEADER}\n{block[1]}")

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
