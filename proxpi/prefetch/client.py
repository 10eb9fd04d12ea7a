"""The statement of a client in ``User-Agent``: a pure function of that header.

The next requests of a client depend on its Python and its platform: by them requirements apply
(PEP 508), and wheels fit (PEP 425). pip and uv state both, as JSON
behind their own name and version; poetry and pdm state Python and system, in words. The statement
is that of the running interpreter, also with ``--platform`` or ``--python-platform``. It does not
tell a free-threaded build, nor a 32-bit interpreter of a 64-bit system: the usual build is assumed.

Nothing here reads the running interpreter or system: ``packaging.tags`` gets every argument.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, product

import attrs
import msgspec
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, generic_tags, mac_platforms
from packaging.version import Version

#: Tags of one wheel: one whose name stands for more fits no client. Real ones have a few dozen.
MAX_TAGS = 500
#: Minor versions of Python 3 are below this one.
MAX_MINOR = 100
#: The first pip that requests the metadata that JSON pages advertise (PEP 658).
_PIP_READS_METADATA = (23, 2)
#: Subcommands of uv that download no file. uv states its subcommand since 0.9.14, pip does not.
_RESOLVE_ONLY = (
    *(["lock"], ["export"], ["tree"], ["audit"]),
    *(["pip", "compile"], ["pip", "list"], ["pip", "tree"]),
)
_INSTALLERS = ("pip", "uv", "poetry", "pdm")
#: ``platform_system`` to ``os_name`` and ``sys_platform``.
_SYSTEMS = {
    "Linux": ("posix", "linux"),
    "Darwin": ("posix", "darwin"),
    "Windows": ("nt", "win32"),
}
_WINDOWS = {"AMD64": "win_amd64", "ARM64": "win_arm64", "x86": "win32"}
#: ``platform_python_implementation`` to ``implementation_name``.
_IMPLEMENTATIONS = {"CPython": "cpython", "PyPy": "pypy"}
_IN_WORDS = re.compile(r"CPython/(?P<python>\S+) (?P<system>[A-Za-z]+)/(?P<release>\S+)")
_MAJOR_MINOR = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})(?![0-9])")
_PLATFORM = re.compile(
    r"(?:manylinux_2_(?P<glibc>[0-9]{1,2})|(?P<alias>manylinux(?:1|2010|2014))"
    r"|musllinux_1_(?P<musl>[0-9]{1,2}))_(?P<cpu>[a-z][a-z0-9_]{2,15})"
    r"|macosx_(?P<major>1[0-9]|[2-9][0-9])_(?P<minor>[0-9]{1,2})_(?P<mac>arm64|x86_64)"
    r"|(?P<other>win_amd64|win_arm64|win32|linux_[a-z][a-z0-9_]{2,15})"
)
#: Minor versions of glibc 2 whose tag had another name before PEP 600.
_ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
_GLIBC_OF_ALIAS = {alias: minor for minor, alias in _ALIASES.items()}


class WheelTags(Mapping[str, int]):
    """The wheel tags that fit an interpreter, the best first: a mapping from tag to rank.

    They are thousands, and the product of few pairs of interpreter and ABI with few platforms: so
    only pairs and platforms are kept.
    """

    def __init__(self, tags: Iterable[str], platforms: Iterable[str]) -> None:
        """Expand the ``*`` that stands for the platform in some of the tags."""
        self._platforms = {platform: n for n, platform in enumerate(dict.fromkeys(platforms))}
        self._ranks: dict[str, int] = {}  # each of the tags to the rank of the first it stands for
        self._length = 0
        for tag in dict.fromkeys(tags):
            self._ranks[tag] = self._length
            self._length += len(self._platforms) if tag.endswith("-*") else 1

    def __getitem__(self, tag: str) -> int:
        pair, _, platform = tag.rpartition("-")
        if platform == "any":
            return self._ranks[tag]
        return self._ranks[f"{pair}-*"] + self._platforms[platform]

    def __iter__(self) -> Iterator[str]:
        for tag in self._ranks:
            if tag.endswith("-*"):
                yield from (tag[:-1] + platform for platform in self._platforms)
            else:
                yield tag

    def __len__(self) -> int:
        return self._length


@attrs.frozen
class Client:
    """The statement of one ``User-Agent``."""

    #: ``pip``, ``uv``, ``poetry`` or ``pdm``; empty if unknown.
    installer: str = ""
    #: Release numbers of the installer, without pre-release and the like; empty if unknown.
    version: tuple[int, ...] = ()
    #: The marker environment (PEP 508) as far as it is stated, for :func:`applies`; ``None`` if the
    #: client states no Python. No client states ``platform_version``, and so that key is missing.
    environment: Mapping[str, str] | None = None
    #: Wheel tags that fit, and their ranks. ``None`` if the client states no platform.
    ranks: Mapping[str, int] | None = attrs.field(default=None, repr=False)
    #: Whether the client resolves, and will request no file to install.
    resolves_only: bool = False
    #: Whether the client requests core metadata that a page advertises.
    reads_metadata: bool = True

    @property
    def downloads_in_turn(self) -> bool:
        """Whether the client requests one file after the other, as pip does; uv requests all."""
        return self.installer == "pip"

    def rank(self, filename: str) -> int | None:
        """Return the best rank of a wheel's tags: 0 is the best of all.

        It is ``None`` if the wheel does not fit, if the file is no wheel, or if the client states
        no platform.
        """
        if not (self.ranks and filename.endswith(".whl") and filename.count("-") in (4, 5)):
            return None
        pythons, abis, platforms = (
            part.split(".") for part in filename[:-4].lower().split("-")[-3:]
        )
        if len(pythons) * len(abis) * len(platforms) > MAX_TAGS:
            return None
        ranks = map(self.ranks.get, map("-".join, product(pythons, abis, platforms)))
        return min((rank for rank in ranks if rank is not None), default=None)


UNKNOWN = Client()


class _Named(msgspec.Struct):
    name: str | None = None
    version: str | None = None


class _Libc(msgspec.Struct):
    lib: str | None = None
    version: str | None = None


class _Distribution(_Named):
    libc: _Libc | None = None


class _System(msgspec.Struct):
    name: str | None = None
    release: str | None = None


class _Installer(msgspec.Struct):
    subcommand: list[str] | None = None


class _Statement(msgspec.Struct):
    """The JSON of pip and uv, as far as it is used; other keys are skipped."""

    python: str | None = None
    implementation: _Named | None = None
    system: _System | None = None
    cpu: str | None = None
    distro: _Distribution | None = None
    installer: _Installer | None = None


_DECODER = msgspec.json.Decoder(_Statement)


@lru_cache(maxsize=256)
def read_user_agent(user_agent: str) -> Client:
    """Return what the client states: `UNKNOWN` for the text of any other client."""
    head, _, rest = user_agent.partition(" ")
    installer, _, text = head.partition("/")
    if installer not in _INSTALLERS:
        return UNKNOWN
    try:
        version = Version(text).release
        statement = _DECODER.decode(rest) if rest.startswith("{") else _in_words(rest)
        environment = _environment(statement)
        ranks = _ranks(statement, environment)
    except (ValueError, RecursionError):  # also those of msgspec and packaging
        return UNKNOWN
    subcommand = statement.installer and statement.installer.subcommand
    return Client(
        installer=installer,
        version=version,
        environment=environment,
        ranks=ranks,
        resolves_only=subcommand in _RESOLVE_ONLY,
        reads_metadata=installer != "pip" or version >= _PIP_READS_METADATA,
    )


def _in_words(text: str) -> _Statement:
    """Read the statement of poetry and pdm: ``CPython/3.11.7 Linux/6.1``.

    For PyPy, poetry and pdm state different versions: that statement is not read.
    """
    words = _IN_WORDS.fullmatch(text)
    if words is None:
        return _Statement()
    return _Statement(
        python=words["python"],
        implementation=_Named("CPython", words["python"]),
        system=_System(words["system"], words["release"]),
    )


def _environment(statement: _Statement) -> dict[str, str] | None:
    if statement.python is None:
        return None
    python = _python(statement.python)
    implementation = statement.implementation or _Named()
    system = statement.system or _System()
    os_name, sys_platform = _SYSTEMS.get(system.name or "", (None, None))
    stated = {
        "implementation_name": _IMPLEMENTATIONS.get(implementation.name or ""),
        "implementation_version": implementation.version,
        "os_name": os_name,
        "platform_machine": statement.cpu,
        "platform_python_implementation": implementation.name,
        "platform_release": system.release,
        "platform_system": system.name,
        "python_full_version": str(python),
        "python_version": f"{python.major}.{python.minor}",
        "sys_platform": sys_platform,
    }
    return {key: value for key, value in stated.items() if value is not None}


def _ranks(
    statement: _Statement, environment: Mapping[str, str] | None
) -> Mapping[str, int] | None:
    platform = _platform(statement)
    if environment is None or platform is None:
        return None
    try:
        platforms = platforms_of(platform)
    except ValueError:  # a CPU or a version that no wheel is for
        return None
    implementation = environment.get("platform_python_implementation", "")
    return wheel_tags(environment["python_version"], implementation, platforms)


def _platform(statement: _Statement) -> str | None:
    """Return the newest platform tag that fits the client; ``None`` if it is not stated."""
    system = statement.system and statement.system.name
    distribution = statement.distro or _Distribution()
    libc = distribution.libc or _Libc()
    if not statement.cpu:
        return None
    if system == "Windows":
        return _WINDOWS.get(statement.cpu)
    if system == "Darwin" and (version := _MAJOR_MINOR.match(distribution.version or "")):
        # A Python that was built for an older macOS reads 10.16 on macOS 11 and newer ones.
        major, minor = ("11", "0") if version[0] == "10.16" else version.groups()
        return f"macosx_{major}_{minor}_{statement.cpu}"
    if system == "Linux" and (version := _MAJOR_MINOR.match(libc.version or "")):
        kind = {"glibc": "manylinux", "musl": "musllinux"}.get(libc.lib or "")
        return kind and f"{kind}_{version[1]}_{version[2]}_{statement.cpu}"
    if system == "Linux" and distribution.name == "Alpine Linux":
        return f"musllinux_1_2_{statement.cpu}"  # pip does not see musl
    return None


def platforms_of(platform_tag: str) -> list[str]:
    """Return the platform tags that fit a system, the newest first, as ``packaging.tags`` does.

    :param platform_tag: the newest one, for example ``manylinux_2_28_x86_64`` (PEP 600),
        ``manylinux2014_aarch64``, ``musllinux_1_2_x86_64`` (PEP 656), ``macosx_14_0_arm64``,
        ``win_amd64``, ``linux_x86_64``.
    :raises ValueError: if it is none of these forms.
    """
    found = _PLATFORM.fullmatch(platform_tag)
    if found is None:
        raise ValueError(
            f"{platform_tag[:100]!r} is not a platform tag: use one such as manylinux_2_28_x86_64,"
            " musllinux_1_2_aarch64, macosx_14_0_arm64 or win_amd64"
        )
    if found["other"]:
        return [found["other"]]
    if found["mac"]:
        return [*mac_platforms((int(found["major"]), int(found["minor"])), found["mac"])]
    cpus = ["armv8l", "armv7l"] if found["cpu"] == "armv8l" else [found["cpu"]]
    if found["musl"]:
        libcs = [f"musllinux_1_{minor}" for minor in range(int(found["musl"]), -1, -1)]
    else:
        newest = int(found["glibc"] or _GLIBC_OF_ALIAS[found["alias"]])
        oldest = 5 if found["cpu"] in ("x86_64", "i686") else 17
        libcs = [
            libc
            for minor in range(newest, oldest - 1, -1)
            for libc in (f"manylinux_2_{minor}", _ALIASES.get(minor))
            if libc
        ]
    return [f"linux_{cpu}" for cpu in cpus] + [f"{libc}_{cpu}" for cpu in cpus for libc in libcs]


def wheel_tags(python: str, implementation: str, platforms: Sequence[str]) -> WheelTags:
    """Return the wheel tags that fit an interpreter, with their ranks: 0 is the best.

    :param python: ``3.12``, or a full version.
    :param implementation: ``platform_python_implementation``. One other than CPython and PyPy has
        tags of its own that are unknown: it gets those of any Python.
    :param platforms: those of the system, the best first; see :func:`platforms_of`.
    :raises ValueError: if ``python`` is no version of Python 3.
    """
    release = _python(python).release[:2]
    digits = "{}{}".format(*release)
    interpreter = None
    own: Iterable[Tag] = ()
    if implementation == "CPython":
        interpreter = f"cp{digits}"
        own = cpython_tags(release, [f"cp{digits}{'m' * (release < (3, 8))}"], "*")
    elif implementation == "PyPy":
        interpreter = "pp3"
        own = generic_tags(f"pp{digits}", [f"pypy{digits}_pp73"], "*")
    return WheelTags(map(str, chain(own, compatible_tags(release, interpreter, "*"))), platforms)


def _python(text: str) -> Version:
    """Return a version of Python 3, with its minor version.

    :raises ValueError: if the text is no such version.
    """
    try:
        # A + at the end marks a build between two releases: a local version, as packaging has it.
        version = Version(f"{text}local" if text.endswith("+") else text)
        if version.major == 3 and len(version.release) > 1 and version.minor < MAX_MINOR:
            return version
    except ValueError:
        pass
    raise ValueError(f"{text[:100]!r} is not a version of Python 3 such as 3.12")


def applies(
    marker: Marker | None, environment: Mapping[str, str] | None, extras: Collection[str] = ()
) -> bool:
    """Return whether a requirement with this marker surely applies to a client.

    A marker that names a key without a value in the environment does not apply, whatever else it
    states; nor does a marker that cannot be evaluated. Without an environment, ``extra`` alone has
    a value.

    :param extras: normalized names of the requested extras.
    """
    if marker is None:
        return True
    try:
        return marker.evaluate_prepared({**(environment or {}), "extra": frozenset(extras)})
    except (KeyError, ValueError, RecursionError):  # undefined key, undefined comparison, nesting
        return False
