"""Asks a server for one path every 10 ms, and tells how long it waited at worst.

``load.py`` starts it, in a process of its own. It prints ``ready``, asks until its standard
input ends, and prints the longest that it waited, in milliseconds.
"""

from __future__ import annotations

import http.client
import select
import sys
import time

INTERVAL = 0.01
#: Seconds after which a server is given up.
GUARD = 120.0
HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json"}


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Ask once, and give the seconds until the whole answer was here."""
    began = time.perf_counter()
    try:
        connection.request("GET", path, headers=HEADERS)
        answer = connection.getresponse()
    except (ConnectionError, http.client.BadStatusLine):
        # A server may end a connection that it has kept; it is to take a new one at once.
        connection.close()
        connection.request("GET", path, headers=HEADERS)
        answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        sys.exit(f"{path} is answered with status {answer.status}")
    return time.perf_counter() - began


def main(port: int, path: str) -> None:
    """Probe until there is no more input."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
    for _ in range(10):  # nothing is counted before both ends have done it a few times
        ask(connection, path)
    print("ready", flush=True)
    worst, due = 0.0, time.perf_counter()
    while True:
        worst = max(worst, ask(connection, path))
        due = max(due + INTERVAL, time.perf_counter())
        if select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
            break
    # What is under way at the end is still to be waited for.
    print(max(worst, ask(connection, path)) * 1e3, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
