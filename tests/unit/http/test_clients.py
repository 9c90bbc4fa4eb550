"""HTTP clients that the user hands in: httpx's, httpx2's, and what is made from either."""

import asyncio
from collections.abc import Callable
from typing import cast

import httpx
import httpx2
import httpx_aiohttp
import pytest

from chatkit_sessions import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatKitClient,
    ChatKitClient,
    ConfigurationError,
)
from chatkit_sessions._api.protocol import Request
from chatkit_sessions._http.failures import HTTPErrors
from raw_server import raw_server, serve_sessions
from support import KEY, WORKFLOW


class OwnClient(httpx.Client):
    """As a company has one that sets its own headers."""


class OwnClient2(httpx2.Client):
    """The same over httpx2."""


class OwnAsyncClient(httpx.AsyncClient):
    """The same, asynchronous."""


class OwnAsyncClient2(httpx2.AsyncClient):
    """The same over httpx2."""


SYNC = [httpx.Client, httpx2.Client, OwnClient, OwnClient2]
ASYNC = [
    httpx.AsyncClient, httpx2.AsyncClient, OwnAsyncClient, OwnAsyncClient2,
    httpx_aiohttp.HttpxAiohttpClient,
]  # fmt: skip
TRANSPORT_ERRORS = (httpx.TransportError, httpx2.TransportError)


def test_type_checkers_take_the_four_kinds() -> None:
    """mypy and pyright check these lines, with their strictest settings."""
    with (
        ChatKitClient(api_key=KEY, http_client=httpx.Client()),
        ChatKitClient(api_key=KEY, http_client=httpx2.Client()),
        ChatKitClient(api_key=KEY, http_client=OwnClient2()),
    ):
        pass

    async def main() -> None:
        async with (
            AsyncChatKitClient(api_key=KEY, http_client=httpx.AsyncClient()),
            AsyncChatKitClient(api_key=KEY, http_client=httpx2.AsyncClient()),
            AsyncChatKitClient(api_key=KEY, http_client=httpx_aiohttp.HttpxAiohttpClient()),
        ):
            pass

    asyncio.run(main())


def test_type_checkers_refuse_other_kinds() -> None:
    """mypy reports an ignored error that is none, so that each line is a test."""
    with pytest.raises(ConfigurationError, match=r"an httpx2\.AsyncClient: ChatKitClient takes"):
        ChatKitClient(api_key=KEY, http_client=httpx2.AsyncClient())  # type: ignore[arg-type]  # the wrong kind
    with pytest.raises(ConfigurationError, match=r"an httpx2\.Client: AsyncChatKitClient takes"):
        AsyncChatKitClient(api_key=KEY, http_client=httpx2.Client())  # type: ignore[arg-type]  # the wrong kind
    with pytest.raises(ConfigurationError, match=r"must be .* or an httpx2\.Client, not a Client"):
        ChatKitClient(api_key=KEY, http_client=Client())  # type: ignore[arg-type]  # no client at all


class Client:
    """Somebody else's, of the same name."""


@pytest.mark.parametrize("make", SYNC)
def test_the_sync_client_calls_through_each_kind(make: Callable[[], object]) -> None:
    with raw_server(serve_sessions) as server, cast("httpx.Client", make()) as http:
        chatkit = ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=server.url, http_client=http
        )
        assert chatkit.create_session("user_123").id == "cksess_new"
        chatkit.close()
        assert not http.is_closed


@pytest.mark.parametrize("make", ASYNC)
def test_the_async_client_calls_through_each_kind(make: Callable[[], object]) -> None:
    async def main(url: str) -> None:
        async with cast("httpx.AsyncClient", make()) as http:
            chatkit = AsyncChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=url, http_client=http
            )
            assert (await chatkit.create_session("user_123")).id == "cksess_new"
            await chatkit.aclose()
            assert not http.is_closed

    with raw_server(serve_sessions) as server:
        asyncio.run(main(server.url))


@pytest.mark.parametrize("make", SYNC)
def test_nobody_listening_is_a_connection_error_of_each_sync_kind(
    make: Callable[[], object],
) -> None:
    with raw_server(serve_sessions) as server:
        gone = server.url
    with cast("httpx.Client", make()) as http:
        chatkit = ChatKitClient(
            api_key=KEY, workflow_id=WORKFLOW, base_url=gone, http_client=http, max_retries=0
        )
        with pytest.raises(APIConnectionError) as caught:
            chatkit.create_session("user_123")
        assert isinstance(caught.value.__cause__, TRANSPORT_ERRORS)


@pytest.mark.parametrize("make", ASYNC)
def test_nobody_listening_is_a_connection_error_of_each_async_kind(
    make: Callable[[], object],
) -> None:
    async def main(url: str) -> None:
        async with cast("httpx.AsyncClient", make()) as http:
            chatkit = AsyncChatKitClient(
                api_key=KEY, workflow_id=WORKFLOW, base_url=url, http_client=http, max_retries=0
            )
            with pytest.raises(APIConnectionError) as caught:
                await chatkit.create_session("user_123")
            assert isinstance(caught.value.__cause__, TRANSPORT_ERRORS)

    with raw_server(serve_sessions) as server:
        gone = server.url
    asyncio.run(main(gone))


@pytest.mark.parametrize("kind", [httpx.Client, httpx2.AsyncClient, OwnClient])
def test_a_client_that_is_closed_is_a_mistake_of_the_program(kind: type) -> None:
    async def main() -> None:
        http = kind()
        if hasattr(http, "aclose"):
            await http.aclose()
            chatkit = AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, http_client=http)
            await chatkit.create_session("user_123")
        http.close()
        ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, http_client=http).create_session(
            "user_123"
        )

    with pytest.raises(RuntimeError, match=r"`http_client` .* is closed"):
        asyncio.run(main())


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_translated_error_keeps_neither_request_nor_key(family: str) -> None:
    module = {"httpx": httpx, "httpx2": httpx2}[family]
    sent = module.Request(
        "POST", "https://chatkit.test/v1", headers={"authorization": f"Bearer {KEY}"}
    )
    error = module.ReadTimeout(f"no answer for {KEY}", request=sent)
    ours = Request("POST", "https://chatkit.test/v1", {}, None, ())

    mine = HTTPErrors(family).translate(error, ours, handled=None)

    assert isinstance(mine, APITimeoutError)
    assert mine.__cause__ is error
    assert isinstance(error, httpx.RequestError | httpx2.RequestError)
    assert "authorization" not in error.request.headers
    assert KEY not in str(mine) + str(error)
