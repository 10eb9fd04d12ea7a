"""One request as Twisted has it, with the errors of proxpi."""

from __future__ import annotations

from io import BytesIO

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from proxpi.web import answers
from proxpi.web.access_log import printable
from proxpi.web.response_cache import Cacheable
from proxpi.web.send import cut_off

_log = Logger(namespace="proxpi.web")


class Request(server.Request):
    """A request.

    :ivar started: in seconds of the clock
    :ivar cacheable: what the response cache may store of its response
    :ivar too_large: whether its body is longer than anything reads
    """

    started = 0.0
    cacheable: Cacheable | None = None
    too_large = False

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory: the channel bounds it."""
        self.content = BytesIO()

    def process(self) -> None:
        """Begin to answer."""
        if self.uri == b"*":
            self.uri = self.path = b"/"
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        """Give a name that Klein can bind its routes to: it fails on some that clients send."""
        return b"proxpi"

    def processingFailed(self, reason: Failure) -> Failure:
        """Log an error of proxpi's own, and say no more of it than that."""
        _log.failure("while answering {path}", failure=reason, path=printable(self.path))
        if self.channel is None:
            return reason  # the client is gone
        if self.startedWriting:
            # A body that breaks off must not look like one that is whole.
            cut_off(self)
        else:
            text = "Something is wrong with proxpi itself; its log says more."
            answers.finish(self, answers.line(self, 500, text))
        return reason
