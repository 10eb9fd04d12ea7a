"""Where advisories come from: the documents below one URL, on a web server or in a folder.

A feed is laid out as the OSV database publishes one ecosystem: ``all.zip``, ``modified_id.csv`` and
``<ID>.json``. A copy of it may be a mirror (http, https) or a folder (``file:///…/``). A
:class:`Feed` reads both, so that the refresh of advisories knows neither HTTP nor disks.
"""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import attrs
from werkzeug.http import parse_date

from proxpi.local_files import is_local, path_of
from proxpi.rules.osv import ECOSYSTEM, FeedDamaged
from proxpi.simple import urls
from proxpi.single_flight import InThread
from proxpi.upstream import (
    BodyTruncated,
    BodyUnusable,
    Decoder,
    Response,
    SizeLimit,
    UpstreamClient,
    upstream_failed,
)

ARCHIVE, LISTING = "all.zip", "modified_id.csv"
#: Bytes of a document, and of the archive, whose real size is 35 MB.
DOCUMENT_LIMIT, ARCHIVE_LIMIT = SizeLimit(64 * 1024 * 1024), SizeLimit(1024 * 1024 * 1024)
#: Seconds that a document, and the archive, may take to arrive.
DOCUMENT_TIME, ARCHIVE_TIME = 60.0, 1800.0
#: Seconds between two looks at a web server, and at a folder, where one costs a system call.
WEB_INTERVAL, FOLDER_INTERVAL = 600.0, 5.0
_BLOCK = 1 << 20

#: What identifies one version of a document to its feed; empty: nothing does.
Validators = Mapping[str, str]


class DocumentMissing(FeedDamaged):
    """The feed has no document of that name."""


@attrs.frozen
class Fetched:
    """A document that was written whole, as far as that is known.

    :ivar ended: whether the transfer announced its end
    :ivar modified: its ``Last-Modified``, in seconds since the epoch, if a server stated it
    """

    validators: Validators
    ended: bool = True
    modified: float | None = None


#: Takes the bytes of a document, in chunks.
Write: TypeAlias = Callable[[bytes], object]


@attrs.define(eq=False)
class Feed:
    """The documents below one URL.

    An operator may give the URL of the database, where each ecosystem has a folder, or that of a
    folder with one ecosystem alone: the first document that is found tells.

    :ivar _places: the URLs that may be meant, each with a slash at its end
    :ivar _read: passes the document of a URL to a function
    :ivar interval: seconds between two looks at its list
    :ivar offline: whether nothing can be read from it
    """

    _places: Sequence[str] = attrs.field(repr=False)
    _read: Callable[[str, Write, Validators], Awaitable[Fetched | None]] = attrs.field(repr=False)
    interval: float
    offline: bool

    @property
    def url(self) -> str:
        """Its URL without credentials, for logs."""
        return urls.loggable(self._places[-1])

    async def fetch(self, name: str, write: Write, known: Validators) -> Fetched | None:
        """
        Pass a document, in chunks, to `write`; ``None`` if it is the known version.

        :raises DocumentMissing: if there is none
        :raises UpstreamFailed: if it cannot be fetched, or not whole
        :raises OSError: if it cannot be read, or `write` raises one
        """
        *others, last = self._places
        for place in others:
            with suppress(DocumentMissing):
                fetched = await self._read(place + name, write, known)
                self._places = [place]
                return fetched
        fetched = await self._read(last + name, write, known)
        self._places = [last]
        return fetched


def open_feed(url: str, upstream: UpstreamClient, in_thread: InThread) -> Feed:
    """Return the feed below a URL, by its scheme; or below the folder ``PyPI`` there."""
    base = url.rstrip("/") + "/"
    places = [base] if base.endswith(f"/{ECOSYSTEM}/") else [f"{base}{ECOSYSTEM}/", base]
    if is_local(base):

        async def read_file(url: str, write: Write, known: Validators) -> Fetched | None:
            return await in_thread(partial(_read_file, Path(path_of(url)), write, known))

        return Feed(places, read_file, FOLDER_INTERVAL, offline=False)
    return Feed(places, partial(_download, upstream), WEB_INTERVAL, upstream.offline)


async def _download(
    upstream: UpstreamClient, url: str, write: Write, known: Validators
) -> Fetched | None:
    async with upstream.file(url, known) as response:
        if response.status == 304 and known:
            return None
        if response.status in (404, 410):
            raise DocumentMissing(f"{urls.loggable(response.url)}: status {response.status}")
        if response.status not in (200, 203):
            raise response.status_error()
        archive = url.endswith(f"/{ARCHIVE}")
        limit = ARCHIVE_LIMIT if archive else DOCUMENT_LIMIT
        deadline = ARCHIVE_TIME if archive else DOCUMENT_TIME
        ended = await _read_body(upstream, response, write, limit, deadline)
    last_modified = response.header("Last-Modified")
    stated = {"If-None-Match": response.header("ETag"), "If-Modified-Since": last_modified}
    validators = {key: value for key, value in stated.items() if value is not None}
    date = parse_date(last_modified)
    return Fetched(validators, ended, date.timestamp() if date else None)


async def _read_body(
    upstream: UpstreamClient, response: Response, write: Write, limit: SizeLimit, deadline: float
) -> bool:
    """Read a body; return whether its end was announced."""
    try:
        if not response.codings:
            return await upstream.stream(response, write, limit, deadline)
        # It was not asked for; some servers compress nevertheless.
        decoder = Decoder(response.codings, write, limit)
        await upstream.stream(response, decoder.write, limit, deadline)
        if not decoder.ended:
            raise BodyTruncated()
    except BodyUnusable as error:
        raise upstream_failed(response.url, error) from error
    return True


def _read_file(path: Path, write: Write, known: Validators) -> Fetched | None:
    try:
        # Before it is opened: a file that is replaced meanwhile is read again the next time.
        status = path.stat()
    except FileNotFoundError:
        raise DocumentMissing(f"{path}: no such file") from None
    if not stat.S_ISREG(status.st_mode):  # a pipe would hold the thread
        raise FeedDamaged(f"{path}: no regular file")
    version = {"file": f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"}
    if known == version:
        return None
    limit = ARCHIVE_LIMIT if path.name == ARCHIVE else DOCUMENT_LIMIT
    if status.st_size > limit.size:
        raise FeedDamaged(f"{path}: larger than {limit.size} bytes")
    with open(path, "rb", buffering=0) as file:
        for block in iter(partial(file.read, _BLOCK), b""):
            write(block)
    return Fetched(version)
