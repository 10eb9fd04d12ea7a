"""A reader of a file on its way, as a client's connection is one, but at a pace that tests set."""

from __future__ import annotations

import attrs

from proxpi.files.stream import Body


@attrs.define(eq=False)
class Reading:
    """Reads what has come as soon as it comes, unless it is paused.

    :ivar data: what was read
    :ivar whole: whether that is all, and right
    :ivar cut: whether there will be no more
    """

    _body: Body
    paused: bool = False
    piece: int = 1 << 16
    data: bytes = attrs.field(init=False, default=b"")
    whole: bool = attrs.field(init=False, default=False)
    cut: bool = attrs.field(init=False, default=False)
    _start: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._start = self._body.start
        self._body.follow(self.read)
        self.read()

    @property
    def place(self) -> int:
        """Where it reads next."""
        return self._start + len(self.data)

    def read(self) -> None:
        """Read all that there is."""
        while not (self.paused or self.whole or self.cut) and self._read_piece():
            pass

    def go_on(self) -> None:
        """Pause no longer."""
        self.paused = False
        self.read()

    def _read_piece(self) -> bool:
        body = self._body
        if body.broken:
            self.cut = True
            body.leave(self.read)
            return False
        if self.place < body.there:
            self.data += body.read(self.place, min(self.piece, body.there - self.place))
            return True
        if body.whole:
            self.whole = True
            body.leave(self.read)
            return False
        successor = body.successor()
        if successor is None:
            return False
        body.leave(self.read)
        self._body = successor
        successor.follow(self.read)
        return True

    def hang_up(self) -> None:
        """Go away."""
        self.cut = True
        self._body.leave(self.read)
