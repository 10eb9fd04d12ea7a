"""The cache folder: what is served, checked, adopted and deleted, also while threads run."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from proxpi import atomic_files
from proxpi.files import EvictionIndex, FileReference, Removed, cache_dir, quota
from proxpi.files.layout import RESERVED
from proxpi.files.verify import Mismatch
from tests.support.agent import Reply
from tests.support.cache import CacheCase, bare, ref, refused, replace
from tests.support.cases import entry, run
from tests.support.logs import logged
from tests.support.mirrors import DATA, NAME, URL, MirrorCase


class Start(CacheCase):
    def test_folder_is_made(self) -> None:
        """A folder that does not exist is made; a good start logs and leaves nothing."""
        self.host.mkdir()
        with logged("proxpi.files", "proxpi.problems") as log:
            self.start(folder=self.folder / "a/b")
            self.start()
        assert log.levels == []
        assert os.listdir(self.folder / "a/b") == [".proxpi"]
        assert (self.names(), os.listdir(self.cache_dir.own)) == ([], [])

    def test_each_step(self) -> None:
        """Whichever step of a download is refused, one line says why, what to do, and where."""
        self.lay("x.whl", b"data")
        for module, name, number, advice in (
            (Path, "mkdir", errno.EACCES, f"the user with the number {os.geteuid()}"),
            (Path, "mkdir", errno.EEXIST, ".proxpi in it has to be a folder"),
            (atomic_files, "FileIO", errno.EROFS, "mount it for writing"),
            (atomic_files, "FileIO", errno.EPERM, "the user with the number"),
            (os, "fsync", errno.ENOSPC, "free space"),
            (os, "fsync", errno.EDQUOT, "quota"),
            (os, "rename", errno.EXDEV, "on one disk"),
            (os, "rename", errno.EACCES, "the user with the number"),
        ):
            error = OSError(number, os.strerror(number))
            with (
                mock.patch.object(module, name, mock.Mock(side_effect=error)),
                logged("proxpi.files", "proxpi.problems") as log,
            ):
                self.start()
            assert log.levels == ["critical"]
            assert all(part in log.text for part in (os.strerror(number), advice, str(self.folder)))
            assert not [*self.leftovers(), *self.folder.rglob(f"{RESERVED}*")]
            assert self.check(ref("x.whl", b"data"))
            self.delete(self.keep("y.whl", b"data"))

    def test_one_place(self) -> None:
        """A host's folder that cannot be written is named."""
        for host in ("a-example", "b-example", "c-example"):
            (self.folder / host).mkdir()
        rename = os.rename

        def refuse(old: Any, new: Any) -> None:
            if "/b-example/" in os.fspath(new):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), old, None, new)
            rename(old, new)

        with (
            mock.patch.object(os, "rename", refuse),
            logged("proxpi.files", "proxpi.problems") as log,
        ):
            self.start()
        assert log.levels == ["critical"] and "/b-example/" in log.text
        assert not list(self.folder.rglob(f"{RESERVED}*"))

    def test_read_only(self) -> None:
        """A read-only folder is served from; a wrong file in it is not, nor is a file added."""
        path = self.lay("x.whl", b"data")
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        for owner, name in (
            (Path, "mkdir"),
            (atomic_files, "FileIO"),
            (os, "rename"),
            (os, "unlink"),
        ):
            self.put(owner, name, mock.Mock(side_effect=error))
        with logged("proxpi.files", "proxpi.problems") as log:
            self.start()
        assert log.levels == ["critical"] and "cannot be written" in log.text
        file = ref("x.whl", b"data")
        assert not self.check(ref("x.whl", b"else"))
        assert self.cache_dir.open(ref("x.whl", b"else")) is None
        assert self.check(file)
        assert self.content(file) == b"data"
        with pytest.raises(OSError):
            self.cache_dir.partial(bare("y.whl"))
        with pytest.raises(OSError, match="Read-only"):
            self.delete(file)
        assert self.cache_dir.open(file) is None and self.cache_dir.found(file)
        self.error(self.clear(), OSError)
        self.start(2)
        assert path.exists(), "more than the capacity does not stop the start"

    def test_another_process(self) -> None:
        """A second process takes nothing from a download of the first; an end removes its own."""
        file = ref("x.whl", b"data")
        first, partial = self.cache_dir, self.begin(file, b"data")
        self.start()
        assert self.leftovers() != []
        self.result(run(first.adopt(partial, file)))
        first.discard(partial)
        assert self.check(file)
        partial = self.begin(bare("y.whl"), b"x")
        self.held = True
        ended = self.cache_dir.close()
        assert self.leftovers() != []
        self.pending(ended)
        self.run_threads()
        self.result(ended)
        assert self.leftovers() == []
        self.cache_dir.discard(partial)


class Cached(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.keep("a/x.whl", b"data")
        self.path = self.host / "a/x.whl"

    def test_served(self) -> None:
        """A cached file has its name and is served, to each reader at its own offset."""
        assert self.path.read_bytes() == b"data"
        one, two = self.cache_dir.open(self.file), self.cache_dir.open(self.file)
        assert one is not None and two is not None
        self.path.unlink()
        one.close()
        one.close()
        assert two.read(1, 2) == b"at"
        two.close()
        assert self.open_files() == self.leftovers() == []
        for miss in (bare("none.whl"), ref("../x.whl", b"data"), ref("a/x.whl", b"else")):
            assert self.cache_dir.open(miss) is None
            assert not self.cache_dir.found(miss)

    def test_changed_from_outside(self) -> None:
        """A file that shrank, or was replaced, is checked again before it is served."""
        for data in (b"DATA", b"data", b"da"):
            if data == b"da":
                os.truncate(self.path, 2)
            else:
                replace(self.path, data)
            right = data == b"data"
            assert self.cache_dir.open(self.file) is None
            assert self.open_files() == []
            assert self.cache_dir.found(self.file)
            assert self.check(self.file) == right
            assert self.path.exists() == right
            assert not self.cache_dir.found(self.file)
            self.keep(self.file, b"data")
        self.path.unlink()
        assert self.cache_dir.open(self.file) is None
        assert self.used == 0, "a vanished file frees its bytes"

    def test_no_file(self) -> None:
        """A pipe, socket, folder or link at the cache path is a miss, and makes way."""
        outside = self.folder / "outside"
        outside.write_bytes(b"data")

        def listen(path: Path) -> None:
            with socket.socket(socket.AF_UNIX) as odd:
                odd.bind(str(path))

        links = (outside, "/dev/zero", self.path, self.host)
        for put in (os.mkfifo, os.mkdir, listen, *links):
            self.path.unlink()
            if callable(put):
                put(self.path)
            else:
                self.path.symlink_to(put)
            assert self.cache_dir.open(self.file) is None
            assert self.used == 0
            assert not self.cache_dir.found(self.file)
            assert not self.check(self.file)
            assert self.open_files() == []
            self.keep(self.file, b"data")
            assert self.content(self.file) == b"data"
            assert not self.path.is_symlink()
        assert outside.read_bytes() == b"data"

    def test_unreadable(self) -> None:
        """A file that cannot be read counts and is a miss; many requests make one line."""
        with refused(self.path, "open"), logged("proxpi.files", "proxpi.problems") as log:
            for _ in range(5):
                assert self.cache_dir.open(self.file) is None
                assert self.cache_dir.found(self.file)
                assert not self.check(self.file)
        assert log.levels == ["error"] and "Permission denied" in log.text
        with refused(self.host, "open", "lstat", "unlink"):
            assert self.cache_dir.open(self.file) is None
            assert not self.cache_dir.found(self.file)
            assert not self.check(self.file)
            assert self.used == 4
        assert self.check(self.file)
        for number in (errno.EMFILE, errno.ENFILE):
            with refused(self.path, "open", number=number):
                assert self.cache_dir.open(self.file) is None
        assert self.content(self.file) == b"data", "these errors say nothing of the file"

    def test_kept_descriptor(self) -> None:
        """A descriptor is kept while its file is cached; a failed read marks that unverified."""
        before = self.open(self.file)
        self.delete(self.file)
        self.keep(self.file, b"data")
        assert before.keep() is None
        before.mark_unverified()
        before.close()
        after = self.open(self.file)
        kept = after.keep()
        after.close()
        assert kept is not None and kept.unchanged()
        assert dict(self.cache_dir.eviction_index.in_use) == {}
        share = kept.share()
        assert dict(self.cache_dir.eviction_index.in_use) == {self.file.cache_path: 1}
        assert share.read(0, 9) == b"data"
        share.close()
        self.path.unlink()
        assert not kept.unchanged()
        kept.mark_unverified()
        kept.close()
        assert self.cache_dir.open(self.file) is None


class Found(CacheCase):
    def test_checked(self) -> None:
        """The best digest of the page decides, else the size; wrong bytes are removed."""
        md5 = ("md5", "8d777f385d3dfec8815d20f7496026dc")
        for reference, right in (
            (ref("x.whl", b"data"), True),
            (ref("x.whl", b"evil"), False),
            (ref("x.whl", b"data", digest=md5, size=None), True),
            (bare("x.whl", 4), True),
            (bare("x.whl", 5), False),
            (bare("x.whl"), False),
        ):
            path = self.lay("x.whl", b"data")
            assert self.cache_dir.open(reference) is None
            assert self.cache_dir.found(reference)
            assert self.check(reference) == right
            assert not self.cache_dir.found(reference)
            assert path.exists() == right
            assert self.content(reference) == (b"data" if right else None)
            self.delete("x.whl")

    def test_outcome_for_another_file(self) -> None:
        """A check that ends after the file was replaced or deleted concerns no newer file."""
        right = bytes(10)
        file = ref("found.whl", right)
        path = self.host / "found.whl"

        def fetch() -> None:
            self.delete(file)
            self.keep(file, right)

        def fetch_and_overwrite() -> None:
            fetch()
            path.write_bytes(b"x" * 10)

        def swap() -> None:
            path.unlink()
            os.mkfifo(path)

        for name, data, change, content in (
            ("a wrong file was fetched anew", b"w" * 10, fetch, right),
            ("a right file was fetched anew, and changed", right, fetch_and_overwrite, None),
            (
                "another program replaced a wrong file",
                b"w" * 10,
                lambda: replace(path, right),
                None,
            ),
            ("it was deleted", right, lambda: self.delete(file), None),
            ("it is a pipe", right, swap, None),
        ):
            self.lay("found.whl", data)
            end = self.begin_check(file)
            change()
            assert not end(), name
            assert self.content(file) == content, name
            self.delete(file)
        self.lay("found.whl", right)
        with mock.patch.object(os, "fsync", lambda _: os.truncate(path, 9)):
            assert not self.check(file), "it changed while it was read"
        assert self.cache_dir.found(file)


class Flushing(CacheCase):
    def hold(self, file: FileReference) -> None:
        """Keep a file, whose flush to disk waits for a thread."""
        partial = self.begin(file, b"data")
        self.held = True
        assert self.result(run(self.cache_dir.adopt(partial, file))) is None
        self.held = False
        self.cache_dir.discard(partial)

    def test_a_file_is_served_before_it_is_flushed(self) -> None:
        """The usage log has a file as unverified until its bytes are on the disk."""
        file = ref("x.whl", b"data")
        self.hold(file)
        assert self.content(file) == b"data"
        documents = [self.cache_dir.eviction_index.dump()]
        self.run_threads()
        documents.append(self.cache_dir.eviction_index.dump())
        for document, verified in zip(documents, (False, True), strict=True):
            restarted = EvictionIndex()
            restarted.load(document)
            assert (restarted.verified(file.cache_path or "") is not None) == verified

    def test_a_file_is_deleted_before_it_is_flushed(self) -> None:
        """The flush of a deleted file leaves the next one alone."""
        file = ref("x.whl", b"data")
        self.hold(file)
        self.delete(file)
        self.hold(file)
        self.run_threads()
        assert self.content(file) == b"data"

    def test_a_disk_that_refuses_the_bytes_late(self) -> None:
        """A file that the disk refuses when it is flushed is removed: reads may hide the loss."""
        error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        with mock.patch.object(os, "fsync", mock.Mock(side_effect=error)):
            with logged("proxpi.files", "proxpi.problems") as log:
                file = self.keep("x.whl", b"data")
            assert os.strerror(errno.EDQUOT) in log.text
            assert self.cache_dir.open(file) is None
        assert not self.cache_dir.found(file)
        assert self.on_disk() == self.used == 0
        self.keep(file, b"data")

    def test_a_pipe_in_the_place_of_a_file(self) -> None:
        """No thread waits for the other end of a pipe that another program put there."""
        file = ref("x.whl", b"data")
        self.hold(file)
        (self.host / "x.whl").unlink()
        os.mkfifo(self.host / "x.whl")
        opened: list[Any] = []
        with mock.patch.object(os, "fsync", opened.append):
            self.run_threads()
        assert opened == []
        assert self.cache_dir.open(file) is None

    def test_a_flush_that_fails_late(self) -> None:
        """A file that has replaced the one whose flush fails stays; so does one for descriptors."""
        file = ref("x.whl", b"data")
        for number, again in ((errno.EIO, True), (errno.EMFILE, False)):
            self.hold(file)
            if again:
                self.delete(file)
                self.hold(file)
            failures = [OSError(number, os.strerror(number)), None]
            with mock.patch.object(os, "fsync", mock.Mock(side_effect=failures)):
                self.run_threads()
            assert self.content(file) == b"data"
            self.delete(file)

    def test_a_file_without_a_digest_is_flushed_first(self) -> None:
        """No check would find the zeros that a power failure leaves of it: it is not served yet."""
        file = bare("x.whl", 4)
        partial = self.begin(file, b"data")
        self.held = True
        adopted = run(self.cache_dir.adopt(partial, file))
        assert self.names() == []
        self.delete(file)
        self.held = False
        self.run_threads()
        uncached = self.result(adopted)
        assert uncached is not None  # it was deleted meanwhile
        uncached.close()
        self.cache_dir.discard(partial)
        with mock.patch.object(os, "fsync", mock.Mock(side_effect=OSError(errno.EIO, "x"))):
            partial = self.begin(file, b"data")
            self.error(run(self.cache_dir.adopt(partial, file)), OSError)
            self.cache_dir.discard(partial)
        assert self.on_disk() == self.used == 0


class Adopting(CacheCase):
    def test_compared(self) -> None:
        """The digest decides, else the size; other bytes are refused in words, and removed."""
        for reference, text in (
            (ref("x.whl", b"evil"), "sha256"),
            (ref("x.whl", b"data", size=99), None),
            (bare("x.whl", 5), "4 bytes, not 5"),
            (bare("x.whl", 4), None),
            (bare("x.whl"), None),
        ):
            if text is None:
                self.keep(reference, b"data")
                assert self.content(reference) == b"data"
                self.delete(reference)
            else:
                with pytest.raises(Mismatch, match=text):
                    self.keep(reference, b"data")
            assert self.on_disk() == self.used == 0
            assert self.open_files() == []

    def test_in_the_way(self) -> None:
        """A cached file or an empty folder in the way is removed; a folder with content stays."""
        for first, second in (("x.whl", "x.whl/y.whl"), ("z.whl/y.whl", "z.whl")):
            one = self.keep(first, b"one")
            two = self.keep(second, b"two")
            assert self.content(two) == b"two"
            assert self.content(one) is None
        inside = self.host / "w.whl/inside"
        inside.mkdir(parents=True)
        assert not self.cache_dir.found(bare("w.whl"))
        for name in ("w.whl", "x" * 300):
            with pytest.raises(OSError):
                self.keep(name, b"data")
            assert self.leftovers() == self.open_files() == []
        inside.rmdir()
        assert self.content(self.keep("w.whl", b"data")) == b"data"

    def test_replaced_at_once(self) -> None:
        """A file that another program lays at the cache path at that moment is not trusted."""
        rename = os.rename

        def renamed(old: Any, new: Any) -> None:
            rename(old, new)
            replace(Path(new), b"x" * 10)

        with mock.patch.object(os, "rename", renamed):
            file = self.keep("x.whl", bytes(10))
        assert self.cache_dir.open(file) is None
        assert not self.check(file)


class Links(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir()
        self.theirs = self.outside / "x.whl"
        self.theirs.write_bytes(b"theirs")

    def test_host(self) -> None:
        """Through a host's folder that is a link nothing is read, counted, written or removed."""
        self.start(folder=self.folder / "cache")
        (self.folder / "cache/h-example").symlink_to(self.outside)
        file = ref("x.whl", b"theirs")
        with logged("proxpi.files", "proxpi.problems") as log:
            assert not self.cache_dir.found(file)
            assert self.cache_dir.open(file) is None
            with pytest.raises(OSError, match="symbolic link"):
                self.cache_dir.partial(file)
        assert log.levels == ["error"]
        self.delete(file)
        self.result(self.clear())
        assert os.listdir(self.outside) == ["x.whl"]

    def test_link_replaces_folder(self) -> None:
        """A link that replaces a folder before a rename, or a deletion, is not followed."""
        deleted, added = self.keep("a/x.whl", b"data"), ref("b/x.whl", b"data")
        (self.host / "a/x.whl").unlink()
        (self.host / "a").rmdir()
        partial = self.begin(added, b"data")
        for name in "ab":
            (self.host / name).symlink_to(self.outside)
        with pytest.raises(OSError, match="symbolic link"):
            self.adopt(partial, added)
        self.delete(deleted)
        assert self.theirs.read_bytes() == b"theirs"
        assert self.used == 0

    def test_the_cache_folder_itself(self) -> None:
        """The cache folder itself may be a link."""
        (self.folder / "link").symlink_to(self.outside)
        self.start(folder=self.folder / "link")
        assert self.content(self.keep("x.whl", b"data")) == b"data"
        assert (self.outside / "h-example/x.whl").read_bytes() == b"data"


class Deletion(CacheCase):
    def test_one(self) -> None:
        """A deleted file is a miss and frees its bytes; folders that held nothing else go, too."""
        file, other = self.keep("a/b/x.whl", b"data"), self.keep("a/y.whl", b"else")
        sending = self.open(file)
        self.delete(file)
        assert self.cache_dir.open(file) is None and not self.cache_dir.found(file)
        assert self.used == 4
        assert not (self.host / "a/b").exists()
        assert self.content(other) == b"else"
        self.keep(file, b"data")
        assert sending.read(0, 9) == b"data", "its clients get all of it"
        sending.close()
        path = self.lay("found.whl", b"data")
        self.delete("found.whl")
        assert not path.exists()

    def test_being_fetched(self) -> None:
        """A download that began before is given to its clients, and not cached; the next one is."""
        file = ref("x.whl", b"data")
        partial = self.begin(file, b"data")
        self.delete(file)
        uncached = self.result(run(self.cache_dir.adopt(partial, file)))
        self.cache_dir.discard(partial)
        assert uncached is not None
        assert uncached.read(0, 9) == b"data"
        uncached.close()
        assert self.on_disk() == self.used == 0
        self.keep(file, b"data")

    def test_by_name(self) -> None:
        """Decoded names count, from any host, of found files as well."""
        encoded = ("+c.whl", "%2Bc.whl", "%2bc.whl", "a/%2B%63.whl", "a/b/+%63.whl")
        others = [self.keep(name, b"data") for name in ("%252Bc.whl", "c.whl", "x+c.whl")]
        for name in encoded:
            self.keep(name, b"data")
            self.keep(ref(name, b"data", host="other.example"), b"data")
        for name in ("a%21b.whl", "a%20b.whl", "%C3%A9.whl", "%c3%a9.whl"):
            self.lay(name, b"data")
        self.start()
        names = {"+c.whl", "a!b.whl", "a b.whl", "é.whl"}
        removed = self.result(run(self.cache_dir.delete_named(names)))
        assert removed == Removed(14, 14 * 4)
        assert self.used == self.on_disk() == 12
        assert [self.check(file) for file in others] == [True] * 3

    def test_all(self) -> None:
        """Cached and found files go in batches, those of an unknown kind as well; others stay."""
        for module in (cache_dir, quota):
            self.put(module, "BATCH", 3)
        files = self.fill()
        self.keep("unknown.kind", b"")
        self.lay("y.whl", b"else")
        self.lay("README", b"x")
        self.held = True
        on_disk, files_there = self.on_disk() - 1, len(self.names()) - 1
        cleared = self.clear()
        assert not any(map(self.cache_dir.found, files))
        self.run_thread()
        assert len(self.reserved()) == 3
        self.run_threads()
        assert self.result(cleared) == Removed(files_there, on_disk)
        assert (self.names(), self.used) == (["README"], 0)
        assert self.cache_dir.own.is_dir()

    def test_all_meanwhile(self) -> None:
        """At any moment of a clear a new file stays; an old or a found one does not."""
        new, found = b"n" * 10, ref("found.whl", bytes(10))
        for jobs in range(4):
            self.fill(3)
            self.lay("found.whl", bytes(10))
            end = self.begin_check(found)
            coming = self.begin(ref("coming.whl", b"data"), b"data")
            self.held = True
            cleared = self.clear()
            for _ in range(jobs):
                if self.jobs:
                    self.run_thread()
            end()
            file = self.keep("0.whl", new)
            uncached = self.adopt(coming, ref("coming.whl", b"data"))
            assert uncached is not None, "it began before the call"
            uncached.close()
            self.run_threads()
            self.result(cleared)
            self.held = False
            assert self.content(file) == new
            assert not self.cache_dir.found(found)
            assert self.used == self.on_disk() == 10


class Uncacheable(MirrorCase):
    def test_redirected_or_streamed(self) -> None:
        """The client is redirected or gets the bytes; the log has a line for either file."""
        (self.folder / "linked-example").symlink_to("/")
        for name, url in (
            ("a long name", f"https://files.example/{'x' * 300}/{NAME}"),
            ("a long path", f"https://files.example/{'/'.join(['x' * 200] * 25)}/{NAME}"),
            ("a link", f"https://linked.example/{NAME}"),
            ("out of reach", URL),
        ):
            folder = self.folder / ("files-example" if name == "out of reach" else "other")
            for stream in (False, True):
                self.build(stream=stream)
                self.pages.lists(entry(NAME, DATA, url=url))
                with (
                    logged("proxpi.files", "proxpi.problems") as log,
                    refused(folder, "lstat", "open", "rename"),
                ):
                    for _ in range(3):
                        self.agent.at(url, Reply(200, DATA))
                        asked = self.fetch()
                        if stream:
                            self.assert_bytes(self.result(asked))
                            self.clock.advance(0)
                        else:
                            self.assert_redirected(asked, url)
                assert log.levels == ["error", "error"], name
