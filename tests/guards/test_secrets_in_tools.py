"""No tool that people debug with shows a secret: each tool, each way to end, each call.

A call is made once, and its error is shown by one tool after the other: all only read it.

The frames are those of this library, and of a caller that holds what the library returned.
"""

import asyncio
import traceback
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions._http.exchange import Body
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    EndpointRequest,
    EndpointResponse,
)
from debug_tools import TOOLS
from raw_server import Connection, raw_server
from secrets_shown import (
    PACKAGE,
    SECRETS,
    bad,
    create_request,
    created,
    failed,
    refresh_request,
)
from support import SECRET, Connect, Script
from workers import inner

pytestmark = pytest.mark.slow


class TroubleError(Exception):
    """The caller's own, once everything went well."""


def interrupt(*_: object) -> httpx.Response:
    raise KeyboardInterrupt


def create(chatkit: ChatKitClient) -> object:
    session = chatkit.create_session("user_123")
    info = chatkit.sessions_for("user_123")
    raise TroubleError(session.id, len(info))


def refresh(chatkit: ChatKitClient, secret: SecretStr) -> object:
    session = chatkit.refresh_session(secret, user="user_123")
    raise TroubleError(session.id)


def ask(chatkit: ChatKitClient, asked: EndpointRequest) -> EndpointResponse:
    client = inner(chatkit)
    if isinstance(client, ChatKitClient):
        return ChatKitEndpoint(client, rate_limit=None).handle(asked, user="user_123")
    endpoint = AsyncChatKitEndpoint(client, rate_limit=None)
    return asyncio.run(endpoint.handle(asked, user="user_123"))


def endpoint(chatkit: ChatKitClient, asked: EndpointRequest) -> object:
    response = ask(chatkit, asked)
    raise TroubleError(response.status_code)


ENDS: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "success": created,
    "API error": failed,
    "bad 2xx": bad,
    "interrupted": interrupt,
}
CALLS: dict[str, Callable[[ChatKitClient], object]] = {
    "create": create,
    "refresh": lambda chatkit: refresh(chatkit, SecretStr(SECRET)),
    "endpoint, create": lambda chatkit: endpoint(chatkit, create_request()),
    "endpoint, refresh": lambda chatkit: endpoint(chatkit, refresh_request()),
}
CALLERS = {each.__code__ for each in (create, refresh, endpoint)}


def ended(call: Callable[[], object]) -> BaseException:
    """What the call raised, from the caller's frame on: the test's own have plain secrets."""
    try:
        call()
    except (ChatKitError, TroubleError, KeyboardInterrupt) as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code not in CALLERS:
            frames = frames.tb_next
        return error.with_traceback(frames)
    raise AssertionError


def characters_shown(text: str) -> dict[str, int]:
    """How many characters of each secret's beginning or end a text shows."""
    return {
        secret: max(
            n for n in range(len(secret) + 1) if secret[:n] in text or (n and secret[-n:] in text)
        )
        for secret in SECRETS
    }


def assert_no_tool_shows_a_secret(error: BaseException) -> None:
    for name, tool in TOOLS.items():
        text = tool((type(error), error, error.__traceback__))

        assert type(error).__name__ in text, name
        # All of them begin with `sk-` or `ek_`, and end with words that name them here.
        assert max(characters_shown(text).values()) < 9, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", CALLS)
def test_no_tool_shows_a_secret(connect: Connect, end: str, name: str) -> None:
    chatkit = connect(Script([ENDS[end]]), max_retries=0)

    assert_no_tool_shows_a_secret(ended(lambda: CALLS[name](chatkit)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", CALLS)
def test_none_shows_one_of_the_library_s_own_connections(
    connect: Connect, end: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end == "interrupted":
        monkeypatch.setattr(Body, "add", interrupt)

    def serve(connection: Connection) -> None:
        while connection.receive():
            respond = created if end == "interrupted" else ENDS[end]
            response = respond(httpx.Request("POST", server.url))
            connection.answer(response.content, status=f"{response.status_code} Because")

    with raw_server(serve) as server:
        chatkit = connect(base_url=server.url, max_retries=0)

        assert_no_tool_shows_a_secret(ended(lambda: CALLS[name](chatkit)))


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_would_show_one(tool: str) -> None:
    """Else the others would hold whatever the library did."""

    def caller() -> None:
        held = {"secret": SECRET.encode()}
        raise TroubleError(len(held))

    CALLERS.add(caller.__code__)
    error = ended(caller)

    assert (
        max(characters_shown(TOOLS[tool]((type(error), error, error.__traceback__))).values()) > 20
    )


def test_an_error_is_seen_where_the_library_raises_it(connect: Connect) -> None:
    error = ended(lambda: create(connect(Script([failed]))))

    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert any(each.startswith(PACKAGE) for each in files)
