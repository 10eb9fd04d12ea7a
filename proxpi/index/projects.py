"""The root list: every project of every index, without an object per project.

Theory of operation
-------------------
The public list has several hundred thousand names and tens of megabytes, so nothing here
holds it. The bytes of an index's answer are searched for names as they come; the names go on,
in batches, into both forms of the list, plain and compressed, in files. Those are swapped in
when they are whole, and are what clients get until the list has to be asked for again.

Names of a single index pass straight through. Those of several are first sorted in runs of
bounded size, on disk, and then merged.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import IO

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxpi.flights import Flights, Late
from proxpi.index.pages import PATIENCE, PATIENCE_IN_OUTAGE, Status
from proxpi.index.scanner import NameScanner, NotAList
from proxpi.index.source import ACCEPT, Source
from proxpi.simple import freshness
from proxpi.simple.listing import NotListed
from proxpi.simple.negotiate import Serialization
from proxpi.simple.render import list_head, list_items, list_tail
from proxpi.upstream.errors import UpstreamFailed, settled
from proxpi.upstream.pool import Upstream

#: Bytes of a root list, decompressed, beyond which it is none.
LIST_LIMIT = 256 * 1024 * 1024
#: Seconds that a root list may take, however steadily it comes.
LIST_TIME = 300.0
#: Names that are sorted in one go, and held in memory for it.
RUN = 20_000
#: Names that are merged between two turns of the reactor.
BATCH = 2_000

_KEY = tuple[Serialization, bool]

_log = Logger(namespace="proxpi.index")


class NoSuchList(NotListed):
    """No index has a list of its projects."""


@attrs.frozen
class ListFile:
    """One form of the list, in a file that has no name: it is gone when it is closed.

    :ivar file: open, for reading at any place (``os.pread``)
    :ivar size: bytes
    :ivar etag: the entity tag, without quotes
    """

    file: IO[bytes]
    size: int
    etag: str

    @property
    def descriptor(self) -> int:
        """The system's number for the open file."""
        return self.file.fileno()


@attrs.frozen
class ProjectList:
    """The list as it is to be sent; see :class:`proxpi.index.pages.Page`."""

    file: ListFile
    status: Status
    remaining: float
    age: float


@attrs.frozen
class _Held:
    """A whole list, in all its forms."""

    forms: dict[_KEY, ListFile]
    asked_at: float
    due: bool = False


class _Writer:
    """Writes the four forms of a list, piece by piece, into a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._first = True
        self._outputs = [
            _Output(serialization, compressed, folder)
            for serialization in Serialization
            for compressed in (False, True)
        ]
        self._put(list_head)

    def add(self, batch: Sequence[str]) -> None:
        """Add normalized names."""
        if batch:
            self._put(lambda serialization: list_items(serialization, batch, self._first))
            self._first = False

    def finish(self) -> dict[_KEY, ListFile]:
        """Write the end of each form, and give them."""
        self._put(list_tail)
        return {output.key: output.finish() for output in self._outputs}

    def abandon(self) -> None:
        """Throw away what was written."""
        for output in self._outputs:
            output.file.close()

    def _put(self, render: Callable[[Serialization], bytes]) -> None:
        pieces = {serialization: render(serialization) for serialization in Serialization}
        for output in self._outputs:
            output.write(pieces[output.key[0]])


class _Output:
    """One form of a list on its way to its file."""

    def __init__(self, serialization: Serialization, compressed: bool, folder: Path | None) -> None:
        self.key = (serialization, compressed)
        self.file = tempfile.TemporaryFile("w+b", buffering=1 << 20, dir=folder)
        self._digest = hashlib.sha256()
        # 31: a gzip header; level 1, since the list is long and the next one is never far.
        self._gzip = zlib.compressobj(1, wbits=31) if compressed else None

    def write(self, data: bytes) -> None:
        self._write(self._gzip.compress(data) if self._gzip else data)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self.file.write(data)

    def finish(self) -> ListFile:
        if self._gzip:
            self._write(self._gzip.flush())
        self.file.flush()
        return ListFile(self.file, self.file.tell(), self._digest.hexdigest()[:32])


class _Runs:
    """Names of several lists on their way to one: sorted runs in files."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._buffer: list[str] = []
        self._files: list[IO[str]] = []

    def add(self, batch: Iterable[str]) -> None:
        """Add names in any order."""
        self._buffer.extend(batch)
        if len(self._buffer) >= RUN:
            self._spill()

    def merged(self) -> Iterator[str]:
        """Give every name once, sorted."""
        self._spill()
        lines = [(line.rstrip("\n") for line in run) for run in self._files]
        return (name for name, _ in groupby(heapq.merge(*lines)))

    def close(self) -> None:
        """Let go of the files."""
        for run in self._files:
            run.close()

    def _spill(self) -> None:
        run = tempfile.TemporaryFile("w+", dir=self._folder, encoding="ascii")
        self._files.append(run)
        run.writelines(f"{name}\n" for name in sorted(self._buffer))
        run.seek(0)
        self._buffer.clear()


@attrs.define(eq=False)
class Projects:
    """The root list of all indexes together.

    :ivar folder: tells where its files are to be made; ``None`` is the system's place for them
    """

    _sources: Sequence[Source]
    _upstream: Upstream
    _clock: IReactorTime
    _folder: Callable[[], Path | None]
    _held: _Held | None = attrs.field(init=False, default=None)
    _failing: bool = attrs.field(init=False, default=False)
    _forgotten: int = attrs.field(init=False, default=0)
    _served: set[Source] = attrs.field(init=False, factory=set)
    _flights: Flights[None, None] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    def ready(self, serialization: Serialization, compressed: bool) -> ProjectList | None:
        """Give the list if it is fresh, without waiting."""
        if self._held is None or self._remaining(self._held) <= 0:
            return None
        return self._list(self._held, serialization, compressed, "HIT")

    async def fetch(self, serialization: Serialization, compressed: bool) -> ProjectList:
        """
        Give the list, asking the indexes for it if need be.

        :raises NoSuchList: if none of them has one
        :raises UpstreamFailed: if one of them failed and there is no older list
        """
        while True:
            if (ready := self.ready(serialization, compressed)) is not None:
                return ready
            forgotten = self._forgotten
            status = await self._refreshed()
            # Forgotten meanwhile: what was under way is older than the operator's wish.
            if self._held is not None and self._forgotten == forgotten:
                return self._list(self._held, serialization, compressed, status)

    def forget(self) -> None:
        """Ask for the list again before it is used again, except in an outage."""
        self._forgotten += 1
        self._flights.forget(None)
        if self._held is not None:
            self._held = attrs.evolve(self._held, due=True)

    async def _refreshed(self) -> Status:
        flight = self._flights.join(None, self._refresh)
        until = None
        if self._held is not None:
            until = flight.started + (PATIENCE_IN_OUTAGE if self._failing else PATIENCE)
        try:
            await flight.wait(until)
        except Late:
            return "STALE"
        except (UpstreamFailed, OSError):
            if self._held is not None:
                return "STALE"
            raise
        return "MISS"

    def _list(
        self, held: _Held, serialization: Serialization, compressed: bool, status: Status
    ) -> ProjectList:
        age = max(0.0, self._clock.seconds() - held.asked_at)
        remaining = 0.0 if status == "STALE" else self._remaining(held)
        return ProjectList(held.forms[serialization, compressed], status, remaining, age)

    def _remaining(self, held: _Held) -> float:
        ttl = 0.0 if held.due else min(source.ttl for source in self._sources)
        return freshness.remaining(held.asked_at, ttl, self._clock.seconds())

    async def _refresh(self) -> None:
        forgotten = self._forgotten
        asked_at = self._clock.seconds()
        writer = _Writer(self._folder())
        try:
            if len(self._sources) == 1:
                if not await self._read(self._sources[0], writer.add):
                    raise NoSuchList()
            else:
                await self._merge(writer)
            held = _Held(writer.finish(), asked_at)
        except BaseException as error:
            writer.abandon()
            if isinstance(error, (UpstreamFailed, OSError)):
                self._failing = True
                _log.warn("project list: {error}", error=error)
            raise
        self._failing = False
        if self._forgotten != forgotten:
            writer.abandon()
            return
        if self._held is not None:
            for form in self._held.forms.values():
                form.file.close()
        self._held = held

    async def _merge(self, writer: _Writer) -> None:
        runs = _Runs(self._folder())
        try:
            answers = await gatherResults(
                [
                    Deferred.fromCoroutine(settled(self._read(source, runs.add)))
                    for source in self._sources
                ],
                consumeErrors=True,
            )
            for answer in answers:
                if isinstance(answer, UpstreamFailed):
                    raise answer
            if not any(answers):
                raise NoSuchList()
            merged = runs.merged()
            while batch := list(islice(merged, BATCH)):
                writer.add(batch)
                await deferLater(self._clock, 0)
        except FirstError as error:  # one of proxpi's own, or of the disk's
            error.subFailure.raiseException()
        finally:
            runs.close()

    async def _read(self, source: Source, add: Callable[[list[str]], None]) -> bool:
        """Give the names of one index to `add`; tell whether it has a list."""
        async with self._upstream.page(source.url, {"Accept": ACCEPT}) as answer:
            if source.lacks(answer.status, source in self._served):
                return False
            source.check(answer)
            if "v2+" in (answer.header("Content-Type") or "").lower():
                cause = "it is written in version 2 of the API, which is not known here"
                raise UpstreamFailed(answer.url, cause, temporary=False)
            scanner = NameScanner()
            try:
                ended = await self._upstream.stream(
                    answer, lambda chunk: add(scanner.feed(chunk)), LIST_LIMIT, LIST_TIME
                )
                if not (scanner.complete if ended else scanner.closed):
                    cause = "it is cut short" if ended else "the answer was cut short"
                    raise UpstreamFailed(answer.url, cause, temporary=not ended)
                scanner.check()
            except NotAList as error:
                raise UpstreamFailed(answer.url, str(error), temporary=False) from error
        self._served.add(source)
        return True
