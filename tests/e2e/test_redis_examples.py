"""The examples with two workers and Redis, served as their first lines say."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chatkit_sessions.testing import FakeChatKit, FakeServer
from redis_server import RedisServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ["redis", "redis_flask", "redis_django"]
SESSION = "/api/chatkit/session"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a Unix")


def command_of(example: str) -> str:
    """The command in the file's docstring."""
    found = re.match(r'""".*?\n\n(.*?)\n"""', (ROOT / f"examples/{example}/app.py").read_text())
    assert found is not None
    return found[1]


@contextmanager
def serving(example: str, environment: dict[str, str]) -> Generator[str, None, None]:
    """Run the example's command on a socket that waits for it; its origin."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        number = str(listener.fileno())
        program, *arguments = shlex.split(command_of(example))
        listen = ["--bind", f"fd://{number}"] if program == "gunicorn" else ["--fd", number]
        process = subprocess.Popen(  # noqa: S603 -- our own
            [sys.executable, "-m", program, *arguments, *listen],
            cwd=ROOT / "examples" / example,
            env=os.environ | environment | {"LOGIN_SECRET": "a secret of the tests"},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                process.terminate()
                process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_two_workers_share_a_users_session_and_its_end(
    example: str, redis_server: RedisServer, fake: FakeChatKit, server: FakeServer
) -> None:
    environment = {**server.environment, "REDIS_URL": redis_server.url}
    with serving(example, environment) as origin:
        with httpx.Client(base_url=origin, timeout=60) as page:
            page.get("/")
            token = {"X-CSRFToken": page.cookies.get("csrftoken") or ""}
            assert page.post(SESSION, json={}, headers=token).status_code == 401
            assert page.post("/sign-in", headers=token).status_code == 204
            cookies = dict(page.cookies)

        def post(path: str) -> httpx.Response:
            # A connection of its own, so that any worker may get it.
            return httpx.post(origin + path, json={}, cookies=cookies, headers=token, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(post, [SESSION] * 16))
        assert {each.status_code for each in responses} == {200}
        assert len({each.json()["client_secret"] for each in responses}) == 1
        fake.assert_created(user="ada", times=1)

        assert post("/sign-out").status_code == 204

    fake.assert_deleted(times=1)


def test_compose_runs_the_same_command_and_the_docs_show_it() -> None:
    compose = (ROOT / "examples/redis/compose.yaml").read_text()

    assert f"```yaml\n{compose}```" in (ROOT / "docs/production.md").read_text()
    assert f"command: {command_of('redis')} --host 0.0.0.0 --port 8000\n" in compose
    for copied in re.findall(r"COPY (.*) \S+$", compose, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_docs_show_the_file_and_its_command(example: str) -> None:
    page = (ROOT / "docs/stores.md").read_text()

    assert f"```python\n{(ROOT / f'examples/{example}/app.py').read_text()}```" in page
    assert f"$ {command_of(example)}\n" in page
