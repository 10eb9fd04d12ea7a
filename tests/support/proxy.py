"""A real ``twistd -n proxpi`` in a process of its own, and plain requests to it."""

from __future__ import annotations

import http.client
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from tests.support.process import GUARD_SECONDS, Process, plain_environment

TWISTD = str(Path(sys.executable).with_name("twistd"))
_LISTENING = re.compile(r"listening on (http://\S+)")


@attrs.frozen
class Reply:
    """An answer as it came, redirects not followed; ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode()


def request(
    origin: str,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Reply:
    """One request on a connection of its own, with the path exactly as given."""
    parts = urlsplit(origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=GUARD_SECONDS)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, named, response.read())
    finally:
        connection.close()


def measured() -> dict[str, str]:
    """The variables with which coverage measures a process, if it measures the tests."""
    config = "COVERAGE_PROCESS_CONFIG"
    if config not in os.environ:
        return {}
    # Coverage starts before a program does, and its plugin is among these modules.
    return {config: os.environ[config], "PYTHONPATH": str(Path(__file__).parents[2])}


def way_out() -> dict[str, str]:
    """The variables by which this machine reaches a registry: its trust, and its own proxies."""
    names = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    names |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    return {name: value for name, value in os.environ.items() if name.upper() in names}


class Proxy(Process):
    """A proxpi, by default on a free port of 127.0.0.1.

    ``settings`` are environment variables (``PROXPI_…``); ``options`` are those of the plugin.
    ``within`` is a command that runs another one in its place. With ``listens`` off it is not
    waited for.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        *,
        folder: Path,
        listens: bool = True,
        within: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        environment = plain_environment(HOME=str(folder), TMPDIR=str(folder)) | measured()
        environment["PROXPI_LISTEN"] = "tcp:0:interface=127.0.0.1"
        command = [*within, TWISTD, "-n", "--pidfile=", "proxpi", *options]
        super().__init__(
            command,
            folder=folder,
            environment=environment | {**(settings or {})},
            descriptors=descriptors,
        )
        self._listens = listens
        self.origin = self.url = ""

    def wait_until_ready(self) -> None:
        """Wait for the first response: a signal before the reactor runs would end the process."""
        if self._listens:
            self.url = self.wait_for_line(_LISTENING).group(1)
            parts = urlsplit(self.url)
            self.origin = f"{parts.scheme}://{parts.netloc}"
            self.get("/health")

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        return request(self.origin, method, path, headers, body)

    def get(self, path: str, **headers: str) -> Reply:
        """One plain ``GET``; ``If_None_Match`` stands for the header ``If-None-Match``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", path, named)

    def wait_for_descriptors(self, count: int) -> None:
        while self.descriptors() > count:
            assert self.get("/health").status == 200

    def get_cached(self, path: str) -> Reply:
        """Request a file until it is no redirect: nothing else tells that it is cached."""
        end = time.monotonic() + GUARD_SECONDS
        reply = self.get(path)
        while reply.status == 302 and time.monotonic() < end:
            reply = self.get(path)
        return reply
