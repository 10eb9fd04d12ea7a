"""The files of the root list: lists of names, forms, and the word on which belong together.

Theory of operation
-------------------
A file is written under a partial name, or under none where the folder cannot be written. It stays
open for as long as somebody has a use for it, whatever becomes of its name. What is to outlive
the process is then given the name of its digest, and last of all ``state.json`` is replaced, which
says what each index said when, and which files hold the list. So a crash leaves the list before
or the list after. The state begins with a word: *current*, or *invalid* after a ``DELETE``, which
changes that word in place. To remove all of it is to rename the folder. A state that a thread is
writing meanwhile is given up: the state changes under one lock. Nothing is flushed to disk: sizes
and digests are checked at the start, and what does not fit, is of another version, or was put
there by others, is as good as nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from typing import IO, Literal

import attrs
import msgspec

from proxpi import partials
from proxpi.index.client import Part
from proxpi.simple.negotiate import Serialization

#: Of the format of the state; another version has another number.
VERSION = 3
#: What the state begins with after a DELETE, as long as what it begins with before.
INVALID = b'{"state":"invalid"'
STATE = "state.json"
#: Bytes that are read or hashed in one go.
BLOCK = 256 * 1024
#: Seconds after which a file that is not part of the list is nobody's.
DAY = 86_400.0
#: What the names of whole files end with.
SUFFIX = ".list"

Form = tuple[Serialization, bool]


class ListFile:
    """A file that is whole, and open for reading at any place (``os.pread``).

    It is closed when nobody refers to it any more, and with that gone if it was given no name.

    :ivar descriptor: the system's number for the open file
    :ivar size: bytes
    :ivar digest: SHA-256, hexadecimal
    """

    def __init__(self, descriptor: int, size: int, digest: str, path: Path | None) -> None:
        self.descriptor = descriptor
        self.size = size
        self.digest = digest
        self._unnamed = [] if path is None else [path]
        self.nameless = path is None
        weakref.finalize(self, _let_go, descriptor, self._unnamed)

    @classmethod
    def open(cls, path: Path, size: int, digest: str) -> ListFile | None:
        """Open a file that lies there; ``None`` if it is not what it should be."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        file = cls(descriptor, size, digest, None)
        file.nameless = False
        try:
            found = hashlib.sha256()
            for block in file.blocks():
                found.update(block)
        except OSError:
            return None
        whole = os.fstat(descriptor).st_size == size and found.hexdigest() == digest
        return file if whole else None

    @property
    def etag(self) -> str:
        """The entity tag, without quotes; it is of these very bytes."""
        return self.digest[:32]

    @property
    def name(self) -> str:
        """How it is called on disk."""
        return self.digest + SUFFIX

    def keep(self, folder: Path) -> None:
        """Give it its name, if it has none yet."""
        while self._unnamed:
            os.replace(self._unnamed[0], folder / self.name)
            self._unnamed.clear()

    def blocks(self, size: int = BLOCK, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Give the bytes from `start` to `end`, so many at a time."""
        end = self.size if end is None else end
        while start < end:
            block = os.pread(self.descriptor, min(size, end - start), start)
            if not block:
                raise OSError(f"a file of the project list ends after {start} of {end} bytes")
            start += len(block)
            yield block

    def lines(self, size: int = BLOCK, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Do the same, cut at the ends of lines."""
        rest = b""
        for block in self.blocks(size, start, end):
            whole, newline, rest_of_block = block.rpartition(b"\n")
            if newline:
                yield rest + whole + newline
                rest = b""
            rest += rest_of_block


def _let_go(descriptor: int, unnamed: list[Path]) -> None:
    os.close(descriptor)
    for path in unnamed:
        with suppress(OSError):
            os.unlink(path)


class Draft:
    """A file that is being written."""

    def __init__(self, folder: Path | None) -> None:
        self._path: Path | None = None
        self._file = self._partial(folder) or tempfile.TemporaryFile("w+b", buffering=BLOCK)
        self._digest = hashlib.sha256()
        self._size = 0

    def _partial(self, folder: Path | None) -> IO[bytes] | None:
        if folder is None:
            return None
        # Beside the list's own folder, where what a crash leaves behind is removed at the start,
        # unless a process holds a lock on it.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path, file = partials.begin(folder.parent)
        except OSError:
            return None
        return BufferedRandom(file, BLOCK)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> ListFile:
        """Write all of it, and give the file."""
        self._file.flush()
        descriptor = os.dup(self._file.fileno())
        path, self._path = self._path, None
        self._file.close()
        return ListFile(descriptor, self._size, self._digest.hexdigest(), path)

    def finish_as(self, path: Path) -> None:
        """Write all of it, and put it in the place of what is there."""
        self._file.flush()
        if self._path is None:
            raise OSError(f"{path.parent} cannot be written")
        os.replace(self._path, path)
        self._path = None

    def abandon(self) -> None:
        """Throw away what was written; a finished file is not touched."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)
        with suppress(OSError):  # a full disk may refuse the last of it, too
            self._file.close()


@attrs.frozen(eq=False)
class Share:
    """What one index last said.

    :ivar names: the normalized names of its projects, one a line; ``None`` if it has no list
    :ivar forms: what was made of them on the way
    """

    part: Part
    names: ListFile | None
    forms: Mapping[Form, ListFile] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Content:
    """What is kept.

    :ivar shares: by the identity of their index client; their times are the wall clock's
    :ivar names: those of all these indexes together, in the list's order
    :ivar forms: ready to be sent
    """

    shares: Mapping[str, Share]
    names: ListFile | None
    forms: Mapping[Form, ListFile]


class _File(msgspec.Struct):
    size: int
    digest: str


class _Share(msgspec.Struct):
    part: Part
    names: _File | None


class _State(msgspec.Struct):
    state: Literal["current", "invalid"]
    version: int
    shares: dict[str, _Share]
    names: _File | None
    forms: dict[str, _File]


@attrs.frozen(eq=False)
class ListFolder:
    """The folder, all of whose methods may take a while: call them in a thread.

    :ivar path: it is made when it is needed
    :ivar lock: is held while the state changes
    """

    path: Path
    lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    # Names of files that are this process's own.
    _given: set[str] = attrs.field(init=False, factory=set)

    def draft(self) -> Draft:
        """Begin a file."""
        return Draft(self.path)

    def load(self) -> Content:
        """Give what is kept, as far as it is whole."""
        nothing, folder = Content({}, None, {}), self.path
        try:
            state = msgspec.json.decode((folder / STATE).read_bytes(), type=_State)
        except (OSError, ValueError):
            return nothing
        if state.version != VERSION:
            return nothing
        opened: dict[str, ListFile | None] = {}

        def file(found: _File | None) -> ListFile | None:
            if found is None or not _is_digest(found.digest):
                return None
            if found.digest not in opened:
                path = folder / (found.digest + SUFFIX)
                opened[found.digest] = ListFile.open(path, found.size, found.digest)
            return opened[found.digest]

        shares = {}
        self._note_old(folder)
        for identity, said in state.shares.items():
            names = file(said.names)
            if said.part.present == (names is not None):
                part = attrs.evolve(said.part, due=said.part.due or state.state == "invalid")
                shares[identity] = Share(part, names)
        forms = {_form(key): file(found) for key, found in state.forms.items()}
        return Content(
            shares,
            file(state.names) if len(shares) == len(state.shares) else None,
            {key: form for key, form in forms.items() if key and form},
        )

    def _note_old(self, folder: Path) -> None:
        """Note what may be removed: what a crash left behind, or an earlier process's list."""
        latest = time.time() - DAY
        for path in folder.glob("*" + SUFFIX):
            with suppress(OSError):
                if _is_digest(path.stem) and path.stat().st_mtime < latest:
                    self._given.add(path.name)

    def save(self, content: Content, current: Callable[[], bool]) -> None:
        """
        Keep this, and remove what was kept before.

        :param current: tells whether it still is; otherwise nothing is done
        :raises OSError: if the folder does not let it
        """
        files = [share.names for share in content.shares.values()]
        files += [content.names, *content.forms.values()]
        kept = [file for file in files if file is not None]
        if any(file.nameless for file in kept):
            return
        with self.lock:
            if current():
                self._save(content, kept)

    def _save(self, content: Content, kept: list[ListFile]) -> None:
        folder = self.path
        for file in kept:
            file.keep(folder)
        self._given.update(file.name for file in kept)
        if not all((folder / file.name).exists() for file in kept):
            return  # another process has put its own list in the place of this one
        shares = {
            identity: _Share(share.part, _described(share.names))
            for identity, share in content.shares.items()
        }
        forms = {_key(form): _File(file.size, file.digest) for form, file in content.forms.items()}
        state = _State("current", VERSION, shares, _described(content.names), forms)
        draft = Draft(folder)
        try:
            draft.write(msgspec.json.encode(state))
            draft.finish_as(folder / STATE)
        finally:
            draft.abandon()
        for name in self._given - {file.name for file in kept}:
            self._given.remove(name)
            (folder / name).unlink(missing_ok=True)

    def invalidate(self) -> None:
        """
        Let the list be asked for again before it is used again; the caller holds the lock.

        :raises OSError: if the disk does not let it; then nothing has changed
        """
        partials.overwrite(self.path / STATE, INVALID)

    def clear(self) -> Path:
        """
        Forget the list for good, by renaming the folder; the caller holds the lock.

        :return: the new name, to be removed
        :raises OSError: if the disk does not let it; then nothing has changed
        """
        return partials.discard(self.path)


def _described(file: ListFile | None) -> _File | None:
    return None if file is None else _File(file.size, file.digest)


def _key(form: Form) -> str:
    return form[0].value + (".gz" if form[1] else "")


def _form(key: str) -> Form | None:
    return {_key((s, c)): (s, c) for s in Serialization for c in (False, True)}.get(key)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
