"""The answer to options of gunicorn, with which the program that proxpi replaces was started.

``docker run IMAGE --bind 0.0.0.0:5000 --threads 4`` ends with one line that says what to write
instead. Pure functions, without state.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

_BIND = ("-b", "--bind")
_OTHERS = re.compile(
    r"-[ktw]|--(access-log(file|format)|backlog|ca-certs|capture-output|certfile|chdir|config|"
    r"daemon|env|error-logfile|forwarded-allow-ips|graceful-timeout|group|keep-alive|keyfile|"
    r"log-(config|file|level)|max-requests(-jitter)?|name|pid|preload|proxy-protocol|reload|"
    r"statsd-host|threads|timeout|umask|user|worker-(class|connections|tmp-dir)|workers)"
)


def answer(arguments: Sequence[str]) -> str | None:
    """Give the line that says what to write instead; ``None`` if no option is gunicorn's."""
    found: list[str] = []
    address = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            name, equals, value = argument[:2], argument[2:], argument[2:]
        if (name in _BIND or _OTHERS.fullmatch(name)) and name not in found:
            found.append(name)
            if name in _BIND:
                address = value if equals else following
    if not found:
        return None
    *most, last = found
    names = f"{', '.join(most)} and {last} are options" if most else f"{last} is an option"
    replaced = [name for name in found if name in _BIND]
    advice = [f"write --listen '{_endpoint(address)}' in place of {name}" for name in replaced[:1]]
    if len(found) > len(replaced):
        advice.append(f"leave {'the rest' if replaced else 'them' if most else 'it'} out")
    return f"{names} of gunicorn, which does not run proxpi: {' and '.join(advice)}"


def _endpoint(address: str) -> str:
    """Give the endpoint string for an address as gunicorn takes it."""
    if address.startswith("unix:"):
        return address
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()):
        host, port = address, "5000"
    try:
        interface = ipaddress.ip_address(host.strip("[]").replace("localhost", "127.0.0.1"))
    except ValueError:
        return f"tcp:{port}"
    if interface == ipaddress.IPv4Address(0):
        return f"tcp:{port}"
    return f"tcp:{port}:interface=" + str(interface).replace(":", "\\:")
