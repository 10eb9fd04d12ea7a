"""What the head of a request asks for, if it is a plain question: a pure function over bytes.

It is no parser of HTTP: what is not quite plain it leaves to Twisted's. So it has to understand
little, but what it understands it must understand as Twisted does.
"""

from __future__ import annotations

import re
from typing import TypeAlias

#: Bytes, and fields, that a head may have, as Twisted has it.
LONGEST = 16 * 1024
MOST = 500
#: The fields on which an answer from the cache depends, besides the target.
ASKING = (b"accept", b"accept-encoding", b"if-match", b"if-none-match", b"range", b"if-range")
#: Those with which a request brings something, or wants more than an answer.
BRINGING = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))

#: Method, target, and the fields of :data:`ASKING`.
Question: TypeAlias = tuple[bytes, bytes, tuple[bytes | None, ...]]

_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1")
_NAME = re.compile(rb"[A-Za-z0-9_-]+")
_VALUE = re.compile(rb"[\x20-\x7e]*")


def question(head: bytes) -> Question | None:
    """
    Read what came on a connection.

    :return: ``None`` for all that is not the whole head of one ``GET`` or ``HEAD`` in HTTP/1.1,
        with nothing behind it, after which the connection stays open
    """
    if head[-4:] != b"\r\n\r\n" or len(head) > LONGEST:
        return None
    line, *fields = head[:-4].split(b"\r\n")
    asked = _LINE.fullmatch(line)
    if asked is None or len(fields) > MOST:
        return None
    said: dict[bytes, bytes] = {}
    for field in fields:
        name, colon, value = field.partition(b":")
        # Not with the name in one expression: blanks would be tried with each part of it.
        value = value.strip(b" \t")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            return None
        name = name.lower()
        if name in BRINGING or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        if name in ASKING:
            said[name] = said[name] + b", " + value if name in said else value
    return asked[1], asked[2], tuple(said.get(name) for name in ASKING)
