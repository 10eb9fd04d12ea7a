"""The layout of the cache folder: cache paths, and which files a scan finds, unlinks or ignores."""

from __future__ import annotations

import contextlib
import os
import socket
from shutil import rmtree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.files.layout import RESERVED, is_cache_path
from tests.support.cache import CacheCase, refused
from tests.support.logs import logged

#: Names that no URL leads to, as the file system has them.
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


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *((text, True) for text in ("a/b", "files-example/a b/..c", "127-0-0-1/.../x", "a/b/é")),
        *(
            (text, False)
            for text in ("", "a", ".proxpi/x", "A/b", "a\n/b", "a/b\n", "a/b\nh/c.whl")
        ),
        *((f"a/{RESERVED}{end}", False) for end in ("0123456789abcdef", "0123456789abcdef/b", "")),
        *((f"a/{odd}.whl", False) for odd in ("\x1b[31mb", "\x7f", "\u2028", "\u202e", "\udcff")),
        *(("a/b.whl.proxpi-partial", False), ("a/\udcff/b.whl", False)),
    ],
)
def test_cache_paths(text: str, is_one: bool) -> None:
    """Below a host's folder a printable name that is not reserved is one; no other is."""
    assert is_cache_path(text) == is_one


@given(st.text("a./-", max_size=9))
def test_by_the_segment(text: str) -> None:
    """A cache path is the folder of a host, and segments each of which is a name."""
    host, *path = text.split("/")
    named = bool(path) and not {"", ".", ".."} & set(path)
    assert is_cache_path(text) == (named and bool(host) and set(host) <= set("a-"))


class Found(CacheCase):
    def test_order(self) -> None:
        """Files count, and the least recently used goes first; a read counts as a use."""
        self.lay("old.whl", bytes(40), age=30)
        self.lay("new.whl", bytes(40), age=10)
        self.start()
        assert self.used == 80
        self.keep("x.whl", bytes(40))
        assert self.names() == ["new.whl", "x.whl"]
        self.result(self.clear())
        old = self.lay("old.whl", bytes(60), age=30)
        os.utime(old, (old.stat().st_atime + 29, old.stat().st_mtime))
        self.lay("new.whl", bytes(60), age=10)
        self.start(70)
        assert self.names() == ["old.whl"], "a lowered capacity holds from the start"

    def test_kinds(self) -> None:
        """Files with the names of distributions count, those of wheel variants included."""
        for name in ("x-1.tar.zst", "x-1-py3-none-any.whlx", "x-1-variants.json"):
            self.lay(name, bytes(10))
        for name in ("x-1.json", "variants.json", "x.whlxx", "x-variants.json.bak"):
            self.lay(name, bytes(1))
        self.start()
        assert self.used == 30

    def test_foreign_files(self) -> None:
        """Files outside the hosts' folders are neither counted nor removed."""
        foreign = ["README", "lost+found/x", ".git/x", "My Files/x", "UPPER/x"]
        for name in foreign:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_bytes(bytes(200))
        (self.folder / "link").symlink_to(self.folder / "lost+found")
        self.start()
        self.keep("x.whl", bytes(100))
        assert all((self.folder / name).exists() for name in foreign)

    def test_leftovers(self) -> None:
        """The original's partial files and queued files are unlinked."""
        self.lay("x.whl.proxpi-partial", b"x")
        for number in range(2):
            (self.folder / f"{RESERVED}{number:016}").write_bytes(b"x")
        self.start()
        assert self.names() == []
        assert not list(self.folder.rglob(f"{RESERVED}*"))

    def test_no_files(self) -> None:
        """Links, pipes, sockets and folders with a file's name are not counted; loops end."""
        self.lay("x.whl", b"data")
        os.mkfifo(self.host / "pipe.whl")
        with socket.socket(socket.AF_UNIX) as odd:
            odd.bind(str(self.host / "socket.whl"))
        (self.host / "dangling.whl").symlink_to("nothing")
        (self.host / "link.whl").symlink_to("/dev/zero")
        (self.host / "loop.whl").symlink_to(self.host)
        (self.host / "up").symlink_to("..")
        (self.folder / "h-loop").symlink_to("h-loop")
        (self.host / "folder.whl").mkdir()
        with logged("proxpi.files") as log:
            self.start()
        assert (self.used, log.levels) == (4, [])
        self.result(self.clear())
        assert len(self.names()) == 7
        for name in self.names():
            self.delete(name)
        assert self.names() == ["folder.whl"], "a DELETE of its name removes each"

    def test_unreadable_folder(self) -> None:
        """A folder that cannot be read, or is too deep, is logged once; the others count."""
        self.lay("x.whl", b"data")
        (self.host / "closed").mkdir()
        self.lay("closed/y.whl", b"data")
        with refused(self.host / "closed", "scandir"), logged("proxpi.files") as log:
            self.start()
        assert (self.used, log.levels) == (4, ["warn"])
        assert "Permission denied" in log.text
        rmtree(self.host / "closed")
        with contextlib.chdir(self.host):
            for _ in range(30):
                os.mkdir("d" * 200)
                os.chdir("d" * 200)
        with logged("proxpi.files") as log:
            self.start()
        assert (self.used, log.levels) == (4, ["warn"])
        assert "too long" in log.text


class OddNames(CacheCase):
    def lay_odd(self, name: bytes) -> None:
        """Lay a file under a name that no URL leads to, by its bytes."""
        path = os.path.join(os.fsencode(self.host), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(bytes(10))

    def test_ignored(self) -> None:
        """Foreign files are neither counted nor removed; one printable line of the log tells."""
        self.keep("x.whl", b"data")
        for name in ODD:
            self.lay_odd(name)
        for _ in range(2):
            with logged("proxpi.files") as log:
                self.start()
            assert log.levels == ["warn"]
            assert log.text.isprintable()
            assert f"and {len(ODD) - 1} more" in log.text
            assert self.used == 4
            self.keep("y.kind", bytes(96))
            self.delete("y.kind")
            self.cache_dir.close()
        self.result(self.clear())
        left = sum(len(names) for _, _, names in os.walk(self.host))
        assert (left, self.used) == (len(ODD), 0)
