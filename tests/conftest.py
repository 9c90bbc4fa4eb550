import gc
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from time import sleep
from typing import cast
from zlib import crc32

import pytest
from hypothesis import settings

from chatkit_sessions._config.settings import OTHER_NAMES
from chatkit_sessions.testing import FakeChatKit, FakeServer
from redis_server import RedisServer, execute, free_port, running_redis
from support import Connect, Kind, Time, Way, connecting, open_sockets
from workers import STORE_KINDS, Backend, StoreKind


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="each test with each value of its parameters once, not with every combination; fewer "
        "examples of properties; no slow tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("full", settings.default, deadline=None)
    settings.register_profile("quick", settings.default, deadline=None, max_examples=10)
    settings.load_profile("quick" if config.getoption("--quick") else "full")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what stays: each look at it takes a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


IN_FULL = {"framework": "starlette", "way": "transport", "ask": "Starlette"}
"""Of these fixtures, one value has every case of a test; of each other, all but one are slow.

A test that does not run with that one value has every case with the others.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    params_of = {item: params_as_given(item) for item in items}
    in_full = {
        (item.nodeid.partition("[")[0], name)
        for item, params in params_of.items()
        for name, whole in IN_FULL.items()
        if params.get(name) == whole
    }
    seen: set[tuple[str, str, int]] = set()
    kept: set[pytest.Item] = set()
    # Mixed, as few cover all values then, but alike in each run: one has what another leaves out.
    for item in sorted(items, key=lambda item: crc32(item.nodeid.encode())):
        params = params_of[item]
        function = item.nodeid.partition("[")[0]
        # By identity: every combination has the same objects.
        values = {(function, name, id(value)) for name, value in params.items()}
        others = [
            (function, name, id(params[name]))
            for name, whole in IN_FULL.items()
            if (function, name) in in_full and params[name] != whole
        ]
        if not seen.isdisjoint(others):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") is None and (not values or values - seen):
            kept.add(item)
        if item.get_closest_marker("slow") is None:
            seen |= values
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=list(set(items) - kept))
        items[:] = [item for item in items if item in kept]


def params_as_given(item: pytest.Item) -> dict[str, object]:
    callspec: object = getattr(item, "callspec", None)
    return cast("dict[str, object]", getattr(callspec, "params", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a test is skipped for another reason than `CHATKIT_MAY_SKIP`, where it is set.

    What is skipped without anyone noticing is broken without anyone noticing.
    """
    may_skip = os.environ.get("CHATKIT_MAY_SKIP")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if may_skip is None or not isinstance(reporter, pytest.TerminalReporter):
        return
    reports = cast("list[pytest.TestReport]", reporter.stats.get("skipped", []))
    reasons = {str(cast("tuple[str, int, str]", each.longrepr)[2]) for each in reports}
    unexpected = [each for each in sorted(reasons) if each.removeprefix("Skipped: ") != may_skip]
    if unexpected:
        reporter.write_line("")
        for reason in unexpected:
            reporter.write_line(f"ERROR: skipped without leave: {reason}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell has set must not reach a test."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_CHATKIT_WORKFLOW_ID",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        *(name for names in OTHER_NAMES.values() for name in names),
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")),
        *(f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_socket_left() -> Iterator[None]:
    """Fail if a socket is open after the test that was not before; entered first, left last."""
    before = open_sockets()
    yield
    if open_sockets() - before:
        gc.collect()  # of test servers; the library's raise a ResourceWarning, which is an error
        assert not open_sockets() - before


@pytest.fixture
def few_plugins(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pytest that a test starts loads only these plugins; all that are installed take 5 s."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = -p anyio -p xdist -p randomly\n")


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


@pytest.fixture(scope="session")
def _one_cluster() -> Iterator[RedisServer]:
    """One node that has all the slots."""
    # Its usual second port, 10,000 above the first, may be none.
    with running_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        with server.client() as client:
            execute(client, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        yield server


@pytest.fixture(scope="session")
def _one_redis(_one_cluster: RedisServer) -> Iterator[RedisServer]:
    """With it starts the cluster, which takes two seconds: most often, they pass in other tests."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(_one_redis: RedisServer) -> RedisServer:
    """A Redis that is empty; where none is installed, the test is skipped."""
    with _one_redis.client() as client:
        execute(client, "FLUSHALL")
    return _one_redis


@pytest.fixture
def redis_cluster(_one_cluster: RedisServer) -> RedisServer:
    """A cluster of one node that is empty."""
    with _one_cluster.client() as client:
        while b"cluster_state:ok" not in execute(client, "CLUSTER", "INFO"):
            sleep(0.01)  # the processor is for others meanwhile
        execute(client, "FLUSHALL")
        execute(client, "CONFIG", "SET", "cluster-announce-port", 0)
    return _one_cluster


@pytest.fixture(params=STORE_KINDS)
def backend(request: pytest.FixtureRequest, connect: Connect) -> Iterator[Backend]:
    """Workers over both stores; every test that uses it runs for both kinds of client, too."""
    kind = cast("StoreKind", request.param)
    server: RedisServer | None = None
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
    with ExitStack() as stack:
        yield Backend(connect, kind, server, stack)
