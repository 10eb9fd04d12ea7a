"""One connection of a client: how long it may take, and how much it may bring.

* A whole request, from its first byte (or from the connection's beginning) to its last, has to
  come within :data:`HEAD` seconds, however it is spread over them.
* Between two requests a connection may be silent for :data:`IDLE` seconds.
* A client that takes nothing of what is sent for a minute is dropped, and one that asks without
  taking the answers is not read from, nor is what it has asked answered.
* A request's body, for which nothing here has much use, has at most :data:`BODY` bytes.

What was answered from the cache before is answered again without all this, as
:mod:`proxpi.web.known` has it: on a plain TCP connection, if nothing is under way on it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web.http import NOT_MODIFIED, HTTPChannel
from twisted.web.http_headers import Headers

from proxpi.web import direct
from proxpi.web.heads import Question, question
from proxpi.web.known import Answer
from proxpi.web.line import described
from proxpi.web.send import LOOK, Uptake

#: Seconds for a whole request to come.
HEAD = 30.0
#: Seconds between two requests; longer than what is in front of a server keeps its connections.
IDLE = 75.0
#: Bytes that the body of a request may have.
BODY = 64 * 1024

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Channel(HTTPChannel):
    """Parses requests one after the other, and no faster than their answers are taken.

    :ivar admitted: whether there is room for more than refusals
    :ivar uptake: whether the client takes what it is sent
    :ivar closed_at: when it was told to close for a shutdown, in seconds of the clock
    :ivar client: the client's address, for the log
    """

    site: Any
    transport: Any
    admitted = True
    uptake: Uptake
    closed_at: float | None = None
    client = "-"
    #: Whether ready answers can be handed to the socket itself.
    _plain = False
    #: Whether Twisted's parser has something of a request, or a request that is not done.
    _parsing = False
    #: What is asked on it now, if the answer may be kept.
    _question: Question | None = None
    #: When its timer rings.
    _rings = 0.0
    #: Whether a request is due: some of it has come, or nothing at all since the beginning.
    _due = True
    _until = 0.0
    _refused = False

    def connectionMade(self) -> None:
        """See `IProtocol`."""
        self.timeOut = HEAD  # type: ignore[assignment]
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.uptake = Uptake(self.transport, self.site.clock)
        self.client = getattr(self.transport.getPeer(), "host", None) or "-"
        self._plain = isinstance(self.transport, Connection) and not ISSLTransport.providedBy(
            self.transport
        )
        self._until = self.site.clock.seconds() + HEAD
        self.admitted = self.site.enter(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See `IProtocol`."""
        self.site.leave(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        """Do nothing: with a byte now and then, a request would never have to be whole."""

    def setTimeout(self, period: float | None) -> float | None:
        """Set the timer, and note when it rings."""
        self._rings = self.site.clock.seconds() + (period or 0.0)
        return super().setTimeout(period)  # type: ignore[no-untyped-call, no-any-return]

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        if self._parsing or not self._may_give():
            self._parse(data)
            return
        now, known, asked = self.site.clock.seconds(), self.site.known, None
        answer = known.find(data, now)
        if answer is None:
            asked = question(data)
            answer = known.ask(asked, now) if asked is not None else None
        if answer is None:
            self._parse(data, asked)
            return
        self._give(answer, now)
        if asked is not None:
            known.recognize(data, answer)  # not before: to make room, it may have to go itself

    def _may_give(self) -> bool:
        """Tell whether a ready answer could be handed to the socket now, as far as that goes."""
        transport = self.transport
        return bool(
            self._plain
            and self.persistent
            and self.admitted
            and not (self.site.draining or transport.disconnecting)
            # With anything in either, it would come before what was to come first.
            and not (transport.dataBuffer or transport._tempDataBuffer)
        )

    def _give(self, answer: Answer, now: float) -> None:
        """Give a ready answer to a request that nobody has parsed."""
        head = answer.head(now)
        try:
            sent = direct.give(self.transport.socket, head, answer)
        except OSError:
            self.transport.abortConnection()
            return
        if sent == len(head) + answer.size:
            self.site.given(self, answer)
            self._due = False
            self._until = now + IDLE
            if self._rings > now + LOOK:  # whether the client takes it
                self.setTimeout(LOOK)
        else:
            # As Twisted has it for a request that is being answered.
            self._savedTimeOut = self.setTimeout(None)
            self._handlingRequest = self._parsing = True
            self.setRawMode()  # type: ignore[no-untyped-call]
            rest = direct.Rest(self, answer, now)
            self.requests[:] = [rest]
            self.site.busy.add(self)
            rest.begin(head, sent, self.site.clock)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write a head; and keep the answer that it begins, if it may be kept."""
        sequence = [version, b" ", code, b" ", reason, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                sequence.extend((name, b": ", value, b"\r\n"))
        sequence.append(b"\r\n")
        request = self.requests[0]
        draft = request.draft
        if draft is not None and self._question is not None:
            if request.method == b"HEAD" or request.code == NOT_MODIFIED:
                draft = draft.bare()
            line = described(request.method, request.path, request.code, draft.size, "HIT")
            self.site.known.learn(self._question, b"".join(sequence), line, draft)
        self.transport.writeSequence(sequence)

    def _parse(self, data: bytes, asked: Question | None = None) -> None:
        self._parsing = self._parsing or bool(data)
        self._question = asked
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._waitingForTransport:
            # Twisted would go on reading, and keep what it must not answer yet.
            self._networkProducer.pauseProducing()
        self._await_request()

    def _await_request(self) -> None:
        """Set the timer for the rest of a request once some of it is here."""
        if not (self._due or self._handlingRequest) and (self.requests or self._buffer):
            self._due = True
            self._until = self.site.clock.seconds() + HEAD
            # Soon, because this may as well be a client that does not take its answers.
            self.setTimeout(LOOK)

    def allHeadersReceived(self) -> None:
        """Refuse a body that is too large before any of it is asked for or kept."""
        if self.length is not None and self.length > BODY:
            self.refuse_body()
        else:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def refuse_body(self) -> None:
        """Answer that a body is too large, and close."""
        if not self._refused:
            self._refused = True
            self.transport.write(_TOO_LARGE)
            self.loseConnection()  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        """Take a part of a body, unless there has been too much of it."""
        if not self._refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Begin to answer a request that has come whole."""
        if not self._refused:
            self._due = False
            self.site.busy.add(self)
            super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        """Go on with the next request, if the client takes the answers."""
        self.site.busy.discard(self)
        self._until = self.site.clock.seconds() + IDLE
        self._savedTimeOut = LOOK
        if self.site.draining:
            self.persistent = True  # closed once the client has all of it: see `Site.drain`
        # Nor is what has been read already parsed: a packet may hold a thousand requests.
        self.paused = self._waitingForTransport or self.site.draining
        # What was kept meanwhile comes now, and may be a head that is known.
        self._parsing = bool(self._buffer)
        super().requestDone(request)  # type: ignore[no-untyped-call]
        self._parsing = bool(self._buffer or self.requests)
        if not self.persistent:
            # It closes once the client has taken the rest: Twisted would wait for that for ever.
            self.setTimeout(LOOK)
        self._await_request()

    def resumeProducing(self) -> None:
        """Go on with what was not parsed for want of a client that takes the answers."""
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self.paused and not self.site.draining:
            self.paused = False
            self.dataReceived(b"")

    def timeoutConnection(self) -> None:
        """Drop the client if its time is over; look again later if it is not."""
        now, pending = self.site.clock.seconds(), self.uptake.pending()
        if pending:
            left = self.uptake.patience()
            self._until = now + (HEAD if self._due else IDLE)
        else:
            left = self._until - now
        if left > 0:
            self.setTimeout(min(left, LOOK) if pending else left)
        elif pending or self.transport.disconnecting:
            self.transport.abortConnection()
        else:
            self.loseConnection()  # type: ignore[no-untyped-call]
            self._until = now + LOOK
            self.setTimeout(LOOK)
