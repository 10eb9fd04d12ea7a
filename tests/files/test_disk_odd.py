"""A cache folder that somebody meddled with: pipes, links, names and rights that no file has."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from proxpi.files import usage_log
from proxpi.files.cache_dir import OpenFile
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, reference_of
from tests.support.agent import Reply
from tests.support.cases import entry
from tests.support.logs import logged
from tests.support.mirrors import DATA, NAME, URL, MirrorCase


@contextmanager
def refused(path: Path, *calls: str) -> Iterator[None]:
    """Let calls of the system fail for a path, and all that is below it, as those of others do."""

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(given: Any, *arguments: Any, **named: Any) -> Any:
            if f"{given}/".startswith(f"{path}/"):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(given))
            return call(given, *arguments, **named)

        return calling

    with ExitStack() as patches:
        for name in calls:
            patches.enter_context(mock.patch.object(os, name, refusing(getattr(os, name))))
        yield


class Replaced(DiskCase):
    """A file that was kept, and what somebody put in its place."""

    def setUp(self) -> None:
        """Keep a file."""
        super().setUp()
        self.reference = reference_of("x.whl", b"data")
        self.keep(self.reference, b"data")
        self.path = self.folder / "h-example/x.whl"
        self.outside = self.folder / "outside"
        self.outside.write_bytes(b"data")

    def test_no_file(self) -> None:
        """Nobody waits for what is no file; it is a miss, is not counted, and makes way."""

        def listen(path: Path) -> None:
            with socket.socket(socket.AF_UNIX) as odd:
                odd.bind(str(path))

        ways: list[Callable[[Path], object]] = [
            os.mkfifo,
            os.mkdir,
            listen,
            lambda path: path.symlink_to(self.outside),
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to(path),
            lambda path: path.symlink_to(self.folder / "h-example"),
        ]
        for put in ways:
            self.path.unlink()
            put(self.path)
            assert self.cache_dir.open(self.reference) is None
            assert self.cache_dir.quota.used == 0
            assert not self.cache_dir.found(self.reference)
            assert not self.check(self.reference)
            assert self.open_files() == []
            self.keep(self.reference, b"data")
            assert self.content(self.reference) == b"data"
            assert not self.path.is_symlink()
        assert self.outside.read_bytes() == b"data"

    def test_while_it_is_checked(self) -> None:
        """The same between the look at it and its check."""
        self.path.unlink()
        self.path.write_bytes(b"data")
        assert self.cache_dir.open(self.reference) is None
        assert self.cache_dir.found(self.reference)
        self.path.unlink()
        os.mkfifo(self.path)
        assert not self.check(self.reference)
        assert not self.cache_dir.found(self.reference)

    def test_cannot_be_read_for_a_while(self) -> None:
        """A file that cannot be reached counts, and is checked again before it is served."""
        with refused(self.path.parent, "open", "lstat", "unlink"):
            assert self.cache_dir.open(self.reference) is None
            assert not self.cache_dir.found(self.reference)
            assert not self.check(self.reference)
            assert self.cache_dir.quota.used == 4
        assert self.cache_dir.found(self.reference)
        assert self.check(self.reference)
        assert self.content(self.reference) == b"data"

    def test_cannot_be_read_at_all(self) -> None:
        """Of many requests for a file of somebody else's the log tells once."""
        with refused(self.path, "open"), logged("proxpi.files") as log:
            for _ in range(5):
                assert self.cache_dir.open(self.reference) is None
                assert self.cache_dir.found(self.reference)
                assert not self.check(self.reference)
        assert log.levels == ["error"]
        assert "Permission denied" in log.text
        assert self.cache_dir.quota.used == 4


class Names(DiskCase):
    """Names below the hosts' folders that no URL leads to."""

    ODD = (
        b"\xff.whl",
        b"\xff/x.whl",
        b"a/\xc3/x.whl",
        b"\xed\xa0\x80.whl",
        b"x\n.whl",
        b"x.whl\nh-example/theirs.kind",
        b"\x1b[31mred\x1b[0m.whl",
        b"\r.whl",
        b"\x7f.whl",
        b"\xc2\x9b.whl",
        b"\xe2\x80\xae.whl",
        b"\n" * 255,
    )

    def lay_odd(self, name: bytes) -> None:
        """Lay a file there, by the bytes of its name."""
        path = os.path.join(os.fsencode(self.folder), b"h-example", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(bytes(10))

    def count(self) -> int:
        """How many files there are."""
        return sum(len(names) for _, _, names in os.walk(self.folder / "h-example"))

    def test_ignored(self) -> None:
        """They are neither counted nor removed, and one line tells, which has no such character."""
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        for name in self.ODD:
            self.lay_odd(name)
        for _ in range(2):
            with logged("proxpi.files") as log:
                self.cache_dir = self.prepared(100)
            assert log.levels == ["warn"]
            assert log.text.isprintable()
            assert f"and {len(self.ODD) - 1} more" in log.text
            assert self.cache_dir.quota.used == 4
            self.copy(reference).mark_unverified()
            self.keep(reference_of("y.kind", bytes(96)), bytes(96))
            self.delete("h-example/y.kind")
            self.cache_dir.close()
            assert (self.cache_dir.own / usage_log.NAME).exists()
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert self.count() == len(self.ODD)
        assert self.cache_dir.quota.used == 0

    def copy(self, reference: FileReference) -> OpenFile:
        """Check a file that was found, and open it."""
        self.check(reference)
        copy = self.cache_dir.open(reference)
        assert copy is not None
        copy.close()
        return copy

    def test_each(self) -> None:
        """Each of them by itself is ignored, and no line is written where there is none."""
        for name in (None, *self.ODD):
            if name is not None:
                self.lay_odd(name)
            with logged("proxpi.files") as log:
                assert self.prepared(100).quota.used == 0
            assert len(log.levels) == (name is not None), name
            assert log.text.isprintable()
            rmtree(self.folder / "h-example", ignore_errors=True)

    def test_in_the_state(self) -> None:
        """What somebody wrote into proxpi's own documents brings none of them back."""
        self.keep(reference_of("x.kind", b"data"), b"data")
        self.keep(reference_of("y.kind", b"data"), b"data")
        self.cache_dir.close()
        theirs = self.lay("theirs.kind", b"theirs")
        document = self.cache_dir.own / usage_log.NAME
        read = document.read_bytes()
        for name in (rb"y\n.kind", rb"y\udcff", rb"y\u001b", b"y\xff"):
            document.write_bytes(read.replace(b"y.kind", name))
            places = self.cache_dir.own / usage_log.PLACES
            places.write_bytes(places.read_bytes() + b"h-example/\xff\nh-example/\x1b[0m\n")
            self.cache_dir = self.prepared(100)
            assert self.cache_dir.quota.used == 8
            self.result(Deferred.fromCoroutine(self.cache_dir.delete_named({"none"})))
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert theirs.exists()
        assert self.count() == 1

    def test_longest(self) -> None:
        """Names of 255 bytes, whichever they are, are served, and removed."""
        for name in ("x" * 251 + ".whl", quote("é" * 41) + "a" * 5 + ".whl"):
            assert len(name) == 255
            reference = reference_of(name, b"data")
            self.keep(reference, b"data")
            self.cache_dir = self.prepared(100)
            assert self.check(reference)
            assert self.content(reference) == b"data"
            self.delete(reference)
            assert self.cache_dir.quota.used == self.count() == 0

    def test_no_files(self) -> None:
        """Links, pipes, sockets and folders that are called like files are not counted."""
        host = self.folder / "h-example"
        host.mkdir()
        os.mkfifo(host / "pipe.whl")
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind(str(host / "socket.whl"))
        (host / "dangling.whl").symlink_to("nothing")
        (host / "link.whl").symlink_to("/dev/zero")
        (host / "loop.whl").symlink_to(host)
        (host / "folder.whl").mkdir()
        with logged("proxpi.files") as log:
            self.cache_dir = self.prepared(100)
        assert self.cache_dir.quota.used == 0
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert len(os.listdir(host)) == 6
        assert log.levels == []
        for name in os.listdir(host):
            self.delete(f"h-example/{name}")
        assert [*host.iterdir()] == [host / "folder.whl"], "asked for by its name, each goes"

    def test_loops(self) -> None:
        """Folders that lead back to themselves do not keep a scan busy."""
        self.lay("x.whl", b"data")
        (self.folder / "h-example/up").symlink_to("..")
        (self.folder / "h-example/here").symlink_to(".")
        (self.folder / "h-loop").symlink_to("h-loop")
        assert self.prepared(100).quota.used == 4

    def test_too_deep(self) -> None:
        """A tree that is deeper than a path can be is told of; what can be reached counts."""
        self.lay("x.whl", b"data")
        at = os.open(self.folder / "h-example", os.O_RDONLY)
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=at)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(os.open("y.whl", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.close(at)
        with logged("proxpi.files") as log:
            assert self.prepared(100).quota.used == 4
        assert log.levels == ["warn"]
        assert "too long" in log.text

    def test_unreadable(self) -> None:
        """A folder that cannot be read is told of once; the others count."""
        self.lay("x.whl", b"data")
        (self.folder / "h-example/closed").mkdir()
        self.lay("closed/y.whl", b"data")
        with refused(self.folder / "h-example/closed", "scandir"), logged("proxpi.files") as log:
            assert self.prepared(100).quota.used == 4
        assert log.levels == ["warn"]
        assert "Permission denied" in log.text

    def test_leftovers_of_our_own(self) -> None:
        """What lies in proxpi's own folder under an odd name cannot write lines of the log."""
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind(str(self.folder / ".proxpi/partial-x\n\x1b[0m"))
        with logged("proxpi") as log:
            self.prepared(100)
        assert "partial-x" in log.text
        assert log.text.isprintable()


class Links(DiskCase):
    """Links by which the folder could be left."""

    def setUp(self) -> None:
        """Let a folder lie beside the cache, with a file in it."""
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir()
        self.theirs = self.outside / "x.whl"
        self.theirs.write_bytes(b"theirs")

    def test_host(self) -> None:
        """Nothing is read, counted, written or removed through a link that a host's folder is."""
        cache = self.folder / "cache"
        self.cache_dir = cache_folder(cache, 100)
        self.cache_dir.prepare()
        (cache / "h-example").symlink_to(self.outside)
        reference = reference_of("x.whl", b"theirs")
        with logged("proxpi.files") as log:
            assert not self.cache_dir.found(reference)
            assert self.cache_dir.open(reference) is None
            with pytest.raises(OSError, match="symbolic link"):
                self.cache_dir.partial(reference)
        assert log.levels == ["error"]
        self.delete(reference)
        self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
        assert self.theirs.read_bytes() == b"theirs"
        assert os.listdir(self.outside) == ["x.whl"]

    def test_comes_into_the_way(self) -> None:
        """A folder that a reference replaces while a file comes, or before one goes."""
        reference, other = reference_of("a/x.whl", b"data"), reference_of("b/x.whl", b"data")
        self.keep(reference, b"data")
        for name in "ab":
            (self.folder / "h-example").mkdir(exist_ok=True)
            partial = self.cache_dir.partial(other)
            partial.write(b"data")
            if name == "a":
                (self.folder / "h-example/a/x.whl").unlink()
                (self.folder / "h-example/a").rmdir()
            (self.folder / "h-example" / name).symlink_to(self.outside)
            if name == "b":
                with pytest.raises(OSError, match="symbolic link"):
                    self.adopt(partial, other)
            self.cache_dir.discard(partial)
        self.delete(reference)
        assert self.theirs.read_bytes() == b"theirs"
        assert self.cache_dir.quota.used == 0

    def test_the_cache_folder_itself(self) -> None:
        """That the cache folder is a reference is the user's own choice."""
        (self.folder / "link").symlink_to(self.outside)
        self.cache_dir = cache_folder(self.folder / "link", 100)
        self.cache_dir.prepare()
        reference = reference_of("x.whl", b"data")
        self.keep(reference, b"data")
        assert self.content(reference) == b"data"
        assert (self.outside / "h-example/x.whl").read_bytes() == b"data"


class Mirrored(MirrorCase):
    """What a client gets where a file cannot be kept, whatever is done."""

    def ask(self, url: str) -> None:
        """Ask for the file at a URL, by redirect and as a stream: it comes, and one line tells."""
        for stream in (False, True):
            self.build(stream=stream)
            self.locate.lists(entry(NAME, DATA, url=url))
            with logged("proxpi.files") as log:
                for _ in range(3):
                    self.internet.at(url, Reply(200, DATA))
                    asked = self.fetch()
                    if stream:
                        self.assert_bytes(self.result(asked))
                        self.clock.advance(0)
                    else:
                        self.assert_redirected(asked, url)
            assert set(log.levels) == {"error"}
            assert len(log.levels) == 2, "one for what lies there, one for what comes"

    def test_long_names(self) -> None:
        """A name, or a path, that is longer than a file system takes."""
        self.ask(f"https://files.example/{'x' * 300}/{NAME}")
        self.ask(f"https://files.example/{'/'.join(['x' * 200] * 25)}/{NAME}")

    def test_out_of_reach(self) -> None:
        """A host's folder in which nothing may be looked up."""
        with refused(self.folder / "files-example", "lstat", "open", "rename"):
            self.ask(URL)

    def test_link(self) -> None:
        """A host's folder that is a reference."""
        (self.folder / "files-example").symlink_to("/")
        self.ask(URL)
