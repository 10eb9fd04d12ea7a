"""Pages on disk: what is written is read back, and nothing else is ever believed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from proxpi.index import entry_store
from proxpi.index import page_store as store_module
from proxpi.index.client import StoredResponse
from proxpi.index.page_store import DOCUMENT, PageStore, StoredPage
from tests.support.cases import FolderCase
from tests.support.logs import Log, logged

PARTS = {
    "aa": StoredResponse(True, 40.0, '"x"', "yesterday", served=True),
    "bb": StoredResponse(False, 50.0),
}
SECTIONS = {DOCUMENT + "aa": b"packed", "json": b"{}", "json.gz": b"\x1f\x8b", "html": b""}


class StoreCase(FolderCase):
    """Tests of one folder."""

    def setUp(self) -> None:
        """Begin with nothing; the day is a million seconds old when the clock says 100."""
        super().setUp()
        self.clock = Clock()
        self.clock.advance(100)
        self.day = 1_000_000.0
        self.store = PageStore(self.folder / "own/pages", self.clock, lambda: self.day)

    def path(self, name: str = "demo") -> Path:
        """Give the file of a project."""
        return self.folder / f"own/pages/{name}.page"

    def save(self) -> StoredPage:
        """Keep a page."""
        return self.store.save("demo", PARTS, SECTIONS)

    def load(self) -> StoredPage:
        """Read it back, which has to be there."""
        stored = self.store.load("demo")
        assert stored is not None
        return stored


class KeepingTests(StoreCase):
    """What is written is read back."""

    def test_round_trip(self) -> None:
        """All that is known of a project comes back, section by section."""
        self.save()
        stored = self.load()
        assert stored.responses == PARTS
        assert stored.read() == SECTIONS
        assert stored.read("json") == {"json": b"{}"}
        assert list(stored.documents) == [DOCUMENT + "aa"]

    def test_no_bytes_are_freed_under_the_lock(self) -> None:
        """The file that another one replaces is open until the reactor may have the lock again."""
        self.save()
        before = self.path().stat().st_ino
        store, kept = self.store, []

        class Watched:
            """The lock, which looks at its end whether the file before is held."""

            def __enter__(self) -> None:
                pass

            def __exit__(self, *_: object) -> None:
                descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        kept.append(os.fstat(descriptor).st_ino == before)

        store.lock = cast(Any, Watched())
        self.save()
        assert self.path().stat().st_ino != before
        assert any(kept)

    def test_order(self) -> None:
        """The order of the indexes is kept: it is their precedence."""
        turned = dict(reversed(PARTS.items()))
        self.store.save("demo", turned, SECTIONS)
        assert list(self.load().responses) == ["bb", "aa"]

    def test_long_header(self) -> None:
        """A header longer than what is read first is read as well."""
        sections = {f"json{number}": b"x" for number in range(200)}
        self.store.save("demo", PARTS, sections)
        assert self.load().read() == sections

    def test_replaced_whole(self) -> None:
        """A page is replaced by another file, never changed: who reads the old one reads on."""
        self.save()
        with open(self.path(), "rb") as before:
            inode = os.fstat(before.fileno()).st_ino
            self.store.save("demo", PARTS, {"json": b"other"})
            assert before.read().endswith(b"".join(SECTIONS.values()))
        assert self.path().stat().st_ino != inode
        assert os.listdir(self.folder / "own") == ["pages"]

    def test_removed(self) -> None:
        """What is removed is gone, also for whom it was not there."""
        stored = self.save()
        self.store.delete("demo")
        self.store.delete("demo")
        assert self.store.load("demo") is None
        assert stored.read("json") is None

    def test_moved(self) -> None:
        """The folder may be moved."""
        self.save()
        os.rename(self.folder / "own", self.folder / "elsewhere")
        elsewhere = PageStore(self.folder / "elsewhere/pages", self.clock, lambda: self.day)
        stored = elsewhere.load("demo")
        assert stored is not None
        assert stored.read() == SECTIONS


class RoomTests(StoreCase):
    """The folder does not grow for ever."""

    def test_room(self) -> None:
        """Beyond a bound what was not revalidated for longest goes."""
        self.put(store_module, "CAPACITY", 16_000)
        for number in range(40):
            self.store.save(f"demo-{number}", PARTS, {"json": b"x" * 1000})
            os.utime(self.path(f"demo-{number}"), (0, 1_000_000 + number))
        kept = [number for number in range(40) if self.store.load(f"demo-{number}")]
        assert kept == list(range(kept[0], 40))
        assert 5 <= len(kept) <= 16


class TimeTests(StoreCase):
    """The wall clock across runs, the reactor's within one."""

    def test_restart(self) -> None:
        """A page is as old after a restart as the wall clock says."""
        self.save()
        self.day += 30
        later = PageStore(self.folder / "own/pages", Clock(), lambda: self.day)
        stored = later.load("demo")
        assert stored is not None
        assert stored.responses["aa"].requested_at == -90.0

    def test_wall_clock_set_back(self) -> None:
        """A page of the future is an old page: nobody can tell how old."""
        self.save()
        self.day -= 3600
        later = PageStore(self.folder / "own/pages", self.clock, lambda: self.day)
        stored = later.load("demo")
        assert stored is not None
        assert stored.responses["aa"].requested_at == 100 - entry_store.UNKNOWN_AGE

    def test_wall_clock_jumps_within_a_run(self) -> None:
        """Nothing notices, what is read back from disk included."""
        for jump in (10_000, -20_000):
            self.day += jump
            self.save()
            self.day -= jump / 2
            assert self.load().responses["aa"].requested_at == 40.0


class DamageTests(StoreCase):
    """What is not a whole file of this program is no page, and never an error."""

    def test_foreign(self) -> None:
        """Whatever lies there under the name of a page is ignored, and replaced."""
        self.save()
        whole = self.path().read_bytes()
        head = whole.partition(b"\n")[0]
        mark = PageStore.FORMAT + b" " + entry_store.VALID
        for foreign in (
            b"",
            b"\n",
            b"hello",
            b"\0" * 5000,
            head,
            head + b"\n",
            b"%b 999999999 0\n{}" % mark,
            b"%b -1 0\n{}" % mark,
            b"%b x y\n{}" % mark,
            whole[:-1],
            whole + b"x",
            whole.replace(PageStore.FORMAT, b"proxpi page 9"),
            whole.replace(b'"name":"demo"', b'"name":"else"'),
        ):
            self.path().write_bytes(foreign)
            assert self.store.load("demo") is None, foreign
        self.save()
        assert self.load().read() == SECTIONS

    def test_another_name(self) -> None:
        """A page that was renamed to another project is not that one's."""
        self.save()
        os.rename(self.path(), self.path("other"))
        assert self.store.load("other") is None

    def test_folder_in_its_place(self) -> None:
        """A folder in the place of a page is nothing; the page is kept in memory."""
        self.path().mkdir(parents=True)
        assert self.store.load("demo") is None
        with logged() as log:
            stored = self.save()
        assert stored.read() == SECTIONS
        assert self.complaints(log) == 1

    def test_another_version(self) -> None:
        """Of another version's file the indexes' pages count, and the forms are made anew."""
        self.put(store_module, "__version__", "0.0.1")
        self.save()
        self.put(store_module, "__version__", "0.0.2")
        assert self.load().read() == {DOCUMENT + "aa": b"packed"}

    def complaints(self, log: Log) -> int:
        """Count the lines that say that pages cannot be written."""
        return len([line for line in log.lines if "cannot be written" in line])

    def test_disk_that_does_not_let_it(self) -> None:
        """A page that cannot be written is kept in memory; one line a minute says so."""
        (self.folder / "own").write_text("no folder")
        with logged() as log:
            for _ in range(3):
                assert self.save().read() == SECTIONS
            assert self.complaints(log) == 1
            self.clock.advance(61)
            self.save()
            assert self.complaints(log) == 2
        os.unlink(self.folder / "own")
        self.save()
        assert self.load().read() == SECTIONS

    @given(st.data())
    def test_any_byte(self, data: st.DataObject) -> None:
        """A page of which a byte is wrong, or that ends early, is never taken for right."""
        self.setUp()
        stored = self.save()
        whole = self.path().read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        value = data.draw(st.integers(0, 255))
        self.path().write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        loaded = self.store.load("demo")
        for name, content in SECTIONS.items():
            for each in (stored, loaded):
                found = each.read(name) if each is not None else None
                assert found in (None, {name: content})
        self.path().write_bytes(whole[:place])
        assert self.store.load("demo") is None
