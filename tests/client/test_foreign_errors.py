"""Whatever an HTTP client raises is an error of this library, and shows neither request nor key."""

import asyncio
import builtins
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn
from unittest.mock import Mock

import httpx
import httpx2
import httpx_aiohttp
import pytest
import respx
import trustme
from hypothesis import given, strategies as st
from respx.models import AllMockedAssertionError

from chatkit_sessions import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatKitClient,
    AuthenticationError,
    ChatKitClient,
    ConfigurationError,
    InternalServerError,
)
from raw_server import Connection, raw_server
from secrets_shown import assert_silent, everything_shown
from support import KEY, WORKFLOW, Connect, Kind, Script, ok, refused


class WithRequest(Exception):  # noqa: N818 -- somebody else's
    """As aiohttp's errors are: the request is an attribute and part of the repr."""

    def __init__(self, request: httpx.Request) -> None:
        super().__init__(request, dict(request.headers))
        self.request = request
        self.headers = dict(request.headers)

    def __repr__(self) -> str:
        return f"WithRequest({self.headers})"


class WithoutTextError(Exception):
    """Whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError(KEY)


@dataclass(frozen=True)
class FrozenError(Exception):
    """That takes no assignments."""

    text: str


class PlainError(Exception):
    """Somebody else's."""


def raised_by(error: Callable[[httpx.Request], Exception]) -> Callable[[httpx.Request], NoReturn]:
    def fail(request: httpx.Request) -> NoReturn:
        try:
            dict[str, None]().pop(request.headers["authorization"])
        finally:  # the KeyError is its context
            raise error(request)

    return fail


def of_builtins() -> list[type[Exception]]:
    found = [each for each in vars(builtins).values() if isinstance(each, type)]
    errors = [each for each in found if issubclass(each, Exception)]
    return [
        each
        for each in errors
        if not issubclass(each, AssertionError | UnicodeError | ExceptionGroup | Warning)
    ]


def with_the_key(kind: type[Exception]) -> Callable[[httpx.Request], Exception]:
    return lambda _: kind(f"with Bearer {KEY}")


ERRORS: dict[str, Callable[[httpx.Request], Exception]] = {
    **{each.__name__: with_the_key(each) for each in of_builtins()},
    "group": lambda r: ExceptionGroup("several", [WithRequest(r), ValueError(KEY)]),
    "UnicodeEncodeError": lambda _: UnicodeEncodeError("ascii", KEY, 0, 1, "no"),
    "request": WithRequest,
    "no text": lambda _: WithoutTextError(KEY),
    "frozen": lambda _: FrozenError(f"Bearer {KEY}"),
    "plain": lambda _: PlainError(f"Bearer {KEY}"),
    "httpx": lambda r: httpx.ReadError(KEY, request=r),
    "httpx's own": lambda _: httpx.InvalidURL(KEY),
    "httpx2": lambda _: httpx2.ConnectError(KEY),
}


@pytest.mark.parametrize("name", ERRORS)
def test_any_exception_is_an_error_of_this_library_without_the_key(
    connect: Connect, name: str
) -> None:
    transport = httpx.MockTransport(raised_by(ERRORS[name]))

    with pytest.raises(APIConnectionError) as caught:
        connect(transport, max_retries=0).create_session("user_123")

    assert_silent(everything_shown(caught.value))
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@given(text=st.text(), more=st.lists(st.text() | st.integers()))
def test_any_text_of_an_exception_passes(text: str, more: list[str | int]) -> None:
    http = httpx.Client(transport=httpx.MockTransport(raised_by(lambda _: PlainError(text, *more))))
    with (
        ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, max_retries=0, http_client=http
        ) as chatkit,
        pytest.raises(APIConnectionError, match="PlainError"),
    ):
        chatkit.create_session("user_123")


@pytest.mark.parametrize(
    ("name", "attempts"),
    [("plain", 3), ("OSError", 3), ("httpx", 3), ("RuntimeError", 1), ("TypeError", 1)],
)
def test_mistakes_of_the_program_are_not_repeated(
    connect: Connect, name: str, attempts: int
) -> None:
    made: list[httpx.Request] = []
    fail = raised_by(ERRORS[name])

    def respond(request: httpx.Request) -> NoReturn:
        made.append(request)
        fail(request)

    with pytest.raises(APIConnectionError) as caught:
        connect(httpx.MockTransport(respond)).create_session("user_123")

    assert len(made) == attempts
    assert caught.value.permanent is (attempts == 1)


def test_an_assertion_of_a_test_that_fails_in_its_transport_passes_as_it_is(
    connect: Connect,
) -> None:
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        assert request.method == "PUT", "a wrong verb"
        return ok()

    chatkit = connect(httpx.MockTransport(respond))
    with pytest.raises(AssertionError, match="a wrong verb") as caught:
        chatkit.create_session("user_123")

    assert type(caught.value) is AssertionError
    assert caught.traceback[-1].name == "respond", "the line that failed is shown"
    assert len(requests) == 1

    with pytest.raises(AssertionError, match="a wrong verb"):
        chatkit.get_or_create_session("user_123")
    with pytest.raises(AssertionError, match="a wrong verb"):
        chatkit.get_or_create_session("user_123")
    assert len(requests) == 3, "whoever asks next is not told of it as an outage"


@pytest.mark.parametrize("http_client", ["own", "supplied"])
def test_a_call_that_respx_does_not_mock_is_respxs_own_error(
    respx_mock: respx.MockRouter, kind: Kind, http_client: str
) -> None:
    url = "https://chatkit.test/v1"
    create = respx_mock.post(f"{url}/chatkit/sessions").respond(401)

    async def use_async_client() -> None:
        http = httpx.AsyncClient() if http_client == "supplied" else None
        async with AsyncChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=url, http_client=http
        ) as chatkit:
            with pytest.raises(AuthenticationError):
                await chatkit.create_session("user_123")
            with pytest.raises(AllMockedAssertionError, match="not mocked"):
                await chatkit.delete_session("cksess_1")

    if kind == "async":
        asyncio.run(use_async_client())
    else:
        http = httpx.Client() if http_client == "supplied" else None
        with ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=url, http_client=http
        ) as chatkit:
            with pytest.raises(AuthenticationError):
                chatkit.create_session("user_123")
            with pytest.raises(AllMockedAssertionError, match="not mocked"):
                chatkit.delete_session("cksess_1")

    assert create.called


def test_the_cause_is_what_was_raised_where_it_holds_nothing_but_text(connect: Connect) -> None:
    for error, kept in (
        (PlainError("no"), True),
        (TimeoutError("no"), True),
        (KeyError("no"), True),
    ):
        with pytest.raises(APIConnectionError) as caught:
            connect(Script([error]), max_retries=0).create_session("user_123")

        assert (caught.value.__cause__ is error) is kept
        assert error.__traceback__ is None


def test_a_timeout_of_any_kind_is_one(connect: Connect) -> None:
    with pytest.raises(APITimeoutError):
        connect(Script([TimeoutError("no")]), max_retries=0).create_session("user_123")


def test_our_own_errors_stay_what_they_are(connect: Connect) -> None:
    ours = ConfigurationError("The vault is sealed.")

    with pytest.raises(ConfigurationError) as caught:
        connect(Script([ours])).create_session("user_123")

    assert caught.value is ours


# Hooks


def hooked(
    connect: Connect, script: Script, hook: Callable[[httpx.Response], None]
) -> ChatKitClient:
    async def as_coroutine(response: httpx.Response) -> None:
        hook(response)

    chosen: object = hook if connect.kind == "sync" else as_coroutine
    return connect(script, http_options={"event_hooks": {"response": [chosen]}})


def raise_for_status(response: httpx.Response) -> None:
    response.raise_for_status()


def test_a_hook_that_raises_for_the_status_does_not_hide_it(connect: Connect) -> None:
    """httpx's docs, "Event hooks", have this one."""
    script = Script([refused(500, headers={"retry-after-ms": "10"}), refused(401)])

    with pytest.raises(AuthenticationError) as caught:
        hooked(connect, script, raise_for_status).create_session("user_123")

    assert caught.value.request_id == "req_failure"
    assert connect.time.sleeps == [0.01]
    assert_silent(everything_shown(caught.value))


def test_the_body_counts_if_the_hook_has_read_it(connect: Connect) -> None:
    async def aread(response: httpx.Response) -> None:
        await response.aread()
        response.raise_for_status()

    def read(response: httpx.Response) -> None:
        response.read()
        response.raise_for_status()

    hook = read if connect.kind == "sync" else aread
    chatkit = connect(
        Script([refused(400, "Too long.")]), http_options={"event_hooks": {"response": [hook]}}
    )

    with pytest.raises(APIStatusError, match=r"Too long\."):
        chatkit.create_session("user_123")


def test_what_a_hook_raises_is_the_cause(connect: Connect) -> None:
    forbidden = PlainError("not on a Sunday")

    def refuse(_: httpx.Response) -> None:
        raise forbidden

    with pytest.raises(APIConnectionError, match="not on a Sunday") as caught:
        hooked(connect, Script([ok()]), refuse).create_session("user_123")

    assert caught.value.__cause__ is forbidden


# aiohttp under httpx


WRONG: dict[str, bytes] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "header line": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_aiohttp_raises_is_an_error_of_this_library_without_the_key(name: str) -> None:
    def serve(connection: Connection) -> None:
        connection.receive()
        connection.send(WRONG[name])

    async def main(url: str) -> APIConnectionError:
        async with httpx_aiohttp.HttpxAiohttpClient() as http:
            chatkit = AsyncChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=url, http_client=http, max_retries=0
            )
            with pytest.raises(APIConnectionError) as caught:
                await chatkit.create_session("user_123")
            return caught.value

    with raw_server(serve) as server:
        error = asyncio.run(main(server.url))
    assert_silent(everything_shown(error))


# Proxies


@pytest.mark.parametrize(
    "proxy",
    [
        "http://proxy..corp:3128",
        f"http://{'x' * 64}.corp:3128",
        "http://user:p@ss#word@127.0.0.1:9",
        "http://user:p@ss/word@127.0.0.1:9",
        "http://user:p?word@127.0.0.1:9",
        "http://127.0.0.1:9/pac",
        "http://127.0.0.1:port",
        "http://[::1",
        "http://",
        "gopher://proxy.test:70",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_one_is_refused_when_the_client_is_made(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str, variable: str
) -> None:
    monkeypatch.setenv(variable, proxy)

    with pytest.raises(ConfigurationError, match=f"^{variable} names no usable proxy") as caught:
        connect(base_url="https://api.test/v1")

    assert "word" not in str(caught.value).replace("password", "")
    assert "%23" in caught.value.hint


@pytest.mark.parametrize(
    "proxy", ["user:p%23ss@proxy.test:3128", "http://proxy.test", "http://[::1]:3128/"]
)
def test_a_proxy_that_can_be_one_is_taken(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    connect(base_url="https://api.test/v1").close()


def test_an_error_names_the_proxy_and_its_variable_and_not_its_password(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(lambda _: None) as server:
        gone = server.url.removeprefix("http://").removesuffix("/v1")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@{gone}")

    with pytest.raises(
        APIConnectionError, match=f"from api.test through the proxy {gone} "
    ) as caught:
        connect(base_url="https://api.test/v1", max_retries=0).create_session("user_123")

    assert f"the proxy {gone}, which HTTPS_PROXY names" in caught.value.hint
    assert "hunter2" not in "".join(everything_shown(caught.value))


def test_a_proxy_that_wants_a_password_is_asked_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(connection: Connection) -> None:
        connection.receive()
        connection.answer(b"", status="407 Proxy Authentication Required")

    with raw_server(serve) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removesuffix("/v1"))
        address = proxy.url.removeprefix("http://").removesuffix("/v1")
        with pytest.raises(APIConnectionError, match="407") as caught:
            connect(base_url="https://api.test/v1").create_session("user_123")

        assert proxy.connections == 1
    assert caught.value.permanent
    assert f"into HTTPS_PROXY: http://user:password@{address}" in caught.value.hint


def test_so_is_a_proxy_for_plain_http(connect: Connect) -> None:
    script = Script([httpx.Response(407)])

    with pytest.raises(APIStatusError) as caught:
        connect(script).create_session("user_123")

    assert len(script.requests) == 1
    assert "HTTPS_PROXY" in caught.value.hint


# What lasts


@pytest.mark.parametrize("supplied", [False, True])
def test_a_certificate_that_is_not_trusted_is_tried_once(
    connect: Connect, *, supplied: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # its types
    with raw_server(lambda _: None, tls=context) as server:
        http = connect.http_client(verify=True) if supplied else None
        chatkit = connect(base_url=server.url, http_client=http)

        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            chatkit.create_session("user_123")

        assert server.connections == 1
    assert caught.value.permanent
    assert "SSL_CERT_FILE or SSL_CERT_DIR" in caught.value.hint
    assert "REQUESTS_CA_BUNDLE is not read" in caught.value.hint


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_not_active"])
def test_an_exhausted_quota_is_not_asked_for_again(connect: Connect, code: str) -> None:
    script = Script([refused(429, "You exceeded your current quota.", code=code)])

    with pytest.raises(APIStatusError) as caught:
        connect(script).create_session("user_123")

    assert len(script.requests) == 1
    assert "billing" in caught.value.hint


def test_a_rate_limit_still_is(connect: Connect) -> None:
    script = Script([refused(429, code="rate_limit_exceeded"), ok()])

    assert connect(script).create_session("user_123").id == "cksess_new"


def test_a_server_that_fails_behind_a_hook_is_asked_again(connect: Connect) -> None:
    with pytest.raises(InternalServerError):
        hooked(connect, Script([refused(500)]), raise_for_status).create_session("user_123")

    assert len(connect.time.sleeps) == 2


def test_the_variables_name_is_looked_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS and Windows the system has proxy settings of its own."""
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy..corp"})
    monkeypatch.setattr("urllib.request.proxy_bypass", Mock(return_value=False))

    with pytest.raises(ConfigurationError, match=r"^the system's proxy settings names"):
        connect(base_url="https://api.test/v1")
