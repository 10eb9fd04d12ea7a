"""One request: how its answer is found, or fails; and how it is told of in the log."""

from __future__ import annotations

from io import BytesIO
from typing import cast

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from proxpi.web import answers
from proxpi.web.channel import BODY, Channel
from proxpi.web.known import Draft
from proxpi.web.line import printable
from proxpi.web.send import cut_off

_log = Logger(namespace="proxpi.web")


class Request(server.Request):
    """A request that knows when it began, and how to fail."""

    started = 0.0
    draft: Draft | None = None

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory: it is bounded, also one that does not say how long it is."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, or refuse it."""
        assert self.content is not None
        if self.content.tell() + len(data) > BODY:
            cast(Channel, self.channel).refuse_body()
        else:
            self.content.write(data)

    def process(self) -> None:
        """Begin to answer."""
        if not self.uri.startswith(b"/"):
            # A proxy is asked with the whole URL (RFC 9112 3.2.2); it is no proxy's here.
            _, _, rest = self.uri.partition(b"://")
            _, slash, path = rest.partition(b"/")
            self.uri = slash + path
            self.path = self.uri.partition(b"?")[0]
        super().process()  # type: ignore[no-untyped-call]

    def getRequestHostname(self) -> bytes:
        """
        Give a name that Klein can bind its routes to.

        It has no use for the real one, but stumbles over what some clients send.
        """
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
