"""Measures ways for several processes to agree, each time, on whether an answer still holds.

Run it with the Python that has proxpi installed; it takes seconds, and a folder for temporary
files::

    .venv/bin/python benchmarks/sharing.py

Each row is what one answer would cost beside the answering itself, in processor time of both
processes:

* ``board``: a number in shared memory, as it is (:mod:`proxpi.workers.board`);
* ``lock``: the cache folder as the shared truth: a shared advisory lock on the page's file, and a
  look at it, ``flock`` and ``lstat``;
* ``ask``: a question to the process that knows, over a Unix socket, and its answer;
* ``move``: a connection that is handed to another process and back, which happens when what is
  asked on it changes from known to new or from new to known, and not for each answer.

``answer`` is what a ready answer costs without any of them, so the ratios say how much dearer it
would become.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.internet.task import Clock

from proxpi.web import direct
from proxpi.web.known import Draft, Known
from proxpi.workers.board import Board

TIMES = 20_000
BODY = os.urandom(4000)
HEAD = b"GET /index/demo/ HTTP/1.1\r\nHost: h\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: s\r\nDate: now\r\nCache-Control: public, max-age=60\r\n"
    b"Content-Length: 4000\r\n\r\n"
)


def spent() -> float:
    """Give the seconds that this process, and those that have ended, took of a processor."""
    own, ended = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def each(act: Callable[[], object]) -> float:
    """Give the microseconds that it takes."""
    before = spent()
    for _ in range(TIMES):
        act()
    return 1e6 * (spent() - before) / TIMES


def answer() -> float:
    """A ready answer, found and handed to a socket."""
    known, clock = Known(), Clock()
    known.learn((b"GET", b"/", ()), ANSWER, "", Draft(("demo",), 1e9, BODY))
    [learned] = known
    known.recognize(HEAD, learned)
    mine, theirs = socket.socketpair()

    def give() -> None:
        found = known.find(HEAD, clock.seconds())
        assert found is not None
        direct.give(mine, found.head(clock.seconds()), found)
        theirs.recv(8192)

    return each(give)


def board() -> float:
    """A look at a number that another process may change."""
    numbers = Board(2)
    numbers.holds[7] = 7
    return each(lambda: numbers.holds[7] == 7)


def lock(folder: Path) -> float:
    """A lock, and a look at the file that it is of."""
    path = folder / "demo.page"
    path.write_bytes(BODY)
    descriptor = os.open(path, os.O_RDONLY)

    def look() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.lstat(path)
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    return each(look)


def _with_child(
    answers: Callable[[socket.socket], None], act: Callable[[socket.socket], None]
) -> float:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = spent()
    child = os.fork()
    if not child:
        mine.close()
        answers(theirs)
        os._exit(0)
    theirs.close()
    for _ in range(TIMES):
        act(mine)
    mine.close()
    os.waitpid(child, 0)
    return 1e6 * (spent() - before) / TIMES


def ask() -> float:
    """A question to another process, which answers at once and has nothing else to do."""

    def answers(end: socket.socket) -> None:
        while question := end.recv(4096):
            end.send(question[:8])

    def act(end: socket.socket) -> None:
        end.send(HEAD)
        end.recv(8)

    return _with_child(answers, act)


def move() -> float:
    """A connection to another process, and back."""
    connection, _ = socket.socketpair()

    def answers(end: socket.socket) -> None:
        while True:
            packet, descriptors, _, _ = socket.recv_fds(end, 4096, 1)
            if not packet:
                return
            socket.send_fds(end, [packet], descriptors)
            os.close(descriptors[0])

    def act(end: socket.socket) -> None:
        socket.send_fds(end, [HEAD], [connection.fileno()])
        _, descriptors, _, _ = socket.recv_fds(end, 4096, 1)
        os.close(descriptors[0])

    return _with_child(answers, act)


def main() -> int:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        alone = answer()
        rows = {"board": board(), "lock": lock(Path(folder)), "ask": ask(), "move": move()}
    print(f"{'answer':8} {alone:8.2f} µs")
    for name, value in rows.items():
        print(f"{name:8} {value:8.2f} µs   {value / alone:6.2f} × answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
