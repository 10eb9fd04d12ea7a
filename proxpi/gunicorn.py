"""Options of gunicorn and flask, which run the original proxpi, as options of proxpi.

Containers of the original have arguments of gunicorn. proxpi translates an address to
``--listen``, and ignores options without an effect on responses, each with a warning that names
the replacement. It refuses options for TLS, since it would serve clients without TLS otherwise, and
options of flask, whose command proxpi does not have. This module has no side effects and imports
nothing of proxpi: the health check of the image uses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ONE_PROCESS = "one process of proxpi serves all clients"
_LIMITS = "proxpi has time-outs and limits of its own"
_LOG = "proxpi writes one log to the standard output (PROXPI_LOGGING_LEVEL, PROXPI_LOG_FORMAT)"
#: Options without effect, each with its reason.
_WITHOUT_EFFECT = {
    **dict.fromkeys(("--preload", "--reload", "--threads", "--workers"), _ONE_PROCESS),
    **dict.fromkeys(("--worker-class", "--worker-connections", "--worker-tmp-dir"), _ONE_PROCESS),
    **dict.fromkeys(("--max-requests", "--max-requests-jitter"), _ONE_PROCESS),
    **dict.fromkeys(("--backlog", "--keep-alive", "--timeout"), _LIMITS),
    **dict.fromkeys(("--access-logfile", "--access-logformat", "--capture-output"), _LOG),
    **dict.fromkeys(("--error-logfile", "--log-config", "--log-file", "--log-level"), _LOG),
    "--graceful-timeout": "--drain-timeout is the option of proxpi",
}
_TLS = "--listen=ssl:5000:privateKey=KEYFILE:certKey=CERTFILE serves TLS"
_ADDRESSES = "--listen=tcp:5000 serves all addresses, --listen=tcp:5000:interface=127.0.0.1 one"
#: Refused options, each with its program and what to write.
_REFUSED = {
    **dict.fromkeys(("--certfile", "--keyfile"), ("gunicorn", _TLS)),
    **dict.fromkeys(("--cert", "--key"), ("flask", _TLS)),
    **dict.fromkeys(("--host", "--port"), ("flask", _ADDRESSES)),
}
_SHORT = {"-b": "--bind", "-k": "--worker-class", "-t": "--timeout", "-w": "--workers"}
_WITHOUT_VALUE = ("--capture-output", "--preload", "--reload")
_OPTION = re.compile(r"(--[a-z-]+)(?:=(.*))?|(-[bktw])(.*)", re.DOTALL)
#: ``HOST:PORT``: a host with a dot, ``localhost`` or none.
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]:|([\w-]*\.[\w.-]*|localhost|):|)(\d+)")


class NotTranslated(ValueError):
    """An option without an equivalent in proxpi; the text is the error line for the operator."""


def endpoint(address: str) -> str | None:
    """Translate an address to an endpoint string of Twisted; ``None`` if it is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    ipv6, host, port = match.groups("")
    interface = (ipv6 or host).replace("localhost", "127.0.0.1").replace(":", r"\:")
    one = "" if interface in ("", "0.0.0.0", r"\:\:") else f":interface={interface}"
    return f"tcp{'6' if ipv6 else ''}:{port}{one}"


def translated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Return a command line with options of proxpi alone, and a warning for each one of gunicorn.

    :raises NotTranslated: for one that cannot be translated
    """
    options, warnings = list[str](), list[str]()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        match = _OPTION.fullmatch(argument)
        name = (match[1] or _SHORT[match[3]]) if match else ""
        if match is None or name not in {"--bind", *_REFUSED, *_WITHOUT_EFFECT}:
            options.append(argument)
            continue
        value = match[2] if match[1] else match[4] or None
        has_next = bool(rest) and (rest[0] == "-" or not rest[0].startswith("-"))
        if value is None and has_next and name not in _WITHOUT_VALUE:
            value = rest.pop(0)
        if name in _REFUSED:
            program, instead = _REFUSED[name]
            raise NotTranslated(
                f"{name} is an option of {program}, which does not run proxpi; {instead}"
            )
        written = name if match[1] else match[3]
        if name == "--bind":
            listen = _listen(written, value or "")
            options.append(listen)
            warnings.append(f"{written} {value} is an option of gunicorn: write {listen}")
        else:
            warnings.append(
                f"{written} is an option of gunicorn and has no effect: {_WITHOUT_EFFECT[name]}; "
                "leave it out"
            )
    return options, warnings


def _listen(written: str, address: str) -> str:
    meant = address if address.startswith("unix:/") else endpoint(address)
    if meant is None:
        raise NotTranslated(
            f"{written}={address!r}, an option of gunicorn: not understood; "
            "an address with a port is accepted, or --listen=tcp:5000 in its place"
        )
    return f"--listen={meant}"
