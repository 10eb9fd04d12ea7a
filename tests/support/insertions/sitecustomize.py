"""Imported by Python before anything else, if this folder is on its path: see ``inside.py``."""

from __future__ import annotations

import _socket
import os
import re
import sys
import threading
import time

#: What Python tells of before it happens: all that leaves the process.
_SPEAKING = {
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "socket.sendmsg",
    "socket.sendto",
}


def _listen_in(notes: str) -> None:
    """Write down what goes out."""
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def overhear(event: str, arguments: tuple[object, ...]) -> None:
        # Without an address it goes to who is connected already, as with `send`, of which Python
        # tells nothing.
        if event in _SPEAKING and (event != "socket.sendmsg" or arguments[1] is not None):
            about = [each for each in arguments if not isinstance(each, _socket.socket)]
            os.write(descriptor, f"{event} {about}\n".encode())

    sys.addaudithook(overhear)


def _hang_up_clock(path: str) -> None:
    """Shift the wall clock by the seconds that a file states."""
    real = time.time

    def wall_clock() -> float:
        with open(path, encoding="ascii") as file:
            return real() + float(file.read())

    time.time = wall_clock


def _hang(threads: str) -> None:
    """Let new threads with such names never end, and never do what they are for."""

    def hang(*_: object) -> None:
        if re.search(threads, threading.current_thread().name):
            while True:
                time.sleep(0.01)
        sys.setprofile(None)

    threading.setprofile(hang)


if notes := os.environ.get("OVERHEARD"):
    _listen_in(notes)
if clock := os.environ.get("WALL_CLOCK"):
    _hang_up_clock(clock)
if threads := os.environ.get("HUNG_THREADS"):
    _hang(threads)
