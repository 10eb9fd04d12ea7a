"""The fake index: a Simple API in threads of the test, which misbehaves as the test scripts it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import attrs

from tests.support.certificates import make_certificate, serving
from tests.support.distributions import Distribution
from tests.support.process import GUARD_SECONDS
from tests.support.servers import Connection, Server, readable, reset

_DRIP_SECONDS = 0.05
_JSON = {"Content-Type": "application/vnd.pypi.simple.v1+json"}


@attrs.frozen
class Behavior:
    """How a path is answered: the ordinary answer, changed as these say.

    * ``times``: only the first so many requests; ``None``: all.
    * ``status``, ``headers`` (``None`` as a value removes one), ``body``, ``redirect`` (a URL).
    * ``delay``: seconds before the head; ``hold``: no head before ``FakeIndex.release``;
      ``hold_after``: that many bytes of the body, then no more before the release;
      ``drip``: bytes of the body per second.
    * ``truncate_after``: so many bytes of the body, then the connection is closed, or reset
      if ``reset`` is set (``reset`` alone: after the head).
    * ``length``: a wrong ``Content-Length``; ``chunked``: none at all; ``close_delimited``: none,
      by HTTP/1.0.
    * ``flip``: the position of a byte that arrives wrong.
    """

    times: int | None = None
    status: int | None = None
    headers: dict[str, str | None] = attrs.field(factory=dict)
    body: bytes | None = None
    redirect: str | None = None
    delay: float = 0
    hold: bool = False
    hold_after: int | None = None
    drip: float | None = None
    truncate_after: int | None = None
    reset: bool = False
    length: int | None = None
    chunked: bool = False
    close_delimited: bool = False
    flip: int | None = None

    @property
    def cuts(self) -> bool:
        return self.truncate_after is not None or self.reset

    def bend(self, answer: Answer) -> None:
        if self.redirect is not None:
            answer.status, answer.body, answer.headers = 302, b"", {"Location": self.redirect}
        if self.status is not None:
            answer.status = self.status
        if self.body is not None:
            answer.body = self.body
        if self.flip is not None:
            body = bytearray(answer.body)
            body[self.flip] ^= 0xFF
            answer.body = bytes(body)
        for name, value in self.headers.items():
            answer.headers.pop(name, None)
            if value is not None:
                answer.headers[name] = value


@attrs.frozen
class Seen:
    """One request that arrived.

    ``origin`` is ``index`` or ``files``; ``headers`` have lower-case names; ``ended`` is empty
    while the answer is under way, then ``whole``, ``cut`` (as scripted) or ``gone`` (the client
    left first).
    """

    origin: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    status: int | None = None
    ended: str = ""

    @property
    def is_file(self) -> bool:
        return self.path.startswith("/files/")


@attrs.define
class Answer:
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def document(cls, **keys: Any) -> Answer:
        return cls(200, json.dumps({"meta": {"api-version": "1.4"}, **keys}).encode(), {**_JSON})

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'

    def revalidated(self, known: str) -> Answer:
        """Return a page with its validator, or a 304 to a client that knows this one."""
        headers = {"ETag": self.tag, "Cache-Control": "max-age=600", "Vary": "Accept"}
        if known == self.tag:
            return Answer(304, b"", headers)
        return Answer(self.status, self.body, {**headers, **self.headers})

    def ranged(self, wanted: str) -> Answer:
        """Apply one byte range (RFC 9110, section 14)."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
        if match is None or match.group() == "bytes=-":
            return self
        size = len(self.body)
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= size:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        content_range = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return Answer(206, self.body[start:stop], {**self.headers, **content_range})


class FakeIndex:
    """A fake index that serves as long as the ``with`` block lasts.

    ``url`` is the Simple API's root with a trailing slash; ``files_url`` the origin that file
    links lead to, which is the index's own unless ``files_elsewhere`` is set. With ``tls`` both
    speak https with a certificate that no system trusts (``certificate``, a PEM file).
    """

    def __init__(self, *, files_elsewhere: bool = False, tls: bool = False) -> None:
        self._files_elsewhere, self._tls = files_elsewhere, tls
        self._files_at = "../../files/"
        #: The entries of each project, with their versions.
        self._projects: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._raw: dict[str, Answer] = {}
        self._files: dict[str, bytes] = {}
        self._scripts: dict[str, list[Behavior]] = {}
        self._logins: dict[str, str] = {}
        self._seen: dict[int, Seen] = {}
        self._numbers = itertools.count()
        self._held: dict[str, list[socket.socket]] = {}
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="fake-index-")
        self.certificate = make_certificate(Path(self._folder.name)) if self._tls else None
        context = serving(self.certificate) if self.certificate else None
        self._origins = [_Origin(self, name, context) for name in ("index", "files")]
        for origin in self._origins:
            origin.__enter__()
        index, files = self._origins
        self.origin, self.url = index.origin, f"{index.origin}/simple/"
        self.files_port, self.files_url = index.port, index.origin
        if self._files_elsewhere:
            self.files_port, self.files_url = files.port, files.origin
            self._files_at = f"{files.origin}/files/"
        return self

    def __exit__(self, *failure: object) -> None:
        for origin in self._origins:
            origin.__exit__(*failure)
        self._folder.cleanup()

    def add(self, distribution: Distribution, project: str | None = None, **keys: Any) -> str:
        """List a file; return the path that its bytes are served at.

        ``keys`` are the entry's own (``core_metadata`` for ``core-metadata``); ``None`` leaves a
        key out that would be there.
        """
        project = project or distribution.project
        entry: dict[str, Any] = {
            "url": f"{self._files_at}{project}/{quote(distribution.filename)}",
            "filename": distribution.filename,
            "hashes": {"sha256": distribution.sha256},
            "requires-python": distribution.requires_python,
            "size": len(distribution.data),
            "upload-time": "2026-01-02T03:04:05.678901Z",
        }
        path = f"/files/{project}/{distribution.filename}"
        self._files[path] = distribution.data
        if distribution.metadata is not None:
            self._files[f"{path}.metadata"] = distribution.metadata
            digest = hashlib.sha256(distribution.metadata).hexdigest()
            entry["core-metadata"] = {"sha256": digest}
        entry |= {name.replace("_", "-"): value for name, value in keys.items()}
        entry = {name: value for name, value in entry.items() if value is not None}
        self._projects.setdefault(project, []).append((distribution.version, entry))
        return path

    def forget(self, project: str) -> None:
        """Unlist a project: its page is a 404 from now on, its files stay."""
        self._projects.pop(project, None)

    def page(self, project: str, body: bytes, content_type: str | None) -> None:
        """Serve these bytes as a project's page (``""``: as the root list) in any case."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        path = f"/simple/{project}/" if project else "/simple/"
        self._raw[path] = Answer(200, body, headers)

    def document(self, path: str, body: bytes) -> None:
        """Serve these bytes at a path, with a validator, as a web server does."""
        self._raw[path] = Answer(200, body)

    def script(self, path: str, *behaviors: Behavior) -> None:
        """Set how a path behaves, in order; ``*`` at its end: every path that starts so."""
        with self._changed:
            self._scripts[path] = list(behaviors)

    def release(self, path: str) -> None:
        """Let go the requests held on a path; from now on it behaves."""
        with self._changed:
            self._scripts.pop(path, None)
            for held in self._held.pop(path, []):
                with suppress(OSError):
                    held.send(b"!")

    def require_auth(self, user: str, password: str, origin: str = "index") -> None:
        """Ask for Basic credentials on an origin, ``index`` or ``files``."""
        self._logins[origin] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def close(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        for origin in self._origins:
            origin.stop_listening()
            origin.drop(with_reset=True)

    def reopen(self) -> None:
        """Listen again, on the same ports."""
        for origin in self._origins:
            origin.listen()

    def clear_requests(self) -> None:
        """Forget the requests that were answered."""
        with self._changed:
            self._seen = {number: seen for number, seen in self._seen.items() if not seen.ended}

    def requests(self) -> list[Seen]:
        """Return every request so far, in the order of arrival."""
        with self._changed:
            return list(self._seen.values())

    def files_asked(self) -> list[Seen]:
        return [seen for seen in self.requests() if seen.is_file]

    def wait_for(self, met: Callable[[Sequence[Seen]], bool]) -> list[Seen]:
        """Return the requests as soon as they meet a condition; never: an ``AssertionError``."""
        with self._changed:
            if not self._changed.wait_for(lambda: met(self.requests()), GUARD_SECONDS):
                raise AssertionError(f"the fake index never saw it: {self._seen.values()}")
            return self.requests()

    def wait_until_quiet(self) -> list[Seen]:
        """Return the requests as soon as none of them is under way."""
        return self.wait_for(lambda requests: all(seen.ended for seen in requests))

    def _note(self, number: int, seen: Seen) -> None:
        with self._changed:
            self._seen[number] = seen
            self._changed.notify_all()

    def _pattern(self, path: str) -> str:
        if path in self._scripts:
            return path
        starts = [key for key in self._scripts if key.endswith("*") and path.startswith(key[:-1])]
        return max(starts, key=len, default=path)

    def _behavior(self, path: str) -> Behavior:
        """Return the behavior whose turn it is on a path."""
        with self._changed:
            behaviors = self._scripts.get(self._pattern(path), [])
            if not behaviors:
                return Behavior()
            first = behaviors[0]
            if first.times is not None:
                left = attrs.evolve(first, times=first.times - 1)
                behaviors[:1] = [left] if first.times > 1 else []
            return attrs.evolve(first, times=None)

    def _pause(
        self, connection: socket.socket, seconds: float | None = None, path: str | None = None
    ) -> None:
        """Wait, for a time or until a path is released; `OSError` if the client leaves."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if path is not None:
                with self._changed:
                    pattern = self._pattern(path)
                    if pattern not in self._scripts:
                        return  # it was released since the request was noted
                    self._held.setdefault(pattern, []).append(theirs)
            if connection in readable(connection, ours, seconds=seconds):
                raise ConnectionResetError

    def _ordinary(self, seen: Seen, known: str) -> Answer:
        """Return the answer of an index that behaves, to a client that knows a page by this tag."""
        login = self._logins.get(seen.origin)
        if login is not None and seen.headers.get("authorization") != login:
            return Answer(401, b"who are you?", {"WWW-Authenticate": 'Basic realm="fake"'})
        if seen.path in self._raw:
            return self._raw[seen.path].revalidated(known)
        if seen.is_file:
            data = self._files.get(unquote(seen.path))
            if data is None:
                return Answer(404, b"no such file")
            answer = Answer(200, data, {"Content-Type": "application/octet-stream"})
            answer.headers |= {"ETag": answer.tag, "Accept-Ranges": "bytes"}
            return answer.ranged(seen.headers.get("range", ""))
        if seen.path == "/simple/":
            names = [{"name": project} for project in self._projects]
            return Answer.document(projects=names).revalidated(known)
        name = seen.path.removeprefix("/simple/").rstrip("/")
        if name not in self._projects:
            return Answer(404, b"no such project")
        if not seen.path.endswith("/"):
            return Answer(301, b"", {"Location": f"/simple/{name}/"})
        versions, entries = zip(*self._projects[name], strict=True)
        page = Answer.document(name=name, versions=sorted(set(versions)), files=entries)
        return page.revalidated(known)

    def answer(self, connection: socket.socket, seen: Seen) -> bool:
        """Answer a request; return whether the connection goes on."""
        number = next(self._numbers)
        self._note(number, seen)
        try:
            behavior = self._behavior(seen.path)
            if behavior.delay:
                self._pause(connection, behavior.delay)
            if behavior.hold:
                self._pause(connection, path=seen.path)
            # A client that has the page already must not miss what is scripted.
            bent = attrs.evolve(behavior, delay=0, hold=False) != Behavior()
            answer = self._ordinary(seen, "" if bent else seen.headers.get("if-none-match", ""))
            behavior.bend(answer)
            seen = attrs.evolve(seen, status=answer.status)
            self._note(number, seen)
            self._send(connection, seen, answer, behavior)
        except OSError:
            self._note(number, attrs.evolve(seen, ended="gone"))
            return False
        self._note(number, attrs.evolve(seen, ended="cut" if behavior.cuts else "whole"))
        if behavior.reset:
            reset(connection)
        return not (behavior.cuts or behavior.length is not None or behavior.close_delimited)

    def _send(
        self, connection: socket.socket, seen: Seen, answer: Answer, behavior: Behavior
    ) -> None:
        """Send the head and the body, in pieces if so scripted."""
        body, has_body = answer.body, seen.method != "HEAD" and answer.status not in (204, 304)
        version = "1.0" if behavior.close_delimited else "1.1"
        chunked = behavior.chunked and has_body
        phrase = HTTPStatus(answer.status).phrase if answer.status in [*HTTPStatus] else "Odd"
        fields = {"Date": formatdate(usegmt=True), **answer.headers}
        if chunked:
            fields["Transfer-Encoding"] = "chunked"
        elif not (behavior.close_delimited or behavior.chunked or answer.status in (204, 304)):
            length = len(body) if behavior.length is None else behavior.length
            fields["Content-Length"] = str(length)
        lines = [f"HTTP/{version} {answer.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")

        def send(data: bytes, before: bytes = b"") -> None:
            if chunked and data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            connection.sendall(before + data)

        if not has_body:
            connection.sendall(head)
            return
        if behavior.cuts:
            body = body[: behavior.truncate_after or 0]
        if behavior.hold_after is not None:
            send(body[: behavior.hold_after], head)
            head, body = b"", body[behavior.hold_after :]
            self._pause(connection, path=seen.path)
        if behavior.drip is not None:
            piece = max(1, int(behavior.drip * _DRIP_SECONDS))
            while len(body) > piece:
                send(body[:piece], head)
                head, body = b"", body[piece:]
                self._pause(connection, piece / behavior.drip)
        send(body, head)
        if chunked and not behavior.cuts:
            connection.sendall(b"0\r\n\r\n")


class _Origin(Server):
    """One origin of the fake index; ``/simple/`` and ``/files/`` are served on each."""

    def __init__(self, index: FakeIndex, name: str, context: ssl.SSLContext | None) -> None:
        super().__init__(context=context)
        self._index, self._name = index, name

    def __enter__(self) -> Self:
        # So that no other program gets the port while it is closed.
        self._reserved = self.bound()
        return super().__enter__()

    def end(self) -> None:
        super().end()
        self._reserved.close()

    def serve(self, connection: socket.socket, number: int) -> None:
        client = Connection(number, connection)
        while head := client.head():
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ")
            path, _, query = target.partition("?")
            headers: dict[str, str] = {}
            for name, _, value in (line.partition(":") for line in lines):
                name, value = name.lower(), value.strip()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if not self._index.answer(connection, Seen(self._name, method, path, query, headers)):
                return
