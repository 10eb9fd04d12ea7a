"""One index's answer to the question for its projects: from the connection into a file of names.

Theory of operation
-------------------
On the reactor's thread the chunks of the body are only gathered. What has been gathered is
searched for names in a thread, one batch after the other, while more comes in; that includes
taking it out of its compression, for a few bytes may hold many. If the index is faster than the
search, nothing more is read from it until there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from proxpi.index.client import Work, note_unlisted
from proxpi.index.list_folder import BLOCK, Draft, Form, ListFile
from proxpi.index.list_names import Press
from proxpi.index.scanner import NameScanner, NotAList
from proxpi.upstream.answer import Answer
from proxpi.upstream.body import Limit
from proxpi.upstream.codings import Decoder
from proxpi.upstream.errors import BodyCut, BodyGarbled, BodyTooLong, UpstreamFailed, failed
from proxpi.upstream.pool import Upstream

#: Seconds that a root list may take, however steadily it comes.
LIST_TIME = 300.0
#: Bytes that may wait to be searched before nothing more is read.
ROOM = 4 * 1024 * 1024


async def take(
    answer: Answer,
    upstream: Upstream,
    work: Work,
    draft: Callable[[], Draft],
    heard: Callable[[int], object],
    wanted: Sequence[Form] = (),
) -> tuple[ListFile, dict[Form, ListFile]]:
    """
    Give the names in an answer, and forms of just these.

    :param draft: begins a file
    :param heard: is told how many bytes come, while they come
    :param wanted: the forms that are to be made, while the names come
    :raises UpstreamFailed: if it is no list of projects, or does not come whole
    """
    if "v2+" in (answer.header("Content-Type") or "").lower():
        cause = "it is written in version 2 of the API, which is not known here"
        raise UpstreamFailed(answer.url, cause, temporary=False)
    limit = upstream.list_limit
    try:
        search = _Search(answer.codings, draft, limit)
    except BodyGarbled as error:
        raise failed(answer.url, Failure(error)) from error
    presses = {form: Press(form, draft) for form in wanted}
    printing = [_Batches(work, press.add) for press in presses.values()]
    searching = _Batches(work, search.feed, lambda names: [each.add(names) for each in printing])

    def write(chunk: bytes) -> Deferred[None] | None:
        heard(len(chunk))
        return searching.add(chunk)

    try:
        announced = await upstream.stream(answer, write, limit, LIST_TIME)
        await searching.finish()
        names = await work(lambda: search.finish(announced))
        note_unlisted(answer.url, search.scanner.unlisted, "project")
        for batches in printing:
            await batches.finish()
        return names, {form: await work(press.finish) for form, press in presses.items()}
    except NotAList as error:
        raise UpstreamFailed(answer.url, str(error), temporary=False) from error
    except _CutShort as error:
        cause = "the answer was cut short" if error.temporary else "it is cut short"
        raise UpstreamFailed(answer.url, cause, temporary=error.temporary) from error
    except (BodyCut, BodyGarbled, BodyTooLong) as error:
        raise failed(answer.url, Failure(error)) from error
    finally:
        for batches in (searching, *printing):
            await batches.ended()
        search.abandon()
        for press in presses.values():
            press.abandon()


class _CutShort(Exception):
    """A list ends before its end."""

    def __init__(self, *, temporary: bool) -> None:
        super().__init__()
        self.temporary = temporary


class _Batches:
    """Gathers chunks, and gives them to a step of work in a thread, one batch at a time.

    :param then: gets what the step gives; no other step begins before what it waits for has come
    """

    def __init__(
        self,
        work: Work,
        step: Callable[[bytes], bytes | None],
        then: Callable[[bytes], Iterable[Deferred[None] | None]] = lambda result: (),
    ) -> None:
        self._work = work
        self._step = step
        self._then = then
        self._chunks: list[bytes] = []
        self._size = 0
        self._busy = False
        self._failure: Failure | None = None
        self._waiting: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []

    def add(self, chunk: bytes) -> Deferred[None] | None:
        """
        Take a chunk; what a step of work raised is raised here.

        :return: what to wait for before there is room for more, if there is none now
        """
        self.check()
        self._chunks.append(chunk)
        self._size += len(chunk)
        if not self._busy:
            self._begin()
            self.check()
        if self._size < ROOM:
            return None
        room: Deferred[None] = Deferred()
        self._waiting.append(room)
        return room

    async def finish(self) -> None:
        """Wait until all is done; what a step of work raised is raised here."""
        await self.ended()
        self.check()

    def check(self) -> None:
        """Raise what a step of work raised."""
        if self._failure is not None:
            self._failure.raiseException()

    def ended(self) -> Deferred[None]:
        """Wait until nothing is under way."""
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        if not self._busy:
            _fire(self._ended)
        return ended

    def _begin(self) -> None:
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._busy = True
        done = self._work(lambda: self._step(b"".join(chunks)))
        done.addCallback(self._pass_on)
        done.addErrback(self._failed)
        done.addCallback(self._done)
        _fire(self._waiting)

    def _pass_on(self, result: bytes | None) -> Deferred[Any] | None:
        rooms = [room for room in self._then(result) if room is not None] if result else []
        return DeferredList(rooms) if rooms else None

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        self._chunks.clear()

    def _done(self, _: object) -> None:
        self._busy = False
        if self._chunks:
            self._begin()
        else:
            _fire(self._waiting)
            _fire(self._ended)


def _fire(waiting: list[Deferred[None]]) -> None:
    while waiting:
        waiting.pop().callback(None)


class _Search:
    """What is done in a thread: bytes come in, and their names go to a file."""

    def __init__(self, codings: Sequence[str], draft: Callable[[], Draft], limit: Limit) -> None:
        self.scanner = NameScanner()
        self._decoder = Decoder(codings, self._take, limit) if codings else None
        self._new_draft = draft
        self._draft: Draft | None = None
        self._found: list[bytes] = []
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []
        self._pending = 0

    def feed(self, data: bytes) -> bytes:
        """
        Search what has come, and give the names.

        :raises NotAList: if it is none
        """
        self._found.clear()
        for place in range(0, len(data), BLOCK):
            (self._decoder.write if self._decoder else self._take)(data[place : place + BLOCK])
        self._scan()
        return b"".join(self._found)

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        self._limit.check(self._size)
        self._pieces.append(data)
        self._pending += len(data)
        if self._pending >= BLOCK:
            self._scan()

    def _scan(self) -> None:
        """Search what has gathered: the scanner looks at the end of each piece again."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._pending = 0
        for place in range(0, len(data), BLOCK):
            names = self.scanner.feed(data[place : place + BLOCK])
            self._output.write(names)
            self._found.append(names)

    def finish(self, announced: bool) -> ListFile:
        """
        Look back on all of it, and give the names.

        :param announced: whether the end of the body was
        :raises NotAList: if it was none
        """
        if self._decoder is not None:
            if not self._decoder.ended:
                raise BodyCut()
            announced = True  # What is compressed has its own end.
        if not (self.scanner.complete if announced else self.scanner.closed):
            # An end that nobody announced may have been none.
            raise _CutShort(temporary=not announced)
        self.scanner.check()
        return self._output.finish()

    def abandon(self) -> None:
        """Let go of what was not finished."""
        if self._draft is not None:
            self._draft.abandon()

    @property
    def _output(self) -> Draft:
        if self._draft is None:
            self._draft = self._new_draft()
        return self._draft
