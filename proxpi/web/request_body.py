"""The body of a request, of a stated length or in chunks (RFC 9112, section 7.1), as it comes.

States of one in chunks: *size* (the line before a chunk is due), *data* (bytes of a chunk are due),
*end* (the line end behind them is due), *trailer* (lines behind the last chunk are due; they are
not used), *done*.
"""

from __future__ import annotations

import re

import attrs

from proxpi.web.request_head import BadRequest

#: Bytes of a line: a size with its extensions, or a trailer field; and lines of a trailer.
LONGEST_LINE = 1024
MOST_LINES = 100

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


@attrs.define(eq=False)
class Counted:
    """A body of a stated length, of which so much is still to come."""

    _left: int

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return not self._left

    def feed(self, data: bytearray) -> bytes:
        """Take what belongs to the body away from the beginning of the data, and give it."""
        part = bytes(data[: self._left])
        del data[: self._left]
        self._left -= len(part)
        return part


@attrs.define(eq=False)
class Chunks:
    """A body in chunks.

    :ivar state: see above
    """

    state: str = "size"
    _left: int = 0
    _lines: int = 0

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self.state == "done"

    def feed(self, data: bytearray) -> bytes:
        """
        Take what belongs to the body away from the beginning of the data, and give its content.

        :raises BadRequest: for chunks that are malformed
        """
        content = bytearray()
        while not self.done:
            if self.state == "data":
                part = data[: self._left]
                del data[: self._left]
                content += part
                self._left -= len(part)
                if self._left:
                    break
                self.state = "end"
            line = self._line(data)
            if line is None:
                break
            self._take(line)
        return bytes(content)

    def _line(self, data: bytearray) -> bytes | None:
        end = data.find(b"\n", 0, LONGEST_LINE)
        if end < 0 and len(data) < LONGEST_LINE:
            return None
        line = bytes(data[: end + 1])
        if not line.endswith(b"\r\n"):
            raise BadRequest(400, "A line of a body in chunks is too long, or ends without CR LF.")
        del data[: end + 1]
        return line[:-2]

    def _take(self, line: bytes) -> None:
        if self.state == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise BadRequest(400, "The size of a chunk is a hexadecimal number.")
            self._left = int(match[1], 16)
            self.state = "data" if self._left else "trailer"
        elif self.state == "end":
            if line:
                raise BadRequest(400, "A chunk is longer than it says.")
            self.state = "size"
        elif not line:
            self.state = "done"
        else:
            self._lines += 1
            if self._lines > MOST_LINES:
                raise BadRequest(431, f"A trailer has at most {MOST_LINES} lines.")
