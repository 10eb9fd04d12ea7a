"""The copy of a feed: its lookup by project, and its file over restarts and damages."""

from __future__ import annotations

import os
import tracemalloc
from typing import NoReturn

import attrs
import pytest

from proxpi.rules.advisory_store import AdvisoryStore, Copy
from proxpi.rules.osv import Advisory, Affected, Record
from tests.support.cases import Case, FolderCase

ALL = ((("introduced", "0"),),)
EVIL = Record("MAL-2026-1", 10, (Affected("evil", ranges=ALL), Affected("worse", ("1",))))
WORSE = Record("MAL-2026-2", 20, (Affected("worse", ("2",), digests=("sha256:00",)),))
WITHDRAWN = Record("MAL-2026-3", 30)
FEED = "https://advisories.example/"


def copy(*records: Record, excepted: tuple[str, ...] = ()) -> Copy:
    return Copy.of(records, 1_000.0, {"all.zip": {"If-None-Match": '"1"'}}, excepted)


class CopyTests(Case):
    def test_lookup(self) -> None:
        """A project has the advisories of all entries that name it."""
        found = copy(EVIL, WORSE, WITHDRAWN)
        assert found.advisories("evil") == (Advisory("MAL-2026-1", ranges=ALL),)
        assert [each.id for each in found.advisories("worse")] == ["MAL-2026-1", "MAL-2026-2"]
        assert found.advisories("good") == ()
        assert found.modified == {"MAL-2026-1": 10, "MAL-2026-2": 20, "MAL-2026-3": 30}

    def test_excepted(self) -> None:
        """An excepted entry affects no project."""
        found = copy(EVIL, WORSE, excepted=("MAL-2026-1",))
        assert found.advisories("evil") == ()
        assert [each.id for each in found.advisories("worse")] == ["MAL-2026-2"]

    def test_differing(self) -> None:
        """Two copies differ in the projects whose advisories are other ones, and in no other."""
        both = copy(EVIL, WORSE)
        assert sorted(both.differing(Copy())) == ["evil", "worse"]
        assert sorted(Copy().differing(both)) == ["evil", "worse"]
        assert both.differing(copy(WORSE, EVIL)) == []
        assert both.differing(copy(EVIL, Record("MAL-2026-2", 99, WORSE.affected))) == []
        assert both.differing(copy(EVIL)) == ["worse"]
        assert both.differing(copy(EVIL, WORSE, excepted=("MAL-2026-2",))) == []

    def test_many(self) -> None:
        """The entries of a large feed take little memory, and a lookup reads only its own."""
        count = 20_000

        def record(number: int) -> Record:
            return Record(
                f"MAL-2026-{number}",
                number,
                (Affected(f"evil-{number}", (f"1.{number}",), ((("introduced", "0"),),)),),
            )

        tracemalloc.start()
        try:
            found = Copy.of(map(record, range(count)), 1.0, {}, ())
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 26 * 1024 * 1024

        class Unread(dict[str, tuple[Record, ...]]):
            def __iter__(self) -> NoReturn:
                raise AssertionError("all entries are read")

            keys = values = items = __iter__

        found = attrs.evolve(found, by_name=Unread(found.by_name))
        assert len(found.advisories("evil-7")) == 1
        assert found.advisories("good") == ()


class StoreTests(FolderCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = AdvisoryStore(self.folder / "own" / "advisories", FEED)

    def test_restart(self) -> None:
        """A stored copy is read as it was written."""
        assert self.store.load(()).checked_at is None
        self.store.save(copy(EVIL, WORSE, WITHDRAWN))
        found = self.store.load(())
        assert found.records == copy(EVIL, WORSE, WITHDRAWN).records
        assert found.checked_at == 1_000.0
        assert found.validators == {"all.zip": {"If-None-Match": '"1"'}}
        assert found.advisories("evil") == (Advisory("MAL-2026-1", ranges=ALL),)
        assert self.store.load(("MAL-2026-1",)).advisories("evil") == ()

    def test_time(self) -> None:
        """The time changes alone, without the entries; without a file there is none to change."""
        self.store.save(copy(EVIL))
        self.store.save_time(2_000.9)
        found = self.store.load(())
        assert (found.checked_at, [*found.records]) == (2_000.0, ["MAL-2026-1"])
        self.store.path.unlink()
        self.store.save_time(3_000.0)
        assert self.store.load(()).checked_at is None

    def test_damaged(self) -> None:
        """A file that is cut, changed, of another version or another feed is none."""
        self.store.save(copy(EVIL))
        data = self.store.path.read_bytes()
        at = data.index(b"evil")
        for damage in (
            b"",
            data[:-1],
            data + b"?",
            data[:at] + b"good" + data[at + 4 :],
            data.replace(b"advisories 1", b"advisories 9", 1),
            b"\xff" * 99,
            b"proxpi advisories 1 x y\n",
        ):
            self.store.path.write_bytes(damage)
            assert self.store.load(()).checked_at is None
        self.store.path.write_bytes(data)
        assert self.store.load(()).checked_at == 1_000.0
        other = AdvisoryStore(self.store.path, "https://other.example/")
        assert other.load(()).checked_at is None

    def test_whole(self) -> None:
        """A write that fails leaves nothing behind."""
        self.store.path.mkdir(parents=True)
        with pytest.raises(OSError):
            self.store.save(copy(WORSE))
        assert os.listdir(self.store.path.parent) == ["advisories"]
