"""What outlasts a restart: how recently and how often files were used, and what that decides."""

from __future__ import annotations

import os

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.files import usage_log
from proxpi.files.cache_dir import CacheDir
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, reference_of
from tests.support.logs import logged


class UsageLog(DiskCase):
    """Three files for which there is just room, one of them used often and long ago."""

    def setUp(self) -> None:
        """Use a file, then lay two others."""
        super().setUp()
        self.references = {name: reference_of(f"{name}.whl", bytes(30)) for name in "abc"}
        self.keep(self.references["a"], bytes(30))
        for _ in range(3):
            self.content(self.references["a"])
        for name in "bc":
            self.keep(self.references[name], bytes(30))
            self.content(self.references[name])
        for age, name in enumerate("cba"):
            path = self.folder / f"h-example/{name}.whl"
            os.utime(path, (1e9 - age, 1e9 - age))
        self.uses = self.cache_dir.own / usage_log.NAME

    def first_to_go(self, disk: CacheDir) -> set[str]:
        """What goes when one more file comes."""
        before = set(os.listdir(self.folder / "h-example"))
        self.cache_dir = disk
        self.keep(reference_of("new.whl", bytes(30)), bytes(30))
        return before - set(os.listdir(self.folder / "h-example"))

    def test_restart(self) -> None:
        """What was used often stays, though it was used long ago."""
        self.cache_dir.close()
        assert self.first_to_go(self.prepared(100)) == {"b.whl"}

    def test_nothing_written(self) -> None:
        """Without a word of uses the times on disk decide."""
        assert self.first_to_go(self.prepared(100)) == {"a.whl"}

    def test_damaged(self) -> None:
        """A document that is damaged is said to be, and the times on disk decide."""
        self.cache_dir.close()
        self.uses.write_bytes(self.uses.read_bytes()[:-1])
        with logged("proxpi.files") as log:
            disk = self.prepared(100)
        assert "uses.json is damaged" in log.text
        assert self.first_to_go(disk) == {"a.whl"}

    def test_leads_elsewhere(self) -> None:
        """A document that names what is not the cache's does it no harm."""
        self.cache_dir.close()
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        document = self.uses.read_bytes().replace(b"h-example/a.whl", b"h-example/../README")
        self.uses.write_bytes(document)
        disk = self.prepared(10)
        assert disk.quota.used == 0
        assert outside.exists()
        assert os.listdir(self.folder / "h-example") == []

    def test_written_now_and_then(self) -> None:
        """It is written while the process runs, for when it is killed."""
        self.put(usage_log, "CHANGES", 5)
        assert not self.uses.exists()
        for _ in range(5):
            self.keep(self.references["a"], bytes(30))
        assert self.uses.exists()
        assert self.leftovers() == []

    def test_not_written(self) -> None:
        """Where it cannot be written, it is not, and nothing is left of it."""
        self.uses.mkdir()
        self.cache_dir.close()
        assert self.leftovers() == []
        assert self.first_to_go(self.prepared(100)) == {"a.whl"}

    def test_any_kind(self) -> None:
        """A file of a kind that nobody knows is still the cache's own after a restart."""
        self.keep(reference_of("unknown.kind", bytes(10)), bytes(10))
        self.cache_dir.close()
        assert self.prepared(100).quota.used == 100

    def test_any_kind_and_killed(self) -> None:
        """So it is after a crash right after it came, and it is removed with the others."""
        self.keep(reference_of("unknown.kind", bytes(10)), bytes(10))
        foreign = self.lay("theirs.kind", bytes(10))
        self.cache_dir = self.prepared(100)
        assert self.cache_dir.quota.used == 100
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert os.listdir(self.folder / "h-example") == [foreign.name]

    def test_any_kind_of_odd_places(self) -> None:
        """A list of these that somebody meddled with does no harm."""
        self.keep(reference_of("unknown.kind", bytes(10)), bytes(10))
        places = self.cache_dir.own / usage_log.PLACES
        outside = self.folder / "README"
        outside.write_bytes(b"x")
        for more in (b"h-example/../README\n../README\n\n/\n", b"\xff\n"):
            places.write_bytes(places.read_bytes() + more)
            self.cache_dir = self.prepared(100)
            self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
            assert outside.exists()

    def test_any_kind_once(self) -> None:
        """Each of them is written down once, and not for ever."""
        places = self.cache_dir.own / usage_log.PLACES
        for _ in range(3):
            for name in ("one.kind", "two.kind"):
                self.keep(reference_of(name, bytes(10)), bytes(10))
        assert places.read_bytes() == b"h-example/one.kind\nh-example/two.kind\n"
        self.delete("h-example/one.kind")
        self.prepared(100)
        assert len(places.read_bytes().split()) == 2
        self.put(usage_log, "MAX_PLACES", 30)
        self.prepared(100)
        assert places.read_bytes() == b"h-example/two.kind\n"

    def test_changed_meanwhile(self) -> None:
        """What went, came or grew while no process ran is as the disk has it."""
        self.cache_dir.close()
        (self.folder / "h-example/a.whl").unlink()
        self.lay("b.whl", bytes(20))
        self.lay("d.whl", bytes(15))
        assert self.prepared(100).quota.used == 20 + 30 + 15


class Remembered(DiskCase):
    """What was compared with its page once is not read again after a restart."""

    def setUp(self) -> None:
        """Keep a file, and end in good order."""
        super().setUp()
        self.reference = reference_of("a.whl", b"right")
        self.path = self.folder / "h-example/a.whl"
        self.keep(self.reference, b"right")

    def restart(self) -> CacheDir:
        """Begin anew after an end in good order."""
        self.cache_dir.close()
        self.cache_dir = self.prepared(100)
        return self.cache_dir

    def assert_to_be_checked(self) -> None:
        """Check that the file is served to nobody before it was compared once more."""
        assert self.cache_dir.open(self.reference) is None
        assert self.cache_dir.found(self.reference)

    def test_remembered(self) -> None:
        """It is there at once, after the second restart, too, and is what it was."""
        for _ in range(2):
            disk = self.restart()
            assert not disk.found(self.reference)
            assert self.content(self.reference) == b"right"
        assert disk.open(reference_of("a.whl", b"other")) is None

    def test_killed(self) -> None:
        """Without a last word it is compared again."""
        self.cache_dir = self.prepared(100)
        self.assert_to_be_checked()

    def test_changed(self) -> None:
        """So is a file that somebody wrote to, or put in its place, or what is left of one."""
        self.restart()

        def replace() -> None:
            other = self.path.with_name("other")
            other.write_bytes(b"wrong")
            other.rename(self.path)

        changes = (
            lambda: self.path.write_bytes(b"wrong"),
            replace,
            lambda: os.truncate(self.path, 3),
        )
        for change in changes:
            assert self.content(self.reference) == b"right"
            change()
            self.restart()
            self.assert_to_be_checked()
            self.keep(self.reference, b"right")

    def test_found(self) -> None:
        """A file that another program laid there is compared once, not once for each start."""
        self.lay("b.whl", b"found")
        reference = reference_of("b.whl", b"found")
        disk = self.restart()
        assert disk.found(reference)
        self.check(reference)
        assert not self.restart().found(reference)
        assert self.content(reference) == b"found"

    def test_unverified(self) -> None:
        """What no hash vouches for is remembered, for its own URL alone."""
        for url in ("https://h.example:8080/a.whl", "https://h.example/a.whl?id=1"):
            reference = FileReference(url, None, 5, private=False)
            self.keep(reference, b"right")
            self.restart()
            assert self.content(reference) == b"right"
            for other in ("https://h.example:8081/a.whl", "https://h.example/a.whl?id=2"):
                assert self.cache_dir.open(FileReference(other, None, 5, private=False)) is None

    def test_unverified_and_killed(self) -> None:
        """Without a last word, no port or query may tell it from another; it is fetched anew."""
        urls = ("https://h.example:8080/a.whl", "https://h.example/a.whl?id=1")
        for url in ("https://h.example/a.whl", *urls):
            reference = FileReference(url, None, 5, private=False)
            self.keep(reference, b"right")
            self.cache_dir = self.prepared(100)
            assert self.check(reference) == (url not in urls)
            assert self.cache_dir.found(reference) is False

    def test_no_secret_is_written(self) -> None:
        """A URL is not written down as it is: there may be credentials in it."""
        reference = FileReference("https://h.example/a.whl?token=secret", None, 5, private=False)
        self.keep(reference, b"right")
        self.cache_dir.close()
        assert b"secret" not in (self.cache_dir.own / usage_log.NAME).read_bytes()

    def test_forgotten(self) -> None:
        """What was removed is not, whatever lies there now."""
        self.delete(self.reference)
        self.lay("a.whl", b"right")
        self.restart()
        self.assert_to_be_checked()

    def test_damaged(self) -> None:
        """Digests that cannot be read are none."""
        for note in ("x", [], [[1, 2, 3]], [[1, 2, 3], {"md5": "0"}], [[1, 2], {"sha256": "0"}]):
            self.restart()
            self.cache_dir.close()
            document = msgspec.json.decode((self.cache_dir.own / usage_log.NAME).read_bytes())
            document["files"][0][4] = note
            (self.cache_dir.own / usage_log.NAME).write_bytes(msgspec.json.encode(document))
            self.cache_dir = self.prepared(100)
            self.assert_to_be_checked()
            self.check(self.reference)

    def test_written_after_a_while(self) -> None:
        """A process that does little writes it down all the same, with the next use."""
        document = self.cache_dir.own / usage_log.NAME
        clock = Clock()
        self.cache_dir = cache_folder(self.folder, 100, seconds=clock.seconds)
        self.cache_dir.prepare()
        self.check(self.reference)
        assert not document.exists()
        clock.advance(usage_log.MAX_AGE)
        self.content(self.reference)
        assert document.exists()
        assert not self.prepared(100).found(self.reference)
