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
from chatkit_sessions._async_client import AsyncKeySource
from chatkit_sessions._http import AsyncHTTPClient, SyncHTTPClient
from chatkit_sessions._sync_client import KeySource
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    CreateSessionOptions,
    EndpointSettings,
)
from chatkit_sessions.stores import AsyncSessionStore, MemorySessionStore, SessionStore

PACKAGE = Path(chatkit_sessions.__file__).parent

# Each module of the core may import those that stand before it.
LAYERS = [
    "_version", "_redaction", "models", "errors", "_deadline", "_per_process", "stores.base",
    "stores.memory", "_diagnosis", "_retry", "_config", "_operations", "_protocol", "_body",
    "_identity", "_rate_limit", "_registry", "_flights", "_connections", "_http", "_base",
    "_sync_registry", "_async_runtime", "_async_registry", "_sync_network", "_asyncio_network",
    "_trio_network", "_sync_transport", "_async_transport", "_sync_client", "_async_client",
    "__main__", "integrations._origins", "integrations._endpoint", "integrations._sync_endpoint",
    "integrations._async_endpoint",
]  # fmt: skip
# Each extra, and the module that alone may import it.
EXTRAS = {
    "stores.redis": {"redis"},
    "integrations.starlette": {"starlette"},
    "integrations.fastapi": {"fastapi"},
    "integrations.flask": {"flask"},
    "integrations.django": {"django"},
}
# What some modules need that no extra installs.
OTHERS = {"testing.pytest_plugin": {"pytest"}, "testing.httpx2_transport": {"httpx2"}}
MAY_IMPORT_HTTPX = {
    *("_connections", "_sync_transport", "_async_transport"),
    *("testing.transport", "testing.clients"),
}

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
    found: set[str] = set()
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if node.module:
                found.add(".".join([*base, node.module]))
            else:
                found |= {".".join([*base, alias.name]) for alias in node.names}
    return {module.removeprefix("chatkit_sessions.") for module in found}


def test_every_module_of_the_core_has_its_place() -> None:
    core = {name for name in modules() if "." not in name and name != "__init__"}

    core |= {name for name in modules() if name.startswith(("integrations._", "stores."))}
    assert core - {"integrations.__init__", "stores.__init__", *EXTRAS} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_imports_only_what_stands_below_it(name: str) -> None:
    imported = imports_of(name, modules()[name]) & set(LAYERS)

    assert imported <= set(LAYERS[: LAYERS.index(name)])


def test_a_store_knows_nothing_of_sessions() -> None:
    for name in ("stores.base", "stores.memory", "stores.redis"):
        imported = imports_of(name, modules()[name]) & set(LAYERS)

        tools = {"_async_runtime", "_config", "_per_process", "_redaction"}
        assert imported <= {"errors", "stores.base", *tools}, name


def test_the_two_clients_know_nothing_of_each_other() -> None:
    assert "_async_client" not in imports_of("_sync_client", modules()["_sync_client"])
    assert "_sync_client" not in imports_of("_async_client", modules()["_async_client"])


def test_only_the_edges_import_httpx() -> None:
    importers = {name for name, tree in modules().items() if "httpx" in imports_of(name, tree)}

    assert importers == MAY_IMPORT_HTTPX


def test_the_local_api_shares_no_code_with_the_client() -> None:
    """A fake that shares code with the client shares its mistakes."""
    for name, tree in modules().items():
        if name.startswith("testing"):
            assert not imports_of(name, tree) & set(LAYERS), name
            running = ast.Module([n for n in tree.body if isinstance(n, ast.ImportFrom)], [])
            of_the_library = "chatkit_sessions" in imports_of(name, running)
            assert of_the_library == (name == "testing.clients"), name


def test_nothing_but_httpx_and_pydantic_is_required() -> None:
    allowed = {"httpx", "httpcore", "pydantic", "typing_extensions", "trio"}
    standard = set(__import__("sys").stdlib_module_names)
    for name, tree in modules().items():
        tops = {module.split(".")[0] for module in imports_of(name, tree)}
        own = {"", "testing", "stores", *LAYERS, "chatkit_sessions"}
        own |= {"integrations"} | {module.split(".")[-1] for module in modules()}
        own -= {extra.split(".")[-1] for extra in EXTRAS}
        assert tops - standard - own <= allowed | {**EXTRAS, **OTHERS}.get(name, set()), name


def test_no_extra_is_imported_by_the_rest() -> None:
    for name, tree in modules().items():
        # FastAPI is built on Starlette, and so is its router here.
        rest = set(EXTRAS) - {"integrations.starlette" if name == "integrations.fastapi" else ""}
        assert not imports_of(name, tree) & rest, name


def test_nothing_but_the_integrations_knows_of_the_integrations() -> None:
    for name, tree in modules().items():
        if not name.startswith("integrations."):
            imported = imports_of(name, tree)
            assert not {each for each in imported if each.startswith("integrations")}, name


def test_trio_is_imported_only_inside_functions() -> None:
    for name, tree in modules().items():
        at_the_top = ast.Module([n for n in tree.body if isinstance(n, ast.Import)], [])
        assert "trio" not in imports_of(name, at_the_top), name


def test_all_lists_every_public_name_in_order() -> None:
    names = chatkit_sessions.__all__

    imported = {
        alias.name: node.module
        for node in ast.walk(modules()["__init__"])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(names) == set(imported)
    # What type checkers read and what is imported when a name is first used, say the same.
    homes = cast("dict[str, str]", vars(chatkit_sessions)["_HOMES"])
    assert imported == {**homes, "__version__": "_version"}
    assert len(set(names)) == len(names)
    constants = [name for name in names if name.isupper()]
    assert names == [*sorted(constants), *sorted(set(names) - set(constants))]


def test_names_and_submodules_are_there_without_further_imports() -> None:
    script = (
        "import chatkit_sessions as c; import sys; "
        "names = dir(c); "
        "modules = {'errors', 'integrations', 'models', 'stores', 'testing'}; "
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

    # Only closing differs: what other threads and what other event loops still do with the client.
    shared = slice(0, 3) if name == "close" else slice(None)
    assert theirs.splitlines()[shared] == ours.splitlines()[shared]


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

    hints = get_type_hints(ChatKitEndpoint.__init__)
    assert settings == {name: hints[name] for name in hints if name not in {"client", "return"}}


def test_the_options_of_a_request_are_those_of_the_clients() -> None:
    options = get_type_hints(CreateSessionOptions)

    hints = get_type_hints(ChatKitClient.create_session)
    assert options == {
        name: hints[name] for name in hints if name not in {"user", "timeout", "return"}
    }
