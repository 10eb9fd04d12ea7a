"""Samples are counted by function."""

from __future__ import annotations

from profiler import Spent, spent, table

STACKS = [
    "run (app.py:1);ReactorBase.mainLoop (base.py:2);read (tcp.py:3);parse (http.py:4) 6",
    "run (app.py:1);ReactorBase.mainLoop (base.py:2);read (tcp.py:3);parse (http.py:5) 1",
    "run (app.py:1);ReactorBase.mainLoop (base.py:2);read (tcp.py:9) 1",
    "Thread._bootstrap (threading.py:1);compress (gzip.py:7) 2",
    "Thread._bootstrap (threading.py:1);Condition.wait (threading.py:8) 90",
    "run (app.py:1);import (importlib.py:2) 90",
]


def test_a_function_has_own_and_total_time() -> None:
    """Samples of the start and of idle threads are ignored; the hottest line is given."""
    assert spent(STACKS)[:3] == [
        Spent("parse (http.py)", 0.7, 0.7, 4),
        Spent("compress (gzip.py)", 0.2, 0.2, 7),
        Spent("read (tcp.py)", 0.1, 0.8, 9),
    ]


def test_the_table() -> None:
    """The table has the requested number of rows below its header, and none without samples."""
    assert spent(STACKS[-2:]) == []
    lines = table(spent(STACKS), 1).splitlines()
    assert len(lines) == 2
    assert "parse (http.py)" in lines[1]
