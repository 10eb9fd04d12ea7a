"""Circuit breakers: while an index fails, clients with a stale page do not wait for it.

There is one breaker per page of an index, and one per index. Each is in one of three states:

=========  ==========================  ===========================================================
state      when                        a request with a stale page to fall back on
=========  ==========================  ===========================================================
closed     no error is known           is sent
open       `retry_at` has not passed   is not sent: the client gets the stale page
half-open  `retry_at` has passed       is sent as the *trial*, the only one: the breaker opens
                                       again for the next pause; the pauses double
=========  ==========================  ===========================================================

A failed request opens the breaker of its page. It opens the breaker of the index as well in two
cases: the status is 429; or there was no connection or no response head, the page's breaker was
closed, and the index has sent no response head since the request began. A success closes the
breaker of the page; every response head but a 429 closes that of the index (while a
``Retry-After`` runs, only the head of a later request). A page that hangs looks like an index that
does, so the pauses of the index are half as long: between two trials of the bad page, a good one
gets its turn and closes the breaker of the index.

Requests without a stale page ignore all breakers, but heed the ``Retry-After`` of a 429. All times
are the clock's seconds; `since` is when a request began.

An *outage* sums up the breakers for the operator. It lasts from a failure to the next
success: the failure of the index's first request, or one that concerns the index (no connection, no
response head, 429, credentials), or those of two pages without a success between them.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi.upstream import CredentialsRejected, ProxyFailed, UpstreamFailed

#: Seconds of the first and the longest pause of a page's breaker, and of an index's.
PAGE_PAUSES = 1.0, 4.0
INDEX_PAUSES = 0.5, 2.0
#: Seconds of the longest pause after 401 and 403, and for which ``Retry-After`` is heeded at most.
LONGEST = 30.0
#: Breakers of pages that one index has at most; beyond that, the least recently failed one closes.
MOST = 1000

State = IntEnum("State", ["CLOSED", "HALF_OPEN", "OPEN"], start=0)


@attrs.frozen
class Outage:
    """The failures of an index since its last success.

    :ivar since: when the first one came; `page`: of which page
    :ivar error: the last one
    :ivar is_certain: whether they concern the index, and not a page of it alone
    :ivar logged: whether the log has a line for one of them
    """

    since: float
    page: str
    error: UpstreamFailed
    is_certain: bool
    logged: bool = False


@attrs.define(eq=False)
class Breaker:
    """A circuit breaker; `error` tells why it is not closed, known since `failed_at`."""

    _first: float
    _longest: float
    error: UpstreamFailed | None = None
    failed_at: float = float("-inf")
    retry_at: float = float("-inf")
    _pause: float = 0.0

    def state(self, now: float) -> State:
        if self.error is None:
            return State.CLOSED
        return State.OPEN if now < self.retry_at else State.HALF_OPEN

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
        # Varied, so that many proxies do not retry at the same time.
        self.retry_at = now + self._pause * random.uniform(0.75, 1.0)

    def close(self) -> None:
        self.error, self._pause = None, 0.0


@attrs.define(eq=False)
class Breakers:
    """The breakers of one index. A page is named by its project; ``""`` is the project list."""

    url: str
    _clock: IReactorTime
    _wall: Callable[[], float] = time.time
    _head_received_at: float = attrs.field(init=False, default=float("-inf"))
    _index: Breaker = attrs.field(init=False, factory=lambda: Breaker(*INDEX_PAUSES))
    # Those that are not closed, the least recently failed one first.
    _pages: OrderedDict[str, Breaker] = attrs.field(init=False, factory=OrderedDict)
    _outage: Outage | None = attrs.field(init=False, default=None)
    has_succeeded: bool = attrs.field(init=False, default=False)

    def wall_time(self, at: float) -> float:
        """Return a time of the clock in seconds since the epoch."""
        return self._wall() + at - self._clock.seconds()

    def is_failing(self, page: str) -> bool:
        return page in self._pages

    @property
    def index_state(self) -> State:
        """The state of the breaker of the index."""
        return self._index.state(self._clock.seconds())

    def state(self, page: str) -> State:
        """Return the state of both breakers together: what becomes of the next request."""
        now = self._clock.seconds()
        return max(breaker.state(now) for breaker in self._passed(page))

    def refusal(self, page: str, *, ignore_page: bool = False) -> UpstreamFailed | None:
        """Return the error for which an open breaker refuses a request; `None` if it may be sent.

        With `ignore_page`, only the breaker of the index counts.
        """
        now = self._clock.seconds()
        for breaker in self._passed(page, ignore_page):
            if breaker.error is not None and breaker.state(now) is State.OPEN:
                return self._index_error() if breaker is self._index else breaker.error.copy()
        return None

    def admit(self, page: str, *, ignore_page: bool = False) -> bool:
        """Admit a request, or raise its :meth:`refusal`; return whether it is a trial."""
        if (error := self.refusal(page, ignore_page=ignore_page)) is not None:
            raise error
        tried = [each for each in self._passed(page, ignore_page) if each.error is not None]
        for breaker in tried:
            breaker.back_off(self._clock.seconds())
        return bool(tried)

    def head_received(self, status: int, since: float) -> None:
        if status == 429:
            return
        self._head_received_at = self._clock.seconds()
        error = self._index.error
        if error is not None and (not error.retry_after or since > self._index.failed_at):
            self._index.close()

    @property
    def outage(self) -> Outage | None:
        return self._outage if self._outage is not None and self._outage.is_certain else None

    @property
    def retry_at(self) -> float | None:
        """When the next request is sent for a stale page; ``None``: as soon as one is due."""
        opened = self._pages.values() if self._index.error is None else (self._index,)
        times = (each.retry_at for each in opened if each.retry_at > self._clock.seconds())
        return min(times, default=None)

    def succeeded(self, page: str) -> Outage | None:
        """Note a success; return the outage that it ends."""
        self._pages.pop(page, None)
        ended, self._outage, self.has_succeeded = self.outage, None, True
        return ended

    def note_logged(self) -> None:
        """Note that the log has a line for the last failure."""
        if self._outage is not None:
            self._outage = attrs.evolve(self._outage, logged=True)

    def failed(self, page: str, error: UpstreamFailed, since: float) -> None:
        now = self._clock.seconds()
        begun = self._outage or Outage(now, page, error, is_certain=not self.has_succeeded)
        concerns_index = error.scope != "resource" or isinstance(error, CredentialsRejected)
        is_certain = begun.is_certain or concerns_index or page != begun.page
        self._outage = attrs.evolve(begun, error=error.copy(), is_certain=is_certain)
        silent = error.scope == "connection" and self._head_received_at < since
        if error.scope == "rate limit" or (silent and page not in self._pages):
            self._index.fail(error, now)
        self._pages.setdefault(page, Breaker(*PAGE_PAUSES)).fail(error, now)
        self._pages.move_to_end(page)
        if len(self._pages) > MOST:
            self._pages.popitem(last=False)

    def failed_since(self, page: str, since: float) -> UpstreamFailed | None:
        """Return the error of the last request for a page, if it failed since then."""
        own = self._pages.get(page)
        return own.error.copy() if own and own.error and own.failed_at >= since else None

    @property
    def rate_limit(self) -> UpstreamFailed | None:
        """The 429 whose ``Retry-After`` is not over, with the seconds that are left of it."""
        if self._index.error is None or not self._index.error.retry_after:
            return None
        error = self._index_error()
        until = self._index.failed_at + min(error.retry_after or 0.0, LONGEST)
        error.retry_after = until - self._clock.seconds()
        return error if error.retry_after > 0 else None

    def _passed(self, page: str, ignore_page: bool = False) -> list[Breaker]:
        own = None if ignore_page else self._pages.get(page)
        return [self._index] if own is None else [own, self._index]

    def _index_error(self) -> UpstreamFailed:
        """Return the error of the index, without the page whose request showed it."""
        error = self._index.error
        assert error is not None
        return error.copy("" if isinstance(error, ProxyFailed) else self.url)
