"""The HTTP server: which resource answers, what is logged, and no traceback for a client."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource

from proxpi.web import answers
from proxpi.web.send import cut_off
from proxpi.web.target import in_tree

_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")

_access = Logger(namespace="proxpi.access")
_log = Logger(namespace="proxpi.web")


class Request(server.Request):
    """A request that knows when it began, and how to fail."""

    started = 0.0

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


class Site(server.Site):
    """Gives each request its resource.

    :ivar clock: tells how long a request took
    """

    requestFactory = Request
    noisy = False

    def __init__(self, tree: IResource, rest: IResource, clock: IReactorTime) -> None:
        """
        :param tree: answers what lies under ``/index/``
        :param rest: answers all else
        """
        super().__init__(rest, reactor=clock, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self._tree = tree
        self._rest = rest
        self.clock = clock

    def getResourceFor(self, request: Any) -> IResource:
        """Choose by the raw path: Klein must not see what it would decode or redirect."""
        request.site = self
        request.started = self.clock.seconds()
        if in_tree(request.path) or not _is_text(request.postpath):
            return self._tree
        # Doubled slashes count as one, here as well.
        request.postpath = [segment for segment in request.postpath if segment] or [b""]
        return self._rest

    def log(self, request: Any) -> None:
        """Write the line of the access log."""
        client = getattr(request.getClientAddress(), "host", "-")
        cache = (request.responseHeaders.getRawHeaders("X-Cache") or ["-"])[0]
        seconds = self.clock.seconds() - request.started
        # Without its query, in which people put tokens. One field, because each one costs time.
        _access.info(
            "{line}",
            line=f"{client} {printable(request.method)} {printable(request.path)} "
            f"{request.code} {request.sentLength} {cache} {seconds:.3f}s",
        )


def _is_text(segments: list[bytes]) -> bool:
    """Tell whether a path is UTF-8 once it is percent-decoded; Klein wants no other."""
    try:
        b"/".join(segments).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def printable(data: bytes) -> str:
    """Write bytes a client sent so that they cannot forge a line of a log."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))
