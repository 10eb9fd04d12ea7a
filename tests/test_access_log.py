"""The lines of the access log: their parts, and that no client forges one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.access_log import MAX_SHOWN, AccessLog
from proxpi.web import accounting

CLIENT = "192.0.2.1"
HOSTILE = st.text(st.characters(max_codepoint=255)) | st.text('%s"\\\r\n\x1b {}\x00\xff,:')


def written(
    method: bytes = b"GET",
    path: bytes = b"/index/numpy/",
    request_id: str = "",
    *,
    as_json: bool = False,
    **wait: Any,
) -> str:
    """Return the one line of a request."""
    lines: list[str] = []
    log = AccessLog(lines.append, lines.append, as_json=as_json)
    template = log.template(method, path, 200, 5432, "miss", "page")
    log.write(template, CLIENT, 812, request_id, **wait)
    [line] = lines
    return line


def test_text() -> None:
    """As text a line has its parts separated by blanks."""
    line = written(request_id="5f3a2c-1", upstream=0.7909)
    assert line == "192.0.2.1 GET /index/numpy/ 200 5432 812ms MISS upstream=790ms id=5f3a2c-1"
    assert written(request_id="x") == "192.0.2.1 GET /index/numpy/ 200 5432 812ms MISS id=x"


def test_json() -> None:
    """As JSON a line is an object with these keys, and ``upstream_ms`` if it waited for one."""
    expected = {
        "client": CLIENT,
        "message": "GET /index/numpy/ 200",
        "method": "GET",
        "path": "/index/numpy/",
        "status": 200,
        "bytes": 5432,
        "outcome": "miss",
        "kind": "page",
        "ms": 812,
        "request_id": "x",
    }
    assert json.loads(written(request_id="x", as_json=True)) == expected
    line = written(request_id="x", as_json=True, upstream=0.7909)
    assert json.loads(line) == expected | {"upstream_ms": 790}


def test_levels() -> None:
    """A line of a health check goes to the log of that level."""
    lines: list[str] = []
    debug: list[str] = []
    log = AccessLog(lines.append, debug.append)
    log.write(("", ""), CLIENT, 0, debug=True)
    assert (len(lines), len(debug)) == (0, 1)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_forged(method: str, path: str, request_id: str) -> None:
    """Whatever a client sends: a request makes one line, in which each part is in its place."""
    sent = method.encode("latin-1"), path.encode("latin-1")
    line = written(*sent, request_id)
    assert line.isascii() and line.isprintable()
    parts = line.split(" ")
    assert (parts[0], parts[-5:-1]) == (CLIENT, ["200", "5432", "812ms", "MISS"])
    assert len(parts) == 8
    found = json.loads(written(*sent, request_id, as_json=True))
    assert (found["client"], found["status"], found["outcome"]) == (CLIENT, 200, "miss")
    assert (found["method"], found["path"]) == (parts[1], parts[2])
    assert re.fullmatch(r"[!#-~]{1,128}", found["request_id"])


@pytest.mark.parametrize("as_json", [False, True])
def test_long(as_json: bool) -> None:
    """Of a long path the beginning is shown, and that there is more."""
    assert "%25" + "a" * 97 in written(path=b"/%25" + b"a" * 97, as_json=as_json)
    line = written(path=b"/" * 10_000, method=b"x" * 10_000, as_json=as_json)
    assert "/" * MAX_SHOWN + "..." in line and len(line) < 5 * MAX_SHOWN


def test_documented() -> None:
    """The document on logs has each key and each outcome, and its example is one."""
    text = (Path(__file__).parents[1] / "docs/logs.rst").read_text()
    _, requests = text.split("Those of requests have these, too:")
    line = json.loads(written(request_id="x", as_json=True, upstream=0.79))
    keys = re.findall(r"^``(\w+)`` ", requests.partition(".. code-block")[0], re.MULTILINE)
    assert {*keys} == line.keys() - {"message"}
    example = json.loads(requests.partition("json\n\n")[2].partition("\n\n")[0])
    assert example.keys() == line.keys() | {"time", "level", "logger"}
    outcomes = {accounting.outcome(status, "") for status in (200, 302, 404, 499, 500)}
    outcomes |= {each.lower() for each in ("HIT", "MISS", "REVALIDATED", "STALE")}
    log = AccessLog(str, str)
    shown = {log.template(b"GET", b"/", 200, 0, each, "page")[1].split()[1] for each in outcomes}
    assert {*re.findall(r"^``([A-Z]+|-)``  ", text, re.MULTILINE)} == shown | {"GET", "MISS"}
