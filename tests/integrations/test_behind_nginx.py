"""The nginx configurations of docs/production.md, with TLS, before uvicorn and gunicorn."""

import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from redis_server import free_port

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs/production.md"
(SHOWN,) = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
OWN_HOST = re.sub(r"(Host) +\$http_host;", r"\1 backend.internal;", SHOWN, count=1)
CONFIGURATIONS = [SHOWN, OWN_HOST]
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")

STARLETTE = """
from starlette.applications import Starlette
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit
chatkit = FakeChatKit().async_client()
app = Starlette(routes=chatkit_routes(chatkit, user=lambda request: "ada"))

import asyncio
from starlette.responses import Response, StreamingResponse
read = asyncio.Event()

async def chat(request):
    async def pieces():
        yield b"first"
        await read.wait()
        yield b"second"
    return StreamingResponse(pieces())

async def first_piece_is_read(request):
    read.set()
    return Response()

app.add_route("/chatkit", chat, methods=["POST"])
app.add_route("/read", first_piece_is_read, methods=["POST"])
"""
FLASK = """
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.testing import FakeChatKit
app = Flask("shop")
app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1)
app.register_blueprint(chatkit_blueprint(FakeChatKit().client(), user=lambda: "ada"))

import threading
read = threading.Event()

@app.post("/chatkit")
def chat():
    def pieces():
        yield b"first"
        read.wait()
        yield b"second"
    return app.response_class(pieces())

@app.post("/read")
def first_piece_is_read():
    read.set()
    return ""
"""
SERVERS = {"uvicorn": STARLETTE, "gunicorn": FLASK}


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a server that listens before it starts: nobody has to wait for it."""
    server: str = request.param
    (tmp_path / "shop.py").write_text(SERVERS[server])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        arguments = {
            "uvicorn": ["--fd", str(fd), "shop:app"],
            "gunicorn": ["--threads", "2", "--bind", f"fd://{fd}", "shop:app"],
        }
        command = [sys.executable, "-m", server, *arguments[server]]
        process = subprocess.Popen(  # noqa: S603 -- our own
            command,
            cwd=tmp_path,
            pass_fds=[fd],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(params=CONFIGURATIONS, ids=["Host passed on", "Host rewritten"])
def page(request: pytest.FixtureRequest, backend: int, tmp_path: Path) -> Iterator[httpx.Client]:
    """A browser's connection to nginx; its base URL is the site's."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert("shop.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "shop.pem")
    server = request.param.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = server.replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    server = re.sub(r"/etc/ssl/shop\.(pem|key)", str(tmp_path / "shop.pem"), server)
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off;\n{folders}{server}}}"
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType] -- untyped
    process = subprocess.Popen([NGINX, "-c", tmp_path / "nginx.conf", "-p", tmp_path])  # noqa: S603 -- our own
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"Host": f"shop.example:{port}", "Content-Type": "application/json"},
            verify=context,
            timeout=30,
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def test_pages_of_the_site_get_in_through_nginx_and_no_others(page: httpx.Client) -> None:
    own = f"https://{page.headers['Host']}"
    by_name = {"sni_hostname": "shop.example"}

    def ask(origin: str, **headers: str) -> int:
        sent = {"Origin": origin, **{name.replace("_", "-"): headers[name] for name in headers}}
        return page.post(
            "/api/chatkit/session", headers=sent, content=b"{}", extensions=by_name
        ).status_code

    assert ask(own) == 200
    assert ask(own, Sec_Fetch_Site="same-origin") == 200
    assert ask(own.replace("https", "http")) == 403
    assert ask("https://shop.example") == 403, "another port"
    assert ask("https://evil.example") == 403
    assert ask("https://evil.example", X_Forwarded_Host="evil.example") == 403
    assert ask("http://backend.internal") == 403
    assert ask("null") == 403


def test_pieces_of_a_reply_arrive_before_the_next_is_sent(page: httpx.Client) -> None:
    by_name = {"sni_hostname": "shop.example"}
    with page.stream("POST", "/chatkit", extensions=by_name) as reply:
        pieces = reply.iter_raw()
        assert next(pieces) == b"first"

        page.post("/read", extensions=by_name)

        assert b"".join(pieces) == b"second"
