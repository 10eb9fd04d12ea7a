"""Resolver: from where a file comes, and what it has to be.

Where files are: the references that pages give, of files and of what lies beside them.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache
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


@attrs.frozen(eq=False)
class FileReference:
    """A file upstream, as its page states it.

    Two references are equal if they lead to the same bytes: those with the same digest and the same
    cache path (signed URLs change with each page), else those with the same URL and version.

    :ivar url: exactly as the index gave it
    :ivar digest: algorithm and hexadecimal digest that its bytes must have, if known
    :ivar size: bytes that the index states
    :ivar private: whether only proxpi may fetch it, as it is behind credentials
    :ivar metadata_of: the listed file whose advertised core metadata this is
    :ivar is_companion: whether this is the core metadata or the signature of a listed file
    :ivar version: distinguishes files without a digest at one URL, as far as the page does: by
        size, upload time and the digests of companions
    :ivar requested_as: the project and the file name under which a client requested it
    """

    url: str
    digest: tuple[str, str] | None
    size: int | None
    private: bool
    metadata_of: Listed | None = attrs.field(default=None, repr=False)
    is_companion: bool = attrs.field(default=False, repr=False)
    requested_as: tuple[str, str] | None = attrs.field(default=None, repr=False)
    version: str = attrs.field(default="", repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileReference) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        if self.digest is not None and self.cache_path is not None:
            return self.private, self.cache_path, self.digest
        return self.private, self.cache_path, self.digest, self.url, self.version

    @cached_property
    def cache_path(self) -> str | None:
        """
        Where the file lies below the cache folder, as the original proxpi has it.

        The host with each run of other characters than ``a-z0-9`` as one ``-``, then the path as it
        stands; ``None`` if that is no cache path.
        """
        parts = urlsplit(self.url)
        folder = re.sub(r"[^a-z0-9]+", "-", (parts.hostname or "").lower())
        path = "/".join([folder, *filter(None, parts.path.split("/"))])
        return path if folder not in ("", "-") and is_cache_path(path) else None

    @property
    def public_url(self) -> str:
        """The URL without credentials, for a redirect."""
        return urls.public(self.url)

    @property
    def has_digest(self) -> bool:
        """Whether the index names a digest that the bytes of the file must have."""
        return self.digest is not None

    @property
    def sha256(self) -> str | None:
        """Its SHA-256, if the index names it."""
        return self.digest[1] if self.digest and self.digest[0] == "sha256" else None


@lru_cache(maxsize=4096)
def file_reference(listed: Listed) -> FileReference:
    """Give the reference to a file that an index lists."""
    entry, digest = listed.entry, model.best_hash(listed.entry)
    version = "" if digest else _version(listed)
    return FileReference(entry["url"], digest, entry.get("size"), listed.private, version=version)


@lru_cache(maxsize=4096)
def companion_reference(listed: Listed, suffix: str) -> FileReference:
    """Give the reference to what lies beside a file; its digest if the index advertises one."""
    digest = advertised = None
    if suffix == METADATA and (hashes := model.metadata_hash(listed.entry)):
        if isinstance(hashes, dict):
            digest = model.best_hash({"hashes": hashes})
        advertised = listed
    url = urls.with_suffix(listed.entry["url"], suffix)
    version = "" if digest else _version(listed)
    return FileReference(url, digest, None, listed.private, advertised, True, version=version)


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

    def __init__(self, reference: FileReference, status: int) -> None:
        super().__init__(f"{urls.loggable(reference.url)}: status {status}")
        self.reference = reference
        self.status = status


class Listings(Protocol):
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
class Resolver:
    """The references of files, by the normalized name of the project and the name of the file."""

    _listings: Listings

    def known(self, name: str, filename: str) -> FileReference | None:
        """Give the reference of a file as far as pages at hand tell it."""
        listed = self._listings.ready_file(name, filename)
        if listed is not None:
            return file_reference(listed)
        base, suffix = _beside(filename)
        listed = self._listings.ready_file(name, base) if suffix else None
        return companion_reference(listed, suffix) if listed is not None else None

    async def find(self, name: str, filename: str) -> FileReference:
        """Give the reference of a file, asking for its page if need be."""
        base, suffix = _beside(filename)
        if not suffix:
            reference = file_reference(await self._listings.fetch_file(name, filename))
        else:
            try:
                listed = await self._listings.fetch_file(name, base)
            except NotListed:
                # Some indexes list what lies beside a file as a file of its own.
                known = self.known(name, filename)
                if known is None:
                    raise
                reference = known
            else:
                reference = self.known(name, filename) or companion_reference(listed, suffix)
        return attrs.evolve(reference, requested_as=(name, filename))

    async def again(self, name: str, filename: str, gone: Gone) -> FileReference:
        """
        Ask the page anew for the reference of a file that is gone: signed URLs expire.

        :raises Gone: if the reference is the same
        :raises NotUpstream: if there is none any more
        """
        base, _ = _beside(filename)
        await self._listings.ask_again(name, base)
        reference = self.known(name, filename)
        if reference is None:
            raise NotUpstream(filename)
        if reference.url == gone.reference.url:
            raise gone
        return attrs.evolve(reference, requested_as=(name, filename))

    async def moved(self, gone: Gone) -> FileReference:
        """Give a fresh reference to the bytes that have begun to arrive, or raise `Gone`."""
        if gone.reference.requested_as is None:
            raise gone
        try:
            reference = await self.again(*gone.reference.requested_as, gone)
        except (NotUpstream, UpstreamFailed):
            raise gone from None
        if reference.digest is None or (reference.digest, reference.cache_path) != (
            gone.reference.digest,
            gone.reference.cache_path,
        ):
            raise gone
        return reference

    async def suppress_metadata(self, name: str, reference: FileReference) -> None:
        """Let a page advertise core metadata no more that is not to be had."""
        if reference.metadata_of is not None:
            await self._listings.suppress_metadata(name, reference.metadata_of.entry["filename"])


def _beside(filename: str) -> tuple[str, str]:
    """Split the name of what lies beside a file into the file's and the suffix, if it has one."""
    for suffix in (METADATA, SIGNATURE):
        if filename.endswith(suffix):
            return filename.removesuffix(suffix), suffix
    return filename, ""
