"""The table of outages: how an upstream can fail, and what a client of proxpi gets then.

Each row is run against the real program; ``docs/outages.rst`` shows the same rows.
``python -m tests.faults.table`` prints them for that page.
"""

from __future__ import annotations

import gzip
from typing import Literal

import attrs

from tests.support.fake_index import Behavior

#: The states of a page when its upstream fails, and the docs' words for them.
STATES = {
    "cold": "Nothing cached",
    "fresh": "Fresh",
    "expired": "Past its time to live",
    "restarted": "After a restart",
}
State = Literal["cold", "fresh", "expired", "restarted fresh", "restarted expired"]


@attrs.frozen
class Expected:
    """What a client gets.

    :ivar x_cache: the ``X-Cache`` header; empty: none
    :ivar body: ``old page``: the very bytes from before; ``one line``: of text, with the cause
    :ivar within: seconds that the first client waits at most
    :ivar then: seconds that those after it wait at most
    """

    status: int
    x_cache: str
    body: Literal["old page", "one line"]
    within: float
    then: float

    def __str__(self) -> str:
        words = f"{self.status}"
        words += f" ``{self.x_cache}``" if self.x_cache else ""
        if self.within <= AT_ONCE:
            return words + " at once"
        words += f" within {self.within:g} s"
        return words + (", then at once" if self.then <= AT_ONCE else "")


#: Seconds after an upstream's return in which clients get fresh pages at the latest.
SOON = 10.0
#: Seconds: what a busy machine needs for an answer that waits for nothing.
AT_ONCE = 1.0

HIT = Expected(200, "HIT", "old page", AT_ONCE, AT_ONCE)
STALE = Expected(200, "STALE", "old page", 5, AT_ONCE)
LATER = Expected(503, "", "one line", 10, 10)
NEVER = Expected(502, "", "one line", 10, 10)


@attrs.frozen
class Trouble:
    """What is wrong: with the way to the index, with its name, or with its answers.

    :ivar gate: ``closed``, ``clogged`` (SYNs are dropped), ``plain`` (no TLS where it should
        be), ``expired`` or ``untrusted`` (the certificate)
    :ivar names: ``absent`` (the name does not exist) or ``silent`` (no name server answers)
    :ivar private: whether the index is asked with credentials
    """

    behavior: Behavior = attrs.field(factory=Behavior)
    gate: Literal["open", "closed", "clogged", "plain", "expired", "untrusted"] = "open"
    names: Literal["known", "absent", "silent"] = "known"
    private: bool = False

    @property
    def tls(self) -> bool:
        """Whether the index is asked over https."""
        return self.gate in ("plain", "expired", "untrusted")


def _says(status: int, **headers: str) -> Trouble:
    fields: dict[str, str | None] = {"Content-Type": "text/plain"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Trouble(Behavior(status=status, body=b"no", headers=fields))


def _sends(body: bytes, content_type: str, encoding: str | None = None) -> Trouble:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    return Trouble(Behavior(body=body, headers=headers))


_JSON = "application/vnd.pypi.simple.v1+json"
_LOGIN_PAGE = b"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login" method="post"><input name="user"><input type="password" name="password">
</form></body></html>"""
_IMAGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\6\0\0\0\x1f\x15\xc4\x89"
_EMPTY_PAGE = b'{"meta": {"api-version": "1.0"}, "name": "known", "files": [], "projects": []}'
_COMPRESSED = gzip.compress(_EMPTY_PAGE, mtime=0)


@attrs.frozen
class Failure:
    """A row of the table.

    :ivar upstream: what the upstream does, for the docs
    :ivar cause: a part of the response's line if there is no page
    """

    name: str
    upstream: str
    cold: Expected
    cause: str
    trouble: Trouble

    @property
    def keeps_waiting(self) -> bool:
        """Whether most of its time is waiting, so that it should begin early."""
        silent = self.trouble.gate == "clogged" or self.trouble.names == "silent"
        behavior = self.trouble.behavior
        return silent or behavior.hold or behavior.drip is not None

    def expected(self, state: State) -> Expected:
        """What is expected in a state; a cached page does not depend on the failure."""
        return self.cold if state == "cold" else HIT if "fresh" in state else STALE


# fmt: off
FAILURES = [
    Failure("refused", "refuses connections", LATER, "connection refused", Trouble(gate="closed")),
    Failure("dropped-syn", "answers no attempt to connect",
            LATER, "timed out", Trouble(gate="clogged")),
    Failure("silent", "accepts connections, and says nothing",
            LATER, "timed out", Trouble(Behavior(hold=True))),
    Failure("drip", "sends one byte per second", LATER, "timed out", Trouble(Behavior(drip=1))),
    Failure("reset", "resets the connection in the middle of a page",
            LATER, "the answer was cut short", Trouble(Behavior(truncate_after=60, reset=True))),
    Failure("cut-length", "sends less than the announced length",
            LATER, "the answer was cut short", Trouble(Behavior(truncate_after=60))),
    Failure("cut-chunks", "ends a chunked answer without its end",
            LATER, "the answer was cut short", Trouble(Behavior(truncate_after=60, chunked=True))),
    Failure("no-tls", "speaks plain HTTP where TLS is expected",
            LATER, "TLS failed", Trouble(gate="plain")),
    Failure("expired-certificate", "shows a certificate that has expired",
            NEVER, "certificate", Trouble(gate="expired")),
    Failure("untrusted-certificate", "shows a certificate of an unknown authority",
            NEVER, "certificate", Trouble(gate="untrusted")),
    Failure("name-absent", "has a name that is not found",
            LATER, "host name not found", Trouble(names="absent")),
    Failure("name-silent", "has a name that no name server answers for",
            LATER, "", Trouble(names="silent")),
    Failure("500", "answers 500", LATER, "status 500", _says(500)),
    Failure("502", "answers 502", LATER, "status 502", _says(502)),
    Failure("503", "answers 503", LATER, "status 503", _says(503)),
    Failure("504", "answers 504", LATER, "status 504", _says(504)),
    Failure("503-retry-after", "answers 503 and ``Retry-After: 2``",
            LATER, "status 503", _says(503, Retry_After="2")),
    Failure("429-retry-after", "answers 429 and ``Retry-After: 2``",
            LATER, "status 429", _says(429, Retry_After="2")),
    Failure("401", "answers 401: it wants credentials", NEVER, "credentials rejected", _says(401)),
    Failure("403", "answers 403 to proxpi's credentials",
            NEVER, "credentials rejected", attrs.evolve(_says(403), private=True)),
    Failure("login-page", "answers 200 with a login page",
            NEVER, "not a list of files", _sends(_LOGIN_PAGE, "text/html")),
    Failure("broken-json", "answers 200 with JSON that is none",
            NEVER, "JSON", _sends(b'{"meta": {"api-version": "1.0"}, "name": "kno', _JSON)),
    Failure("empty", "answers 200 with nothing", NEVER, "empty", _sends(b"", _JSON)),
    Failure("image", "answers 200 with an image",
            NEVER, "neither JSON nor HTML", _sends(_IMAGE, "image/png")),
    Failure("garbled-gzip", "answers 200 with gzip that is none",
            NEVER, "cannot be decompressed", _sends(_COMPRESSED[:10] + b"garbage", _JSON, "gzip")),
    Failure("cut-gzip", "answers 200 with gzip that stops in the middle",
            LATER, "cut short", _sends(_COMPRESSED[:-20], _JSON, "gzip")),
]
# fmt: on


def documented() -> str:
    """The table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 28 24 14 17 17", ""]
    cells = [["The upstream …", *STATES.values()]]
    for failure in FAILURES:
        cells.append(
            [
                f"… {failure.upstream}",
                f"{failure.cold}: “{failure.cause}”" if failure.cause else f"{failure.cold}",
                f"{HIT}",
                f"{STALE}",
                f"fresh: {HIT}; else {STALE}",
            ]
        )
    for row in cells:
        lines += [f"   {'  ' if number else '* '}- {cell}" for number, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documented(), end="")
