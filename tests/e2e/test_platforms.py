"""What platforms do to a process: a lifespan for each invocation, time limits of tasks, forks."""

import asyncio
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from chatkit_sessions import (
    APIConnectionError,
    AuthenticationError,
    InvalidRequestError,
    RateLimitError,
)
from chatkit_sessions.testing import FakeChatKit, FakeServer
from pages import code_of
from raw_server import Connection, raw_server
from redis_server import RedisServer
from support import current_event_loop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="these platforms are Unix"),
]

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}


@pytest.fixture
def deployed(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The application of docs/production.md."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    page = "docs/production.md"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with current_event_loop():
        for containing in ("handler = Mangum(app)", "function_app ="):
            exec(code_of(page, "python", containing), namespace)  # noqa: S102 -- our own
        yield namespace


def invocation() -> dict[str, object]:
    """What a function's URL sends."""
    host = "x1.lambda-url.eu-central-1.on.aws"
    return {
        "version": "2.0",
        "rawPath": "/api/chatkit/session",
        "rawQueryString": "",
        "headers": {"host": host, "content-type": "application/json", "origin": f"https://{host}"},
        "requestContext": {
            "domainName": host,
            "stage": "$default",
            "http": {
                "method": "POST",
                "path": "/api/chatkit/session",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
            },
        },
        "body": "{}",
        "isBase64Encoded": False,
    }


def test_each_invocation_of_a_lambda_function_gets_a_session(deployed: dict[str, Any]) -> None:
    for _ in range(3):
        response = deployed["handler"](invocation(), None)

        assert response["statusCode"] == 200
        assert "client_secret" in json.loads(response["body"])


def test_so_does_each_run_of_the_lifespan_in_tests(deployed: dict[str, Any]) -> None:
    for _ in range(3):
        with TestClient(deployed["app"], base_url="https://testserver") as client:
            assert client.post("/api/chatkit/session", headers=SAME_ORIGIN).status_code == 200


def test_an_azure_function_gets_a_session(deployed: dict[str, Any]) -> None:
    functions: Any = importlib.import_module("azure.functions")
    request = functions.HttpRequest(
        method="POST",
        url="https://shop.azurewebsites.net/api/chatkit/session",
        headers={**SAME_ORIGIN, "host": "shop.azurewebsites.net"},
        body=b"{}",
    )

    async def main() -> list[int]:
        middleware = functions.AsgiMiddleware(deployed["app"])
        answers = [await middleware.handle_async(request) for _ in range(2)]
        await deployed["chatkit"].aclose()
        return [answer.status_code for answer in answers]

    assert asyncio.get_event_loop().run_until_complete(main()) == [200, 200]


TASKS = """
import os
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery
from chatkit_sessions import ChatKitClient, RateLimitError

url = os.environ["TASKS_REDIS_URL"]
app = Celery("tasks", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True
chatkit = ChatKitClient(max_retries=0)  # before the fork


@app.task
def create(user):
    return chatkit.create_session(user).id


@app.task
def create_at(url):
    return ChatKitClient(base_url=url, max_retries=0).create_session("ada").id


@app.task(autoretry_for=(RateLimitError,), max_retries=3, default_retry_delay=0)
def create_in_the_end(user):
    return chatkit.create_session(user).id


@app.task(soft_time_limit=1)
def create_in_time(url):
    try:
        return ChatKitClient(base_url=url, timeout=60).create_session("ada").id
    except SoftTimeLimitExceeded:
        return "cleaned up"
"""


@pytest.fixture
def tasks(
    tmp_path: Path, server: FakeServer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Celery's tasks, with a worker that forks."""
    (tmp_path / "chatkit_tasks.py").write_text(TASKS)
    environment = {**server.environment, "TASKS_REDIS_URL": redis_server.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    options = ["worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "CRITICAL"]
    worker = subprocess.Popen(  # noqa: S603 -- our own
        [sys.executable, "-m", "celery", "-A", "chatkit_tasks", *options, "--without-mingle"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    try:
        yield importlib.import_module("chatkit_tasks")
    finally:
        worker.terminate()
        worker.wait(30)
        sys.modules.pop("chatkit_tasks", None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # connections that Celery's client keeps
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_celery_brings_errors_back_and_interrupts_calls(fake: FakeChatKit, tasks: Any) -> None:  # noqa: ANN401 -- it has no types
    def result(task: Any, *arguments: object) -> object:  # noqa: ANN401 -- as above
        return task.delay(*arguments).get(timeout=60)

    assert str(result(tasks.create, "ada")).startswith("cksess_")
    fake.fail_next(429)
    with pytest.raises(RateLimitError) as limited:
        result(tasks.create, "ada")
    assert limited.value.status_code == 429
    assert limited.value.request_id
    fake.fail_next(401)
    with pytest.raises(AuthenticationError, match="401: "):
        result(tasks.create, "ada")
    with pytest.raises(InvalidRequestError):
        result(tasks.create, 42)
    with pytest.raises(APIConnectionError):
        result(tasks.create_at, "http://127.0.0.1:9/v1")
    fake.fail_next(429, times=2)
    assert str(result(tasks.create_in_the_end, "ada")).startswith("cksess_")

    def say_nothing(connection: Connection) -> None:
        connection.receive()
        connection.stop.wait()

    with raw_server(say_nothing) as silent:
        assert result(tasks.create_in_time, silent.url) == "cleaned up"
        assert len(silent.requests) == 1
    assert str(result(tasks.create, "bob")).startswith("cksess_"), "the worker goes on"


APP = """
from flask import Flask
from chatkit_sessions import ChatKitClient
from chatkit_sessions.integrations.flask import chatkit_blueprint

chatkit = ChatKitClient()
chatkit.create_session("before_the_fork")
app = Flask(__name__)
app.register_blueprint(chatkit_blueprint(chatkit, user=lambda: "ada"))
"""
ASYNC_APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from chatkit_sessions import AsyncChatKitClient
from chatkit_sessions.integrations.fastapi import chatkit_router

chatkit = AsyncChatKitClient()


@asynccontextmanager
async def lifespan(app):
    async with chatkit:
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(chatkit_router(chatkit, user=lambda: "ada"))
"""
WORKERS = {"sync": APP, "gthread": APP, "uvicorn.workers.UvicornWorker": ASYNC_APP}


@pytest.mark.parametrize("worker", WORKERS)
def test_a_client_made_before_gunicorn_forks_serves_every_worker(
    worker: str, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "preloaded.py").write_text(WORKERS[worker])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 -- our own
            [
                *(sys.executable, "-W", "ignore", "-m", "gunicorn", "preloaded:app", "--preload"),
                *("--workers", "2", "--worker-class", worker, "--bind", f"fd://{number}"),
            ],
            cwd=tmp_path,
            env={**os.environ, **server.environment},
            pass_fds=[number],
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/chatkit/session"
            statuses = [
                httpx.post(url, headers=SAME_ORIGIN, timeout=60).status_code for _ in range(12)
            ]
        finally:
            process.terminate()
            process.wait(30)

    assert statuses == [200] * 12
