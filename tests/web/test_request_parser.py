"""Request heads and bodies: what RFC 9112 allows is read, all else is refused with a sentence."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.web.request_parser import (
    KEY_FIELDS,
    MAX_ALIAS,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    MAX_NAME,
    MAX_TRAILERS,
    BadRequest,
    Chunks,
    check_beginning,
    parse,
)

PLAIN = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\nAccept: a/b\r\n\r\n"
FIELD = b"Accept: a/b"
NONE = [None] * (len(KEY_FIELDS) - 1)


def with_field(field: bytes) -> bytes:
    return PLAIN.replace(FIELD, field)


def with_line(line: bytes) -> bytes:
    return PLAIN.replace(b"GET /index/demo/ HTTP/1.1", line)


def with_host(*values: bytes) -> bytes:
    return PLAIN.replace(b"Host: h\r\n", b"".join(b"Host: %s\r\n" % value for value in values))


def refused(raw: bytes) -> int:
    with pytest.raises(BadRequest) as caught:
        parse(raw)
    assert caught.value.text.endswith(".")
    return caught.value.status


def test_cache_key() -> None:
    """The fields that matter are in the cache key, in one order, however they are written."""
    assert parse(PLAIN).key == (b"GET", b"/index/demo/", (b"a/b", *NONE))
    other = with_line(b"HEAD /x?y HTTP/1.1").replace(FIELD, b"accept:a/b  \r\nRange: \r\nX: y")
    assert parse(other).key == (b"HEAD", b"/x?y", (b"a/b", None, None, None, b"", None))
    twice = with_field(FIELD + b"\r\nACCEPT: c/d\r\nConnection: Keep-Alive, TE")
    assert parse(twice).key == (b"GET", b"/index/demo/", (b"a/b, c/d", *NONE))


def test_no_cache_key() -> None:
    """The response cache answers no request with a body, or a large head."""
    lines = (b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET http://other/ HTTP/1.1")
    fields = b"Connection: keep-alive, close|Content-Length: 0|Content-Length: 5|Upgrade: h2c"
    fields += b"|Transfer-Encoding: chunked|Expect: 100-continue|X: " + b"x" * MAX_ALIAS
    for head in (*map(with_line, lines), *map(with_field, fields.split(b"|"))):
        assert parse(head).key is None, head


def test_refresh() -> None:
    """A refresh of a page or of the list has no cache key; the field is ignored on files."""
    pip = b"\r\nuser-agent: pip/26.2 {}\r\ncache-control: max-age=0"
    for fields, refresh in (
        (FIELD + b"\r\nCache-Control:no-cache", True),
        (FIELD + b"\r\nCache-Control: a\r\nCACHE-CONTROL: No-Cache", True),
        (FIELD + pip, True),
        (FIELD + pip.replace(b"26.2", b"26.1"), False),
        (FIELD + b"\r\nCache-Control: max-age=0", False),
        (FIELD + b"\r\nPragma: no-cache", False),
    ):
        for target in (
            b"/index/demo/",
            b"/index/",
            b"/cpu/index/demo/",
            b"/index/demo/?format=x/y",
        ):
            head = with_field(fields).replace(b"/index/demo/", target)
            assert (parse(head).key is None) == refresh, head
        for target in (b"/index/demo/demo-1.0.whl", b"/index/demo/demo-1.0.whl?x=/", b"/health"):
            assert parse(with_field(fields).replace(b"/index/demo/", target)).key is not None


def test_bad_line() -> None:
    """A first line that is no request line of HTTP/1 is refused."""
    targets = b"foo|index/demo/|?x|*|h:80|ftp://h/|http:///x|http://u:p@h/|http://h:99999/"
    odd = b"/a b|/\xc3\xa9|/\x00|/\x7f| /|/ "
    lines = [b"GET %b HTTP/1.1" % each for each in (targets + b"|" + odd).split(b"|")]
    lines += b" GET / HTTP/1.1|GET\t/ HTTP/1.1|GET / HTTP/1.1 |GET /|GET||G@T / HTTP/1.1".split(
        b"|"
    )
    versions = b"http/1.1|HTTP/1.10|HTTP/11|HTTQ/1.1"
    lines += [b"G\xc9T / HTTP/1.1", *(b"GET / " + each for each in versions.split(b"|"))]
    for line in lines:
        assert refused(with_line(line)) == 400, line
    for line in (b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET / HTTP/0.9"):
        assert refused(with_line(line)) == 505, line
    assert refused(with_line(b"CONNECT h:443 HTTP/1.1")) == 405


def test_target() -> None:
    """A URL as the target is its path and query; its authority replaces ``Host``."""
    for target, read, host in (
        (b"/index/demo/?x=http://h/", b"/index/demo/?x=http://h/", b"h"),
        (b"//cache", b"//cache", b"h"),
        (b"http://other:81/index/?y", b"/index/?y", b"other:81"),
        (b"HTTPS://[::1]/x", b"/x", b"[::1]"),
        (b"http://x?y=/cache/demo", b"/?y=/cache/demo", b"x"),
        (b"http://x#y=/cache/demo", b"/", b"x"),
        (b"http://x", b"/", b"x"),
    ):
        head = parse(with_line(b"GET " + target + b" HTTP/1.1"))
        hosts = [value for name, value in head.fields if name == b"Host"]
        assert (head.target, hosts) == (read, [host])
    assert parse(with_line(b"OPTIONS * HTTP/1.1")).target == b"*"


def test_host() -> None:
    """``Host`` is one name or address with an optional port; only HTTP/1.0 may do without."""
    odd = b"|a b|a,b|a/b|u@h|u:p@h|http://h|h:x|h:-1|h:65536|h:123456|h:1:2|::1|[::1|::1]|[::1]x"
    odd += b"|[::g]|[1.2.3.4]|[]|h\xe9|h?x|h#x|<h>|h%00"
    for value in odd.split(b"|"):
        assert refused(with_host(value)) == 400, value
    for value in b"h|h:|h:80|H.Example.|1.2.3.4:5|[::1]|[fe80::1]:65535|a_b|~".split(b"|"):
        assert parse(with_host(value)).key is not None, value
    assert refused(with_host()) == 400
    assert refused(with_host(b"h", b"h")) == 400
    old = b"GET / HTTP/1.0"
    assert parse(with_line(old).replace(b"Host: h\r\n", b"")).version == b"HTTP/1.0"
    assert refused(with_line(old).replace(b"Host: h", b"Host: h\r\nHost: h")) == 400
    assert refused(with_line(old).replace(b"Host: h", b"Host: a/b")) == 400


BAD_FIELDS = [
    *(b"Accept : a/b", b" Accept: a/b", b"Accept\t: a/b", b"X: y\r\n folded", b"X: y\r\n\tfolded"),
    *(b"Accept", b": a/b", b"Ac(cept: a/b", b"Acc\xe9pt: a/b", b"X" * (MAX_NAME + 1) + b": a"),
    *(b"X: a\nY: b", b"X: a\rb", b"X: a\0b", b"X: a\x1b[2Jb", b"X: a\x7fb"),
    *(
        b"Content-Length: " + each
        for each in b"1, 1|+1|-1|0x1|1 1|\xb2||9999999999999999999".split(b"|")
    ),
    *(b"Content-Length: 1\r\nContent-Length: " + each for each in (b"1", b"2")),
    b"Content-Length: 1\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 1",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    *(
        b"Transfer-Encoding: " + each
        for each in b"|identity|xchunked|chunked, gzip|chunked, chunked".split(b"|")
    ),
]


def test_bad_field() -> None:
    """Fields that others may read differently, and too many of them, are refused."""
    for field in BAD_FIELDS:
        assert refused(with_field(field)) == 400, field
    assert refused(with_field(b"Transfer-Encoding: gzip, chunked")) == 501
    assert refused(with_field(b"\r\n".join([b"A: b"] * MAX_FIELDS))) == 431
    # HTTP/1.0 has no transfer codings.
    raw = with_field(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert refused(raw) == 400


def test_connection() -> None:
    """``close`` is one item of a list, in any case, in any of several fields."""
    for value in (b"close", b"CLOSE", b"TE,close", b"te ,\tClose , x", b"x\r\nConnection: close"):
        assert not parse(with_field(b"Connection: " + value)).persistent, value
    for value in (b"keep-alive", b"closed", b"x-close", b""):
        assert parse(with_field(b"Connection: " + value)).persistent, value


def test_length_and_version() -> None:
    """A body has a stated length or chunks; HTTP/1.2 is answered as 1.1 (RFC 9110 2.5)."""
    assert parse(PLAIN).length == 0
    assert parse(with_field(b"Content-Length: 17")).length == 17
    assert parse(with_field(b"Transfer-Encoding: Chunked")).length is None
    assert parse(with_line(b"GET / HTTP/1.2")).version == b"HTTP/1.1"


def test_beginning() -> None:
    """Data that cannot become a head is refused before more of it comes."""
    for data, status in (
        (b"GET /" + b"x" * MAX_HEAD, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431),
        *((each, 400) for each in (b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: h\n\n")),
        *((each, 400) for each in (b"\x16\x03\x01", b"\0", b" ")),
    ):
        with pytest.raises(BadRequest) as caught:
            check_beginning(data)
        assert caught.value.status == status
    for count in range(len(PLAIN)):
        check_beginning(PLAIN[:count])


names = st.sampled_from([*KEY_FIELDS, b"Accept", b"HOST", b"User-Agent", b"X_y", b"Connection"])
values = st.one_of(
    st.sampled_from([b"", b"gzip", b"close", b"keep-alive", b"bytes=0-1", b"a\tb", b" x "]),
    st.binary(max_size=4),
)


@given(st.binary(max_size=60), st.lists(st.tuples(names, values), max_size=5))
def test_read_or_refused(line: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    """Any bytes are read or refused; nothing with a line end inside is ever read."""
    for first in (line, b"GET / HTTP/1.1"):
        raw = b"\r\n".join([first, b"Host: h", *(n + b":" + v for n, v in fields), b"", b""])
        try:
            head = parse(raw)
        except BadRequest:
            continue
        assert all(not {0, 10, 13} & set(name + value) for name, value in head.fields)


def test_linear() -> None:
    """Twice as many blanks take about twice the time, before any bytes."""

    def seconds(count: int, blank: bytes, odd: bytes) -> float:
        raw = with_field(b"X:" + blank * count + odd)
        best = float("inf")
        for _ in range(5):
            begin = time.perf_counter()
            with pytest.raises(BadRequest):
                parse(raw)
            best = min(best, time.perf_counter() - begin)
        return best

    for odd in (b"\x00", b" x\x01"):
        for blank in (b" ", b"\t", b" a"):
            assert seconds(14_000, blank, odd) < 40 * seconds(1400, blank, odd) + 1e-4


WHOLE = b'5\r\nproje\r\nA;x="y"\r\nct=de-mo&x\r\n0\r\nTrailer: t\r\n\r\n'


def test_chunks_in_pieces() -> None:
    """The content is the same however the body is cut, and the next request is left."""
    raw = WHOLE + b"GET / HTTP/1.1"
    for size in (1, 2, 3, 7, 1000):
        chunks, content, data = Chunks(), b"", bytearray()
        for start in range(0, len(raw), size):
            data += raw[start : start + size]
            content += chunks.feed(data)
        assert (chunks.state, content) == ("done", b"project=de-mo&x")
        assert data == b"GET / HTTP/1.1"


def test_malformed_chunks() -> None:
    """Sizes that are no plain hexadecimal numbers, wrong ends and long lines are refused."""
    sizes = b"|x|-1|+1|0x1| 1|1 |1_0|1111111111111|1;a\0b".split(b"|")
    bodies = [size + b"\r\n" for size in sizes] + [b"1\nx\r\n", b"1\r\nxy\r\n", b"1\r\nx\n0\r\n"]
    bodies += [b"1;" + b"x" * MAX_LINE, b"0\r\nA: " + b"x" * MAX_LINE]
    for body in (*bodies, b"0\r\n" + b"A: b\r\n" * (MAX_TRAILERS + 1)):
        with pytest.raises(BadRequest):
            Chunks().feed(bytearray(body))
