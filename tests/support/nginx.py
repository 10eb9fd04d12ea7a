"""A real nginx of Debian's in front of a proxpi, with the configuration of docs or of a novice."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.support.debian import need
from tests.support.process import Process, plain_environment

#: What nginx sends to proxpi so that proxpi knows the client's address, and the URL that it used.
FORWARDED = {
    "Host": "$http_host",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$http_host",
}

_CONFIGURATION = """\
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
    server {{
        listen 127.0.0.1:{port}{tls};
        {certificate}
        location {prefix}/ {{
            proxy_pass {upstream}/;
            {headers}
        }}
    }}
}}
"""


class Nginx(Process):
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
        # Bound until the end, so that no other process is given the port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}{prefix}/"
        sent = [f"proxy_set_header {name} {value};" for name, value in (headers or {}).items()]
        key = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
        config = folder / f"nginx-{self.port}.conf"
        config.write_text(
            _CONFIGURATION.format(
                folder=folder,
                user="user root;\n" if folder.owner() == "root" else "",
                port=self.port,
                tls=" ssl" if certificate else "",
                certificate=key if certificate else "",
                prefix=prefix,
                upstream=upstream,
                headers="\n            ".join(sent),
            )
        )
        command = [need("nginx-light", "nginx"), "-e", "stderr", "-p", str(folder), "-c"]
        command.append(str(config))
        super().__init__(command, folder=folder, environment=plain_environment())

    def wait_until_ready(self) -> None:
        self.wait_for_line(r"start worker process \d+")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        try:
            return super().stop(with_signal)
        finally:
            self._reserved.close()
