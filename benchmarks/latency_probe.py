"""Requests one path of a server every 10 ms and prints the maximal latency.

``clients.py`` starts it as a process. It prints ``ready``, sends requests until its standard input
ends, and prints the maximal latency in milliseconds.
"""

from __future__ import annotations

import http.client
import select
import sys
import time

INTERVAL = 0.01
#: Seconds until a response must be complete.
TIMEOUT = 120.0
HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json"}


def request(connection: http.client.HTTPConnection, path: str) -> float:
    """Return the seconds until a response is complete."""
    began = time.perf_counter()
    try:
        connection.request("GET", path, headers=HEADERS)
        response = connection.getresponse()
    except (ConnectionError, http.client.BadStatusLine):
        # A server may close a persistent connection at any time.
        connection.close()
        connection.request("GET", path, headers=HEADERS)
        response = connection.getresponse()
    response.read()
    if response.status != 200:
        sys.exit(f"status {response.status} for {path}")
    return time.perf_counter() - began


def main(port: int, path: str) -> None:
    """Probe until standard input ends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    for _ in range(10):  # warm-up
        request(connection, path)
    print("ready", flush=True)
    longest, due = 0.0, time.perf_counter()
    while True:
        longest = max(longest, request(connection, path))
        due = max(due + INTERVAL, time.perf_counter())
        if select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
            break
    print(max(longest, request(connection, path)) * 1e3, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
