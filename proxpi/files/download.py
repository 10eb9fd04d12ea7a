"""One file from upstream to disk: hashed as it comes, checked, and only then given its name."""

from __future__ import annotations

from twisted.logger import Logger

from proxpi.files.disk import Copy, Disk, Mismatch
from proxpi.files.link import Link
from proxpi.files.partial import Partial
from proxpi.simple import urls
from proxpi.upstream.answer import Answer
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

#: How often a file is asked for before its failure is reported.
TRIES = 2
#: Bytes by which a file may exceed twice the size that the index states.
MARGIN = 64 * 1024 * 1024

_log = Logger(namespace="proxpi.files")


class Gone(Exception):
    """The upstream says that there is no such file, or not any more."""

    def __init__(self, link: Link, status: int) -> None:
        super().__init__(f"{urls.shown(link.url)}: status {status}")
        self.link = link
        self.status = status


async def download(link: Link, upstream: Upstream, disk: Disk) -> Copy | None:
    """
    Fetch a file.

    Wrong or short bytes are thrown away and asked for once more.

    :return: ``None`` once it is on disk; a copy without a name if it may not be kept
    :raises Gone: if the upstream has none
    :raises UpstreamFailed: if it does not come, or not right
    :raises OSError: if the disk does not take it
    """
    partial = disk.partial(link)
    try:
        for tries_left in reversed(range(TRIES)):
            try:
                await _receive(link, upstream, disk, partial)
                return disk.adopt(partial, link)
            except Mismatch as error:
                failure = UpstreamFailed(link.url, f"wrong bytes: {error}")
            except UpstreamFailed as error:
                if not error.temporary:
                    raise
                failure = error
            _log.warn(
                "{error}; {then}",
                error=failure,
                then="asking once more" if tries_left else "given up",
            )
            partial.restart()
        raise failure
    finally:
        disk.end(partial)


async def _receive(link: Link, upstream: Upstream, disk: Disk, partial: Partial) -> None:
    """Write the body of one answer, as far as the answer itself tells that it is right."""
    async with upstream.file(link.url, {"Accept": "*/*"}) as answer:
        _check_head(link, answer)
        if not (link.private or disk.fits(answer.length)):
            # Every client will be redirected: the bytes would be for nobody.
            raise UpstreamFailed(answer.url, "it is larger than the cache", temporary=False)
        ended = await upstream.stream(answer, partial.write, _limit(link, disk))
    if link.digest is not None:
        return
    # Nothing but the answer tells whether these are the bytes.
    if not ended and link.size is None:
        raise UpstreamFailed(answer.url, "the answer may be cut short")
    if partial.size == 0:
        raise UpstreamFailed(answer.url, "the answer is empty")


def _limit(link: Link, disk: Disk) -> int | None:
    """Bytes beyond which this cannot be the file, or nobody would get it from here."""
    # An index may be wrong about a size by a little; a body without end is another matter.
    by_size = 2 * link.size + MARGIN if link.size is not None else None
    if link.private:
        return by_size
    return disk.capacity if by_size is None else min(by_size, disk.capacity)


def _check_head(link: Link, answer: Answer) -> None:
    if answer.status in (403, 404, 410):
        raise Gone(link, answer.status)
    if answer.status != 200:
        raise answer.refusal()
    if link.digest is None:
        encoding = answer.header("Content-Encoding")
        if encoding is not None and encoding.strip().lower() not in ("", "identity"):
            raise UpstreamFailed(answer.url, f"it is encoded ({encoding}), unasked")
        content_type = (answer.header("Content-Type") or "").lower()
        if content_type.startswith("text/html") and not link.url.endswith((".html", ".htm")):
            raise UpstreamFailed(answer.url, "it is an HTML page", temporary=False)
