"""Files in folders that are indexes, sent from where they lie: never copied, evicted or deleted.

A reference to such a file has the URL of one version of it (:mod:`proxpi.local_files`). The version
*lies there* if the file has the same inode, size and ctime; otherwise it is :class:`Gone`, and a
fresh page tells the next one. Bytes that the page does not list are never served. The core metadata
of a wheel is read from the wheel, its signature from beside it, both by a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from proxpi.archives import NoUsableMetadata, SparseFile, core_metadata
from proxpi.files.cache_dir import OpenFile
from proxpi.files.resolver import METADATA, FileReference, Gone
from proxpi.local_files import Identity, open_regular, path_and_identity
from proxpi.single_flight import InThread
from proxpi.upstream import UpstreamFailed

#: Bytes of the longest signature; real ones have less than a thousand.
MAX_SIGNATURE = 64 * 1024
#: What the system says where there is no file, or none that can be sent.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)


@attrs.frozen
class InFolder:
    """The location of an open file that lies in a folder; `cache_path` is its whole path."""

    cache_path: str
    identity: Identity
    is_verified: bool = attrs.field(init=False, default=True)

    def status(self) -> os.stat_result:
        return os.stat(self.cache_path)

    def acquire(self) -> None:
        """Nothing evicts it."""

    def release(self) -> None:
        """Nothing evicts it."""

    def mark_unverified(self) -> None:
        """Its identity is compared each time that it is opened."""


@attrs.frozen
class FolderFiles:
    """The files in some folders; `folders`: their paths, each with a slash at its end."""

    _folders: Sequence[str]
    _in_thread: InThread

    def ready(self, reference: FileReference) -> OpenFile | None:
        """Open a file that lies there, without waiting for a thread."""
        try:
            return None if reference.is_companion else self._open(reference)
        except (Gone, UpstreamFailed):
            return None

    async def open(self, reference: FileReference) -> OpenFile:
        """
        Open a file, or a companion of one.

        :raises Gone: if the version that the page lists does not lie there
        :raises UpstreamFailed: if it cannot be read
        """
        if not reference.is_companion:
            return self._open(reference)
        return await self._in_thread(lambda: self._companion(reference))

    async def metadata(self, reference: FileReference, filename: str) -> bytes | None:
        """Read the core metadata in a wheel that lies there; ``None`` if there is none."""
        try:
            return await self._in_thread(lambda: self._read_wheel(reference, filename))
        except (Gone, UpstreamFailed, NoUsableMetadata):
            return None

    def _open(self, reference: FileReference) -> OpenFile:
        path, identity = self._version(reference)
        with _reading(reference):
            file = open_regular(path)
        if Identity.of(os.fstat(file.fileno())) != identity or reference.sha256 is None:
            file.close()
            raise Gone(reference, 404)
        location = InFolder(path, identity)
        return OpenFile(file, identity.size, reference.sha256, location=location, in_folder=True)

    def _companion(self, reference: FileReference) -> OpenFile:
        is_metadata = reference.url.partition("?")[0].endswith(METADATA)
        data = self._metadata(reference) if is_metadata else self._signature(reference)
        digest = hashlib.sha256(data).hexdigest()
        if reference.digest not in (None, ("sha256", digest)):
            raise Gone(reference, 404)
        unnamed = tempfile.TemporaryFile(buffering=0)
        unnamed.write(data)
        return OpenFile(unnamed, len(data), digest, reference.has_digest, in_folder=True)

    def _metadata(self, reference: FileReference) -> bytes:
        assert reference.requested_as is not None
        filename = reference.requested_as[1].removesuffix(METADATA)
        wheel = attrs.evolve(reference, url=_without_suffix(reference.url, METADATA))
        try:
            return self._read_wheel(wheel, filename)
        except NoUsableMetadata as unfit:
            raise Gone(reference, 404) from unfit

    def _read_wheel(self, reference: FileReference, filename: str) -> bytes:
        path, identity = self._version(reference)
        if not filename.endswith(".whl"):
            raise NoUsableMetadata("it is no wheel")
        with _reading(reference), open_regular(path) as file:
            if Identity.of(os.fstat(file.fileno())) != identity:
                raise Gone(reference, 404)
            return core_metadata(SparseFile.of(file, identity.size), filename)

    def _signature(self, reference: FileReference) -> bytes:
        path, _ = self._version(reference)
        with _reading(reference), open_regular(path) as file:
            data = file.read(MAX_SIGNATURE + 1)
        if len(data) > MAX_SIGNATURE:
            raise Gone(reference, 404)
        return data

    def _version(self, reference: FileReference) -> tuple[str, Identity]:
        """Return path and identity of a file; `Gone` if it lies in none of the folders."""
        try:
            path, identity = path_and_identity(reference.url)
        except ValueError:
            raise Gone(reference, 404) from None
        # No page lists a file elsewhere; a damaged one must not lead there either.
        within = (path[len(each) :] for each in self._folders if path.startswith(each))
        if not any(".." not in each.split("/") for each in within):
            raise Gone(reference, 404)
        return path, identity


@contextmanager
def _reading(reference: FileReference) -> Iterator[None]:
    """Raise `Gone` or `UpstreamFailed` in place of an `OSError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            raise Gone(reference, 404) from error
        cause = error.strerror or str(error)
        raise UpstreamFailed(reference.url, f"it cannot be read: {cause}", kind="folder") from error


def _without_suffix(url: str, suffix: str) -> str:
    path, mark, query = url.partition("?")
    return path.removesuffix(suffix) + mark + query
