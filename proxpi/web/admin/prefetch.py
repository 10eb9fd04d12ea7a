"""``POST /prefetch``: a client sends a lock, and gets the outcome of each file that is fetched.

The response is JSON: a line for each file once its fetch has ended, and a last line with the sums.
Pages, advertised core metadata and files are fetched as at a client's request, not in the
background: their downloads are shared with clients, verified, and admitted by the quota. While the
client does not read its lines, no further file is fetched. If it disconnects, the fetching ends,
but not the downloads under way: the cache keeps their files.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import attrs
import msgspec
from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    DeferredSemaphore,
    FirstError,
    gatherResults,
)
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from proxpi.config import DEFAULT_VIEW
from proxpi.files import Mirror, MissingUpstream, OpenFile
from proxpi.index import PageCache
from proxpi.prefetch import lock_formats, locks
from proxpi.simple import Serialization, printable
from proxpi.single_flight import InThread
from proxpi.web import responses

#: Projects, and files, that one request fetches at a time.
PARALLEL = 8
#: The most sentences about packages that no index has.
MAX_SKIPPED = 100
HEADERS = {
    "Content-Type": "application/x-ndjson",
    "X-Accel-Buffering": "no",  # so a reverse proxy passes on each line
}
USAGE = "Send a lock to /prefetch?python=3.12&platform=manylinux_2_28_x86_64, or to /prefetch?all=1"

T = TypeVar("T")


class _ListedFile(msgspec.Struct, rename="kebab"):
    filename: str
    hashes: dict[str, str]
    core_metadata: bool | dict[str, str] = False


class _Page(msgspec.Struct):
    files: list[_ListedFile]


class _OtherDigest(Exception):
    """The index, or a fetched file, has another digest than the lock."""

    def __init__(self, whose: str, digest: str | None, file: locks.LockedFile) -> None:
        stated = " or ".join(sorted(file.sha256)[:3])
        super().__init__(f"The {whose} has the sha256 {digest or 'unknown'}, the lock {stated}.")


_PAGE = msgspec.json.Decoder(_Page)


@attrs.frozen(eq=False)
class LockPrefetch:
    """Fetches the files of locks; pages and mirrors are those of each view, by its name."""

    _pages: Mapping[str, PageCache]
    _mirrors: Mapping[str, Mirror]
    _in_thread: InThread
    # Locks are read one at a time: each may need much memory meanwhile.
    _reading: DeferredLock = attrs.field(init=False, factory=DeferredLock)

    async def respond(self, request: Any) -> None:
        """
        Respond to a request; its caller ends the response.

        :raises locks.LockError: if its query or its body cannot be used
        """
        query = {
            name: values[-1].decode("utf-8", "replace") for name, values in request.args.items()
        }
        view = query.pop(b"view", DEFAULT_VIEW)
        if view not in self._pages:
            shown, known = printable(view[:100]), ", ".join(self._pages)
            raise locks.LockError(
                f"view={shown}: there is no such view; accepted is one of {known}."
            )
        target = _target(query)
        async with self._reading:  # the channel has read the whole body
            work = partial(_read, request.content.getvalue(), target)
            lock, packages = await self._in_thread(work)
        del work
        request.release_body()
        lines = _Lines(request)
        fetch = _Fetch(self._pages[view], self._mirrors[view], self._in_thread, target, lines)
        responses.set_headers(request, HEADERS)
        request.write(b"")
        request.registerProducer(lines, True)
        try:
            await _in_parallel(fetch.package, packages)
            await lines.write(fetch.summary(lock))
        finally:
            if request.channel is not None:  # else the client has left
                request.unregisterProducer()


def _read(body: bytes, target: locks.Target | None) -> tuple[locks.Lock, list[locks.Locked]]:
    lock = lock_formats.read(body)
    return lock, locks.fitting(lock, target)


def _target(query: Mapping[bytes, str]) -> locks.Target | None:
    """Read the target from the query; ``None``: all files."""
    for name in query:
        if name not in (b"python", b"platform", b"all"):
            shown = printable(name[:100].decode("utf-8", "replace"))
            raise locks.LockError(f"{shown} is no parameter here. {USAGE}.")
    if (every := query.get(b"all")) is not None:
        if every != "1" or len(query) > 1:
            raise locks.LockError(f"all=1 stands alone. {USAGE}.")
        return None
    for name in (b"python", b"platform"):
        if name not in query:
            raise locks.LockError(f"{name.decode()} is missing. {USAGE}.")
    return locks.Target.of(query[b"python"], query[b"platform"])


@attrs.define(eq=False)
class _Fetch:
    """Fetches the files of one lock, and counts the outcomes."""

    _pages: PageCache
    _mirror: Mirror
    _in_thread: InThread
    _target: locks.Target | None
    _lines: _Lines
    _limit: DeferredSemaphore = attrs.field(factory=lambda: DeferredSemaphore(PARALLEL))
    _outcomes: Counter[str] = attrs.field(init=False, factory=Counter)
    _bytes: int = attrs.field(init=False, default=0)

    async def package(self, locked: locks.Locked) -> None:
        """Fetch the page of a package, and its files."""
        wanted = locked.files or (locks.LockedFile(f"{locked.project}=={locked.version}"),)
        try:
            page = await self._pages.fetch(locked.project, Serialization.JSON, compressed=True)
            files = await self._in_thread(lambda: self._files(locked, page.body.data))
        except responses.EXPECTED as error:
            for file in wanted:
                await self._report(file.filename, "failed", 0, _sentence(error))
            return
        if not files:
            cause = (
                "The page lists no file of this version that fits and has a digest of the lock "
                "(/stats has the files that rules exclude)."
            )
            await self._report(wanted[0].filename, "failed", 0, cause)
            return

        async def fetch(pair: tuple[locks.LockedFile, _ListedFile | None]) -> None:
            async with self._limit:
                await self._file(locked.project, *pair)

        await _in_parallel(fetch, files)

    def _files(
        self, locked: locks.Locked, page: bytes
    ) -> list[tuple[locks.LockedFile, _ListedFile | None]]:
        """Return the files of a package, each as its page lists it, if it does; slow."""
        listed = {each.filename: each for each in _PAGE.decode(gzip.decompress(page)).files}
        digests = {name: each.hashes.get("sha256") for name, each in listed.items()}
        files = locked.files or locks.listed_files(locked, digests, self._target)
        return [(file, listed.get(file.filename)) for file in files]

    async def _file(self, project: str, file: locks.LockedFile, listed: _ListedFile | None) -> None:
        try:
            found = await self._whole(project, file, listed)
        except _OtherDigest as error:
            await self._report(file.filename, "failed", 0, str(error))
        except responses.EXPECTED as error:
            await self._report(file.filename, "failed", 0, _sentence(error))
        else:
            outcome = "fetched" if found.fetched else "cached"
            await self._report(file.filename, outcome, found.size)

    async def _whole(
        self, project: str, file: locks.LockedFile, listed: _ListedFile | None
    ) -> OpenFile:
        """Fetch a file with its advertised core metadata; return it, closed already."""
        names, digest = [file.filename], None
        if listed is not None:
            digest = listed.hashes.get("sha256")
            if listed.core_metadata is not False:
                names.append(f"{file.filename}.metadata")
        if file.sha256 and digest and digest not in file.sha256:
            raise _OtherDigest("index", digest, file)
        found: dict[str, OpenFile] = {}

        async def fetch(name: str) -> None:
            try:
                found[name] = await self._mirror.whole(project, name)
                found[name].close()
            except MissingUpstream:
                if name == file.filename:
                    raise  # gone metadata alone is no failure: it is advertised no longer

        await _in_parallel(fetch, names)
        whole = found[file.filename]
        if file.sha256 and whole.sha256 not in file.sha256:
            raise _OtherDigest("file", whole.sha256, file)
        return whole

    async def _report(self, file: str, outcome: str, size: int, cause: str | None = None) -> None:
        self._outcomes[outcome] += 1
        self._bytes += size
        line = {"file": file, "outcome": outcome, "bytes": size}
        await self._lines.write(line | ({"cause": printable(cause)} if cause else {}))

    def summary(self, lock: locks.Lock) -> dict[str, Any]:
        counts = {each: self._outcomes[each] for each in ("cached", "fetched", "failed")}
        sums = {"files": self._outcomes.total(), **counts, "bytes": self._bytes}
        return sums | ({"skipped": list(lock.skipped[:MAX_SKIPPED])} if lock.skipped else {})


def _sentence(error: BaseException) -> str:
    described = responses.for_error(error)
    assert described is not None
    return described[1]


async def _in_parallel(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do some work for each item, :data:`PARALLEL` at a time; a failure, or a cancel, ends all."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    workers = [Deferred.fromCoroutine(worker()) for _ in range(PARALLEL)]
    try:
        await gatherResults(workers, consumeErrors=True)
    except FirstError as error:
        for each in workers:
            each.cancel()
        error.subFailure.raiseException()


@implementer(IPushProducer)
@attrs.define(eq=False)
class _Lines:
    """Writes lines to a client, as fast as it reads them."""

    _request: Any
    # The writers that wait until the client has read the lines before; `None`: it has.
    _waiting: list[Deferred[None]] | None = attrs.field(init=False, default=None)

    async def write(self, line: dict[str, Any]) -> None:
        while self._waiting is not None:
            resumed: Deferred[None] = Deferred()
            self._waiting.append(resumed)
            await resumed
        self._request.write(msgspec.json.encode(line) + b"\n")

    def pauseProducing(self) -> None:
        if self._waiting is None:
            self._waiting = []

    def resumeProducing(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for resumed in waiting:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The client has disconnected; Klein cancels the work."""
