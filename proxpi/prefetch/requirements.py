"""Requirements of a project, read from core metadata for one client (PEP 508); pure.

A requirement counts if the client's resolver follows it: its marker is true for the client, with
one of the requested extras if it names one. A requirement by URL names no file of an index.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import attrs
from packaging import requirements as pep508
from packaging.markers import Marker
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
    """The requirements of projects on another one: specifiers of its version, normalized extras."""

    specifiers: frozenset[str]
    extras: frozenset[str]

    def merge(self, other: Required) -> Required:
        return Required(self.specifiers | other.specifiers, self.extras | other.extras)


@attrs.frozen(eq=False)
class Requirement:
    """A requirement, as small as a client run keeps thousands of them.

    :ivar name: of the required project, normalized
    :ivar marker: says for which clients and extras it counts; ``None``: for all
    """

    name: str
    required: Required
    marker: Marker | None

    @classmethod
    def parse(cls, text: str) -> Requirement | None:
        """Parse a requirement; ``None`` for one that is malformed, or names no file of an index."""
        try:
            parsed = pep508.Requirement(text)
        except (pep508.InvalidRequirement, RecursionError):
            return None
        name = names.normalize(parsed.name)
        if parsed.url is not None or name is None:
            return None
        extras = frozenset(map(canonicalize_name, parsed.extras))
        marker = _shared(parsed.marker) if parsed.marker is not None else None
        return cls(name, _required(str(parsed.specifier), extras), marker)


@lru_cache(maxsize=4096)
def _required(specifier: str, extras: frozenset[str]) -> Required:
    return Required(frozenset((specifier,) if specifier else ()), extras)


@lru_cache(maxsize=4096)
def _shared(marker: Marker) -> Marker:
    """Return the first of equal markers."""
    return marker


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


@lru_cache(maxsize=16384)
def _parse(field: bytes) -> Requirement | None:
    try:
        text = field.decode().replace("\n", " ")
    except UnicodeDecodeError:
        return None
    return Requirement.parse(text) if len(text) <= MAX_LENGTH else None


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
        if applies(each.marker, environment, extras):
            before = followed.get(each.name)
            followed[each.name] = before.merge(each.required) if before else each.required
    return followed
