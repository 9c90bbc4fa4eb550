"""Nobody gets another's response: what a server sends too much ends its connection."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
import trio
import trustme

from chatkit_sessions import AsyncChatKitClient, ChatKitClient, ChatKitError
from chatkit_sessions._http.connections import Connections
from chatkit_sessions._http.sync_network import connect
from raw_server import Connection, RawServer, raw_server
from support import KEY, WORKFLOW, new_uvloop, session_json

Runtime: TypeAlias = Literal["sync", "asyncio", "uvloop", "trio"]
OK = "200 OK"
REMOTE = "https://192.0.2.1/v1"


@pytest.fixture(params=get_args(Runtime))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return cast("Runtime", request.param)


@pytest.fixture(params=["http", "https"])
def tls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ssl.SSLContext | None:
    """A server's settings, whose authority the clients of this test trust; None for plain http."""
    if request.param == "http":
        return None
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("127.0.0.1", urlsplit(REMOTE).hostname or "")
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    request.getfixturevalue("monkeypatch").setenv("SSL_CERT_FILE", str(path))
    return context


def outcomes(
    runtime: Runtime,
    url: str,
    users: list[str],
    between: Callable[[], object] = lambda: None,
    timeout: float = 30.0,
) -> list[str]:
    """What one client gets for these users in turn: a session's user, or an error's name."""
    got: list[str] = []
    if runtime == "sync":
        with ChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=url,
            timeout=timeout,
            max_retries=0,
            allow_insecure_http=True,
        ) as sync:
            for user in users:
                try:
                    got.append(str(sync.create_session(user).user))
                except ChatKitError as error:
                    got.append(type(error).__name__)
                between()
        return got

    async def main() -> None:
        async with AsyncChatKitClient(
            api_key=KEY,
            workflow_id=WORKFLOW,
            base_url=url,
            timeout=timeout,
            max_retries=0,
            allow_insecure_http=True,
        ) as chatkit:
            for user in users:
                try:
                    got.append(str((await chatkit.create_session(user)).user))
                except ChatKitError as error:
                    got.append(type(error).__name__)
                for _ in range(3):  # asyncio closes sockets on its next turn
                    await anyio.lowlevel.checkpoint()
                between()

    run(runtime, main)
    return got


def run(runtime: Runtime, main: Callable[[], Coroutine[object, object, None]]) -> None:
    if runtime == "trio":
        trio.run(main)
    else:
        factory = new_uvloop if runtime == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())


def response(user: str, *, status: str = OK, headers: str = "") -> bytes:
    body = json.dumps(session_json(user=user)).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def chunked(user: str) -> bytes:
    body = json.dumps(session_json(user=user)).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def serve_the_user_asked_for(connection: Connection) -> None:
    while connection.receive():
        request = connection.last_request
        connection.send(response(json.loads(request.partition(b"\r\n\r\n")[2])["user"]))


EVIL = response("mallory")
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}"
CASES = {
    "a second response": ([response("alice") + EVIL], "alice"),
    "a second response of its own": ([response("alice"), EVIL], "alice"),
    "one after chunks": ([chunked("alice") + EVIL], "alice"),
    "one after chunks, of its own": ([chunked("alice"), EVIL], "alice"),
    "one that begins with the first": ([response("alice") + EVIL[:9], EVIL[9:]], "alice"),
    "one after another header": ([response("alice", headers="A:\x07\r\n") + EVIL], None),
    "one after hints": ([b"HTTP/1.1 103 Hints\r\n\r\n" + response("alice") + EVIL], "alice"),
    "a body after 204": ([EMPTY + EVIL], "APIResponseValidationError"),
    "a body after 204, of its own": ([EMPTY, EVIL], "APIResponseValidationError"),
    "one after an error": ([REFUSED + EVIL], "BadRequestError"),
    "one after an error, of its own": ([REFUSED, EVIL], "BadRequestError"),
    "line ends": ([response("alice") + b"\r\n"], "alice"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_follows_a_response_is_nobodys(
    runtime: Runtime, tls: ssl.SSLContext | None, case: str
) -> None:
    pieces, first = CASES[case]
    sent = threading.Event()

    def send_too_much(connection: Connection) -> None:
        connection.receive()
        for piece in pieces:
            connection.send(piece)
        sent.set()
        while connection.receive():
            connection.send(EVIL)

    with raw_server(send_too_much, serve_the_user_asked_for, tls=tls) as server:
        got = outcomes(runtime, server.url, ["alice", "bob", "carol"], lambda: sent.wait(10))

        assert got[1:] == ["bob", "carol"]
        assert got[0] == first or first is None
        assert server.connections == 2


@pytest.mark.parametrize("late", [EVIL, EVIL[:1], b"\r\n"], ids=["whole", "a byte", "line end"])
def test_what_comes_while_nobody_looks_is_nobodys(
    runtime: Runtime, tls: ssl.SSLContext | None, late: bytes
) -> None:
    answered, sent = threading.Event(), threading.Event()

    def send_later(connection: Connection) -> None:
        connection.receive()
        connection.send(response("alice"))
        answered.wait(10)
        connection.send(late)
        sent.set()
        while connection.receive():
            connection.send(EVIL)

    def between() -> None:
        answered.set()
        assert sent.wait(10)

    with raw_server(send_later, serve_the_user_asked_for, tls=tls) as server:
        assert outcomes(runtime, server.url, ["alice", "bob"], between) == ["alice", "bob"]
        assert server.connections == 2


def test_a_connection_on_which_nothing_is_left_is_used_again(
    runtime: Runtime, tls: ssl.SSLContext | None
) -> None:
    def serve_in_chunks_and_pieces(connection: Connection) -> None:
        connection.receive()
        connection.send(chunked("a"))
        connection.receive()
        for byte in response("b"):
            connection.send(bytes([byte]))
        connection.receive()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" + response("c"))
        connection.receive()
        connection.send(response("d", status="503 No"))
        serve_the_user_asked_for(connection)

    with raw_server(serve_in_chunks_and_pieces, tls=tls) as server:
        assert outcomes(runtime, server.url, ["a", "b", "c", "d", "e"]) == [
            "a", "b", "c", "InternalServerError", "e"
        ]  # fmt: skip
        assert server.connections == 1


def through(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of calls that go through a proxy: by CONNECT where they are of https."""
    scheme, _, rest = server.url.removesuffix("/v1").partition("://")
    monkeypatch.setenv(f"{scheme}_proxy", f"http://{rest}")
    return REMOTE.replace("https", scheme)


@pytest.mark.parametrize("case", CASES)
def test_what_follows_a_response_through_a_proxy_is_nobodys(
    runtime: Runtime,
    tls: ssl.SSLContext | None,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces, first = CASES[case]
    sent = threading.Event()

    def send_too_much(connection: Connection) -> None:
        connection.receive()
        for piece in pieces:
            connection.send(piece)
        sent.set()
        while connection.receive():
            connection.send(EVIL)

    with raw_server(
        send_too_much, serve_the_user_asked_for, tls=tls, tunnels=tls is not None
    ) as proxy:
        url = through(proxy, monkeypatch)
        got = outcomes(runtime, url, ["alice", "bob", "carol"], lambda: sent.wait(10))

        assert got[1:] == ["bob", "carol"]
        assert got[0] == first or first is None


@pytest.mark.parametrize("late", [EVIL, EVIL[:1]], ids=["whole", "a byte"])
def test_what_comes_late_through_a_proxy_is_nobodys(
    runtime: Runtime, tls: ssl.SSLContext | None, late: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, sent = threading.Event(), threading.Event()

    def send_later(connection: Connection) -> None:
        connection.receive()
        connection.send(response("alice"))
        answered.wait(10)
        with contextlib.suppress(OSError):  # it may be closed, and need not be used again
            connection.send(late)
        sent.set()
        while connection.receive():
            connection.send(EVIL)

    def between() -> None:
        answered.set()
        assert sent.wait(10)

    with raw_server(
        send_later, serve_the_user_asked_for, tls=tls, tunnels=tls is not None
    ) as proxy:
        url = through(proxy, monkeypatch)

        assert outcomes(runtime, url, ["alice", "bob"], between) == ["alice", "bob"]


def test_a_lost_idle_connection_costs_no_attempt(
    runtime: Runtime, tls: ssl.SSLContext | None
) -> None:
    """It ends as the request arrives, which nobody can see before; the server is all right."""

    def serve_once_and_go(connection: Connection) -> None:
        connection.receive()
        connection.send(response("alice"))
        connection.receive()

    with raw_server(serve_once_and_go, serve_the_user_asked_for, tls=tls) as server:
        assert outcomes(runtime, server.url, ["alice", "bob"]) == ["alice", "bob"]
        assert server.connections == 2


def test_eight_lost_idle_connections_cost_no_attempt_either(runtime: Runtime) -> None:
    """As after a balancer's failover: another idle connection would be no better."""
    all_busy = threading.Barrier(8, timeout=30)

    def serve_once_and_break(connection: Connection) -> None:
        connection.receive()
        all_busy.wait(10)
        connection.send(response("warm"))
        connection.receive()
        connection.reset()

    with raw_server(*[serve_once_and_break] * 8, serve_the_user_asked_for) as server:
        options: Any = {
            "api_key": KEY, "workflow_id": WORKFLOW, "base_url": server.url, "max_retries": 0
        }  # fmt: skip
        if runtime == "sync":
            with ChatKitClient(**options) as sync, ThreadPoolExecutor(8) as threads:
                list(threads.map(sync.create_session, ["warm"] * 8))
                assert sync.create_session("alice").user == "alice"
        else:

            async def main() -> None:
                async with AsyncChatKitClient(**options) as chatkit:
                    async with anyio.create_task_group() as tasks:
                        for _ in range(8):
                            tasks.start_soon(chatkit.create_session, "warm")
                    assert (await chatkit.create_session("alice")).user == "alice"

            run(runtime, main)

        assert server.connections == 9


def test_a_new_connection_that_is_lost_is_an_error(runtime: Runtime) -> None:
    def serve_once_and_go(connection: Connection) -> None:
        connection.receive()
        connection.send(response("alice"))
        connection.receive()

    def go(connection: Connection) -> None:
        connection.receive()

    with raw_server(serve_once_and_go, go) as server:
        assert outcomes(runtime, server.url, ["alice", "bob"]) == ["alice", "APIConnectionError"]
        assert server.connections == 2


def test_a_response_that_has_begun_is_not_asked_for_again(runtime: Runtime) -> None:
    def serve_once_and_begin(connection: Connection) -> None:
        connection.receive()
        connection.send(response("alice"))
        connection.receive()
        connection.send(b"H")

    with raw_server(serve_once_and_begin) as server:
        assert outcomes(runtime, server.url, ["alice", "bob"]) == ["alice", "APIConnectionError"]
        assert server.connections == 1


STAGES = {
    "silence": b"",
    "silence within the head": b"HTTP/1.1 200 OK\r\nconte",
    "silence within the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    "silence within chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
    "no status": b"HTTP/1.1 fine\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "no header": b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "too large a head": b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000,
    "too large a body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b" " * 2_000_000,
    "no end": b"HTTP/1.1 500 No\r\n\r\n" + b" " * 200_000,
}


class Seen:
    """What a server sees of the connection of a call that ends at its deadline, or before."""

    def __init__(self) -> None:
        self.begun, self.gone = threading.Event(), threading.Event()

    def by(self, script: Callable[[Connection], None]) -> Callable[[Connection], None]:
        """The script, watched."""

        def watched(connection: Connection) -> None:
            self.begun.set()
            try:
                script(connection)
            finally:
                self.gone.set()

        return watched

    def outcome(self, runtime: Runtime, url: str) -> str:
        """The outcome of the call; `gone` tells of the time while its client is open."""
        outcome = ""
        while not self.begun.is_set():  # a busy machine may not even connect in time
            (outcome,) = outcomes(
                runtime,
                url,
                ["alice"],
                lambda: self.begun.wait(1) and self.gone.wait(10),
                timeout=0.1,
            )
        return outcome


# Under trio, of the generators in which httpx wraps a body that is too large to be read.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("stage", STAGES)
def test_every_failure_closes_its_connection(
    runtime: Runtime, tls: ssl.SSLContext | None, stage: str
) -> None:
    seen = Seen()

    def fail(connection: Connection) -> None:
        connection.receive()
        connection.send(STAGES[stage])
        connection.wait_for_the_client_to_go()

    with raw_server(seen.by(fail), tls=tls) as server:
        assert seen.outcome(runtime, server.url).endswith("Error")
        assert seen.gone.is_set(), "while the client is open"


def test_a_handshake_without_end_closes_its_connection(runtime: Runtime) -> None:
    seen = Seen()
    with raw_server(seen.by(Connection.wait_for_the_client_to_go)) as server:
        url = server.url.replace("http:", "https:")

        assert seen.outcome(runtime, url) == "APITimeoutError"
        assert seen.gone.is_set(), "while the client is open"


def socks_proxies() -> dict[str, Callable[[Connection], None]]:
    def silent(connection: Connection) -> None:
        connection.wait_for_the_client_to_go()

    def no_method(connection: Connection) -> None:
        connection.receive_bytes(3)
        connection.send(b"\x05\xff")
        connection.wait_for_the_client_to_go()

    def silent_later(connection: Connection) -> None:
        connection.receive_bytes(3)
        connection.send(b"\x05\x00")
        connection.wait_for_the_client_to_go()

    def no_way(connection: Connection) -> None:
        connection.receive_bytes(3)
        connection.send(b"\x05\x00")
        connection.receive_bytes(10)
        connection.send(b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")
        connection.wait_for_the_client_to_go()

    def no_handshake(connection: Connection) -> None:
        connection.receive_bytes(3)
        connection.send(b"\x05\x00")
        connection.receive_bytes(10)
        connection.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        connection.wait_for_the_client_to_go()

    return {each.__name__: each for each in (silent, no_method, silent_later, no_way, no_handshake)}


@pytest.mark.parametrize("stage", socks_proxies())
def test_every_stage_with_a_socks_proxy_ends_at_the_deadline_and_closes(
    runtime: Runtime, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("socksio")
    seen = Seen()
    with raw_server(seen.by(socks_proxies()[stage])) as server:
        monkeypatch.setenv("ALL_PROXY", server.url.removesuffix("/v1").replace("http", "socks5"))

        assert seen.outcome(runtime, REMOTE) in {"APITimeoutError", "APIConnectionError"}
        assert seen.gone.is_set(), "while the client is open"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_stage_with_an_http_proxy_ends_at_the_deadline_and_closes(
    runtime: Runtime, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()

    def establish(connection: Connection) -> None:
        connection.receive()
        connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        connection.wait_for_the_client_to_go()

    with raw_server(seen.by(establish)) as server:
        url = server.url.removesuffix("/v1").replace("http:", f"{scheme}:")
        monkeypatch.setenv("HTTPS_PROXY", url)

        assert seen.outcome(runtime, REMOTE) in {"APITimeoutError", "APIConnectionError"}
        assert seen.gone.is_set() or scheme == "https", "while the client is open"


def test_connections_can_be_shown_in_a_traceback() -> None:
    assert repr(Connections(connect)) == "<Connections>"
