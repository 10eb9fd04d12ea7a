"""What the fake index can be told to do, and what it tells of the requests that it saw.

Values only: they travel as JSON between a test and the process of the fake index.
"""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Behavior:
    """How a path is answered: the ordinary answer, changed by what is given here.

    * ``times``: only the first so many requests; ``None``: all.
    * ``status``, ``headers`` (``None`` as a value removes one), ``body``, ``redirect`` (a URL).
    * ``delay``: seconds before the head; ``hold``: no head before ``FakeIndex.release``;
      ``hold_after``: that many bytes of the body, then no more before the release;
      ``drip``: bytes of the body per second; ``silent``: never an answer.
    * ``truncate_after``: so many bytes of the body, then the connection is closed, or reset
      if ``reset`` is set (``reset`` alone: after the head).
    * ``length``: a ``Content-Length`` that is not true; ``chunked``: none at all;
      ``close_delimited``: none, as HTTP/1.0 has it.
    * ``flip``: the position of a byte that arrives wrong; ``gzip``: the body compressed, with
      ``Content-Encoding``.
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
    silent: bool = False
    truncate_after: int | None = None
    reset: bool = False
    length: int | None = None
    chunked: bool = False
    close_delimited: bool = False
    flip: int | None = None
    gzip: bool = False


@attrs.frozen
class Seen:
    """One request that arrived.

    ``origin`` is ``index`` or ``files``; ``headers`` have lower-case names; ``ended`` is empty
    while the answer is under way, then ``whole``, ``cut`` (as scripted) or ``gone`` (the client
    left first); ``scripted`` is set if the answer is not the ordinary one.
    """

    origin: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    status: int | None = None
    ended: str = ""
    scripted: bool = False

    @property
    def is_file(self) -> bool:
        """Whether a file or its metadata was asked for."""
        return self.path.startswith("/files/")


@attrs.frozen
class Listed:
    """A file to list and serve: the entry of its project's page, and the bytes behind it."""

    project: str
    version: str
    entry: dict[str, Any]
    data: bytes
    metadata: bytes | None


@attrs.frozen
class RawPage:
    """Bytes to serve at a path, whatever form is asked for."""

    path: str
    body: bytes
    content_type: str | None


@attrs.frozen
class Scripted:
    """Behaviors of one path (with a trailing ``*``: of every path with that start), in order."""

    path: str
    behaviors: list[Behavior]


@attrs.frozen
class Login:
    """The Basic credentials that an origin asks for."""

    origin: str
    user: str
    password: str


@attrs.frozen
class Awaited:
    """A long poll: the requests as soon as something happened after ``version``, or at its end."""

    version: int
    seconds: float


@attrs.frozen
class Record:
    """All requests so far, with the version that a later long poll starts from."""

    version: int
    requests: list[Seen]
