"""The fake index as a test sees it: a process of its own, scripted through one object.

The process runs ``tests.support.fake_server``; it ends with this object, or with the test run.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.support.behavior import (
    Awaited,
    Behavior,
    Listed,
    Login,
    RawPage,
    Record,
    Scripted,
    Seen,
)
from tests.support.certificates import make_certificate
from tests.support.distributions import Distribution
from tests.support.nursery import raise_index

_GUARD_SECONDS = 60.0


class FakeIndex:
    """A running fake index.

    ``url`` is the Simple API's root with a trailing slash; ``files_url`` the origin that file
    links lead to, which is the index's own unless ``files_elsewhere`` is set. With ``tls`` both
    speak https with a certificate that nobody trusts (``certificate``, a PEM file).
    """

    def __init__(self, *, files_elsewhere: bool = False, tls: bool = False) -> None:
        self._files_elsewhere = files_elsewhere
        self._tls = tls

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="fake-index-")
        self.certificate = make_certificate(Path(self._folder.name)) if self._tls else None
        orders = {
            "files_elsewhere": self._files_elsewhere,
            "certificate": self.certificate and str(self.certificate),
        }
        its_input, own_output = os.pipe()
        own_input, its_output = os.pipe()
        self._input, self._output = open(own_output, "wb"), open(own_input, "rb")
        try:
            raise_index(json.dumps(orders), its_input, its_output)
        finally:
            os.close(its_input)
            os.close(its_output)
        ports = json.loads(self._output.readline())
        self._process, self._control_port = ports["process"], ports["control"]
        scheme = "https" if self._tls else "http"
        self.origin = f"{scheme}://127.0.0.1:{ports['index']}"
        self.url = f"{self.origin}/simple/"
        self.files_port = ports["files"] if self._files_elsewhere else ports["index"]
        self.files_url = f"{scheme}://127.0.0.1:{self.files_port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._input.close()
        # Its end is that of its output.
        if not select.select([self._output], [], [], _GUARD_SECONDS)[0]:
            os.kill(self._process, signal.SIGKILL)
        self._output.read()
        self._output.close()
        self._folder.cleanup()

    def _order(self, verb: str, argument: object = None) -> bytes:
        control = http.client.HTTPConnection(
            "127.0.0.1", self._control_port, timeout=_GUARD_SECONDS
        )
        try:
            control.request("POST", f"/{verb}", msgspec.json.encode(argument))
            response = control.getresponse()
            body = response.read()
        finally:
            control.close()
        if response.status != 200:
            raise AssertionError(f"the fake index did not take {verb}: {body.decode()}")
        return body

    def add(self, distribution: Distribution, project: str | None = None, **keys: Any) -> str:
        """List a file; the answer is the path that its bytes are served at.

        ``keys`` are the entry's own (``core_metadata`` for ``core-metadata``); ``None`` leaves a
        key out that would be there.
        """
        project = project or distribution.project
        entry: dict[str, Any] = {
            "filename": distribution.filename,
            "hashes": {"sha256": distribution.sha256},
            "requires-python": distribution.requires_python,
            "size": distribution.size,
            "upload-time": "2026-01-02T03:04:05.678901Z",
        }
        if distribution.metadata is not None:
            digest = hashlib.sha256(distribution.metadata).hexdigest()
            entry["core-metadata"] = {"sha256": digest}
        entry |= {name.replace("_", "-"): value for name, value in keys.items()}
        entry = {name: value for name, value in entry.items() if value is not None}
        version, data, metadata = distribution.version, distribution.data, distribution.metadata
        self._order("add", Listed(project, version, entry, data, metadata))
        return f"/files/{project}/{distribution.filename}"

    def forget(self, project: str) -> None:
        """Unlist a project: its page is a 404 from now on, its files stay."""
        self._order("forget", project)

    def page(self, project: str, body: bytes, content_type: str | None) -> None:
        """Serve these bytes as a project's page (``""``: as the root list) in any case."""
        path = f"/simple/{project}/" if project else "/simple/"
        self._order("page", RawPage(path, body, content_type))

    def script(self, path: str, *behaviors: Behavior) -> None:
        """Set how a path behaves, in order; ``*`` at its end: every path that starts so."""
        self._order("script", Scripted(path, list(behaviors)))

    def release(self, path: str) -> None:
        """Let go the requests held on a path; from now on it behaves."""
        self._order("release", path)

    def require_auth(self, user: str, password: str, origin: str = "index") -> None:
        """Ask for Basic credentials on an origin, ``index`` or ``files``."""
        self._order("require", Login(origin, user, password))

    def close(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        self._order("close")

    def reopen(self) -> None:
        """Listen again, on the same ports."""
        self._order("reopen")

    def clear_requests(self) -> None:
        """Forget the requests that were answered."""
        self._order("clear")

    def requests(self) -> list[Seen]:
        """Every request so far, in the order of arrival."""
        return msgspec.json.decode(self._order("record"), type=Record).requests

    def files_asked(self) -> list[Seen]:
        """The requests for files and metadata."""
        return [seen for seen in self.requests() if seen.is_file]

    def wait_for(
        self, met: Callable[[Sequence[Seen]], bool], within: float = _GUARD_SECONDS
    ) -> list[Seen]:
        """The requests, as soon as they meet a condition; ``AssertionError`` if they never do.

        ``within``: seconds after which it is never.
        """
        end = time.monotonic() + within
        record = msgspec.json.decode(self._order("record"), type=Record)
        while not met(record.requests):
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"the fake index never saw it: {record.requests}")
            awaited = Awaited(record.version, min(left, _GUARD_SECONDS / 2))
            record = msgspec.json.decode(self._order("wait", awaited), type=Record)
        return record.requests

    def wait_until_quiet(self) -> list[Seen]:
        """The requests, as soon as none of them is under way."""
        return self.wait_for(lambda requests: all(seen.ended for seen in requests))
