"""Verification: whether the bytes of a downloaded or a found file are those that an index names."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from twisted.logger import Logger
from werkzeug.http import http_date

from proxpi.files.layout import open_file
from proxpi.files.resolver import FileReference
from proxpi.local_files import Identity
from proxpi.simple import urls

#: Bytes of a found file that are read at once.
CHUNK = 1 << 20

_log = Logger(namespace="proxpi.files")


class Mismatch(Exception):
    """The bytes of a file are not those that the index names; `kind` is counted."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Digests:
    """The sha256 of `size` bytes that have arrived, and the digest that a reference states."""

    def __init__(self, stated: tuple[str, str] | None = None) -> None:
        names = {"sha256", stated[0]} if stated else {"sha256"}
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def hex(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}


class VerifiedFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file whose bytes are known.

    :ivar digests: hexadecimal digests by algorithm; there is always a ``sha256``
    :ivar url_digest: digest of the URL from which it was downloaded; empty for a found file
    :ivar listing_key: see :attr:`FileReference.listing_key`
    :ivar etag: its validators for a revalidation, if it has no digest: the entity tag, `modified`:
        the date of the last change; empty if there is none
    :ivar revalidated_at: seconds of the clock when the upstream last had this version
    """

    identity: Identity
    digests: dict[str, str]
    url_digest: str = ""
    listing_key: str = ""
    etag: str = ""
    modified: str = ""
    revalidated_at: float = 0.0

    @property
    def downloaded(self) -> bool:
        return bool(self.url_digest)

    def matches(self, reference: FileReference) -> bool:
        if reference.digest is not None:
            return self.digests.get(reference.digest[0]) == reference.digest[1]
        if self.listing_key != reference.listing_key:
            return False
        # A cache path has no port and no query: without a digest, only the URL tells files apart.
        if not self.downloaded:
            parts = urlsplit(reference.url)
            is_ambiguous = parts.query or re.search(r":\d*$", parts.netloc)
            return reference.size == self.identity.size and not is_ambiguous
        same_url = self.url_digest == digest_of_url(reference.url)
        return same_url and reference.size in (None, self.identity.size)


def digest_of_url(url: str) -> str:
    """Return a digest of a URL that shows no credentials, so that it may be written."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def compare(digests: Digests, reference: FileReference) -> None:
    """Compare a file with its reference by digest, else by size; raises `Mismatch`."""
    size, stated = digests.size, reference.size
    if reference.digest is not None:
        algorithm, expected = reference.digest
        found = digests.hex()[algorithm]
        if found != expected:
            raise Mismatch("hash", f"its {algorithm} is {found}, not {expected}")
        if stated not in (None, size):
            _log.warn(
                "{url} has {size} bytes and the right hash; the index says {stated} bytes",
                url=urls.loggable(reference.url),
                size=size,
                stated=stated,
            )
    elif stated not in (None, size):
        raise Mismatch("length", f"it has {size} bytes, not {stated}")


def check(path: Path, reference: FileReference) -> VerifiedFile | None:
    """Read a found file, and return its digests; ``None`` if it changed meanwhile."""
    digests = Digests(reference.digest)
    with open_file(path) as file:
        status = os.fstat(file.fileno())
        identity = Identity.of(status)
        while chunk := file.read(CHUNK):
            digests.add(chunk)
        with suppress(OSError):  # what is remembered of it holds after a power failure as well
            os.fsync(file.fileno())
        if identity != Identity.of(os.fstat(file.fileno())):
            return None
    # A file without a digest is revalidated by the time at which it was written.
    modified = "" if reference.has_digest else http_date(status.st_mtime)
    return VerifiedFile(
        identity, digests.hex(), listing_key=reference.listing_key, modified=modified
    )
