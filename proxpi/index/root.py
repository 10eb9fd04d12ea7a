"""The root of an index, asked where the 404 of a page may say nothing about its project.

Two indexes answer 404 to everything: one whose URL is wrong, and one of a host that hides what it
has from expired credentials. Their roots tell. What is known of a root is in one of three states:

* *unknown*: it was not asked. It is when the first page of an index with credentials is;
* *answered*: it has answered 200 at some time. From then on, a 404 for a page that such an index
  had before is an absence only if the root still answers;
* *never answered*: no page is judged by it. If the first pages are 404 as well, that is logged.
"""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi.simple import urls
from proxpi.single_flight import Flights
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import Upstream

#: Seconds for which a root that fails is not asked again.
FAILING = 30.0
#: Pages that are 404 before the root is asked whether it is, too.
FIRST = 2

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Root:
    """The root of one index.

    :ivar url: it, with a trailing slash, maybe with credentials
    :ivar answered: whether it answered 200 at some time
    """

    url: str = attrs.field(repr=urls.public)
    _upstream: Upstream
    _clock: IReactorTime
    _asking: Flights[None, None]
    answered: bool = False
    _status: int | None = None
    _asked_at: float = float("-inf")
    # The first pages that are 404, until one is served or the log has told of it.
    _absent: set[str] | None = attrs.field(init=False, factory=set)

    def note(self, status: int | None) -> None:
        """Take note of the status that it has now; ``None``: there was no answer."""
        self._status = 200 if status == 304 else status
        self._asked_at = self._clock.seconds()
        self.answered = self.answered or self._status == 200

    async def answers(self, since: float) -> bool:
        """
        Tell whether it answers 200, asking it at most once for all who want to know.

        :param since: the clock's seconds; an older success does not count
        """
        now = self._clock.seconds()
        failing = self._status != 200 and now < self._asked_at + FAILING
        if not failing and self._asked_at < since:
            await self._asking.join(None, self._ask).wait()
        return self._status == 200

    async def learn(self) -> None:
        """Ask it, if nothing is known of it."""
        if not self.answered and self._asked_at == float("-inf"):
            await self._asking.join(None, self._ask).wait()

    def served(self) -> None:
        """Take note that a page was served."""
        self._absent = None

    async def lacks(self, name: str) -> None:
        """Take note that a page is 404, and log if everything is."""
        if self._absent is None:
            return
        self._absent.add(name)
        if len(self._absent) >= FIRST:
            await self.learn()
        if self._absent is None:
            return
        if self._status in (404, 410):
            _log.warn(
                "{url} answers {status}, and so do its first pages: is it the root of an index? "
                "(PROXPI_INDEX_URL, PROXPI_EXTRA_INDEX_URLS)",
                url=urls.shown(self.url),
                status=self._status,
            )
        if self._status in (404, 410) or len(self._absent) >= FIRST:
            self._absent = None

    async def _ask(self) -> None:
        status = None
        try:
            async with self._upstream.page(self.url, {}) as answer:
                status = answer.status
        except UpstreamFailed:
            pass
        self.note(status)
