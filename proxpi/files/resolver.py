"""Links: from where a file comes, and what it has to be.

Where files are: the links that pages give, of files and of what lies beside them.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

import attrs

from proxpi.files.layout import is_cache_path
from proxpi.simple import model, urls
from proxpi.simple.model import Listed, NotListed
from proxpi.upstream.errors import UpstreamFailed

#: What may lie beside a listed file: its core metadata (PEP 658) and its signature (PEP 503).
METADATA = ".metadata"
SIGNATURE = ".asc"


@attrs.frozen
class Link:
    """A file upstream.

    Two links are equal if they lead to the same bytes: those with the same hash and the same place
    in the cache, as signed URLs have that change with each page, else those with the same URL and
    version.

    :ivar url: where it is, exactly as the index gave it
    :ivar digest: algorithm and hexadecimal digest that its bytes must have, if known
    :ivar size: bytes that the index says it has
    :ivar private: whether only proxpi may fetch it, being behind credentials
    :ivar of: the listed file whose advertised core metadata this is; ``None`` for anything else
    :ivar beside: whether this is core metadata or a signature
    :ivar version: what tells a file without a digest from another one at the same URL, as far as
        the page says anything: its size, its upload time, and the digests of what lies beside it
    :ivar requested_as: the project and the file name under which a client requested it
    :ivar place: where it lies below the cache folder; ``None`` if it cannot lie there
    """

    url: str = attrs.field(eq=False)
    digest: tuple[str, str] | None
    size: int | None = attrs.field(eq=False)
    private: bool
    of: Listed | None = attrs.field(default=None, eq=False, repr=False)
    beside: bool = attrs.field(default=False, eq=False, repr=False)
    requested_as: tuple[str, str] | None = attrs.field(default=None, eq=False, repr=False)
    version: str = attrs.field(default="", eq=False, repr=False)
    place: str | None = attrs.field(
        init=False, default=attrs.Factory(lambda self: _place(self.url), takes_self=True)
    )
    _only: str | None = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(
            lambda self: None if self.digest and self.place else f"{self.url} {self.version}",
            takes_self=True,
        ),
    )

    @property
    def public_url(self) -> str:
        """Where a client may be sent: without credentials."""
        return urls.public(self.url)

    @property
    def has_digest(self) -> bool:
        """Whether the index names a digest that the bytes of the file must have."""
        return self.digest is not None

    @property
    def sha256(self) -> str | None:
        """Its SHA-256, if the index tells."""
        return self.digest[1] if self.digest and self.digest[0] == "sha256" else None


def _place(url: str) -> str | None:
    """
    Say where the file of a URL lies below the cache folder, as the original proxpi has it.

    The host with each run of other characters than ``a-z0-9`` as one ``-``, then the path
    as it stands. ``None`` if that is no cache path.
    """
    parts = urlsplit(url)
    folder = re.sub(r"[^a-z0-9]+", "-", (parts.hostname or "").lower())
    segments = [segment for segment in parts.path.split("/") if segment]
    if folder in ("", "-"):
        return None
    place = "/".join([folder, *segments])
    return place if is_cache_path(place) else None


@lru_cache(maxsize=4096)
def link_to(listed: Listed) -> Link:
    """Give the link to a file that an index lists."""
    entry, digest = listed.entry, model.best_hash(listed.entry)
    version = "" if digest else _version(listed)
    return Link(entry["url"], digest, entry.get("size"), listed.private, version=version)


@lru_cache(maxsize=4096)
def link_beside(listed: Listed, suffix: str) -> Link:
    """Give the link to what lies beside a file; its digest if the index advertises one."""
    digest = advertised = None
    if suffix == METADATA and (hashes := model.metadata_hash(listed.entry)):
        if isinstance(hashes, dict):
            digest = model.best_hash({"hashes": hashes})
        advertised = listed
    url = urls.with_suffix(listed.entry["url"], suffix)
    version = "" if digest else _version(listed)
    return Link(url, digest, None, listed.private, advertised, True, version=version)


def _version(listed: Listed) -> str:
    """Give what the page says of the version of a file, and so of what lies beside it."""
    entry, metadata = listed.entry, model.metadata_hash(listed.entry)
    digests = [each for each in (entry.get("hashes"), metadata) if isinstance(each, dict) and each]
    told = [
        entry.get("size"),
        entry.get("upload-time"),
        *(sorted(each.items()) for each in digests),
    ]
    if not any(told):
        return ""
    return hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Gone(Exception):
    """The upstream says that there is no such file, or not any more."""

    def __init__(self, link: Link, status: int) -> None:
        super().__init__(f"{urls.loggable(link.url)}: status {status}")
        self.link = link
        self.status = status


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
