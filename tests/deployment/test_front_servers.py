"""nginx and Caddy run with the files of docs/ci, for clients with TLS below a path."""

from __future__ import annotations

import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import attrs
import pytest

from tests.support.certificates import make_certificate
from tests.support.clients import pip_install, uv_install
from tests.support.debian import need
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.nginx import NginxSite
from tests.support.process import GUARD_SECONDS, Process, plain_environment
from tests.support.processes import proxies
from tests.support.proxy import Proxy
from tests.support.sockets import reserve_port

_SNIPPETS = Path(__file__).parents[2] / "docs/ci"
_PREFIX = "/python"
_PASSWORD, _TOKEN = "the-password-of-ci", "the-admin-token"
#: An address of this machine that is not the reverse proxy's.
_CLIENT = "127.0.0.2"
_FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=203.0.113.9;host=evil.example",
}


@attrs.frozen
class Front:
    """A running reverse proxy: the address and the certificate that its clients use."""

    port: int
    certificate: Path
    url: str

    def connect(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=self.certificate)
        return HTTPSConnection(
            "localhost",
            self.port,
            source_address=(_CLIENT, 0),
            context=context,
            timeout=GUARD_SECONDS,
        )

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        with closing(self.connect()) as client:
            client.request(method, _PREFIX + path, headers=_FORGED | headers)
            response = client.getresponse()
            return response.status, response.read().decode()


def _filled_in(name: str, replacements: dict[str, str]) -> str:
    """Return a snippet, of which each of these texts has been replaced."""
    text = (_SNIPPETS / name).read_text()
    for placeholder, value in replacements.items():
        assert placeholder in text, f"{name} has no {placeholder}"
        text = text.replace(placeholder, value)
    return text


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _run(command: Sequence[str], folder: Path) -> str:
    environment = plain_environment(HOME=str(folder))
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def _nginx(folder: Path, upstream: str, port: int, certificate: Path, password: bool) -> Process:
    replacements = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "    listen [::]:443 ssl;\n": "",
        "/etc/ssl/certs/packages.example.org.pem": str(certificate),
        "/etc/ssl/private/packages.example.org.key": str(certificate),
        "http://127.0.0.1:5000/": f"{upstream}/",
    }
    if password:
        users = folder / "htpasswd"
        digest = [need("openssl", "openssl"), "passwd", "-apr1"]
        ci, admin = (_run([*digest, each], folder) for each in (_PASSWORD, _TOKEN))
        users.write_text(f"ci:{ci}\nadmin:{admin}\n")
        replacements |= {"#auth_basic": "auth_basic", "/etc/nginx/proxpi.htpasswd": str(users)}
    return NginxSite(_filled_in("nginx.conf", replacements), folder=folder)


class _Caddy(Process):
    def wait_until_ready(self) -> None:
        self.wait_for_line("serving initial configuration")


def _caddy(folder: Path, upstream: str, port: int, certificate: Path, password: bool) -> Process:
    caddy = need("caddy", "caddy")
    here = f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}"
    replacements = {"\npackages.example.org {": f"\n{here}", "127.0.0.1:5000": upstream}
    if password:
        digest = [caddy, "hash-password", "--plaintext"]
        ci, admin = (_run([*digest, each], folder) for each in (_PASSWORD, _TOKEN))
        replacements |= {"\t#basicauth": "\tbasicauth", "\t#}": "\t}"}
        replacements |= {"\t#\tci HASH": f"\t\tci {ci}\n\t\tadmin {admin}"}
    # Neither a second port of this machine nor an authority of Caddy's own.
    alone = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    config = folder / "Caddyfile"
    config.write_text(alone + _filled_in("Caddyfile", replacements))
    command = [caddy, "run", "--config", str(config), "--adapter", "caddyfile"]
    return _Caddy(command, folder=folder, environment=plain_environment(HOME=str(folder)))


Server = Callable[[Path, str, int, Path, bool], Process]
both = pytest.mark.parametrize("server", [_nginx, _caddy], ids=["nginx", "caddy"])


@contextmanager
def _running(server: Server, folder: Path, proxy: Proxy, *, password: bool) -> Iterator[Front]:
    reserved, port = reserve_port()
    certificate = make_certificate(folder)
    with reserved, server(folder, proxy.origin, port, certificate, password):
        yield Front(port, certificate, f"https://localhost:{port}{_PREFIX}/")


@pytest.fixture(scope="module")
def proxy(shared_index: FakeIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxpi that trusts the reverse proxies, and redirects no client to the upstream."""
    with proxies(tmp_path_factory.mktemp("proxy")) as start:
        yield start(
            shared_index,
            trusted_proxies="127.0.0.1",
            slow_download="stream",
            admin_token=_TOKEN,
        )


@both
def test_open(server: Server, proxy: Proxy, shared_index: FakeIndex, tmp_path: Path) -> None:
    """Log, admin page, forms and file links have what the client used, whatever it states."""
    project = f"open-{server.__name__.strip('_')}"
    shared_index.add(make_wheel(project))
    with _running(server, tmp_path, proxy, password=False) as front:
        for outcome in ("MISS", "HIT", "HIT"):
            before = len(proxy.output.splitlines())
            assert front.ask("GET", f"/index/{project}/")[0] == 200
            line = rf"\] {_CLIENT} GET /index/{project}/ 200 .* {outcome}.* id=[0-9a-f-]{{32,36}}$"
            proxy.wait_for_line(line, after=before)
        assert front.url in front.ask("GET", "/")[1]
        origin = front.url.removesuffix(f"{_PREFIX}/")
        token = {"Authorization": f"Bearer {_TOKEN}"}
        assert front.ask("POST", "/admin/forget-list", Origin=origin, **token)[0] == 303
        for other in ("https://evil.example", origin.replace("https", "http")):
            assert front.ask("POST", "/admin/forget-list", Origin=other, **token)[0] == 403


@both
def test_stream(server: Server, proxy: Proxy, shared_index: FakeIndex, tmp_path: Path) -> None:
    """The first bytes of a file reach the client while the upstream still sends the rest."""
    wheel = make_wheel(f"stream-{server.__name__.strip('_')}", padding=1_000_000)
    path = shared_index.add(wheel)
    shared_index.script(path, Behavior(hold_after=2000))
    with (
        _running(server, tmp_path, proxy, password=False) as front,
        closing(front.connect()) as client,
    ):
        client.request("GET", f"{_PREFIX}/index/{wheel.project}/{wheel.filename}")
        response = client.getresponse()
        received = response.read(1000)
        shared_index.release(path)
        assert received + response.read() == wheel.data


@both
def test_password(server: Server, proxy: Proxy, shared_index: FakeIndex, tmp_path: Path) -> None:
    """pip and uv install with a password, in the URL or in netrc; nothing is read without one.

    The user whose password is the admin token may also change something.
    """
    project = f"secret-{server.__name__.strip('_')}"
    shared_index.add(make_wheel(project, requires=[f"{project}-lib"]))
    shared_index.add(make_wheel(f"{project}-lib"))
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine localhost login ci password {_PASSWORD}\n")
    with _running(server, tmp_path, proxy, password=True) as front:
        for path in ("/", "/index/", f"/index/{project}/", f"/index/{project}/any.whl"):
            assert front.ask("GET", path)[0] == 401
        assert front.ask("GET", "/", Authorization=_basic("ci", _PASSWORD))[0] == 200
        assert front.ask("DELETE", "/cache/list", Authorization=_basic("ci", _PASSWORD))[0] == 401
        assert front.ask("DELETE", "/cache/list", Authorization=_basic("admin", _TOKEN))[0] == 200
        trust = {"SSL_CERT_FILE": str(front.certificate), "PIP_CERT": str(front.certificate)}
        by_url = front.url.replace("://", f"://ci:{_PASSWORD}@")
        # Each client with each way to state a password, in two runs.
        one, other = (pip_install, uv_install)[:: 1 if server is _nginx else -1]
        for install, url, variables in (
            (one, by_url, trust),
            (other, front.url, {"NETRC": str(netrc), **trust}),
        ):
            folder = tmp_path / install.__name__
            environment, _ = install(folder, f"{url}index/", project, **variables)
            assert environment.version_of(project.replace("-", "_")) == "1.0"
    upstream = shared_index.requests()
    assert {seen.headers["user-agent"].partition("/")[0] for seen in upstream} == {"proxpi"}
    assert not any("authorization" in seen.headers for seen in upstream)
