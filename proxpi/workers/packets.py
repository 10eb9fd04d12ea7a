"""What the main process and a worker say to each other; values, as they go over the wire."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from proxpi.web.heads import Question


class Told(msgspec.Struct, array_like=True, tag=True):
    """The beginning of a packet: msgspec tells one kind from another by its name."""


class Listen(Told):
    """To a worker: accept connections on the socket that comes with this."""

    family: int


class Unsent(Told):
    """What the client of the connection that follows is to be sent first; there may be several."""

    data: bytes


class Connection(Told):
    """Go on with the connection that comes with this.

    :ivar unsent: how many bytes its client is to be sent before anything else
    :ivar received: what came from it that nobody has looked at
    """

    family: int
    unsent: int
    received: bytes


class File(Told):
    """Which file a part of is an answer's body: where, and how to tell it from another."""

    path: str
    inode: int
    size: int
    changed_ns: int


class Learn(Told):
    """To a worker: an answer, as :class:`proxpi.web.known.Answer` has it.

    What comes with it, if anything does, is a file in memory with the body.

    :ivar number: under which it stands on the board, as long as it holds
    """

    slot: int
    number: int
    before: bytes
    between: bytes
    after: bytes
    fresh_until: float
    body: bytes
    file: File | None
    start: int
    stop: int
    line: str
    question: Question


class Drop(Told):
    """To a worker: an answer does not hold any more; let go of what it takes."""

    slot: int
    number: int


class Drain(Told):
    """To a worker: accept nothing, finish what is being sent, and end.

    :ivar seconds: after which nothing is waited for
    """

    seconds: float


class Serve(Told):
    """To a worker: there are no more sockets to listen on."""


class Ready(Told):
    """From a worker: it accepts connections on all of them."""


class Lines(Told):
    """From a worker: lines for the access log."""

    lines: list[str]


class Doubt(Told):
    """From a worker: the file of an answer could not be read."""

    slot: int
    number: int


Packet: TypeAlias = (
    Listen | Serve | Unsent | Connection | Learn | Drop | Drain | Ready | Lines | Doubt
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Packet).decode
