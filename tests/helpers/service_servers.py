"""The service's routes over HTTP: mounted in an ASGI or a WSGI application, on loopback."""

import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from chatkit_sessions.service import (
    AsyncSessionsService,
    SessionsApp,
    SessionsService,
    SessionsWSGIApp,
)
from chatkit_sessions.stores import MemorySessionStore

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Mounting: TypeAlias = Literal["ASGI", "WSGI"]
MOUNTINGS: tuple[Mounting, ...] = get_args(Mounting)
PREFIX = "/sessions-api"


def asgi_app(service: AsyncSessionsService) -> Starlette:
    """An application that has the routes below a path of its own."""
    return Starlette(routes=[Mount(PREFIX, SessionsApp(service))])


def wsgi_app(service: SessionsService) -> "WSGIApplication":
    """The same for WSGI."""

    def nothing_else(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        del environ
        start("404 Not Found", [])
        return [b""]

    return DispatcherMiddleware(nothing_else, {PREFIX: SessionsWSGIApp(service)})


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name
        del format, args


@contextmanager
def serving_service(mounting: Mounting, api_key: str) -> Generator[str, None, None]:
    """Serve a service of its own; the base URL of its clients."""
    store, keys = MemorySessionStore(max_entries=100_000), {api_key: "shop"}
    if mounting == "ASGI":
        app = asgi_app(AsyncSessionsService(store, workflows={"wf_test"}, api_keys=keys))
        with serving_asgi(app) as origin:
            yield f"{origin}{PREFIX}/v1"
    else:
        wsgi = wsgi_app(SessionsService(store, workflows={"wf_test"}, api_keys=keys))
        with make_server("127.0.0.1", 0, wsgi, _Server, _Quiet) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}/v1"
            finally:
                server.shutdown()
                thread.join(30)


@contextmanager
def serving_asgi(app: Starlette) -> Generator[str, None, None]:
    """Serve an application, in a thread; its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
