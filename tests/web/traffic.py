"""Any traffic, for comparing what comes back with what would have."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from proxpi.web.response_cache import ResponseCache
from tests.support.exchange import request as written
from tests.web.knowing import JSON, LARGE, PAGE, SMALL, KnownCase, undated


class NothingKnown(ResponseCache):
    """Never knows anything: all goes the ordinary way."""

    def store(self, *_: Any) -> None:
        """Keep nothing."""


TARGETS = (PAGE, PAGE + SMALL, PAGE + LARGE, "/index/none/", "/health", "/simple/demo")
FIELDS = (
    JSON,
    "Accept-Encoding: gzip",
    "Range: bytes=0-99",
    "Range: bytes=-8192",
    "Range: bytes=9999999-",
    "If-None-Match: *",
    "User-Agent: pip/99",
)
heads = st.builds(
    lambda method, target, fields, end: written(method, target, *fields) + end,
    st.sampled_from(("GET", "GET", "GET", "HEAD", "OPTIONS")),
    st.sampled_from(TARGETS),
    st.lists(st.sampled_from(FIELDS), max_size=2, unique=True),
    st.sampled_from((b"", b"", b"", b"", b"\r\n")),
)
events = st.sampled_from(("read", "read", "wait", "forget", "drop", "touch", "expire", "connect"))
sent = st.lists(
    st.one_of(st.tuples(heads, st.lists(st.integers(1, 400), max_size=3)), events),
    min_size=1,
    max_size=25,
)


class TrafficCase(KnownCase):
    """Tests of whatever a client may send."""

    def ordinary(self) -> None:
        """From now on, let nothing be known."""
        self.site.response_cache = NothingKnown()

    def anew(self) -> None:
        """Begin again with another house."""
        self.tearDown()
        self.doCleanups()
        self.setUp()

    def play(self, traffic: list[Any], room: int | None) -> list[bytes]:
        """Send all of it, and give what each connection brought."""
        clients = [self.client(room)]
        for step in traffic:
            match step:
                case "read":
                    clients[-1].read(1000)
                case "wait":
                    clients[-1].settle()
                case "connect":
                    clients.append(self.client(room))
                case "forget":
                    self.pages.invalidate("demo")
                case "drop":
                    self.mirror.delete("demo", SMALL)
                case "touch":
                    os.utime(self.folder / "files-example/packages" / LARGE)
                case "expire":
                    self.clock.advance(9)
                case (head, cuts):
                    begin = 0
                    for cut in sorted(cuts):
                        clients[-1].send(head[begin:cut])
                        begin = max(begin, cut)
                    clients[-1].send(head[begin:])
        return [undated(client.settle()) for client in clients]
