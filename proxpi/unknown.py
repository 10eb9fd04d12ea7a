"""Environment variables that look like settings and have no effect.

A misspelt variable would start proxpi with a default that nobody wanted. So the start logs one
warning for each such variable, with the name of the setting that was probably meant. Values are
never shown: a misspelt name may hold a password. Pure functions, without state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches

_PREFIX = "PROXPI_"
_FILE = "_FILE"
_LISTEN = "PROXPI_LISTEN says where to listen"
#: The similarity from which on a name is probably another one misspelt (1: the same).
_ALIKE = 0.5
#: Names whose reason is known: settings of earlier releases and of the original's surroundings.
RETIRED = {
    "PROXPI_WORKERS": "proxpi serves from one process, which needs nothing in its place; unset it",
    "PROXPI_BIND": _LISTEN,
    "PROXPI_HOST": _LISTEN,
    "PROXPI_PORT": _LISTEN,
    "GUNICORN_CMD_ARGS": f"gunicorn is not what runs proxpi; {_LISTEN}",
}
# Kubernetes sets these for a service that is called proxpi, and Docker for a linked container.
_OF_THE_PLATFORM = re.compile(
    r"PROXPI_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)=|"
    r"PROXPI_PORT=\w+://"
)


def ineffective(
    environment: Mapping[str, str], plain: Iterable[str], secret: Iterable[str]
) -> Iterator[str]:
    """
    Give one line for each variable that is set to something and has no effect.

    :param plain: the variables of settings
    :param secret: the variables of settings that may be given as a file, too
    """
    known = {*plain, *secret, *(variable + _FILE for variable in secret)}
    for name, value in sorted(environment.items()):
        if not value or name in known or _OF_THE_PLATFORM.match(f"{name}={value}"):
            continue
        if name in RETIRED or name.upper().startswith(_PREFIX):
            yield f"{name} has no effect: {_reason(name, known)}"


def _reason(name: str, known: set[str]) -> str:
    if name in RETIRED:
        return RETIRED[name]
    if name.removesuffix(_FILE) in known:
        return f"only what may hold a secret is read from a file; set {name.removesuffix(_FILE)}"
    # Compared without the prefix, which would make all of them resemble each other.
    endings = [variable.removeprefix(_PREFIX) for variable in sorted(known)]
    ending = name.upper().removeprefix(_PREFIX)
    [nearest] = get_close_matches(ending, endings, n=1, cutoff=0.0)
    if SequenceMatcher(a=nearest, b=ending).ratio() < _ALIKE:
        return f"there is no such setting (the nearest name is {_PREFIX}{nearest})"
    return f"there is no such setting; did you mean {_PREFIX}{nearest}?"
