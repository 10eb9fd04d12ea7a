"""Advisories on malicious packages, as the OSV database states them: reading and matching, no I/O.

The database publishes one JSON document per entry, an archive of all, and a list of identifiers
with the times of their last changes (https://google.github.io/osv.dev/data/). Of the OSV schema
(https://ossf.github.io/osv-schema/) these fields alone count:

* ``id``: only entries whose identifier begins with ``MAL-`` are read;
* ``modified``, and ``withdrawn``: a withdrawn entry affects nothing;
* ``affected[].package``: the ecosystem ``PyPI`` and a project;
* ``affected[].versions``, and those of ``affected[].ranges`` whose type is ``ECOSYSTEM``;
* ``affected[].package.purl``: its qualifier ``checksum``. The schema has no field for the digests
  of files; this qualifier is the one place in it that may state them.

The fields ``database_specific`` and ``ecosystem_specific`` are not read: the schema gives them no
meaning, and sources of the database list digests there of files that are harmless elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import IO, TypeAlias
from urllib.parse import parse_qs
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import attrs
import msgspec
from packaging.version import Version

from proxpi.simple import names, versions

#: What the identifiers of entries on malicious packages begin with.
PREFIX = "MAL-"
ECOSYSTEM = "PyPI"
#: Bytes of one entry, and of all entries of an archive, decompressed.
ENTRY_LIMIT, ENTRIES_LIMIT = 16 * 1024 * 1024, 4 * 1024 * 1024 * 1024
#: Entries that may vanish from the old end of a list before it counts as cut there.
FEW = 10

_IDENTIFIER = re.compile(r"MAL-[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|[+-]00:00)"
)

#: The events of a range: kind (``introduced``, ``fixed``, ``last_affected``, ``limit``), version.
Range: TypeAlias = tuple[tuple[str, str], ...]


class FeedDamaged(Exception):
    """A document of a feed cannot be used; the exception's text is one clause that says why."""


# Values


@attrs.frozen
class Advisory:
    """The statements of one entry about the files of one project.

    Two advisories are equal, and have the same ``repr``, if they match the same files.

    :ivar versions: as written in the entry
    :ivar digests: of files, such as ``sha256:5f…``, in lower case
    """

    id: str
    versions: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    digests: tuple[str, ...] = ()

    def matches(self, version: Version | None, hashes: Mapping[str, str]) -> bool:
        """
        Return whether a file of the project is affected.

        ==============================  ==========================  =============================
        the entry states                affected                    not affected
        ==============================  ==========================  =============================
        the version ``1.0``             ``1``, ``1.0.0``            ``1.0.1``, ``1.0+local``
        a version without PEP 440 form  a file without one          every version
        introduced 0                    every file                  no file
        introduced 0, fixed 2           ``1.9``, ``2.0rc1``         ``2``; a file without version
        introduced 1, last_affected 2   ``1``, ``2.0``              ``0.9``, ``2.0.post1``
        introduced 0, limit 2           ``1.9``                     ``2``
        ``checksum=sha256:5f…``         a file with that digest     other files
        ==============================  ==========================  =============================

        A bound that is no version of PEP 440 limits nothing: its range is longer, not shorter.

        :param version: of the file; ``None``: its name states none that PEP 440 knows
        :param hashes: the digests of the file, hexadecimal, by algorithm
        """
        if version is None:
            if None in self._versions or any(each.unbounded for each in self._ranges):
                return True
        elif version in self._versions or any(each.contains(version) for each in self._ranges):
            return True
        return any(hashes.get(algorithm) == digest for algorithm, digest in self._digests)

    @cached_property
    def _versions(self) -> frozenset[Version | None]:
        return frozenset(map(versions.version, self.versions))

    @cached_property
    def _ranges(self) -> tuple[_Bounds, ...]:
        return tuple(map(_Bounds.of, self.ranges))

    @cached_property
    def _digests(self) -> tuple[tuple[str, str], ...]:
        found = (each.partition(":") for each in self.digests)
        return tuple((algorithm, digest) for algorithm, _, digest in found)


@attrs.frozen
class _Bounds:
    """A range whose versions are parsed; ``None`` sorts before every version.

    :ivar limits: a version is within the range if it is before one of them; empty: no limit
    """

    events: tuple[tuple[str, Version | None], ...]
    limits: tuple[Version, ...]

    @classmethod
    def of(cls, events: Range) -> _Bounds:
        parsed = [(kind, _bound(kind, text)) for kind, text in events]
        limits = [version for kind, version in parsed if kind == "limit"]
        # Sorting is stable: of two events at one version the order of the entry holds.
        events_in_order = sorted(
            (
                (kind, version)
                for kind, version in parsed
                if kind == "introduced" or (version is not None and kind != "limit")
            ),
            key=lambda event: (event[1] is not None, event[1] or Version("0")),
        )
        known = tuple(version for version in limits if version is not None)
        return cls(tuple(events_in_order), known if len(known) == len(limits) else ())

    @property
    def unbounded(self) -> bool:
        """Whether the range has every version."""
        return not self.limits and set(self.events) == {("introduced", None)}

    def contains(self, version: Version) -> bool:
        """Evaluate the range as the OSV schema defines it ("Evaluation")."""
        if self.limits and not any(version < limit for limit in self.limits):
            return False
        affected = False
        for kind, bound in self.events:
            if bound is None or (version > bound if kind == "last_affected" else version >= bound):
                affected = kind == "introduced"
        return affected


def _bound(kind: str, text: str) -> Version | None:
    return None if (kind, text) == ("introduced", "0") else versions.version(text)


class Affected(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The statements of an entry about one project, by its normalized name."""

    name: str
    versions: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    digests: tuple[str, ...] = ()


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An entry, as far as it counts; one that is withdrawn affects nothing.

    :ivar modified: nanoseconds since the epoch
    """

    id: str
    modified: int
    affected: tuple[Affected, ...] = ()


def advisories(records: Iterable[Record], name: str) -> tuple[Advisory, ...]:
    """Return the advisories of a project, by its normalized name, one for an entry."""
    return tuple(
        Advisory(
            record.id,
            tuple(version for each in found for version in each.versions),
            tuple(range_ for each in found for range_ in each.ranges),
            tuple(digest for each in found for digest in each.digests),
        )
        for record in records
        if (found := [each for each in record.affected if each.name == name])
    )


# Reading


class _Package(msgspec.Struct):
    ecosystem: str = ""
    name: str = ""
    purl: str | None = None


class _Range(msgspec.Struct):
    type: str = ""
    events: list[dict[str, str | None]] | None = None


class _Affected(msgspec.Struct):
    package: _Package | None = None
    versions: list[str] | None = None
    ranges: list[_Range] | None = None


class _Document(msgspec.Struct):
    id: str
    modified: str
    withdrawn: str | None = None
    affected: list[_Affected] | None = None


_decoder = msgspec.json.Decoder(_Document)


def is_identifier(text: str) -> bool:
    """Return whether this is the identifier of an entry on a malicious package."""
    return _IDENTIFIER.fullmatch(text) is not None


def nanoseconds(text: str) -> int:
    """Read a time in UTC (RFC 3339), as nanoseconds since the epoch; raises `ValueError`."""
    if (found := _TIME.fullmatch(text)) is None:
        raise ValueError(f"{text!r} is no time such as 2026-09-04T00:47:46.15Z")
    seconds = datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()
    return int(seconds) * 10**9 + int((found[2] or "").ljust(9, "0"))


def read_record(data: bytes, identifier: str) -> Record:
    """Read the document of an entry; :exc:`FeedDamaged` if it is none, or that of another one."""
    try:
        document = _decoder.decode(data)
        modified = nanoseconds(document.modified)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise FeedDamaged(f"the entry {identifier} cannot be read: {error}") from None
    if document.id != identifier:
        raise FeedDamaged(f"the entry {identifier} has the id {document.id[:100]!a}")
    affected = [] if document.withdrawn else document.affected or []
    return Record(identifier, modified, tuple(filter(None, map(_affected, affected))))


def _affected(stated: _Affected) -> Affected | None:
    package = stated.package or _Package()
    name = names.normalize(package.name)
    if name is None or package.ecosystem.partition(":")[0] != ECOSYSTEM:
        return None
    ranges = (_events(each) for each in stated.ranges or () if each.type == "ECOSYSTEM")
    return Affected(
        name, tuple(stated.versions or ()), tuple(filter(None, ranges)), _checksums(package.purl)
    )


def _events(stated: _Range) -> Range:
    pairs = (pair for event in stated.events or () for pair in event.items())
    kinds = ("introduced", "fixed", "last_affected", "limit")
    return tuple((kind, text) for kind, text in pairs if kind in kinds and text is not None)


def _checksums(purl: str | None) -> tuple[str, ...]:
    """Return the checksums of a package URL (purl-spec, "Known qualifiers")."""
    query = (purl or "").partition("#")[0].partition("?")[2]
    stated = parse_qs(query).get("checksum", ()) if query else ()
    return tuple(each.strip().lower() for text in stated for each in text.split(",") if ":" in each)


@attrs.frozen
class Listing:
    """The list of all entries: when each was last modified, in nanoseconds since the epoch.

    :ivar whole: whether the end of the list is known to be its end
    """

    modified: Mapping[str, int]
    whole: bool = True


def read_listing(data: bytes, *, ended: bool = True) -> Listing:
    """
    Read a list: a line ``TIME,ID`` for an entry, the newest first; `FeedDamaged` if it is none.

    :param ended: whether the transfer announced its end
    """
    modified: dict[str, int] = {}
    try:
        text = data.decode()
        for number, line in enumerate(text.splitlines(), 1):
            time, comma, path = line.partition(",")
            folder, _, identifier = path.strip().rpartition("/")
            if not line or not (identifier.startswith(PREFIX) or _TIME.fullmatch(time) is None):
                continue
            if not comma or folder not in ("", ECOSYSTEM) or not is_identifier(identifier):
                raise ValueError(f"line {number} is {line[:100]!a}, not TIME,ID")
            modified.setdefault(identifier, nanoseconds(time))
    except ValueError as error:
        raise FeedDamaged(f"the list of entries cannot be read: {error}") from None
    return Listing(modified, ended and (text.endswith("\n") or not text))


def read_archive(file: IO[bytes]) -> Iterator[Record]:
    """
    Read all entries of an archive, which may take a second: call it in a thread.

    Single entries that cannot be read are left out.

    :raises FeedDamaged: if the archive is no zip file, is cut, or no entry in it can be read
    """
    rest, read, failed = ENTRIES_LIMIT, 0, None
    try:
        with ZipFile(file) as archive:
            for member in archive.infolist():
                identifier = member.filename.rpartition("/")[2].removesuffix(".json")
                if not is_identifier(identifier) or not member.filename.endswith(".json"):
                    continue
                # Other compressions are not bounded by zipfile.
                if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                    raise BadZipFile(f"{identifier} has another compression than deflate")
                with archive.open(member) as opened:
                    data = opened.read(ENTRY_LIMIT + 1)
                rest -= len(data)
                if len(data) > ENTRY_LIMIT or rest < 0:
                    raise BadZipFile(f"{identifier} is too large")
                try:
                    yield read_record(data, identifier)
                    read += 1
                except FeedDamaged as error:
                    failed = failed or error
    except Exception as error:  # zipfile does not tell what odd archives may raise
        raise FeedDamaged(f"the archive of all entries cannot be read: {error}") from error
    if failed is not None and not read:
        raise failed


# Changes


def changed(known: Mapping[str, int], listing: Listing) -> list[str]:
    """Return the identifiers of listed entries that are not known, or modified since."""
    return [
        identifier
        for identifier, modified in listing.modified.items()
        if identifier not in known or modified > known[identifier]
    ]


def vanished(known: Mapping[str, int], listing: Listing) -> set[str]:
    """
    Return the identifiers of known entries that are listed no more.

    ====================================  ========================================================
    the list, with 100 entries known      result
    ====================================  ========================================================
    lists them, and others                no entry has vanished
    lacks 30 from everywhere in it        those have vanished
    lacks the oldest 10                   those have vanished
    lacks the oldest 11                   damaged: it is cut, as its newest entries come first
    lacks one, and its end is not known   damaged: it may be cut
    lacks more than 50                    damaged: no database loses half of its entries at once
    ====================================  ========================================================

    :raises FeedDamaged: if the list is too short to be whole
    """
    gone = known.keys() - listing.modified.keys()
    oldest = min((known[each] for each in known.keys() - gone), default=0)
    cut = len(gone) > FEW and max(known[each] for each in gone) <= oldest
    if gone and (not listing.whole or cut or 2 * len(gone) > len(known)):
        raise FeedDamaged(
            f"the list of entries is too short: it lacks {len(gone)} of {len(known)} known ones"
        )
    return gone
