"""Files of a JSON page that say nothing unusual, as those of a large public index do.

Theory of operation
-------------------
A page lists hundreds or thousands of files, of which hardly any is ever asked about. Where all of
them are as they are to be passed on, none becomes an object that stays: each is read into a
structure whose types say most of what ``entries`` would check, a few expressions look at the texts
of many at once, and what is kept of a file is the line that ``model.encode`` writes for it. The
object of a file is made for whoever looks at it, and its JSON for clients is that line with another
link (``render``).

If anything at all is out of the ordinary, nothing is read here, and ``entries`` looks at each file
by itself. What comes out is the same to the byte; a property test holds that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import ascii_letters, digits
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from proxpi.simple import entries
from proxpi.simple.model import Lines, to_json

#: Files whose texts are looked at in one go: few enough that no other thread waits for long.
BATCH = 256

_Text = Annotated[str, Meta(min_length=1)]


class _Digests(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"):
    """A file; its keys in the order in which ``entries`` puts them."""

    filename: _Text
    url: str
    hashes: _Digests
    core_metadata: _Digests | bool | None = None
    gpg_sig: bool | None = None
    provenance: _Text | None = None
    requires_python: _Text | None = None
    size: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    upload_time: _Text | None = None
    yanked: bool | _Text = False
    # What they say does not count beside the newest of the three names.
    dist_info_metadata: Raw | UnsetType = UNSET
    data_dist_info_metadata: Raw | UnsetType = UNSET


_FILE = msgspec.json.Decoder(_File)

# What names are made of that need no quoting, and what digests and links are made of; in none of
# them is anything that JSON escapes.
_UNRESERVED = (ascii_letters + digits + "-._~").encode()
_HEX = b"0123456789abcdef"
_OF_URLS = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"#\\')
_HOST = re.compile(r"https?://[a-z0-9.-]{1,255}(?::[0-9]{1,5})?/")
_SECURE = re.compile(r"https://[a-z0-9.-]{1,255}/[!#-\[\]-~]*")
# A time as PEP 700 writes it; a leap day is unusual.
_TIME = re.compile(
    r"(?:19|20)[0-9]{2}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
)


def read(pieces: Sequence[Raw], base: str) -> Lines | None:
    """
    Read the files of a page, or none if one of them is out of the ordinary.

    :param pieces: the JSON of each
    :param base: where the page was found
    """
    lines: list[bytes] = []
    names: set[str] = set()
    sized = True
    try:
        for start in range(0, len(pieces), BATCH):
            files = [_FILE.decode(piece) for piece in pieces[start : start + BATCH]]
            if not _are_usual(files, base):
                return None
            names.update(file.filename for file in files)
            sized = sized and all(file.size is not None for file in files)
            lines += map(_line, files)
    except (ValueError, RecursionError):
        return None
    return Lines(lines, sized) if len(names) == len(lines) else None


def _line(file: _File) -> bytes:
    file.dist_info_metadata = file.data_dist_info_metadata = UNSET
    return to_json(file)


def _are_usual(files: Sequence[_File], base: str) -> bool:
    """Look at the texts of all of them, and at which keys they have."""
    digests = [file.hashes.sha256 for file in files]
    for file in files:
        if isinstance(file.core_metadata, _Digests):
            digests.append(file.core_metadata.sha256)
        elif file.core_metadata is None and _names_metadata(file):
            return False
    return (
        _are_links([file.url for file in files], base)
        and not any(file.filename.startswith(".") for file in files)
        and _consist_of(_UNRESERVED, [file.filename for file in files])
        and {len(digest) for digest in digests} == {64}
        and _consist_of(_HEX, digests)
        and all(_TIME.fullmatch(file.upload_time) for file in files if file.upload_time)
        and all(_SECURE.fullmatch(file.provenance) for file in files if file.provenance)
    )


def _names_metadata(file: _File) -> bool:
    """Say whether one of the older names says anything, so that it would count."""
    return not (file.dist_info_metadata is UNSET and file.data_dist_info_metadata is UNSET)


def _are_links(found: Sequence[str], base: str) -> bool:
    """Say whether links stand there as they will be asked for, and all lead to one host."""
    host = _HOST.match(found[0])
    return (
        host is not None
        and entries.start(base, host[0]) == host[0]
        and all(link.startswith(host[0]) for link in found)
        and _consist_of(_OF_URLS, found)
    )


def _consist_of(characters: bytes, texts: Iterable[str]) -> bool:
    """Say whether there is nothing else in any of them. (No expression is nearly as fast.)"""
    return not "".join(texts).encode().translate(None, characters)
