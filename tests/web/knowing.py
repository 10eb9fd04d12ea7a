"""A house on real sockets, for what is answered without a look at the request."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.support.agent import Reply
from tests.support.cases import FILES, ProxpiCase, entry, page
from tests.support.exchange import request as written
from tests.support.kernel import Client, Readiness

PAGE = "/index/demo/"
SMALL, LARGE = "demo-1.0.tar.gz", "demo-2.0.tar.gz"
DATA = {SMALL: b"small" * 100, LARGE: os.urandom(700_000)}
JSON = "Accept: application/vnd.pypi.simple.v1+json"
INDEX_PAGE = "https://index.example/simple/demo/"


def undated(data: bytes) -> bytes:
    """Take the time of day out of answers."""
    return re.sub(rb"\r\nDate: [^\r]*", b"", data)


class KnownCase(ProxpiCase):
    """Tests on real sockets, with a project of two files that are here."""

    readiness = Readiness

    def setUp(self) -> None:
        """Fill the house."""
        super().setUp()
        self.clock: Readiness = self.readiness()
        self.build()
        self.fill()

    def fill(self, **files: bytes) -> None:
        """Bring the project into the cache."""
        data = {**DATA, **files}
        self.internet.at(INDEX_PAGE, page(*(entry(name, body) for name, body in data.items())))
        for name, body in data.items():
            self.internet.at(FILES + name, Reply(200, body))
        client = self.client()
        for target in (PAGE, PAGE + SMALL, PAGE + LARGE):
            self.ask_with(client, written("GET", target))
        client.hang_up()

    def front(self) -> Any:
        """Give what accepts the next connection."""
        return self.site

    def client(self, room: int | None = None) -> Client:
        """Connect."""
        client = Client(self.front(), self.clock, room)
        self.addCleanup(client.hang_up)
        return client

    def ask_with(self, client: Client, *heads: bytes) -> bytes:
        """Send heads as they are, one at a time, and give the last answer."""
        for head in heads:
            client.received = b""
            client.send(head)
            client.settle()
        return client.received

    def known(self, head: bytes, client: Client | None = None) -> bool:
        """Tell whether a request would be answered by the response cache."""
        client = client or self.client()
        begun: list[object] = []
        client.transport.protocol._begin = begun.append
        client.send(head)
        client.settle()
        del client.transport.protocol._begin
        return not begun
