from collections.abc import Iterator
from typing import cast

import pytest

from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import Connect, Kind, Time, Way, connecting


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell has set must not reach a test."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_CHATKIT_WORKFLOW_ID",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")),
        *(f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


@pytest.fixture
def way() -> Way:
    """Overridden by the modules of the behaviour suite, which run in both ways."""
    return "transport"


@pytest.fixture
def connect(kind: Kind, way: Way, time: Time) -> Iterator[Connect]:
    """Makes clients; every test that uses it runs for both kinds."""
    with connecting(kind, way, time) as connect:
        yield connect


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit()


@pytest.fixture
def server(fake: FakeChatKit) -> Iterator[FakeServer]:
    with fake.serve() as server:
        yield server
