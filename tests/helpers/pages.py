"""Code as the docs show it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def code_of(page: str, language: str, containing: str) -> str:
    """The one block of a page, in that language, with that text."""
    blocks: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    (found,) = [block for block in blocks if containing in block]
    return found


def files_of(page: str) -> dict[str, str]:
    """The files that a page has its reader write: each block below a line that ends with a name."""
    named: list[tuple[str, str]] = re.findall(
        r"`([\w./-]+\.\w+)`:\n\n```\w+\n(.*?)^```$",
        (ROOT / page).read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return dict(named)


def files_of_all() -> dict[str, str]:
    """The files of the pages with an application, which other blocks import."""
    pages = ("docs/platform.md", "docs/self-hosted.md", "docs/tutorial.md")
    return {name: content for page in pages for name, content in files_of(page).items()}
