"""Deny files, with selectors of files to exclude: read at the start, and again when they change.

An operator, or a program of theirs, keeps such a list apart from the configuration, and wants a new
line to hold at once. A line is one selector (:func:`proxpi.simple.selector`); an empty line, and
what follows a ``#``, is a comment. Each file has two states:

* *read*: its selectors hold. Every :data:`INTERVAL` seconds a thread compares its time of change,
  size and inode with those of the file that was read. New lines hold at once. A version that lacks
  a selector may be one that is being written: it is read at the second look that finds it.
* *broken*: it is missing, cannot be read, or has a line that is no selector. The selectors that
  were read before still hold, since a mistake must not let through a denied file. One error is
  logged for each problem, and one line when it is solved.

At the start a broken file is an error of the configuration.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from proxpi.problems import Problems
from proxpi.simple import Selector, printable, selector, selectors
from proxpi.single_flight import InThread
from proxpi.values import SettingsError

#: Seconds between two looks at the files.
INTERVAL = 5.0
#: Bytes of the largest file that is read.
LIMIT = 64 * 1024 * 1024

_log = Logger(namespace="proxpi.rules")


class Unusable(ValueError):
    """A file that cannot be used; the text says why, in one line."""


@attrs.frozen
class Denial:
    """A selector of files that are denied.

    :ivar rule: where it stands, as a noun phrase: ``/etc/deny.txt, line 3: "evil"``
    """

    selector: Selector
    rule: str


def parse(path: str, data: bytes) -> tuple[Denial, ...]:
    """
    Read the lines of a file.

    :raises Unusable: with the first line that is no selector
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise Unusable(f"{printable(path)}, line {number}: not UTF-8") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not (written := line.partition("#")[0].strip()):
            continue
        place = f"{printable(path)}, line {number}"
        try:
            chosen = selector(written)
        except ValueError as error:
            shown = written if len(written) <= 100 else written[:100] + "…"
            raise Unusable(f"{place}: {shown!r}: {error}") from None
        found.append(Denial(chosen, f'{place}: "{chosen}"'))
    return tuple(found)


@attrs.frozen
class _Version:
    """One version of a file, as the system tells it without reading it."""

    changed_at: int
    size: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Version:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


@attrs.frozen
class _Read:
    """A version of a file, and its selectors."""

    version: _Version
    denials: tuple[Denial, ...]


def read(path: str, before: _Read | None) -> _Read | None:
    """
    Read a file that has changed; blocks.

    :return: ``None`` if it has not changed, or changes just now
    :raises Unusable: if it cannot be used
    """
    try:
        status = os.stat(path)
        if before is not None and _Version.of(status) == before.version:
            return None
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could take forever
            raise Unusable(f"{printable(path)}: not a file")
        with open(path, "rb") as file:
            version = _Version.of(os.fstat(file.fileno()))
            if version.size > LIMIT:
                raise Unusable(f"{printable(path)}: more than {LIMIT} bytes")
            data = file.read(LIMIT + 1)
            if before is not None and _Version.of(os.fstat(file.fileno())) != version:
                return None
    except OSError as error:
        raise Unusable(f"{printable(path)}: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, Unusable):
            raise
        raise Unusable(f"{printable(path)}: {error}") from None  # a path with a null character
    return _Read(version, parse(path, data))


@attrs.define(eq=False)
class DenyFiles:
    """Keeps the selectors of some files, in their order.

    :ivar changed: called when selectors change, with the names of all projects that are concerned;
        ``None`` if these are not known
    """

    _clock: IReactorTime
    _in_thread: InThread
    _problems: Problems
    _files: dict[str, _Read]
    changed: list[Callable[[Collection[str] | None], None]] = attrs.field(factory=list)
    # Those that could not be used when they were read last.
    _unusable: set[str] = attrs.field(init=False, factory=set)
    # Versions that lack selectors, seen once.
    _shorter: dict[str, _Version] = attrs.field(init=False, factory=dict)
    _watching: LoopingCall = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._watching = LoopingCall(self._look)
        self._watching.clock = self._clock

    @classmethod
    def open(
        cls, paths: Sequence[str], clock: IReactorTime, in_thread: InThread, problems: Problems
    ) -> DenyFiles:
        """Read all files; raises :exc:`SettingsError` if one cannot be used."""
        files = {}
        for path in map(os.path.abspath, paths):  # a daemon changes its working folder
            try:
                found = read(path, None)
            except Unusable as error:
                accepted = f"a file with one selector a line is accepted: {selectors.ACCEPTED}"
                raise SettingsError(f"[rules]: deny-files: {error}; {accepted}") from None
            if found is not None:
                files[path] = found
        return cls(clock, in_thread, problems, files)

    @property
    def denials(self) -> tuple[Denial, ...]:
        return tuple(denial for file in self._files.values() for denial in file.denials)

    def start(self) -> None:
        """Look at the files from now on."""
        if self._files:
            self._watching.start(INTERVAL, now=False)

    def stop(self) -> None:
        if self._watching.running:
            self._watching.stop()

    def _look(self) -> Deferred[None]:
        looked = Deferred.fromCoroutine(self._read_changed())
        # An error here is a fault of proxpi, and must not end the looking.
        return looked.addErrback(lambda failure: _log.failure("deny-files", failure))

    async def _read_changed(self) -> None:
        files, shorter = self._files, self._shorter
        found, names = await self._in_thread(lambda: _read_all(files, shorter))
        if not self._watching.running:
            return
        for path, result in found.items():
            if isinstance(result, Unusable):
                self._unusable.add(path)
                self._problems.note(
                    ("deny-files", str(result)),
                    f"deny-files: {result}",
                    "the lines read before still hold",
                    f"a file with one selector a line is accepted: {selectors.ACCEPTED}",
                    LogLevel.error,
                )
                continue
            if isinstance(result, _Version):
                self._shorter[path] = result
                continue
            if path in self._unusable or result is not None:
                self._unusable.discard(path)
                _log.info(
                    "deny-files: {path} was read again; selectors in it: {count}",
                    path=path,
                    count=len((result or self._files[path]).denials),
                )
            if result is not None:
                self._files[path] = result
        if names != set():
            for callback in self.changed:
                callback(names)


#: A file after a look: a new version that is read, one that is to be seen twice first, or a
#: problem; ``None``: it has not changed.
_Look: TypeAlias = _Read | _Version | Unusable | None


def _read_all(
    files: Mapping[str, _Read], shorter: Mapping[str, _Version]
) -> tuple[dict[str, _Look], set[str] | None]:
    """Read files that have changed; return them, and the names of the projects concerned."""
    found: dict[str, _Look] = {}
    after: list[Denial] = []
    for path, before in files.items():
        found[path] = result = _look_at(path, before, shorter.get(path))
        after += result.denials if isinstance(result, _Read) else before.denials
    if not any(isinstance(each, _Read) for each in found.values()):
        return found, set()
    return found, concerned([each for file in files.values() for each in file.denials], after)


def _look_at(path: str, before: _Read, shorter: _Version | None) -> _Look:
    try:
        result = read(path, before)
    except Unusable as error:
        return error
    if result is None or result.version == shorter:
        return result
    lacks = {each.selector for each in before.denials} - {each.selector for each in result.denials}
    return result.version if lacks else result


def concerned(before: Sequence[Denial], after: Sequence[Denial]) -> set[str] | None:
    """
    Return the names of the projects that a change concerns.

    ==========================================  ==============
    Selectors that were added, removed, moved   Projects
    ==========================================  ==============
    none                                        none
    ``evil``, ``left-pad>=1.2``                 evil, left-pad
    ``acme-*``, ``sha256:…``                    any (``None``)
    ==========================================  ==============
    """
    patterns = {each.selector.pattern for each in {*before} ^ {*after}}
    return {each.text for each in patterns} if all(each.is_name for each in patterns) else None
