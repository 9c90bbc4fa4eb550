"""The local API over real HTTP, on the loopback interface."""

from __future__ import annotations

import errno
import json
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from chatkit_sessions.testing import FakeChatKit, FakeServer, server as server_module
from support import NO_AUTHORITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = {"Authorization": "Bearer sk-test", "OpenAI-Beta": "chatkit_beta=v1"}
BODY = {"user": "alice", "workflow": {"id": "wf_test"}}
CREATE_HEAD = (
    b"POST /v1/chatkit/sessions HTTP/1.1\r\nHost: fake\r\n"
    b"Authorization: Bearer sk-test\r\nOpenAI-Beta: chatkit_beta=v1\r\n"
)
OPEN_FILES = Path("/proc/self/fd")


def open_files() -> int:
    return sum(1 for _ in OPEN_FILES.iterdir())


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeChatKit().serve() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=server.url, headers=HEADERS, trust_env=False, verify=NO_AUTHORITIES
    ) as connected:
        yield connected


def connect(server: FakeServer) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=10)


def exchange(server: FakeServer, sent: bytes) -> bytes:
    """Send bytes, say that there are no more, and return all that comes back."""
    with connect(server) as connection, connection.makefile("rb") as answers:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return answers.read()


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def test_says_where_it_is_and_what_opens_it() -> None:
    fake = FakeChatKit(api_key="sk-mine", workflow_id="wf_mine")

    with fake.serve() as server:
        address = urlsplit(server.url)

        assert (address.scheme, address.hostname, address.path) == ("http", "127.0.0.1", "/v1")
        assert (server.api_key, server.workflow_id) == ("sk-mine", "wf_mine")
        assert server.fake is fake


def test_answers_over_http(client: httpx.Client, server: FakeServer) -> None:
    response = client.post("/chatkit/sessions", json=BODY)

    assert response.status_code == 200
    assert response.json()["user"] == "alice"
    assert response.headers["content-type"] == "application/json"
    server.fake.assert_created(user="alice", times=1)


def test_records_requests_as_they_were_sent(client: httpx.Client, server: FakeServer) -> None:
    client.post("/chatkit/sessions?q=%20", json=BODY)

    (request,) = server.fake.requests
    assert (request.method, request.path) == ("POST", "/v1/chatkit/sessions?q=%20")
    assert request.headers["authorization"] == "Bearer sk-test"
    assert request.json == BODY


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_leaves_every_verb_to_the_api(client: httpx.Client, method: str) -> None:
    response = client.request(method, "/chatkit/sessions")

    assert response.status_code == 405


def test_keeps_the_connection_after_head(client: httpx.Client) -> None:
    assert client.head("/chatkit/sessions").content == b""
    assert client.post("/chatkit/sessions", json=BODY).status_code == 200


def test_answers_many_requests_over_one_connection(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[object] = []
    accept = server_module._Listener.process_request

    def count(listener: server_module._Listener, request: object, address: object) -> None:
        accepted.append(address)
        accept(listener, request, address)

    monkeypatch.setattr(server_module._Listener, "process_request", count)

    answers = [client.post("/chatkit/sessions", json=BODY) for _ in range(20)]

    assert {answer.status_code for answer in answers} == {200}
    assert len(accepted) == 1


def test_sends_each_answer_in_one_write(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    setup = server_module._Connection.setup

    class Writer:
        def __init__(self, inner: Any) -> None:  # noqa: ANN401 - the standard library's own
            self.inner = inner

        def write(self, data: bytes) -> int:
            written.append(data)
            count: int = self.inner.write(data)
            return count

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    def watched_setup(connection: server_module._Connection) -> None:
        setup(connection)
        monkeypatch.setattr(connection, "wfile", Writer(connection.wfile))

    monkeypatch.setattr(server_module._Connection, "setup", watched_setup)

    response = client.post("/chatkit/sessions", json=BODY)

    (answer,) = written
    assert answer.endswith(b"\r\n\r\n" + response.content)


def test_serves_several_clients_at_once(server: FakeServer) -> None:
    def create_ten() -> None:
        with httpx.Client(
            base_url=server.url, headers=HEADERS, trust_env=False, verify=NO_AUTHORITIES
        ) as client:
            for _ in range(10):
                client.post("/chatkit/sessions", json=BODY).raise_for_status()

    clients = [threading.Thread(target=create_ten) for _ in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()

    server.fake.assert_created(times=40)


def test_answers_a_status_that_http_has_no_name_for(
    client: httpx.Client, server: FakeServer
) -> None:
    server.fake.fail_next(529)

    assert client.post("/chatkit/sessions", json=BODY).status_code == 529


def test_answers_204_without_a_body(client: httpx.Client, server: FakeServer) -> None:
    server.fake.fail_next(204)

    assert client.post("/chatkit/sessions", json=BODY).content == b""
    assert client.post("/chatkit/sessions", json=BODY).status_code == 200


class TestRequestsOfOtherClients:
    def test_without_a_length_have_no_body(self, server: FakeServer) -> None:
        received = exchange(server, CREATE_HEAD + b"\r\n")

        assert b"We could not parse the JSON body" in received

    @pytest.mark.parametrize(
        "lengths",
        [
            b"Content-Length: five",
            b"Content-Length: -1",
            b"Content-Length: +1",
            b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: " + b"9" * 5000,
        ],
        ids=["word", "negative", "signed", "two", "endless"],
    )
    def test_with_a_bad_length_are_refused(self, server: FakeServer, lengths: bytes) -> None:
        received = exchange(server, CREATE_HEAD + lengths + b"\r\n\r\n{}")

        assert statuses(received) == [400]
        assert b"connection: close" in received
        assert b'"type":"invalid_request_error"' in received

    def test_may_come_in_chunks(self, server: FakeServer) -> None:
        body = json.dumps(BODY).encode()
        chunks = b"A;note=1\r\n%b\r\n%X\r\n%b\r\n0\r\nTrailer: 1\r\n\r\n" % (
            body[:10],
            len(body) - 10,
            body[10:],
        )

        received = exchange(
            server,
            CREATE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + CREATE_HEAD + b"\r\n",
        )

        assert statuses(received) == [200, 400]
        server.fake.assert_created(user="alice", times=1)

    @pytest.mark.parametrize("size", [b"-1", b"x", b"", b"0x1", b"1_0"])
    def test_with_bad_chunks_are_refused(self, server: FakeServer, size: bytes) -> None:
        head = CREATE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

        received = exchange(server, head + size + b"\r\n{}\r\n")

        assert statuses(received) == [400]

    def test_in_another_coding_are_refused(self, server: FakeServer) -> None:
        received = exchange(server, CREATE_HEAD + b"Transfer-Encoding: gzip\r\n\r\n")

        assert statuses(received) == [501]

    def test_that_are_no_http_are_refused(self, server: FakeServer) -> None:
        received = exchange(server, b"what is this nonsense\r\n\r\n")

        assert statuses(received) == [400]
        assert b'"error"' in received

    def test_may_wait_for_100_continue(self, server: FakeServer) -> None:
        with connect(server) as connection, connection.makefile("rb") as answers:
            connection.sendall(CREATE_HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            first = answers.readline()
            answers.readline()
            connection.sendall(b"{}")
            second = answers.readline()

        assert (first.split()[1], second.split()[1]) == (b"100", b"400")

    def test_that_are_too_long_are_refused_and_still_answered(
        self, client: httpx.Client, server: FakeServer
    ) -> None:
        response = client.post("/chatkit/sessions", content=b"x" * (16 * 1024 * 1024 + 1))

        assert response.status_code == 413
        assert "longer than 16777216 bytes" in response.json()["error"]["message"]
        assert server.fake.requests == ()

    def test_that_are_too_long_are_refused_in_chunks_too(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "MAX_LOCAL_BODY", 4)
        chunks = b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"

        received = exchange(server, CREATE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

        assert statuses(received) == [413]
        assert b"longer than 4 bytes" in received
        assert server.fake.requests == ()

    def test_of_the_greatest_length_are_taken(self, client: httpx.Client) -> None:
        padded = b'{"user": "alice", "workflow": {"id": "wf_test"}}'.ljust(16 * 1024 * 1024)

        assert client.post("/chatkit/sessions", content=padded).status_code == 200


class TestQuiet:
    @pytest.mark.parametrize(
        "sent",
        [b"", b"POST /v1", CREATE_HEAD, CREATE_HEAD + b"Content-Length: 10\r\n\r\nhalf"],
        ids=["nothing", "half a line", "half a head", "half a body"],
    )
    def test_when_a_client_leaves(self, capfd: pytest.CaptureFixture[str], sent: bytes) -> None:
        with FakeChatKit().serve() as server, connect(server) as connection:
            connection.sendall(sent)
            connection.close()

        assert capfd.readouterr() == ("", "")

    def test_about_requests(self, capfd: pytest.CaptureFixture[str], client: httpx.Client) -> None:
        client.post("/chatkit/sessions", json=BODY)
        client.get("/nothing")

        assert capfd.readouterr() == ("", "")


class TestEnd:
    def test_leaves_no_thread_although_connections_are_open(self) -> None:
        before = set(threading.enumerate())

        with FakeChatKit().serve() as server:
            clients = [connect(server) for _ in range(5)]
            for connection in clients:
                connection.sendall(CREATE_HEAD + b"\r\n")
                assert connection.recv(1)

        assert set(threading.enumerate()) <= before
        for connection in clients:
            with connection:
                assert connection.recv(65_536)
                assert connection.recv(1) == b""

    @pytest.mark.skipif(not OPEN_FILES.exists(), reason="open files are not listed here")
    def test_leaves_no_socket(self) -> None:
        fake = FakeChatKit()
        before = open_files()

        for _ in range(3):
            with (
                fake.serve() as server,
                httpx.Client(headers=HEADERS, trust_env=False, verify=NO_AUTHORITIES) as client,
            ):
                client.post(f"{server.url}/chatkit/sessions", json=BODY)

        assert open_files() == before

    def test_comes_after_an_error_in_the_block_too(self) -> None:
        with pytest.raises(LookupError), FakeChatKit().serve() as server:
            raise LookupError

        with pytest.raises(ConnectionError):
            connect(server)

    def test_frees_the_port(self) -> None:
        fake = FakeChatKit()
        with fake.serve() as server:
            port = urlsplit(server.url).port
        assert port

        with fake.serve(port=port) as again:
            assert again.url == server.url


def test_refuses_a_busy_port(server: FakeServer) -> None:
    port = urlsplit(server.url).port
    assert port

    with pytest.raises(OSError) as raised, FakeChatKit().serve(port=port):  # noqa: PT011 - errno
        pass

    assert raised.value.errno == errno.EADDRINUSE


def test_remembers_only_the_connections_that_are_open() -> None:
    with server_module._Listener(("127.0.0.1", 0), FakeChatKit().handle) as listener:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", listener.server_address[1])):
                listener.handle_request()
            for thread in listener._connections:
                thread.join()

        assert len(listener._connections) == 1
