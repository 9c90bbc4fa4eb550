"""What people debug with: each shows an exception with the variables of its frames."""

import importlib
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sentry_sdk.transport import Transport

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, Any]


def tool(name: str) -> Any:  # noqa: ANN401 -- some have types, and some have not
    return importlib.import_module(name)


def standard_library(exc: ExcInfo) -> str:
    return "".join(traceback.TracebackException(*exc, capture_locals=True).format())


def lexer(_filename: str, _code: str) -> str:
    return "text"


def rich_with_locals(exc: ExcInfo) -> str:
    text = io.StringIO()
    # The source in one color: to find the colors of whole modules takes most of the time.
    one_color = {"_guess_lexer": staticmethod(lexer)}
    kind: Any = type("Traceback", (tool("rich.traceback").Traceback,), one_color)
    shown = kind.from_exception(*exc, show_locals=True)
    tool("rich.console").Console(file=text, width=300).print(shown)
    return text.getvalue()


def structlog_dict_tracebacks(exc: ExcInfo) -> str:
    shown = tool("structlog").processors.dict_tracebacks(None, "error", {"exc_info": exc})
    return json.dumps(shown, default=str)


class Keep(Transport):
    """Sends nothing."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.events: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:  # noqa: ANN401 -- Sentry's
        self.events += [item.payload.get_bytes().decode() for item in envelope.items]


def sentry(exc: ExcInfo) -> str:
    sdk, utils = tool("sentry_sdk"), tool("sentry_sdk.utils")
    client = sdk.Client(
        "http://public@localhost/1",
        transport=Keep,
        default_integrations=False,
        max_value_length=100_000,
    )
    event, hint = utils.event_from_exception(exc, client_options=client.options)
    client.capture_event(event, hint, sdk.Scope())
    return "".join(client.transport.events)


def stackprinter_with_values(exc: ExcInfo) -> str:
    return str(tool("stackprinter").format(exc, show_vals="all", truncate_vals=100_000))


def cgitb_pages(exc: ExcInfo) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cgitb = tool("cgitb")

    return str(cgitb.text(exc) + cgitb.html(exc))


def ipython(exc: ExcInfo) -> str:
    return str(tool("IPython.core.ultratb").VerboseTB(include_vars=True).text(*exc))


def django_page(exc: ExcInfo) -> str:
    tool("endpoint_apps")  # configures Django
    return str(tool("django.views.debug").ExceptionReporter(None, *exc).get_traceback_html())


def werkzeug_page(exc: ExcInfo) -> str:
    """The page, and what its console shows of each variable."""
    debugger = tool("werkzeug.debug.tbtools").DebugTraceback(exc[1])
    page = debugger.render_debugger_html(evalex=True, secret="", evalex_trusted=True)
    shown = tool("werkzeug.debug.repr").debug_repr
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(exc[2])]
    return str(page) + "".join(shown(value) for each in frames for value in each.values())


TOOLS: Final[dict[str, Callable[[ExcInfo], str]]] = {
    "traceback": standard_library,
    "rich": rich_with_locals,
    "structlog": structlog_dict_tracebacks,
    "Sentry": sentry,
    "stackprinter": stackprinter_with_values,
    "IPython": ipython,
    "Django": django_page,
    "Werkzeug": werkzeug_page,
}
if sys.version_info < (3, 13):
    TOOLS["cgitb"] = cgitb_pages
