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
CONFIGURATIONS = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")

STARLETTE = """
from starlette.applications import Starlette
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit
chatkit = FakeChatKit().async_client()
app = Starlette(routes=chatkit_routes(chatkit, user=lambda request: "ada"))
"""
FLASK = """
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.testing import FakeChatKit
app = Flask("shop")
app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1)
app.register_blueprint(chatkit_blueprint(FakeChatKit().client(), user=lambda: "ada"))
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
            "gunicorn": ["--bind", f"fd://{fd}", "shop:app"],
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
