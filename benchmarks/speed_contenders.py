"""The clients that are compared: each gets a URL and returns what makes one session.

All of them send the same body and the same key, and raise where the answer is no session. Only the
client in question is imported. Some are not installed where the types are checked: these are
imported by name.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http.client import HTTPConnection
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from unittest.mock import patch
from urllib.parse import urlsplit

from speed_start import BODY, HEADERS, KEY, PATH, USER, WORKFLOW

if TYPE_CHECKING:
    import httpx

Create: TypeAlias = Callable[[], None]
AsyncCreate: TypeAlias = Callable[[], Awaitable[None]]

TIMEOUT: Final = 60.0
"""More than any call takes, the same for all."""

MANY: Final = 10_000
"""More connections than are ever needed."""


class NoSessionError(Exception):
    """An answer that is none."""


def check(secret: object) -> None:
    """Raise unless this is the secret of a session."""
    if not (isinstance(secret, str) and secret.startswith("ek_")):
        raise NoSessionError(repr(secret))


# Synchronous --------------------------------------------------------------------------------------


def ours(url: str) -> Create:
    """This library."""
    from chatkit_sessions import ChatKitClient  # noqa: PLC0415 -- see the module

    client = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url, timeout=TIMEOUT)
    return lambda: check(client.create_session(USER).client_secret.get_secret_value())


def ours_watched(url: str) -> Create:
    """This library while a tool has patched httpx: its calls go through httpx."""
    import httpx  # noqa: PLC0415 -- see the module

    unwatched = httpx.HTTPTransport.handle_request

    def handle_request(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        return unwatched(transport, request)

    patch.object(httpx.HTTPTransport, "handle_request", handle_request).start()
    return ours(url)


def bare_httpx(url: str) -> Create:
    """Nothing but httpx, with as many connections as there are threads."""
    import httpx  # noqa: PLC0415 -- see the module

    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.Client(headers=HEADERS, timeout=TIMEOUT, limits=unlimited)
    return lambda: check(client.post(url + PATH, json=BODY).json()["client_secret"])


def openai(url: str) -> Create:
    """The official SDK."""
    from openai import OpenAI  # noqa: PLC0415 -- see the module

    client = OpenAI(api_key=KEY, base_url=url, timeout=TIMEOUT, max_retries=0)
    sessions = client.beta.chatkit.sessions
    return lambda: check(sessions.create(user=USER, workflow={"id": WORKFLOW}).client_secret)


def http_client(url: str) -> Create:
    """The standard library, on one connection: about the least that Python can do."""
    address = urlsplit(url)
    connection = HTTPConnection(address.netloc, timeout=TIMEOUT)
    headers = {**HEADERS, "Content-Type": "application/json"}

    def create() -> None:
        connection.request("POST", address.path + PATH, json.dumps(BODY), headers)
        check(json.loads(connection.getresponse().read())["client_secret"])

    return create


SYNC: Final[dict[str, Callable[[str], Create]]] = {
    "ours": ours,
    "ours, watched": ours_watched,
    "httpx": bare_httpx,
    "openai": openai,
    "http.client": http_client,
}


# Asynchronous: made within the event loop ---------------------------------------------------------


def ours_async(url: str, http_client: "httpx.AsyncClient | None" = None) -> AsyncCreate:
    """This library, over its own connections or over those of a client."""
    from chatkit_sessions import AsyncChatKitClient  # noqa: PLC0415 -- see the module

    client = AsyncChatKitClient(
        api_key=KEY, workflow_id=WORKFLOW, base_url=url, timeout=TIMEOUT, http_client=http_client
    )

    async def create() -> None:
        check((await client.create_session(USER)).client_secret.get_secret_value())

    return create


def openai_async(url: str) -> AsyncCreate:
    """The official SDK."""
    from openai import AsyncOpenAI  # noqa: PLC0415 -- see the module

    client = AsyncOpenAI(api_key=KEY, base_url=url, timeout=TIMEOUT, max_retries=0)
    sessions = client.beta.chatkit.sessions

    async def create() -> None:
        check((await sessions.create(user=USER, workflow={"id": WORKFLOW})).client_secret)

    return create


class _Answer(Protocol):
    """Of aiohttp, what is used of it."""

    async def json(self) -> dict[str, object]: ...


class _Session(Protocol):
    """Of aiohttp, what is used of it."""

    def post(self, url: str, *, json: object) -> AbstractAsyncContextManager[_Answer]: ...


def raw_aiohttp(url: str) -> AsyncCreate:
    """Nothing but aiohttp, with as many connections as there are tasks."""
    aiohttp = import_module("aiohttp")
    session: _Session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
    )

    async def create() -> None:
        async with session.post(url + PATH, json=BODY) as answer:
            check((await answer.json())["client_secret"])

    return create


def httpx_over_aiohttp(headers: dict[str, str] | None = None) -> "httpx.AsyncClient":
    """A client that is httpx to its user and aiohttp to the network."""
    import httpx  # noqa: PLC0415 -- see the module

    # "Unlimited" would be aiohttp's default to this client, and that is 100.
    plenty = httpx.Limits(max_connections=MANY, max_keepalive_connections=MANY)
    client: httpx.AsyncClient = import_module("httpx_aiohttp").HttpxAiohttpClient(
        headers=headers, timeout=TIMEOUT, limits=plenty
    )
    return client


def bare_httpx_aiohttp(url: str) -> AsyncCreate:
    """Nothing but such a client."""
    client = httpx_over_aiohttp(HEADERS)

    async def create() -> None:
        check((await client.post(url + PATH, json=BODY)).json()["client_secret"])

    return create


def ours_over_httpx_aiohttp(url: str) -> AsyncCreate:
    """This library over such a client."""
    return ours_async(url, httpx_over_aiohttp())


ASYNC: Final[dict[str, Callable[[str], AsyncCreate]]] = {
    "ours": ours_async,
    "openai": openai_async,
    "aiohttp": raw_aiohttp,
    "httpx_aiohttp": bare_httpx_aiohttp,
    "ours over httpx_aiohttp": ours_over_httpx_aiohttp,
}
