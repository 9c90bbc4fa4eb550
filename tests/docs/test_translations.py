"""What is said in English and in Spanish is the same."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from translations import PAGES, RECORD, changed, main, sections

pages = pytest.mark.parametrize(("english", "spanish"), PAGES.items())


@pages
def test_the_spanish_follows_every_change_of_the_english(english: str, spanish: str) -> None:
    assert changed(english) == [], (
        f"{spanish} has to follow; then: tests/helpers/translations.py --renew"
    )


@pages
def test_both_have_the_same_sections(english: str, spanish: str) -> None:
    levels = [section.level for section in sections(english)]

    assert [section.level for section in sections(spanish)] == levels


@pages
def test_both_show_the_same_code(english: str, spanish: str) -> None:
    for ours, theirs in zip(sections(english), sections(spanish), strict=True):
        assert theirs.blocks == ours.blocks, theirs.title


@pages
def test_both_speak_of_the_same_names(english: str, spanish: str) -> None:
    for ours, theirs in zip(sections(english), sections(spanish), strict=True):
        assert theirs.names == ours.names, theirs.title


@pages
def test_their_tables_are_as_long(english: str, spanish: str) -> None:
    for ours, theirs in zip(sections(english), sections(spanish), strict=True):
        assert theirs.rows == ours.rows, theirs.title


@pages
def test_every_section_has_a_title_of_its_own(english: str, spanish: str) -> None:
    for page in (english, spanish):
        titles = sorted(section.title for section in sections(page))
        assert all(one != other for one, other in pairwise(titles))


def test_what_has_changed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(RECORD.read_text())
    record["docs/tutorial.md"]["1. Install"] = "of another text"
    record["README.md"]["A section that is gone"] = "x"
    older = tmp_path / "translated.json"
    older.write_text(json.dumps(record))
    monkeypatch.setattr("translations.RECORD", older)

    assert main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "README.es.md: has to follow README.md, A section that is gone",
        "docs/es/tutorial.md: has to follow docs/tutorial.md, 1. Install",
    ]

    assert main(["--renew"]) == 0
    assert main([]) == 0
