"""The health check of the image: one request for ``/health`` where proxpi listens.

It runs every few seconds in a process of its own, so it imports little. As in proxpi itself, the
command line of proxpi has precedence over the environment, which both processes share. The request
goes to the first of several endpoints.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Sequence

from proxpi.gunicorn import translated

ENTRYPOINT = "/opt/proxpi/entrypoint.py"
#: Seconds for each step; the image allows 5 for all.
TIMEOUT = 3.0
#: Where to connect to for all addresses, by the kind of endpoint or by its interface.
_LOOPBACK = dict.fromkeys(("tcp", "ssl", "0.0.0.0"), "127.0.0.1")
_LOOPBACK |= dict.fromkeys(("tcp6", "::"), "::1")
_PART = re.compile(r"((?:\\.|[^:\\])*)(?::|$)")


def main() -> None:
    endpoint = listens(arguments(), os.environ.get("PROXPI_LISTEN") or "tcp:5000")
    try:
        status = ask(endpoint)
    except (OSError, ValueError) as error:
        sys.exit(f"{endpoint}: {error}")
    if " 200 " not in status:
        sys.exit(f"{endpoint}: {status or 'no response'}")
    print(status)


def arguments() -> list[str]:
    """Return the command line of proxpi, which is not the first process beside an init."""
    for process in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{process}/cmdline", errors="replace") as file:
                words = file.read().split("\0")
        except OSError:  # it has ended
            continue
        if ENTRYPOINT in words:
            return words[words.index(ENTRYPOINT) + 1 :]
    return []


def listens(words: Sequence[str], otherwise: str) -> str:
    """Return the first endpoint string of a command line."""
    options, _ = translated(words)
    for number, word in enumerate(options):
        if word.startswith("--listen="):
            return word.partition("=")[2]
        if word == "--listen":
            return "".join(options[number + 1 : number + 2])
    return otherwise


def ask(endpoint: str) -> str:
    """
    Return the status line of the response to ``GET /health``.

    :param endpoint: a Twisted server endpoint string
    :raises ValueError: for a kind of endpoint that cannot be asked from here
    """
    parts = [re.sub(r"\\(.)", r"\1", part) for part in _PART.findall(endpoint)]
    request = b"GET /health HTTP/1.0\r\n\r\n"
    if parts[0] == "haproxy":
        del parts[0]
        request = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n" + request
    kind, *rest = parts
    keywords = dict(part.split("=", 1) for part in rest if "=" in part)
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        connection.connect(keywords.get("address", rest[0]))
    elif kind in ("tcp", "tcp6", "ssl"):
        host = keywords.get("interface", "")
        host = _LOOPBACK.get(host or kind, host)
        connection = socket.create_connection((host, int(keywords.get("port", rest[0]))), TIMEOUT)
    else:
        raise ValueError("there is no health check of such an endpoint; start without it")
    with connection:
        if kind == "ssl":
            import ssl  # most containers do without

            # The certificate is for names that clients use, not for this address.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        connection.sendall(request)
        return connection.makefile("rb").readline().decode(errors="replace").strip()


if __name__ == "__main__":
    main()
