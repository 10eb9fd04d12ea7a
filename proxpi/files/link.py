"""Links: from where a file comes, and what it has to be."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import urlsplit

import attrs

from proxpi.files.layout import is_cache_path
from proxpi.simple import model, urls
from proxpi.simple.listing import Listed

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
