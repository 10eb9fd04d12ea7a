"""HTTP/1.1 request heads and bodies from bytes, read as strictly as RFC 9112 asks; no I/O.

A head has no states: :func:`parse` gives a :class:`Head` or raises a :exc:`BadRequest`, and
:func:`check_beginning` rejects input that no further bytes can turn into a valid head. Input that
proxies and servers are known to read differently (a missing or second ``Host``, blanks around
names, bare line feeds, folded lines, two lengths) is a 400. This one parser reads ordinary requests
and those that the response cache answers.

A body has a stated length (:class:`Counted`) or comes in chunks (:class:`Chunks`, RFC 9112 7.1).
States of one in chunks: *size* (the line before a chunk is due), *data* (bytes of a chunk are due),
*end* (the line end behind them is due), *trailer* (lines behind the last chunk are due; they are
not used), *done*.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import NoReturn, TypeAlias

import attrs

from proxpi.simple import caching

#: Bytes, and fields, that a head may have, and bytes of the name of a field.
MAX_HEAD = 16 * 1024
MAX_FIELDS = 500
MAX_NAME = 256
#: Bytes of a line in a body in chunks: a size, or a trailer field; and lines of a trailer.
MAX_LINE = 1024
MAX_TRAILERS = 100
#: Bytes of a head up to which it has a cache key.
MAX_ALIAS = 2048
#: The fields on which a response from the cache depends, besides the target.
KEY_FIELDS = (b"accept", b"accept-encoding", b"if-match", b"if-none-match", b"range", b"if-range")
#: Fields that state the origin of a request: no response from the cache depends on them.
ORIGIN_FIELDS = (b"x-request-id", b"x-forwarded-for", b"forwarded")
#: Fields with which the response cache answers no request.
_UNCACHED = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
#: Other fields that are interpreted.
_OTHERS = (b"host", b"connection", b"cache-control", b"user-agent")
#: Method, target, and the fields of :data:`KEY_FIELDS`: what a cached response depends on.
CacheKey: TypeAlias = tuple[bytes, bytes, tuple[bytes | None, ...]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_LINE = rb"(" + _TOKEN + rb"+) ([!-~]+) HTTP/([0-9])\.([0-9])"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
#: A whole head of HTTP/1.x. What it repeats is possessive, so that the time for it is linear.
_HEAD = re.compile(
    rb"%b\r\n((?:%b{1,%d}+:%b\r\n){0,%d}+)\r\n" % (_LINE, _TOKEN, MAX_NAME, _VALUE, MAX_FIELDS)
)
#: The fields that are interpreted, with the blanks around their values.
_INTERPRETED = re.compile(
    rb"^(%b):(.*)\r$" % b"|".join((*KEY_FIELDS, *sorted(_UNCACHED), *_OTHERS)),
    re.IGNORECASE | re.MULTILINE,
)
#: A line with such a field, and the line end before it.
_ORIGIN = re.compile(rb"\r\n(%b):(%b)(?=\r\n)" % (b"|".join(ORIGIN_FIELDS), _VALUE), re.IGNORECASE)
_REQUEST_LINE = re.compile(_LINE)
_NAME = re.compile(_TOKEN + rb"+")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


@attrs.define(eq=False)
class BadRequest(Exception):
    """A request that gets an error as its response, after which the connection closes.

    :ivar text: one sentence that says what is wrong
    """

    status: int
    text: str
    fields: tuple[tuple[str, str], ...] = ()


@attrs.define
class Head:
    """A head.

    :ivar target: the path with its query, or ``*``
    :ivar authority: that of an absolute target; it replaces ``Host`` (RFC 9112 3.2.2)
    :ivar persistent: whether the connection may stay open after the response
    :ivar length: bytes of the body; ``None`` for one that comes in chunks
    :ivar expects_continue: whether the client waits for a 100 before it sends the body
    :ivar key: its cache key, if the response cache may answer it
    """

    method: bytes
    target: bytes
    version: bytes
    authority: bytes | None
    persistent: bool
    length: int | None
    expects_continue: bool
    key: CacheKey | None
    _block: bytes

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """All fields, with their names as they were written."""
        parts = [line.partition(b":") for line in self._block.split(b"\r\n")[:-1]]
        fields = [(name, value.strip(b" \t")) for name, _, value in parts]
        if self.authority is not None:
            fields = [field for field in fields if field[0].lower() != b"host"]
            fields.append((b"Host", self.authority))
        return fields


def parse(raw: bytes) -> Head:
    """
    Read a whole head, with the empty line at its end.

    :raises BadRequest: for one that RFC 9112 or the limits here do not allow
    """
    match = _HEAD.fullmatch(raw)
    if match is None or match[3] != b"1":
        _refuse_malformed(raw)
    method, target, _, minor, block = match.groups()
    version = b"HTTP/1.0" if minor == b"0" else b"HTTP/1.1"
    interpreted: dict[bytes, list[bytes]] = {}
    for name, value in _INTERPRETED.findall(block):
        interpreted.setdefault(name.lower(), []).append(value.strip(b" \t"))
    hosts = interpreted.get(b"host", [])
    if len(hosts) != 1 and (hosts or version == b"HTTP/1.1"):
        _refuse("A request of HTTP/1.1 has exactly one Host field.")
    if hosts:
        check_authority(hosts[0], "Host")
    target, authority = _path(method, target)
    persistent = version == b"HTTP/1.1"
    if b"connection" in interpreted:
        tokens = b",".join(interpreted[b"connection"]).lower().split(b",")
        persistent = persistent and b"close" not in [token.strip(b" \t") for token in tokens]
    length: int | None = 0
    expects = False
    if not _UNCACHED.isdisjoint(interpreted):
        length = _length(interpreted, version)
        expect = interpreted.get(b"expect", [b""])[0].lower()
        expects = expect == b"100-continue" and version == b"HTTP/1.1"
    key = None
    if (
        persistent
        and method in (b"GET", b"HEAD")
        and len(raw) <= MAX_ALIAS
        and authority is None
        and _UNCACHED.isdisjoint(interpreted)
        and not (b"cache-control" in interpreted and _is_refresh(target, interpreted))
    ):
        selecting = tuple(
            [b", ".join(interpreted[name]) if name in interpreted else None for name in KEY_FIELDS]
        )
        key = method, target, selecting
    return Head(method, target, version, authority, persistent, length, expects, key, block)


def cache_key(data: bytes) -> CacheKey | None:
    """Return the cache key of data that is one whole head which the response cache may answer."""
    if len(data) > MAX_ALIAS or data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    try:
        return parse(data).key
    except BadRequest:
        return None


def without_origin(head: bytes) -> tuple[bytes, dict[bytes, str]]:
    """
    Return data that may be one whole head without its :data:`ORIGIN_FIELDS`, and these.

    What is left is a valid head if and only if the data is one. Data above :data:`MAX_ALIAS` bytes
    are returned as they are.
    """
    if len(head) > MAX_ALIAS:  # it is in no response cache; and what is kept of it is bounded
        return head, {}
    common, *found = _ORIGIN.split(head)
    if not found or head.find(b"\r\n\r\n") != len(head) - 4:
        return head, {}
    fields: dict[bytes, str] = {}
    for name, value in zip(found[::3], found[1::3], strict=True):
        name, text = name.lower(), value.decode("latin-1").strip(" \t")
        fields[name] = f"{fields[name]}, {text}" if name in fields else text
    return b"".join((common, *found[2::3])), fields


def _is_refresh(target: bytes, interpreted: dict[bytes, list[bytes]]) -> bool:
    """Return whether a request is a refresh of a page or list, whose paths end with a slash."""
    if not target.partition(b"?")[0].endswith(b"/"):
        return False
    cache_control = b", ".join(interpreted[b"cache-control"])
    user_agent = b", ".join(interpreted.get(b"user-agent", []))
    return caching.is_refresh(cache_control.decode("latin-1"), user_agent.decode("latin-1"))


def check_beginning(data: bytes | bytearray) -> None:
    """Raise :exc:`BadRequest` for a beginning of a request that cannot become a whole head."""
    if len(data) > MAX_HEAD:
        if data.find(b"\r\n", 0, MAX_HEAD) < 0:
            _refuse(f"A request line has at most {MAX_HEAD} bytes.", 414)
        _refuse(f"The head of a request has at most {MAX_HEAD} bytes.", 431)
    if data and not _NAME.match(data):
        _refuse("A request begins with its method.")
    if _BARE_LINE_FEED.search(data):
        _refuse("Each line of a head ends with CR LF.")


def check_authority(value: bytes, what: str) -> None:
    """Raise :exc:`BadRequest` unless this is a host with an optional port."""
    match = _AUTHORITY.fullmatch(value)
    try:
        if match is None or int(match[2] or 0) > 0xFFFF:
            raise ValueError
        if match[1]:
            IPv6Address(match[1].decode("ascii"))
    except (ValueError, AddressValueError):
        _refuse(f"{what} is a host name or an address, and a port where it has one.")


def _refuse_malformed(raw: bytes) -> NoReturn:
    line, *lines = raw[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        _refuse("The first line is a method, a target in ASCII, and HTTP/1.1, with single spaces.")
    if match[3] != b"1":
        _refuse("Only HTTP/1.1 and HTTP/1.0 are spoken here.", 505)
    if len(lines) > MAX_FIELDS:
        _refuse(f"A request has at most {MAX_FIELDS} header fields.", 431)
    for name, colon, _ in (each.partition(b":") for each in lines):
        if not (colon and _NAME.fullmatch(name)):
            _refuse("Each line of a head is a name, a colon right behind it, and a value.")
        if len(name) > MAX_NAME:
            _refuse(f"The name of a header field has at most {MAX_NAME} bytes.")
    _refuse("The value of a header field has no control characters.")


def _path(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Return the path and query of a target, and its authority where it has one."""
    if method == b"CONNECT":
        allow = (("Allow", "DELETE, GET, HEAD, OPTIONS, POST"),)
        raise BadRequest(405, "proxpi is no forward proxy: CONNECT leads nowhere.", allow)
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        _refuse("The target of a request is a path that begins with a slash, or a URL.")
    authority, path = match.groups()
    check_authority(authority, "The host of the target")
    return path if path.startswith(b"/") else b"/" + path.partition(b"#")[0], authority


def _length(interpreted: dict[bytes, list[bytes]], version: bytes) -> int | None:
    """Return the length of the body; ``None`` if it comes in chunks."""
    lengths = interpreted.get(b"content-length", [])
    codings = interpreted.get(b"transfer-encoding", [])
    if len(lengths) > 1 or (lengths and (codings or not _LENGTH.fullmatch(lengths[0]))):
        _refuse("A request states the length of its body once, as a number.")
    if not codings:
        return int(lengths[0]) if lengths else 0
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    if version == b"HTTP/1.0" or names[-1] != b"chunked" or names.count(b"chunked") > 1:
        _refuse("A body with a transfer coding ends with the coding chunked, in HTTP/1.1.")
    if len(names) > 1:
        _refuse("The only transfer coding that is understood is chunked.", 501)
    return None


def _refuse(text: str, status: int = HTTPStatus.BAD_REQUEST) -> NoReturn:
    raise BadRequest(status, text)


@attrs.define(eq=False)
class Counted:
    """A body of a stated length."""

    _left: int

    @property
    def done(self) -> bool:
        return not self._left

    def feed(self, data: bytearray) -> bytes:
        """Remove the part of the body from the beginning of the data, and return it."""
        part = bytes(data[: self._left])
        del data[: self._left]
        self._left -= len(part)
        return part


@attrs.define(eq=False)
class Chunks:
    """A body in chunks; the module names its states."""

    state: str = "size"
    _left: int = 0
    _lines: int = 0

    @property
    def done(self) -> bool:
        return self.state == "done"

    def feed(self, data: bytearray) -> bytes:
        """Like :meth:`Counted.feed`, without the framing; :exc:`BadRequest` if it is malformed."""
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
            end = data.find(b"\n", 0, MAX_LINE)
            if end < 0 and len(data) < MAX_LINE:
                break
            if end < 1 or data[end - 1] != ord("\r"):
                _refuse("A line of a body in chunks is too long, or ends without CR LF.")
            line = bytes(data[: end - 1])
            del data[: end + 1]
            self._take(line)
        return bytes(content)

    def _take(self, line: bytes) -> None:
        if self.state == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                _refuse("The size of a chunk is a hexadecimal number.")
            self._left = int(match[1], 16)
            self.state = "data" if self._left else "trailer"
        elif self.state == "end":
            if line:
                _refuse("A chunk is longer than it says.")
            self.state = "size"
        elif not line:
            self.state = "done"
        else:
            self._lines += 1
            if self._lines > MAX_TRAILERS:
                _refuse(f"A trailer has at most {MAX_TRAILERS} lines.", 431)
