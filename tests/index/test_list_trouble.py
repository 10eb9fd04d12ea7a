"""The root list and what gets in its way here: a full disk, another process, an early wish."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from proxpi.index.list_store import ListFile, ListStore
from proxpi.index.project_list import FULL
from tests.index.test_list_store import KeptCase
from tests.index.test_project_list import HTML, names
from tests.support.upstreams import ROOT, root_list


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
        self.projects.forget()
        assert names(self.list()) == ["new"]

    def test_nothing_held(self) -> None:
        """Without an older list the trouble of the disk is the answer, each time."""
        self.build(ROOT)
        self.indexes.says(ROOT, root_list(["new"]))
        for _ in range(3):
            assert self.error(self.ask(), OSError).errno == errno.ENOSPC
        assert len(self.agents.asked) == 1


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
        self.projects.forget()
        self.restart()
        self.list()
        assert self.asks == 1
