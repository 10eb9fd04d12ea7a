"""The status of an index, from its first request to its recovery."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionRefusedError

from proxpi.index import revalidation
from proxpi.index.breaker import INDEX_PAUSES, Breakers
from proxpi.index.folder import FolderIndex
from proxpi.index.index_status import IndexStatus, status_of
from proxpi.index.page_cache import NoSuchProject
from proxpi.problems import Problems
from tests.support.agent import Reply
from tests.support.cases import at_once
from tests.support.indexes import project_page, upstream_client
from tests.support.pages import AT_ROOT, PagesCase

PRIVATE = "https://user:secret@root.example/simple/"


class IndexStatusTests(PagesCase):
    def setUp(self) -> None:
        super().setUp()
        self.put(random, "uniform", lambda least, most: most)
        self.put(revalidation, "PAUSES", (0.0, 0.0, 0.0))
        self.build(PRIVATE, ttls=(60.0,))
        (self.index,) = self.indexes.clients
        self.index.breakers = Breakers(self.index.url, self.clock, self.wall)

    def status(self, **changes: Any) -> None:
        """Check the status, with these changes of that of an index which was never requested."""
        expected: dict[str, Any] = {
            "name": "root.example",
            "url": "https://root.example/simple/",
            "kind": "http",
            "state": "unknown",
            "failing_since": None,
            "error": None,
            "next_try": None,
            "latency": None,
            "ttl": 60.0,
        }
        assert self.index.status() == IndexStatus(**expected | changes)

    def test_states(self) -> None:
        """Unknown, reachable, failing since when with what error, and reachable again."""
        self.status()
        self.indexes.says(AT_ROOT, project_page("a.zip"))
        self.page()
        self.status(state="reachable", latency=0.0)
        self.clock.advance(100)
        self.indexes.says(AT_ROOT, ConnectionRefusedError())
        failing = self.wall()
        assert self.page().status == "STALE"
        error = f"{AT_ROOT}: connection refused"
        self.status(
            state="failing",
            latency=0.0,
            failing_since=failing,
            error=error,
            next_try=failing + INDEX_PAUSES[0],
        )
        self.clock.advance(10)
        self.status(state="failing", latency=0.0, failing_since=failing, error=error)
        self.indexes.says(AT_ROOT, Reply(404))
        self.error(self.ask(), NoSuchProject)
        self.status(state="reachable", latency=0.0)

    def test_offline(self) -> None:
        """Offline, the index is never failing: it gets no request."""
        self.indexes.upstream = upstream_client(self.agent, self.clock, offline=True)
        self.index = self.indexes.clients[0] = type(self.index)(
            name="root.example",
            url=PRIVATE,
            ttl=60.0,
            upstream=self.indexes.upstream,
            in_thread=at_once,
            breakers=self.index.breakers,
            root=self.index.root,
        )
        self.start()
        self.fails(self.ask())
        self.status(state="offline")

    def test_folder(self) -> None:
        """A folder has its path as URL, and no latency."""
        url = Path(self.folder).as_uri() + "/"
        index = FolderIndex(
            name="wheels",
            url=url,
            ttl=5.0,
            breakers=Breakers(url, self.clock),
            clock=self.clock,
            in_thread=at_once,
            store=self.folder,
            problems=Problems(self.clock.seconds, self.wall),
        )
        assert index.status() == status_of(index, "folder")
        assert (index.status().url, index.status().kind) == (url, "folder")
