"""Quota: finished and unfinished files together never take more than there is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from proxpi.files import cache_dir as partial_module
from proxpi.files.quota import MAX_FAILED_EVICTIONS, Full
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.files.test_disk import DiskCase, bare, reference_of
from tests.support.logs import logged

CHUNKS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=40)


class Unfinished(DiskCase):
    """A hundred bytes for all, the unfinished files included."""

    def setUp(self) -> None:
        """Let each byte be written as it comes."""
        super().setUp()
        self.put(partial_module, "BUFFER", 1)

    def test_what_comes_drives_out(self) -> None:
        """What is written takes the place of finished files, before it is finished."""
        old = reference_of("old.whl", bytes(60))
        self.keep(old, bytes(60))
        reference = reference_of("new.whl", bytes(90))
        partial = self.cache_dir.partial(reference)
        partial.write(bytes(40))
        assert self.content(old) is not None
        partial.write(bytes(1))
        assert self.content(old) is None
        assert (self.held(), self.cache_dir.quota.used) == (41, 41)
        self.cache_dir.discard(partial)
        assert (self.held(), self.cache_dir.quota.used) == (0, 0)

    def test_two_that_do_not_fit_together(self) -> None:
        """The second one is refused, and the first goes on."""
        one, two = reference_of("one.whl", bytes(60)), reference_of("two.whl", bytes(61))
        first, second = self.cache_dir.partial(one), self.cache_dir.partial(two)
        first.write(bytes(50))
        second.write(bytes(50))
        with pytest.raises(Full, match="no room in the cache"):
            second.write(bytes(11))
        assert second.read(0, 100) == bytes(50)
        self.cache_dir.discard(second)
        first.write(bytes(10))
        self.adopt(first, one)
        self.cache_dir.discard(first)
        assert self.content(one) == bytes(60)
        assert self.cache_dir.quota.used == 60

    def test_reserved(self) -> None:
        """Room for a file whose length is known is made before it comes, or refused at once."""
        old = reference_of("old.whl", bytes(60))
        self.keep(old, bytes(60))
        first = self.cache_dir.partial(bare("one.whl", 80))
        second = self.cache_dir.partial(bare("two.whl", 21))
        first.reservation.announce(80)
        assert self.content(old) is None
        with pytest.raises(Full):
            second.reservation.announce(21)
        second.write(bytes(20))
        assert self.cache_dir.quota.used == 100
        first.write(bytes(80))
        assert self.cache_dir.quota.used == 100
        self.cache_dir.discard(first)
        self.cache_dir.discard(second)
        assert self.cache_dir.quota.used == 0

    def test_refused_and_nothing_gone(self) -> None:
        """Where room cannot be made for all of it, nothing is removed in vain."""
        sent, kept = reference_of("sent.whl", bytes(30)), reference_of("kept.whl", bytes(30))
        self.keep(sent, bytes(30))
        self.keep(kept, bytes(30))
        sending = self.cache_dir.open(sent)
        assert sending is not None
        for size in (71, 70):
            partial = self.cache_dir.partial(bare("new.whl", size))
            if size > 70:
                with pytest.raises(Full):
                    partial.reservation.announce(size)
            else:
                partial.reservation.announce(size)
            assert (self.content(kept) is None) == (size == 70)
            self.cache_dir.discard(partial)
        sending.close()

    def test_endless(self) -> None:
        """What has no length drives out no more than leaves half of the cache."""
        references = [reference_of(f"{number}.whl", bytes(10)) for number in range(10)]
        for reference in references:
            self.keep(reference, bytes(10))
        partial = self.cache_dir.partial(bare("endless.whl"))
        with pytest.raises(Full):
            for _ in range(100):
                partial.write(bytes(1))
        self.cache_dir.discard(partial)
        assert sum(self.content(reference) is not None for reference in references) == 5

    def test_announced_otherwise(self) -> None:
        """Nothing goes for a length that the index does not know of, before its bytes come."""
        references = [reference_of(f"{number}.whl", bytes(10)) for number in range(10)]
        for reference in references:
            self.keep(reference, bytes(10))
        for stated in (10, 90, None):
            partial = self.cache_dir.partial(bare("lie.whl", stated))
            partial.reservation.announce(95)
            self.cache_dir.discard(partial)
        assert sum(self.content(reference) is not None for reference in references) == 10
        partial = self.cache_dir.partial(bare("large.whl"))
        partial.reservation.announce(95)
        for _ in range(95):
            partial.write(bytes(1))
        self.cache_dir.discard(partial)
        assert sum(self.content(reference) is not None for reference in references) == 0

    def test_longer_than_the_index_says(self) -> None:
        """What is longer than that drives out no more than leaves half of the cache."""
        references = [reference_of(f"{number}.whl", bytes(10)) for number in range(10)]
        for reference in references:
            self.keep(reference, bytes(10))
        partial = self.cache_dir.partial(bare("longer.whl", 5))
        partial.reservation.announce(95)
        with pytest.raises(Full):
            for _ in range(95):
                partial.write(bytes(1))
        self.cache_dir.discard(partial)
        assert sum(self.content(reference) is not None for reference in references) == 5

    def test_without_a_place(self) -> None:
        """What cannot keep a name counts for as long as it comes."""
        old = reference_of("old.whl", bytes(60))
        self.keep(old, bytes(60))
        first, second = (
            self.cache_dir.partial(reference_of("../x.whl", bytes(60))) for _ in range(2)
        )
        first.write(bytes(60))
        assert self.content(old) is None
        assert (self.cache_dir.quota.used, self.held()) == (60, 0), "unlinked at once"
        with pytest.raises(Full):
            second.write(bytes(60))
        self.cache_dir.discard(first)
        self.cache_dir.discard(second)
        assert self.cache_dir.quota.used == 0

    def test_cannot_be_removed(self) -> None:
        """What cannot be removed counts as before, and is served as before; the log tells."""
        old = reference_of("old.whl", bytes(60))
        self.keep(old, bytes(60))
        with self.unremovable("old.whl"), logged("proxpi.files") as log:
            for _ in range(3):
                partial = self.cache_dir.partial(bare("new.whl", 50))
                with pytest.raises(Full):
                    partial.reservation.announce(50)
                self.cache_dir.discard(partial)
        assert log.levels == ["error"]
        assert "Permission denied" in log.text
        assert self.cache_dir.quota.used == 60
        assert self.content(old) is not None
        self.keep(reference_of("new.whl", bytes(50)), bytes(50))
        assert self.cache_dir.quota.used == 50, "it is tried again"

    def test_one_cannot_be_removed(self) -> None:
        """The next one goes in its stead."""
        references = [reference_of(f"{number}.whl", bytes(30)) for number in range(3)]
        for reference in references:
            self.keep(reference, bytes(30))
        new = reference_of("new.whl", bytes(40))
        with self.unremovable("0.whl"):
            self.keep(new, bytes(40))
        assert [self.content(reference) is not None for reference in references] == [
            True,
            False,
            True,
        ]
        assert self.cache_dir.quota.used == self.held() == 100

    def test_nothing_can_be_removed(self) -> None:
        """Nobody tries all of a large cache in vain."""
        references = [reference_of(f"{number}.whl", bytes(1)) for number in range(100)]
        for reference in references:
            self.keep(reference, bytes(1))
        tried: list[str] = []
        with self.unremovable("", tried), pytest.raises(Full):
            self.keep(reference_of("new.whl", bytes(1)), bytes(1))
        assert len(tried) == MAX_FAILED_EVICTIONS
        assert self.cache_dir.quota.used == 100

    @contextmanager
    def unremovable(self, name: str, tried: list[str] | None = None) -> Iterator[None]:
        """Let a file, or each one, be such that nobody can remove it."""
        rename = os.rename

        def refuse(old: str, new: str) -> None:
            path = Path(old)
            if path.parent.name == "h-example" and path.name.endswith(name):
                if tried is not None:
                    tried.append(path.name)
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            rename(old, new)

        with mock.patch.object(os, "rename", refuse):
            yield

    def test_complaints(self) -> None:
        """The log says once a minute that nothing can be kept, and how often it was so."""
        now = 0.0
        disk = cache_folder(self.folder, 100, seconds=lambda: now)
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with logged("proxpi.files") as log:
            for _ in range(5):
                disk.log_refusal(error)
            now = 59.9
            disk.log_refusal(error)
            assert log.levels == ["error"]
            now = 60.0
            disk.log_refusal(error)
        assert log.levels == ["error", "error"]
        assert "No space left on device" in log.text
        assert "5 more files" in log.text


@settings(max_examples=60, deadline=None)
@given(CHUNKS, st.booleans())
def test_never_more(chunks: list[tuple[int, int]], told: bool) -> None:
    """Whatever comes side by side, in whatever pieces: the folder never holds more than it may."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(partial_module, "BUFFER", 1)
        folder = Path(name)
        disk = cache_folder(folder, 100)
        disk.prepare()
        coming = {}
        for number, (lane, size) in enumerate(chunks):
            if lane not in coming:
                reference = FileReference(
                    f"https://h.example/{number}.whl", None, 90 if told else None, False
                )
                coming[lane] = (disk.partial(reference), reference)
            partial, reference = coming[lane]
            try:
                partial.write(bytes(size))
                if partial.digests.size >= 90:
                    del coming[lane]
                    disk.discard(partial)
                elif size % 3 == 0 and not told:
                    assert Deferred.fromCoroutine(disk.adopt(partial, reference)).called
                    del coming[lane]
                    disk.discard(partial)
            except Full:
                del coming[lane]
                disk.discard(partial)
            files = [path for path in folder.rglob("*") if path.is_file()]
            held = sum(path.stat().st_size for path in files if path.name != "uses.json")
            assert held == disk.quota.used <= 100
        for partial, _ in coming.values():
            disk.discard(partial)
