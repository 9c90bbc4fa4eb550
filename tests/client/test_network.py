"""Calls over bad networks, against real sockets: every fault ends in a session or a typed error."""

import asyncio
import gc
import gzip
import itertools
import json
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trustme

from chatkit_sessions import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKitClient,
    ChatKitClient,
    ConfigurationError,
    InternalServerError,
)
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._http import sync_network
from chatkit_sessions.testing import FakeChatKit, FakeServer
from raw_server import Connection, raw_server, serve_sessions
from support import (
    KEY,
    NEW_SECRET,
    WORKFLOW,
    Connect,
    Kind,
    Script,
    Ticking,
    Time,
    new_uvloop,
    session_json,
)

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BODY = json.dumps(session_json()).encode()


@pytest.fixture(params=["sync", "async", "uvloop"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


def once(fault: Callable[[Connection], None]) -> Callable[[Connection], None]:
    """A fault that comes after the request has been read."""

    def script(connection: Connection) -> None:
        connection.receive()
        fault(connection)

    return script


# A connection that fails


def reset(connection: Connection) -> None:
    connection.reset()


@pytest.mark.parametrize(
    "fault",
    [
        once(reset),
        once(lambda _: None),
        once(lambda connection: connection.send(b"HTTP/1.1 200 OK\r\ncont")),
        once(lambda connection: connection.send(HEAD + b"content-length: 999\r\n\r\n" + BODY)),
        once(lambda c: c.send(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nab")),
        once(lambda c: c.send(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nab")),
        once(lambda connection: connection.send(b"this is no HTTP\r\n\r\n")),
        once(lambda connection: connection.send(b"HTTP/1.1 abc OK\r\n\r\n")),
        reset,
    ],
    ids=[
        "reset", "closed", "head cut off", "body cut off", "chunks cut off", "broken chunk",
        "no HTTP", "no status", "reset at once",
    ],
)  # fmt: skip
def test_an_answer_that_breaks_off_is_asked_for_again(
    connect: Connect, time: Time, fault: Callable[[Connection], None]
) -> None:
    with raw_server(fault, serve_sessions) as server:
        chatkit = connect(base_url=server.url)

        session = chatkit.create_session("user_123")

        assert session.client_secret.get_secret_value() == NEW_SECRET
        assert time.sleeps == [0.5]


def test_it_is_a_connection_error_when_that_does_not_help(connect: Connect) -> None:
    with raw_server(once(reset)) as server:
        chatkit = connect(base_url=server.url)

        with pytest.raises(APIConnectionError):
            chatkit.create_session("user_123")

        assert server.connections == 3


def test_an_idle_connection_that_the_server_closed_is_replaced(connect: Connect) -> None:
    def answer_once(connection: Connection) -> None:
        connection.receive()
        connection.answer()

    with raw_server(answer_once) as server:
        chatkit = connect(base_url=server.url, max_retries=1)

        for _ in range(3):
            assert chatkit.create_session("user_123").id == "cksess_new"


def test_connections_are_kept_open_between_calls(connect: Connect) -> None:
    with raw_server(serve_sessions) as server:
        chatkit = connect(base_url=server.url)

        for _ in range(5):
            chatkit.create_session("user_123")

        assert server.connections == 1


# An answer that never ends


def drip_head(connection: Connection) -> None:
    connection.send(HEAD)
    while not connection.stop.is_set():
        connection.send(b"x" * 100)


def drip_header_lines(connection: Connection) -> None:
    connection.send(HEAD)
    for number in itertools.count():
        connection.send(b"x-%d: y\r\n" % number)


def endless_interim_answers(connection: Connection) -> None:
    while not connection.stop.is_set():
        connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")


def endless_body(connection: Connection) -> None:
    connection.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while not connection.stop.is_set():
        connection.send(b"1\r\n \r\n")


@pytest.mark.parametrize(
    "fault", [endless_interim_answers, endless_body], ids=["interim answers", "body"]
)
def test_the_sync_client_ends_an_answer_without_end_at_its_deadline(
    fault: Callable[[Connection], None],
) -> None:
    ticking = Ticking()
    with (
        raw_server(once(fault)) as server,
        ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=server.url, timeout=30, max_retries=0
        ) as chatkit,
    ):
        chatkit._sessions.io.runtime = chatkit._sessions.io.runtime._replace(
            monotonic=lambda: ticking.monotonic
        )
        with pytest.raises((APITimeoutError, APIResponseValidationError)):
            chatkit.create_session("user_123")


@pytest.mark.parametrize("fault", [drip_head, drip_header_lines], ids=["one line", "many lines"])
def test_a_head_without_end_is_bounded(
    connect: Connect, fault: Callable[[Connection], None]
) -> None:
    tracemalloc.start()
    try:
        with raw_server(once(fault)) as server:
            chatkit = connect(base_url=server.url, max_retries=0)

            with pytest.raises(APIConnectionError):
                chatkit.create_session("user_123")

            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def hang(connection: Connection) -> None:
    connection.wait_for_the_client_to_go()


def hang_within_the_head(connection: Connection) -> None:
    connection.send(HEAD)
    connection.wait_for_the_client_to_go()


def hang_within_the_body(connection: Connection) -> None:
    connection.send(HEAD + b"content-length: 999\r\n\r\n{")
    connection.wait_for_the_client_to_go()


@pytest.mark.parametrize("fault", [hang, hang_within_the_head, hang_within_the_body])
def test_a_server_that_falls_silent_is_left_at_the_deadline(
    connect: Connect, fault: Callable[[Connection], None]
) -> None:
    with raw_server(once(fault)) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        with pytest.raises(APITimeoutError):
            chatkit.create_session("user_123", timeout=0.02)


def never_read(connection: Connection) -> None:
    connection.stop.wait()


def test_a_server_that_does_not_read_is_left_at_the_deadline(connect: Connect) -> None:
    with raw_server(never_read) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        with pytest.raises(APITimeoutError):
            chatkit.create_session("u" * 16 * MIB, timeout=0.2)


# An answer that is too large


def oversize(connection: Connection) -> None:
    connection.send(HEAD + b"content-length: 734003200\r\n\r\n")
    for _ in range(700):
        connection.send(b" " * MIB)


def oversize_error(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 500 No\r\nx-request-id: req_big\r\n\r\n")
    for _ in range(700):
        connection.send(b"x" * MIB)


def bomb(connection: Connection) -> None:
    """A gzip of 256 MiB that lacks its end: its parts are alike, and only two are compressed."""
    packer = zlib.compressobj(9, wbits=31)
    first, other = (packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    body = first + other * 255
    head = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    connection.send(HEAD + head + body)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (oversize, APIResponseValidationError),
        (bomb, APIResponseValidationError),
        (oversize_error, InternalServerError),
    ],
    ids=["700 MiB", "256 MiB in a gzip", "700 MiB of error"],
)
def test_memory_does_not_grow_with_the_answer(
    connect: Connect, fault: Callable[[Connection], None], error: type[Exception]
) -> None:
    with raw_server(once(fault)) as server:
        chatkit = connect(base_url=server.url, max_retries=0)
        tracemalloc.start()
        try:
            with pytest.raises(error):
                chatkit.create_session("user_123")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 8 * MIB, "the bound of 1 MiB, its copies, and what the server's thread sends"


def test_an_oversized_error_is_judged_by_its_status(connect: Connect) -> None:
    with raw_server(once(oversize_error)) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        with pytest.raises(InternalServerError) as caught:
            chatkit.create_session("user_123")

    assert caught.value.request_id == "req_big"
    assert isinstance(caught.value.body, str)
    assert len(caught.value.body) <= 64 * 1024


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY)), ("identity", BODY)],
)
def test_a_compressed_answer_is_read_although_none_was_asked_for(
    connect: Connect, coding: str, body: bytes
) -> None:
    def compressed(connection: Connection) -> None:
        connection.receive()
        connection.answer(body, headers=f"content-encoding: {coding}\r\n")

    with raw_server(compressed) as server:
        session = connect(base_url=server.url).create_session("user_123")

        assert session.client_secret.get_secret_value() == NEW_SECRET
        assert b"accept-encoding: identity" in server.requests[0].lower()


# Nothing leaves for another place


def test_a_redirect_takes_neither_key_nor_user_to_another_host(connect: Connect) -> None:
    with raw_server(serve_sessions) as elsewhere:

        def redirect(connection: Connection) -> None:
            connection.receive()
            target = f"location: {elsewhere.url}/chatkit/sessions\r\n"
            connection.answer(b"", status="307 Temporary Redirect", headers=target)

        with raw_server(redirect) as server:
            chatkit = connect(base_url=server.url)

            with pytest.raises(APIStatusError, match="A redirect to http://127") as caught:
                chatkit.create_session("user_123")

        assert caught.value.status_code == 307
        assert elsewhere.connections == 0


def test_a_remote_call_goes_through_the_proxy_of_the_environment(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(serve_sessions) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", "direct.test")
        chatkit = connect(base_url="http://remote.test/v1", allow_insecure_http=True)

        chatkit.create_session("user_123")

        assert proxy.requests[0].startswith(b"POST http://remote.test/v1/chatkit/sessions ")


def test_a_host_without_proxy_is_called_directly(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(serve_sessions) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        monkeypatch.setenv("NO_PROXY", "direct.invalid")
        chatkit = connect(
            base_url="http://direct.invalid/v1", allow_insecure_http=True, max_retries=0
        )

        with pytest.raises(APIConnectionError):
            chatkit.create_session("user_123")

        assert proxy.connections == 0


@pytest.mark.parametrize("proxy", ["gopher://x.test", "http://x.test:port"])
def test_a_proxy_that_cannot_be_used_is_told_when_the_client_is_made(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        connect()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, whose authority the clients of this test trust."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return context


def test_works_over_tls(connect: Connect, tls: ssl.SSLContext) -> None:
    with raw_server(serve_sessions, tls=tls) as server:
        chatkit = connect(base_url=server.url)

        assert chatkit.create_session("user_123").id == "cksess_new"
        assert chatkit.create_session("user_123").id == "cksess_new"
        assert server.connections == 1


def test_works_over_tls_under_trio(tls: ssl.SSLContext) -> None:
    async def main(url: str) -> None:
        async with AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url) as chatkit:
            for _ in range(2):
                assert (await chatkit.create_session("user_123")).id == "cksess_new"

    with raw_server(serve_sessions, tls=tls) as server:
        trio.run(main, server.url)

        assert server.connections == 1


def test_a_tls_handshake_that_is_cancelled_under_trio_closes_its_connection() -> None:
    begun, gone = threading.Event(), threading.Event()

    def never_shake_hands(connection: Connection) -> None:
        connection.receive_bytes(1)
        begun.set()
        connection.wait_for_the_client_to_go()
        gone.set()

    async def main(url: str) -> None:
        async with AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url) as chatkit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chatkit.create_session, "user_123")
                await trio.to_thread.run_sync(begun.wait)
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(gone.wait, 30), "while the client is open"

    with raw_server(never_shake_hands) as server:
        trio.run(main, server.url.replace("http:", "https:"))


def test_a_certificate_that_is_not_trusted_is_a_connection_error(
    connect: Connect, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with raw_server(serve_sessions, tls=tls) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        with pytest.raises(APIConnectionError, match="certificates"):
            chatkit.create_session("user_123")

        assert server.requests == []


def test_a_tls_handshake_that_hangs_ends_at_the_deadline(connect: Connect) -> None:
    with raw_server(hang) as server:
        chatkit = connect(base_url=server.url.replace("http:", "https:"), max_retries=0)

        with pytest.raises(APITimeoutError):
            chatkit.create_session("user_123", timeout=0.05)


# Our own connections


def addresses(*hosts: str) -> Callable[..., object]:
    """A resolver to which every name is these addresses."""
    real = socket.getaddrinfo

    def resolve(host: bytes | str, port: int, *hints: int, **options: int) -> object:
        if not (isinstance(host, bytes) and host.endswith(b".test")):
            return real(host, port, *hints, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    return resolve


NO_LIMIT = Deadline.after(None, lambda: 0.0)


def test_a_hosts_addresses_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(serve_sessions) as server:
        monkeypatch.setattr(socket, "getaddrinfo", addresses("127.0.0.2", "127.0.0.1"))
        url = server.url.replace("127.0.0.1", "two.test")
        with ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=url, allow_insecure_http=True, max_retries=0
        ) as chatkit:
            assert chatkit.create_session("user_123").id == "cksess_new"


def test_a_family_that_this_machine_lacks_is_one_address_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.socket

    def no_ipv6(family: int, kind: int, *accepted: int, **options: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        return real(family, kind, *accepted, **options)

    def resolve(_: bytes, port: int, **__: int) -> object:
        kind = socket.SOCK_STREAM, 6, ""
        return [
            (socket.AF_INET6, *kind, ("::1", port, 0, 0)),
            (socket.AF_INET, *kind, ("127.0.0.1", port)),
        ]

    with raw_server(serve_sessions) as server:
        port = urlsplit(server.url).port or 0
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", resolve)
            patched.setattr(socket, "socket", no_ipv6)
            stream = run_blocking(sync_network.connect, "two.test", port, NO_LIMIT)
        stream.close()


def test_ipv6_addresses_are_called(connect: Connect) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with raw_server(serve_sessions, host="::1") as server:
        assert connect(base_url=server.url).create_session("user_123").id == "cksess_new"

        assert f"\r\nHost: {urlsplit(server.url).netloc}\r\n".encode() in server.requests[0]


def test_the_last_address_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses("127.0.0.2", "127.0.0.3"))

    with pytest.raises(ConnectionRefusedError):
        run_blocking(sync_network.connect, "two.test", 9, NO_LIMIT)


def test_an_interrupt_while_connecting_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(socket.socket):
        def connect(self, _: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, "getaddrinfo", addresses("127.0.0.2", "127.0.0.3"))
    monkeypatch.setattr(socket, "socket", Interrupted)

    with pytest.raises(KeyboardInterrupt):  # an open socket would warn, and a warning is an error
        run_blocking(sync_network.connect, "two.test", 9, NO_LIMIT)


def test_addresses_share_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    given: list[float | None] = []

    class Silent(socket.socket):
        def connect(self, _: object) -> None:
            given.append(self.gettimeout())
            clock.advance(self.gettimeout() or 0)
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "getaddrinfo", addresses("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    monkeypatch.setattr(socket, "socket", Silent)
    deadline = Deadline.after(3, lambda: clock.monotonic)

    with pytest.raises(TimeoutError):
        run_blocking(sync_network.connect, "three.test", 9, deadline)

    assert given == pytest.approx([1.0, 1.0, 1.0])


def test_a_wait_gets_only_what_the_deadline_leaves() -> None:
    clock = Time()
    deadline = Deadline.after(3, lambda: clock.monotonic)
    with raw_server(hang) as server:
        port = urlsplit(server.url).port or 0
        stream = run_blocking(sync_network.connect, "127.0.0.1", port, deadline)
        clock.advance(3)

        with pytest.raises(TimeoutError):
            run_blocking(stream.receive, deadline)
        with pytest.raises(TimeoutError):
            run_blocking(stream.send, b"x", deadline)
        with pytest.raises(TimeoutError):
            run_blocking(sync_network.connect, "127.0.0.1", port, deadline)
        stream.close()


MUCH = {"note": "x" * (3 * MIB)}


# Sockets of threads and of trio do not look at what comes while they send.
@pytest.mark.parametrize(
    ("runtime", "ends"),
    [
        *itertools.product(["sync", "asyncio", "uvloop", "trio"], ["resets", "closes"]),
        ("asyncio", "stays"),
        ("uvloop", "stays"),
    ],
)
@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_a_response_that_comes_before_the_request_is_read_is_returned(
    runtime: str, request: pytest.FixtureRequest, ends: str, *, over_tls: bool
) -> None:
    """Of 3 MB, more than a socket's buffer takes; a server may refuse it by its head."""
    calls = 1 if ends == "stays" else 2  # one connection at a time is served

    def refuse(connection: Connection) -> None:
        connection.receive_head()
        connection.answer(b"{}", status="413 Too Large")
        if ends == "resets":
            connection.reset()
        elif ends == "stays":
            connection.stop.wait()

    async def ask(chatkit: AsyncChatKitClient) -> None:
        async with chatkit:
            for _ in range(calls):
                with pytest.raises(APIStatusError) as caught:
                    await chatkit.create_session("user_123", state_variables=MUCH)
                assert caught.value.status_code == 413

    context = request.getfixturevalue("tls") if over_tls else None
    with raw_server(refuse, tls=context) as server:
        if runtime == "sync":
            with ChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=server.url, max_retries=0
            ) as sync:
                for _ in range(calls):
                    with pytest.raises(APIStatusError) as caught:
                        sync.create_session("user_123", state_variables=MUCH)
                    assert caught.value.status_code == 413
        else:
            chatkit = AsyncChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=server.url, max_retries=0
            )
            if runtime == "trio":
                trio.run(ask, chatkit)
            else:
                factory = new_uvloop if runtime == "uvloop" else None
                with asyncio.Runner(loop_factory=factory) as runner:
                    runner.run(ask(chatkit))

        assert server.connections == calls


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_a_request_of_any_size_arrives_whole(
    connect: Connect, request: pytest.FixtureRequest, *, over_tls: bool
) -> None:
    context = request.getfixturevalue("tls") if over_tls else None
    with raw_server(serve_sessions, tls=context) as server:
        connect(base_url=server.url).create_session("user_123", state_variables=MUCH)

        body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert body["workflow"]["state_variables"] == MUCH


# Nothing is left behind


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc, which is not here"
)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@needs_proc
def test_faults_leave_no_connection_behind(connect: Connect) -> None:
    faults = [hang, bomb, oversize_error, drip_header_lines]
    with raw_server(*(once(fault) for fault in faults), serve_sessions) as server:
        chatkit = connect(base_url=server.url, max_retries=0)
        gc.collect()
        descriptors, threads = open_descriptors(), set(threading.enumerate())

        for _ in faults:
            with pytest.raises(Exception, match=r".") as caught:
                chatkit.create_session("user_123", timeout=0.1)
            assert type(caught.value).__module__ == "chatkit_sessions.errors"
            del caught
        chatkit.create_session("user_123")

    chatkit.close()
    gc.collect()
    assert open_descriptors() <= descriptors  # the server's listening socket has gone as well
    assert not set(threading.enumerate()) - threads


def test_cancelled_tasks_leave_no_connection_behind() -> None:
    arrived, gone = threading.Barrier(21, timeout=30), threading.Barrier(21, timeout=30)

    def hang_until_gone(connection: Connection) -> None:
        connection.receive()
        arrived.wait()
        connection.wait_for_the_client_to_go()
        gone.wait()

    async def main(url: str) -> None:
        async with AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url) as chatkit:
            tasks = [asyncio.create_task(chatkit.create_session("user_123")) for _ in range(20)]
            await asyncio.to_thread(arrived.wait)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)

            assert all(isinstance(result, asyncio.CancelledError) for result in ended)
            assert len(asyncio.all_tasks()) == 1
            await asyncio.to_thread(gone.wait)

    with raw_server(hang_until_gone) as server:
        asyncio.run(main(server.url))


# Threads and processes


def test_sixty_four_threads_lose_and_mix_nothing(fake: FakeChatKit, server: FakeServer) -> None:
    users = [f"user_{n}" for n in range(640)]
    with (
        ChatKitClient(api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url) as chatkit,
        ThreadPoolExecutor(64) as threads,
    ):
        sessions = list(threads.map(chatkit.create_session, users))

    assert [session.user for session in sessions] == users
    assert len({session.client_secret.get_secret_value() for session in sessions}) == 640


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork() on Windows")
def test_a_client_works_on_both_sides_of_a_fork_without_sharing_a_socket() -> None:
    """In a process of its own, because pytest's has threads, over which forking is unsafe."""
    script = textwrap.dedent(
        """
        import os, sys
        from chatkit_sessions import ChatKitClient, AsyncChatKitClient
        import asyncio

        async def create(chatkit):
            return (await chatkit.create_session("user_123")).id

        chatkit = ChatKitClient(api_key="sk-1", workflow_id="wf_test", base_url=sys.argv[1])
        chatkit_async = AsyncChatKitClient(
            api_key="sk-1", workflow_id="wf_test", base_url=sys.argv[1]
        )
        session = chatkit.create_session("user_123")
        asyncio.run(create(chatkit_async))
        child = os.fork()
        if child == 0:
            ok = chatkit.create_session("user_123").id == session.id
            ok = ok and asyncio.run(create(chatkit_async)) == session.id
            ok = ok and chatkit.get_session(session.id).id == session.id
            chatkit.close()
            os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        chatkit.create_session("user_123")
        print("both", "sides")
        """
    )
    with raw_server(serve_sessions) as server:
        done = subprocess.run(  # noqa: S603 -- our own script
            [sys.executable, "-c", script, server.url],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert (done.stdout, done.returncode) == ("both sides\n", 0), done.stderr
        # One of the parent's sync client, which it went on using after the fork; one of its async
        # client, which ended with its loop; and one of each of the child's.
        assert server.connections == 4


def test_a_broken_answer_that_a_hook_reads_is_not_asked_for_again(connect: Connect) -> None:
    async def aread(response: httpx.Response) -> None:
        await response.aread()

    def read(response: httpx.Response) -> None:
        response.read()

    def broken(_: httpx.Request) -> httpx.Response:
        stream = httpx.ByteStream(b"this is no gzip")
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=stream)

    script = Script([broken])
    hook = read if connect.kind == "sync" else aread
    chatkit = connect(script, http_options={"event_hooks": {"response": [hook]}})

    with pytest.raises(APIConnectionError) as caught:
        chatkit.create_session("user_123")

    assert caught.value.answered
    assert len(script.requests) == 1, "a session may exist"


def test_a_user_who_read_the_body_in_a_hook_gets_the_session(connect: Connect) -> None:
    async def aread(response: httpx.Response) -> None:
        await response.aread()

    def read(response: httpx.Response) -> None:
        response.read()

    hook = read if connect.kind == "sync" else aread

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(BODY))
        )

    chatkit = connect(
        httpx.MockTransport(answer), http_options={"event_hooks": {"response": [hook]}}
    )

    assert chatkit.create_session("user_123").id == "cksess_new"
