"""The head of an answer, as Twisted's client hands it over."""

from __future__ import annotations

from tests.support.cases import Case, run
from tests.support.indexes import Network

FILE = "http://files.example/demo.whl"


class LengthTests(Case):
    """How long a file is said to be."""

    def length(self, method: str, head: bytes) -> int | None:
        """Give the length that the head of an answer announces."""
        network = Network()

        async def ask() -> int | None:
            async with network.upstream.file(FILE, {}, method) as answer:
                return answer.length

        asked = run(ask())
        network.accept().send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        return self.result(asked)

    def test_announced(self) -> None:
        """The announced length is known, whether a body follows or not."""
        for method in ("GET", "HEAD"):
            assert self.length(method, b"Content-Length: 17\r\n") == 17
            assert self.length(method, b"Content-Length: 0\r\n") == 0

    def test_no_number(self) -> None:
        """What is no number, or one of thousands of digits, announces nothing."""
        for length in (b"9" * 5000, b"9" * 19, b"0x11"):
            assert self.length("HEAD", b"Content-Length: " + length + b"\r\n") is None

    def test_not_announced(self) -> None:
        """Where no length is announced none is known, and not 0."""
        for method in ("GET", "HEAD"):
            assert self.length(method, b"Transfer-Encoding: chunked\r\n") is None
            assert self.length(method, b"") is None
