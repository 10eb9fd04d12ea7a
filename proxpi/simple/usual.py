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
by itself. What comes out is the same to the byte; a property test holds that. (But for keys that
are not passed on beside those that are, ``dist-info-metadata`` beside ``core-metadata``: what these
hold is not looked at here.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import ascii_letters, digits
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from proxpi.simple import entries
from proxpi.simple.model import Lines

#: Files that are read in one go: few enough that no other thread waits for long.
BATCH = 256

_Text = Annotated[str, Meta(min_length=1)]


class _Digests(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    sha256: str


class _File(
    msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, rename="kebab", gc=False
):
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


_FILES = msgspec.json.Decoder(list[_File])
_TO_LINES = msgspec.json.Encoder().encode_lines

# What names are made of that need no quoting, and what digests and links are made of; in none of
# them is anything that JSON escapes.
_UNRESERVED = (ascii_letters + digits + "-._~").encode()
_HEX = b"0123456789abcdef"
_OF_URLS = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"#\\')
_HOST = re.compile(r"https?://[a-z0-9.-]{1,255}(?::[0-9]{1,5})?/")
_SECURE = re.compile(r"https://[a-z0-9.-]{1,255}/[!#-\[\]-~]*")
# Times as PEP 700 writes them, each with a line break before it; a leap day is unusual.
_TIMES = re.compile(
    r"(?:\n(?:19|20)[0-9]{2}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z)*+"
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
            files = _FILES.decode(b"[%b]" % b",".join(pieces[start : start + BATCH]))
            if not _are_usual(files, base):
                return None
            for file in files:
                file.dist_info_metadata = file.data_dist_info_metadata = UNSET
            names.update([file.filename for file in files])
            sized = sized and None not in [file.size for file in files]
            lines += _TO_LINES(files).splitlines()
    except (ValueError, RecursionError):
        return None
    return Lines(lines, sized) if len(names) == len(lines) else None


def _are_usual(files: Sequence[_File], base: str) -> bool:
    """Look at the texts of all of them, and at which keys they have."""
    digests = [file.hashes.sha256 for file in files]
    for file in files:
        stated = file.core_metadata
        if stated is None:
            if not (file.dist_info_metadata is UNSET and file.data_dist_info_metadata is UNSET):
                return False  # one of the older names may say something
        elif isinstance(stated, _Digests):
            digests.append(stated.sha256)
    names = _lines([file.filename for file in files])
    return (
        _are_links([file.url for file in files], base)
        and "\n." not in names
        and _consist_of(_UNRESERVED, names, len(files))
        and set(map(len, digests)) == {64}
        and _consist_of(_HEX, _lines(digests), len(digests))
        and _are_times([file.upload_time for file in files if file.upload_time])
        and all(_SECURE.fullmatch(file.provenance) for file in files if file.provenance)
    )


def _are_links(found: Sequence[str], base: str) -> bool:
    """Say whether links stand there as they will be asked for, and all lead to one host."""
    match, links = _HOST.match(found[0]), _lines(found)
    host = match[0] if match else ""
    return (
        bool(host)
        and entries.start(base, host) == host
        and links.count("\n" + host) == len(found)
        and _consist_of(_OF_URLS, links, len(found))
    )


def _are_times(found: Sequence[str]) -> bool:
    times = _lines(found)
    return times.count("\n") == len(found) and _TIMES.fullmatch(times) is not None


def _lines(texts: Iterable[str]) -> str:
    """Write texts one below the other, each with a line break before it."""
    return "\n".join(("", *texts))


def _consist_of(characters: bytes, lines: str, count: int) -> bool:
    """Say whether so many lines have no other characters. (No expression is nearly as fast.)"""
    return lines.encode().translate(None, characters) == b"\n" * count
