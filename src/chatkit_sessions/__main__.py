"""`chatkit-sessions`, or `python -m chatkit_sessions`: check settings, explain errors, serve."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from pydantic import SecretStr

from ._api.diagnosis import error_type_of
from ._client.sync_client import ChatKitClient
from ._config.settings import (
    DEFAULT_BASE_URL,
    KEY_VARIABLE,
    URL_VARIABLE,
    WORKFLOW_VARIABLE,
    describe_unread,
    require_workflow_id,
)
from ._redaction import redact, redact_url
from ._troubleshooting_page import PAGES, find_section, read, titles
from ._version import __version__
from .errors import ChatKitError
from .testing import FakeChatKit
from .testing.__main__ import Parser, main as serve, say

USER: Final = "chatkit-sessions-check"
"""Whose session is created; it is deleted at once."""

_WITHOUT: Final = {
    WORKFLOW_VARIABLE: "not set",
    URL_VARIABLE: f"not set, so {DEFAULT_BASE_URL}",
    "OPENAI_ORG_ID": "not set, so the key's own",
    "OPENAI_PROJECT_ID": "not set, so the key's own",
}
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_LENGTH_OF_A_KEY: Final = 20
"""Of a key of fewer characters, four would be too many to show."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line.

    Args:
        argv: The arguments, without the name of the command. Default: those of the process.

    Returns:
        The exit code: 0 if everything worked, 1 if something failed, 2 if nothing could be done.
    """
    arguments, others = _parser().parse_known_args(argv)
    if others and arguments.command != "serve":
        _parser().error(f"unrecognized arguments: {' '.join(others)}")
    reconfigure: object = getattr(sys.stdout, "reconfigure", None)
    if callable(reconfigure):
        reconfigure(errors="replace")  # not every terminal has check marks
    if arguments.command == "serve":
        return serve(others, prog="chatkit-sessions serve")
    if arguments.command == "explain":
        return explain(arguments.section, arguments.language or language_of(os.environ))
    if not arguments.local:
        say("Settings of this environment (exported variables; no .env file is read):")
        make_client = partial(ChatKitClient, allow_insecure_http=arguments.allow_insecure_http)
        return 0 if check(os.environ, make_client=make_client) else 1
    say("Settings of the local API:")
    with FakeChatKit().serve() as server:
        worked = check(
            server.environment,
            make_client=lambda: ChatKitClient(
                api_key=server.api_key, workflow_id=server.workflow_id, base_url=server.url
            ),
        )
    return 0 if worked else 1


def _parser() -> Parser:
    parser = Parser(prog="chatkit-sessions", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    check_command = commands.add_parser(
        "check", help="show what is configured, and try to create and delete a session"
    )
    check_command.add_argument(
        "--local", action="store_true", help="try it with the local API of this package"
    )
    check_command.add_argument(
        "--allow-insecure-http",
        action="store_true",
        help="allow plain http:// to another machine, in a network that you trust",
    )
    explain_command = commands.add_parser(
        "explain", help="print what Troubleshooting says about an error"
    )
    explain_command.add_argument(
        "section",
        nargs="?",
        help="an error's class, such as AuthenticationError, a status, such as 401, or a code, "
        "such as client_secret_unknown; without it, the sections are listed",
    )
    explain_command.add_argument(
        "--language", choices=sorted(PAGES), help="default: the language of this environment"
    )
    commands.add_parser("serve", add_help=False, help="serve the local API: serve --help")
    return parser


def explain(section: str | None, language: str) -> int:
    """Print a section of the troubleshooting page, or the titles of all sections.

    Args:
        section: Its title, in upper or lower case; an error's class with its module; a status; or a
            code that the page mentions.
        language: `en` or `es`.

    Returns:
        The exit code: 0, or 2 if there is no such section.
    """
    page = read(language)
    if section is None:
        say(*titles(page))
        return 0
    if re.fullmatch(r"[3-5]\d\d", section):
        section = error_type_of(int(section)).__name__
    text = find_section(page, section.removeprefix("chatkit_sessions.").removeprefix("errors."))
    if text is None:
        listed = [f"  {title}" for title in titles(page)]
        say(f"No section {section!a}. There are:", *listed, stream=sys.stderr)
        return 2
    say(text)
    return 0


def language_of(environment: Mapping[str, str]) -> str:
    """`es` if the environment's locale is Spanish, else `en`."""
    names = (environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "es" if next(filter(None, names), "").startswith("es") else "en"


def check(environment: Mapping[str, str], *, make_client: Callable[[], ChatKitClient]) -> bool:
    """Show what is configured, create a session and delete it, and print how each of these went.

    Args:
        environment: The variables to show.
        make_client: Makes the client that is tried.

    Returns:
        Whether everything worked.
    """
    for line in settings(environment):
        say(f"  {line}")
    step = "The settings can be used"
    try:
        with make_client() as chatkit:
            # A setting, although only the first call needs it.
            require_workflow_id(environment.get(WORKFLOW_VARIABLE) or None)
            say(f"✓ {step}.")
            step = "A session can be created"
            session = chatkit.create_session(USER)
            say(f"✓ {step}.")
            step = "It can be deleted"
            chatkit.delete_session(session.id)
            say(f"✓ {step}.")
    except ChatKitError as error:
        reasons = [f"    {line}" for line in str(error).splitlines()]
        say(f"✗ {step.replace(' can ', ' cannot ')}.", *reasons)
        return False
    return True


def settings(environment: Mapping[str, str]) -> list[str]:
    """What the environment says, a line for each variable.

    Of the key only its length and its last four characters are shown, of a URL neither credentials
    nor a query. Variables of proxies and certificates are listed where they are set.
    """
    key = environment.get(KEY_VARIABLE) or ""
    described = _describe_key(key) if key else f"not set{_unread(KEY_VARIABLE, environment)}"
    lines = [f"{KEY_VARIABLE}: {described}"]
    for name, without in _WITHOUT.items():
        value = environment.get(name)
        shown = _shown(value, key) if value else f"{without}{_unread(name, environment)}"
        lines.append(f"{name}: {shown}")
        is_of_openai = not environment.get(URL_VARIABLE)
        if name == WORKFLOW_VARIABLE and value and not value.startswith("wf_") and is_of_openai:
            lines[-1] += f" (OpenAI's begin with wf_; for your own server, set {URL_VARIABLE})"
    # Where both spellings are set, Python reads the lower one.
    proxies = [each if each in environment else each.upper() for each in _PROXIES]
    found = [(name, environment.get(name)) for name in (*proxies, *_CERTIFICATES)]
    return lines + [f"{name}: {_shown(value, key)}" for name, value in found if value]


def _unread(variable: str, environment: Mapping[str, str]) -> str:
    named_otherwise = variable in {KEY_VARIABLE, WORKFLOW_VARIABLE, URL_VARIABLE}
    return describe_unread(variable, environment.get) if named_otherwise else ""


def _describe_key(key: str) -> str:
    begins = "sk-…" if key.startswith("sk-") else "does not begin with sk-; …"
    ends = key.strip()[-4:] if len(key) >= _LENGTH_OF_A_KEY else ""
    return f"{begins}{ascii(ends)[1:-1]} ({len(key)} characters)"


def _shown(value: str, key: str) -> str:
    return repr(redact(redact_url(value), [SecretStr(key)]))


if __name__ == "__main__":
    sys.exit(main())
