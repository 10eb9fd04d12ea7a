"""The root list and what gets in its way here: a full disk, another process, an early wish."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterable
from typing import IO

from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.project_list import FULL
from tests.index.test_list_store import KeptCase
from tests.index.test_project_list import HTML, names
from tests.support.agent import Reply
from tests.support.indexes import EXTRA, ROOT, root_list


class FullDiskTests(KeptCase):
    """A list that cannot be written."""

    def setUp(self) -> None:
        """Hold an old list, and let a new one find no room."""
        super().setUp()
        self.indexes.says(ROOT, root_list(["new"]))
        self.full = True
        write = ListStore.write

        def refuse(store: ListStore, pieces: Iterable[bytes]) -> ListFile:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(store, pieces)

        self.put(ListStore, "write", refuse)
        self.clock.advance(2000)

    def test_fetched_once(self) -> None:
        """It is not fetched over and over, and the old list is served meanwhile."""
        for _ in range(10):
            assert self.list().status == "STALE"
        assert self.asks == 1

    def test_room_again(self) -> None:
        """After a while it is tried again."""
        self.list()
        self.full = False
        self.clock.advance(FULL + 1)
        assert names(self.list()) == ["new"]

    def test_wish(self) -> None:
        """An operator need not wait for that."""
        self.list()
        self.full = False
        self.projects.invalidate()
        assert names(self.list()) == ["new"]

    def test_nothing_held(self) -> None:
        """Without an older list the trouble of the disk is the answer, each time."""
        self.build(ROOT)
        self.indexes.says(ROOT, root_list(["new"]))
        for _ in range(3):
            assert self.error(self.ask(), OSError).errno == errno.ENOSPC
        assert len(self.agents.asked) == 1


class AnyFileTests(KeptCase):
    """A list of which one file or another finds no room: what comes, what is decoded, or names."""

    def setUp(self) -> None:
        """Have two indexes, one of which sends its list coded."""
        super().setUp()
        self.build(ROOT, EXTRA)
        body = root_list(["b"]).chunks[0]
        self.indexes.says(ROOT, root_list(["a"]))
        self.indexes.says(
            EXTRA, Reply(200, (zlib.compress(body),), {"Content-Encoding": "deflate"})
        )
        self.left = 0
        begin = ListStore.temporary

        def temporary(store: ListStore) -> IO[bytes]:
            self.left -= 1
            return begin(store) if self.left else open("/dev/full", "r+b")

        self.put(ListStore, "temporary", temporary)

    def test_nothing_held(self) -> None:
        """Whichever it is, that is the answer, nothing stays behind, and later all is well."""
        for number in range(1, 9):
            self.left = number
            assert self.error(self.ask(), OSError).errno == errno.ENOSPC
            assert not self.leftovers()
            self.clock.advance(FULL)
        self.left = 0
        assert names(self.list()) == ["a", "b"]

    def test_stale(self) -> None:
        """Whichever it is, a list that is held is served meanwhile."""
        self.list()
        self.indexes.says(ROOT, root_list(["c"]))
        for number in range(1, 6):
            self.clock.advance(2000)
            self.left = number
            found = self.list()
            assert (found.status, names(found)) == ("STALE", ["a", "b"])
        self.clock.advance(2000)
        self.left = 0
        assert names(self.list()) == ["b", "c"]


class TwoProcessesTests(KeptCase):
    """Two processes on one folder."""

    def test_the_list_stays(self) -> None:
        """Whoever writes last has the word, and takes nothing from the other."""
        one = self.projects
        self.clock.advance(2000)
        self.restart()
        self.indexes.says(ROOT, root_list(["a", "b", "c"]))
        assert names(self.list()) == ["a", "b", "c"]
        self.projects, two = one, self.projects
        self.list(HTML, False)
        self.projects = two
        self.indexes.upstream.offline = True
        self.restart()
        assert names(self.list())


class EarlyWishTests(KeptCase):
    """A list that is to be forgotten before it was read."""

    def test_kept(self) -> None:
        """The wish outlives another restart."""
        self.restart()
        self.projects.invalidate()
        self.restart()
        self.list()
        assert self.asks == 1
