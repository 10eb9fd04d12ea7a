"""A real nginx with the lines of docs/reverse-proxies.rst: client, URL and ID of each request."""

from __future__ import annotations

import re
import ssl
from http.client import HTTPSConnection
from pathlib import Path

from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.nginx import Nginx
from tests.support.processes import StartProxy

_DOCUMENT = Path(__file__).parents[2] / "docs/reverse-proxies.rst"
#: An address of this machine that is not the proxy's.
_CLIENT = "127.0.0.2"
_FORGED = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9;host=evil.example"}


def test_nginx(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Log, admin page and its forms are right, whatever the client states, for hits as well."""
    fake_index.add(make_wheel("demo"))
    text = _DOCUMENT.read_text()
    [prefix] = re.findall(r"location (/\w+)/ {", text)
    headers = dict(re.findall(r"proxy_set_header (\S+) (.+);", text))
    certificate = make_certificate(tmp_path)
    proxy = start_proxy(fake_index, trusted_proxies="127.0.0.1")
    with Nginx(
        proxy.origin,
        folder=tmp_path,
        prefix=prefix,
        certificate=certificate,
        headers=headers,
    ) as nginx:

        def ask(method: str, path: str, **fields: str) -> tuple[int, str]:
            context = ssl.create_default_context(cafile=certificate)
            client = HTTPSConnection(
                "127.0.0.1", nginx.port, source_address=(_CLIENT, 0), context=context, timeout=30
            )
            client.request(method, prefix + path, headers=_FORGED | fields)
            response = client.getresponse()
            found = response.status, response.read().decode()
            client.close()
            return found

        for outcome in ("MISS", "HIT", "HIT", "HIT"):
            before = len(proxy.output.splitlines())
            assert ask("GET", "/index/demo/")[0] == 200
            line = rf"\] {_CLIENT} GET /index/demo/ 200 .* {outcome}.* id=[0-9a-f]{{32}}$"
            proxy.wait_for_line(line, after=before)
        assert nginx.url in ask("GET", "/")[1]
        origin = nginx.url.removesuffix(f"{prefix}/")
        assert ask("POST", "/admin/forget-list", Origin=origin)[0] == 303
        for other in ("https://evil.example", origin.replace("https", "http")):
            assert ask("POST", "/admin/forget-list", Origin=other)[0] == 403
