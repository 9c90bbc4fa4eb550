"""What the documentation says of faults and versions, and how it is read."""

import importlib.util
import re
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def test_what_the_page_says_of_faults_is_what_was_measured() -> None:
    page = " ".join((ROOT / "docs/why.md").read_text().split())
    faults = (ROOT / "docs/faults.md").read_text()
    ours, total = re.findall(r"^- this library, sync: (\d+) of (\d+)$", faults, re.MULTILINE)[0]
    theirs = re.findall(r"^- official SDK, sync: (\d+) of", faults, re.MULTILINE)[0]
    rows = [row.rsplit("|", 2)[1].strip() for row in re.findall(r"^\| .*$", faults, re.MULTILINE)]
    endless = [cell for cell in rows if cell.startswith("✗ no end in 10 s")]
    flaw = r"✗ (a |None |returned, |\w+Error, )"
    unusable = re.findall(rf"^\| 20[04] .*\| {flaw}", faults, re.MULTILINE)

    assert f"Of [{total} network faults](faults.md), {ours} end as they should" in page
    assert f"and {theirs} with the SDK" in page
    assert f"{len(endless)} responses that are slow or huge" in page
    assert f"{len(unusable)} success responses that are no session" in page


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


def test_a_framework_that_stands_alone_keeps_its_heading(conf: ModuleType) -> None:
    source = ["## Django\n\none\n\n## Next\n"]

    conf.make_tabs(None, "page", source)

    assert source == ["## Django\n\none\n\n## Next\n"]
