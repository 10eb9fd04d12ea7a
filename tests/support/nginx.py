"""A real nginx of Debian's in front of a proxpi, with the configuration of docs or of a novice."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from tests.support.debian import need
from tests.support.process import Process, plain_environment
from tests.support.sockets import reserve_port

#: What nginx sends to proxpi so that proxpi knows the client's address, and the URL that it used.
FORWARDED = {
    "Host": "$http_host",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$http_host",
}

_MAIN = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""
_SITE = """\
server {{
    listen 127.0.0.1:{port}{tls};
    {certificate}
    location {prefix}/ {{
        proxy_pass {upstream}/;
        {headers}
    }}
}}
"""


class NginxSite(Process):
    """An nginx with one site that runs while the ``with`` block does.

    :param site: its ``server`` block, which listens on a port that no other process is given
    """

    def __init__(self, site: str, *, folder: Path) -> None:
        config = folder / "nginx.conf"
        user = "user root;\n" if folder.owner() == "root" else ""
        config.write_text(_MAIN.format(folder=folder, user=user, site=site))
        command = [need("nginx-light", "nginx"), "-e", "stderr", "-p", str(folder), "-c"]
        command.append(str(config))
        super().__init__(command, folder=folder, environment=plain_environment())

    def wait_until_ready(self) -> None:
        self.wait_for_line(r"start worker process \d+")


class Nginx(NginxSite):
    """A reverse proxy that runs while the ``with`` block does.

    :param upstream: the origin of the proxpi behind it
    :param prefix: the path below which it serves proxpi, such as ``/pypi``
    :param certificate: a PEM file with key and certificate, with which it speaks TLS
    :param headers: what it sends to proxpi; without them it sends its defaults
    :ivar url: the URL of the admin page as a browser uses it
    """

    def __init__(
        self,
        upstream: str,
        *,
        folder: Path,
        prefix: str = "",
        certificate: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._reserved, port = reserve_port()
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{port}{prefix}/"
        sent = [f"proxy_set_header {name} {value};" for name, value in (headers or {}).items()]
        key = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
        site = _SITE.format(
            port=port,
            tls=" ssl" if certificate else "",
            certificate=key if certificate else "",
            prefix=prefix,
            upstream=upstream,
            headers="\n        ".join(sent),
        )
        super().__init__(site, folder=folder)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        try:
            return super().stop(with_signal)
        finally:
            self._reserved.close()
