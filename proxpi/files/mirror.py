"""The file mirror: a file from disk, or from one download for all who ask.

Theory of operation
-------------------
A request for a file is a hit, or joins the flight of that file, or starts it. Each waiting
client has a deadline of its own, a timer of the reactor: when it comes, the client is sent
upstream, and the download goes on for the others and for the cache. A file behind credentials
has no deadline, since the client could not fetch it upstream.

When a file cannot be had, its page is asked anew first (signed URLs expire); then the client
is sent upstream, whose own word may be better, unless credentials are in the way. A failure
is not remembered: the next request tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.files.disk import Checked, Copy, Disk
from proxpi.files.download import Gone, download
from proxpi.files.link import METADATA, SIGNATURE, Link, link_beside, link_to
from proxpi.flights import Flights, Late
from proxpi.simple import urls
from proxpi.simple.listing import Listed, NotListed
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

_log = Logger(namespace="proxpi.files")


class Locate(Protocol):
    """Where files are: what the mirror needs to know of pages."""

    def ready_file(self, name: str, filename: str) -> Listed | None:
        """Give what is known of a file, without waiting."""

    async def fetch_file(self, name: str, filename: str) -> Listed:
        """Give what the page says of a file; raises `NotListed` if it is nowhere."""

    async def ask_again(self, name: str, filename: str) -> Listed | None:
        """Give what the page says after it was asked for anew."""


@attrs.frozen
class Elsewhere:
    """The client is better served at this URL, which bears no credentials."""

    url: str


@attrs.frozen
class Head:
    """What is known of a file that is not here."""

    size: int
    sha256: str | None


class NotUpstream(Exception):
    """An index lists the file, but the upstream says it is not there."""


@attrs.define(eq=False)
class Mirror:
    """The files of all indexes together.

    :ivar timeout: seconds that a client waits for a file before it is sent upstream
    :ivar in_thread: runs a function that takes a while off the reactor's thread
    """

    _locate: Locate
    _upstream: Upstream
    _disk: Disk
    _clock: IReactorTime
    timeout: float
    in_thread: Callable[[Callable[[], Checked | None]], Deferred[Checked | None]]
    _flights: Flights[Link, Copy | None] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )
    _checks: Flights[Link, None] = attrs.field(
        init=False, default=attrs.Factory(lambda self: Flights(self._clock), takes_self=True)
    )

    def ready(self, name: str, filename: str) -> Copy | None:
        """
        Give a file that is here, without waiting.

        :param name: the normalized name of the project
        """
        link = self._known(name, filename)
        return self._disk.open(link) if link is not None else None

    async def fetch(self, name: str, filename: str) -> Copy | Elsewhere:
        """
        Give a file, or a better place for it.

        :raises NotUpstream: if it is listed, but not there
        :raises UpstreamFailed: if it cannot be had and is behind credentials
        :raises OSError: if it cannot be written and is behind credentials
        """
        until = self._clock.seconds() + self.timeout
        link = await self._find(name, filename)
        failure: Exception
        try:
            try:
                return await self._obtain(link, until)
            except Gone as gone:
                link = await self._link_again(name, filename, gone)
                return await self._obtain(link, until)
        except Gone as gone:
            failure = _explained(gone)
            if isinstance(failure, NotUpstream):
                raise failure from gone
        except (UpstreamFailed, OSError) as error:
            failure = error
        if self._only_here(link):
            raise failure
        return Elsewhere(link.public_url)

    async def head(self, name: str, filename: str) -> Copy | Head:
        """
        Give a file if it is here; otherwise its length, without fetching it.

        :raises NotUpstream: if it is listed, but not there
        :raises UpstreamFailed: if its length cannot be had
        """
        link = await self._find(name, filename)
        try:
            try:
                return self._disk.open(link) or await self._length(link)
            except Gone as gone:
                link = await self._link_again(name, filename, gone)
                return self._disk.open(link) or await self._length(link)
        except Gone as gone:
            raise _explained(gone) from gone

    async def _length(self, link: Link) -> Copy | Head:
        if link.size is not None and not self._upstream.offline:
            return Head(link.size, link.sha256)
        async with self._upstream.file(link.url, {}, method="HEAD") as answer:
            if answer.status in (404, 410):
                raise Gone(link, answer.status)
            if answer.status == 200 and answer.length:
                return Head(answer.length, link.sha256)
        # Some servers have no HEAD, or none for signed URLs; the file itself tells.
        found = await self._obtain(link, None)
        if isinstance(found, Elsewhere):
            raise UpstreamFailed(link.url, "its length is not told", temporary=False)
        return found

    async def _obtain(self, link: Link, until: float | None) -> Copy | Elsewhere:
        copy = self._disk.open(link)
        if copy is not None:
            return copy
        if not (self._only_here(link) or self._disk.fits(link.size)):
            return Elsewhere(link.public_url)
        if self._disk.found(link):
            # It is here: no client is sent away while it is checked.
            await self._checks.join(link, lambda: self._check(link)).wait()
            copy = self._disk.open(link)
            if copy is not None:
                return copy
        flight = self._flights.join(link, lambda: self._bring(link))
        try:
            unkept = await flight.wait(None if self._only_here(link) else until)
        except Late:
            return Elsewhere(link.public_url)
        copy = unkept.share() if unkept is not None else self._disk.open(link)
        if copy is None:
            raise UpstreamFailed(link.url, "its copy is gone already")
        copy.fetched = True
        return copy

    def _only_here(self, link: Link) -> bool:
        """Tell whether nobody is to be sent upstream, for lack of credentials or of a network."""
        return link.private or self._upstream.offline

    async def _link_again(self, name: str, filename: str, gone: Gone) -> Link:
        """
        Ask the page anew for the link of a file that is gone: signed URLs expire.

        :raises Gone: if the link is the same
        :raises NotUpstream: if there is none any more
        :raises UpstreamFailed: if the page cannot be asked
        """
        base, _ = _beside(filename)
        await self._locate.ask_again(name, base)
        link = self._known(name, filename)
        if link is None:
            raise NotUpstream(filename)
        if link.url == gone.link.url:
            raise gone
        return link

    async def _check(self, link: Link) -> None:
        """Compare a file that lies here already with what the page says."""
        checked = await self.in_thread(lambda: self._disk.check(link))
        self._disk.trust(link, checked)

    async def _bring(self, link: Link) -> Copy | None:
        """Download a file; one that may not be kept is given as a copy without a name."""
        try:
            unkept = await download(link, self._upstream, self._disk)
        except Gone as error:
            _log.info("no such file: {error}", error=error)
            raise
        except UpstreamFailed as error:
            _log.error("file not to be had: {error}", error=error)
            raise
        except OSError as error:
            _log.error("cache folder: {error} (for {url})", error=error, url=urls.shown(link.url))
            raise
        if unkept is not None:
            # Those who wait take their share of it at once.
            self._clock.callLater(0, unkept.close)
        return unkept

    def _known(self, name: str, filename: str) -> Link | None:
        """Give the link of a file as far as pages at hand tell it."""
        listed = self._locate.ready_file(name, filename)
        if listed is not None:
            return link_to(listed)
        base, suffix = _beside(filename)
        listed = self._locate.ready_file(name, base) if suffix else None
        return link_beside(listed, suffix) if listed is not None else None

    async def _find(self, name: str, filename: str) -> Link:
        """Give the link of a file, asking for its page if need be."""
        base, suffix = _beside(filename)
        if not suffix:
            return link_to(await self._locate.fetch_file(name, filename))
        try:
            listed = await self._locate.fetch_file(name, base)
        except NotListed:
            # Some indexes list what lies beside a file as a file of its own.
            known = self._known(name, filename)
            if known is None:
                raise
            return known
        return self._known(name, filename) or link_beside(listed, suffix)


def _explained(gone: Gone) -> NotUpstream | UpstreamFailed:
    """Say what it means that a file is gone where its page, asked anew, says it is."""
    if gone.status == 403:
        return UpstreamFailed(gone.link.url, "status 403", temporary=False)
    return NotUpstream(urls.shown(gone.link.url))


def _beside(filename: str) -> tuple[str, str]:
    """Split the name of what lies beside a file into the file's and the suffix, if it has one."""
    for suffix in (METADATA, SIGNATURE):
        if filename.endswith(suffix):
            return filename.removesuffix(suffix), suffix
    return filename, ""
