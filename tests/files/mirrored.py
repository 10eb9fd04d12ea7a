"""What the tests of the mirror have in common: a mirror over an internet in memory."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.files import fetch
from proxpi.files.cache_dir import OpenFile, PartialFile
from proxpi.files.mirror import Redirect
from proxpi.files.spool import Reader
from proxpi.tap import cache_folder, file_mirror
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.cases import FILES, MIB, FolderCase, at_once, entry
from tests.support.indexes import upstream_client
from tests.support.listing import FakePages
from tests.support.reading import Reading

NAME = "demo-1.0-py3-none-any.whl"
URL = FILES + NAME
DATA = b"the bytes of a wheel"
TIMEOUT = 0.9


class MirrorCase(FolderCase):
    """Tests of a mirror whose pages, internet and clock they control."""

    def setUp(self) -> None:
        """Make a mirror with room enough, which asks again without a pause."""
        super().setUp()
        self.put(fetch, "PAUSE", 0.0)
        self.clock = Clock()
        self.internet = MemoryAgent()
        self.locate = FakePages()
        self.threads: list[tuple[Any, Deferred[Any]]] = []
        self.build()

    def build(
        self,
        *,
        capacity: int = 100 * MIB,
        timeout: float = TIMEOUT,
        stream: bool = False,
        writes: Any = at_once,
    ) -> None:
        """Make a mirror on the folder, as a new process does."""
        self.cache_dir = cache_folder(self.folder, capacity, writes=writes, reads=self.in_thread)
        self.cache_dir.prepare()
        self.upstream = upstream_client(self.internet, self.clock)
        self.mirror = file_mirror(
            self.locate,
            self.upstream,
            self.cache_dir,
            self.clock,
            in_thread=self.in_thread,
            timeout=timeout,
            stream=stream,
            ttl=1800,
        )

    def in_thread(self, work: Any) -> Deferred[Any]:
        """Keep what would be done in a thread, for :meth:`run_threads`."""
        done: Deferred[Any] = Deferred()
        self.threads.append((work, done))
        return done

    def run_threads(self) -> int:
        """Do what is to be done in threads; tell how much that was."""
        threads, self.threads = self.threads, []
        for work, done in threads:
            at_once(work).chainDeferred(done)
        return len(threads)

    def listed(self, *replies: Reply | Silence | Exception, **keys: Any) -> None:
        """Let the page list the wheel, and the upstream answer so."""
        private, cold = keys.pop("private", False), keys.pop("cold", False)
        self.locate.lists(entry(NAME, DATA, **keys), private=private, cold=cold)
        self.internet.at(URL, *(replies or [Reply(200, DATA)]))

    def fetch(self, filename: str = NAME) -> Deferred[OpenFile | Reader | Redirect]:
        """Ask as a client does."""
        return Deferred.fromCoroutine(self.mirror.fetch("demo", filename))

    def assert_bytes(self, found: object, data: bytes = DATA) -> None:
        """Check that these bytes would be sent."""
        if isinstance(found, Reader):
            reading = Reading(found)
            assert (reading.data, reading.whole) == (data, True)
            return
        assert isinstance(found, OpenFile), found
        assert (found.size, found.read(0, found.size + 1)) == (len(data), data)
        found.close()

    def assert_sent_to(self, asked: Deferred[OpenFile | Reader | Redirect], url: str = URL) -> None:
        """Check that a client was sent upstream."""
        assert self.result(asked) == Redirect(url)

    def assert_served(self, filename: str = NAME, data: bytes = DATA) -> None:
        """Check that the next client gets these bytes from disk, without a wait."""
        self.assert_bytes(self.mirror.ready("demo", filename), data)

    def assert_nothing_kept(self) -> None:
        """Check that no file was kept, nor a part of one, nor one left open."""
        assert self.mirror.ready("demo", NAME) is None
        assert [path for path in self.folder.rglob("*") if path.is_file()] == []
        assert self.open_files() == []

    def fill_disk(self, function: str = "write") -> Any:
        """Let a partial file have no room, until what is given back is stopped."""

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full = mock.patch.object(PartialFile, function, refuse)
        full.start()
        self.addCleanup(full.stop)
        return full
