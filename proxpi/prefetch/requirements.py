"""Requirements of a project, read from core metadata for one client (PEP 508); pure.

A requirement counts if the client's resolver follows it: its marker is true for the client, with
one of the requested extras if it names one. A requirement by URL names no file of an index.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import attrs
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from proxpi.prefetch.client import applies
from proxpi.simple import names

#: Bytes of core metadata that are read: the fields stand before the description.
MAX_HEAD = 128 * 1024
#: Requirements that are read of one file; real ones have a few hundred.
MAX_REQUIREMENTS = 1000
#: Characters of one requirement; real ones have 400 at most.
MAX_LENGTH = 1000

_FIELD = re.compile(
    rb"^Requires-Dist:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE
)


@attrs.frozen
class Required:
    """What projects require of another one: specifiers of its version, and normalized extras."""

    specifiers: frozenset[str]
    extras: frozenset[str]

    def merge(self, other: Required) -> Required:
        return Required(self.specifiers | other.specifiers, self.extras | other.extras)


def read_requirements(metadata: bytes) -> list[Requirement]:
    """Read the ``Requires-Dist`` fields of core metadata; malformed ones are left out."""
    head = metadata[:MAX_HEAD].replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    found = []
    for number, field in enumerate(_FIELD.finditer(head)):
        if number == MAX_REQUIREMENTS:
            break
        requirement = _parse(field[1])
        if requirement is not None:
            found.append(requirement)
    return found


@lru_cache(maxsize=4096)
def _parse(field: bytes) -> Requirement | None:
    try:
        text = field.decode().replace("\n", " ")
        return Requirement(text) if len(text) <= MAX_LENGTH else None
    except (UnicodeDecodeError, InvalidRequirement, RecursionError):
        return None


def applicable(
    requirements: Iterable[Requirement],
    environment: Mapping[str, str] | None,
    extras: Collection[str] = (),
) -> dict[str, Required]:
    """
    Return the requirements that a client follows, by normalized name.

    :param environment: of the markers; see :func:`proxpi.prefetch.client.applies`
    :param extras: requested extras, normalized
    """
    followed: dict[str, Required] = {}
    for each in requirements:
        name = names.normalize(each.name)
        if each.url is not None or name is None:
            continue
        if not applies(each.marker, environment, extras):
            continue
        specifiers = frozenset((str(each.specifier),)) if each.specifier else frozenset[str]()
        required = Required(specifiers, frozenset(map(canonicalize_name, each.extras)))
        followed[name] = followed[name].merge(required) if name in followed else required
    return followed
