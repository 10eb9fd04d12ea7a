"""The check of ``twistd proxpi --check``: one try of each dependency, and a report.

The dependencies lie outside of the process: the cache folder, each index, and each
forward proxy. It uses the parts that a start makes, which send the requests of a start. Nothing is
served, and nothing is left behind. Each try has the time limits of the settings; all run side by
side. A try *fails* if proxpi would not work with that; a *warning* names a setting that the
operator may not have meant.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Never, TypeVar

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from proxpi import quantities
from proxpi.config import IndexSettings
from proxpi.files import OWN_FOLDER, measure, try_to_write
from proxpi.index import ACCEPT
from proxpi.local_files import is_local, path_of
from proxpi.problems import disk_remedy
from proxpi.settings import Settings
from proxpi.simple import printable, urls
from proxpi.single_flight import InThread
from proxpi.upstream import Proxies, UpstreamClient, UpstreamFailed

T = TypeVar("T")
Verdict = Literal["ok", "warning", "FAILED", "skipped"]

OFFLINE = "PROXPI_OFFLINE is set: no request is sent"
_WANTS_LOGIN = "it wants credentials: user:password@ in its URL, or a line in ~/.netrc"


@attrs.frozen
class Finding:
    """The finding of a try: its object, the verdict, and a sentence."""

    tried: str
    verdict: Verdict
    text: str


@attrs.define(eq=False, kw_only=True)
class Check:
    """Tries what lies outside of the process.

    :ivar folder: the cache folder
    :ivar upstream: the client of the indexes
    :ivar to_proxies: a client that reaches the proxies themselves
    """

    _settings: Settings
    _folder: Path
    _upstream: UpstreamClient
    _proxies: Proxies
    _to_proxies: UpstreamClient
    _in_thread: InThread
    _clock: IReactorTime

    async def run(self) -> list[Finding]:
        proxies = {each.url for each in (self._proxies.http, self._proxies.https) if each}
        tries = [
            self._cache_folder(),
            *(self._index(each) for each in self._settings.indexes),
            *(self._proxy(url) for url in sorted(proxies)),
        ]
        return list(await gatherResults(map(Deferred.fromCoroutine, tries), consumeErrors=True))

    async def _cache_folder(self) -> Finding:
        tried, folder = "cache folder", printable(str(self._folder))
        if self._settings.cache_dir is None:
            folder = f"a temporary folder in {printable(str(self._folder.parent))}"
        try:
            found = await self._on_disk(lambda: _try_folder(self._folder))
        except OSError as error:
            remedy = disk_remedy(error)
            text = f"{folder}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
            return Finding(tried, "FAILED", text)
        capacity = self._settings.cache_size
        files = f"{quantities.counted(found.files, 'file')} of {quantities.size(found.used)} in it"
        facts = [
            f"{folder} can be written, {files}" if found.exists else f"{folder} can be made",
            f"PROXPI_CACHE_SIZE is {quantities.size(capacity)}" if capacity else "no file is kept",
            f"{quantities.size(found.free)} free on its disk",
        ]
        if capacity - found.used > found.free:
            text = f"{', '.join(facts)}: the disk is full before the cache is"
            return Finding(tried, "warning", text)
        return Finding(tried, "ok", ", ".join(facts))

    async def _index(self, index: IndexSettings) -> Finding:
        tried, url = f"index {index.name}", urls.public(index.url)
        if is_local(index.url):
            return await self._folder_index(tried, index.url)
        if self._upstream.offline:
            return Finding(tried, "skipped", f"{url}: {OFFLINE}")
        began = self._clock.seconds()
        try:
            async with self._upstream.page(index.url, {"Accept": ACCEPT}) as response:
                took = quantities.duration(self._clock.seconds() - began)
                status, sender = response.status, response.url
        except UpstreamFailed as error:
            return Finding(tried, "FAILED", printable(str(error)))
        proxy = self._proxies.to(urls.origin(index.url))
        private = self._upstream.credentials.protects(index.url)
        facts = [f"status {status} after {took}"]
        if sender != url:
            facts.append(f"redirected to {printable(urls.loggable(sender))}")
        if urls.origin(sender).scheme == "https":
            verified = not self._settings.disable_index_ssl_verification
            facts.append("certificate verified" if verified else "certificate NOT verified")
        if proxy is not None:
            facts.append(f"through {proxy.name}")
        if status in (401, 403):
            facts.append("it rejects the credentials" if private else _WANTS_LOGIN)
        elif status in (404, 410):
            facts.append("is this the root of an index?")
        elif private and status == 200:
            facts.append("credentials accepted")
        return Finding(tried, "ok" if status == 200 else "FAILED", f"{url}: {', '.join(facts)}")

    async def _folder_index(self, tried: str, url: str) -> Finding:
        def count() -> int:
            with os.scandir(path_of(url)) as entries:
                return sum(1 for _ in entries)

        try:
            found = await self._on_disk(count)
        except OSError as error:
            return Finding(tried, "FAILED", f"{url}: {error.strerror or error}")
        return Finding(
            tried, "ok", f"{url}: a folder with {quantities.counted(found, 'entry', 'entries')}"
        )

    async def _proxy(self, url: str) -> Finding:
        if self._to_proxies.offline:
            return Finding("proxy", "skipped", f"{url}: {OFFLINE}")
        began = self._clock.seconds()
        try:
            # The request is for the proxy itself: any response shows that it runs.
            async with self._to_proxies.page(f"{url}/", {}):
                pass
        except UpstreamFailed as error:
            if error.scope == "connection":
                return Finding("proxy", "FAILED", printable(str(error)))
            return Finding("proxy", "ok", f"{url}: it takes connections")
        took = quantities.duration(self._clock.seconds() - began)
        return Finding("proxy", "ok", f"{url}: it responds after {took}")

    def _on_disk(self, job: Callable[[], T]) -> Deferred[T]:
        """Run a job in a thread; fail with an `OSError` also if the disk hangs."""
        limit = self._settings.read_timeout

        def fail(result: object, seconds: float) -> Never:
            raise OSError(f"the disk has not responded for {quantities.duration(seconds)}")

        return self._in_thread(job).addTimeout(limit, self._clock, fail)


@attrs.frozen
class _Found:
    """A folder that can be written, or made; sizes in bytes."""

    exists: bool
    files: int
    used: int
    free: int


def _try_folder(folder: Path) -> _Found:
    """Write to a folder as a start does, or raise `OSError`."""
    nearest = _existing(folder)
    free = shutil.disk_usage(nearest).free
    if nearest != folder:
        _require_writable(nearest)
        return _Found(False, 0, 0, free)
    own = folder / OWN_FOLDER
    is_made = not own.exists()
    if is_made:
        own.mkdir()
    try:
        try_to_write(own, folder)
    finally:
        if is_made:
            own.rmdir()
    return _Found(True, *measure(folder), free)


def _existing(folder: Path) -> Path:
    """Return a folder itself, or the parent that exists."""
    return next(each for each in (folder, *folder.parents) if os.path.lexists(each))


def _require_writable(folder: Path) -> None:
    """Raise an `OSError` if nothing can be made in a folder."""
    number = 0
    if not folder.is_dir():
        number = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise OSError(number, os.strerror(number), str(folder))


def report(settings: Settings, warnings: Sequence[str], findings: Sequence[Finding]) -> str:
    """Write settings and findings as a table, in lines of printable characters."""
    rows = [
        *(Finding("setting", "warning", text) for text in map(printable, warnings)),
        *findings,
    ]
    failed = sum(row.verdict == "FAILED" for row in rows)
    end = f"{failed} of {len(findings)} tries FAILED" if failed else "nothing FAILED"
    stated = [each for each in settings.in_force if each.source != "default"]
    others = len(settings.in_force) - len(stated)
    lines = [
        *_columns([(each.variable, each.source, each.value) for each in stated]),
        f"{others} settings have their defaults (twistd proxpi --help shows them)",
        "",
        *_columns([(row.tried, row.verdict, row.text) for row in rows]),
        "",
        end,
    ]
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    first = max((len(row[0]) for row in rows), default=0)
    second = max((len(row[1]) for row in rows), default=0)
    for row in rows:
        yield f"{row[0]:{first}}  {row[1]:{second}}  {row[2]}".rstrip()
