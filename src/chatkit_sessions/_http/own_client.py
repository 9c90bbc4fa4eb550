"""The library's own HTTP client: over connections of its own, or through httpx where that matters.

Tools that watch or mock calls patch methods of httpx or httpcore. While one is patched, calls go
through these methods. Calls through a proxy do, too: httpx knows how to speak with it.
"""

import importlib
import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from operator import is_
from types import FunctionType
from typing import Final, TypeAlias

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline

from .connections import Connect, Connections
from .exchange import encode_request, target_of
from .proxies import Proxy

Names: TypeAlias = tuple[tuple[str, ...], ...]
"""Of methods, each with its package and its class."""


def _names(text: str) -> Names:
    return tuple(tuple(name.split(".")) for name in text.split())


HTTPCORE: Final[dict[bool, Names]] = {
    False: _names("httpcore.ConnectionPool.handle_request httpcore.HTTPConnection.handle_request"),
    True: _names(
        "httpcore.AsyncConnectionPool.handle_async_request "
        "httpcore.AsyncHTTPConnection.handle_async_request"
    ),
}
"""What those patch who watch or mock httpcore; True: for asynchronous code."""
WATCHED: Final[dict[bool, Names]] = {
    False: HTTPCORE[False]
    + _names(
        "httpx.Client.__init__ httpx.Client.send httpx.Client._send_single_request "
        "httpx.Client._transport_for_url httpx.HTTPTransport.handle_request"
    ),
    True: HTTPCORE[True]
    + _names(
        "httpx.AsyncClient.__init__ httpx.AsyncClient.send httpx.AsyncClient._send_single_request "
        "httpx.AsyncClient._transport_for_url httpx.AsyncHTTPTransport.handle_async_request"
    ),
}

# Import hooks that patch neither package. Any other hook may.
_HARMLESS_HOOKS: Final = (
    "_frozen_importlib", "_frozen_importlib_external", "_distutils_hack", "_virtualenv", "six",
)  # fmt: skip

_STATUSES: Final = frozenset(HTTPStatus)
# httpx's own line about each response, for calls that httpx does not see.
_httpx_logger: Final = logging.getLogger("httpx")

_unpatched: Final[dict[Names, list[object]]] = {}
"""The methods as they were when none of them was patched."""
_hooks_seen: Final[list[object]] = []


class OwnClient:
    """Sends over connections that it makes and closes, or through httpx.

    Args:
        connect: Connects to a host and port.
        proxy: What calls go through.
        is_async: Whether `connect` and the connections wait for an event loop.
    """

    def __init__(self, connect: Connect, proxy: Proxy | None, *, is_async: bool) -> None:
        self.connections: Final = Connections(connect)
        self._proxy = proxy
        self._is_async = is_async

    async def send(self, request: Request, deadline: Deadline) -> Response | None:
        """Send a request and read its response; None once the deadline has passed."""
        if self._proxy is not None or is_watched(is_async=self._is_async):
            from . import through_httpx  # noqa: PLC0415 -- few need it, and httpx with it

            return await through_httpx.send(
                request, deadline, self.connections, self._proxy, is_async=self._is_async
            )
        target = target_of(request.url)
        sent = 0 if request.body is None else len(request.body)
        message = encode_request(request, target)
        response = await self.connections.send(target, message, deadline, sent=sent)
        _log_as_httpx(request, response)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        self.connections.close()


def own_client_factory(
    connect: Connect, proxy: Proxy | None, *, is_async: bool
) -> Callable[[], OwnClient]:
    """Return what makes own clients: one for each process, or for each event loop."""
    if proxy is not None or is_watched(is_async=is_async):
        # Now: a child of `fork()` would wait forever for a module that another thread imports.
        importlib.import_module(".through_httpx", __package__)
    return lambda: OwnClient(connect, proxy, is_async=is_async)


def _log_as_httpx(request: Request, response: Response) -> None:
    """Write the line that httpx writes about the calls that it sees, without the query."""
    if _httpx_logger.isEnabledFor(logging.INFO):
        status = response.status_code
        phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
        line = 'HTTP Request: %s %s "HTTP/1.1 %d %s"'
        url = request.url.partition("?")[0]
        _httpx_logger.info(line, request.method, url, status, phrase)


def is_watched(*, is_async: bool) -> bool:
    """Whether somebody watches or mocks the calls of this process."""
    _import_what_hooks_wait_for()
    return is_patched(WATCHED[is_async])


def is_patched(names: Names) -> bool:
    """Whether one of these methods is not its package's own."""
    found: list[object] = [
        owner and getattr(owner, method, None)
        for package, kind, method in names
        for owner in (getattr(sys.modules.get(package), kind, None),)
    ]
    own = _unpatched.get(names)
    # Not by `==`: a wrapper may call itself equal to what it wraps.
    if own is not None and all(map(is_, found, own)):
        return False
    if not all(map(_is_original, found)):
        return True
    _unpatched[names] = found
    return False


def _is_original(method: object) -> bool:
    """Whether a method is its package's own; None: the package has not been imported."""
    if method is None:
        return True
    if type(method) is not FunctionType or vars(method):
        return False  # what wraps a function, or changes its code, leaves a note on it
    return method.__module__.partition(".")[0] in {"httpx", "httpcore"}


def _import_what_hooks_wait_for() -> None:
    """Import httpx and httpcore if a hook is there that may patch them when they are imported."""
    if _hooks_seen == sys.meta_path:
        return
    _hooks_seen[:] = sys.meta_path
    modules = [str(getattr(each, "__module__", "")) for each in _hooks_seen]
    if not all(each in _HARMLESS_HOOKS or each.startswith("__editable__") for each in modules):
        importlib.import_module("httpx")
        importlib.import_module("httpcore")
