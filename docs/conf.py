"""How Sphinx makes the site: `sphinx-build -W docs build/site`, which `scripts/test` runs."""

import ast
import gettext
import inspect
import re
from pathlib import Path
from typing import Any

# Before autodoc, which sets TYPE_CHECKING while it imports.
import fastapi  # noqa: F401  # pyright: ignore[reportUnusedImport] -- see above
import sphinx
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

from chatkit_sessions import __version__
from chatkit_sessions.testing import fake_api, server, wire

project = "chatkit_sessions"
author = "The chatkit-sessions contributors"
project_copyright = "2026, the chatkit-sessions contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["inventories"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "  # where a block has prompts, only their lines are copied

html_theme = "furo"
html_title = f"chatkit_sessions {release}"
html_copy_source = False

# Every reference leads somewhere. What other packages document is listed in inventories/, so that
# nothing is fetched; what has no page of its own to link to is named here.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(httpx|httpx2|pytest|redis|starlette|fastapi|litestar|flask|django)\..*"),
    ("py:.*", r"chatkit_sessions\.(.*\.)?_.*"),
    ("py:class", r"(chatkit_sessions\.service\.django\.)?[PR]"),  # of a decorator's view
]
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.txt"),
    "pydantic": ("https://docs.pydantic.dev/latest", "inventories/pydantic.txt"),
}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# Any: GoogleDocstring is typed for Sphinx's Config, and napoleon's own is what it is used with
# where, as here, the extension is not loaded.
_GOOGLE: Any = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)


def read_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn `code` into reStructuredText's, and sections such as Args into fields."""
    text = re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", "\n".join(lines))
    if what not in {"attribute", "data", "property"}:  # a colon there would make a type
        text = str(GoogleDocstring(text, _GOOGLE, obj=obj))
    lines[:] = text.split("\n")


def read_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Leave out the fields of models, which the library makes, and defaults that are no Python."""
    if what == "class" and isinstance(obj, type) and issubclass(obj, BaseModel):
        return "", None
    return (re.sub(r"<[\w -]+>", "...", signature), returns) if signature else None


FRAMEWORKS = re.compile(
    r"(?:^## (?:FastAPI|Starlette|Litestar|Flask|Django)\n(?:(?!## ).*\n)*){2,}", re.MULTILINE
)


def make_tabs(app: Sphinx, page: str, source: list[str]) -> None:
    """Make tabs of sections named after frameworks, and of **labelled** parts.

    The latter stand between `<!-- tabs -->` and `<!-- /tabs -->`. Read elsewhere, as on GitHub, the
    page shows both one below the other.
    """
    source[0] = FRAMEWORKS.sub(
        lambda sections: tab_set(sections[0], r"^## (.+)$") + "\n\n", source[0]
    )
    source[0] = re.sub(
        r"^<!-- tabs -->\n(.*?)^<!-- /tabs -->$",
        lambda tabs: tab_set(tabs[1], r"^\*\*([^*\n]+)\*\*$"),
        source[0],
        flags=re.DOTALL | re.MULTILINE,
    )


STATUS = re.compile(r"^(#+ .*\n\n)(?=(?:\w+ )?([345]\d\d)\b)", re.MULTILINE)
SERVER_ERRORS = ("500", "502", "503", "504")


def index_statuses(app: Sphinx, page: str, source: list[str]) -> None:
    """Let the search find a section by the HTTP status that it begins with.

    The search ignores numbers, except those in the index.
    """
    source[0] = STATUS.sub(index_status, source[0])


def index_status(section: re.Match[str]) -> str:
    """Write the heading with its status in the index; 500 stands for the others of a server."""
    statuses = SERVER_ERRORS if section[2] == "500" else (section[2],)
    return f"{section[1]}```{{index}} {', '.join(statuses)}\n```\n\n"


def tab_set(text: str, label: str) -> str:
    """Write labelled parts as MyST's directives; the same label is chosen on all pages at once."""
    _, *parts = re.split(label, text, flags=re.MULTILINE)
    items = (
        f":::{{tab-item}} {name}\n:sync: {name}\n{part}:::\n"
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    )
    return "::::{tab-set}\n\n" + "\n".join(items) + "::::"


def import_for_annotations() -> None:
    """Import what the test kit's modules import for type checkers alone."""
    for module in (fake_api, server, wire):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                code = compile(ast.Module(node.body, type_ignores=[]), str(module.__file__), "exec")
                exec(code, vars(module))  # noqa: S102 -- it is this project's own


CAPTIONS = {
    "Start": "Para empezar (en inglés)",
    "How to": "Guías prácticas (en inglés)",
    "Production": "Producción (en inglés)",
    "Reference": "Referencia (en inglés)",
}


def speak_spanish(
    app: Sphinx, page: str, template: str, context: dict[str, object], doctree: object
) -> None:
    """Build a page of `es/` with its language, and its own pages first in the navigation."""
    is_spanish = page.startswith("es/")
    language = "es" if is_spanish else "en"
    # Not sphinx.locale.init, which keeps the first language that it finds.
    translations = gettext.translation(
        "sphinx", Path(sphinx.__file__).with_name("locale"), [language], fallback=True
    )
    app.builder.templates.environment.install_gettext_translations(translations)  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType] -- jinja2.ext.i18n adds it
    if is_spanish:
        context["language"] = language
        navigation = str(context["furo_navigation_tree"])
        context["furo_navigation_tree"] = spanish_navigation(navigation)


def spanish_navigation(navigation: str) -> str:
    """The navigation's groups, that of the Spanish pages first, with Spanish captions."""
    before, *groups = re.split(r'(?=<p class="caption")', navigation)
    groups.sort(key=lambda group: ">Español<" not in group)
    for english, spanish in CAPTIONS.items():
        groups = [group.replace(f">{english}<", f">{spanish}<", 1) for group in groups]
    return before + "".join(groups)


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    import_for_annotations()
    app.connect("source-read", make_tabs)
    app.connect("source-read", index_statuses)
    app.connect("html-page-context", speak_spanish, priority=900)  # after the theme's own
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
