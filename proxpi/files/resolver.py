"""The resolver: finds the reference of a project's file on the pages of its indexes.

A *file reference* says where a file lies upstream and what its bytes must be. The *companions* of a
listed file are its core metadata (PEP 658) and its signature (PEP 503): their URLs follow from the
file's. URLs may expire: if a file is gone, the resolver asks its page for a fresh reference.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs

from proxpi.files.layout import is_cache_path
from proxpi.local_files import is_local
from proxpi.simple import FileExcluded, ListedFile, NotListed, may_change, model, urls
from proxpi.upstream import UpstreamFailed

#: The suffixes of companions.
METADATA = ".metadata"
SIGNATURE = ".asc"


@attrs.frozen(eq=False)
class FileReference:
    """A file upstream, as its page states it.

    Two references are equal if they lead to the same bytes: those with the same digest and the same
    cache path (signed URLs change with each page), else those with the same URL and listing key.

    :ivar digest: algorithm and hexadecimal digest that its bytes must have, if known
    :ivar size: bytes that the index states
    :ivar private: whether only proxpi may fetch it, as it is behind credentials
    :ivar metadata_of: the listed file whose advertised core metadata this is
    :ivar lacks_metadata: whether it is a wheel with a sha256 and no core metadata is advertised
    :ivar listing_key: distinguishes files without a digest at one URL, as far as the page does: by
        size, upload time and the digests of companions
    :ivar may_change: whether other bytes may come under its name, as its page then says
    :ivar index: name of the index that lists it
    :ivar requested_as: project and file name of a request for it
    :ivar resolver: that of the view in which it was found
    """

    url: str
    digest: tuple[str, str] | None
    size: int | None
    private: bool
    metadata_of: ListedFile | None = attrs.field(default=None, repr=False)
    lacks_metadata: bool = attrs.field(default=False, repr=False)
    is_companion: bool = attrs.field(default=False, repr=False)
    may_change: bool = attrs.field(default=False, repr=False)
    index: str = attrs.field(default="", repr=False)
    requested_as: tuple[str, str] | None = attrs.field(default=None, repr=False)
    resolver: Resolver | None = attrs.field(default=None, repr=False)
    listing_key: str = attrs.field(default="", repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileReference) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        if self.digest is not None and self.cache_path is not None:
            return self.private, self.cache_path, self.digest
        return self.private, self.cache_path, self.digest, self.url, self.listing_key

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
    def in_folder(self) -> bool:
        """Whether it lies in a folder that is an index, and not upstream."""
        return is_local(self.url)

    @property
    def public_url(self) -> str:
        return urls.public(self.url)

    @property
    def has_digest(self) -> bool:
        return self.digest is not None

    @property
    def sha256(self) -> str | None:
        return self.digest[1] if self.digest and self.digest[0] == "sha256" else None


@lru_cache(maxsize=8192)
def file_reference(
    listed: ListedFile, suffix: str = "", resolver: Resolver | None = None
) -> FileReference:
    """The reference of a listed file or, by its suffix, of a companion, which may be advertised."""
    entry, metadata = listed.entry, model.metadata_hash(listed.entry)
    url, size, digest, advertised = entry["url"], entry.get("size"), model.best_hash(entry), False
    if suffix:
        url, size, digest = urls.with_suffix(url, suffix), None, None
        advertised = suffix == METADATA and bool(metadata)
        if advertised and isinstance(metadata, dict):
            digest = model.best_hash({"hashes": metadata})
    is_wheel = not suffix and entry["filename"].endswith(".whl")
    return FileReference(
        url,
        digest,
        size,
        listed.private,
        metadata_of=listed if advertised else None,
        lacks_metadata=is_wheel and not metadata and digest is not None and digest[0] == "sha256",
        is_companion=bool(suffix),
        may_change=not suffix and may_change(entry["filename"]),
        index=listed.index,
        requested_as=(listed.project, entry["filename"] + suffix),
        resolver=resolver,
        listing_key="" if digest else _listing_key(entry, metadata),
    )


def _listing_key(entry: dict[str, Any], metadata: object) -> str:
    digests = [each for each in (entry.get("hashes"), metadata) if isinstance(each, dict) and each]
    stated = [entry.get("size"), entry.get("upload-time"), *map(sorted, map(dict.items, digests))]
    if not any(stated):
        return ""
    return hashlib.sha256(repr(stated).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Gone(Exception):
    """The upstream has no such file, or not any more."""

    def __init__(self, reference: FileReference, status: int) -> None:
        super().__init__(f"{urls.loggable(reference.url)}: status {status}")
        self.reference = reference
        self.status = status


class MissingUpstream(Exception):
    """An index lists the file, but the upstream says that there is none."""


class ProjectPages(Protocol):
    """The pages of all indexes, as far as the resolver needs them; projects by normalized name.

    `remaining` gives the seconds for which a page stays fresh. A file is given from a page that is
    at hand; from its page, which is fetched if need be (raises `NotListed`, or `FileExcluded` for a
    file that a rule excludes); or from its page, revalidated now. A page may suppress the core
    metadata of a file, or advertise that of a wheel, by the sha256 of both.
    """

    def remaining(self, name: str) -> float: ...
    def ready_file(self, name: str, filename: str) -> ListedFile | None: ...
    async def fetch_file(self, name: str, filename: str) -> ListedFile: ...
    async def refetch_file(self, name: str, filename: str) -> ListedFile | None: ...
    async def suppress_metadata(self, name: str, filename: str) -> None: ...
    async def advertise_metadata(
        self, name: str, filename: str, wheel: str, metadata: str
    ) -> None: ...


@attrs.frozen(eq=False)
class Resolver:
    """Finds the file references of one view, by the normalized name of the project."""

    _pages: ProjectPages

    def known(self, name: str, filename: str) -> FileReference | None:
        """Find a reference on pages that are at hand."""
        # Some indexes list companions as files of their own.
        for base, suffix in ((filename, ""), _split(filename)):
            if (listed := self._pages.ready_file(name, base)) is not None:
                return file_reference(listed, suffix, self)
        return None

    def remaining(self, name: str) -> float:
        """Seconds for which the page of a project stays fresh."""
        return self._pages.remaining(name)

    async def find(self, name: str, filename: str) -> FileReference:
        """Find a reference, fetching the page if need be; raises `NotListed`."""
        base, suffix = _split(filename)
        try:
            listed = await self._pages.fetch_file(name, base)
            reference = file_reference(listed, suffix, self)
        except NotListed:
            if (known := self.known(name, filename)) is None:
                raise
            return known
        return (self.known(name, filename) if suffix else None) or reference

    async def find_again(self, name: str, filename: str, gone: Gone) -> FileReference:
        """
        Find the reference of a file that is gone on its page, revalidated now.

        :raises Gone: if the URL is the same
        :raises MissingUpstream: if the page does not list it any more
        """
        await self._pages.refetch_file(name, _split(filename)[0])
        reference = self.known(name, filename)
        if reference is None:
            raise MissingUpstream(filename)
        if reference.url == gone.reference.url:
            raise gone
        return reference

    async def find_changed(
        self, name: str, filename: str, old: FileReference, error: UpstreamFailed
    ) -> FileReference:
        """
        Find the reference of a file that has other bytes than its page says, revalidated now.

        :raises UpstreamFailed: the error that showed the other bytes, if the page does not say more
        :raises MissingUpstream: if the page does not list the file any more
        """
        await self._pages.refetch_file(name, filename)
        reference = self.known(name, filename)
        if reference is None:
            raise MissingUpstream(filename)
        if reference == old:
            raise error
        return reference

    async def suppress_metadata(self, reference: FileReference) -> None:
        """Let the page stop advertising core metadata that cannot be fetched."""
        if reference.metadata_of is not None and reference.requested_as is not None:
            name, _ = reference.requested_as
            await self._pages.suppress_metadata(name, reference.metadata_of.entry["filename"])

    async def advertise_metadata(self, wheel: FileReference, digest: str) -> None:
        """Let the page advertise core metadata that was extracted from a wheel, by its sha256."""
        assert wheel.sha256 is not None and wheel.requested_as is not None
        await self._pages.advertise_metadata(*wheel.requested_as, wheel.sha256, digest)


async def refresh_url(gone: Gone) -> FileReference:
    """Find a fresh URL of a file that has begun to arrive; raises `Gone` if there is none."""
    old = gone.reference
    if old.requested_as is None or old.resolver is None:
        raise gone
    try:
        reference = await old.resolver.find_again(*old.requested_as, gone)
    except (MissingUpstream, FileExcluded, UpstreamFailed):
        raise gone from None
    same = (reference.digest, reference.cache_path) == (old.digest, old.cache_path)
    if reference.digest is None or not same:
        raise gone
    return reference


def _split(filename: str) -> tuple[str, str]:
    """Split the name of a companion into the name of its file and its suffix."""
    for suffix in (METADATA, SIGNATURE):
        if filename.endswith(suffix):
            return filename.removesuffix(suffix), suffix
    return filename, ""
