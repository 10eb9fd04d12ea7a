"""Lines of the access log, as text or as JSON, and the IDs of requests.

The *template* of a line is the part that is the same for all requests which the response cache
answers with one entry. It is made once; a line takes the client, the time and the ID of a request.

No client can forge a line or a part of one: method and path are written in printable ASCII without
blanks, an ID that does not have the form of :data:`_ID` is replaced, and the other parts are
proxpi's own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

import attrs
import msgspec

#: Bytes of a method, and of a path, that a line shows.
MAX_SHOWN = 2048
#: The text between the client and the milliseconds, and the text after these.
Template: TypeAlias = tuple[str, str]

#: An ID of a client: printable ASCII without blanks, quotes and backslashes.
_ID = re.compile(r"[!#-&(-\[\]-~]{1,128}")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


@attrs.frozen
class _Marks:
    """The texts around the client, the milliseconds of the wait for an upstream, and the ID."""

    client: str
    upstream: str
    unit: str
    request_id: str
    end: str


_TEXT = _Marks("", " upstream=", "ms", " id=", "")
_JSON = _Marks('{"client":"', ',"upstream_ms":', "", ',"request_id":"', '"}')


class AccessLog:
    """Writes the lines."""

    def __init__(
        self,
        write: Callable[[str], object],
        debug: Callable[[str], object],
        *,
        as_json: bool = False,
    ) -> None:
        """
        :param write: writes a line; `debug` writes one of that level
        :param as_json: whether a line is a JSON object
        """
        self._write = write
        self._debug = debug
        self._as_json = as_json
        self._marks = _JSON if as_json else _TEXT
        self._made = f"{secrets.token_hex(3)}-"
        self._numbers = count(1)

    def template(
        self, method: bytes, path: bytes, status: int, size: int, outcome: str, kind: str
    ) -> Template:
        """
        Return the template of a line.

        :param path: without its query, in which people put tokens
        :param size: bytes of the body that were sent
        :param outcome: that of :mod:`proxpi.web.accounting`, such as ``hit``
        :param kind: that of the requested resource, such as ``page``
        """
        verb, name = _shown(method), _shown(path)
        if not self._as_json:
            shown = "-" if outcome == "none" else outcome.upper()
            return f" {verb} {name} {status} {size} ", f"ms {shown}"
        fields = {
            "message": f"{verb} {name} {status}",
            "method": verb,
            "path": name,
            "status": status,
            "bytes": size,
            "outcome": outcome,
            "kind": kind,
        }
        return f'",{msgspec.json.encode(fields).decode()[1:-1]},"ms":', ""

    def write(
        self,
        template: Template,
        client: str,
        milliseconds: int,
        request_id: str = "",
        upstream: float | None = None,
        *,
        debug: bool = False,
    ) -> None:
        """
        Write a line.

        :param client: the client's address
        :param milliseconds: from the request to the end of its response
        :param request_id: the ID that the client sent; an unusable one is replaced
        :param upstream: seconds that the response waited for an upstream
        """
        marks, (before, after), wait = self._marks, template, ""
        if upstream is not None:
            wait = f"{marks.upstream}{int(upstream * 1000)}{marks.unit}"
        if not (request_id and _ID.fullmatch(request_id)):
            request_id = f"{self._made}{next(self._numbers)}"
        line = (
            f"{marks.client}{client}{before}{milliseconds}{after}{wait}"
            f"{marks.request_id}{request_id}{marks.end}"
        )
        (self._debug if debug else self._write)(line)


def _shown(data: bytes) -> str:
    return escaped(data[:MAX_SHOWN]) + ("..." if len(data) > MAX_SHOWN else "")


def escaped(data: bytes) -> str:
    """Write bytes of a client in printable ASCII without blanks."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))
