"""Where files are: the links that pages give, of files and of what lies beside them."""

from __future__ import annotations

from typing import Protocol

import attrs

from proxpi.files.link import METADATA, SIGNATURE, Link, link_beside, link_to
from proxpi.files.response import Gone
from proxpi.simple.listing import Listed, NotListed
from proxpi.upstream.errors import UpstreamFailed


class Locate(Protocol):
    """Where files are: what the mirror needs to know of pages."""

    def ready_file(self, name: str, filename: str) -> Listed | None:
        """Give what is known of a file, without waiting."""

    async def fetch_file(self, name: str, filename: str) -> Listed:
        """Give what the page says of a file; raises `NotListed` if it is nowhere."""

    async def ask_again(self, name: str, filename: str) -> Listed | None:
        """Give what the page says after it was asked for anew."""

    async def suppress_metadata(self, name: str, filename: str) -> None:
        """Let the page advertise no core metadata of a file any more: there is none."""


class NotUpstream(Exception):
    """An index lists the file, but the upstream says it is not there."""


@attrs.frozen(eq=False)
class Links:
    """The links of files, by the normalized name of the project and the name of the file."""

    _locate: Locate

    def known(self, name: str, filename: str) -> Link | None:
        """Give the link of a file as far as pages at hand tell it."""
        listed = self._locate.ready_file(name, filename)
        if listed is not None:
            return link_to(listed)
        base, suffix = _beside(filename)
        listed = self._locate.ready_file(name, base) if suffix else None
        return link_beside(listed, suffix) if listed is not None else None

    async def find(self, name: str, filename: str) -> Link:
        """Give the link of a file, asking for its page if need be."""
        base, suffix = _beside(filename)
        if not suffix:
            link = link_to(await self._locate.fetch_file(name, filename))
        else:
            try:
                listed = await self._locate.fetch_file(name, base)
            except NotListed:
                # Some indexes list what lies beside a file as a file of its own.
                known = self.known(name, filename)
                if known is None:
                    raise
                link = known
            else:
                link = self.known(name, filename) or link_beside(listed, suffix)
        return attrs.evolve(link, requested_as=(name, filename))

    async def again(self, name: str, filename: str, gone: Gone) -> Link:
        """
        Ask the page anew for the link of a file that is gone: signed URLs expire.

        :raises Gone: if the link is the same
        :raises NotUpstream: if there is none any more
        """
        base, _ = _beside(filename)
        await self._locate.ask_again(name, base)
        link = self.known(name, filename)
        if link is None:
            raise NotUpstream(filename)
        if link.url == gone.link.url:
            raise gone
        return attrs.evolve(link, requested_as=(name, filename))

    async def moved(self, gone: Gone) -> Link:
        """Give a fresh link to the same bytes as those that arrived already, or raise `Gone`."""
        if gone.link.requested_as is None:
            raise gone
        try:
            link = await self.again(*gone.link.requested_as, gone)
        except (NotUpstream, UpstreamFailed):
            raise gone from None
        if link.digest is None or (link.digest, link.place) != (gone.link.digest, gone.link.place):
            raise gone
        return link

    async def suppress_metadata(self, name: str, link: Link) -> None:
        """Let a page advertise core metadata no more that is not to be had."""
        if link.of is not None:
            await self._locate.suppress_metadata(name, link.of.entry["filename"])


def _beside(filename: str) -> tuple[str, str]:
    """Split the name of what lies beside a file into the file's and the suffix, if it has one."""
    for suffix in (METADATA, SIGNATURE):
        if filename.endswith(suffix):
            return filename.removesuffix(suffix), suffix
    return filename, ""
