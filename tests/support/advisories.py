"""A feed of advisories in memory: entries of the OSV schema, their archive and their list.

:class:`Entries` are what a database holds. A test changes them, and gives them to the agent in
memory (:meth:`Entries.publish`), to a server (:meth:`Entries.serve`) or to a folder
(:meth:`Entries.write`).
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import attrs

from tests.support.agent import MemoryAgent, Reply
from tests.support.fake_index import FakeIndex

FEED = "https://advisories.example/PyPI/"
ARCHIVE, LISTING = f"{FEED}all.zip", f"{FEED}modified_id.csv"


def affected(name: str, *versions: str, **keys: Any) -> dict[str, Any]:
    """Return what an entry states about a project of PyPI; by default all versions."""
    stated: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": name}, **keys}
    if versions:
        stated["versions"] = list(versions)
    elif "ranges" not in keys:
        stated["ranges"] = [in_range(introduced="0")]
    return stated


def in_range(kind: str = "ECOSYSTEM", **events: str) -> dict[str, Any]:
    """Return a range with these events, in order."""
    return {"type": kind, "events": [{name: version} for name, version in events.items()]}


def document(identifier: str, *stated: dict[str, Any], day: int = 1, **keys: Any) -> dict[str, Any]:
    """Return an entry that was modified on a day of March 2026."""
    return {"id": identifier, "modified": modified(day), "affected": list(stated), **keys}


def modified(day: int) -> str:
    return f"2026-03-{day:02}T10:00:00.120000Z"


@attrs.define
class Entries:
    """The entries of a database, by identifier."""

    documents: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def put(self, identifier: str, *stated: dict[str, Any], day: int = 1, **keys: Any) -> None:
        self.documents[identifier] = document(identifier, *stated, day=day, **keys)

    def data(self, identifier: str) -> bytes:
        return json.dumps(self.documents[identifier]).encode()

    @property
    def archive(self) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for identifier in self.documents:
                archive.writestr(f"{identifier}.json", self.data(identifier))
        return file.getvalue()

    @property
    def listing(self) -> bytes:
        """The list, the newest entry first; its times have fewer digits than those of entries."""
        lines = [
            f"{stated['modified'].replace('120000Z', '12Z')},{identifier}\n"
            for identifier, stated in self.documents.items()
        ]
        return "".join(sorted(lines, reverse=True)).encode()

    def publish(self, agent: MemoryAgent) -> None:
        """Have the agent send all of the feed, without validators."""
        agent.at(ARCHIVE, Reply(200, self.archive))
        agent.at(LISTING, Reply(200, self.listing))
        for identifier in self.documents:
            agent.at(f"{FEED}{identifier}.json", Reply(200, self.data(identifier)))

    def serve(self, server: FakeIndex, path: str = "/PyPI/") -> str:
        """Have a server send all of the feed; return its URL."""
        server.document(f"{path}all.zip", self.archive)
        server.document(f"{path}modified_id.csv", self.listing)
        for identifier in self.documents:
            server.document(f"{path}{identifier}.json", self.data(identifier))
        return f"{server.origin}{path}"

    def write(self, folder: Path) -> None:
        """Write all of the feed to a folder."""
        folder.mkdir(exist_ok=True)
        (folder / "all.zip").write_bytes(self.archive)
        (folder / "modified_id.csv").write_bytes(self.listing)
        for identifier in self.documents:
            (folder / f"{identifier}.json").write_bytes(self.data(identifier))
