"""Keeps the Spanish pages in step with the English ones.

    python tests/helpers/translations.py           lists the English sections that changed since
    python tests/helpers/translations.py --renew   records that the Spanish follows them

What was translated is known by a digest of each English section, in `docs/es/translated.json`.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs/es/translated.json"
PAGES = {
    "README.md": "README.es.md",
    "docs/index.md": "docs/es/index.md",
    "docs/tutorial.md": "docs/es/tutorial.md",
    "docs/troubleshooting.md": "docs/es/troubleshooting.md",
}
"""Each English page and its Spanish twin."""


class Section(NamedTuple):
    """A heading, and what stands below it up to the next one."""

    level: int
    title: str
    text: str

    @property
    def digest(self) -> str:
        """What changes with the section."""
        words = f"{self.level} {self.title} {' '.join(self.text.split())}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    @property
    def blocks(self) -> list[str]:
        """The code blocks, without their comments."""
        blocks = re.findall(r"^```[^\n]*\n.*?^```$", self.text, re.DOTALL | re.MULTILINE)
        return [_bare(block) for block in blocks if not block.startswith("```{toctree}")]

    @property
    def names(self) -> list[str]:
        """What is set as code in the text, in any order: names, values, statuses."""
        prose = re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return sorted(re.findall(r"`([^`\n]+)`", prose.replace("\n", " ")))

    @property
    def rows(self) -> int:
        """How many rows its tables have."""
        return len(re.findall(r"^\|", self.text, re.MULTILINE))


def _bare(block: str) -> str:
    without_comments = re.sub(r"(?m)(^|\s)#(?!!).*$", r"\1", block)
    return "\n".join(line.rstrip() for line in without_comments.splitlines() if line.strip())


def sections(page: str) -> list[Section]:
    """Take a page apart. A `#` within a block of code is no heading."""
    found: list[Section] = []
    level, title, lines = 0, "", list[str]()
    in_block = False
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("```"):
            in_block = not in_block
        heading = None if in_block else re.fullmatch(r"(#+) (.*)", line)
        if heading is None:
            lines.append(line)
            continue
        found.append(Section(level, title, "\n".join(lines)))
        level, title, lines = len(heading[1]), heading[2], []
    found.append(Section(level, title, "\n".join(lines)))
    return found


def digests(page: str) -> dict[str, str]:
    """The digest of each section of an English page, by its title."""
    return {section.title: section.digest for section in sections(page)}


def changed(page: str) -> list[str]:
    """The sections of an English page that are not as they were when they were translated."""
    translated: dict[str, str] = json.loads(RECORD.read_text())[page]
    now = digests(page)
    return [title for title in {**now, **translated} if now.get(title) != translated.get(title)]


def main(arguments: list[str]) -> int:
    """Tell what has to be translated, or take down that it is."""
    if arguments == ["--renew"]:
        record = {page: digests(page) for page in PAGES}
        RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return 0
    stale = {page: changed(page) for page in PAGES}
    for page, titles in stale.items():
        for title in titles:
            print(f"{PAGES[page]}: has to follow {page}, {title or 'the beginning'}")  # noqa: T201 -- a command prints
    return int(any(stale.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
