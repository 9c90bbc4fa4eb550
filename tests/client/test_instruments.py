"""What watches HTTP calls sees every attempt of ours: OpenTelemetry, Sentry and respx.

The first two patch httpx for the rest of the process, so that each runs in one of its own.
"""

import subprocess
import sys
import textwrap
from typing import Literal

import pytest

from raw_server import Connection, raw_server, serve_sessions

pytestmark = pytest.mark.slow

CALL = """
import asyncio, sys
from chatkit_sessions import AsyncChatKitClient, ChatKitClient

def call(url, kind):
    if kind == "sync":
        with ChatKitClient(api_key="sk-watched", workflow_id="wf_test", base_url=url) as chatkit:
            return chatkit.create_session("user_123").id

    async def main():
        async with AsyncChatKitClient(
            api_key="sk-watched", workflow_id="wf_test", base_url=url
        ) as chatkit:
            return (await chatkit.create_session("user_123")).id

    return asyncio.run(main())
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
assert call(*sys.argv[1:]) == "cksess_new"
told = [span.to_json() for span in spans.get_finished_spans()]
statuses = [span.attributes["http.status_code"] for span in spans.get_finished_spans()]
"""

SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport

events = []

class Keep(Transport):
    def capture_envelope(self, envelope):
        events.extend(item.payload.json for item in envelope.items)

sentry_sdk.init("http://public@localhost/1", traces_sample_rate=1.0, transport=Keep)
with sentry_sdk.start_transaction(name="page"):
    assert call(*sys.argv[1:]) == "cksess_new"
sentry_sdk.flush()
spans = [span for event in events for span in event["spans"] if span["op"] == "http.client"]
told = [repr(event) for event in events]
statuses = [int(span["data"]["http.response.status_code"]) for span in spans]
"""

TELL = """
assert told and "sk-watched" not in "".join(told)
print(statuses)
"""


BODIES = """
import json, sys
import sentry_sdk
from fastapi import FastAPI
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

sentry_sdk.init("http://public@localhost/1", transport=Keep)
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


def refuse_once(connection: Connection) -> None:
    connection.receive()
    headers = "retry-after-ms: 1\r\n"
    connection.answer(b"", status="503 Service Unavailable", headers=headers)
    serve_sessions(connection)


@pytest.mark.parametrize("instrument", [OPENTELEMETRY, SENTRY], ids=["OpenTelemetry", "Sentry"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_each_attempt_is_one_span_without_the_key(
    kind: Literal["sync", "async"], instrument: str
) -> None:
    script = textwrap.dedent(CALL + instrument + TELL)
    with raw_server(refuse_once) as server:
        done = subprocess.run(  # noqa: S603 -- our own script
            [sys.executable, "-c", script, server.url, kind],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (done.stdout, done.returncode) == ("[503, 200]\n", 0), done.stderr
