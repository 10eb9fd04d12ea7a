"""Files that are to go for good, whatever happens to them at that moment."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import layout
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, bare, reference_of


class Forget(DiskCase):
    """One file."""

    def test_gone(self) -> None:
        """It is a miss, its room is free, and so are the folders that held nothing else."""
        reference, other = reference_of("a/b/x.whl", b"data"), reference_of("a/y.whl", b"else")
        self.keep(reference, b"data")
        self.keep(other, b"else")
        self.delete(reference)
        assert self.cache_dir.open(reference) is None
        assert not self.cache_dir.found(reference)
        assert self.cache_dir.quota.used == 4
        assert not (self.folder / "h-example/a/b").exists()
        assert self.content(other) == b"else"

    def test_by_place(self) -> None:
        """A place is as good as a reference, also of a file that nobody asked for yet."""
        path = self.lay("x.whl", b"data")
        self.delete("h-example/x.whl")
        assert not path.exists()

    def test_not_here(self) -> None:
        """What is not here, or cannot be, is forgotten already."""
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        for what in ["h-example/x.whl", "README", "h-example/../README", "../x", ".proxpi/x"]:
            self.delete(what)
        self.delete(reference_of("../x.whl", b"data"))
        assert outside.exists()

    def test_being_sent(self) -> None:
        """Who is being sent it gets all of it, and does not stand in the way of a new one."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        sending = self.cache_dir.open(reference)
        assert sending is not None
        self.delete(reference)
        self.keep(reference, b"data")
        assert sending.read(0, 9) == b"data"
        sending.close()
        assert self.content(reference) == b"data"

    def test_being_fetched(self) -> None:
        """Who waits for it gets it, and it is not kept; the next one is."""
        reference = reference_of("x.whl", b"data")
        partial = self.cache_dir.partial(reference)
        partial.write(b"data")
        self.delete(reference)
        copy = self.adopt(partial, reference)
        self.cache_dir.discard(partial)
        assert copy is not None
        assert copy.read(0, 9) == b"data"
        copy.close()
        assert self.held() == self.cache_dir.quota.used == 0
        self.keep(reference, b"data")
        assert self.content(reference) == b"data"

    def test_being_checked(self) -> None:
        """A check that ends afterwards brings nothing back."""
        self.lay("x.whl", b"data")
        reference = reference_of("x.whl", b"data")
        checked = self.begin_check(reference)
        self.delete(reference)
        checked()
        assert self.cache_dir.open(reference) is None
        assert not self.cache_dir.found(reference)

    def test_refused(self) -> None:
        """Where it cannot be removed that is said, and it is not served unchecked."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.put(os, "rename", refuse)
        with pytest.raises(OSError, match="Read-only"):
            self.delete(reference)
        assert self.cache_dir.open(reference) is None
        assert self.cache_dir.found(reference)


class Named(DiskCase):
    """Files of one name."""

    def forget(self, name: str) -> None:
        """Forget a name."""
        self.result(Deferred.fromCoroutine(self.cache_dir.delete_named({name})))

    def test_decoded(self) -> None:
        """Names are the same whatever of them is percent-encoded, and how, and from any host."""
        paths = ["+c.whl", "%2Bc.whl", "%2bc.whl", "a/%2B%63.whl", "a/b/+%63.whl"]
        for _ in range(2):
            for host in ("h.example", "other.example"):
                for path in paths:
                    self.keep(reference_of(path, b"data", host=host), b"data")
            kept = [reference_of(name, b"data") for name in ("%252Bc.whl", "c.whl", "x+c.whl")]
            for reference in kept:
                self.keep(reference, b"data")
            self.forget("+c.whl")
            assert self.cache_dir.quota.used == self.held() == 12
            assert [self.content(reference) for reference in kept] == [b"data"] * 3

    def test_other_encodings(self) -> None:
        """So are other characters: spaces, exclamation marks, and those that are not ASCII."""
        for encoded, name in [
            ("a%21b.whl", "a!b.whl"),
            ("a!b.whl", "a!b.whl"),
            ("a%20b.whl", "a b.whl"),
            ("%C3%A9.whl", "é.whl"),
            ("%c3%a9.whl", "é.whl"),
            ("1%213.0-py3.whl", "1!3.0-py3.whl"),
        ]:
            self.keep(reference_of(encoded, b"data"), b"data")
            self.forget(name)
            assert self.cache_dir.quota.used == 0, encoded

    def test_found(self) -> None:
        """Files that others laid there are found by their names as well."""
        paths = [self.lay(name, b"data") for name in ("+c.whl", "%2Bc.whl")]
        self.cache_dir = self.prepared(100)
        self.forget("+c.whl")
        assert not any(path.exists() for path in paths)

    def test_before_the_scan_has_ended(self) -> None:
        """While a large folder is scanned, nothing is answered that is not so."""
        path = self.lay("+c.whl", b"data")
        self.put(layout, "MANY", 0)
        jobs: list[tuple[Any, Deferred[Any]]] = []

        def in_thread(job: Any) -> Deferred[Any]:
            jobs.append((job, Deferred()))
            return jobs[-1][1]

        self.cache_dir = cache_folder(self.folder, 100, writes=in_thread)
        self.cache_dir.prepare()
        forgotten = Deferred.fromCoroutine(self.cache_dir.delete_named({"+c.whl"}))
        self.pending(forgotten)
        while jobs:
            job, done = jobs.pop(0)
            done.callback(job())
        self.result(forgotten)
        assert not path.exists()


class Clear(DiskCase):
    """Everything."""

    def test_gone(self) -> None:
        """All files are gone, those that nobody asked for and another process's, too."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        self.lay("y.whl", b"else")
        self.keep(reference_of("unknown.kind", b"data"), b"data")
        foreign = self.folder / "h-example" / "README"
        foreign.write_bytes(b"x")
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert [path.name for path in (self.folder / "h-example").rglob("*")] == ["README"]
        assert self.cache_dir.open(reference) is None
        assert self.cache_dir.quota.used == 0
        assert (self.folder / ".proxpi").is_dir()

    def test_meanwhile(self) -> None:
        """From the call on nothing of it is served; what comes meanwhile stays."""
        jobs: list[tuple[Any, Deferred[Any]]] = []

        def in_thread(job: Any) -> Deferred[Any]:
            jobs.append((job, Deferred()))
            return jobs[-1][1]

        self.cache_dir = cache_folder(self.folder, 100, writes=in_thread)
        self.cache_dir.prepare()
        old, new, coming = (
            reference_of(f"{name}.whl", b"data") for name in ("old", "new", "coming")
        )
        self.keep(old, b"data")
        self.keep(new, b"data")
        partial = self.cache_dir.partial(coming)
        partial.write(b"data")
        cleared = Deferred.fromCoroutine(self.cache_dir.clear())
        assert self.cache_dir.open(old) is None
        assert not self.cache_dir.found(old)
        self.keep(new, b"data")
        unkept = self.adopt(partial, coming)
        assert unkept is not None
        unkept.close()
        self.cache_dir.discard(partial)
        while jobs:
            job, done = jobs.pop(0)
            done.callback(job())
        self.result(cleared)
        assert self.content(new) == b"data"
        assert (self.held(), self.cache_dir.quota.used) == (4, 4)

    def test_refused(self) -> None:
        """What cannot be removed is said, and checked again before it is served."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.put(os, "rename", refuse)
        self.error(Deferred.fromCoroutine(self.cache_dir.clear()), OSError)
        assert self.cache_dir.open(reference) is None
        assert self.cache_dir.found(reference)
        assert not self.cache_dir.found(bare("y.whl"))
