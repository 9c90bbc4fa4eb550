"""A response about another user or workflow is never accepted, whosever connection it came by."""

import json
from urllib.parse import unquote

import httpx
import pytest

from chatkit_sessions import (
    APIResponseValidationError,
    ChatKitClient,
    ChatKitSessionResponse,
    InternalServerError,
)
from raw_server import Connection, raw_server
from support import (
    JSON,
    NEW_SECRET,
    SECRET,
    Connect,
    Script,
    invalid_url,
    ok,
    refused,
    session_json,
)

OTHERS = [{"user": "mallory"}, {"workflow": {"id": "wf_other"}}]
CREATE, CANCEL = "POST /v1/chatkit/sessions", "POST /v1/chatkit/sessions/cksess_new/cancel"


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("call", ["create_session", "get_or_create_session"])
def test_a_session_of_another_is_an_error_and_is_cancelled(
    connect: Connect, call: str, other: JSON
) -> None:
    script = Script([ok(**other), ok(status="cancelled")])

    with pytest.raises(APIResponseValidationError, match="it is about another") as caught:
        getattr(connect(script), call)("user_123")

    assert script.paths == [CREATE, CANCEL]
    assert caught.value.session_id == "cksess_new"
    assert "gateway" in caught.value.hint
    assert NEW_SECRET not in str(caught.value)


@pytest.mark.parametrize("other", OTHERS)
def test_a_refresh_accepts_none_either(connect: Connect, other: JSON) -> None:
    script = Script([ok(**other), ok(status="cancelled"), ok(id="cksess_mine")])

    session = connect(script).refresh_session(SECRET, user="user_123")

    assert session.id == "cksess_mine"
    assert script.paths == ["POST /v1/chatkit/sessions/refresh", CANCEL, CREATE]


def test_a_new_session_of_another_ends_a_refresh(connect: Connect) -> None:
    script = Script([invalid_url, ok(user="mallory"), ok(status="cancelled")])

    with pytest.raises(APIResponseValidationError, match="another user"):
        connect(script).refresh_session(SECRET, user="user_123")

    assert script.paths[1:] == [CREATE, CANCEL]


def test_it_is_neither_repeated_nor_kept(connect: Connect) -> None:
    script = Script([ok(user="mallory"), ok(status="cancelled"), ok(id="cksess_mine")])
    chatkit = connect(script)

    with pytest.raises(APIResponseValidationError):
        chatkit.get_or_create_session("user_123")

    assert chatkit.get_or_create_session("user_123").id == "cksess_mine"
    assert [info.id for info in chatkit.sessions_for("user_123")] == ["cksess_mine"]


def test_that_it_cannot_be_cancelled_changes_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([ok(user="mallory"), refused(500)])

    with pytest.raises(APIResponseValidationError, match="another user"):
        connect(script, max_retries=0).create_session("user_123")

    assert "could not be cancelled" in caplog.text
    assert script.paths == [CREATE, CANCEL]


@pytest.mark.parametrize("session_id", ["../models", NEW_SECRET, f"cksess_{NEW_SECRET}"])
def test_what_cannot_stand_in_a_url_is_not_cancelled(connect: Connect, session_id: str) -> None:
    script = Script([ok(user="mallory", id=session_id)])

    with pytest.raises(APIResponseValidationError) as caught:
        connect(script).create_session("user_123")

    assert caught.value.session_id is None
    assert script.paths == [CREATE]


@pytest.mark.parametrize("session_id", ["../models", "a b", "refresh", "..;x", "x" * 257, "ek_1"])
@pytest.mark.parametrize("call", ["create_session", "get_or_create_session"])
def test_a_session_that_could_never_be_cancelled_is_an_error(
    connect: Connect, call: str, session_id: str
) -> None:
    script = Script([ok(id=session_id)])
    chatkit = connect(script)

    with pytest.raises(APIResponseValidationError, match="`id` ") as caught:
        getattr(chatkit, call)("user_123")

    assert caught.value.session_id is None
    assert "expires by itself" in caught.value.hint
    assert script.paths == [CREATE], "neither repeated nor cancelled"
    assert chatkit.sessions_for("user_123") == []


def test_a_refreshed_session_that_could_never_be_cancelled_is_replaced(connect: Connect) -> None:
    script = Script([ok(id="../models"), ok(id="cksess_mine")])

    assert connect(script).refresh_session(SECRET, user="user_123").id == "cksess_mine"
    assert script.paths == ["POST /v1/chatkit/sessions/refresh", CREATE]


@pytest.mark.parametrize(
    "session_id", ["sess;1", "a:b@c", "a...", "\N{SLIGHTLY SMILING FACE}", "x" * 256]
)
def test_a_session_of_any_other_id_is_accepted_and_cancelled(
    connect: Connect, session_id: str
) -> None:
    script = Script([ok(id=session_id), ok(id=session_id, status="cancelled")])
    chatkit = connect(script)

    assert chatkit.create_session("user_123").id == session_id
    chatkit.delete_sessions("user_123")

    assert unquote(script.paths[-1]) == f"{CREATE}/{session_id}/cancel"


SILENT: list[JSON] = [{"user": None}, {"workflow": None}, {"user": None, "workflow": None}]


@pytest.mark.parametrize("silent", SILENT)
def test_a_server_that_names_neither_is_accepted(connect: Connect, silent: JSON) -> None:
    assert connect(Script([ok(**silent)])).create_session("user_123").id == "cksess_new"


def answer_for(connection: Connection, user: str, *, times: int = 1, **changes: object) -> None:
    fields = {"id": f"cksess_{user}", "user": user, **changes}
    body = json.dumps(session_json(**fields)).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connection.send((head + body) * times)


def test_its_connection_is_closed_before_anything_else_is_sent(connect: Connect) -> None:
    """And so are the idle ones: nobody knows what else is wrong."""

    def mixed_up(connection: Connection) -> None:
        connection.receive()
        answer_for(connection, "mallory")
        assert not connection.receive(), "closed"

    def in_order(connection: Connection) -> None:
        connection.receive()
        answer_for(connection, "mallory", status="cancelled")
        connection.receive()
        answer_for(connection, "ada")

    with raw_server(mixed_up, in_order) as server:
        chatkit = connect(base_url=server.url)
        with pytest.raises(APIResponseValidationError):
            chatkit.create_session("ada")

        assert chatkit.create_session("ada").user == "ada"
        assert server.connections == 2


def test_so_is_that_of_a_response_which_makes_no_sense(connect: Connect) -> None:
    def nonsense(connection: Connection) -> None:
        connection.receive()
        connection.answer(b"[]")
        assert not connection.receive(), "closed"

    def in_order(connection: Connection) -> None:
        connection.receive()
        answer_for(connection, "ada")

    with raw_server(nonsense, in_order) as server:
        chatkit = connect(base_url=server.url)
        with pytest.raises(APIResponseValidationError):
            chatkit.create_session("ada")

        assert chatkit.create_session("ada").user == "ada"


def test_so_it_is_through_a_proxy(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed_up(connection: Connection) -> None:
        connection.receive()
        answer_for(connection, "mallory", id="../")
        assert not connection.receive(), "closed"

    def in_order(connection: Connection) -> None:
        connection.receive()
        answer_for(connection, "ada")

    with raw_server(mixed_up, in_order) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        chatkit = connect(base_url="http://remote.test/v1", allow_insecure_http=True)
        with pytest.raises(APIResponseValidationError):
            chatkit.create_session("ada")

        assert chatkit.create_session("ada").user == "ada"
        assert proxy.connections == 2


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_client_of_the_users_gives_nobody_the_session_of_another(
    connect: Connect, family: str
) -> None:
    """It may reuse a connection in which a second response lies; the session names its user."""

    def answers_twice(connection: Connection) -> None:
        while connection.receive():
            # What cancels the session of alice is answered, too.
            is_bobs = b'"user":"bob"' in connection.last_request
            answer_for(connection, "bob" if is_bobs else "alice", times=2)

    with raw_server(answers_twice) as server:
        http = connect.http_client(family=__import__(family))
        chatkit = connect(http_client=http, base_url=server.url, max_retries=0)
        chatkit.create_session("alice")
        try:
            got: ChatKitSessionResponse | None = chatkit.create_session("bob")
        except APIResponseValidationError:
            got = None

    assert got is None or got.user == "bob"


def test_errors_of_the_api_close_no_connection(connect: Connect) -> None:
    def serve(connection: Connection) -> None:
        connection.receive()
        connection.answer(b"{}", status="500 Oh")
        connection.receive()
        answer_for(connection, "ada")

    with raw_server(serve) as server:
        chatkit: ChatKitClient = connect(base_url=server.url, max_retries=0)
        with pytest.raises(InternalServerError):
            chatkit.create_session("ada")

        assert chatkit.create_session("ada").user == "ada"
        assert server.connections == 1


def test_it_is_so_with_every_transport_of_the_users(connect: Connect) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        status = "cancelled" if request.url.path.endswith("/cancel") else "active"
        return httpx.Response(200, json=session_json(user="mallory", status=status))

    with pytest.raises(APIResponseValidationError, match="another user"):
        connect(httpx.MockTransport(respond)).create_session("user_123")
