"""The cache folder: what is served from it, what is checked, and what goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from proxpi.files.cache_dir import CacheDir, OpenFile, PartialFile
from proxpi.files.quota import TooLarge
from proxpi.files.resolver import FileReference
from proxpi.files.verify import Mismatch
from proxpi.tap import cache_folder
from tests.support.cases import FolderCase, at_once, sha256


def reference_of(
    name: str, data: bytes, *, host: str = "h.example", digest: str = ""
) -> FileReference:
    """The reference of a file with these bytes."""
    return FileReference(
        f"https://{host}/{name}", ("sha256", digest or sha256(data)), len(data), private=False
    )


def bare(name: str, size: int | None = None) -> FileReference:
    """The reference of a file of which the index tells no hash."""
    return FileReference(f"https://h.example/{name}", None, size, private=False)


class DiskCase(FolderCase):
    """Tests of a folder with room for a hundred bytes."""

    def setUp(self) -> None:
        """Prepare the folder."""
        super().setUp()
        self.cache_dir = self.prepared(100)

    def prepared(self, capacity: int) -> CacheDir:
        """Look at the folder as a new process does."""
        disk = cache_folder(self.folder, capacity)
        disk.prepare()
        return disk

    def keep(self, reference: FileReference, data: bytes) -> OpenFile | None:
        """Do what a download does."""
        partial = self.cache_dir.partial(reference)
        try:
            partial.write(data)
            return self.adopt(partial, reference)
        finally:
            self.cache_dir.discard(partial)

    def adopt(self, partial: PartialFile, reference: FileReference) -> OpenFile | None:
        """Let a finished file be flushed at once, whatever other threads wait for."""
        writing, self.cache_dir.writes = self.cache_dir.writes, execute
        try:
            adopted = Deferred.fromCoroutine(self.cache_dir.adopt(partial, reference))
            outcomes: list[Any] = []
            adopted.addBoth(outcomes.append)
            while not outcomes:
                self.run_thread()
            if isinstance(outcomes[0], Failure):
                outcomes[0].raiseException()
            return outcomes[0]  # type: ignore[no-any-return]
        finally:
            self.cache_dir.writes = writing

    def run_thread(self) -> None:
        raise AssertionError("it waits")

    def delete(self, what: FileReference | str) -> None:
        self.cache_dir.delete(what if isinstance(what, str) else what.cache_path)

    def begin_check(self, reference: FileReference) -> Callable[[], bool]:
        """Read a found file now; give a function that ends its check."""
        thread: Deferred[Any] = Deferred()
        jobs: list[Any] = []

        def in_thread(job: Any) -> Deferred[Any]:
            jobs.append(job)
            return thread

        reading, self.cache_dir.reads = self.cache_dir.reads, in_thread
        checked = Deferred.fromCoroutine(self.cache_dir.check(reference))
        self.cache_dir.reads = reading
        outcome = at_once(jobs[0])

        def end() -> bool:
            outcome.chainDeferred(thread)
            return self.result(checked)

        return end

    def lay(self, name: str, data: bytes, *, age: float = 0.0) -> Path:
        """Lay a file there as another process would, some seconds ago."""
        path = self.folder / "h-example" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def content(self, reference: FileReference) -> bytes | None:
        """What would be sent for a reference."""
        copy = self.cache_dir.open(reference)
        if copy is None:
            return None
        data = copy.read(0, copy.size + 1)
        copy.close()
        return data

    def check(self, reference: FileReference) -> bool:
        """Check a found file, and remember it; tell whether it is right."""
        return self.successResultOf(Deferred.fromCoroutine(self.cache_dir.check(reference)))

    def held(self) -> int:
        """Bytes of files that lie there."""
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


class Hits(DiskCase):
    """What is here is given; what is not quite here is a miss."""

    def test_adopted(self) -> None:
        """A finished file has its name, and is served."""
        reference = reference_of("a/x.whl", b"data")
        assert self.keep(reference, b"data") is None
        assert (self.folder / "h-example/a/x.whl").read_bytes() == b"data"
        assert self.content(reference) == b"data"
        assert self.leftovers() == []
        assert self.open_files() == []

    def test_unknown(self) -> None:
        """A file that is not here is a miss."""
        assert self.cache_dir.open(reference_of("x.whl", b"data")) is None
        assert not self.cache_dir.found(reference_of("x.whl", b"data"))

    def test_no_place(self) -> None:
        """What cannot lie in the folder is never here."""
        reference = reference_of("../x.whl", b"data")
        assert self.cache_dir.open(reference) is None
        assert not self.cache_dir.found(reference)

    def test_vanished(self) -> None:
        """A file somebody removed is a miss, and its bytes are room again."""
        reference = reference_of("x.whl", b"d" * 60)
        self.keep(reference, b"d" * 60)
        (self.folder / "h-example/x.whl").unlink()
        assert self.cache_dir.open(reference) is None
        other = reference_of("kept.whl", b"k" * 40)
        self.keep(other, b"k" * 40)
        self.keep(reference, b"d" * 60)
        assert self.content(other) == b"k" * 40

    def test_shrunk(self) -> None:
        """A file that lost bytes is a miss, to be checked again; its descriptor is closed."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        os.truncate(self.folder / "h-example/x.whl", 2)
        assert self.cache_dir.open(reference) is None
        assert self.open_files() == []
        assert self.cache_dir.found(reference)
        assert not self.check(reference)
        assert not self.cache_dir.found(reference)

    def test_replaced(self) -> None:
        """A file that was replaced by one of the same size is checked again, too."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        new = self.folder / "new"
        new.write_bytes(b"DATA")
        os.replace(new, self.folder / "h-example/x.whl")
        assert self.cache_dir.open(reference) is None
        assert not self.check(reference)
        assert not (self.folder / "h-example/x.whl").exists()

    def test_replaced_by_the_same(self) -> None:
        """A file that was replaced by the same bytes is good again once it is checked."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        (self.folder / "h-example/x.whl").unlink()
        self.lay("x.whl", b"data", age=50)
        assert self.cache_dir.open(reference) is None
        assert self.check(reference)
        assert self.content(reference) == b"data"

    def test_other_digest(self) -> None:
        """A file whose index names another digest by now is a miss."""
        self.keep(reference_of("x.whl", b"data"), b"data")
        assert self.cache_dir.open(reference_of("x.whl", b"else")) is None

    def test_two_ports(self) -> None:
        """Of two upstreams that differ only in port each gets its own bytes."""
        one = reference_of("x.whl", b"one", host="h.example:1")
        two = reference_of("x.whl", b"two", host="h.example:2")
        self.keep(one, b"one")
        assert self.cache_dir.open(two) is None
        self.keep(two, b"two")
        assert self.content(two) == b"two"
        assert self.cache_dir.open(one) is None

    def test_two_readers(self) -> None:
        """Each reader has a place of its own, and the file stays readable when its name goes."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        one, two = self.cache_dir.open(reference), self.cache_dir.open(reference)
        assert one is not None and two is not None
        (self.folder / "h-example/x.whl").unlink()
        one.close()
        one.close()
        assert two.read(1, 2) == b"at"
        two.close()
        assert self.open_files() == []


class Found(DiskCase):
    """Files that others put there are checked once, before they are first served."""

    def test_right(self) -> None:
        """A file with the page's digest is served, and not checked again."""
        self.lay("x.whl", b"data")
        reference = reference_of("x.whl", b"data")
        assert self.cache_dir.open(reference) is None
        assert self.cache_dir.found(reference)
        assert self.check(reference)
        assert not self.cache_dir.found(reference)
        assert self.content(reference) == b"data"

    def test_wrong(self) -> None:
        """A file with other bytes is removed."""
        path = self.lay("x.whl", b"evil")
        reference = reference_of("x.whl", b"data")
        assert not self.check(reference)
        assert not path.exists()
        assert self.cache_dir.open(reference) is None

    def test_other_algorithm(self) -> None:
        """The page's best digest decides, whichever it is."""
        self.lay("x.whl", b"data")
        md5 = "8d777f385d3dfec8815d20f7496026dc"
        reference = FileReference("https://h.example/x.whl", ("md5", md5), None, False)
        assert self.check(reference)
        assert self.content(reference) == b"data"

    def test_size_alone(self) -> None:
        """Without a digest the size decides."""
        path = self.lay("x.whl", b"data")
        assert self.check(bare("x.whl", 4))
        assert self.cache_dir.open(bare("x.whl", 5)) is None
        assert not self.check(bare("x.whl", 5))
        assert not path.exists()

    def test_vanishing(self) -> None:
        """A file that goes while it is to be checked is none."""
        assert not self.check(bare("x.whl"))

    def test_folder_in_its_place(self) -> None:
        """A folder under a file's name is no file; an empty one makes way, another one stays."""
        inside = self.folder / "h-example/x.whl/inside"
        inside.mkdir(parents=True)
        assert not self.cache_dir.found(bare("x.whl"))
        with pytest.raises(OSError):
            self.keep(reference_of("x.whl", b"data"), b"data")
        assert self.leftovers() == []
        inside.rmdir()
        self.keep(reference_of("x.whl", b"data"), b"data")
        assert self.content(reference_of("x.whl", b"data")) == b"data"

    def test_file_where_a_folder_belongs(self) -> None:
        """Of two files of which one lies where the other needs a folder, the later one is kept."""
        for first, then in (("x.whl", "x.whl/y.whl"), ("z.whl/y.whl", "z.whl")):
            self.keep(reference_of(first, b"one"), b"one")
            self.keep(reference_of(then, b"two"), b"two")
            assert self.content(reference_of(then, b"two")) == b"two"
            assert self.content(reference_of(first, b"one")) is None

    def test_name_too_long_for_the_disk(self) -> None:
        """A name that the file system refuses is no file that was found, or says so."""
        with pytest.raises(OSError):
            self.keep(reference_of("x" * 300, b"data"), b"data")
        assert self.leftovers() == []
        assert self.open_files() == []


class Quota(DiskCase):
    """The folder never holds more than it may."""

    def test_least_recently_used_goes(self) -> None:
        """What was served last stays longest."""
        references = [reference_of(f"{name}.whl", bytes(40)) for name in "abc"]
        for reference in references[:2]:
            self.keep(reference, bytes(40))
        self.content(references[0])
        self.keep(references[2], bytes(40))
        assert self.content(references[0]) is not None
        assert self.content(references[1]) is None
        assert self.content(references[2]) is not None
        assert self.held() == 80

    def test_what_was_wanted_once_goes(self) -> None:
        """A file that was used often, and is not any more, goes after others went."""
        often = reference_of("often.whl", bytes(40))
        self.keep(often, bytes(40))
        for _ in range(4):
            self.content(often)
        for number in range(12):
            self.keep(reference_of(f"{number}.whl", bytes(40)), bytes(40))
            assert number > 2 or self.content(often)
        assert self.content(often) is None

    def test_being_sent_stays(self) -> None:
        """A file that is being sent is not removed, however long ago that began."""
        old, newer, newest = (reference_of(f"{name}.whl", bytes(40)) for name in "abc")
        self.keep(old, bytes(40))
        sending = self.cache_dir.open(old)
        assert sending is not None
        self.keep(newer, bytes(40))
        self.keep(newest, bytes(40))
        assert (self.folder / "h-example/a.whl").exists()
        assert self.content(newer) is None
        sending.close()
        self.keep(newer, bytes(40))
        assert self.content(old) is None, "it is the first to go once it was sent"

    def test_replaced_file_counts_once(self) -> None:
        """A file that takes the place of another one does not push the folder over its cap."""
        old = reference_of("a.whl", bytes(40), host="h.example:1")
        self.keep(old, bytes(40))
        self.keep(reference_of("b.whl", bytes(50)), bytes(50))
        self.keep(reference_of("a.whl", b"n" * 60, host="h.example:2"), b"n" * 60)
        assert self.held() <= 100

    def test_larger_than_all(self) -> None:
        """A file larger than the cap is refused, announced or not, and pushes nothing out."""
        kept = reference_of("a.whl", b"kept")
        self.keep(kept, b"kept")
        large = reference_of("b.whl", bytes(101))
        assert not self.cache_dir.quota.admits(101)
        with pytest.raises(TooLarge):
            self.keep(large, bytes(101))
        partial = self.cache_dir.partial(large)
        with pytest.raises(TooLarge):
            partial.reservation.announce(101)
        self.cache_dir.discard(partial)
        assert self.content(kept) == b"kept"
        assert self.held() == 4
        assert self.open_files() == []

    def test_no_room_at_all(self) -> None:
        """With a cap of 0 nothing is kept, not even an empty file, and nothing found is used."""
        self.lay("x.whl", b"data")
        self.cache_dir = self.prepared(0)
        assert not (self.cache_dir.quota.admits(None) or self.cache_dir.quota.admits(0))
        assert not self.cache_dir.found(reference_of("x.whl", b"data"))
        copy = self.keep(reference_of("y.whl", b""), b"")
        assert copy is not None
        copy.close()
        assert not (self.folder / "h-example/y.whl").exists()

    def test_no_place_for_it(self) -> None:
        """A file whose path leads elsewhere passes through and leaves nothing behind."""
        copy = self.keep(reference_of("../x.whl", b"data"), b"data")
        assert copy is not None
        shared = copy.share()
        copy.close()
        assert shared.read(0, 9) == b"data"
        shared.close()
        assert self.held() == 0
        assert self.open_files() == []

    def test_unwanted_is_gone_already(self) -> None:
        """Room is made also when somebody else was faster to remove a file."""
        self.keep(reference_of("a.whl", bytes(60)), bytes(60))
        (self.folder / "h-example/a.whl").unlink()
        reference = reference_of("b.whl", bytes(60))
        self.keep(reference, bytes(60))
        assert self.content(reference) is not None


class Adopting(DiskCase):
    """Only the right bytes get a name."""

    def test_wrong_digest(self) -> None:
        """Other bytes are refused, in words, and thrown away."""
        with pytest.raises(Mismatch, match="sha256"):
            self.keep(reference_of("x.whl", b"data"), b"evil")
        assert self.held() == 0
        assert self.open_files() == []

    def test_wrong_size_with_right_digest(self) -> None:
        """The digest decides, not the size."""
        reference = FileReference("https://h.example/x.whl", ("sha256", sha256(b"data")), 99, False)
        assert self.keep(reference, b"data") is None
        assert self.content(reference) == b"data"

    def test_size_without_digest(self) -> None:
        """Where there is no digest the size decides."""
        with pytest.raises(Mismatch, match="4 bytes, not 5"):
            self.keep(bare("x.whl", 5), b"data")
        self.keep(bare("x.whl", 4), b"data")
        assert self.content(bare("x.whl", 4)) == b"data"

    def test_nothing_known(self) -> None:
        """What no index tells anything of is taken as it comes."""
        self.keep(bare("x.whl"), b"data")
        assert self.content(bare("x.whl")) == b"data"

    def test_restart(self) -> None:
        """A second try begins anew, in size and digest."""
        reference = reference_of("x.whl", b"data")
        partial = self.cache_dir.partial(reference)
        partial.write(b"something longer")
        partial.restart()
        partial.write(b"data")
        assert partial.digests.size == 4
        self.adopt(partial, reference)
        self.cache_dir.discard(partial)
        assert self.content(reference) == b"data"

    def test_stop(self) -> None:
        """What has not been finished when the process ends is removed."""
        partial = self.cache_dir.partial(reference_of("x.whl", b"data"))
        partial.write(b"da")
        self.cache_dir.close()
        assert self.leftovers() == []
        # A download that goes on until the very end meets no closed file.
        partial.write(b"ta")
        partial.restart()
        self.cache_dir.discard(partial)
        assert self.open_files() == []

    def test_foreign_files(self) -> None:
        """What no cache would call its files is neither counted nor ever removed."""
        foreign = self.folder / "postgres" / "base" / "1"
        foreign.parent.mkdir(parents=True)
        foreign.write_bytes(bytes(1000))
        cache_folder(self.folder, 10).prepare()
        assert foreign.read_bytes() == bytes(1000)
