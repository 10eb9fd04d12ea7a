"""Bodies in chunks: decoded in whatever pieces they come, and refused if they are malformed."""

from __future__ import annotations

import pytest

from proxpi.web.request_parser import MAX_LINE, MAX_TRAILERS, BadRequest, Chunks
from tests.support.cases import ProxpiCase
from tests.support.exchange import request as written

WHOLE = b'5\r\nproje\r\nA;x="y"\r\nct=de-mo&x\r\n0\r\nTrailer: t\r\n\r\n'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces(size: int) -> None:
    """The content is the same however the body comes, and what follows is left."""
    chunks, content, data = Chunks(), b"", bytearray()
    raw = WHOLE + b"GET / HTTP/1.1"
    for start in range(0, len(raw), size):
        data += raw[start : start + size]
        content += chunks.feed(data)
    assert (chunks.state, content) == ("done", b"project=de-mo&x")
    assert data == b"GET / HTTP/1.1"


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1_0\r\n",
        b"1" * 13 + b"\r\n",
        b"1;a\0b\r\n",
        b"1\nx\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n0\r\n",
        b"1;" + b"x" * MAX_LINE,
        b"0\r\n" + b"A: b\r\n" * (MAX_TRAILERS + 1),
        b"0\r\nA: " + b"x" * MAX_LINE,
    ],
)
def test_malformed(raw: bytes) -> None:
    """Sizes that are no plain hexadecimal numbers, wrong ends and long lines are refused."""
    with pytest.raises(BadRequest):
        Chunks().feed(bytearray(raw))


class Forms(ProxpiCase):
    """Forms that come in chunks."""

    def test_form(self) -> None:
        """A form in chunks is read like any other, and a request may follow."""
        client = self.connect()
        post = written("POST", "/admin/forget-project", "Transfer-Encoding: chunked")
        client.send(post + WHOLE + written("GET", "/health"))
        answers = client.receive()
        assert answers.startswith(b"HTTP/1.1 303 ")
        assert answers.count(b"HTTP/1.1 200 ") == 1

    def test_malformed(self) -> None:
        """A malformed one is a 400, and nothing behind it is answered."""
        client = self.connect()
        post = written("POST", "/admin/forget-project", "Transfer-Encoding: chunked")
        client.send(post + b"x\r\n" + written("GET", "/health"))
        answer = client.answer()
        assert answer is not None and answer.status == 400
        assert client.receive() == b""
        assert client.closed
