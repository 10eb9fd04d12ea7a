"""The base case of tests of the cache folder: 100 bytes, and threads that may wait for the test."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxpi.files import cache_dir
from proxpi.files.cache_dir import OpenFile, PartialFile, Removed
from proxpi.files.layout import RESERVED
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.support.cases import FolderCase, at_once, run, sha256

T = TypeVar("T")


def ref(name: str, data: bytes, *, host: str = "h.example", **keys: Any) -> FileReference:
    given = {"digest": ("sha256", sha256(data)), "size": len(data), "private": False, **keys}
    return FileReference(f"https://{host}/{name}", **given)


def bare(name: str, size: int | None = None) -> FileReference:
    return ref(name, b"", digest=None, size=size)


def replace(path: Path, data: bytes) -> None:
    """Replace a file as another program does."""
    other = path.with_name("other")
    other.write_bytes(data)
    os.replace(other, path)


@contextmanager
def refused(path: Path, *calls: str, number: int = errno.EACCES) -> Iterator[list[str]]:
    """Let calls of the system fail for a path and all below it; return the paths of those calls."""
    tried: list[str] = []

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(given: Any, *arguments: Any, **named: Any) -> Any:
            if not isinstance(given, int) and f"{os.fspath(given)}/".startswith(f"{path}/"):
                tried.append(os.fspath(given))
                raise OSError(number, os.strerror(number), str(given))
            return call(given, *arguments, **named)

        return calling

    with ExitStack() as patches:
        for name in calls:
            patches.enter_context(mock.patch.object(os, name, refusing(getattr(os, name))))
        yield tried


class CacheCase(FolderCase):
    """Tests of a cache folder; each byte is written as it arrives.

    :ivar held: whether threads wait for :meth:`run_threads`
    """

    def setUp(self) -> None:
        super().setUp()
        self.put(cache_dir, "BUFFER", 1)
        self.clock = Clock()
        self.host = self.folder / "h-example"
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.held = False
        self.start()

    def start(
        self, capacity: int = 100, folder: Path | None = None, *, prefetches: bool = False
    ) -> None:
        self.cache_dir = cache_folder(
            folder or self.folder,
            capacity,
            writes=self.in_thread,
            reads=self.in_thread,
            seconds=self.clock.seconds,
            prefetches=prefetches,
            wall=self.clock.seconds,
        )
        self.cache_dir.prepare()

    def in_thread(self, job: Callable[[], T]) -> Deferred[T]:
        if not self.held:
            return at_once(job)
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_thread(self) -> None:
        job, done = self.jobs.pop(0)
        at_once(job).chainDeferred(done)

    def run_threads(self) -> None:
        while self.jobs:
            self.run_thread()

    def adopt(self, partial: PartialFile, reference: FileReference) -> OpenFile | None:
        """Adopt and discard a partial file; its flush to disk waits for no other thread."""
        held, self.held = self.held, False
        adopted = run(self.cache_dir.adopt(partial, reference))
        while not adopted.called:
            self.run_thread()
        self.held = held
        self.cache_dir.discard(partial)
        outcome: list[Any] = []
        adopted.addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]  # type: ignore[no-any-return]

    def keep(
        self, name: str | FileReference, data: bytes, *, prefetched: bool = False
    ) -> FileReference:
        """Cache a file as a download does; return its reference."""
        reference = ref(name, data) if isinstance(name, str) else name
        partial = self.begin(reference, data, prefetched=prefetched)
        uncached = self.adopt(partial, reference)
        assert uncached is None
        return reference

    def begin(
        self, reference: FileReference, data: bytes = b"", *, prefetched: bool = False
    ) -> PartialFile:
        """Begin a partial file with its first bytes; it is discarded if they are refused."""
        partial = self.cache_dir.partial(reference, prefetched=lambda: prefetched)
        try:
            partial.write(data)
        except OSError:
            self.cache_dir.discard(partial)
            raise
        return partial

    def fill(self, count: int = 10, size: int = 10) -> list[FileReference]:
        """Cache files ``0.whl`` and so on."""
        return [self.keep(f"{number}.whl", bytes(size)) for number in range(count)]

    def lay(self, name: str, data: bytes, *, age: float = 0.0) -> Path:
        """Lay a file into the folder as another program does, some seconds ago."""
        path = self.host / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def open(self, reference: FileReference) -> OpenFile:
        file = self.cache_dir.open(reference)
        assert file is not None
        return file

    def content(self, reference: FileReference) -> bytes | None:
        file = self.cache_dir.open(reference)
        if file is None:
            return None
        data = file.read(0, file.size + 1)
        file.close()
        return data

    def announce(self, size: int, *, ends: bool = True) -> PartialFile:
        """Reserve the bytes of a download, which is discarded if it `ends` or is refused."""
        partial = self.cache_dir.partial(bare("new.whl", size))
        try:
            partial.reservation.announce(size)
        except OSError:
            self.cache_dir.discard(partial)
            raise
        if ends:
            self.cache_dir.discard(partial)
        return partial

    def check(self, reference: FileReference) -> bool:
        return self.begin_check(reference)()

    def begin_check(self, reference: FileReference) -> Callable[[], bool]:
        """Read a found file now; return a function that ends its check."""
        held, self.held = self.held, True
        checked = run(self.cache_dir.check(reference))
        self.held = held
        job, done = self.jobs.pop()
        outcome = at_once(job)

        def end() -> bool:
            outcome.chainDeferred(done)
            return self.result(checked)

        return end

    def delete(self, name: str | FileReference) -> None:
        path = f"h-example/{name}" if isinstance(name, str) else name.cache_path
        self.cache_dir.delete(path)

    def clear(self) -> Deferred[Removed]:
        return run(self.cache_dir.clear())

    @property
    def used(self) -> int:
        return self.cache_dir.quota.used

    def on_disk(self) -> int:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sum(
            path.stat().st_size for path in files if path.name not in ("uses.json", "places")
        )

    def names(self) -> list[str]:
        return sorted(os.listdir(self.host)) if self.host.exists() else []

    def reserved(self) -> list[str]:
        return [name for name in self.names() if name.startswith(RESERVED)]
