"""What one exchange on a connection does where something goes wrong, without a network."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httpcore
import httpx
import pytest

from chatkit_sessions._http import (
    async_connection,
    async_pool,
    async_streams,
    asyncio_network,
    sync_connection,
    sync_pool,
)
from chatkit_sessions._http.http1 import ResponseParser
from raw_server import raw_server, serve_sessions

REQUEST = httpcore.Request(
    "POST",
    "http://chatkit.test/v1/chatkit/sessions",
    headers=[("Host", "chatkit.test"), ("Content-Length", "2")],
    content=b"{}",
    extensions={"timeout": {"connect": None, "read": None, "write": None, "pool": None}},
)


class Socket:
    """Of a server that has responded and closed, without reading the request."""

    def settimeout(self, seconds: float | None) -> None:
        assert seconds is None

    def sendall(self, data: bytes) -> None:
        raise ConnectionResetError(len(data))

    def recv(self, most: int) -> bytes:
        assert most
        return b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"


class Stream(httpcore.NetworkStream):
    def __init__(self) -> None:
        self.closed = False

    def get_extra_info(self, info: str) -> object:
        assert info == "socket"
        return Socket()

    def close(self) -> None:
        self.closed = True


def test_a_response_that_came_before_the_request_was_read_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def socket_of(_: object) -> Socket:
        return Socket()

    monkeypatch.setattr(sync_connection, "socket_of", socket_of)
    connection = sync_connection.Connection(Stream())
    back: list[bool] = []

    def give_back(connection: object, *, reusable: bool) -> None:
        del connection
        back.append(reusable)

    response = connection.exchange(REQUEST, b"{}", give_back)

    assert response.status == 413
    assert b"".join(cast("sync_connection.ResponseStream", response.stream)) == b"no"


class AsyncioStream:
    """The same, for asyncio."""

    async def write(self, data: bytes, timeout: float | None) -> None:
        raise httpcore.WriteError(f"{len(data)} {timeout}")

    async def read(self, most: int, timeout: float | None) -> bytes:
        assert timeout is None
        return Socket().recv(most)


def test_a_response_that_came_before_the_request_was_read_counts_under_asyncio_too() -> None:
    async def give_back(connection: object, *, reusable: bool) -> None:
        raise AssertionError(connection, reusable)

    async def main() -> httpcore.Response:
        stream = cast("async_streams.AsyncStream", AsyncioStream())
        return await async_connection.Connection(stream).exchange(REQUEST, b"{}", give_back)

    assert asyncio.run(main()).status == 413


@pytest.mark.parametrize("parts", [[b"{}"], [b"{", b"", b"}"]])
def test_a_body_that_an_instrument_has_put_in_the_place_of_ours_is_sent(parts: list[bytes]) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(transport=async_pool.Transport(None)) as client:
            await client.post(url, content=stream(), headers={"Content-Length": "2"})

    with raw_server(serve_sessions) as server:
        with httpx.Client(transport=sync_pool.Transport(None)) as client:
            client.post(server.url, content=iter(parts), headers={"Content-Length": "2"})
        asyncio.run(ask(server.url))

    assert [request.endswith(b"{}") for request in server.requests] == [True, True]


def test_a_response_that_is_closed_twice_gives_its_connection_back_once() -> None:
    back: list[bool] = []

    def give_back(connection: object, *, reusable: bool) -> None:
        del connection
        back.append(reusable)

    async def give_back_async(connection: object, *, reusable: bool) -> None:
        del connection
        back.append(reusable)

    async def close_twice() -> None:
        connection = cast("async_connection.Connection", None)
        parser = ResponseParser(REQUEST, b"{}")
        stream = async_connection.ResponseStream(connection, parser, None, give_back_async)
        await stream.aclose()
        await stream.aclose()

    parser = ResponseParser(REQUEST, b"{}")
    connection = cast("sync_connection.Connection", None)
    stream = sync_connection.ResponseStream(connection, parser, None, give_back)
    stream.close()
    stream.close()
    asyncio.run(close_twice())

    assert back == [False, False]


def test_the_repr_of_a_pool_can_be_printed_in_a_traceback() -> None:
    async def of_async() -> str:
        return repr(async_pool.ConnectionPool())

    assert [repr(sync_pool.ConnectionPool()), asyncio.run(of_async())] == 2 * ["<ConnectionPool>"]


class Opened:
    """What connecting gives."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True


def connect_to(
    addresses: dict[str, Opened | OSError], monkeypatch: pytest.MonkeyPatch, *, turns: int = 0
) -> Callable[[], Opened]:
    """Connect to the first of these, which all have their result at the same moment."""
    gate: list[asyncio.Event] = []

    async def connect(address: str, port: int) -> Opened:
        assert port == 80
        if address == list(addresses)[-1]:
            gate[0].set()
        await gate[0].wait()
        for _ in range(turns if address == list(addresses)[-1] else 0):
            await asyncio.sleep(0)
        result = addresses[address]
        if isinstance(result, OSError):
            raise result
        return result

    async def main() -> Opened:
        gate.append(asyncio.Event())
        return cast("Opened", await asyncio_network._connect_to_first(list(addresses), 80))

    monkeypatch.setattr(asyncio_network, "_connect", connect)
    monkeypatch.setattr(asyncio_network, "NEXT_ADDRESS_AFTER", 0)
    return lambda: asyncio.run(main())


def test_of_two_addresses_that_accept_at_once_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Opened(), Opened()

    chosen = connect_to({"a": first, "b": second}, monkeypatch)()

    assert chosen in {first, second}
    assert [first.closed, second.closed].count(True) == 1
    assert not chosen.closed


def test_an_address_that_refuses_does_not_end_the_wait_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = Opened()
    waiting = connect_to({"a": OSError("refused"), "b": second}, monkeypatch, turns=9)

    assert waiting() is second


def test_where_every_address_refuses_the_last_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OSError, match="the last"):
        connect_to({"a": OSError("the first"), "b": OSError("the last")}, monkeypatch)()
