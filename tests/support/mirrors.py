"""Base cases for the file mirror, whose pages, upstream, clients and clock are the test's."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest import mock

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.files import fetch
from proxpi.files.cache_dir import OpenFile, PartialFile
from proxpi.files.mirror import Redirect
from proxpi.files.passthrough import RangeResponse
from proxpi.files.spool import Reader
from proxpi.simple.caching import Span, requested_span
from proxpi.simple.model import ListedFile, NotListed
from proxpi.tap import cache_folder, file_mirror
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.cases import FILES, MIB, FolderCase, at_once, entry, problems_at, run
from tests.support.indexes import upstream_client

NAME = "demo-1.0-py3-none-any.whl"
URL = FILES + NAME
DATA = b"the bytes of a wheel"
LARGE = os.urandom(3 * MIB)
TIMEOUT = 0.9
#: What a page says of a file that it knows nothing of.
UNKNOWN: dict[str, Any] = {"hashes": {}, "size": None}


def slow(data: bytes, **headers: str) -> Reply:
    return Reply(200, b"", whole=False, length=len(data)).having(**headers)


def part(
    data: bytes,
    start: int,
    stop: int | None = None,
    size: int | str | None = None,
    *,
    arrived: bool = True,
    **headers: str,
) -> Reply:
    """Return a response with a range of a file, and another size than the true one, if given."""
    stop = len(data) if stop is None else stop
    stated = f"bytes {start}-{stop - 1}/{len(data) if size is None else size}"
    length, body = stop - start, data[start:stop] if arrived else b""
    fields = {"Content-Range": stated}
    return Reply(206, body, fields, whole=arrived, length=length).having(**headers)


@attrs.define(eq=False)
class FakePages:
    """A `ProjectPages` that a test fills.

    :ivar known: the files of each page that is at hand, by project and name
    :ivar fresh: the files that pages list once they are fetched
    :ivar refetched: the pages that were revalidated
    :ivar suppressed: the files whose metadata is suppressed
    :ivar advertised: the sha256 of core metadata by file name and sha256 of its wheel
    :ivar remains: seconds for which pages are fresh
    :ivar slow: what fetching a page waits for, and ``failure``: what it raises
    """

    known: dict[tuple[str, str], ListedFile] = attrs.field(factory=dict)
    fresh: dict[tuple[str, str], ListedFile] = attrs.field(factory=dict)
    refetched: list[tuple[str, str]] = attrs.field(factory=list)
    suppressed: list[tuple[str, str]] = attrs.field(factory=list)
    advertised: dict[tuple[str, str], str] = attrs.field(factory=dict)
    slow: Deferred[None] | None = None
    failure: Exception | None = None
    remains: float = 1800.0

    def remaining(self, name: str) -> float:
        return self.remains

    def lists(
        self,
        entry: dict[str, Any],
        *,
        private: bool = False,
        cold: bool = False,
        extracted: bool = False,
    ) -> None:
        """Let the page of ``demo`` list a file; a cold one has to be asked for it first."""
        listed = ListedFile(entry, private, "demo", extracted)
        (self.fresh if cold else self.known)["demo", entry["filename"]] = listed

    def ready_file(self, name: str, filename: str) -> ListedFile | None:
        return self.known.get((name, filename))

    async def fetch_file(self, name: str, filename: str) -> ListedFile:
        if (name, filename) not in self.known:
            await self._fetch_page()
        if (name, filename) not in self.known:
            raise NotListed(filename)
        return self.known[name, filename]

    async def refetch_file(self, name: str, filename: str) -> ListedFile | None:
        self.refetched.append((name, filename))
        await self._fetch_page()
        return self.ready_file(name, filename)

    async def suppress_metadata(self, name: str, filename: str) -> None:
        self.suppressed.append((name, filename))

    async def advertise_metadata(self, name: str, filename: str, wheel: str, metadata: str) -> None:
        self.advertised[filename, wheel] = metadata

    async def _fetch_page(self) -> None:
        if self.slow is not None:
            await self.slow
        if self.failure is not None:
            raise self.failure
        self.known.update(self.fresh)


@attrs.define(eq=False)
class Reading:
    """A client that reads what arrives, unless it is paused; ``cut``: it gets no more."""

    reader: Reader
    paused: bool = False
    data: bytes = attrs.field(init=False, default=b"")
    whole: bool = attrs.field(init=False, default=False)
    cut: bool = attrs.field(init=False, default=False)
    _reading: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.reader.subscribe(self.read)
        self.read()

    def read(self) -> None:
        if self._reading:
            return  # the bytes that were read made space for more
        self._reading, reader = True, self.reader
        while not (self.paused or self.whole or self.cut):
            if not reader.cut and reader.available:
                self.data += reader.read(min(1 << 16, reader.available))
            elif reader.cut or reader.complete:
                self.cut, self.whole = reader.cut, reader.complete
                reader.close()
            else:
                break
        self._reading = False

    def go_on(self) -> None:
        self.paused = False
        self.read()

    def hang_up(self) -> None:
        self.cut = True
        self.reader.close()


class MirrorCase(FolderCase):
    """Tests of a mirror whose pages, upstream, clock and threads they control."""

    def setUp(self) -> None:
        super().setUp()
        self.put(fetch, "PAUSE", 0.0)
        self.clock = Clock()
        self.problems = problems_at(self.clock)
        self.agent = MemoryAgent()
        self.pages = FakePages()
        self.threads: list[tuple[Any, Deferred[Any]]] = []
        self.build()

    def build(
        self,
        *,
        capacity: int = 100 * MIB,
        timeout: float = TIMEOUT,
        stream: bool = False,
        offline: bool = False,
        writes: Any = at_once,
        extracts: Any = at_once,
    ) -> None:
        self.cache_dir = cache_folder(self.folder, capacity, writes=writes, reads=self.in_thread)
        self.cache_dir.prepare()
        self.mirror = file_mirror(
            self.pages,
            upstream_client(self.agent, self.clock, offline=offline),
            self.cache_dir,
            self.clock,
            in_thread=extracts,
            timeout=timeout,
            stream=stream,
            ttl=1800,
            problems=self.problems,
        )

    def in_thread(self, work: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.threads.append((work, done))
        return done

    def run_threads(self) -> int:
        """Run the jobs for threads; return how many there were."""
        threads, self.threads = self.threads, []
        for work, done in threads:
            at_once(work).chainDeferred(done)
        return len(threads)

    def listed(
        self, *replies: Reply | Silence | Exception, data: bytes = DATA, **keys: Any
    ) -> None:
        """Let the page list the wheel, and the upstream answer so; by default with the file."""
        private, cold = keys.pop("private", False), keys.pop("cold", False)
        self.pages.lists(entry(NAME, data, **keys), private=private, cold=cold)
        self.agent.at(URL, *(replies or [Reply(200, data)]))
        self.agent.asked.clear()

    def fetch(self, filename: str = NAME) -> Deferred[Any]:
        return run(self.mirror.fetch("demo", filename))

    def head(self, filename: str = NAME) -> Deferred[Any]:
        return run(self.mirror.head("demo", filename))

    def range(self, wanted: str | Span, filename: str = NAME) -> Deferred[Any]:
        """Request a range, by its header or as such."""

        def choose(size: int, _: str | None) -> Span | None:
            if isinstance(wanted, Span):
                return wanted
            return requested_span(f"bytes={wanted}", None, None, size)

        return run(self.mirror.range("demo", filename, choose))

    def delete(self) -> None:
        self.result(self.mirror.delete("demo", NAME))

    def read(self, asked: Deferred[Any] | None = None, *, paused: bool = False) -> Reading:
        """Read as the client does whose response has begun; by default, one that comes now."""
        found = self.result(asked or self.fetch())
        reader = found.reader if isinstance(found, RangeResponse) else found
        assert isinstance(reader, Reader), found
        reading = Reading(reader)
        reading.paused = paused
        return reading

    def begin(self, reply: Reply, stop: int, data: bytes = LARGE) -> Reading:
        asked = self.fetch()
        reply.bring(data[:stop])
        return self.read(asked)

    def finish(self, reply: Reply, start: int = 0, data: bytes = LARGE) -> None:
        reply.bring(data[start:])
        reply.end()

    def ranges(self) -> list[str | None]:
        return [asked.header("Range") for asked in self.agent.asked if asked.method == "GET"]

    def assert_bytes(self, found: object, data: bytes = DATA) -> None:
        if isinstance(found, Reader):
            self.assert_read(Reading(found), data)
            return
        assert isinstance(found, OpenFile), found
        assert (found.size, found.read(0, found.size + 1)) == (len(data), data)
        found.close()

    def assert_read(self, reading: Reading, data: bytes = LARGE) -> None:
        assert (reading.data == data, reading.whole) == (True, True)

    def assert_redirected(self, asked: Deferred[Any], url: str = URL) -> None:
        assert self.result(asked) == Redirect(url)

    def assert_cached(self, filename: str = NAME, data: bytes = DATA) -> None:
        self.assert_bytes(self.mirror.ready("demo", filename), data)

    def assert_nothing_cached(self) -> None:
        """Check that no file was cached, and that no partial file or descriptor is left."""
        assert self.mirror.ready("demo", NAME) is None
        assert [path for path in self.folder.rglob("*") if path.is_file()] == []
        assert self.open_files() == []

    def assert_clean(self) -> None:
        """Check that no partial file, descriptor or timer is left."""
        self.clock.advance(0)
        assert (self.leftovers(), self.open_files()) == ([], [])
        assert self.clock.getDelayedCalls() == []

    def fill_disk(self, function: str = "write") -> Any:
        """Let partial files fail, until the returned patch is stopped."""

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full = mock.patch.object(PartialFile, function, refuse)
        full.start()
        self.addCleanup(full.stop)
        return full
