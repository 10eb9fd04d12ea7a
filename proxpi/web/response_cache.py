"""The response cache: responses from the cache of pages and files, ready to go out again.

Clients of one image send the same bytes, run after run. When a hit is answered in the ordinary way,
its :class:`Answer` is stored: the head that was written, split where the time stands in it, and the
body, in memory or as part of an open file. An entry is found

* by the *head*, the very bytes of a request (:meth:`ResponseCache.find`);
* by the *cache key*, the fields of a new head that matter (:mod:`proxpi.web.request_head`,
  :meth:`ResponseCache.ask`). That head then becomes an alias of the entry.

States of an entry: *stored* (given as long as :meth:`ResponseCache.holds` is true) and *forgotten*
(invalidated, expired, replaced or evicted; its descriptor is closed). Invalidating a page or file
(:meth:`ResponseCache.drop`) forgets every entry built from it. A page's entry ends with the page's
freshness, and says how much of that is left. A file's is given only if a look at the disk (one
``lstat``) shows the file that is open. Responses that are no hits, or after which the connection
closes, are not stored; only plain TCP is answered so (:mod:`proxpi.web.channel` decides;
:mod:`proxpi.web.direct` sends).

There are at most :data:`ANSWERS` entries with :data:`MEMORY` bytes, keys, aliases and log lines
included, and :data:`FILES` open files; beyond that the oldest entry goes that was not given since
it was last looked at.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import attrs
from twisted.web.http import datetimeToString

from proxpi.files.open_file import Held
from proxpi.simple import freshness
from proxpi.web.request_head import CacheKey

#: Answers that are kept, bytes that they take, and open files among them.
ANSWERS = 8192
MEMORY = 24 * 1024 * 1024
FILES = 512
#: Heads by which one answer is found; beyond that its oldest is forgotten.
HEADS = 64
#: Bytes that an answer is taken to cost beside its content, and each of its heads.
OVERHEAD = 1536
HEAD_OVERHEAD = 256
#: Bytes of a body up to which head and body are kept as one.
SMALL = 16 * 1024
#: Bytes of a page from which on it becomes a file in memory, where the system has such: so it is
#: sent as a file is, without being copied for each client.
LARGE = 64 * 1024


@attrs.frozen
class Draft:
    """What the ordinary path knows of an answer that it is about to give, without having waited.

    (While it waits, what it is about may be forgotten.)

    :ivar about: the project's name, and the place of the file; what it goes with
    :ivar fresh_until: seconds of the clock at which it must not be given any more
    :ivar body: what follows the head, unless it is a file
    :ivar hold: keeps that file open; ``None`` if it cannot be
    :ivar start: where in the file the body begins, and `stop` where it ends
    """

    about: tuple[str, ...]
    fresh_until: float = math.inf
    body: bytes = b""
    hold: Callable[[], Held | None] | None = None
    start: int = 0
    stop: int = 0

    @property
    def size(self) -> int:
        """Bytes that follow the head."""
        return len(self.body) or self.stop - self.start

    def bare(self) -> Draft:
        """Give that of the answer without its body."""
        return attrs.evolve(self, body=b"", start=0, stop=0)


@attrs.define(eq=False)
class Answer:
    """All that goes out for a question.

    :ivar line: what the access log says of it, after the client's address
    :ivar hits: how often it was given, `used_at` when last (the clock's seconds)
    :ivar told: hits that the cache was told of, and `seen` those when it was last looked at
    """

    before: bytes
    between: bytes
    after: bytes
    about: tuple[str, ...]
    fresh_until: float
    body: bytes
    held: Held | None
    start: int
    stop: int
    line: str
    question: CacheKey
    heads: list[bytes] = attrs.field(init=False, factory=list)
    hits: int = attrs.field(init=False, default=0)
    used_at: float = attrs.field(init=False, default=0.0)
    cost: int = attrs.field(init=False, default=0)
    told: int = attrs.field(init=False, default=0)
    seen: int = attrs.field(init=False, default=0)
    _stamp: tuple[int, int] = attrs.field(init=False, default=(-1, -1))
    _head: bytes = attrs.field(init=False, default=b"")

    def head(self, now: float) -> bytes:
        """
        Give the head with the time of now, and with the body if that is small.

        :param now: seconds of the clock
        """
        second, left = int(time.time()), freshness.LONGEST
        if self.fresh_until - now < left:
            left = freshness.max_age(self.fresh_until - now)
        if self._stamp != (second, left):
            age = b"%d" % left if self.after else b""
            small = self.body if len(self.body) <= SMALL else b""
            self._head = b"".join(
                (self.before, _date(second), self.between, age, self.after, small)
            )
            self._stamp = second, left
        return self._head

    @property
    def of_disk(self) -> bool:
        """Whether it is of a file of the cache, with whose place `about` ends if it says any."""
        return self.held is not None and self.held.identity is not None

    @property
    def size(self) -> int:
        """Bytes that follow what :meth:`head` gives."""
        return self.stop - self.start or len(self.apart)

    @property
    def apart(self) -> bytes:
        """The body, if :meth:`head` does not give it."""
        return self.body if len(self.body) > SMALL else b""


@attrs.define(eq=False)
class ResponseCache:
    """The answers that are kept.

    :ivar files: how many files may be kept open
    """

    files: int = FILES
    _heads: dict[bytes, Answer] = attrs.field(init=False, factory=dict)
    # In the order in which they came, or were looked at and left.
    _answers: dict[CacheKey, Answer] = attrs.field(init=False, factory=dict)
    _about: dict[str, list[Answer]] = attrs.field(init=False, factory=dict)
    _cost: int = attrs.field(init=False, default=0)
    # Those that keep a descriptor.
    _open: dict[Answer, None] = attrs.field(init=False, factory=dict)
    # Uses of files, by place: how many, and when the last one was.
    _uses: dict[str, tuple[int, float]] = attrs.field(init=False, factory=dict)

    def __iter__(self) -> Iterator[Answer]:
        return iter(list(self._answers.values()))

    def uses(self) -> list[tuple[str, int]]:
        """Give how often files were given since this was asked last, by place, the latest last."""
        for answer in self._open:
            self._count(answer)
        uses, self._uses = self._uses, {}
        ordered = sorted(uses.items(), key=lambda use: use[1][1])
        return [(place, count) for place, (count, _) in ordered]

    def _count(self, answer: Answer) -> None:
        """Take note of how often a file was given."""
        if answer.of_disk and answer.about and answer.hits > answer.told:
            place = answer.about[-1]
            before, _ = self._uses.get(place, (0, 0.0))
            self._uses[place] = before + answer.hits - answer.told, answer.used_at
            answer.told = answer.hits

    def find(self, head: bytes, now: float) -> Answer | None:
        """Give the answer to a request by its very bytes, if it may be given now."""
        answer = self._heads.get(head)
        return answer if answer is not None and self.holds(answer, now) else None

    def ask(self, question: CacheKey, now: float) -> Answer | None:
        """Give the answer to a question, if it may be given now."""
        answer = self._answers.get(question)
        return answer if answer is not None and self.holds(answer, now) else None

    def learn(self, question: CacheKey, head: bytes, line: str, draft: Draft) -> None:
        """
        Keep the answer to a question, if that can be.

        :param head: the head that is sent
        :param line: what the log says of it
        """
        try:
            held = draft.hold() if draft.hold is not None else in_memory(draft.body)
        except OSError:
            return  # there are no descriptors left for what can be done without
        if draft.hold is not None and held is None:
            return
        parts = _split(head, dated=draft.fresh_until < math.inf)
        body, start, stop = draft.body, draft.start, draft.stop
        if draft.hold is None and held is not None:
            body, stop = b"", len(body)
        elif held is not None and stop - start <= SMALL:
            body = held.read(start, stop)
            if len(body) < stop - start:
                held.close()
                return
            start = stop = 0
        answer = Answer(
            *parts, draft.about, draft.fresh_until, body, held, start, stop, line, question
        )
        self.keep(answer)

    def keep(self, answer: Answer) -> None:
        """Keep an answer, in the place of any other to the same question."""
        old = self._answers.get(answer.question)
        if old is not None:
            self.forget(old)
        body = len(answer.body)
        if answer.held is not None and not answer.of_disk:
            body = answer.stop
        method, target, fields = answer.question
        asked = len(method) + len(target) + sum(len(field or b"") for field in fields)
        said = len(answer.line) + sum(map(len, answer.about))
        parts = len(answer.before) + len(answer.between) + len(answer.after)
        # A small body is there once more, with the head that was given last.
        answer.cost = OVERHEAD + asked + said + 2 * parts + body * (2 if body <= SMALL else 1)
        self._answers[answer.question] = answer
        for each in answer.about:
            self._about.setdefault(each, []).append(answer)
        self._cost += answer.cost
        if answer.held is not None:
            self._open[answer] = None
        self._make_room()

    def recognize(self, head: bytes, answer: Answer) -> None:
        """Find an answer by a head from now on, if it is still kept."""
        if self._answers.get(answer.question) is not answer or head in self._heads:
            return  # (the channel gives no head that is longer than LONGEST_LEARNED)
        if len(answer.heads) >= HEADS:
            self._unlearn(answer, answer.heads[0])
        answer.heads.append(head)
        self._heads[head] = answer
        answer.cost += len(head) + HEAD_OVERHEAD
        self._cost += len(head) + HEAD_OVERHEAD
        self._make_room()

    def drop(self, about: str | None) -> None:
        """Give no answer any more that was made of a project's page, of a file, or at all."""
        for answer in self if about is None else self._about.get(about, [])[:]:
            self.forget(answer)

    def holds(self, answer: Answer, now: float) -> bool:
        """Tell whether an answer may be given now; if not, it is forgotten."""
        if now < answer.fresh_until and (answer.held is None or answer.held.unchanged()):
            return True
        self.forget(answer)
        return False

    def _make_room(self) -> None:
        """Let go of what is too much: what was not given lately first."""
        while (
            len(self._answers) > ANSWERS or self._cost > MEMORY or len(self._open) > self.files
        ) and len(self._answers) > 1:
            question, answer = next(iter(self._answers.items()))
            if answer.hits != answer.seen:
                answer.seen = answer.hits
                self._answers[question] = self._answers.pop(question)
            else:
                self.forget(answer)

    def _unlearn(self, answer: Answer, head: bytes) -> None:
        answer.heads.remove(head)
        del self._heads[head]
        answer.cost -= len(head) + HEAD_OVERHEAD
        self._cost -= len(head) + HEAD_OVERHEAD

    def forget(self, answer: Answer) -> None:
        """Give an answer no more."""
        if self._answers.get(answer.question) is not answer:
            return
        del self._answers[answer.question]
        self._count(answer)
        self._cost -= answer.cost
        for head in answer.heads:
            del self._heads[head]
        for each in answer.about:
            self._about[each].remove(answer)
            if not self._about[each]:
                del self._about[each]
        self._open.pop(answer, None)
        if answer.held is not None:
            answer.held.close()


def in_memory(body: bytes) -> Held | None:
    """
    Make a file in memory of a body that is large enough for it.

    :raises OSError: if there is no descriptor, or no memory, for it
    """
    if len(body) <= LARGE or not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("proxpi-page")
    try:
        with open(os.dup(descriptor), "wb") as memory:
            memory.write(body)
    except OSError:
        os.close(descriptor)
        raise
    return Held.alone(descriptor, len(body))


def _split(head: bytes, *, dated: bool) -> tuple[bytes, bytes, bytes]:
    """Split a head around the time, and around how much is left of an answer's."""
    before, date, rest = head.partition(b"\r\nDate: ")
    _, end, rest = rest.partition(b"\r\n")
    if not dated:
        return before + date, end + rest, b""
    between, age, after = rest.partition(b"max-age=")
    return before + date, end + between + age, after.lstrip(b"0123456789")


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return bytes(datetimeToString(second))
