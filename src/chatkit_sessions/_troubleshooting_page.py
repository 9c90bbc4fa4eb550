"""The troubleshooting page: what errors and log lines refer to, and readable offline."""

import re
from pathlib import Path
from typing import Final

SITE: Final[str | None] = None
"""The docs' site, ending in `/`. None until this project owns the address, since whoever claims it
decides what it serves. CONTRIBUTING.md says when to set it."""

PAGES: Final = {"en": "troubleshooting.md", "es": "es/troubleshooting.md"}
"""The page in each language, within the docs."""


def reference(section: str, *, site: str | None = SITE) -> str:
    """Where to read more: the section, the command that prints it, and its link if there is one."""
    link = f", {site}troubleshooting.html#{section.lower()}" if site else ""
    command = f"python -m chatkit_sessions explain {section}"
    return f"See: Troubleshooting: {section} ({command}){link}"


def read(language: str) -> str:
    """The page's Markdown. It is part of the wheel; in a clone, it is the file in `docs`."""
    from importlib.resources import files  # noqa: PLC0415 -- takes longer than all else here

    packaged = files("chatkit_sessions") / "_docs"
    docs = packaged if packaged.is_dir() else Path(__file__).parents[2] / "docs"
    return (docs / PAGES[language]).read_text(encoding="utf-8")


def titles(page: str) -> list[str]:
    """The titles of the page's sections."""
    return [title for level, title, _ in _sections(page) if level > 1]


def find_section(page: str, title: str) -> str | None:
    """A section with its subsections, as text for a terminal; None if there is no such section.

    Args:
        page: The page's Markdown.
        title: The section's title, or a code that its text mentions.
    """
    found: list[str] = []
    depth = 0
    sections = _sections(page)
    if title.lower() not in {heading.lower() for _, heading, _ in sections}:
        title = next((heading for _, heading, text in sections if f"`{title}`" in text), title)
    for level, heading, text in sections:
        if found and level <= depth:
            break
        if found or heading.lower() == title.lower():
            depth = depth or level
            found.append(f"{heading}\n{'=' * len(heading)}\n\n{_without_markup(text).strip()}")
    return "\n\n".join(found) or None


def _sections(page: str) -> list[tuple[int, str, str]]:
    """Level, title and text of each section."""
    parts = re.split(r"^(#+) (.*)\n", page, flags=re.MULTILINE)
    return [
        (len(marks), title, text)
        for marks, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    ]


def _without_markup(text: str) -> str:
    linked = re.sub(r"\[([^\]]+)\]\((https://[^)]+)\)", r"\1 <\2>", text)
    titled = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", linked)
    return re.sub(r"^```.*\n|(?<!\*)\*\*(?!\*)", "", titled, flags=re.MULTILINE)
