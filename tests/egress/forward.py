"""Real forward proxies, ``tinyproxy`` and ``squid`` from Debian, each in a process of its own.

A proxy listens on a free port of 127.0.0.1. Both take users with Basic credentials, or everybody.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.support.debian import beside, need
from tests.support.process import Process, plain_environment

USER = "traveler"


class Forward(Process):
    """A forward proxy that runs while the ``with`` block does.

    :ivar url: its URL, without credentials; ``private_url`` has them
    :ivar password: of the one user, if it is locked
    :ivar served: method and target of each request, tunnels (CONNECT) included; known at its end
    """

    scheme = "http"
    ready = ""
    password = ""

    def __init__(self, *, locked: bool = False) -> None:
        self._locked = locked
        # Bound until the end, so that no other process is given the port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]
        self.url = f"{self.scheme}://127.0.0.1:{self._port}"
        pair = f"{USER}:{quote(self.password, safe='')}"
        self.private_url = self.url.replace("://", f"://{pair}@")
        folder = Path(tempfile.mkdtemp(prefix="forward-"))
        super().__init__(self.configure(folder), folder=folder, environment=plain_environment())

    def configure(self, folder: Path) -> Sequence[str]:
        """Write a configuration into a folder, and give the command that uses it."""
        raise NotImplementedError

    def log(self) -> list[tuple[str, str]]:
        """Return its log of the requests that it received."""
        raise NotImplementedError

    def wait_until_ready(self) -> None:
        self.wait_for_line(self.ready)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        try:
            return super().stop(with_signal)
        finally:
            self._reserved.close()
            if self.folder.exists():
                self.served = self.log()
                shutil.rmtree(self.folder)


class Tinyproxy(Forward):
    """``tinyproxy``, which closes each connection after one answer."""

    ready = "Accepting connections"
    password = "t1ny-s3cr3t"  # it takes no other characters

    def configure(self, folder: Path) -> Sequence[str]:
        lines = [f"Port {self._port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Info"]
        if self._locked:
            lines.append(f"BasicAuth {USER} {self.password}")
        config = folder / "tinyproxy.conf"
        config.write_text("\n".join(lines) + "\n")
        return [need("tinyproxy", "tinyproxy"), "-d", "-c", str(config)]

    def log(self) -> list[tuple[str, str]]:
        found = re.findall(r"Request \(file descriptor \d+\): (\S+) (\S+)", self.output)
        return [(method, target) for method, target in found]


class Squid(Forward):
    """``squid``, which keeps connections.

    :param hosts: names that it knows
    :param certificate: a PEM file, with which it speaks TLS
    :param denied: ports to which it opens no connection
    """

    ready = "Accepting"
    password = "squ1d:s3cr3t/@%"

    def __init__(
        self,
        *,
        locked: bool = False,
        hosts: Mapping[str, str] | None = None,
        certificate: Path | None = None,
        denied: Sequence[str] = (),
    ) -> None:
        self.scheme = "https" if certificate else "http"
        self._hosts = hosts or {}
        self._certificate = certificate
        self._denied = denied
        super().__init__(locked=locked)

    def configure(self, folder: Path) -> Sequence[str]:
        squid = need("squid-openssl", "squid")
        files = {
            "hosts": "".join(f"{address} {name}\n" for name, address in self._hosts.items()),
            "access.log": "",
            "users": f"{USER}:{_crypted(self.password)}\n",
            "squid.conf": "\n".join(self._config(folder)) + "\n",
        }
        if self._certificate:
            files["certificate.pem"] = self._certificate.read_text()
        for name, text in files.items():
            (folder / name).write_text(text)
        if os.geteuid() == 0:
            # Squid then becomes this user.
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, pwd.getpwnam("proxy").pw_uid)
        return [squid, "-n", f"test{self._port}", "-N", "-d1", "-f", str(folder / "squid.conf")]

    def _config(self, folder: Path) -> list[str]:
        port = f"http_port 127.0.0.1:{self._port}"
        if self._certificate:
            port = f"https_port 127.0.0.1:{self._port} tls-cert={folder}/certificate.pem"
        lines = [
            port,
            f"hosts_file {folder}/hosts",
            "logformat own %rm %ru",
            f"access_log stdio:{folder}/access.log own",
            "logfile_rotate 0",
            "buffered_logs off",
            "pid_filename none",
            "cache_log /dev/null",
            f"coredump_dir {folder}",
            "cache deny all",
            "pinger_enable off",
            "shutdown_lifetime 0 seconds",
        ]
        root = beside(need("squid-openssl", "squid"))
        if root != Path("/"):
            lines.append(f"error_directory {root}/usr/share/squid/errors/templates")
            lines.append(f"unlinkd_program {root}/usr/lib/squid/unlinkd")
            lines.append(f"mime_table {root}/usr/share/squid/mime.conf")
            lines.append(f"icon_directory {root}/usr/share/squid/icons")
            lines.append(f"err_page_stylesheet {root}/etc/squid/errorpage.css")
        if self._denied:
            lines += ["acl denied port " + " ".join(self._denied), "http_access deny denied"]
        if self._locked:
            helper = need("squid-openssl", "basic_ncsa_auth")
            lines.append(f"auth_param basic program {helper} {folder}/users")
            lines.append("acl known proxy_auth REQUIRED")
            lines.append("http_access deny !known")
        return [*lines, "http_access allow all"]

    def log(self) -> list[tuple[str, str]]:
        lines = (self.folder / "access.log").read_text().splitlines()
        words = [line.split() for line in lines if " error:" not in line]  # those of no request
        return [(method, target) for method, target in words]


def _crypted(password: str) -> str:
    """A password as it stands in a file of users (Apache's MD5)."""
    command = [need("openssl", "openssl"), "passwd", "-apr1", "-stdin"]
    ended = subprocess.run(command, input=password, capture_output=True, text=True, check=True)
    return ended.stdout.strip()
