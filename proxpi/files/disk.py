"""The cache folder: what of it may be served, how a file gets there, and how it goes.

Theory of operation
-------------------
Files lie where the original proxpi puts them (:attr:`proxpi.files.link.Link.place`), so that
a volume it filled is of use. What is proxpi's own lies in one folder beside them, ``.proxpi``:
partial files, each locked by the process that writes it, what is known of uses, and the lists.

No file is served before its bytes were compared with the page: those that were downloaded are
hashed on the way, those that were found are read once. (Where the page has no hash, a found file
is compared by size, which is all that there is; and if its URL has a port or a query, which its
name does not tell, it is fetched anew.) What was checked is remembered, over a
restart as well, together with the file's inode, size and time of change, and its URL; a file that
is no longer the one that was checked is checked again. A file is flushed to disk before it gets
its name, so after a power failure a name stands for all of the bytes, or is not there. (The name
itself is not flushed: a file that lost it is fetched again.)

Finished and unfinished files count together, and so does what is on its way out. Whoever writes
asks for room first (:meth:`Disk.reserve`); room is made by removing what
:mod:`proxpi.files.eviction` chooses, in a thread (:mod:`proxpi.files.leaving`), and if that does
not do, :class:`Full` says so before a byte is written. What is known of sizes and uses is written
down now and then, and read at the next start; the folder itself is looked at behind that
(:mod:`proxpi.files.stocktaking`), since it may hold a lot.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger

from proxpi import metrics, partials
from proxpi.files import folder as folders
from proxpi.files.checks import Checked, Identity, Mismatch, check, compare, origin_of
from proxpi.files.complaints import STAYS, UNREAD, Complaints
from proxpi.files.copies import Copy, Held
from proxpi.files.leaving import Leaving
from proxpi.files.link import Link
from proxpi.files.partial import Partial
from proxpi.files.room import Full, Room, Unknown
from proxpi.files.stock import Kept, Stock
from proxpi.files.stocktaking import Stocktaking
from proxpi.files.uses import Uses

__all__ = ["Checked", "Copy", "Disk", "Full", "Identity", "Mismatch"]

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class Disk:
    """The files in the cache folder.

    :ivar folder: the cache folder
    :ivar capacity: bytes of files that it may hold; 0 keeps none
    :ivar in_thread: runs a function that takes a while; at once, if it is not given
    :ivar seconds: tells the time, from any beginning
    :ivar changed: is told of places where a file is not, or may not be, as it was
    """

    folder: Path
    capacity: int
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = execute
    seconds: Callable[[], float] = time.monotonic
    changed: Callable[[str], None] = lambda _: None
    _stock: Stock = attrs.field(init=False, factory=Stock)
    _checked: dict[str, Checked] = attrs.field(init=False, factory=dict)
    _readers: Counter[str] = attrs.field(init=False, factory=Counter)
    _room: Room = attrs.field(init=False)
    _complaints: Complaints = attrs.field(init=False)
    _leaving: Leaving = attrs.field(init=False)
    _uses: Uses = attrs.field(init=False)
    _stocktaking: Stocktaking = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._leaving = Leaving(
            self.folder, self.in_thread, self._stays, lambda count: self._room.went(count)
        )
        self._room = Room(self.capacity, self._stock, self._readers, self._leaving, self._evict)
        self._complaints = Complaints(self.folder, self.seconds)
        self._uses = Uses(self.own, self._stock, self.in_thread, self.seconds)
        self._stocktaking = Stocktaking(
            self.folder, self._stock, self._room, self._uses, self.in_thread, self._lost
        )

    #: Compares what came with what the index names.
    compare = staticmethod(compare)

    @property
    def own(self) -> Path:
        """The folder for what is proxpi's own."""
        return self.folder / folders.OWN_FOLDER

    @property
    def used(self) -> int:
        """Bytes of all that is in the folder, finished or not."""
        return self._room.used

    def scratch(self) -> Path | None:
        """Give a folder for files without a name; ``None`` is the system's own for such."""
        return self.own if os.access(self.own, os.W_OK) else None

    def prepare(self) -> None:
        """
        Look at what lies there, and remove what a crash left behind.

        A folder that cannot be written is used for reading.
        """
        try:
            self.own.mkdir(parents=True, exist_ok=True)
            partials.remove_leftovers(self.own)
        except OSError as error:
            _log.critical(
                "{folder} cannot be written ({error}): nothing new will be kept in it",
                folder=self.folder,
                error=error.strerror,
            )
        if self.capacity:
            self._stocktaking.begin()

    def fits(self, size: int | None) -> bool:
        """Whether a file of this size may be kept."""
        return self._room.fits(size)

    def open(self, link: Link) -> Copy | None:
        """Open the file if it is here and was checked against what the link says."""
        place = link.place
        checked = self._known(place) if place is not None else None
        if place is None or checked is None or not checked.suits(link):
            return None
        try:
            file = folders.open_file(self.folder / place)
        except OSError as error:
            self._missed(place, error)
            return None
        if Identity.of(os.fstat(file.fileno())) != checked.identity:
            file.close()
            self._doubt(place)
            return None
        self.count(place)
        digest = checked.digests["sha256"]
        return Copy(file, checked.identity.size, digest, self._readers, place, link.verified)

    def count_uses_by(self, count: Callable[[], object]) -> None:
        """Let the uses of files in the response cache be counted before an eviction."""
        self._room.count_uses = count

    def hold(self, copy: Copy) -> Held | None:
        """Keep the file of a copy open for more of them; ``None`` if it is not here any more."""
        checked = self._checked.get(copy.place)
        if checked is None:
            return None
        return Held.of(copy, str(self.folder / copy.place), checked.identity, self._doubt)

    def count(self, place: str, uses: int = 1) -> None:
        """Count uses of a file that is here."""
        self._stock.use(place, uses)
        self._stocktaking.changed(place)
        self._uses.changed()

    def doubt(self, copy: Copy) -> None:
        """Take note that a copy could not be read: it is checked again, or fetched anew."""
        self._doubt(copy.place)

    def found(self, link: Link) -> bool:
        """Whether a file lies here that has not been checked yet."""
        place = link.place
        if place is None or not self.capacity or place in self._leaving or self._known(place):
            return False
        try:
            status = folders.look(self.folder, place)
        except OSError as error:
            self._complaints.say(error, UNREAD)
            return False
        return status is not None and stat.S_ISREG(status.st_mode)

    def check(self, link: Link) -> Checked | OSError | None:
        """
        Read a found file and compare it; one that is not the link's is removed.

        This takes a while and changes nothing in memory: call it in a thread, then :meth:`trust`.
        """
        assert link.place is not None
        try:
            return check(self.folder / link.place, link)
        except OSError as error:
            return error

    def trust(self, link: Link, checked: Checked | OSError | None) -> None:
        """Remember the outcome of :meth:`check`, unless it is that of a file of the past."""
        place = link.place
        assert place is not None
        if isinstance(checked, OSError):
            self._missed(place, checked)
            return
        try:
            status = os.lstat(self.folder / place)
        except OSError as error:
            self._missed(place, error)
            return
        if checked is None or Identity.of(status) != checked.identity or place in self._leaving:
            return
        self._keep(place, checked)

    def partial(self, link: Link) -> Partial:
        """
        Begin a file.

        What is written is counted, and refused with :class:`Full` unless it cannot be kept anyway.

        :raises OSError: if the disk does not let it
        """
        if link.place is not None:
            folders.look(self.folder, link.place)
        if not os.path.isdir(self.own):  # it may have been emptied meanwhile
            self.own.mkdir(parents=True, exist_ok=True)
        partial = Partial(self.own, {link.digest[0]} if link.digest else set())
        self._room.enter(partial, link)
        return partial

    def reserve(self, partial: Partial, size: int) -> None:
        """
        Take note of the length that an upstream announces; see :meth:`Room.reserve`.

        :param size: bytes of the whole file
        :raises Full: if there is no room for it, and none can be made; nothing was removed then
        """
        self._room.reserve(partial, size)

    def complain(self, error: OSError) -> None:
        """Write to the log that a file cannot be kept: one line a minute."""
        if isinstance(error, Unknown):
            self._complaints.wait()
        else:
            self._complaints.say(error)

    def end(self, partial: Partial) -> None:
        """Let go of a partial file, and of its bytes if it was not adopted."""
        partial.close()
        self._room.leave(partial)

    def close(self) -> None:
        """Remove what has not been finished, as the process ends; it may still be written to."""
        for partial in self._room:
            partial.unlink()
        if self.capacity and self._room.known:
            self._room.count_uses()
            self._uses.finish()

    def adopt(self, partial: Partial, link: Link) -> Copy | None:
        """
        Give a finished file its name, if it is what the link says.

        It is flushed to disk before, unless :meth:`Partial.sync` has been called already.

        :return: ``None`` once it is kept; if it may not be, an open copy that has no name
        :raises Mismatch: if the bytes are wrong
        :raises OSError: if the disk does not let it
        """
        digests = partial.finish()
        compare(partial.size, digests, link)
        place, sha256 = link.place, digests["sha256"]
        if place is None or not self._room[partial].kept:
            return Copy(partial.reopen(), partial.size, sha256, self._readers, "", link.verified)
        partial.sync()
        self._uses.mark(place)
        status = self._name(partial, place)
        self._room.settle(partial)
        self._keep(place, Checked(Identity.of(status), digests, origin_of(link.url)))
        return None

    def named(self, filename: str) -> list[str]:
        """Give the places of the files of this name, from whichever host, that are kept."""
        return [place for place in self._stock if place.rpartition("/")[2] == filename]

    def forget(self, what: Link | str) -> None:
        """
        Remove a file; one that is being fetched is sent, and not kept.

        :param what: its link or its place
        :raises OSError: if it cannot be removed (it is checked again before it is served)
        """
        place = what.place if isinstance(what, Link) else what
        if place is None or not folders.is_place(place):
            return
        self._room.unwanted(place)
        self._doubt(place)
        folders.remove(self.folder, place)
        self._lost(place)

    def clear(self) -> Deferred[None]:
        """Remove every file, as :meth:`forget` does; when it is given back, all are gone."""
        self._room.unwanted()
        known = frozenset(self._stock)
        self._let_go(known)

        def rest(found: list[tuple[str, int]]) -> Deferred[None]:
            # Also what another process put there, or was checked meanwhile; not what came since.
            others = [(place, size) for place, size in found if not self._has_come(place)]
            self._stock.fill(other for other in others if other[0] not in self._leaving)
            self._let_go(place for place, _ in others)
            return self._leaving.end()

        survey = self.in_thread(lambda: folders.survey(self.folder, known))
        return survey.addCallback(rest)

    def _has_come(self, place: str) -> bool:
        """Tell whether a file was fetched since all of them were forgotten, rather than found."""
        return (checked := self._checked.get(place)) is not None and checked.origin is not None

    def _known(self, place: str) -> Checked | None:
        """Give what is known of a file's bytes, now or from an earlier process."""
        checked = self._checked.get(place)
        if checked is None and (note := self._stock.note(place)):
            checked = Checked.read(note)
            if checked is not None:
                self._checked[place] = checked
        return checked

    def _doubt(self, place: str) -> None:
        """Let a file be checked before it is served again."""
        self._checked.pop(place, None)
        self._stock.annotate(place, "")
        self.changed(place)

    def _keep(self, place: str, checked: Checked) -> None:
        self._checked[place] = checked
        self._leaving.stop(place)
        if self._stock.size(place) != checked.identity.size or place not in self._stock:
            self._stock.add(place, checked.identity.size)
        self._stock.annotate(place, checked.written())
        self._note(place)

    def _lost(self, place: str) -> None:
        self._checked.pop(place, None)
        self._stock.drop(place)
        self._note(place)

    def _missed(self, place: str, error: OSError) -> None:
        """Take note that a file cannot be opened; it counts for as long as it may be there."""
        if folders.says_no_file(error):
            self._lost(place)
        else:
            self._doubt(place)
            self._complaints.say(error, UNREAD)

    def _note(self, place: str) -> None:
        self.changed(place)
        self._stocktaking.changed(place)
        self._uses.changed()

    def _name(self, partial: Partial, place: str) -> os.stat_result:
        """Give a file its name; what is in its way goes, if it is the cache's own."""
        path = self.folder / place
        folders.look(self.folder, place)  # no link has come into the way
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, path)
        except OSError:
            # A folder may be gone again, or a file be where a folder has to be, or the reverse.
            for other in self._stock:
                if place.startswith(f"{other}/") or other.startswith(f"{place}/"):
                    folders.remove(self.folder, other)
                    self._lost(other)
            with suppress(OSError):
                path.rmdir()
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, path)
        return path.stat()

    def _evict(self, place: str) -> None:
        """Let go of a file to make room."""
        metrics.EVICTED.inc()
        self._leaving.add(place, self._stock.evict(place))
        self._lost(place)

    def _let_go(self, places: Iterable[str]) -> None:
        """Let go of files that nobody wants any more."""
        for place in places:
            self._doubt(place)  # if it stays
            kept = self._stock.drop(place)
            if kept is not None:
                self._leaving.add(place, kept)
            self._lost(place)
        self._leaving.start()

    def _stays(self, place: str, kept: Kept, error: OSError) -> None:
        """Take a file back that should have gone, and cannot be removed."""
        self._stock.restore(place, kept)
        self._room.put_aside(place)
        self._complaints.say(error, STAYS)
