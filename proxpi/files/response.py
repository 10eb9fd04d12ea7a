"""Responses: what an upstream's response to a request for a file, or for a part, is good for.

These functions are pure: they see a link and the head of a response, and decide.

A response is *gone* (403, 404, 410), *whole* (200, 203, or a 206 of all bytes), a *part* (a 206 of
some bytes), or a refusal. A whole response is *doubtful* if it has another size than the index
states, is encoded, or says that it is a page: only a digest tells whether it is the file. Core
metadata and signatures alone are decoded; without a digest, any other encoded response is refused.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import Enum, auto

from werkzeug.http import parse_date

from proxpi.files.link import Link
from proxpi.simple import urls
from proxpi.upstream.answer import Answer, ContentRange
from proxpi.upstream.errors import UpstreamFailed

#: Statuses that say that there is no file, or not any more.
GONE = (403, 404, 410)
#: How the files of packages begin: archives, core metadata, signatures.
_BEGINNINGS = (
    b"PK\3\4",
    b"PK\5\6",
    b"\x1f\x8b",
    b"\x1f\x9d",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"MZ",
    b"Metadata-Version:",
    b"-----BEGIN PGP",
)
#: Where a tar archive says that it is one.
_TAR = slice(257, 262)


class Gone(Exception):
    """The upstream says that there is no such file, or not any more."""

    def __init__(self, link: Link, status: int) -> None:
        super().__init__(f"{urls.shown(link.url)}: status {status}")
        self.link = link
        self.status = status


class Use(Enum):
    """What a response to a request for the rest of a file is good for."""

    #: Nothing lies there; a fresh page may have another link.
    GONE = auto()
    #: It is the whole file; what arrived before is compared with it.
    WHOLE = auto()
    #: It is the rest, of the same version.
    APPEND = auto()
    #: It is of no use; the whole file is asked for.
    NONE = auto()


def use_of_rest(
    link: Link, answer: Answer, arrived: int, total: int | None, validator: str | None
) -> Use:
    """
    Decide what a response to a request for the rest of a file is good for.

    :param arrived: bytes that have arrived
    :param total: bytes that the upstream said the file has
    :param validator: what tells the version that has begun to arrive
    """
    if answer.status in GONE:
        return Use.GONE
    if is_whole(link, answer):
        return Use.WHOLE
    part, sure = ContentRange.of(answer), link.digest is None
    if part is None or part.start != arrived or not may_be_same(part.size, arrived, total):
        return Use.NONE
    # Where nobody tells how long the file is, a part may be any part of the rest.
    if sure and part.size is None and total is None:
        return Use.NONE
    return Use.APPEND if belongs(answer, validator, sure=sure) else Use.NONE


def may_be_same(size: int | None, arrived: int, total: int | None) -> bool:
    """Tell whether a version of so many bytes may be the one that has begun to arrive."""
    return size is None or (size >= arrived and total in (None, size))


def begins_as_file(data: bytes) -> bool:
    """Tell whether the first bytes, some hundreds of them, are those of a package's file."""
    return data.startswith(_BEGINNINGS) or data[_TAR] == b"ustar"


def is_whole(link: Link, answer: Answer) -> bool:
    """Tell whether an answer has all of a file: also a 206 that nobody asked for may."""
    if answer.status in (200, 203):
        return True
    part = ContentRange.of(answer)
    size = link.size if part is None or part.size is None else part.size
    return part is not None and part.start == 0 and part.stop == size


def length_of(answer: Answer) -> int | None:
    """Give the bytes of the file that an answer has all of, if it tells."""
    part = ContentRange.of(answer)
    return answer.length if part is None else part.stop


def check_head(link: Link, answer: Answer) -> bool:
    """
    Check the head of a response that should be the whole file.

    :return: whether it is doubtful, so that readers have to wait until it is verified
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if this is not the file
    """
    if answer.status in GONE:
        raise Gone(link, answer.status)
    if not is_whole(link, answer):
        raise answer.refusal()
    size, page = length_of(answer), says_page(link, answer)
    other_size = link.size is not None and size not in (None, link.size)
    if link.digest is None and answer.codings and not link.beside:
        cause = f"it is encoded ({', '.join(answer.codings)}), unasked"
        raise UpstreamFailed(answer.url, cause, kind="encoded")
    if link.digest is None and other_size and page:
        raise UpstreamFailed(answer.url, "it is an HTML page", kind="page")
    if link.digest is None and other_size:
        raise UpstreamFailed(answer.url, f"it has {size} bytes, not {link.size}", kind="length")
    return other_size or page or bool(answer.codings)


def says_page(link: Link, answer: Answer) -> bool:
    """Tell whether a response says that it is an HTML page, where the link is to another file."""
    content_type = (answer.header("Content-Type") or "").lower()
    return content_type.startswith("text/html") and not link.url.endswith((".html", ".htm"))


def validators_of(answer: Answer) -> tuple[str, str]:
    """Give the entity tag and the date of the last change, as they stand; empty if missing."""
    return answer.header("ETag") or "", answer.header("Last-Modified") or ""


def belongs(answer: Answer, validator: str | None, *, sure: bool) -> bool:
    """
    Tell whether a part is one of the version that `validator` was told of.

    :param sure: whether nothing else will tell, so that it has to be proven
    """
    if validator is None:
        return not sure
    theirs = validator_of(answer)
    if theirs is None:
        # RFC 9110 15.3.7: an answer to If-Range repeats the tag, but may leave out the date.
        repeated = answer.header("ETag") or answer.header("Last-Modified")
        return not sure or not (validator.startswith('"') or repeated)
    return theirs == validator


def validator_of(answer: Answer) -> str | None:
    """
    Give what ``If-Range`` may name: a strong entity tag, else the date of the last change.

    A date counts if the file had not changed for a second (RFC 9110 8.8.2.2).
    """
    if (answer.header("Accept-Ranges") or "").strip().lower() == "none":
        return None
    tag = (answer.header("ETag") or "").strip()
    if re.fullmatch(r'"[^"]*"', tag):
        return tag
    modified = answer.header("Last-Modified")
    at, now = parse_date(modified), parse_date(answer.header("Date"))
    return None if at and now and now - at < timedelta(seconds=1) else modified
