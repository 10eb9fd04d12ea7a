"""Circuit breakers: while an index fails, clients with a stale page do not wait for it.

Theory of operation
-------------------
There is one breaker per page of an index, and one per index. Each is in one of three states:

=========  ===================================  ==============================================
state      when                                 a request with a stale page to fall back on
=========  ===================================  ==============================================
closed     no error is known                    is sent
open       there is one, `retry_at` is to come  is not sent: the client gets the stale page
half-open  there is one, `retry_at` has passed  is sent as the *trial*; the breaker opens again
                                                for the next pause, so that it is the only one
=========  ===================================  ==============================================

A failure opens a closed breaker; a success closes it in any state. The pauses double.

A response of whatever status concerns its page alone, and so does a connection that is lost.
The breaker of the index opens after status 429, and when no connection is made or no response
head comes, provided that the index sent no other head since the request began. Any response head
closes it, but not before the end of the ``Retry-After`` of a 429.

A page that hangs looks like an index that does. So the pauses of the index are half as long as
those of a page: between two trials of the bad page, a good one gets its turn and closes the
breaker of the index; and the trials of a page do not open that again.

Requests without a stale page ignore all breakers, except that they heed the ``Retry-After`` of a
429 (:mod:`proxpi.index.revalidation`).
"""

from __future__ import annotations

import random
from collections import OrderedDict

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi.upstream.errors import CredentialsRejected, ProxyFailed, UpstreamFailed

#: Seconds of the first and the longest pause of a page's breaker, and of an index's.
PAGE_PAUSES = 1.0, 4.0
INDEX_PAUSES = 0.5, 2.0
#: Seconds of the longest pause after 401 and 403, and for which ``Retry-After`` is heeded at most.
LONGEST = 30.0
#: Breakers of pages that one index has at most; beyond that, the least recently failed one closes.
MOST = 1000


@attrs.define(eq=False)
class Breaker:
    """A circuit breaker; all times are the clock's seconds.

    :ivar error: why it is not closed, and `failed_at` since when that is known
    :ivar retry_at: when it is half-open
    """

    _first: float
    _longest: float
    error: UpstreamFailed | None = None
    failed_at: float = float("-inf")
    retry_at: float = float("-inf")
    _pause: float = 0.0

    def is_open(self, now: float) -> bool:
        """Whether no request may be sent now."""
        return self.error is not None and now < self.retry_at

    def fail(self, error: UpstreamFailed, now: float) -> None:
        """Open it, if it is closed, and heed ``Retry-After``."""
        closed, self.error, self.failed_at = self.error is None, error.copy(), now
        if closed:
            self.back_off(now)
        if error.retry_after:
            self.retry_at = max(self.retry_at, now + min(error.retry_after, LONGEST))

    def back_off(self, now: float) -> None:
        """Open it for the next pause."""
        longest = LONGEST if isinstance(self.error, CredentialsRejected) else self._longest
        self._pause = min(longest, self._pause * 2 or self._first)
        # Varied, to keep many proxies from knocking in step.
        self.retry_at = now + self._pause * random.uniform(0.75, 1.0)

    def close(self) -> None:
        """Forget the error."""
        self.error, self._pause = None, 0.0


@attrs.define(eq=False)
class Breakers:
    """The breakers of one index; a page is named by its project, the root list by nothing.

    :ivar url: the root of the index
    """

    url: str
    _clock: IReactorTime
    _answered_at: float = attrs.field(init=False, default=float("-inf"))
    _index: Breaker = attrs.field(init=False, factory=lambda: Breaker(*INDEX_PAUSES))
    # Those that are not closed, the least recently failed one first.
    _pages: OrderedDict[str, Breaker] = attrs.field(init=False, factory=OrderedDict)

    def is_failing(self, page: str) -> bool:
        """Whether the breaker of a page is not closed."""
        return page in self._pages

    def refusal(self, page: str | None) -> UpstreamFailed | None:
        """
        Give why no request for a page may be sent now, if none may.

        :param page: ``None`` for a request that ignores the breaker of its page
        """
        now = self._clock.seconds()
        own = self._pages.get(page) if page is not None else None
        if own is not None and own.is_open(now):
            assert own.error is not None
            return own.error.copy()
        return self._index_error() if self._index.is_open(now) else None

    def half_open(self, page: str) -> bool:
        """Whether the next request for a page is a trial."""
        fails = self._index.error is not None or page in self._pages
        return fails and self.refusal(page) is None

    def admit(self, page: str | None) -> bool:
        """
        Take note that a request for a page is sent.

        :param page: as for :meth:`error`
        :return: whether it is a trial
        :raises UpstreamFailed: if it may not be sent now
        """
        if (error := self.refusal(page)) is not None:
            raise error
        own = self._pages.get(page) if page is not None else None
        tried = [each for each in (self._index, own) if each and each.error]
        for breaker in tried:
            breaker.back_off(self._clock.seconds())
        return bool(tried)

    def answered(self, status: int, since: float) -> None:
        """
        Take note of a response head.

        :param since: the clock's seconds when the request began
        """
        if status == 429:
            return
        self._answered_at = self._clock.seconds()
        error = self._index.error
        if error is not None and (not error.retry_after or since > self._index.failed_at):
            self._index.close()

    def succeeded(self, page: str) -> None:
        """Close the breaker of a page."""
        self._pages.pop(page, None)

    def failed(self, page: str, error: UpstreamFailed, since: float) -> None:
        """
        Take note of a failed request.

        :param since: the clock's seconds when it began
        """
        now = self._clock.seconds()
        silent = error.scope == "connection" and self._answered_at < since
        if error.scope == "rate limit" or (silent and page not in self._pages):
            self._index.fail(error, now)
        self._pages.setdefault(page, Breaker(*PAGE_PAUSES)).fail(error, now)
        self._pages.move_to_end(page)
        if len(self._pages) > MOST:
            self._pages.popitem(last=False)

    def failed_since(self, page: str, since: float) -> UpstreamFailed | None:
        """Give why the last request for a page failed, if one did since then."""
        own = self._pages.get(page)
        if own is None or own.error is None or own.failed_at < since:
            return None
        return own.error.copy()

    @property
    def rate_limit(self) -> UpstreamFailed | None:
        """The 429 whose ``Retry-After`` is not over, with the seconds that are left of it."""
        limit = self._index.error
        if limit is None or not limit.retry_after:
            return None
        left = self._index.failed_at + min(limit.retry_after, LONGEST) - self._clock.seconds()
        if left <= 0:
            return None
        error = self._index_error()
        error.retry_after = left
        return error

    def _index_error(self) -> UpstreamFailed:
        """Give why the index fails, without the page at which that was noticed."""
        assert self._index.error is not None
        error = self._index.error.copy()
        if isinstance(error, ProxyFailed):
            return error
        return UpstreamFailed(
            self.url,
            error.cause,
            temporary=error.temporary,
            retry_after=error.retry_after,
            scope=error.scope,
        )
