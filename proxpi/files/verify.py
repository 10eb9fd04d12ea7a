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

from proxpi.files.layout import Identity, open_file
from proxpi.files.partial import BUFFER, Digests
from proxpi.files.resolver import FileReference
from proxpi.simple import urls

_log = Logger(namespace="proxpi.files")


class Mismatch(Exception):
    """The bytes of a file are not those that the index names; its text says how.

    :ivar kind: one word for it, by which it is counted
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Checked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file whose bytes are known.

    :ivar digests: hexadecimal digests by algorithm; there is always a ``sha256``
    :ivar url_digest: digest of the URL from which it was downloaded; empty for a found file
    :ivar version: that of the reference, see :attr:`FileReference.version`
    :ivar etag: what the upstream said of it, as far as it has no digest: its entity tag,
        `modified`: the date of its last change; empty if there is none
    :ivar confirmed_at: seconds of the clock when the upstream last had this version
    """

    identity: Identity
    digests: dict[str, str]
    url_digest: str = ""
    version: str = ""
    etag: str = ""
    modified: str = ""
    confirmed_at: float = 0.0

    @property
    def downloaded(self) -> bool:
        """Whether the file was downloaded by this cache, not found."""
        return bool(self.url_digest)

    def suits(self, reference: FileReference) -> bool:
        """Tell whether this is the file of a reference."""
        if reference.digest is not None:
            return self.digests.get(reference.digest[0]) == reference.digest[1]
        if self.version != reference.version:
            return False
        # Port and query are not in the name: without a hash, only the URL tells files apart.
        if not self.downloaded:
            return reference.size == self.identity.size and not _has_more_than_its_name(
                reference.url
            )
        return self.url_digest == digest_of_url(reference.url) and reference.size in (
            None,
            self.identity.size,
        )


def digest_of_url(url: str) -> str:
    """Give a digest of a URL, which may be written down: it does not show credentials."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _has_more_than_its_name(url: str) -> bool:
    """Tell whether other files may have the same name in the cache: it has no port, no query."""
    parts = urlsplit(url)
    return bool(parts.query or re.search(r":\d*$", parts.netloc))


def compare(size: int, digests: dict[str, str], reference: FileReference) -> None:
    """Compare with what the index names, by the best hash, else by size; raises `Mismatch`."""
    if reference.digest is not None:
        algorithm, expected = reference.digest
        if digests[algorithm] != expected:
            raise Mismatch("hash", f"its {algorithm} is {digests[algorithm]}, not {expected}")
        if reference.size is not None and size != reference.size:
            _log.warn(
                "{url} has {size} bytes and the right hash; the index says {stated} bytes",
                url=urls.loggable(reference.url),
                size=size,
                stated=reference.size,
            )
    elif reference.size is not None and size != reference.size:
        raise Mismatch("length", f"it has {size} bytes, not {reference.size}")


def check(path: Path, reference: FileReference) -> Checked | None:
    """Read a found file, and give its digests; ``None`` if it changed meanwhile."""
    digests = Digests.of(reference.digest)
    with open_file(path) as file:
        status = os.fstat(file.fileno())
        identity = Identity.of(status)
        while chunk := file.read(BUFFER):
            digests.add(chunk)
        with suppress(OSError):  # what is remembered of it holds after a power failure as well
            os.fsync(file.fileno())
        if identity != Identity.of(os.fstat(file.fileno())):
            return None
    # A file without a digest is revalidated by the time at which it was written.
    modified = "" if reference.has_digest else http_date(status.st_mtime)
    return Checked(identity, digests.hex(), version=reference.version, modified=modified)
