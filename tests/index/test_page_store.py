"""Pages on disk: what is written is read back, and nothing else is ever believed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from proxpi.index import entry_store, page_store
from proxpi.index.index_response import StoredResponse
from proxpi.index.page_store import DOCUMENT, PageStore, StoredPage
from tests.support import indexes
from tests.support.cases import FolderCase
from tests.support.logs import logged

RESPONSES = {
    "aa": StoredResponse(True, 40.0, '"x"', "yesterday", served=True),
    "bb": StoredResponse(False, 50.0),
}
SECTIONS = {DOCUMENT + "aa": b"packed", "json": b"{}", "json.gz": b"\x1f\x8b", "html": b""}


class StoreCase(FolderCase):
    def setUp(self) -> None:
        """Begin with nothing; the wall clock shows a million seconds when the clock shows 100."""
        super().setUp()
        self.clock = Clock()
        self.clock.advance(100)
        self.wall = 1_000_000.0
        self.store = self.open("own", self.clock)

    def open(self, folder: str, clock: Clock) -> PageStore:
        return indexes.page_store(self.folder / folder / "pages", clock, lambda: self.wall)

    def path(self, name: str = "demo") -> Path:
        return self.folder / f"own/pages/{name}.page"

    def save(self, store: PageStore | None = None) -> StoredPage:
        return (store or self.store).save("demo", RESPONSES, SECTIONS)

    def load(self, store: PageStore | None = None) -> StoredPage:
        stored = (store or self.store).load("demo")
        assert stored is not None
        return stored


class WriteTests(StoreCase):
    def test_round_trip(self) -> None:
        """All of a page comes back, in order, section by section, from a moved folder, too."""
        self.save()
        os.rename(self.folder / "own", self.folder / "elsewhere")
        stored = self.load(self.open("elsewhere", self.clock))
        assert stored.responses == RESPONSES
        assert stored.read() == SECTIONS
        assert stored.read("json") == {"json": b"{}"}
        assert list(stored.documents) == [DOCUMENT + "aa"]
        many = {f"json{number}": b"x" for number in range(200)}  # a long header
        self.store.save("demo", dict(reversed(RESPONSES.items())), many)
        assert self.load().read() == many
        assert list(self.load().responses) == ["bb", "aa"]

    def test_replaced_whole(self) -> None:
        """A page is replaced by another file: a reader of the old one reads on."""
        self.save()
        with open(self.path(), "rb") as before:
            inode = os.fstat(before.fileno()).st_ino
            self.store.save("demo", RESPONSES, {"json": b"other"})
            assert before.read().endswith(b"".join(SECTIONS.values()))
        assert self.path().stat().st_ino != inode
        assert os.listdir(self.folder / "own") == ["pages"]

    def test_no_bytes_are_freed_under_the_lock(self) -> None:
        """The file that another one replaces is open until the reactor may have the lock again."""
        self.save()
        before = self.path().stat().st_ino
        held = []

        class Watched:
            def __enter__(self) -> None:
                pass

            def __exit__(self, *_: object) -> None:
                for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
                    with contextlib.suppress(OSError):
                        held.append(os.fstat(descriptor).st_ino == before)

        self.store.lock = cast(Any, Watched())
        self.save()
        assert self.path().stat().st_ino != before
        assert any(held)

    def test_capacity(self) -> None:
        """Beyond the capacity the pages are removed that were not revalidated for longest."""
        self.put(page_store, "CAPACITY", 16_000)
        for number in range(40):
            self.store.save(f"demo-{number}", RESPONSES, {"json": b"x" * 1000})
            os.utime(self.path(f"demo-{number}"), (0, 1_000_000 + number))
        kept = [number for number in range(40) if self.store.load(f"demo-{number}")]
        assert kept == list(range(kept[0], 40))
        assert 5 <= len(kept) <= 16


class DamageTests(StoreCase):
    """A file that is damaged or of another program is no page, and never an error."""

    def test_foreign(self) -> None:
        """A foreign file under the name of a page is ignored, and replaced."""
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
        os.rename(self.path(), self.path("other"))
        assert self.store.load("other") is None

    def test_another_version(self) -> None:
        """Of another version's file the indexes' pages count, not the representations."""
        self.put(page_store, "__version__", "0.0.1")
        self.save()
        self.put(page_store, "__version__", "0.0.2")
        assert self.load().read() == {DOCUMENT + "aa": b"packed"}

    def test_unwritable(self) -> None:
        """A page that cannot be written is kept in memory; one line a minute says so."""
        (self.folder / "own").write_text("no folder")
        with logged() as log:
            for _ in range(3):
                assert self.save().read() == SECTIONS
            self.clock.advance(61)
            self.save()
        assert len([line for line in log.lines if "cannot be written" in line]) == 2
        os.unlink(self.folder / "own")
        self.path().mkdir(parents=True)  # in the place of the file
        assert self.store.load("demo") is None
        assert self.save().read() == SECTIONS
        self.path().rmdir()
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


class Scans(StoreCase):
    def pages(self) -> dict[str, dict[str, float]]:
        return {name: {**found.pages} for name, found in self.store.scan({}).items()}

    def test_pages(self) -> None:
        """A scan finds the indexes that have a page, and when each was confirmed."""
        assert self.pages() == {}
        self.save()
        assert self.pages() == {"demo": {"aa": 999_940.0}}
        self.store.mark_invalid("demo")
        assert self.pages() == {"demo": {"aa": 0.0}}

    def test_invalidated_responses(self) -> None:
        """A page that was rewritten after a ``DELETE`` is not confirmed yet."""
        responses = {name: each.invalidate() for name, each in RESPONSES.items()}
        self.store.save("demo", responses, SECTIONS)
        assert self.pages() == {"demo": {"aa": 0.0}}

    def test_other_files(self) -> None:
        """Damaged files, folders and files of others are no pages."""
        self.save()
        self.path("damaged").write_bytes(self.path().read_bytes()[:-200].replace(b"demo", b"gone"))
        self.path("empty").write_bytes(b"")
        self.path("folder").mkdir()
        self.path("link").symlink_to("nowhere")
        assert list(self.pages()) == ["demo"]

    def test_only_what_changed_is_read(self) -> None:
        """A file that is the same as before is not read again."""
        for name in ("demo", "other"):
            self.store.save(name, RESPONSES, SECTIONS)
        first = self.store.scan({})
        self.store.save("other", {"aa": RESPONSES["aa"]}, SECTIONS)
        second = self.store.scan(first)
        assert second["demo"] is first["demo"]
        assert second["other"] is not first["other"]
        self.path("demo").unlink()
        assert list(self.store.scan(second)) == ["other"]
