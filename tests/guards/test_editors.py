"""What editors without a type checker of their own show: Spyder, IPython and pylsp ask jedi."""

import importlib
from types import ModuleType
from typing import Any

import pytest

import chatkit_sessions
from chatkit_sessions import service, stores, testing

MODULES: list[ModuleType] = [chatkit_sessions, service, stores, testing]
VALUES = {"__version__", "NOT_GIVEN", "OnEvent"}
"""What nobody calls."""


JEDI: Any = importlib.import_module("jedi")  # it has no types


def script(*lines: str) -> Any:  # noqa: ANN401 -- as above
    return JEDI.Script("\n".join(lines), environment=JEDI.InterpreterEnvironment())


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_completed_and_has_a_definition_and_a_signature(
    module: ModuleType,
) -> None:
    names = sorted(module.__all__)
    import_line = f"import {module.__name__} as module"
    asked = script(import_line, *(f"module.{name}()" for name in names), "module.")

    assert set(names) <= {each.name for each in asked.complete(len(names) + 2, len("module."))}
    for line, name in enumerate(names, start=2):
        column = len(f"module.{name}")
        (definition,) = asked.goto(line, column, follow_imports=True)
        assert "chatkit_sessions" in str(definition.module_path), name
        assert (asked.get_signatures(line, column + 1) != []) is (name not in VALUES), name


def test_the_calls_of_a_client_are_completed_with_their_arguments() -> None:
    for client in ("ChatKitClient", "AsyncChatKitClient"):
        asked = script(
            f"from chatkit_sessions import {client}",
            f"chatkit = {client}()",
            "chatkit.create_session()",
            "chatkit.",
        )

        (signature,) = asked.get_signatures(3, len("chatkit.create_session("))
        calls = {"create_session", "refresh_session", "get_session", "delete_session"}
        assert calls <= {each.name for each in asked.complete(4, len("chatkit."))}
        assert [each.name for each in signature.params][:2] == ["user", "workflow_id"]
