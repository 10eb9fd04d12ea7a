"""The cache folder: its layout, what lies in it, and how a file gets there.

Theory of operation
-------------------
Files lie where the original proxpi puts them (:attr:`proxpi.files.link.Link.place`), so that
a volume it filled is of use. What is proxpi's own lies in one folder beside them, ``.proxpi``:
partial files, each locked by the process that writes it, and the root list.

No file is served before its bytes were compared with the page: those that were downloaded are
hashed on the way, those that were found are read once. (Where the page has no hash, a found file
is compared by size, which is all that there is.) What was checked is remembered, for as
long as the process runs, together with the file's inode, size and time of change; a file that
is no longer the one that was checked is checked again. So nothing has to be flushed to disk:
what a power failure leaves behind is a found file like any other.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import tempfile
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import attrs
from twisted.logger import Logger

from proxpi.files.eviction import victims
from proxpi.files.link import Link
from proxpi.files.partial import BUFFER, Partial
from proxpi.simple import urls

#: The folder of proxpi's own below the cache folder. No host's folder begins with a dot.
OWN_FOLDER = ".proxpi"
#: What the original calls a file that it has not finished.
ORIGINAL_PARTIAL = ".proxpi-partial"

_OWN_NAME = re.compile(
    r"\.(whl|zip|egg|exe|msi|rpm|deb|dmg|tgz|tbz|tar(\.\w+)?|metadata|asc|proxpi-partial)$"
)
_HOST_FOLDER = re.compile(r"[a-z0-9-]+")
_log = Logger(namespace="proxpi.files")


@attrs.frozen
class Identity:
    """What tells a file from another under the same name, and from its own past."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Take it from what the system says of a file."""
        return cls(status.st_ino, status.st_size, status.st_ctime_ns)


@attrs.frozen
class Checked:
    """A file whose bytes are known.

    :ivar digests: hexadecimal digests by algorithm; there is always a ``sha256``
    :ivar url: where it was fetched; ``None`` for one that was found
    """

    identity: Identity
    digests: dict[str, str]
    url: str | None = None


@attrs.define(eq=False)
class Copy:
    """An open file that may be sent, as it is now, whatever happens to its name.

    :ivar sha256: hexadecimal
    :ivar size: bytes
    :ivar fetched: whether it was fetched for whoever gets this copy
    """

    file: BinaryIO
    size: int
    sha256: str
    _disk: Disk
    _place: str
    fetched: bool = False

    def read(self, start: int, count: int) -> bytes:
        """Read at a place of its own, so that several may read one file."""
        return os.pread(self.file.fileno(), count, start)

    def share(self) -> Copy:
        """Give another copy of the same open file, to be let go of by itself."""
        file = open(os.dup(self.file.fileno()), "rb", buffering=0)
        return attrs.evolve(self, file=file)

    def close(self) -> None:
        """Let go of it; every copy has to be let go of once."""
        if not self.file.closed:
            self.file.close()
            self._disk.released(self._place)


class Mismatch(Exception):
    """The bytes of a file are not those that the index names; its text says how."""


@attrs.define(eq=False)
class Disk:
    """The files in the cache folder.

    :ivar folder: the cache folder
    :ivar capacity: bytes of files that it may hold; 0 keeps none
    """

    folder: Path
    capacity: int
    _sizes: OrderedDict[str, int] = attrs.field(init=False, factory=OrderedDict)
    _used: int = attrs.field(init=False, default=0)
    _checked: dict[str, Checked] = attrs.field(init=False, factory=dict)
    _readers: Counter[str] = attrs.field(init=False, factory=Counter)
    _partials: set[Partial] = attrs.field(init=False, factory=set)

    @property
    def own(self) -> Path:
        """The folder for what is proxpi's own."""
        return self.folder / OWN_FOLDER

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
            self._remove_leftovers()
        except OSError as error:
            _log.critical(
                "{folder} cannot be written ({error}): nothing new will be kept in it",
                folder=self.folder,
                error=error.strerror,
            )
        if self.capacity:
            try:
                self._look_around()
            except OSError as error:
                _log.critical("{folder} cannot be read: {error}", folder=self.folder, error=error)
            self._make_room(0)

    def fits(self, size: int | None) -> bool:
        """Whether a file of so many bytes may be kept."""
        return (size or 0) <= self.capacity and self.capacity > 0

    def open(self, link: Link) -> Copy | None:
        """Open the file if it is here and was checked against what the link says."""
        place = link.place
        if place is None or (checked := self._checked.get(place)) is None:
            return None
        if not self._is(checked, link):
            return None
        try:
            file = open(self.folder / place, "rb", buffering=0)
        except OSError:
            self._lost(place)
            return None
        if Identity.of(os.fstat(file.fileno())) != checked.identity:
            file.close()
            self._checked.pop(place, None)
            return None
        self._sizes.move_to_end(place)
        self._readers[place] += 1
        return Copy(file, checked.identity.size, checked.digests["sha256"], self, place)

    def found(self, link: Link) -> bool:
        """Whether a file lies here that has not been checked yet."""
        place = link.place
        return (
            place is not None
            and self.capacity > 0
            and place not in self._checked
            and (self.folder / place).is_file()
        )

    def check(self, link: Link) -> Checked | None:
        """
        Read a found file and compare it; one that is not the link's is removed.

        This takes a while and changes nothing in memory: call it in a thread, then :meth:`trust`.
        """
        assert link.place is not None
        path = self.folder / link.place
        algorithms = {"sha256"} | ({link.digest[0]} if link.digest else set())
        hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        try:
            with open(path, "rb", buffering=0) as file:
                identity = Identity.of(os.fstat(file.fileno()))
                while chunk := file.read(BUFFER):
                    for digest in hashes.values():
                        digest.update(chunk)
                checked = Checked(identity, {n: h.hexdigest() for n, h in hashes.items()})
                if identity == Identity.of(os.fstat(file.fileno())) and self._is(checked, link):
                    return checked
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warn("{path} cannot be read: {error}", path=str(path), error=error)
            return None
        _log.warn("{path} is not what the index names: removed", path=str(path))
        return None

    def trust(self, link: Link, checked: Checked | None) -> None:
        """Remember the outcome of :meth:`check`."""
        assert link.place is not None
        if checked is None:
            self._lost(link.place)
        else:
            self._keep(link.place, checked)

    def partial(self, link: Link) -> Partial:
        """
        Begin a file.

        :raises OSError: if the disk does not let it
        """
        algorithms = {link.digest[0]} if link.digest else set()
        try:
            self.own.mkdir(parents=True, exist_ok=True)  # it may have been emptied meanwhile
            partial = Partial(self.own, algorithms)
        except OSError:
            if not link.private:
                raise
            # Nobody else can fetch it: it is kept elsewhere for as long as it is sent.
            partial = Partial(Path(tempfile.gettempdir()), algorithms)
        self._partials.add(partial)
        return partial

    def end(self, partial: Partial) -> None:
        """Let go of a partial file, and of its bytes if it was not adopted."""
        self._partials.discard(partial)
        partial.close()

    def close(self) -> None:
        """Remove what has not been finished, as the process ends; it may still be written to."""
        for partial in self._partials:
            partial.unlink()

    def adopt(self, partial: Partial, link: Link) -> Copy | None:
        """
        Give a finished file its name, if it is what the link says.

        :return: ``None`` once it is kept; if it may not be, an open copy that has no name
        :raises Mismatch: if the bytes are wrong
        :raises OSError: if the disk does not let it
        """
        digests = partial.finish()
        self.compare(partial.size, digests, link)
        place = link.place
        if place is None or not self.fits(partial.size):
            return Copy(partial.reopen(), partial.size, digests["sha256"], self, "")
        self._make_room(partial.size - self._sizes.get(place, 0), keep=place)
        path = self.folder / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(partial.path, path)
        except OSError:
            if not link.private:
                raise
            return Copy(partial.reopen(), partial.size, digests["sha256"], self, "")
        self._keep(place, Checked(Identity.of(path.stat()), digests, link.url))
        return None

    def released(self, place: str) -> None:
        """Count one reader less."""
        self._readers[place] -= 1
        if self._readers[place] <= 0:
            del self._readers[place]

    @staticmethod
    def compare(size: int, digests: dict[str, str], link: Link) -> None:
        """
        Compare what came with what the index names: by the best hash, without one by size.

        :raises Mismatch: if it is not the same
        """
        if link.digest is not None:
            algorithm, expected = link.digest
            if digests[algorithm] != expected:
                raise Mismatch(f"its {algorithm} is {digests[algorithm]}, not {expected}")
            if link.size is not None and size != link.size:
                _log.warn(
                    "{url} has {size} bytes and the right hash; the index says {stated} bytes",
                    url=urls.shown(link.url),
                    size=size,
                    stated=link.size,
                )
        elif link.size is not None and size != link.size:
            raise Mismatch(f"it has {size} bytes, not {link.size}")

    def _is(self, checked: Checked, link: Link) -> bool:
        if link.digest is not None:
            return checked.digests.get(link.digest[0]) == link.digest[1]
        # Port and query are not in the name: without a hash, only the URL tells files apart.
        if checked.url is not None and checked.url != link.url:
            return False
        if link.size is not None:
            return checked.identity.size == link.size
        return checked.url is not None

    def _keep(self, place: str, checked: Checked) -> None:
        self._checked[place] = checked
        self._used += checked.identity.size - self._sizes.get(place, 0)
        self._sizes[place] = checked.identity.size
        self._sizes.move_to_end(place)

    def _lost(self, place: str) -> None:
        self._checked.pop(place, None)
        self._used -= self._sizes.pop(place, 0)

    def _make_room(self, size: int, keep: str = "") -> None:
        """Remove what is needed least, other than `keep`, until `size` bytes more fit."""
        excess = self._used + size - self.capacity
        for place in victims(self._sizes.items(), excess, {*self._readers, keep}):
            with suppress(OSError):  # gone already, or the folder is for reading only
                os.unlink(self.folder / place)
            self._lost(place)

    def _look_around(self) -> None:
        """Find the files of the hosts' folders; the least recently used come first."""
        found = []
        for host in os.scandir(self.folder):
            if not (_HOST_FOLDER.fullmatch(host.name) and host.is_dir(follow_symlinks=False)):
                continue
            for folder, _, names in os.walk(host.path):
                for name in names:
                    if not _OWN_NAME.search(name):
                        continue  # some other program's, as far as anyone can tell
                    path = os.path.join(folder, name)
                    with suppress(OSError):
                        if name.endswith(ORIGINAL_PARTIAL):
                            os.unlink(path)
                            continue
                        status = os.lstat(path)
                        place = os.path.relpath(path, self.folder)
                        found.append((max(status.st_atime, status.st_mtime), place, status.st_size))
        for _, place, size in sorted(found):
            self._sizes[place] = size
            self._used += size

    def _remove_leftovers(self) -> None:
        """Remove partial files that no process holds a lock on."""
        for entry in os.scandir(self.own):
            if not entry.name.startswith("partial-"):
                continue
            try:
                with open(entry.path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.ENOENT):
                    _log.warn("{path}: {error}", path=entry.path, error=error)
