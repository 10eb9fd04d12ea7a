"""The usage log and the startup scan: what a start knows, and what happens until it has ended."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from proxpi.files import layout, usage_log
from proxpi.files.quota import Full
from proxpi.files.resolver import FileReference
from proxpi.files.usage_log import CACHE_PATHS, NAME
from tests.support.cache import CacheCase, ref, refused, replace
from tests.support.cases import run
from tests.support.logs import logged


class Remembered(CacheCase):
    """Three files, one of them used often, that the times on disk would evict first."""

    def setUp(self) -> None:
        super().setUp()
        self.files = {"a": self.keep("a.whl", bytes(30))}
        for _ in range(3):
            self.content(self.files["a"])
        for name in "bc":
            self.files[name] = self.keep(f"{name}.whl", bytes(30))
            self.content(self.files[name])
        for age, name in enumerate("cba"):
            os.utime(self.host / f"{name}.whl", (1e9 - age, 1e9 - age))
        self.log = self.cache_dir.own / NAME

    def first_evicted(self) -> str:
        """Restart; return the file that is evicted for one more."""
        self.start()
        before = self.names()
        self.keep("new.whl", bytes(30))
        [name] = set(before) - set(self.names())
        return name

    def test_decides_the_eviction(self) -> None:
        """Uses outlast a restart; without a usable log the times on disk decide."""

        def damage() -> None:
            self.log.write_bytes(self.log.read_bytes()[:-1])

        def prevent() -> None:
            self.log.unlink()
            self.log.mkdir()
            self.cache_dir.close()

        assert self.first_evicted() == "a.whl", "killed before it was written"
        cases: list[tuple[Callable[[], object], str, str]] = [
            (lambda: None, "b.whl", ""),
            (damage, "a.whl", "uses.json is damaged"),
            (prevent, "a.whl", ""),
        ]
        for change, evicted, line in cases:
            self.result(self.clear())
            self.setUp()
            self.cache_dir.close()
            change()
            with logged("proxpi.files") as log:
                assert self.first_evicted() == evicted
            assert line in log.text
            assert self.leftovers() == []

    def test_written_while_the_process_runs(self) -> None:
        """Every so many changes, and after a while with the next change."""
        self.put(usage_log, "CHANGES", 50)
        self.start()
        assert self.check(self.files["a"])
        while not self.log.exists():
            self.content(self.files["a"])
            self.cache_dir.count_uses()
            assert self.cache_dir.eviction_index.changes <= 50
        self.log.unlink()
        self.clock.advance(usage_log.MAX_AGE)
        self.cache_dir.count_uses()
        assert not self.log.exists(), "nothing has changed"
        self.content(self.files["a"])
        self.cache_dir.count_uses()
        assert self.log.exists()
        self.start()
        assert not self.cache_dir.found(self.files["a"])

    def test_order_of_writes(self) -> None:
        """An older snapshot replaces no newer one, and the end waits for the last."""
        self.put(usage_log, "CHANGES", 1)
        self.held = True
        for _ in range(12):
            self.content(self.files["a"])
            self.cache_dir.count_uses()
        self.delete("a.whl")
        ended = self.cache_dir.close()
        assert len(self.jobs) == 3, "one snapshot, the queued file, the partial files"
        self.run_threads()
        self.result(ended)
        assert b"/a.whl" not in self.log.read_bytes()


class Verified(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.keep("a.whl", b"right")
        self.path = self.host / "a.whl"

    def restart(self) -> None:
        self.cache_dir.close()
        self.start()

    def assert_unverified(self) -> None:
        assert self.cache_dir.open(self.file) is None
        assert self.cache_dir.found(self.file)

    def test_remembered(self) -> None:
        """A remembered file is served at once, also after the second restart; so is a found one."""
        self.lay("b.whl", b"found")
        found = ref("b.whl", b"found")
        assert self.check(found)
        for _ in range(2):
            self.restart()
            for file, data in ((self.file, b"right"), (found, b"found")):
                assert not self.cache_dir.found(file)
                assert self.content(file) == data
            assert self.cache_dir.open(ref("a.whl", b"other")) is None

    def test_unverified_again(self) -> None:
        """After a kill, a change from outside or a deletion it is read again."""
        for change in (
            lambda: self.path.write_bytes(b"wrong"),
            lambda: replace(self.path, b"wrong"),
            lambda: os.truncate(self.path, 3),
        ):
            change()
            self.restart()
            self.assert_unverified()
            self.keep("a.whl", b"right")
        self.delete("a.whl")
        self.path.write_bytes(b"right")
        self.restart()
        self.assert_unverified()
        assert self.check(self.file)
        (self.cache_dir.own / NAME).unlink()
        self.start()
        self.assert_unverified()

    def test_without_a_digest(self) -> None:
        """Without a digest a file is remembered by URL; after a kill, not with port or query."""
        port, query = "https://h.example:8080/a.whl", "https://h.example/a.whl?id=1"
        for url in (port, query, "https://h.example/a.whl"):
            file = FileReference(url, None, 5, private=False)
            self.keep(file, b"right")
            self.restart()
            assert self.content(file) == b"right"
            for other in ("https://h.example:8081/a.whl", "https://h.example/a.whl?id=2"):
                assert self.cache_dir.open(FileReference(other, None, 5, private=False)) is None
            (self.cache_dir.own / NAME).unlink()
            self.start()
            assert self.check(file) == (url not in (port, query))
            assert not self.cache_dir.found(file)

    def test_no_secret_is_written(self) -> None:
        """The log holds no URL, as there may be credentials in it."""
        url = "https://h.example/a.whl?token=secret"
        self.keep(FileReference(url, None, 5, private=False), b"right")
        self.cache_dir.close()
        assert b"secret" not in (self.cache_dir.own / NAME).read_bytes()


class AnyKind(CacheCase):
    def setUp(self) -> None:
        """Cache a file whose name does not tell its owner, and lay a foreign one beside it."""
        super().setUp()
        self.keep("unknown.kind", bytes(10))
        self.foreign = self.lay("theirs.kind", bytes(10))
        self.places = self.cache_dir.own / CACHE_PATHS

    def test_owned(self) -> None:
        """An owned file stays owned after a kill and after an end; the foreign file stays."""
        for _ in range(2):
            self.start()
            assert self.used == 10
            self.cache_dir.close()
        self.result(self.clear())
        assert self.names() == [self.foreign.name]

    def test_foreign_paths(self) -> None:
        """Paths that are no cache paths, in the log or in the list, name no file."""
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        self.keep("y.kind", b"data")
        self.cache_dir.close()
        log = self.cache_dir.own / NAME
        document, listed = log.read_bytes(), self.places.read_bytes()
        more = b"h-example/../README\n../README\n\n/\n\xff\nh-example/\x1b[0m\n"
        for name in (rb"../README#", rb"y\n.kind", rb"y\udcff", rb"y\u001b", b"y\xff"):
            log.write_bytes(document.replace(b"y.kind", name))
            self.places.write_bytes(listed + more)
            self.start()
            assert self.used == 14, name
        self.result(self.clear())
        assert outside.exists() and self.foreign.exists()

    def test_listed_once(self) -> None:
        """Each is written once, and a long list loses those that are gone."""
        for _ in range(3):
            for name in ("unknown.kind", "two.kind"):
                self.keep(name, bytes(10))
        assert self.places.read_bytes() == b"h-example/unknown.kind\nh-example/two.kind\n"
        self.delete("unknown.kind")
        self.start()
        assert len(self.places.read_bytes().split()) == 2
        self.put(usage_log, "MAX_CACHE_PATHS", 30)
        self.start()
        assert self.places.read_bytes() == b"h-example/two.kind\n"


class Scan(CacheCase):
    def setUp(self) -> None:
        """Cache three files in a folder that is scanned in a thread."""
        super().setUp()
        self.files = self.fill(3, 30)
        self.cache_dir.close()
        self.put(layout, "MANY", 2)
        self.held = True

    def test_before_it_ends(self) -> None:
        """Remembered files are served, found ones once they are checked; none is added."""
        for remembered in (True, False):
            if not remembered:
                (self.cache_dir.own / NAME).unlink()
            with logged("proxpi.files") as log:
                self.start()
                assert self.used == (90 if remembered else 0)
                assert remembered or self.check(self.files[1])
                assert self.content(self.files[1]) == bytes(30)
                for _ in range(3):
                    with pytest.raises(Full) as refusal:
                        self.announce(10)
                    self.cache_dir.log_refusal(refusal.value)
            assert log.levels == ["info"]
            self.run_threads()
            assert self.content(self.files[1]) == bytes(30)
            assert self.used == 90
        self.keep("new.whl", bytes(40))
        self.run_threads()
        assert self.used == self.on_disk() == 100

    def test_lowered_capacity(self) -> None:
        """The excess is not served from then on, and counts until a thread has unlinked it."""
        self.start(30)
        self.run_thread()
        assert self.used == 90
        assert not any(map(self.cache_dir.found, self.files))
        assert [self.content(file) is not None for file in self.files] == [False, False, True]
        self.keep("0.whl", bytes(30))
        self.run_threads()
        assert self.content(self.files[0]) == bytes(30), "it came anew meanwhile"
        assert self.used == self.on_disk() == 30

    def test_unreadable_folder(self) -> None:
        """A folder that cannot be scanned is logged, and used all the same."""
        for held in (True, False):
            self.held = held
            with logged("proxpi.files") as log, refused(self.folder, "scandir"):
                self.start()
                self.run_threads()
            assert "cannot be read" in log.text
            assert set(log.levels) == {"critical"}
            assert self.content(self.files[0]) == bytes(30)
            self.held = False
            assert self.content(self.keep("new.whl", bytes(10))) is not None

    def test_cleared_or_ended_before_it_ends(self) -> None:
        """A clear meanwhile leaves nothing; an end meanwhile writes nothing that is not so."""
        log = self.cache_dir.own / NAME
        log.unlink()
        self.start()
        self.cache_dir.close()
        self.run_threads()
        assert not log.exists()
        self.start()
        cleared = self.clear()
        self.run_threads()
        self.result(cleared)
        assert (self.used, self.on_disk()) == (0, 0)

    def test_deletion_by_name_waits(self) -> None:
        """A DELETE by file name is answered once the scan has found all files of that name."""
        (self.cache_dir.own / NAME).unlink()
        self.start()
        deleted = run(self.cache_dir.delete_named({"0.whl"}))
        self.pending(deleted)
        self.run_threads()
        self.result(deleted)
        assert "0.whl" not in self.names()
