"""A reader of a spool, as a client's connection is one, but at a pace that tests set."""

from __future__ import annotations

import attrs

from proxpi.files.spool import Reader


@attrs.define(eq=False)
class Reading:
    """Reads what has come as soon as it comes, unless it is paused.

    :ivar data: what was read
    :ivar whole: whether that is all, and right
    :ivar cut: whether there will be no more
    """

    reader: Reader
    paused: bool = False
    piece: int = 1 << 16
    data: bytes = attrs.field(init=False, default=b"")
    whole: bool = attrs.field(init=False, default=False)
    cut: bool = attrs.field(init=False, default=False)
    _reading: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.reader.subscribe(self.read)
        self.read()

    def read(self) -> None:
        """Read all that there is."""
        if self._reading:
            return  # what was read made room for more to come
        self._reading = True
        while not (self.paused or self.whole or self.cut) and self._read_piece():
            pass
        self._reading = False

    def go_on(self) -> None:
        """Pause no longer."""
        self.paused = False
        self.read()

    def _read_piece(self) -> bool:
        reader = self.reader
        if reader.cut:
            self.cut = True
        elif reader.available:
            self.data += reader.read(min(self.piece, reader.available))
            return True
        elif reader.complete:
            self.whole = True
        else:
            return False
        reader.close()
        return False

    def hang_up(self) -> None:
        """Go away."""
        self.cut = True
        self.reader.close()
