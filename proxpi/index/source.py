"""One upstream index: how it is asked, and what its answers mean.

The protocol is the Simple Repository API (PEP 503, PEP 691). JSON is asked for first; HTML is
understood as well. Which status means "not here" and which means trouble is decided here and
nowhere else: an index that fails must never look like one that lacks a project.
"""

from __future__ import annotations

import zlib
from codecs import BOM_UTF8
from typing import Literal

import attrs
from twisted.logger import Logger

from proxpi.simple import freshness, model, parse, urls
from proxpi.upstream.answer import Answer
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
#: Seconds for which "no such project" is believed, whatever the time to live.
ABSENT_TTL = 60.0
#: The newest minor version of the API that is understood in full.
KNOWN_MINOR = 4

_log = Logger(namespace="proxpi.index")


@attrs.frozen
class Held:
    """What one index last said of one project.

    :ivar document: the encoded project, compressed; ``None`` means that it has no such project
    :ivar asked_at: the clock's seconds when it was asked for
    :ivar how: ``"200"`` for a new answer, ``"304"`` for an old one that was confirmed
    :ivar due: whether it is to be asked for again however fresh it is
    """

    document: bytes | None
    asked_at: float
    etag: str | None = None
    last_modified: str | None = None
    how: Literal["200", "304"] = "200"
    due: bool = False

    @classmethod
    def of(cls, project: model.Project, asked_at: float, answer: Answer) -> Held:
        """Keep a parsed page as small as may be: thousands of these are held at once."""
        return cls(
            zlib.compress(model.encode(project), 1),
            asked_at,
            answer.header("ETag"),
            answer.header("Last-Modified"),
        )

    def project(self) -> model.Project | None:
        """Give back the page."""
        return model.decode(zlib.decompress(self.document)) if self.document else None

    def entry(self, filename: str) -> model.Entry | None:
        """Give what the page says of one file."""
        return model.find(zlib.decompress(self.document), filename) if self.document else None


@attrs.define(eq=False)
class Source:
    """An index that is asked for projects.

    :ivar url: its root, with a trailing slash, maybe with credentials
    :ivar ttl: seconds for which a page of it stays fresh
    """

    url: str = attrs.field(repr=urls.public)
    ttl: float
    _upstream: Upstream
    _warned: bool = attrs.field(init=False, default=False)

    @property
    def private(self) -> bool:
        """Whether it is asked with credentials."""
        return self._upstream.credentials.header_for(self.url) is not None

    def guards(self, url: str) -> bool:
        """Whether a client could not fetch a file of this index from upstream by itself."""
        return self.private or self._upstream.credentials.header_for(url) is not None

    def remaining(self, held: Held | None) -> float:
        """Seconds for which an answer still counts as fresh."""
        if held is None or held.due:
            return 0.0
        ttl = self.ttl if held.document is not None else min(self.ttl, ABSENT_TTL)
        return freshness.remaining(held.asked_at, ttl, self._upstream.clock.seconds())

    async def project(self, name: str, held: Held | None) -> Held:
        """
        Ask for the page of a project.

        :param name: the normalized name
        :param held: what it said before, to be confirmed if it has not changed
        :raises UpstreamFailed: if it gives no answer that means anything
        """
        asked_at = self._upstream.clock.seconds()
        headers = {"Accept": ACCEPT}
        if held is not None and held.document is not None:
            if held.etag is not None:
                headers["If-None-Match"] = held.etag
            if held.last_modified is not None:
                headers["If-Modified-Since"] = held.last_modified
        async with self._upstream.page(f"{self.url}{name}/", headers) as answer:
            if answer.status == 304 and held is not None and len(headers) > 1:
                return attrs.evolve(held, asked_at=asked_at, how="304", due=False)
            served = held is not None and held.document is not None
            if self.lacks(answer.status, served):
                return Held(None, asked_at)
            self.check(answer)
            body, ended = await self._upstream.body(answer)
        content_type = answer.header("Content-Type")
        try:
            project = parse.parse_project(body, content_type, answer.url, name)
        except parse.NotAnIndexPage as error:
            # An end that nobody announced may have been none.
            raise UpstreamFailed(answer.url, error.reason, temporary=not ended) from error
        if not ended and _is_html(body) and not parse.is_complete_html(body):
            raise UpstreamFailed(answer.url, "the answer was cut short")
        self._note_version(project.version)
        return Held.of(project, asked_at, answer)

    def lacks(self, status: int, served: bool) -> bool:
        """
        Tell whether a status means "not here".

        An object store answers 403 for what it has not, to those without credentials; from an
        index that has credentials, or that served the page before, it means a lost permission.
        """
        return status in (404, 410) or (status == 403 and not self.private and not served)

    def check(self, answer: Answer) -> None:
        """
        Accept nothing but a plain success.

        :raises UpstreamFailed: for every other status
        """
        if answer.status == 200:
            return
        if answer.status in (401, 403):
            _log.error(
                "credentials rejected by {url} (status {status})",
                url=urls.shown(answer.url),
                status=answer.status,
            )
        raise answer.refusal()

    def _note_version(self, version: str) -> None:
        minor = int(version.partition(".")[2] or 0)
        if minor > KNOWN_MINOR and not self._warned:
            self._warned = True
            _log.warn(
                "{url} speaks version {version} of the API; what is new since 1.{known} is ignored",
                url=urls.shown(self.url),
                version=version,
                known=KNOWN_MINOR,
            )


def _is_html(body: bytes) -> bool:
    return body.removeprefix(BOM_UTF8).lstrip().startswith(b"<")
