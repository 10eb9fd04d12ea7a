"""The base case of tests of prefetching: all of proxpi, a client, and an index with a tree."""

from __future__ import annotations

import json
from typing import Any

from proxpi import metrics
from proxpi.metrics import Count, Family
from tests.support.agent import Reply
from tests.support.cases import FILES, INDEX, JSON, ProxpiCase, entry, page, sha256

#: What pip states of itself, and the header fields that it sends for pages.
USER_AGENT = "pip/26.3 " + json.dumps(
    {
        "cpu": "x86_64",
        "distro": {"libc": {"lib": "glibc", "version": "2.36"}, "name": "Debian"},
        "implementation": {"name": "CPython", "version": "3.11.7"},
        "installer": {"name": "pip", "version": "26.3"},
        "python": "3.11.7",
        "system": {"name": "Linux", "release": "6.1"},
    }
)
PIP, ACCEPT = f"User-Agent: {USER_AGENT}", f"Accept: {JSON}"


class PrefetchCase(ProxpiCase):
    """An index with a tree of projects; each has one version, whose metadata is advertised."""

    def setUp(self) -> None:
        super().setUp()
        self.build(prefetch=True)

    def project(self, name: str, *requires: str, **replies: Any) -> None:
        """Let the index have a project whose wheel requires others."""
        lines = ["Metadata-Version: 2.4", *(f"Requires-Dist: {each}" for each in requires), "", ""]
        self.project_with(name, "\n".join(lines).encode(), **replies)

    def project_with(self, name: str, metadata: bytes, **replies: Any) -> None:
        """Let the index have a project whose wheel has this core metadata."""
        wheel, data = f"{name}-1.0-py3-none-any.whl", f"wheel of {name}".encode()
        listed = entry(wheel, data, metadata={"sha256": sha256(metadata)})
        self.agent.at(f"{INDEX}{name}/", *replies.get("pages", [page(listed, name=name)]))
        self.agent.at(f"{FILES}{wheel}.metadata", *replies.get("metadata", [Reply(200, metadata)]))
        self.agent.at(f"{FILES}{wheel}", *replies.get("files", [Reply(200, data)]))

    def page(self, name: str, *headers: str) -> Any:
        return self.get(f"/index/{name}/", PIP, ACCEPT, *headers)

    def metadata(self, name: str) -> Any:
        return self.get(f"/index/{name}/{name}-1.0-py3-none-any.whl.metadata", PIP)

    def wheel(self, name: str) -> Any:
        return self.get(f"/index/{name}/{name}-1.0-py3-none-any.whl", PIP)

    def requested(self) -> list[str]:
        """The upstream requests since the last call: ``page one``, ``metadata one``, …"""
        found = []
        for asked in self.agent.asked:
            last = asked.url.rstrip("/").rpartition("/")[2]
            kind = "wheel" if asked.url.startswith(FILES) else "page"
            kind = "metadata" if last.endswith(".metadata") else kind
            found.append(f"{kind} {last.partition('-1.0')[0]}")
        self.agent.asked.clear()
        return found

    def outcomes(self, *, of: Family[Count] = metrics.PREFETCH_REQUESTS) -> dict[str, float]:
        return {outcome: count.value for (outcome,), count in of.values.items()}
