"""Heads that are plain questions: understood as Twisted understands them, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from proxpi.web.heads import ASKING, LONGEST, MOST, Question, question

PLAIN = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\nAccept: a/b\r\n\r\n"


class Heard(Request):
    """A request that is only noted."""

    noted: list[Request]

    def process(self) -> None:
        """Note it."""
        self.noted.append(self)
        self.finish()  # type: ignore[no-untyped-call]


def as_twisted_has_it(data: bytes) -> Question | None:
    """Give the question in what came, if Twisted sees one request in it, and stays for more."""
    channel: Any = HTTPChannel()
    noted: list[Any] = []
    channel.requestFactory = type("Noted", (Heard,), {"noted": noted})
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(data)
    left = channel._buffer or channel.requests
    if len(noted) != 1 or left or transport.disconnecting or not channel.persistent:
        return None
    [request] = noted
    fields = [request.requestHeaders.getRawHeaders(name) for name in ASKING]
    said = tuple(b", ".join(field) if field is not None else None for field in fields)
    return request.method, request.uri, said


def test_plain() -> None:
    """The fields that matter are in it, in one order, however they are written."""
    assert question(PLAIN) == (b"GET", b"/index/demo/", (b"a/b", *[None] * (len(ASKING) - 1)))
    other = b"GET /index/demo/ HTTP/1.1\r\naccept:a/b  \r\nUser-Agent: x y/1\r\nRange: \r\n\r\n"
    assert question(other) == (b"GET", b"/index/demo/", (b"a/b", None, None, None, b"", None))
    twice = PLAIN[:-2] + b"ACCEPT: c/d\r\nConnection: Keep-Alive\r\n\r\n"
    assert question(twice) == (b"GET", b"/index/demo/", (b"a/b, c/d", *[None] * (len(ASKING) - 1)))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        PLAIN[:-1],
        PLAIN + b"\r\n",
        PLAIN + PLAIN,
        b"\r\n" + PLAIN,
        PLAIN.replace(b"GET", b"POST"),
        PLAIN.replace(b"GET", b"get"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b" /", b"  /"),
        PLAIN.replace(b"/demo/", b"/de mo/"),
        PLAIN.replace(b"/demo/", b"/d\xc3\xa9mo/"),
        PLAIN.replace(b" /", b" http://h/"),
        PLAIN.replace(b": a/b", b" : a/b"),
        PLAIN.replace(b"Accept", b" Accept"),
        PLAIN.replace(b"a/b", b"a\nX: b"),
        PLAIN.replace(b"a/b", b"a\rb"),
        PLAIN.replace(b"a/b", b"a\0b"),
        PLAIN.replace(b"a/b", b"a/b\r\n folded"),
        PLAIN.replace(b"Accept: a/b", b"Accept"),
        PLAIN.replace(b"Accept: a/b", b": a/b"),
        PLAIN.replace(b"Accept: a/b", b"Connection: close"),
        PLAIN.replace(b"Accept: a/b", b"connection: keep-alive, close"),
        PLAIN.replace(b"Accept: a/b", b"Content-Length: 0"),
        PLAIN.replace(b"Accept: a/b", b"Transfer-Encoding: identity"),
        PLAIN.replace(b"Accept: a/b", b"Expect: 100-continue"),
        PLAIN.replace(b"Accept: a/b", b"Upgrade: websocket"),
        PLAIN.replace(b"a/b", b"a" * LONGEST),
        PLAIN.replace(b"Accept: a/b", b"\r\n".join([b"A: b"] * (MOST + 1))),
    ],
)
def test_not_plain(head: bytes) -> None:
    """Whatever is odd about a head, it is Twisted's to judge."""
    assert question(head) is None


names = st.sampled_from(
    [*ASKING, b"Accept", b"HOST", b"User-Agent", b"X_y", b"Connection", b"Te xt"]
)
values = st.one_of(
    st.sampled_from([b"", b"gzip", b"close", b"keep-alive", b"bytes=0-1", b"a\tb", b" x "]),
    st.binary(max_size=4),
)
fields = st.builds(
    lambda *parts: b"".join(parts), names, st.sampled_from([b":", b": ", b" :"]), values
)
heads = st.builds(
    lambda line, fields, end: b"\r\n".join([line, *fields]) + end,
    st.sampled_from(
        [b"GET / HTTP/1.1", b"HEAD /a?b=%20 HTTP/1.1", b"GET  / HTTP/1.1", b"PUT / HTTP/1.1"]
    ),
    st.lists(fields, max_size=5),
    st.sampled_from([b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"\r\n\r\n\r\n"]),
)


@given(heads)
def test_never_otherwise(head: bytes) -> None:
    """What is understood here is what Twisted understands, to the byte."""
    understood = question(head)
    if understood is not None:
        assert understood == as_twisted_has_it(head)


@given(
    st.lists(
        st.tuples(names.filter(lambda name: name != b"Te xt"), st.sampled_from([b"a", b"b;q=0.1"]))
    )
)
def test_usual_is_understood(fields: list[tuple[bytes, bytes]]) -> None:
    """Clients that do nothing odd are understood."""
    lines = [name + b": " + value for name, value in fields if name != b"Connection"]
    head = b"\r\n".join([b"GET /index/demo/ HTTP/1.1", *lines]) + b"\r\n\r\n"
    assert question(head) == as_twisted_has_it(head) is not None


def test_takes_no_time() -> None:
    """Nobody can make it try one blank after the other: this would not end."""
    for odd in (b"\xe9", b"\x00", b" x\xe9"):
        for blank in (b" ", b"\t", b" a"):
            field = b"X:" + blank * ((LONGEST - 200) // len(blank)) + odd
            assert question(b"GET / HTTP/1.1\r\n" + field + b"\r\n\r\n") is None
