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

import msgspec

#: Bytes of a method, and of a path, that a line shows.
MAX_SHOWN = 2048

#: An ID of a client: printable ASCII without blanks, quotes and backslashes.
_ID = re.compile(r"[!#-&(-\[\]-~]{1,128}")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


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
        self._made = secrets.token_hex(3)
        self._numbers = count(1)

    def template(
        self, method: bytes, path: bytes, status: int, size: int, outcome: str, kind: str
    ) -> str:
        """
        Return the template of a line.

        :param path: without its query, in which people put tokens
        :param size: bytes of the body that were sent
        :param outcome: what came of the request, such as ``hit``
        :param kind: what it was for, such as ``page``
        """
        verb, name = _shown(method), _shown(path)
        if not self._as_json:
            request = f"{verb} {name} {status} {size}".replace("%", "%%")
            shown = "-" if outcome == "none" else outcome.upper()
            return f"%s {request} %dms {shown}%s id=%s"
        fields = {
            "message": f"{verb} {name} {status}",
            "method": verb,
            "path": name,
            "status": status,
            "bytes": size,
            "outcome": outcome,
            "kind": kind,
        }
        request = msgspec.json.encode(fields).decode()[1:-1].replace("%", "%%")
        return f'{{"client":"%s",{request},"ms":%d%s,"request_id":"%s"}}'

    def hit_template(self, template: str) -> str:
        """Return the template of a line of a hit, which takes no time: client and number."""
        return template.replace("%%", "%%%%") % ("%s", 0, "", f"{self._made}-%x")

    def write_hit(self, template: str, client: str) -> None:
        """Write a line with an ID of proxpi's own, which costs a third of :meth:`write`."""
        self._write(template % (client, next(self._numbers)))

    def write(
        self,
        template: str,
        client: str,
        seconds: float,
        request_id: str = "",
        *,
        upstream: float | None = None,
        debug: bool = False,
    ) -> None:
        """
        Write a line.

        :param client: the client's address
        :param seconds: from the request to the end of its response
        :param request_id: that of the client; another one takes the place of an unusable one
        :param upstream: seconds of that for which an upstream was waited for
        """
        if not (request_id and _ID.fullmatch(request_id)):
            request_id = f"{self._made}-{next(self._numbers):x}"
        waited = ""
        if upstream is not None:
            waited = ',"upstream_ms":%d' if self._as_json else " upstream=%dms"
            waited %= upstream * 1000
        line = template % (client, seconds * 1000, waited, request_id)
        (self._debug if debug else self._write)(line)


def _shown(data: bytes) -> str:
    return escaped(data[:MAX_SHOWN]) + ("..." if len(data) > MAX_SHOWN else "")


def escaped(data: bytes) -> str:
    """Write bytes of a client in printable ASCII without blanks."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", data.decode("latin-1"))
