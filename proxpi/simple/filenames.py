"""The project in the name of a distribution's file (PEP 427, PEP 625, and what came before); pure.

A folder of files has no pages that say which file belongs to which project: the names have to.
"""

from __future__ import annotations

import re

from proxpi.simple import names, versions

#: Endings of the names of distributions, those that installers have ceased to take among them.
_INSTALLERS = (".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg")
SUFFIXES = (".whl", ".whlx", *versions.SDISTS, *_INSTALLERS, "-variants.json")
#: What follows the version in the names of eggs, installers and packages of systems.
_PLATFORM = re.compile(
    r"(?:[.-](?:win32|win-amd64|linux|macosx|noarch|src|x86_64|i[3-6]86|amd64|all)\b.*"
    r"|-py[23](?:\.\d+)?(?:-.*)?)\Z",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-(?=v?\d)", re.IGNORECASE)


def project_of(filename: str, folder: str | None = None) -> str | None:
    """
    Return the normalized name of the project of a file; ``None`` if that cannot be told.

    =================================  ========  ==================================================
    File                               Folder    Project
    =================================  ========  ==================================================
    ``Foo_Bar-1.0-py3-none-any.whl``   any       foo-bar
    ``foo-bar-1.0.tar.gz``             any       foo-bar: the version is the longest that there is
    ``foo-1.0-1.tar.gz``               any       foo, version 1.0.post1
    ``foo-1-2.tar.gz``                 foo-1     foo-1: the folder decides where two are possible
    ``foo-1.0.win32-py2.7.exe``        any       foo
    ``foo.zip``, ``latest.tar.gz``     (none)    ``None``: no client could tell its version
    ``foo.zip``, ``latest.tar.gz``     foo       foo
    ``notes.txt``                      foo       ``None``
    =================================  ========  ==================================================

    :param folder: the normalized name of the project's own folder, if the file lies in one
    """
    lower = filename.lower()
    suffix = next((each for each in SUFFIXES if lower.endswith(each)), None)
    if suffix is None or len(filename) > versions.MAX_LENGTH:
        return None
    stem = filename[: -len(suffix)]
    if suffix in (".whl", ".whlx"):
        name = stem.partition("-")[0] if "-" in stem else ""
        return names.normalize(name) or folder
    if suffix in _INSTALLERS and (first := _NUMBER.search(stem)) is not None:
        stem = stem[: first.end()] + _PLATFORM.sub("", stem[first.end() :])
    starts = [found.start() for found in _NUMBER.finditer(stem)]
    valid = [each for each in starts if versions.version(stem[each + 1 :]) is not None]
    possible = [names.normalize(stem[:each]) for each in valid or starts]
    found = [name for name in possible if name is not None]
    return folder if not found or folder in found else found[0]
