"""The copy of a feed's entries: in memory, by identifier and by project, and as one file on disk.

A lookup must not read all entries, and a restart in an outage must not forget them. So a
:class:`Copy` has the entries by the names of their projects, and :class:`AdvisoryStore` writes it
to one file, whole or not at all. The file is a line of its format, of the time when the feed was
last read, and of a digest of the rest; and the entries, JSON. A damaged file, or that of another
feed, is none: the feed is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import attrs
import msgspec

from proxpi import atomic_files
from proxpi.rules import osv
from proxpi.rules.advisory_feed import Validators
from proxpi.rules.osv import Advisory, Record

#: The beginning of the file; the number is the version of what follows.
FORMAT = b"proxpi advisories 1"

#: Validators of documents, by name of document.
AllValidators = Mapping[str, Validators]


@attrs.frozen(eq=False)
class Copy:
    """All entries of a feed.

    :ivar records: by identifier
    :ivar by_name: by the normalized name of a project, without excepted entries
    :ivar checked_at: when the feed was last read whole, in seconds since the epoch
    """

    records: Mapping[str, Record] = attrs.field(factory=dict)
    by_name: Mapping[str, tuple[Record, ...]] = attrs.field(factory=dict)
    checked_at: float | None = None
    validators: AllValidators = attrs.field(factory=dict)

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        checked_at: float | None,
        validators: AllValidators,
        excepted: Collection[str],
    ) -> Copy:
        """
        Make a copy; this may take a moment: call it in a thread.

        :param excepted: the identifiers, in upper case, of entries that do not count
        """
        by_identifier = {record.id: record for record in records}
        by_name: dict[str, list[Record]] = {}
        for record in by_identifier.values():
            if record.id.upper() not in excepted:
                for name in {each.name for each in record.affected}:
                    by_name.setdefault(name, []).append(record)
        found = {name: tuple(each) for name, each in by_name.items()}
        return cls(by_identifier, found, checked_at, validators)

    @property
    def modified(self) -> dict[str, int]:
        """When each entry was last modified, in nanoseconds since the epoch."""
        return {identifier: record.modified for identifier, record in self.records.items()}

    def advisories(self, name: str) -> tuple[Advisory, ...]:
        """Return the advisories of a project, by its normalized name."""
        records = self.by_name.get(name)
        return osv.advisories(records, name) if records else ()

    def differing(self, other: Copy) -> list[str]:
        """Return the names of the projects whose advisories are other ones in another copy."""
        touched = {
            affected.name
            for identifier in {*self.records, *other.records}
            if (one := self.records.get(identifier)) != (two := other.records.get(identifier))
            for record in (one, two)
            if record is not None
            for affected in record.affected
        }
        return [name for name in touched if {*self.advisories(name)} != {*other.advisories(name)}]


class _Content(msgspec.Struct):
    source: str
    validators: dict[str, dict[str, str]]
    records: list[Record]


@attrs.define(eq=False)
class AdvisoryStore:
    """The file of a copy.

    :ivar source: the feed, without credentials
    """

    path: Path
    source: str

    def load(self, excepted: Collection[str]) -> Copy:
        """Read the copy; an empty one if there is none."""
        with suppress(OSError, ValueError):  # msgspec's errors are ValueErrors
            head, _, rest = self.path.read_bytes().partition(b"\n")
            checked_at, digest = head.removeprefix(FORMAT).split()
            if head == _head(float(checked_at), rest) and _digest(rest) == digest:
                content = msgspec.json.decode(rest, type=_Content)
                if content.source == self.source:
                    return Copy.of(content.records, float(checked_at), content.validators, excepted)
        return Copy()

    def save(self, copy: Copy) -> None:
        """Write a copy; this may take a moment, and raise `OSError`."""
        validators = {name: dict(each) for name, each in copy.validators.items()}
        content = _Content(self.source, validators, list(copy.records.values()))
        rest = msgspec.json.encode(content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(self.path, [_head(copy.checked_at or 0.0, rest), b"\n", rest])

    def save_time(self, checked_at: float) -> None:
        """Write the time alone; raises `OSError`."""
        atomic_files.overwrite(self.path, _beginning(checked_at))


def _beginning(checked_at: float) -> bytes:
    return b"%b %014d" % (FORMAT, int(checked_at))


def _head(checked_at: float, rest: bytes) -> bytes:
    return b"%b %b" % (_beginning(checked_at), _digest(rest))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:32].encode()
