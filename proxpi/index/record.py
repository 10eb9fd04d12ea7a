"""What is known of the projects: a record for each, the lately used ones in memory.

The rest is read from the :class:`proxpi.index.store.Store` when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import attrs
from twisted.internet.defer import DeferredLock

from proxpi.index.press import Form
from proxpi.index.retry import Progress
from proxpi.index.source import Part, Source
from proxpi.index.store import DOCUMENT, Store, Stored
from proxpi.simple.listing import Listed
from proxpi.upstream.errors import UpstreamFailed

#: Bytes of pages that are held in memory.
MEMORY = 16 * 1024 * 1024
#: Bytes that a record is taken to cost beside its content, and each of its files.
OVERHEAD = 4096
FILE_OVERHEAD = 1024


@attrs.frozen
class Body:
    """The bytes of one form of a page.

    :ivar etag: the entity tag, without quotes; it is of these very bytes
    """

    data: bytes
    etag: str


@attrs.define(eq=False)
class Record:
    """What is known of one project.

    :ivar parts: what each index said last, in order of precedence
    :ivar stored: what of it is kept
    :ivar forms: the merged page, ready to be sent
    :ivar files: what it says of those files that were asked for
    :ivar failure: why the last refresh failed, if it did
    :ivar wanted: the forms that are waited for
    :ivar asked: the indexes that have not answered yet
    :ivar progress: how much of the answers has come
    :ivar lock: is held by whoever changes what is kept
    :ivar wished: whether an operator wants it asked for, and nobody has tried since
    :ivar replaced: whether another record stands for the project
    :ivar cost: bytes
    :ivar era: how often everything had been forgotten when it was made
    """

    name: str
    parts: list[Part | None]
    stored: Stored | None = None
    forms: dict[Form, Body] = attrs.field(factory=dict)
    files: dict[str, Listed | None] = attrs.field(factory=dict)
    failure: UpstreamFailed | None = None
    wanted: set[Form] = attrs.field(factory=set)
    asked: list[Source] = attrs.field(factory=list)
    progress: Progress = attrs.field(factory=Progress)
    lock: DeferredLock = attrs.field(factory=DeferredLock)
    wished: bool = False
    replaced: bool = False
    cost: int = 0
    era: int = 0

    @property
    def present(self) -> bool:
        """Whether any index has the project."""
        return any(part is not None and part.present for part in self.parts)

    @property
    def usable(self) -> bool:
        """Whether there is a page, and no index that has never said anything of it."""
        return self.present and None not in self.parts


@attrs.define(eq=False)
class Records:
    """The records, by name of the project.

    :ivar store: where they are kept
    :ivar changed: is told of a project when what its record says, or stands for, may be another
        than before; of ``None`` when that is so for all
    """

    _sources: Sequence[Source]
    store: Store
    changed: Callable[[str | None], None] = lambda _: None
    _records: OrderedDict[str, Record] = attrs.field(init=False, factory=OrderedDict)
    _cost: int = attrs.field(init=False, default=0)
    _era: int = attrs.field(init=False, default=0)

    def get(self, name: str) -> Record:
        """Give the record of a project; a new one if nothing is known of it."""
        record = self._records.get(name)
        if record is None:
            record = self.put(self.kept(name))
        self._records.move_to_end(name)
        return record

    def body(self, record: Record, form: Form) -> Body | None:
        """Give a form of a page if it has been made."""
        body = record.forms.get(form)
        if body is None and record.stored is not None and form.name in record.stored.sections:
            found = record.stored.read(form.name)
            if found is not None:
                body = Body(found[form.name], record.stored.sections[form.name].digest)
                record.forms[form] = body
                self.weigh(record)
        return body

    def put(self, record: Record) -> Record:
        """Let a record stand for its project, in place of any other."""
        old = self._records.pop(record.name, None)
        if old is not None:
            old.replaced = old is not record
            self._cost -= old.cost
            self.changed(record.name)
        record.era = self._era
        self._records[record.name] = record
        self.weigh(record)
        return record

    def lives(self, record: Record) -> bool:
        """Tell whether a record still stands for its project, or may do so again."""
        return not record.replaced and record.era == self._era

    def clear(self) -> None:
        """Let go of all records, and let none of them stand for its project ever again."""
        self._era += 1
        self._records.clear()
        self._cost = 0
        self.changed(None)

    def lose(self, record: Record) -> None:
        """Put another record in the place of one whose file is gone or is not what it was."""
        if not self.lives(record):
            return
        record.replaced = True
        found = self.kept(record.name)
        if found.stored and record.stored and found.stored.sections == record.stored.sections:
            # Damaged, and maybe not to be removed; otherwise another process has put its own there.
            self.store.remove(record.name)
            found = Record(record.name, [None] * len(self._sources))
        found.lock = record.lock
        self.put(found)

    def named(self, parts: Sequence[Part | None]) -> dict[str, Part]:
        """Give what the indexes said by their identities, as it is kept."""
        return {
            source.identity: part
            for source, part in zip(self._sources, parts, strict=True)
            if part is not None
        }

    def weigh(self, record: Record) -> None:
        """Count the bytes of a record anew, and make room for them."""
        if self._records.get(record.name) is not record:
            return
        image = record.stored.image if record.stored is not None else None
        self._cost -= record.cost
        record.cost = (
            OVERHEAD
            + FILE_OVERHEAD * len(record.files)
            + sum(len(body.data) for body in record.forms.values())
            + len(image or b"")
        )
        self._cost += record.cost
        while self._cost > MEMORY and len(self._records) > 1:
            _, gone = self._records.popitem(last=False)
            self._cost -= gone.cost

    def kept(self, name: str) -> Record:
        """Read from disk what is known of a project."""
        stored = self.store.load(name)
        if stored is None:
            return Record(name, [None] * len(self._sources))
        parts = [self._part(source, stored.parts, stored.documents) for source in self._sources]
        if list(stored.parts) != [source.identity for source in self._sources]:
            # It was made of other indexes, or in another order of them.
            documents = {key: stored.sections[key] for key in stored.documents}
            stored = attrs.evolve(stored, sections=documents)
        return Record(name, parts, stored)

    @staticmethod
    def _part(
        source: Source, parts: Mapping[str, Part], documents: Mapping[str, str]
    ) -> Part | None:
        part = parts.get(source.identity)
        if part is not None and part.present and DOCUMENT + source.identity not in documents:
            return None
        return part
