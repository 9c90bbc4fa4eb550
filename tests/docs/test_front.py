"""What the documentation says of faults and versions, and how it is read."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")


def test_what_the_pages_say_of_faults_is_what_was_measured() -> None:
    faults = (ROOT / "benchmarks/faults.md").read_text()
    measured = (ROOT / "docs/measured.md").read_text()
    passed = re.findall(
        r"^- ((?:this library|official SDK), a?sync): (\d+) of (\d+)$", faults, re.MULTILINE
    )

    assert len(passed) == 4
    for which, number, total in passed:
        assert f"| {which} | {number} of {total} |" in measured
    (_, ours, total), (_, theirs, _) = passed[0], passed[2]
    why = " ".join((ROOT / "docs/why.md").read_text().split())
    assert f"Of [{total} network faults](measured.md), {ours} end as they should" in why
    assert f"and {theirs} with the SDK" in why


def test_there_is_no_more_to_read_than_a_reader_can() -> None:
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "es"]
    readme = (ROOT / "README.md").read_text().splitlines()

    assert len(pages) <= 20
    assert len(readme) <= 90


def test_the_lowest_versions_are_those_that_are_tested_and_required() -> None:
    table = (ROOT / "docs/compatibility.md").read_text()
    lowest = {
        name.lower().removesuffix("-py"): version
        for name, version in re.findall(
            r"^\| ([\w-]+) \| ([\d.]+) \| [\d.]+ \|", table, re.MULTILINE
        )
    }
    script = (ROOT / "scripts/test_package").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *chain.from_iterable(extras.values())]

    assert set(lowest) == {"httpx", "pydantic", *extras} - {"docs", "dev"}
    for name, version in lowest.items():
        assert f" {name}=={version} " in script
        bounds = [re.match(rf"{name}>=([\d.]+)", each) for each in required]
        (bound,) = {each[1] for each in bounds if each}
        assert f"{version}.".startswith(f"{bound}.")


@pytest.fixture
def conf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs/conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_that_begins_with_a_status_is_in_the_index(conf: ModuleType) -> None:
    source = ["### One\n\n401: no.\n\n### Two\n\n500 and above.\n\n### Three\n\nIn 2026.\n"]

    conf.index_statuses(None, "page", source)

    assert re.findall(r"### (\w+)\n\n```{index} (.*)\n```", source[0]) == [
        ("One", "401"),
        ("Two", "500, 502, 503, 504"),
    ]


FOUND = {
    "401": "troubleshooting",
    "403": "troubleshooting",
    "404": "troubleshooting",
    "429": "troubleshooting",
    "503": "troubleshooting",
    "self-hosted": "self-hosted",
}


@pytest.mark.slow
@pytest.mark.skipif(NODE is None, reason="the search is JavaScript: needs node")
def test_the_site_speaks_each_pages_language_and_finds_what_users_look_for() -> None:
    site = ROOT / "build/site"
    index = site / "searchindex.js"
    sources = chain(ROOT.glob("*.md"), ROOT.glob("docs/**/*.*"), ROOT.glob("src/**/*.py"))
    changed = max(each.stat().st_mtime for each in sources)
    if not index.exists() or index.stat().st_mtime < changed:  # scripts/test did not just make it
        sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fresh-env", "docs", str(site)]
        subprocess.run(sphinx, cwd=ROOT, check=True, timeout=300)  # noqa: S603 -- our own
    search = [str(NODE), str(ROOT / "tests/helpers/search.js"), str(site), *FOUND]
    asked = subprocess.run(  # noqa: S603 -- as above
        search, capture_output=True, check=True, text=True, timeout=60
    )

    for written in [*site.glob("*.html"), *site.glob("es/*.html")]:
        word = "Search" if written.parent == site else "Búsqueda"
        assert f'placeholder="{word}"' in written.read_text(), written.name
    found = [json.loads(line) for line in asked.stdout.splitlines()]
    for (query, page), results in zip(FOUND.items(), found, strict=True):
        pages = list(dict.fromkeys(result.partition("#")[0] for result in results))
        assert page in pages[:2], f"{query} finds {pages}"


@pytest.mark.parametrize(
    "text",
    [
        (
            "Before.\n\n<!-- tabs -->\n**Flask**\n\n**one** `is`\n\n"
            "**Django**\n\ntwo\n\n<!-- /tabs -->\n"
        ),
        "Before.\n\n## Flask\n\n**one** `is`\n\n## Django\n\ntwo\n",
    ],
)
def test_variants_become_tabs_on_the_site(conf: ModuleType, text: str) -> None:
    source = [text + "\n## Next\n"]

    conf.make_tabs(None, "page", source)

    assert source[0].split() == [
        *("Before.", "::::{tab-set}"),
        *(":::{tab-item}", "Flask", ":sync:", "Flask", "**one**", "`is`", ":::"),
        *(":::{tab-item}", "Django", ":sync:", "Django", "two", ":::"),
        *("::::", "##", "Next"),
    ]


def test_the_navigation_of_spanish_pages_begins_with_them(conf: ModuleType) -> None:
    group = '<p class="caption"><span>{0}</span></p><ul><li><a>{0}</a></ul>'
    navigation = "<p>Search</p>" + group.format("How to") + group.format("Español")

    shown = conf.spanish_navigation(navigation)

    assert re.findall(r"<span>(.*?)</span>", shown) == ["Español", "Guías prácticas (en inglés)"]
    assert re.findall(r"<a>(.*?)</a>", shown) == ["Español", "How to"], "pages keep their titles"
    assert shown.startswith("<p>Search</p>")


def test_every_group_of_the_navigation_has_a_spanish_name(conf: ModuleType) -> None:
    captions = re.findall(r"^:caption: (.*)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)

    assert set(captions) == {*conf.CAPTIONS, "Español"}


def test_a_framework_that_stands_alone_keeps_its_heading(conf: ModuleType) -> None:
    source = ["## Django\n\none\n\n## Next\n"]

    conf.make_tabs(None, "page", source)

    assert source == ["## Django\n\none\n\n## Next\n"]
