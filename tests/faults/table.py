"""The table of outages: how an upstream can fail, and what a client of proxpi gets then.

Each row is run against the real program; ``docs/outages.rst`` shows the same rows.
``python -m tests.faults.table`` prints them for that page.
"""

from __future__ import annotations

import re
from gzip import compress
from typing import Any, Literal

import attrs

from tests.support.fake_index import Behavior

State = Literal["cold", "fresh", "expired", "restarted fresh", "restarted expired"]


@attrs.frozen
class Expected:
    """The response to a client: the page from before, or, without one, a line with the cause.

    :ivar x_cache: the ``X-Cache`` header; empty: none
    :ivar within: seconds that the first client waits at most; `then`: those after it
    """

    status: int
    x_cache: str
    within: float
    then: float

    def __str__(self) -> str:
        words = f"{self.status} ``{self.x_cache}``" if self.x_cache else f"{self.status}"
        if self.within <= AT_ONCE:
            return f"{words} at once"
        return f"{words} within {self.within:g} s{', then at once' * (self.then <= AT_ONCE)}"


_JSON = "application/vnd.pypi.simple.v1+json"
#: Seconds after an upstream's return in which clients get fresh pages at the latest.
SOON = 10.0
#: Seconds: what a busy machine needs for an answer that waits for nothing.
AT_ONCE = 1.0

HIT = Expected(200, "HIT", AT_ONCE, AT_ONCE)
STALE = Expected(200, "STALE", 5, AT_ONCE)
LATER = Expected(503, "", 10, 10)
NEVER = Expected(502, "", 10, 10)


@attrs.frozen
class Fault:
    """The fault of an upstream: of its connection, its name, or its responses.

    :ivar gate: ``clogged``: SYNs are dropped; ``plain``: it speaks no TLS where it should
    :ivar names: ``silent``: no name server answers
    :ivar private: whether proxpi has credentials for the index
    """

    behavior: Behavior = attrs.field(factory=Behavior)
    gate: Literal["open", "closed", "clogged", "plain", "expired", "untrusted"] = "open"
    names: Literal["known", "absent", "silent"] = "known"
    private: bool = False

    @property
    def tls(self) -> bool:
        return self.gate in ("plain", "expired", "untrusted")


def _does(**behavior: Any) -> Fault:
    return Fault(Behavior(**behavior))


def _says(status: int, retry_after: str | None = None, *, private: bool = False) -> Fault:
    headers = {"Content-Type": "text/plain", "Retry-After": retry_after}
    return Fault(Behavior(status=status, body=b"no", headers=headers), private=private)


def _sends(body: bytes, content_type: str = _JSON, *, gzip: bool = False) -> Fault:
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip" if gzip else None}
    return _does(body=body, headers=headers)


CUT = "the answer was cut short"
_LOGIN_PAGE = b"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login" method="post"><input name="user"><input type="password" name="password">
</form></body></html>"""
_IMAGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\6\0\0\0\x1f\x15\xc4\x89"
_EMPTY_PAGE = b'{"meta": {"api-version": "1.0"}, "name": "known", "files": [], "projects": []}'
_GZIP = compress(_EMPTY_PAGE, mtime=0)


@attrs.frozen
class Failure:
    """A row: what the upstream does, the response without a page, and a part of its text."""

    upstream: str
    cold: Expected
    cause: str
    fault: Fault

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.upstream.lower()).strip("-")

    @property
    def keeps_waiting(self) -> bool:
        """Whether most of its time is waiting, so that it should begin early."""
        silent = self.fault.gate == "clogged" or self.fault.names == "silent"
        behavior = self.fault.behavior
        return silent or behavior.hold or behavior.drip is not None

    def expected(self, state: State) -> Expected:
        """The expected response in a state; that of a cached page is the same in every failure."""
        return self.cold if state == "cold" else HIT if "fresh" in state else STALE


FAILURES = [
    Failure("refuses connections", LATER, "connection refused", Fault(gate="closed")),
    Failure("answers no attempt to connect", LATER, "timed out", Fault(gate="clogged")),
    Failure("accepts connections, and is silent", LATER, "timed out", _does(hold=True)),
    Failure("sends one byte per second", LATER, "timed out", _does(drip=1)),
    Failure(
        "resets the connection within a page", LATER, CUT, _does(truncate_after=60, reset=True)
    ),
    Failure("sends less than the announced length", LATER, CUT, _does(truncate_after=60)),
    Failure("does not end chunks", LATER, CUT, _does(truncate_after=60, chunked=True)),
    Failure("speaks plain HTTP where TLS is expected", LATER, "TLS failed", Fault(gate="plain")),
    Failure("shows an expired certificate", NEVER, "certificate", Fault(gate="expired")),
    Failure("shows an untrusted certificate", NEVER, "certificate", Fault(gate="untrusted")),
    Failure("has a name that is not found", LATER, "host name not found", Fault(names="absent")),
    Failure("has a name that no name server answers for", LATER, "", Fault(names="silent")),
    *(Failure(f"answers {n}", LATER, f"status {n}", _says(n)) for n in (500, 502, 503, 504)),
    *(
        Failure(f"answers {n} and ``Retry-After: 2``", LATER, f"status {n}", _says(n, "2"))
        for n in (503, 429)
    ),
    Failure("answers 401: it wants credentials", NEVER, "credentials rejected", _says(401)),
    Failure("answers 403 to credentials", NEVER, "credentials rejected", _says(403, private=True)),
    Failure("sends a login page", NEVER, "not a list of files", _sends(_LOGIN_PAGE, "text/html")),
    Failure("sends half a JSON page", NEVER, "JSON", _sends(_EMPTY_PAGE[:40])),
    Failure("sends 200 with nothing", NEVER, "empty", _sends(b"")),
    Failure("sends an image", NEVER, "neither JSON nor HTML", _sends(_IMAGE, "image/png")),
    Failure(
        "sends bad gzip", NEVER, "cannot be decompressed", _sends(_GZIP[:10] + b"x" * 9, gzip=True)
    ),
    Failure("sends half of a gzip", LATER, "cut short", _sends(_GZIP[:-20], gzip=True)),
]


def documented() -> str:
    """The table in reStructuredText, and a sentence on the states that are the same in each row."""
    lines = [
        f"A cached page gets the same response in each row. If it is fresh: {HIT}.",
        f"Past its time to live: {STALE}. After a restart: the same.",
        *("", ".. list-table::", "   :header-rows: 1", "   :widths: 50 50", ""),
        *("   * - The upstream …", "     - Nothing cached"),
    ]
    for each in FAILURES:
        text = f"{each.cold}: “{each.cause}”" if each.cause else f"{each.cold}"
        lines += [f"   * - … {each.upstream}", f"     - {text}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documented(), end="")
