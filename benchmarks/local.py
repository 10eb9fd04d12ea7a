"""The local index that all programs stand in front of, and the slow link to it, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from environments import Unusable
from programs import Reply, get, stop


@attrs.frozen
class Index:
    """The local index that all stand in front of; see ``stock.py``."""

    port: int

    def url(self, root: str = "simple") -> str:
        """Give the URL of one of its roots."""
        return f"http://127.0.0.1:{self.port}/{root}/"

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask it directly."""
        return get(self.port, path, headers)

    def asked(self) -> int:
        """Say how many requests it has seen, this one left out."""
        return int(self.get("/asked", {}).body)

    def fetched(self) -> int:
        """Say how often a blob was asked for."""
        return int(self.get("/fetched", {}).body)

    def file(self, project: str) -> tuple[str, str, int]:
        """Give the name of the first file of a project, its path here, and its size."""
        file = json.loads(self.get(f"/simple/{project}/", {}).body)["files"][0]
        return file["filename"], urlsplit(file["url"]).path, file["size"]


@contextmanager
def upstream() -> Iterator[Index]:
    """Start the local index."""
    with _serving("upstream.py") as port:
        yield Index(port)


@contextmanager
def distant(index: Index) -> Iterator[Index]:
    """Put a slow link before the index; see ``link.py``."""
    with _serving("link.py", str(index.port)) as port:
        yield Index(port)


@contextmanager
def _serving(script: str, *arguments: str) -> Iterator[int]:
    """Start a server of ours in a process of its own, which prints its port."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise Unusable(f"{script} did not start")
            yield int(port)
        finally:
            stop(process)
