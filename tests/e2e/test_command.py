"""`chatkit-sessions`, or `python -m chatkit_sessions`: check, explain, serve."""

import contextlib
import importlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import respx

import chatkit_sessions
from chatkit_sessions import ChatKitClient, __version__
from chatkit_sessions.__main__ import check, language_of, main, settings
from chatkit_sessions.testing import FakeChatKit, FakeServer, __main__ as serving

ROOT = Path(__file__).parents[2]
KEY = "sk-proj-0123456789abcdefKEY"


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit(api_key=KEY)


@pytest.fixture
def _environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_environment")
def test_a_session_is_created_and_deleted(
    fake: FakeChatKit, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "Settings of this environment (exported variables; no .env file is read):",
        "  OPENAI_API_KEY: sk-…fKEY (27 characters)",
        "  OPENAI_CHATKIT_WORKFLOW_ID: 'wf_test'",
        f"  OPENAI_BASE_URL: '{server.url}'",
        "  OPENAI_ORG_ID: not set, so the key's own",
        "  OPENAI_PROJECT_ID: not set, so the key's own",
        "✓ The settings can be used.",
        "✓ A session can be created.",
        "✓ It can be deleted.",
    ]
    fake.assert_created(user="chatkit-sessions-check", times=1)
    fake.assert_deleted(times=1)


def test_settings_that_are_missing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 1

    told = capsys.readouterr().out.splitlines()[-3:]
    assert told[:2] == [
        "✗ The settings cannot be used.",
        "    No API key: set OPENAI_API_KEY or pass `api_key`.",
    ]
    assert told[2].startswith("    Hint: Create one at https://platform.openai.com/api-keys in ")
    assert told[2].endswith(" (python -m chatkit_sessions explain ConfigurationError)")


@pytest.mark.usefixtures("_environment")
def test_a_workflow_id_that_is_missing_is_a_setting_that_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fake: FakeChatKit
) -> None:
    monkeypatch.delenv("OPENAI_CHATKIT_WORKFLOW_ID")

    assert main(["check"]) == 1

    assert "\n✗ The settings cannot be used.\n    No workflow id: " in capsys.readouterr().out
    assert not fake.requests


@respx.mock
@pytest.mark.usefixtures("_environment")
def test_plain_http_to_another_machine_has_to_be_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://chatkit.test/v1")
    create = respx.post("http://chatkit.test/v1/chatkit/sessions").respond(401)

    assert main(["check"]) == 1
    assert "✗ The settings cannot be used.\n" in capsys.readouterr().out
    assert not create.called

    assert main(["check", "--allow-insecure-http"]) == 1
    assert "✗ A session cannot be created.\n    401: " in capsys.readouterr().out
    assert create.called


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.usefixtures("_environment")
def test_a_trouble_is_told_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_typo")

    assert main(["check"]) == 1

    shown = capsys.readouterr().out
    assert "✓ The settings can be used.\n✗ A session cannot be created.\n    404: " in shown
    assert "\n    Hint: " in shown


def test_the_end_of_hosted_workflows_is_told(
    capsys: pytest.CaptureFixture[str], respx_mock: respx.MockRouter
) -> None:
    respx_mock.post("https://api.openai.com/v1/chatkit/sessions").respond(404)

    worked = check(
        {"OPENAI_CHATKIT_WORKFLOW_ID": "wf_hosted"},
        make_client=lambda: ChatKitClient(api_key="sk-test-0123456789", workflow_id="wf_hosted"),
    )

    assert not worked
    assert "ended on 2026-11-30" in capsys.readouterr().out


@pytest.mark.usefixtures("_environment")
def test_a_session_that_cannot_be_deleted_is_told(
    fake: FakeChatKit, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fail_next(403, operation="cancel")

    assert main(["check"]) == 1

    assert "✓ A session can be created.\n✗ It cannot be deleted.\n" in capsys.readouterr().out


def test_the_local_api_needs_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chatkit_sessions", "check", "--local"],
        capture_output=True,
        check=False,
        timeout=60,
        env={"PYTHONIOENCODING": "ascii"},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n? ") == 3, "a terminal without check marks"


def test_what_is_printed_may_go_anywhere() -> None:
    shown = io.StringIO()

    with contextlib.redirect_stdout(shown):
        assert main(["check", "--local"]) == 0

    assert shown.getvalue().endswith("✓ It can be deleted.\n")


def test_the_local_api_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--local"]) == 0

    assert capsys.readouterr().out.count("✓") == 3


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@gateway.test/v1",
        "https://me:hunter2/@gateway.test/v1",
        "https:/me:hunter2@gateway.test/v1",
        "me:hunter2@gateway.test/v1",
        "https://gateway.test/v1?api-key=hunter2",
        "https://gateway.test/v1#hunter2\nhunter2",
        "https://me:hunter2#@gateway.test/v1",
        "https://me:a?hunter2@b@gateway.test/v1?hunter2",
        "me:hunter2//@gateway.test/v1",
    ],
)
@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "HTTPS_PROXY", "all_proxy"])
def test_what_a_url_should_not_hold_is_not_shown(url: str, variable: str) -> None:
    shown = "\n".join(settings({variable: url}))

    assert "gateway.test/v1" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("key", [KEY, KEY.removeprefix("sk-"), f"{KEY}\n", "ek_0123456789abcdef"])
def test_no_secret_is_shown(key: str) -> None:
    shown = "\n".join(
        settings({"OPENAI_API_KEY": key, "OPENAI_ORG_ID": key, "OPENAI_BASE_URL": "https://x.test"})
    )

    assert key[-12:] not in shown or not key.startswith(("sk-", "ek_"))
    assert key not in shown.splitlines()[0]


def test_a_key_without_its_usual_beginning_is_not_shown_where_it_does_not_belong() -> None:
    key = "gateway-key-0123456789"

    assert key not in "".join(settings({"OPENAI_API_KEY": key, "OPENAI_PROJECT_ID": key}))


def test_of_a_key_the_last_four_characters_are_shown_if_it_is_long_enough() -> None:
    def shown(key: str) -> str:
        return settings({"OPENAI_API_KEY": key})[0].removeprefix("OPENAI_API_KEY: ")

    assert shown(KEY) == "sk-…fKEY (27 characters)"
    assert shown("gateway-key-0123456789") == "does not begin with sk-; …6789 (22 characters)"
    assert shown("sk-0123456789") == "sk-… (13 characters)"
    assert shown(f"{KEY[:-1]}\N{GREEK SMALL LETTER ALPHA}\n") == r"sk-…fKE\u03b1 (28 characters)"


def test_a_workflow_id_of_another_kind_is_doubted() -> None:
    doubt = "(OpenAI's begin with wf_; for your own server, set OPENAI_BASE_URL)"

    assert settings({"OPENAI_CHATKIT_WORKFLOW_ID": "asst_1"})[1].endswith(f"'asst_1' {doubt}")
    assert doubt not in settings({"OPENAI_CHATKIT_WORKFLOW_ID": "wf_1"})[1]
    assert doubt not in settings({})[1]
    own = {"OPENAI_CHATKIT_WORKFLOW_ID": "support", "OPENAI_BASE_URL": "https://shop.test/v1"}
    assert settings(own)[1] == "OPENAI_CHATKIT_WORKFLOW_ID: 'support'"


def test_variables_of_proxies_and_certificates_are_listed_where_they_have_an_effect() -> None:
    environment = {
        "HTTP_PROXY": "http://upper.test:1",
        "http_proxy": "http://lower.test:2",
        "HTTPS_PROXY": "http://switched-off.test:3",
        "https_proxy": "",
        "ALL_PROXY": "socks5://me:hunter2@all.test:4",
        "no_proxy": "localhost",
        "SSL_CERT_FILE": "/certificates.pem",
        "SSL_CERT_DIR": "",
    }

    assert settings(environment)[5:] == [
        "http_proxy: 'http://lower.test:2'",
        "ALL_PROXY: 'socks5://**********@all.test:4'",
        "no_proxy: 'localhost'",
        "SSL_CERT_FILE: '/certificates.pem'",
    ]


def test_what_is_set_under_another_projects_name_is_mentioned() -> None:
    shown = settings(
        {"OPENAI_KEY": KEY, "WORKFLOW_ID": "wf_1", "OPENAI_API_BASE": "https://x.test"}
    )

    assert shown[0] == "OPENAI_API_KEY: not set (OPENAI_KEY is set, but not read)"
    assert shown[1] == "OPENAI_CHATKIT_WORKFLOW_ID: not set (WORKFLOW_ID is set, but not read)"
    assert shown[2].endswith("https://api.openai.com/v1 (OPENAI_API_BASE is set, but not read)")


@respx.mock
def test_a_rejected_key_may_be_another_servers_whose_url_has_another_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_1")
    monkeypatch.setenv("OPENAI_API_BASE", "https://gateway.test/v1")
    error = {"message": "No.", "type": "invalid_request_error", "code": "invalid_api_key"}
    respx.post("https://api.openai.com/v1/chatkit/sessions").respond(401, json={"error": error})

    assert main(["check"]) == 1

    assert "api.openai.com (OPENAI_API_BASE is set, but not read) is" in capsys.readouterr().out


def test_its_exit_code_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "chatkit_sessions.__main__")
    monkeypatch.setattr("sys.argv", ["chatkit_sessions", "check"])

    with pytest.raises(SystemExit) as caught:
        runpy.run_module("chatkit_sessions", run_name="__main__")

    assert caught.value.code == 1


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 2
    assert "check" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["AuthenticationError", "authenticationerror", "401", "errors.AuthenticationError"]
)
def test_an_error_is_explained(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["explain", name, "--language", "en"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "AuthenticationError",
        "===================",
        "",
        "401: the API key is not valid.",
    ]
    assert not any(line.startswith("WorkflowNotFoundError") for line in lines), "another section"


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_code_is_explained(capsys: pytest.CaptureFixture[str], language: str) -> None:
    assert main(["explain", "client_secret_unknown", "--language", language]) == 0

    assert capsys.readouterr().out.startswith("InvalidClientSecretError\n===")


def test_an_error_is_explained_in_spanish(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "AuthenticationError", "--language", "es"]) == 0

    assert "401: la clave de la API no es válida.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", sorted(n for n in chatkit_sessions.__all__ if n.endswith("Error"))
)
@pytest.mark.parametrize("language", ["en", "es"])
def test_every_error_has_its_explanation_without_markup(
    capsys: pytest.CaptureFixture[str], error: str, language: str
) -> None:
    assert main(["explain", error, "--language", language]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith(f"{error}\n=")
    assert not re.search(r"\]\(|\*\*|```|^#", shown, re.MULTILINE)


def test_a_section_is_explained_with_its_subsections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "the call works but the widget stays blank", "--language", "en"]) == 0

    shown = capsys.readouterr().out
    assert "\nIs the workflow published?\n===" in shown
    assert "`**********`" in shown
    assert "Errors, one by one" not in shown


def test_without_a_name_the_sections_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "es_ES.UTF-8")

    assert main(["explain"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "Los errores, uno por uno" in lines
    assert "RateLimitError" in lines


def test_an_unknown_name_is_answered_with_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "\x1b[2J"]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("No section '\\x1b[2J'. There are:\n")
    assert "\n  RateLimitError\n" in shown.err


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "es_MX.UTF-8"}, "es"),
        ({"LANG": "es_MX.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "es"}, "es"),
        ({"LC_ALL": "", "LANG": "es"}, "es"),
    ],
)
def test_the_language_is_that_of_the_locale(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language


PRINTING = [
    "check",
    "check --local",
    "explain",
    "explain 401",
    "explain 4xx",
    "serve --port 0",
    "serve --port http",
    "serve --help",
    "--help",
    "--version",
]


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("command", PRINTING)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_ends_early_stops_nothing(
    fake: FakeChatKit, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    monkeypatch.setattr(serving, "sleep", interrupt)

    with os.fdopen(writes, "w") as nobody_reads:
        monkeypatch.setattr(sys, name, nobody_reads)
        exit_code = exit_code_of(command.split())

    expected = {"explain 4xx": 2, "serve --port http": 2}
    assert exit_code == expected.get(command, 0)
    fake.assert_deleted(times=1 if command == "check" else 0)


def interrupt(_seconds: float) -> None:
    signal.raise_signal(signal.SIGINT)


def exit_code_of(argv: list[str]) -> object:
    try:
        return main(argv)
    except SystemExit as stopped:
        return stopped.code


def test_serve_is_the_local_api(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", "http"])

    assert caught.value.code == 2
    assert "chatkit-sessions serve: error: argument --port" in capsys.readouterr().err


def test_an_unknown_option_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--locale"])

    assert caught.value.code == 2
    assert "unrecognized arguments: --locale" in capsys.readouterr().err


def test_the_command_that_is_installed_is_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["chatkit-sessions"].partition(":")

    assert callable(getattr(importlib.import_module(module), name))
