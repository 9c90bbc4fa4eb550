"""What keeps a test from OpenAI's API: a call of a ChatKit client fails before it is sent."""

from __future__ import annotations

import functools
import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOST: Final = "api.openai.com"
_TRANSPORTS: Final = (
    ("httpx", "HTTPTransport", "handle_request"),
    ("httpx", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx2", "HTTPTransport", "handle_request"),
    ("httpx2", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx_aiohttp", "AiohttpTransport", "handle_async_request"),
)
"""What sends over a network: the library's own connections are behind the first two."""
_ADVICE: Final = (
    "A ChatKit client called {host} while the fixture `chatkit_environment` is in use: the client "
    "was made before the test, or with a `base_url` of its own. Make the client in the test, or "
    "pass `chatkit_client` or `async_chatkit_client` to the application."
)


class _URL(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...


class _Request(Protocol):
    @property
    def url(self) -> _URL: ...


def guarded_transports() -> Iterator[tuple[type, str, Callable[..., object]]]:
    """Each transport of the installed HTTP packages, its method, and what to put in its place."""
    for package, name, method in _TRANSPORTS:
        with suppress(ImportError):
            transport: type = getattr(importlib.import_module(package), name)
            yield transport, method, _guarded(getattr(transport, method))


def _guarded(send: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(send)
    def guarded(transport: object, request: _Request, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 -- passed on
        url = request.url
        if url.host.endswith(_HOST) and "/chatkit/" in url.path:
            raise AssertionError(_ADVICE.format(host=url.host))
        return send(transport, request, *args, **kwargs)

    return guarded
