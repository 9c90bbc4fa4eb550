"""`python -m chatkit_sessions.testing`."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from chatkit_sessions.testing import FakeChatKit, __main__

if TYPE_CHECKING:
    from collections.abc import Callable

CREATE = {"user": "alice", "workflow": {"id": "wf_test"}}


def variables(printed: str) -> dict[str, str]:
    """Return the variables that the printed lines set, as a shell would."""
    exports = [line.removeprefix("export ") for line in printed.splitlines() if "export" in line]
    return dict(export.split("=", 1) for export in exports)


def post(set_variables: dict[str, str], path: str, content: object = None) -> httpx.Response:
    return httpx.post(
        f"{set_variables['OPENAI_BASE_URL']}/chatkit/sessions{path}",
        json=content,
        headers={
            "Authorization": f"Bearer {set_variables['OPENAI_API_KEY']}",
            "OpenAI-Beta": "chatkit_beta=v1",
        },
        trust_env=False,
    )


@pytest.fixture
def serve_until(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None], list[str]], int]:
    """Run the command in process; `meanwhile` is called once, while it serves."""

    def run(meanwhile: Callable[[], None], argv: list[str]) -> int:
        def interrupt(_seconds: float) -> None:
            meanwhile()
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(__main__, "sleep", interrupt)
        return __main__.main(argv)

    return run


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal(stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "chatkit_sessions.testing", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stdout
        printed = "".join(process.stdout.readline() for _ in range(4))

        status_code = post(variables(printed), "", CREATE).status_code
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=30)

    assert status_code == 200
    assert (process.returncode, rest, errors) == (0, "", "POST /v1/chatkit/sessions 200\n")


def test_prints_a_line_for_each_request_and_no_secret(
    serve_until: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def meanwhile() -> None:
        to_set = variables(capsys.readouterr().out)
        created = post(to_set, "", CREATE).json()
        post(to_set, "/refresh", {"client_secret": created["client_secret"]})
        post(to_set, f"/{created['client_secret']}/cancel?key=sk-mine")
        post({**to_set, "OPENAI_API_KEY": "sk-other"}, "", CREATE)
        post(to_set, "/%1B[2J")

    serve_until(meanwhile, ["--port", "0"])

    assert capsys.readouterr().err.splitlines() == [
        "POST /v1/chatkit/sessions 200",
        "POST /v1/chatkit/sessions/refresh 200",
        "POST /v1/chatkit/sessions/ek_***/cancel 400",
        "POST /v1/chatkit/sessions 401",
        "POST /v1/chatkit/sessions/%1B[2J 404",
    ]


def test_responds_although_nobody_reads_its_lines(
    serve_until: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    statuses: list[int] = []

    def meanwhile() -> None:
        to_set = variables(capsys.readouterr().out)
        statuses.extend(post(to_set, "", CREATE).status_code for _ in range(2))

    with os.fdopen(writes, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stderr", nobody_reads)
        serve_until(meanwhile, ["--port", "0"])

    assert statuses == [200, 200]


def test_prints_what_to_set_in_the_shell(
    serve_until: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = serve_until(
        lambda: None, ["--port", "0", "--api-key", "sk mine", "--workflow-id", "wf_mine"]
    )

    comment, *exports = capsys.readouterr().out.splitlines()
    assert exit_code == 0
    assert comment.startswith("# ")
    assert exports[0] == "export OPENAI_API_KEY='sk mine'"
    assert exports[1] == "export OPENAI_CHATKIT_WORKFLOW_ID=wf_mine"
    assert exports[2].startswith("export OPENAI_BASE_URL=http://127.0.0.1:")
    assert exports[2].endswith("/v1")


def test_what_listens_on_every_address_is_asked_on_this_machine(
    serve_until: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []
    statuses: list[int] = []

    def meanwhile() -> None:
        printed.append(capsys.readouterr().out)
        statuses.append(post(variables(printed[0]), "", CREATE).status_code)

    serve_until(meanwhile, ["--port", "0", "--host", "0.0.0.0"])  # noqa: S104 -- what is tried

    assert statuses == [200]
    assert "\nexport OPENAI_BASE_URL=http://127.0.0.1:" in printed[0]
    assert printed[0].splitlines()[-1].startswith("# From another machine: ")


@pytest.mark.parametrize(
    ("options", "refresh_status", "read_status"),
    [([], 400, 404), (["--no-refresh-route"], 404, 404), (["--read-route"], 400, 405)],
)
def test_offers_the_routes_it_is_told_to(
    serve_until: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    refresh_status: int,
    read_status: int,
) -> None:
    statuses: list[int] = []

    def meanwhile() -> None:
        to_set = variables(capsys.readouterr().out)
        statuses.append(post(to_set, "/refresh", {"client_secret": "ek_1"}).status_code)
        statuses.append(post(to_set, "/cksess_1").status_code)

    serve_until(meanwhile, ["--port", "0", *options])

    assert statuses == [refresh_status, read_status]


def test_leaves_the_handlers_of_signals_as_they_were(serve_until: Callable[..., int]) -> None:
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    serve_until(lambda: None, ["--port", "0"])

    assert [signal.getsignal(number) for number in signals] == before


def test_refuses_a_busy_port(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeChatKit().serve() as server:
        port = server.url.rpartition(":")[2].removesuffix("/v1")

        exit_code = __main__.main(["--port", port])

    told = capsys.readouterr().err
    assert exit_code == 2
    assert told.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert told.endswith("; --port 0 picks a free one\n")


def test_refuses_an_address_that_is_not_this_machines(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = __main__.main(["--host", "192.0.2.1"])

    told = capsys.readouterr().err
    assert exit_code == 2
    assert told.startswith("cannot listen on 192.0.2.1:8089: ")
    assert "--port 0" not in told, "another port would not help"


@pytest.mark.parametrize("port", ["65536", "-1", "http"])
def test_refuses_what_is_no_port(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["--port", port])

    assert stopped.value.code == 2
    assert "argument --port" in capsys.readouterr().err


def test_exits_with_that_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, __main__.__name__)

    with FakeChatKit().serve() as server:
        port = server.url.rpartition(":")[2].removesuffix("/v1")
        monkeypatch.setattr(sys, "argv", ["chatkit_sessions.testing", "--port", port])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("chatkit_sessions.testing", run_name="__main__")

    assert stopped.value.code == 2
    assert "cannot listen on" in capsys.readouterr().err
