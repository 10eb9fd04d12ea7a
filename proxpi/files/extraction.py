"""Core metadata that no index states: extracted from cached wheels, for their pages to advertise.

Without core metadata on the page, clients download wheels to resolve. Once a wheel is cached and
verified by a sha256, a thread reads its metadata, one wheel after the other; no client waits for
that. Then the page advertises its digest (PEP 658), and
:class:`~proxpi.files.wheel_metadata.WheelMetadata` serves the bytes. A wheel is *unfit* if its
metadata cannot be read: this process does not read it again.
"""

from __future__ import annotations

import hashlib

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxpi.archives import NoUsableMetadata, SparseFile, core_metadata
from proxpi.files.cache_dir import CacheDir
from proxpi.files.resolver import FileReference
from proxpi.simple import urls
from proxpi.single_flight import Flights, InThread

#: Unfit wheels that are remembered; beyond that the oldest one is forgotten.
UNFIT = 10_000

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False, kw_only=True)
class Extraction:
    """Extracts core metadata of cached wheels, without a request upstream."""

    _cache_dir: CacheDir
    _in_thread: InThread
    _flights: Flights[FileReference, None]
    _lock: DeferredLock = attrs.field(init=False, factory=DeferredLock)
    _unfit: dict[str | None, None] = attrs.field(init=False, factory=dict)

    def begin(self, reference: FileReference) -> None:
        """Let the page of a cached wheel advertise its core metadata, if none is advertised."""
        if reference.lacks_metadata and reference.sha256 not in self._unfit:
            self._flights.join(reference, lambda: self._extract(reference))

    async def _extract(self, reference: FileReference) -> None:
        try:
            async with self._lock:
                data = await self._read(reference)
            if data is not None:
                digest = hashlib.sha256(data).hexdigest()
                assert reference.resolver is not None
                await reference.resolver.advertise_metadata(reference, digest)
        except NoUsableMetadata as unfit:
            url = urls.loggable(reference.url)
            _log.info("{url}: no core metadata is advertised: {unfit}", url=url, unfit=unfit)
            self._unfit[reference.sha256] = None
            if len(self._unfit) > UNFIT:
                del self._unfit[next(iter(self._unfit))]
        except Exception:  # noqa: BLE001 (no client waits for it)
            _log.failure("core metadata of a wheel: an error of proxpi's own")

    async def _read(self, reference: FileReference) -> bytes | None:
        """Read the core metadata in a wheel, unless the page has changed or the wheel is gone."""
        assert reference.requested_as is not None and reference.resolver is not None
        name, filename = reference.requested_as
        listed = reference.resolver.known(name, filename)
        if listed != reference or not listed.lacks_metadata:
            return None
        if (file := self._cache_dir.open(reference, used=False)) is None:
            return None
        try:
            wheel = SparseFile(file.size, file.read)
            return await self._in_thread(lambda: core_metadata(wheel, filename))
        finally:
            file.close()
