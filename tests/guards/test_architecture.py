"""What keeps the source in order: equal clients, who may import whom, one list of public names."""

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import cast, get_args, get_type_hints

import pytest

import chatkit_sessions
from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions._client.async_client import AsyncKeySource
from chatkit_sessions._client.sync_client import KeySource
from chatkit_sessions._http.clients import AsyncHTTPClient, SyncHTTPClient
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    CreateSessionOptions,
    EndpointSettings,
)
from chatkit_sessions.integrations._endpoint import EndpointFlow
from chatkit_sessions.service import AsyncSessionsService, SessionsService
from chatkit_sessions.stores import AsyncSessionStore, MemorySessionStore, SessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore
from chatkit_sessions.testing import FakeChatKit

OWN = "chatkit_sessions."
PACKAGE = Path(chatkit_sessions.__file__).parent

# Who may import whom: each room those that stand before it, rooms of one line not each other.
ROOMS = [
    {"_version", "_redaction", "_troubleshooting_page", "options"},
    {"models"},
    {"errors"},
    {"events"},
    {"_config"},
    {"_concurrency"},
    {"_api", "stores"},
    {"_http", "_sessions"},
    {"_client"},
    {"integrations", "__main__"},
]
EVERY_ROOM = set[str]().union(*ROOMS)
# The other side of the wire, which shares with the client only what neither of them is about.
SERVER_ROOMS = {"service", "testing"}
SERVICE_MAY_IMPORT = {
    *("service", "errors", "events", "_redaction", "_concurrency", "_config", "stores"),
}
SERVICE_SHARES = {"_sessions.store_access", "_sessions.rate_limit"}
# Each extra, with what it brings along, and the module that alone may import it.
EXTRAS = {
    "stores.redis": {"redis"},
    "stores._redis_senders": {"redis"},
    "integrations.starlette": {"starlette"},
    "integrations.fastapi": {"fastapi", "starlette"},
    "integrations.litestar": {"litestar"},
    "integrations.flask": {"flask", "werkzeug", "itsdangerous"},
    "integrations.django": {"django", "asgiref"},
    "service.starlette": {"starlette"},
    "service.flask": {"flask", "werkzeug"},
    "service.django": {"django", "asgiref"},
}
# What some modules need that no extra installs.
OTHERS = {
    "integrations._asgi": {"itsdangerous"},
    "testing.pytest_plugin": {"pytest"},
    "testing.httpx2_transport": {"httpx2"},
}
MAY_IMPORT_HTTPX = {"_http", "service", "testing"}

ASYNC_NAMES = {
    "close": "aclose",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
}


@cache
def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
    }


def imports_of(name: str, tree: ast.Module) -> set[str]:
    """Absolute names of what a module imports; modules of this package without its name."""
    return {each.removeprefix(OWN) for each in absolute_imports_of(name, tree)}


def own_imports_of(name: str, tree: ast.Module) -> set[str]:
    """Those of this package, "" for the package itself."""
    every = absolute_imports_of(name, tree)
    return {
        each.removeprefix(OWN).removeprefix("chatkit_sessions")
        for each in every
        if each == "chatkit_sessions" or each.startswith(OWN)
    }


def absolute_imports_of(name: str, tree: ast.Module) -> set[str]:
    found: set[str] = set()
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            own = ["chatkit_sessions", *package[: len(package) - node.level + 1]]
            base = own if node.level else []
            if node.module:
                found.add(".".join([*base, node.module]))
            else:
                found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def room_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_has_its_room() -> None:
    assert {room_of(name) for name in modules()} == EVERY_ROOM | SERVER_ROOMS | {"__init__"}


@pytest.mark.parametrize("name", sorted(n for n in modules() if room_of(n) in EVERY_ROOM))
def test_a_module_imports_only_what_stands_below_its_room(name: str) -> None:
    room = room_of(name)
    line = next(i for i, rooms in enumerate(ROOMS) if room in rooms)
    below = {"", room}.union(*ROOMS[:line])
    below |= {"testing"} if room == "__main__" else set()  # the local API, for `check --local`

    assert {room_of(each) for each in own_imports_of(name, modules()[name])} <= below


def test_a_store_knows_nothing_of_sessions() -> None:
    for name, tree in modules().items():
        if room_of(name) == "stores":
            rooms = {room_of(each) for each in own_imports_of(name, tree)}
            assert rooms <= {"_redaction", "errors", "_config", "_concurrency", "stores"}, name


def test_the_two_clients_know_nothing_of_each_other() -> None:
    for one, other in (("sync", "async"), ("async", "sync")):
        name = f"_client.{one}_client"
        assert f"_client.{other}_client" not in imports_of(name, modules()[name])


def test_only_the_edges_import_httpx() -> None:
    importers = {name for name, tree in modules().items() if "httpx" in imports_of(name, tree)}

    assert {room_of(name) for name in importers} == MAY_IMPORT_HTTPX


def test_the_local_api_shares_no_code_with_the_client() -> None:
    """A fake that shares code with the client shares its mistakes."""
    for name, tree in modules().items():
        if room_of(name) == "testing":
            rooms = {room_of(each) for each in own_imports_of(name, tree)}
            assert rooms <= {"", "_concurrency", "service", "stores", "testing"}, name
            assert not imports_the_library_itself(tree), name


def test_the_service_shares_no_code_with_the_client() -> None:
    for name, tree in modules().items():
        if room_of(name) == "service":
            imported = own_imports_of(name, tree) - {"", *SERVICE_SHARES}
            assert {room_of(each) for each in imported} <= SERVICE_MAY_IMPORT, name
            assert imports_the_library_itself(tree) == (name == "service._in_process"), name


def imports_the_library_itself(tree: ast.Module) -> bool:
    """Whether a module needs the clients when it is imported."""
    running = ast.Module([node for node in tree.body if isinstance(node, ast.ImportFrom)], [])
    return "" in own_imports_of("", running)


def test_nothing_but_httpx_its_parts_and_pydantic_is_required() -> None:
    allowed = {"httpx", "httpcore", "h11", "certifi", "pydantic", "pydantic_core", "trio"} | {
        "typing_extensions"
    }
    standard = set(sys.stdlib_module_names)
    for name, tree in modules().items():
        tops = {room_of(each) for each in absolute_imports_of(name, tree)}
        extra = {**EXTRAS, **OTHERS}.get(name, set())
        assert tops - standard <= {"chatkit_sessions"} | allowed | extra, name


def test_no_extra_is_imported_by_the_rest() -> None:
    # FastAPI is built on Starlette, and so is its router here.
    parts = {
        "integrations.fastapi": {"integrations.starlette"},
        "service.fastapi": {"service.starlette"},
        "stores.redis": {"stores._redis_senders"},
    }
    for name, tree in modules().items():
        rest = set(EXTRAS) - parts.get(name, set())
        assert not imports_of(name, tree) & rest, name


def test_nothing_but_the_integrations_knows_of_the_integrations() -> None:
    for name, tree in modules().items():
        if not name.startswith("integrations."):
            imported = imports_of(name, tree)
            assert not {each for each in imported if each.startswith("integrations")}, name


def test_nothing_holds_a_lock_over_a_fork_as_cached_property_does_on_python_3_11() -> None:
    for name, tree in modules().items():
        names = {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}
        names |= {
            alias.name
            for each in ast.walk(tree)
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        assert "cached_property" not in names, name


def test_trio_is_imported_only_inside_functions() -> None:
    for name, tree in modules().items():
        at_the_top = ast.Module([n for n in tree.body if isinstance(n, ast.Import)], [])
        assert "trio" not in imports_of(name, at_the_top), name


def test_what_type_checkers_read_and_what_is_imported_when_first_used_are_the_same() -> None:
    imported = {
        str(alias.asname): node.module
        for node in ast.walk(modules()["__init__"])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    table = cast("dict[str, str]", vars(chatkit_sessions)["_MODULE_OF"])
    assert imported == {**table, "__version__": "_version"}
    assert chatkit_sessions.__all__ == sorted(imported)


def test_names_and_submodules_are_there_without_further_imports() -> None:
    script = (
        "import chatkit_sessions as c; import sys; "
        "names = dir(c); "
        "modules = {'errors', 'integrations', 'models', 'options', 'service', 'stores', "
        "'testing'}; "
        "assert {*c.__all__, *modules} <= set(names); "
        "assert c.errors.ChatKitError is c.ChatKitError; "
        "from chatkit_sessions import *; assert RetryPolicy is c.RetryPolicy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)  # noqa: S603 -- our own

    assert set(chatkit_sessions.__all__) <= set(dir(chatkit_sessions))
    found: object = vars(chatkit_sessions)["__getattr__"]("models")
    assert found is sys.modules["chatkit_sessions.models"]


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    name = "Nonsense"

    with pytest.raises(AttributeError, match="'chatkit_sessions' has no attribute 'Nonsense'"):
        getattr(chatkit_sessions, name)


def public_methods(client: type) -> list[str]:
    return [
        name
        for name, _ in inspect.getmembers(client, inspect.isfunction)
        if name in {"__init__", *ASYNC_NAMES, *ASYNC_NAMES.values()} or not name.startswith("_")
    ]


def as_sync(text: str) -> str:
    """An annotation of the async client, in the words of the sync one."""
    plain = text.replace(str(AsyncKeySource), str(KeySource))
    return plain.replace(AsyncHTTPClient.__qualname__, SyncHTTPClient.__qualname__)


def test_both_clients_have_the_same_public_methods() -> None:
    renamed = sorted(ASYNC_NAMES.get(name, name) for name in public_methods(ChatKitClient))

    assert renamed == sorted(public_methods(AsyncChatKitClient))


@pytest.mark.parametrize("name", public_methods(ChatKitClient))
def test_both_clients_have_the_same_signatures(name: str) -> None:
    ours = getattr(ChatKitClient, name)
    theirs = getattr(AsyncChatKitClient, ASYNC_NAMES.get(name, name))

    ours_signature, theirs_signature = inspect.signature(ours), inspect.signature(theirs)
    assert [(p.name, p.kind, p.default) for p in ours_signature.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs_signature.parameters.values()
    ]
    ours_types, theirs_types = get_type_hints(ours), get_type_hints(theirs)
    assert list(ours_types) == list(theirs_types)
    for parameter, ours_type in ours_types.items():
        if parameter == "api_key":
            assert KeySource in get_args(ours_type)
            assert AsyncKeySource in get_args(theirs_types[parameter])
            continue
        if parameter == "store":
            # The async client takes a store in memory, too, which never waits.
            assert set(get_args(ours_type)) - {SessionStore} == set(
                get_args(theirs_types[parameter])
            ) - {AsyncSessionStore, MemorySessionStore}
            continue
        assert str(ours_type) == as_sync(str(theirs_types[parameter])), parameter


@pytest.mark.parametrize("name", public_methods(ChatKitClient))
def test_both_clients_document_the_same(name: str) -> None:
    ours = inspect.getdoc(getattr(ChatKitClient, name)) or ""
    theirs = inspect.getdoc(getattr(AsyncChatKitClient, ASYNC_NAMES.get(name, name))) or ""

    # Only the end of closing differs: what calls in progress still do.
    shared = slice(0, 5) if name == "close" else slice(None)
    assert theirs.splitlines()[shared] == ours.splitlines()[shared]


PAIRS: list[tuple[type, type]] = [
    (SessionsService, AsyncSessionsService),
    (SessionStore, AsyncSessionStore),
    (RedisSessionStore, AsyncRedisSessionStore),
]
# In async code, `count` and `read` may be coroutine functions; `aclose` is for one event loop.
DIFFERENT = {"close", "handle", "verify"}


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        (ours, theirs, name)
        for ours, theirs in PAIRS
        for name in public_methods(ours)
        if name[0] != "_" and name not in DIFFERENT
    ],
)
def test_async_services_and_stores_document_the_same(ours: type, theirs: type, name: str) -> None:
    document = inspect.getdoc(getattr(ours, name)) or ""

    as_async = document.replace("`ChatKitClient`", "`AsyncChatKitClient`")
    assert inspect.getdoc(getattr(theirs, name)) == as_async


@pytest.mark.parametrize(
    "documented",
    [ChatKitClient, AsyncChatKitClient, FakeChatKit, *(each for pair in PAIRS for each in pair)],
)
def test_no_public_document_sends_its_reader_to_another_class(documented: type) -> None:
    """Editors show one docstring, and lead nowhere."""
    methods = [getattr(documented, name) for name in vars(documented) if not name.startswith("_")]

    for each in (documented, *methods):
        assert not re.search(r"\bAs (for )?`", inspect.getdoc(each) or ""), each


@pytest.mark.parametrize("name", chatkit_sessions.__all__)
def test_every_public_class_and_function_has_a_docstring(name: str) -> None:
    member = getattr(chatkit_sessions, name)
    if inspect.isclass(member) or inspect.isfunction(member):
        assert (inspect.getdoc(member) or "").strip()


@pytest.mark.parametrize("client", [ChatKitClient, AsyncChatKitClient])
@pytest.mark.parametrize(
    "name",
    [name for name in public_methods(ChatKitClient) if "session" in name or name == "__init__"],
)
def test_every_argument_is_documented(client: type, name: str) -> None:
    method = getattr(client, name)
    text = inspect.getdoc(client if name == "__init__" else method) or ""
    documented = set(re.findall(r"^    (\w+): ", text, re.MULTILINE))

    assert set(inspect.signature(method).parameters) - {"self"} <= documented


def test_both_endpoints_have_the_same_signatures_and_documents() -> None:
    ours, theirs = ChatKitEndpoint, AsyncChatKitEndpoint

    for name in ("__init__", "handle"):
        signatures = [inspect.signature(getattr(each, name)) for each in (ours, theirs)]
        first, second = [list(each.parameters.values()) for each in signatures]
        assert [(each.name, each.kind, each.default) for each in first] == [
            (each.name, each.kind, each.default) for each in second
        ]
        hints = [get_type_hints(getattr(each, name)) for each in (ours, theirs)]
        assert {**hints[0], "client": AsyncChatKitClient} == {
            **hints[1],
            "client": AsyncChatKitClient,
        }
    assert inspect.getdoc(ours.handle) == inspect.getdoc(theirs.handle)
    document = (inspect.getdoc(theirs) or "").replace("any asynchronous", "any synchronous")
    assert document == inspect.getdoc(ours)


def test_the_settings_of_the_endpoints_are_those_of_the_frameworks_functions() -> None:
    settings = get_type_hints(EndpointSettings)

    hints = get_type_hints(EndpointFlow.__init__)
    others = {"client", "expected", "unknown", "return"}
    assert settings == {name: hints[name] for name in hints if name not in others}


def test_the_options_of_a_request_are_those_of_the_clients() -> None:
    options = get_type_hints(CreateSessionOptions)

    hints = get_type_hints(ChatKitClient.create_session)
    assert options == {
        name: hints[name] for name in hints if name not in {"user", "timeout", "return"}
    }
