"""Quota: cached, partial and queued files together never exceed the capacity."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from proxpi.files import cache_dir, layout, quota
from proxpi.files.cache_dir import CacheDir, PartialFile
from proxpi.files.layout import RESERVED
from proxpi.files.quota import MAX_FAILED_EVICTIONS, Full, TooLarge
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.support.agent import Reply
from tests.support.cache import CacheCase, bare, ref, refused
from tests.support.cases import FILES, ProxpiCase, entry, run
from tests.support.logs import logged
from tests.support.mirrors import TIMEOUT, URL, MirrorCase

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "prefetch", "lift", "adopt", "use", "restart"]),
        st.integers(0, 5),
        st.integers(1, 12),
    ),
    max_size=60,
)
CHUNKS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=40)


@attrs.define
class Arriving:
    """A file that arrives, of which nothing is known before."""

    cache: CacheDir
    reference: FileReference
    prefetched: bool
    file: PartialFile = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.file = self.cache.partial(self.reference, prefetched=lambda: self.prefetched)

    def write(self, size: int) -> bool:
        """Write bytes; return whether the quota takes them."""
        try:
            self.file.write(bytes(size))
        except Full:
            self.cache.discard(self.file)
            return False
        return True

    def adopt(self) -> None:
        assert run(self.cache.adopt(self.file, self.reference)).called
        self.cache.discard(self.file)


class Admission(CacheCase):
    def test_larger_than_the_capacity(self) -> None:
        """A file larger than the capacity is refused, announced or not, and evicts nothing."""
        kept = self.keep("kept.whl", b"kept")
        assert not self.cache_dir.quota.admits(101)
        assert self.cache_dir.quota.admits(100) and self.cache_dir.quota.admits(None)
        with pytest.raises(TooLarge, match="larger than the cache"):
            self.begin(ref("large.whl", bytes(101)), bytes(101))
        with pytest.raises(TooLarge):
            self.announce(101)
        assert self.content(kept) == b"kept"
        assert (self.on_disk(), self.open_files()) == (4, [])

    def test_no_capacity(self) -> None:
        """With a capacity of 0 no file is cached, not even an empty one, and none is found."""
        self.lay("x.whl", b"data")
        self.start(0)
        assert not (self.cache_dir.quota.admits(None) or self.cache_dir.quota.admits(0))
        assert not self.cache_dir.found(ref("x.whl", b"data"))
        empty = ref("y.whl", b"")
        uncached = self.adopt(self.begin(empty), empty)
        assert uncached is not None
        uncached.close()
        assert self.names() == ["x.whl"]


class Reservations(CacheCase):
    def test_bytes_that_arrive_evict(self) -> None:
        """A write evicts a cached file once the free bytes are used up."""
        old = self.keep("old.whl", bytes(60))
        partial = self.begin(ref("new.whl", bytes(90)), bytes(40))
        assert self.content(old) is not None
        partial.write(bytes(1))
        assert self.content(old) is None
        assert self.on_disk() == self.used == 41
        self.cache_dir.discard(partial)
        assert self.on_disk() == self.used == 0

    def test_evictions_are_remembered(self) -> None:
        """The last ten evictions are remembered with their bytes and times, the latest first."""
        for number in range(14):
            self.clock.advance(1)
            self.keep(f"{number}.whl", bytes(50))
        evicted = [(each.path, each.size, each.at) for each in self.cache_dir.quota.last_evicted]
        assert evicted == [(f"h-example/{n}.whl", 50, n + 3) for n in range(11, 1, -1)]

    def test_announced_size(self) -> None:
        """A size that index and upstream state is reserved before the bytes arrive, or refused."""
        old = self.keep("old.whl", bytes(60))
        first, second = self.begin(bare("one.whl", 80)), self.begin(bare("two.whl", 21))
        first.reservation.announce(80)
        assert self.content(old) is None
        with pytest.raises(Full):
            second.reservation.announce(21)
        second.write(bytes(20))
        first.write(bytes(80))
        assert self.used == 100
        self.cache_dir.discard(first)
        self.cache_dir.discard(second)
        assert self.used == 0

    def test_refused_before_anything_is_evicted(self) -> None:
        """Where the evictable files free too little, none is evicted; a file in use is not."""
        sent, kept = self.keep("sent.whl", bytes(30)), self.keep("kept.whl", bytes(30))
        sending = self.open(sent)
        with pytest.raises(Full, match="quota is exhausted"):
            self.announce(71)
        assert self.content(kept) is not None
        self.announce(70)
        assert self.content(kept) is None
        sending.close()

    def test_unexpected_sizes(self) -> None:
        """A file beyond its expected size evicts up to half of the capacity."""
        cases: list[tuple[str, int | None, int | None, int, int]] = [
            # name, size by the index, by the upstream, bytes that arrive, files that stay of 10
            ("without any size", None, None, 95, 5),
            ("longer than the index states", 5, 95, 95, 5),
            ("announced by the upstream alone, nothing arrives", None, 95, 0, 10),
            ("announced otherwise than stated, nothing arrives", 90, 95, 0, 10),
            ("announced by the upstream alone", None, 95, 95, 0),
        ]
        for name, stated, announced, arriving, staying in cases:
            files = self.fill()
            partial = self.begin(bare("new.whl", stated))
            if announced is not None:
                partial.reservation.announce(announced)
            with pytest.raises(Full) if staying == 5 else nullcontext():
                for _ in range(arriving):
                    partial.write(bytes(1))
            self.cache_dir.discard(partial)
            assert sum(self.content(each) is not None for each in files) == staying, name

    def test_without_a_cache_path(self) -> None:
        """A file that cannot have a cache path counts while it arrives, and is given unnamed."""
        old = self.keep("old.whl", bytes(60))
        reference = ref("../x.whl", bytes(60))
        first, second = self.begin(reference, bytes(60)), self.begin(reference)
        assert self.content(old) is None
        assert (self.used, self.on_disk()) == (60, 0), "unlinked at once"
        with pytest.raises(Full):
            second.write(bytes(60))
        uncached = self.adopt(first, reference)
        assert uncached is not None
        shared = uncached.share()
        uncached.close()
        assert shared.read(0, 99) == bytes(60)
        shared.close()
        self.cache_dir.discard(second)
        assert (self.used, self.open_files()) == (0, [])


class Evictions(CacheCase):
    def test_order(self) -> None:
        """The least recently used file goes first, and one that was in use after that."""
        a, b = self.keep("a.whl", bytes(40)), self.keep("b.whl", bytes(40))
        self.content(a)
        c = self.keep("c.whl", bytes(40))
        assert [self.content(each) is not None for each in (a, b, c)] == [True, False, True]
        sending = self.open(a)
        self.keep("b.whl", bytes(40))
        self.keep("d.whl", bytes(40))
        assert "a.whl" in self.names(), "it is in use"
        sending.close()

    def test_refused_by_the_disk(self) -> None:
        """Files that cannot be renamed count and are served; the log says so, others go instead."""
        files = self.fill(3, 30)
        with refused(self.host / "0.whl", "rename"):
            self.keep("new.whl", bytes(40))
        assert [self.content(each) is not None for each in files] == [True, False, True]
        assert self.used == self.on_disk() == 100
        self.clock.advance(60)
        with refused(self.host, "rename"), logged("proxpi.files", "proxpi.problems") as log:
            for _ in range(3):
                with pytest.raises(Full):
                    self.announce(50)
        assert log.levels == ["error"] and "Permission denied" in log.text
        assert self.used == 100
        self.keep("more.whl", bytes(50))
        assert self.used <= 100, "it is tried again"

    def test_no_file_can_be_evicted(self) -> None:
        """A few failed evictions end the attempt in a large cache."""
        self.fill(100, 1)
        with refused(self.host, "rename") as tried, pytest.raises(Full):
            self.begin(ref("new.whl", bytes(1)), bytes(1))
        assert len(tried) == MAX_FAILED_EVICTIONS
        assert self.used == 100

    def test_writes_wait_for_unlinks(self) -> None:
        """A write waits, batch by batch, until evicted files are unlinked; readers do not."""
        self.put(quota, "BATCH", 2)
        self.fill()
        self.held = True
        partial = self.announce(50, ends=False)
        space = partial.write(bytes(50))
        assert space is not None
        while self.jobs:
            assert partial.flush() is not None
            assert partial.path.stat().st_size == 0
            assert partial.read(0, 100) == bytes(50)
            assert self.on_disk() <= 100
            self.run_thread()
        assert self.result(space) is None
        assert partial.flush() is None
        assert partial.path.stat().st_size == 50
        assert self.used == self.on_disk() == 100
        self.cache_dir.discard(partial)

    def test_discarded_while_it_waits(self) -> None:
        """Once a download has ended, only the batch under way is evicted for it."""
        self.put(quota, "BATCH", 2)
        self.fill()
        self.held = True
        self.announce(50)
        self.run_threads()
        assert len(self.names()) == 8

    def test_waited_in_vain(self) -> None:
        """A write that waited for files that turn out to be stuck is refused."""
        files = self.fill()
        self.held = True
        partials = [self.begin(bare(f"{name}.whl", 50), bytes(50)) for name in "ab"]
        assert self.content(files[0]) is None, "all of them are queued"
        with refused(self.host, "unlink"):
            self.run_threads()
        for partial in partials:
            with pytest.raises(Full):
                partial.flush()
            self.cache_dir.discard(partial)
        assert self.used == self.on_disk() == 100


class Queued(CacheCase):
    def setUp(self) -> None:
        """Cache ten files; threads wait."""
        super().setUp()
        self.files = self.fill()
        self.held = True

    def test_fetched_again(self) -> None:
        """A file that is fetched again while its old version is queued stays."""
        for early in (True, False):
            self.announce(10)
            [gone] = [file for file in self.files if self.content(file) is None]
            if early:
                self.run_threads()
            self.keep(gone, bytes(10))
            self.run_threads()
            assert self.content(gone) == bytes(10)
            assert self.used == self.on_disk() == 100

    def test_stuck(self) -> None:
        """A queued file that cannot be unlinked counts, is logged once, and is tried by a clear."""
        with refused(self.host, "unlink"), logged("proxpi.files", "proxpi.problems") as log:
            for file in self.files[:3]:
                self.delete(file)
            self.run_threads()
        assert log.levels == ["error"]
        assert self.used == self.on_disk() == 100
        assert len(self.reserved()) == 3
        assert not self.cache_dir.found(self.files[0])
        partial = self.cache_dir.partial(ref("new.whl", bytes(10)))
        assert partial.write(bytes(10)) is not None, "another file is evicted"
        self.run_threads()
        assert partial.flush() is None
        self.cache_dir.discard(partial)
        cleared = self.clear()
        self.run_threads()
        self.result(cleared)
        assert self.used == self.on_disk() == 0

    def test_waiter_leaves(self) -> None:
        """A client that leaves while files are unlinked for it stops no unlink."""
        self.put(quota, "BATCH", 2)
        cleared = self.clear()
        self.run_thread()
        assert len(self.reserved()) == 10
        cleared.cancel()
        self.run_threads()
        self.error(cleared, CancelledError)
        assert self.used == self.on_disk() == 0

    def test_after_a_kill(self) -> None:
        """The next process unlinks queued files, or counts them; the last one need not."""
        for file in self.files[:3]:
            self.delete(file)
        assert len(self.reserved()) == 3
        first, self.held = self.cache_dir, False
        with refused(self.host, "unlink"), mock.patch.object(layout, "try_to_write"):
            self.start()
            assert (self.used, len(self.reserved())) == (100, 3)
            assert [self.cache_dir.found(file) for file in self.files[:4]] == [False] * 3 + [True]
        self.start()
        assert (self.used, len(self.names())) == (70, 7)
        self.run_threads()
        assert first.quota.used == 70

    def test_no_further_name(self) -> None:
        """Where a full disk takes no further name, the file is unlinked at once."""
        with refused(self.host, "rename", number=errno.ENOSPC):
            self.delete("0.whl")
            partial = self.announce(30, ends=False)
        assert (len(self.names()), self.reserved()) == (7, [])
        assert self.used == 100, "the reservation counts"
        self.cache_dir.discard(partial)


class Reserved(CacheCase):
    def test_foreign(self) -> None:
        """A name that only looks like one is foreign; a folder under one stops nothing."""
        for name in (f"{RESERVED}x", f"{RESERVED}{'0' * 17}", f"x{RESERVED}{'0' * 16}"):
            self.lay(name, b"foreign")
        (self.host / f"{RESERVED}{'0' * 16}/x").mkdir(parents=True)
        (self.folder / f"{RESERVED}{'1' * 16}/x").mkdir(parents=True)
        self.start()
        assert (self.used, len(self.names())) == (0, 4)

    def test_longest_names(self) -> None:
        """A file with the longest name, or the longest path, that can be cached can be deleted."""
        deepest = "/".join(["d" * 200] * 19)
        left = 4095 - len(str(self.folder)) - len(f"/h-example/{deepest}/")
        deep = f"{deepest}/{'e' * (left - 2)}/x"
        for name in ("x" * 251 + ".whl", f"{deepest}/{'x' * 51}.whl", deep):
            file = self.keep(name, bytes(10))
            assert self.content(file) == bytes(10)
            self.delete(file)
            assert self.used == self.on_disk() == 0
        with pytest.raises(OSError, match="too long"):
            self.cache_dir.partial(ref(deep.replace("/x", "e/x"), bytes(10)))


class Prefetched(CacheCase):
    """Prefetched files have a tenth of the capacity: here 10 bytes."""

    def prefetch(self, name: str, size: int) -> FileReference:
        return self.keep(name, bytes(size), prefetched=True)

    def test_evict_each_other(self) -> None:
        """Prefetched files evict the oldest of them, partial ones counted, and no used file."""
        used, old = self.keep("used.whl", bytes(80)), self.prefetch("old.whl", 4)
        new = self.prefetch("new.whl", 4)
        partial = self.begin(ref("partial.whl", bytes(5)), bytes(5), prefetched=True)
        assert self.names() == ["new.whl", "used.whl"]
        with pytest.raises(Full):
            self.begin(ref("more.whl", bytes(6)), bytes(6), prefetched=True)
        assert self.names() == ["new.whl", "used.whl"], "it would not fit beside the partial one"
        assert self.cache_dir.quota.prefetched == 9
        self.cache_dir.discard(partial)
        assert [self.content(file) is not None for file in (used, old, new)] == [True, False, True]

    def test_larger_than_their_part(self) -> None:
        """A file that is larger than the part is refused once its size is announced."""
        self.prefetch("old.whl", 4)
        partial = self.begin(bare("large.whl", 11), prefetched=True)
        with pytest.raises(Full):
            partial.reservation.announce(11)
        self.cache_dir.discard(partial)
        assert self.names() == ["old.whl"]

    def test_admission(self) -> None:
        """Prefetched files are admitted up to their part, and to what used files leave."""
        quota = self.cache_dir.quota
        assert quota.admits_prefetched(10) and not quota.admits_prefetched(11)
        self.keep("used.whl", bytes(93))
        self.prefetch("old.whl", 3)
        assert quota.admits_prefetched(7) and not quota.admits_prefetched(8)
        self.keep("more.whl", bytes(7))
        assert quota.prefetched == 0 and not quota.admits_prefetched(1)
        with pytest.raises(Full):
            self.prefetch("new.whl", 1)
        assert self.names() == ["more.whl", "used.whl"]
        for capacity in (0, 9):
            self.start(capacity)
            assert not self.cache_dir.quota.admits_prefetched(1)

    def test_space_for_them(self) -> None:
        """An eviction for a client frees their part as well, unless files are prefetched now."""
        self.start(prefetches=True)
        self.fill()
        self.keep("new.whl", bytes(1))
        assert self.used == 81
        assert self.cache_dir.quota.admits_prefetched(10)
        self.prefetch("prefetched.whl", 2)
        self.keep("more.whl", bytes(17))
        sending = self.open(self.keep("newest.whl", bytes(1)))
        assert (self.used, self.cache_dir.quota.prefetched) == (99, 0)
        self.keep("large.whl", bytes(99))
        assert self.names() == ["large.whl", "newest.whl"], "no more can be evicted"
        sending.close()

    def test_first_use(self) -> None:
        """At its first use a prefetched file joins the rest, with the priority of a new file."""
        self.keep("old.whl", bytes(40))
        file = self.prefetch("file.whl", 10)
        assert self.content(file) is not None
        assert self.cache_dir.quota.prefetched == 0
        self.prefetch("other.whl", 10)
        self.keep("new.whl", bytes(60))
        assert self.names() == ["file.whl", "new.whl"], "prefetched ones go first, then old ones"

    def test_failed_eviction(self) -> None:
        """A prefetched file that cannot be evicted stays one, and others go before it."""
        for name in "abc":
            self.prefetch(f"{name}.whl", 3)
        with refused(self.host / "a.whl", "rename"):
            self.prefetch("d.whl", 3)
        assert self.names() == ["a.whl", "c.whl", "d.whl"]
        assert self.cache_dir.quota.prefetched == 9

    def test_a_client_comes(self) -> None:
        """Once a client waits for a file, it evicts as any other, and leaves the part."""
        background = True
        self.keep("used.whl", bytes(95))
        partial = self.cache_dir.partial(bare("new.whl"), prefetched=lambda: background)
        partial.write(bytes(5))
        with pytest.raises(Full):
            partial.write(bytes(1))
        background = False
        assert self.cache_dir.quota.prefetched == 0
        assert partial.flush() is None
        assert self.adopt(partial, bare("new.whl")) is None
        assert (self.names(), self.cache_dir.quota.prefetched) == (["new.whl"], 0)

    def test_restart(self) -> None:
        """After a restart they are prefetched still; a smaller capacity has a smaller part."""
        for name in "abc":
            self.prefetch(f"{name}.whl", 3)
        self.content(self.keep("used.whl", bytes(3)))
        for capacity, left in ((100, "abc"), (60, "bc"), (1, "")):
            self.result(self.cache_dir.close())
            self.start(capacity)
            names = [f"{name}.whl" for name in left]
            assert self.names() == ([*names, "used.whl"] if capacity > 1 else [])
            assert self.cache_dir.quota.prefetched == 3 * len(left)


class Setting(ProxpiCase):
    def test_prefetch(self) -> None:
        """With ``PROXPI_PREFETCH=off`` an eviction frees no more than is needed."""
        for prefetch, used in ((True, 81), (False, 91)):
            self.result(self.mirror.clear())
            self.build(capacity=100, prefetch=prefetch)
            for number, size in enumerate([10] * 10 + [1]):
                self.serve(
                    "demo.whl", bytes(size), project=f"project-{number}", url=f"{FILES}{number}.whl"
                )
                assert self.get(f"/index/project-{number}/demo.whl").body == bytes(size)
            assert self.cache_dir.quota.used == used


class Downloads(MirrorCase):
    def test_backpressure(self) -> None:
        """A download reads no more until the file that is evicted for it is unlinked."""
        self.put(cache_dir, "BUFFER", 1)
        self.build(capacity=100, timeout=2 * TIMEOUT, writes=self.in_thread)
        old, new = b"o" * 90, b"n" * 80
        slow = Reply(200, b"", whole=False, length=len(new))
        for name, data, reply in (("old", old, Reply(200, old)), ("new", new, slow)):
            url = URL.replace("demo", name)
            self.pages.lists(entry(name, data, url=url))
            self.agent.at(url, reply)
        first = self.fetch("old")
        self.run_threads()
        self.assert_bytes(self.result(first), old)
        asked = self.fetch("new")
        slow.bring(new[:40])
        assert slow.paused
        self.run_threads()
        assert not slow.paused
        slow.bring(new[40:])
        slow.end()
        self.run_threads()
        self.assert_bytes(self.result(asked), new)
        self.assert_cached("new", new)
        assert self.mirror.ready("demo", "old") is None


@settings(max_examples=60, deadline=None)
@given(CHUNKS, st.booleans())
def test_never_more(chunks: list[tuple[int, int]], stated: bool) -> None:
    """The folder never exceeds the capacity, for any concurrent files in any pieces."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_dir, "BUFFER", 1)
        folder = Path(name)
        cache = cache_folder(folder, 100)
        cache.prepare()
        arriving = {}
        for number, (lane, size) in enumerate(chunks):
            if lane not in arriving:
                reference = bare(f"{number}.whl", 90 if stated else None)
                arriving[lane] = (cache.partial(reference), reference)
            partial, reference = arriving[lane]
            try:
                partial.write(bytes(size))
                if size % 3 == 0 and not stated:
                    assert run(cache.adopt(partial, reference)).called
                ended = partial.digests.size >= 90 or (size % 3 == 0 and not stated)
            except Full:
                ended = True
            if ended:
                cache.discard(arriving.pop(lane)[0])
            files = [path for path in folder.rglob("*") if path.is_file()]
            on_disk = sum(path.stat().st_size for path in files if path.name != "uses.json")
            assert on_disk == cache.quota.used <= 100
        for partial, _ in arriving.values():
            cache.discard(partial)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.booleans())
def test_prefetched_files_have_their_part(steps: list[tuple[str, int, int]], full: bool) -> None:
    """Prefetched files never have more than a tenth, nor evict a file that was used."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_dir, "BUFFER", 1)
        arriving: dict[int, Arriving] = {}
        cache = cache_folder(Path(name), 100)
        cache.prepare()
        steps = [("write", 9, 90), ("adopt", 9, 1)] * full + steps
        for number, (step, lane, size) in enumerate(steps):
            index = cache.eviction_index
            used = {path for path in index if not index.is_prefetched(path)}
            if step in ("write", "prefetch"):
                if lane not in arriving:
                    reference = bare(f"{number}.whl")
                    arriving[lane] = Arriving(cache, reference, step == "prefetch")
                each = arriving[lane]
                if not each.write(size):
                    del arriving[lane]
                if not each.prefetched:
                    used = set()  # any of them may be evicted
            elif step == "lift" and lane in arriving:
                arriving[lane].prefetched = False
            elif step == "adopt" and lane in arriving:
                arriving.pop(lane).adopt()
            elif step == "use" and lane < len(index):
                index.use(sorted(index)[lane])
            elif step == "restart":
                while arriving:
                    cache.discard(arriving.popitem()[1].file)
                before = cache.quota.prefetched
                cache.close()
                cache = cache_folder(Path(name), 100)
                cache.prepare()
                assert cache.quota.prefetched == before
            index = cache.eviction_index
            assert index.prefetched == sum(map(index.size, filter(index.is_prefetched, index)))
            assert cache.quota.prefetched <= 10 and cache.quota.used <= 100
            assert used <= {path for path in index if not index.is_prefetched(path)}
        for each in arriving.values():
            cache.discard(each.file)
