"""Files that are to go for good, whatever happens to them at that moment."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.files.disk import Disk
from tests.files.test_disk import DiskCase, bare, link_of


class Forget(DiskCase):
    """One file."""

    def test_gone(self) -> None:
        """It is a miss, its room is free, and so are the folders that held nothing else."""
        link, other = link_of("a/b/x.whl", b"data"), link_of("a/y.whl", b"else")
        self.keep(link, b"data")
        self.keep(other, b"else")
        assert self.disk.named("x.whl") == [link.place]
        self.disk.forget(link)
        assert self.disk.open(link) is None
        assert not self.disk.found(link)
        assert self.disk.used == 4
        assert not (self.folder / "h-example/a/b").exists()
        assert self.content(other) == b"else"
        assert self.disk.named("x.whl") == []

    def test_by_place(self) -> None:
        """A place is as good as a link, also of a file that nobody asked for yet."""
        path = self.lay("x.whl", b"data")
        self.disk.forget("h-example/x.whl")
        assert not path.exists()

    def test_not_here(self) -> None:
        """What is not here, or cannot be, is forgotten already."""
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        for what in ["h-example/x.whl", "README", "h-example/../README", "../x", ".proxpi/x"]:
            self.disk.forget(what)
        self.disk.forget(link_of("../x.whl", b"data"))
        assert outside.exists()

    def test_being_sent(self) -> None:
        """Who is being sent it gets all of it, and does not stand in the way of a new one."""
        link = link_of("x.whl", b"data")
        self.keep(link, b"data")
        sending = self.disk.open(link)
        assert sending is not None
        self.disk.forget(link)
        self.keep(link, b"data")
        assert sending.read(0, 9) == b"data"
        sending.close()
        assert self.content(link) == b"data"

    def test_being_fetched(self) -> None:
        """Who waits for it gets it, and it is not kept; the next one is."""
        link = link_of("x.whl", b"data")
        partial = self.disk.partial(link)
        partial.write(b"data")
        self.disk.forget(link)
        copy = self.disk.adopt(partial, link)
        self.disk.end(partial)
        assert copy is not None
        assert copy.read(0, 9) == b"data"
        copy.close()
        assert self.held() == self.disk.used == 0
        self.keep(link, b"data")
        assert self.content(link) == b"data"

    def test_being_checked(self) -> None:
        """A check that ends afterwards brings nothing back."""
        self.lay("x.whl", b"data")
        link = link_of("x.whl", b"data")
        checked = self.disk.check(link)
        self.disk.forget(link)
        self.disk.trust(link, checked)
        assert self.disk.open(link) is None
        assert not self.disk.found(link)

    def test_refused(self) -> None:
        """Where it cannot be removed that is said, and it is not served unchecked."""
        link = link_of("x.whl", b"data")
        self.keep(link, b"data")

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.put(os, "rename", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.disk.forget(link)
        assert self.disk.open(link) is None
        assert self.disk.found(link)


class Clear(DiskCase):
    """Everything."""

    def test_gone(self) -> None:
        """All files are gone, those that nobody asked for and another process's, too."""
        link = link_of("x.whl", b"data")
        self.keep(link, b"data")
        self.lay("y.whl", b"else")
        self.keep(link_of("unknown.kind", b"data"), b"data")
        foreign = self.folder / "h-example" / "README"
        foreign.write_bytes(b"x")
        self.result(self.disk.clear())
        assert [path.name for path in (self.folder / "h-example").rglob("*")] == ["README"]
        assert self.disk.open(link) is None
        assert self.disk.used == 0
        assert (self.folder / ".proxpi").is_dir()

    def test_meanwhile(self) -> None:
        """From the call on nothing of it is served; what comes meanwhile stays."""
        jobs: list[tuple[Any, Deferred[Any]]] = []

        def in_thread(job: Any) -> Deferred[Any]:
            jobs.append((job, Deferred()))
            return jobs[-1][1]

        self.disk = Disk(self.folder, 100, in_thread)
        self.disk.prepare()
        old, new, coming = (link_of(f"{name}.whl", b"data") for name in ("old", "new", "coming"))
        self.keep(old, b"data")
        self.keep(new, b"data")
        partial = self.disk.partial(coming)
        partial.write(b"data")
        cleared = self.disk.clear()
        assert self.disk.open(old) is None
        assert not self.disk.found(old)
        self.keep(new, b"data")
        unkept = self.disk.adopt(partial, coming)
        assert unkept is not None
        unkept.close()
        self.disk.end(partial)
        while jobs:
            job, done = jobs.pop(0)
            done.callback(job())
        self.result(cleared)
        assert self.content(new) == b"data"
        assert (self.held(), self.disk.used) == (4, 4)

    def test_refused(self) -> None:
        """What cannot be removed is said, and checked again before it is served."""
        link = link_of("x.whl", b"data")
        self.keep(link, b"data")

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.put(os, "rename", refuse)
        self.error(self.disk.clear(), OSError)
        assert self.disk.open(link) is None
        assert self.disk.found(link)
        assert not self.disk.found(bare("y.whl"))
