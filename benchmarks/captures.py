"""Captured pages and metadata of the default index, in a folder outside the repository.

A missing page, or missing metadata of a wheel, is fetched from proxpi's default index at its first
request and kept for good: a capture is complete when the clients that fill it miss nothing.
Stand-ins (``stand_ins.py``) take the place of files, unless these are captured as well. Mirrors of
the default index may lack the key ``core-metadata`` of pages, and ``.metadata`` of some wheels:
that metadata is read out of the wheel by ranges. A page lists captured metadata, and the stand-in
that holds it, with its digest, and metadata that was not captured yet without one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import attrs
from stand_ins import StandIn, stand_in

from proxpi.archives import NoUsableMetadata, SparseFile, core_metadata
from proxpi.settings import SETTINGS

_JSON = "application/vnd.pypi.simple.v1+json"
_KEPT = ("filename", "requires-python", "size", "upload-time", "yanked", "hashes")
_TAIL = 64 * 1024
_TIMEOUT = 60.0
_TRIES = 3
[_DEFAULT_INDEX] = [setting.default for setting in SETTINGS if setting.name == "index_url"]

#: An entry of a page, as the Simple API has it in JSON.
Entry = dict[str, Any]


def default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "proxpi-benchmarks" / "captures"


@attrs.define
class Captures:
    """A folder of captured pages and metadata.

    :ivar folder: it holds ``pages/<project>.json`` and ``metadata/<file>``; an empty file stands
        for a page or metadata that the index does not have
    :ivar largest: the most bytes of a stand-in; by default each has the size of its wheel
    :ivar files: whether files are captured, rather than replaced by stand-ins
    :ivar captured: number of pages, metadata and files that were captured by this object
    """

    folder: Path
    largest: int | None = None
    files: bool = False
    captured: int = attrs.field(init=False, default=0)
    _entries: dict[str, dict[str, Entry]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        for name in ("pages", "metadata", "digests", "files"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def entries(self, project: str) -> list[Entry]:
        """Return the entries of a page without URLs and digests; none if the project is unknown.

        A wheel has the key ``core-metadata`` unless it is known to have no metadata.
        """
        found = []
        for filename, entry in self._known(project).items():
            listed = {key: value for key, value in entry.items() if key not in ("url", "hashes")}
            if filename.endswith(".whl") and self._captured(filename) != b"":
                listed["core-metadata"] = True
            found.append(listed)
        return found

    def page(self, project: str) -> list[Entry]:
        """Return the entries of a page with digests, as far as they are known."""
        entries = self.entries(project)
        for entry in entries:
            filename = entry["filename"]
            entry["hashes"] = {"sha256": _sha256(filename.encode())}
            if self.files:
                entry["hashes"] = self._known(project)[filename]["hashes"]
            if filename.endswith(".whl") and (metadata := self._captured(filename)):
                entry["core-metadata"] = {"sha256": _sha256(metadata)}
                if not self.files:
                    entry["size"], entry["hashes"]["sha256"] = self._digest(entry, metadata)
        return entries

    def metadata(self, project: str, filename: str) -> bytes:
        """Return the metadata of a wheel, empty if it has none; fetch it unless it was captured."""
        if (known := self._captured(filename)) is None:
            entry = self._known(project).get(filename)
            known = _metadata(entry) if entry and filename.endswith(".whl") else b""
            _write(self.folder / "metadata" / filename, known)
            self.captured += 1
        return known

    def file(self, project: str, filename: str) -> StandIn | None:
        """Return the stand-in for a wheel, or the file; None without captured metadata."""
        entry, metadata = self._known(project).get(filename), self._captured(filename)
        if not (entry and metadata):
            return None
        if not self.files:
            return self._stand_in(entry, metadata)
        path = self.folder / "files" / filename
        if not path.exists():
            _write(path, _get(entry["url"], {}) or b"")
            self.captured += 1
        return StandIn(path.read_bytes(), 0, b"")

    def _stand_in(self, entry: Entry, metadata: bytes) -> StandIn:
        size = entry["size"] if self.largest is None else min(self.largest, entry["size"])
        return stand_in(entry["filename"], metadata, size)

    def _digest(self, entry: Entry, metadata: bytes) -> tuple[int, str]:
        """Return size and digest of a stand-in; both are kept, for a digest takes long."""
        path = self.folder / "digests" / f"{entry['filename']}.{self.largest or 'whole'}"
        if not path.exists():
            made = self._stand_in(entry, metadata)
            _write(path, f"{made.size} {made.sha256()}".encode())
        size, digest = path.read_text().split()
        return int(size), digest

    def _known(self, project: str) -> dict[str, Entry]:
        if (known := self._entries.get(project)) is None:
            path = self.folder / "pages" / f"{project}.json"
            if not path.exists():
                _write(path, _page(project))
                self.captured += 1
            text = path.read_bytes()
            known = {file["filename"]: file for file in json.loads(text or b"[]")}
            self._entries[project] = known
        return known

    def _captured(self, filename: str) -> bytes | None:
        try:
            return (self.folder / "metadata" / filename).read_bytes()
        except FileNotFoundError:
            return None


def _page(project: str) -> bytes:
    url = f"{_DEFAULT_INDEX}{project}/"
    found = _get(url, {"Accept": _JSON, "Accept-Encoding": "gzip"})
    if found is None:
        return b""
    files = [
        {key: file[key] for key in _KEPT if file.get(key) is not None}
        | {"url": urljoin(url, file["url"])}
        for file in json.loads(found)["files"]
    ]
    return json.dumps(files).encode()


def _metadata(entry: Mapping[str, Any]) -> bytes:
    url, filename, size = entry["url"], entry["filename"], entry["size"]
    if (found := _get(f"{url}.metadata", {})) is not None:
        return found
    tail = max(0, size - _TAIL)
    end = _range(url, tail, size)

    def at(start: int, count: int) -> bytes:
        if start >= tail:
            return end[start - tail : start - tail + count]
        return _range(url, start, start + count)

    try:
        return core_metadata(SparseFile(size, at), filename)
    except NoUsableMetadata:
        return b""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _range(url: str, start: int, stop: int) -> bytes:
    found = _get(url, {"Range": f"bytes={start}-{stop - 1}"})
    if found is None or len(found) != stop - start:
        raise OSError(f"no range {start}-{stop - 1} of {url}")
    return found


def _get(url: str, headers: Mapping[str, str]) -> bytes | None:
    """Fetch a resource; None if it is gone."""
    request = urllib.request.Request(url, headers={"User-Agent": "proxpi-benchmarks", **headers})
    context = ssl.create_default_context()
    for left in reversed(range(_TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as response:
                body: bytes = response.read()
                if response.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                return body
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                return None
            if not left:
                raise
        except OSError:
            if not left:
                raise
    return None


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.{id(data)}")
    partial.write_bytes(data)
    partial.replace(path)
