"""What watches or mocks HTTP calls sees every attempt of ours, from whichever call on it is there.

Most of these tools patch httpx for the rest of the process, so that each runs in one of its own.
Those that would change every test run are in a directory that `scripts/test --slow` makes.
"""

import gzip
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from chatkit_sessions import APIConnectionError
from raw_server import Connection, raw_server, serve_sessions
from support import Connect, session_json

CALL = """
import asyncio, sys
from chatkit_sessions import AsyncChatKitClient, ChatKitClient

url, kind, order = sys.argv[1:]
options = {"api_key": "sk-watched", "workflow_id": "wf_test", "base_url": url}
loop = asyncio.new_event_loop()
chatkit = ChatKitClient(**options) if kind == "sync" else AsyncChatKitClient(**options)

def call():
    session = chatkit.create_session("user_123")
    return (session if kind == "sync" else loop.run_until_complete(session)).id

if order == "after":
    assert call() == "cksess_new"
"""
END = """
if kind == "sync":
    chatkit.close()
else:
    loop.run_until_complete(chatkit.aclose())
loop.close()
"""

OPENTELEMETRY = """
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
HTTPXClientInstrumentor().instrument(tracer_provider=provider)
assert call() == "cksess_new"
told = [span.to_json() for span in spans.get_finished_spans()]
statuses = [span.attributes["http.status_code"] for span in spans.get_finished_spans()]
"""

SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.httpx import HttpxIntegration
from sentry_sdk.transport import Transport

events = []

class Keep(Transport):
    def capture_envelope(self, envelope):
        events.extend(item.payload.json for item in envelope.items)

sentry_sdk.init(
    "http://public@localhost/1", traces_sample_rate=1.0, transport=Keep,
    auto_enabling_integrations=False, integrations=[HttpxIntegration()],
)
with sentry_sdk.start_transaction(name="page"):
    assert call() == "cksess_new"
sentry_sdk.flush()
spans = [span for event in events for span in event["spans"] if span["op"] == "http.client"]
told = [repr(event) for event in events]
statuses = [int(span["data"]["http.response.status_code"]) for span in spans]
"""

LOGFIRE = """
import logfire
from logfire.testing import TestExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

spans = TestExporter()
processors = [SimpleSpanProcessor(spans)]
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=processors)
logfire.instrument_httpx()
assert call() == "cksess_new"
told = [repr(span) for span in spans.exported_spans_as_dict()]
statuses = [
    span["attributes"]["http.status_code"] for span in spans.exported_spans_as_dict()
]
"""

NEW_RELIC = """
import os

names = ("LICENSE_KEY", "APP_NAME", "DEVELOPER_MODE", "LOG_LEVEL")
values = ("0" * 40, "shop", "true", "critical")
os.environ |= {f"NEW_RELIC_{name}": value for name, value in zip(names, values)}
import newrelic.agent
from newrelic.api.external_trace import ExternalTrace

newrelic.agent.initialize()
told, statuses, real = [], [], ExternalTrace.process_response

def process_response(self, status_code, headers):
    told.append(self.url)
    statuses.append(status_code)
    return real(self, status_code, headers)

ExternalTrace.process_response = process_response
with newrelic.agent.BackgroundTask(newrelic.agent.register_application(timeout=10.0), "page"):
    assert call() == "cksess_new"
"""

DATADOG = """
import os

os.environ |= {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"
}
from ddtrace import patch
from ddtrace.trace import TraceFilter, tracer

told, statuses = [], []

class Keep(TraceFilter):
    def process_trace(self, trace):
        told.extend(repr(span.get_tags()) for span in trace)
        statuses.extend(int(span.get_tag("http.status_code")) for span in trace)

tracer.configure(trace_processors=[Keep()])
patch(httpx=True)
assert call() == "cksess_new"
tracer.flush()
"""

X_RAY = """
from aws_xray_sdk.core import patch, xray_recorder

xray_recorder.configure(sampling=False, context_missing="LOG_ERROR")
patch(["httpx"])
page = xray_recorder.begin_segment("page")
assert call() == "cksess_new"
told = [repr(each.http) for each in page.subsegments]
statuses = [each.http["response"]["status"] for each in page.subsegments]
"""

VCR = """
import tempfile
import vcr

recorder = vcr.VCR(filter_headers=["authorization"])
with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/cassette.yaml"
    with recorder.use_cassette(path):
        assert call() == "cksess_new"
    with recorder.use_cassette(path) as cassette:
        assert call() == "cksess_new"
        assert (cassette.play_count, len(cassette)) == (2, 2)
        told = [repr(cassette.requests)]
        statuses = [each["status"]["code"] for each in cassette.responses]
"""

TELL = """
assert told and "sk-watched" not in "".join(told)
print(statuses)
"""


BODIES = """
import json, sys
import sentry_sdk
from fastapi import FastAPI
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.testclient import TestClient
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit

events = []

class Keep(Transport):
    def capture_envelope(self, envelope):
        events.extend(item.payload.get_bytes().decode() for item in envelope.items)

one = {"auto_enabling_integrations": False, "integrations": [StarletteIntegration()]}
enabled = one if sys.argv[1] == "starlette" else {}  # all for which there is a package: 5 s
sentry_sdk.init("http://public@localhost/1", transport=Keep, **enabled)
fake = FakeChatKit()
fake.fail_next(500, times=9)
if sys.argv[1] == "fastapi":
    app = FastAPI()
    app.include_router(chatkit_router(fake.async_client(), user=lambda: "ada"))
else:
    app = Starlette(routes=chatkit_routes(fake.async_client(), user=lambda request: "ada"))
secret = "ek_" + "5ec7e7" * 10
body = {"currentClientSecret": secret}
for _ in range(2):
    assert TestClient(app).post("/api/chatkit/session/refresh", json=body).status_code == 502
sentry_sdk.flush()
assert '"data":"**********"' in "".join(events).replace(" ", ""), events
assert secret not in "".join(events)
print("ended")
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
def test_sentry_is_not_given_the_secret_that_a_page_presents(framework: str) -> None:
    done = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-W", "ignore", "-c", BODIES, framework],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


def refusing(nth: int) -> Callable[[Connection], None]:
    """Refuse one request, whichever connection brings it, and serve all others."""
    count = itertools.count(1)

    def script(connection: Connection) -> None:
        while connection.receive():
            if next(count) == nth:
                headers = "retry-after-ms: 1\r\n"
                connection.answer(b"", status="503 Service Unavailable", headers=headers)
            else:
                connection.answer()

    return script


APART = Path(__file__).parents[2] / "build" / "instruments"


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None or (APART / package).is_dir()


def environment() -> dict[str, str]:
    """With the tools that are apart, behind the library's wheel if that is what is tested."""
    paths = [os.environ.get("PYTHONPATH", ""), str(APART)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


INSTRUMENTS = {
    "opentelemetry": OPENTELEMETRY,
    "logfire": LOGFIRE,
    "sentry_sdk": SENTRY,
    "newrelic": NEW_RELIC,
    "ddtrace": DATADOG,
    "aws_xray_sdk": X_RAY,
    "vcr": VCR,
}


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *arguments],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("package", [each for each in INSTRUMENTS if is_installed(each)])
@pytest.mark.parametrize(("kind", "order"), [("sync", "before"), ("async", "after")])
def test_each_attempt_is_seen_without_the_key(package: str, kind: str, order: str) -> None:
    with raw_server(refusing(1 if order == "before" else 2)) as server:
        out = run(CALL + INSTRUMENTS[package] + TELL + END, server.url, kind, order)

    assert out.splitlines()[-1] == "[503, 200]"


HOOKED = """
import importlib.abc, sys

class Hook(importlib.abc.MetaPathFinder):  # as New Relic's and Datadog's
    def find_spec(self, name, path, target=None):
        seen.append(name)

seen = []
sys.meta_path.insert(0, Hook())
from chatkit_sessions import ChatKitClient

with ChatKitClient(api_key="sk-watched", workflow_id="wf_test", base_url=sys.argv[1]) as chatkit:
    chatkit.create_session("user_123")
print("httpx" in seen, "httpcore" in seen)
"""


@pytest.mark.slow
def test_httpx_is_imported_for_an_import_hook_that_may_patch_it() -> None:
    with raw_server(serve_sessions) as server:
        assert run(HOOKED, server.url) == "True True\n"
        unhooked = HOOKED.replace("sys.meta_path.insert(0, Hook())", "")
        tell = 'print("httpx" in sys.modules, "h11" in sys.modules)'
        assert run(unhooked.partition("print(")[0] + tell, server.url) == "False False\n"


if is_installed("pytest_httpx"):

    @pytest.mark.slow
    def test_pytest_httpx_mocks_the_calls(tmp_path: Path) -> None:
        test = tmp_path / "test_shop.py"
        test.write_text(
            "from chatkit_sessions import ChatKitClient\n"
            "def test(httpx_mock):\n"
            f"    httpx_mock.add_response(json={session_json()!r})\n"
            "    with ChatKitClient(api_key='sk-1', workflow_id='wf_test') as chatkit:\n"
            "        assert chatkit.create_session('user_123').id == 'cksess_new'\n"
        )
        subprocess.run(  # noqa: S603 -- our own script
            [sys.executable, "-m", "pytest", "-q", "-p", "pytest_httpx", str(test)],
            check=True,
            capture_output=True,
            env={**environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            timeout=60,
        )


# What is written to the log


@pytest.mark.parametrize("watched", [False, True])
def test_each_response_is_one_line_of_httpx_s_log(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    watched: bool,
) -> None:
    if watched:
        watch(monkeypatch)

    with raw_server(refusing(1)) as server, caplog.at_level("INFO", "httpx"):
        connect(base_url=server.url).create_session("user_123")

        url = f"{server.url}/chatkit/sessions"
        assert [each.message for each in caplog.records if each.name == "httpx"] == [
            f'HTTP Request: POST {url} "HTTP/1.1 503 Service Unavailable"',
            f'HTTP Request: POST {url} "HTTP/1.1 200 OK"',
        ]


# Through httpx, over the library's own connections


def watch(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """Patch httpx as instruments do."""
    seen: list[httpx.Request] = []
    sync, asynchronous = (
        httpx.HTTPTransport.handle_request,
        httpx.AsyncHTTPTransport.handle_async_request,
    )

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        seen.append(request)
        request.headers["traceparent"] = f"00-{len(seen)}"
        return sync(self, request)

    async def handle_async_request(
        self: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        seen.append(request)
        request.headers["traceparent"] = f"00-{len(seen)}"
        return await asynchronous(self, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle_request)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async_request)
    return seen


def test_a_watched_call_reuses_its_connection_and_sends_what_was_added(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve_with_cookie(connection: Connection) -> None:
        while connection.receive():
            connection.answer(headers="set-cookie: user=alice\r\n")

    with raw_server(serve_with_cookie) as server:
        chatkit = connect(base_url=server.url)
        chatkit.create_session("user_123")
        seen = watch(monkeypatch)
        for _ in range(2):
            assert chatkit.create_session("user_123").id == "cksess_new"

        assert server.connections == 1
        assert len(seen) == 2
        heads = [request.partition(b"\r\n\r\n")[0].lower() for request in server.requests]
        assert [b"traceparent: 00-" in head for head in heads] == [False, True, True]
        assert not any(b"cookie" in head for head in heads)
        assert (
            server.requests[0].partition(b"\r\n\r\n")[2]
            == server.requests[1].partition(b"\r\n\r\n")[2]
        )
        assert json.loads(seen[0].content)["user"] == "user_123"


def test_a_compressed_response_of_a_watched_call_is_read_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(monkeypatch)
    body = gzip.compress(json.dumps(session_json()).encode())

    def compressed(connection: Connection) -> None:
        connection.receive()
        connection.answer(body, headers="content-encoding: gzip\r\n")

    with raw_server(compressed) as server:
        assert connect(base_url=server.url).create_session("user_123").id == "cksess_new"


def receive_and_close(connection: Connection) -> None:
    connection.receive()


def test_a_watched_call_that_fails_is_the_same_error(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(receive_and_close) as server:
        chatkit = connect(base_url=server.url, max_retries=0)
        with pytest.raises(APIConnectionError) as directly:
            chatkit.create_session("user_123")
        watch(monkeypatch)
        with pytest.raises(APIConnectionError) as through_httpx:
            chatkit.create_session("user_123")

    assert type(directly.value.__cause__) is type(through_httpx.value.__cause__)
