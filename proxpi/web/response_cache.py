"""The response cache: hits of pages and files, found by the bytes of a request or its cache key.

Clients of one image send the same bytes, run after run. When a resource answers a hit, its
:class:`CachedResponse` is stored: status, header fields, and the body, in memory or as part of an
open file. An entry is found

* by the very bytes of a request;
* by these bytes without the fields that state its origin, which may differ with each request;
* by the *cache key*, the fields of a new head that matter (:mod:`proxpi.web.request_parser`). That
  head, without the fields of its origin, then becomes an alias of the entry.

States of an entry: *stored*, and *removed* (invalidated, expired, replaced or evicted; its
descriptor is closed). Invalidating a page or file removes every entry built from it. A page's entry
expires with the page. A file's entry is sent only if one ``lstat`` shows the file that is open.
Responses that are no hits, or after which the connection closes, are not stored; only plain TCP is
answered so (:mod:`proxpi.web.channel` decides; :mod:`proxpi.web.transfer` sends).

Each entry counts the responses that were sent from it. They are accounted for when it is removed,
and each time that the uses of files are collected.

There are at most :data:`ENTRIES` entries with :data:`MEMORY` bytes, keys, aliases and log lines
included, and :data:`FILES` open files; beyond that, second-chance (CLOCK) eviction.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache

import attrs
from twisted.web.http import datetimeToString

from proxpi.access_log import Template
from proxpi.files import OpenFile
from proxpi.simple import caching
from proxpi.web import accounting
from proxpi.web.request_parser import CacheKey, cache_key

#: Entries, bytes that they take, and open files among them.
ENTRIES = 8192
MEMORY = 24 * 1024 * 1024
FILES = 512
#: Aliases of an entry; beyond that its oldest one goes.
ALIASES = 64
#: Bytes that an entry is taken to cost beside its content, and each of its aliases.
OVERHEAD = 1536
ALIAS_OVERHEAD = 256
#: Bytes of a body up to which head and body are kept as one.
SMALL = 16 * 1024
#: Bytes of a page from which on it becomes a file in memory, where the system has such: so it is
#: sent as a file is, without being copied for each client.
LARGE = 64 * 1024


@attrs.frozen
class Cacheable:
    """The storable part of a response that is written without a wait.

    (During a wait, the page or file that it was built from may be invalidated.)

    :ivar invalidation_keys: the project's name, and a file's cache path
    :ivar fresh_until: seconds of the clock
    :ivar body: the body, unless it lies in a file, from `start` to `stop`
    :ivar hold: keeps that file open; gives ``None`` if it cannot be
    """

    invalidation_keys: tuple[str, ...]
    fresh_until: float = math.inf
    body: bytes = b""
    hold: Callable[[], OpenFile | None] | None = None
    start: int = 0
    stop: int = 0

    @property
    def size(self) -> int:
        """Bytes that follow the head."""
        return len(self.body) or self.stop - self.start

    def without_body(self) -> Cacheable:
        """The same without a body, for HEAD and 304."""
        return attrs.evolve(self, body=b"", start=0, stop=0)


@attrs.define(eq=False)
class CachedResponse:
    """A response without the time in its head; see :class:`Cacheable`.

    :ivar line: the template of its lines in the access log
    :ivar kind: of the requested resource; `index`: the name of the index that its content is from
    :ivar body_size: bytes of its body
    :ivar uses: how often it was sent; `accounted`: its uses when it was last accounted for;
        `considered`: its uses when eviction last considered it
    :ivar turn: orders the entries by their last use
    :ivar aliases: the heads by which it is found, besides its cache key
    :ivar apart: the body, if :meth:`head` does not give it
    :ivar size: bytes that follow what :meth:`head` gives
    """

    _template: bytes
    key: CacheKey
    line: Template
    kind: str
    index: str
    invalidation_keys: tuple[str, ...]
    fresh_until: float
    body: bytes
    held: OpenFile | None
    start: int
    stop: int
    body_size: int
    cost: int
    uses: int = 0
    accounted: int = 0
    considered: int = 0
    turn: int = 0
    aliases: list[bytes] = attrs.field(factory=list)
    apart: bytes = attrs.field(init=False)
    size: int = attrs.field(init=False)
    _second: int = -1
    _left: int = -1
    _head: bytes = b""

    def __attrs_post_init__(self) -> None:
        self.apart = self.body if len(self.body) > SMALL else b""
        self.size = self.stop - self.start or len(self.apart)

    def head(self, now: float) -> bytes:
        """Return the head for `now` (seconds of the clock), and with it a small body."""
        second, left = int(time.time()), caching.MAX_AGE
        if self.fresh_until - now < left:
            left = caching.max_age(self.fresh_until - now)
        if second != self._second or left != self._left:
            small = self.body if len(self.body) <= SMALL else b""
            self._head = self._template % {b"date": _date(second), b"max-age": left} + small
            self._second, self._left = second, left
        return self._head

    @property
    def status(self) -> int:
        return int(self._template.split(b" ", 2)[1])

    @property
    def path(self) -> str | None:
        """The cache path of the file that it was built from, if any."""
        held = self.held
        return self.invalidation_keys[-1] if held is not None and held.location else None


@attrs.define(eq=False)
class ResponseCache:
    """The entries.

    :ivar files: limit on open files
    """

    files: int = FILES
    _by_head: dict[bytes, CachedResponse] = attrs.field(init=False, factory=dict)
    # In the order in which they were stored, or were given a second chance.
    _by_key: dict[CacheKey, CachedResponse] = attrs.field(init=False, factory=dict)
    _built_from: dict[str, list[CachedResponse]] = attrs.field(init=False, factory=dict)
    _cost: int = attrs.field(init=False, default=0)
    _open: int = attrs.field(init=False, default=0)
    _turn: int = attrs.field(init=False, default=0)
    # Uses of files that are accounted for, by cache path, with the turn of the last one.
    _uses: dict[str, tuple[int, int]] = attrs.field(init=False, factory=dict)

    def __iter__(self) -> Iterator[CachedResponse]:
        return iter(list(self._by_key.values()))

    def count(self, entry: CachedResponse) -> None:
        """Count a response that was sent from an entry."""
        entry.uses += 1
        entry.turn = self._turn = self._turn + 1

    def count_late(self, entry: CachedResponse, unsent: int = 0) -> None:
        """Count a response that its client did not take at once; its entry may be removed by now.

        :param unsent: bytes of the body that were not sent, as the client left
        """
        self.count(entry)
        self._account(entry, unsent)

    def uses(self) -> list[tuple[str, int]]:
        """Account for all responses.

        :return: the uses of each file since the last call, by cache path, the latest last
        """
        for entry in self._by_key.values():
            self._account(entry)
        uses, self._uses = self._uses, {}
        by_turn = sorted(uses.items(), key=lambda item: item[1][1])
        return [(path, count) for path, (count, _) in by_turn]

    def _account(self, entry: CachedResponse, unsent: int = 0) -> None:
        """Account for the responses that were sent from an entry since the last call."""
        times, entry.accounted = entry.uses - entry.accounted, entry.uses
        if not times:
            return
        sent = times * entry.body_size - unsent
        accounting.count(entry.kind, "hit", entry.index, sent=sent, times=times)
        if (path := entry.path) is not None:
            before, turn = self._uses.get(path, (0, 0))
            self._uses[path] = before + times, max(turn, entry.turn)

    def find(self, head: bytes, now: float) -> CachedResponse | None:
        """Return the response to what may be one whole head, by its very bytes."""
        entry = self._by_head.get(head)
        return entry if entry is not None and self._is_usable(entry, now) else None

    def search(self, head: bytes, common: bytes, now: float) -> CachedResponse | None:
        """
        Return the response to what may be one whole head.

        :param common: that without the fields of its origin
        """
        entry = self.find(common, now) if common is not head else None
        if entry is not None:
            return entry
        key = cache_key(head)
        entry = self._by_key.get(key) if key is not None else None
        if entry is None or not self._is_usable(entry, now):
            return None
        if len(entry.aliases) >= ALIASES:
            self._charge(entry, -len(entry.aliases[0]) - ALIAS_OVERHEAD)
            del self._by_head[entry.aliases.pop(0)]
        entry.aliases.append(common)
        self._by_head[common] = entry
        self._charge(entry, len(common) + ALIAS_OVERHEAD)
        self._evict(keep=entry)
        return entry

    def _is_usable(self, entry: CachedResponse, now: float) -> bool:
        """Return whether an entry may be sent; if not, it is removed."""
        if now < entry.fresh_until and (entry.held is None or entry.held.unchanged()):
            return True
        self._remove(entry)
        return False

    def store(
        self,
        key: CacheKey,
        status: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        line: Template,
        cacheable: Cacheable,
        *,
        kind: str,
        index: str,
    ) -> None:
        """
        Store a response in the place of any other with the same key, if it can be kept.

        :param status: the status code and its reason
        :param line: the template of its lines in the access log
        :param kind: of the requested resource; `index`: the name of the index of the content
        """
        body, start, stop = cacheable.body, cacheable.start, cacheable.stop
        try:
            held = in_memory(body) if cacheable.hold is None else cacheable.hold()
        except OSError:
            return  # there are no descriptors left for what can be done without
        cost = len(body)
        if cacheable.hold is None:
            if held is not None:
                body, stop = b"", len(body)
        elif held is None:
            return
        elif stop - start <= SMALL:
            with suppress(OSError):
                body = held.read(start, stop - start)
            if len(body) < stop - start:
                held.close()
                return
            start, stop, cost = 0, 0, len(body)
        self._remove(self._by_key.get(key))
        template = _template(status, fields, has_max_age=cacheable.fresh_until < math.inf)
        method, target, selecting = key
        # A small body is there once more, with the head that was sent last.
        cost = OVERHEAD + 2 * len(template) + cost * (2 if cost <= SMALL else 1)
        cost += sum(map(len, (method, target, *line, *cacheable.invalidation_keys)))
        cost += sum(len(value or b"") for value in selecting)
        entry = CachedResponse(
            template=template,
            key=key,
            line=line,
            kind=kind,
            index=index,
            invalidation_keys=cacheable.invalidation_keys,
            fresh_until=cacheable.fresh_until,
            body=body,
            held=held,
            start=start,
            stop=stop,
            body_size=cacheable.size,
            cost=cost,
        )
        self._by_key[key] = entry
        for each in entry.invalidation_keys:
            self._built_from.setdefault(each, []).append(entry)
        self._cost += cost
        self._open += held is not None
        self._evict()

    def _charge(self, entry: CachedResponse, cost: int) -> None:
        entry.cost += cost
        self._cost += cost

    def invalidate(self, key: str | None) -> None:
        """Remove the responses built from a project's page, or from a file; ``None``: all."""
        for entry in self if key is None else self._built_from.get(key, [])[:]:
            self._remove(entry)

    def _evict(self, keep: CachedResponse | None = None) -> None:
        while (
            len(self._by_key) > ENTRIES or self._cost > MEMORY or self._open > self.files
        ) and len(self._by_key) > 1:
            key, entry = next(iter(self._by_key.items()))
            if entry.uses > entry.considered or entry is keep:
                entry.considered = entry.uses
                self._by_key[key] = self._by_key.pop(key)
            else:
                self._remove(entry)

    def _remove(self, entry: CachedResponse | None) -> None:
        if entry is None or self._by_key.get(entry.key) is not entry:
            return
        self._account(entry)
        del self._by_key[entry.key]
        self._cost -= entry.cost
        for head in entry.aliases:
            del self._by_head[head]
        for each in entry.invalidation_keys:
            self._built_from[each].remove(entry)
            if not self._built_from[each]:
                del self._built_from[each]
        if entry.held is not None:
            self._open -= 1
            entry.held.close()


def in_memory(body: bytes) -> OpenFile | None:
    """Make a file in memory of a large body; :exc:`OSError` without a descriptor or memory."""
    if len(body) <= LARGE or not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("proxpi-page")
    try:
        with open(os.dup(descriptor), "wb") as memory:
            memory.write(body)
    except OSError:
        os.close(descriptor)
        raise
    return OpenFile(open(descriptor, "rb", buffering=0), len(body), "", is_kept=True)


def _template(status: bytes, fields: Iterable[tuple[bytes, bytes]], *, has_max_age: bool) -> bytes:
    """Write a head with placeholders for the date and, in ``Cache-Control``, for the max-age."""
    lines = [b"HTTP/1.1 " + status]
    for name, value in fields:
        value = value.replace(b"%", b"%%")
        if name == b"Date":
            value = b"%(date)b"
        elif has_max_age and name == b"Cache-Control":
            value = value.partition(b"=")[0] + b"=%(max-age)d"
        lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return bytes(datetimeToString(second))
