"""What is known of an index's trouble, so that nobody waits twice to find it out.

Theory of operation
-------------------
Whoever asks an index tells its :class:`Health` how that went. An index that did not so much as
begin to answer is *unreachable*, and in trouble for every page; one that answered uselessly (an
error, a login page) is in trouble for the pages concerned, since one of them may be broken while
the others are well. One that said ``Retry-After`` is left alone for that time.

Whoever has something to fall back on looks here first, and neither asks nor waits while the
trouble lasts. It ends by itself: as long as there is any, a probe asks every few seconds for what
failed last, and anything useful that is heard from the index ends all of it. If nobody has
wanted anything for a while, the trouble is forgotten instead: the next client finds out.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxpi.upstream.errors import CredentialsRejected, UpstreamFailed

#: Seconds before the first probe; each later one waits half as long again, up to the longest.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 4.0
#: Seconds between probes with credentials that were rejected: some servers count such tries.
REJECTED_PAUSE = 30.0
#: Seconds for which an index that asked to be left alone is left alone at most.
LONGEST_REST = 30.0
#: Seconds after the last request that met the trouble for which probes go on.
ATTENTION = 600.0
#: Pages for which trouble is remembered.
MOST = 1000
#: Pages that fail, with no success between them, by which the whole index is in trouble.
ENOUGH = 2

Retry = Callable[[], Awaitable[object]]

_log = Logger(namespace="proxpi.index")


@attrs.define(eq=False)
class Health:
    """The trouble of one index, if it has any.

    A *key* is the name of a project, or empty for the root list.
    """

    _clock: IReactorTime
    _answered_at: float = attrs.field(init=False, default=float("-inf"))
    _wanted_at: float = attrs.field(init=False, default=float("-inf"))
    _unreachable: UpstreamFailed | None = attrs.field(init=False, default=None)
    _failing: dict[str, tuple[UpstreamFailed, Retry]] = attrs.field(init=False, factory=dict)
    _last: UpstreamFailed | None = attrs.field(init=False, default=None)
    _last_at: float = attrs.field(init=False, default=float("-inf"))
    _resting: UpstreamFailed | None = attrs.field(init=False, default=None)
    _rests_until: float = attrs.field(init=False, default=float("-inf"))
    _pause: float = attrs.field(init=False, default=FIRST_PAUSE)
    _probing: bool = attrs.field(init=False, default=False)

    def answered(self) -> None:
        """Note that the head of any answer came: somebody is there."""
        self._answered_at = self._clock.seconds()
        self._unreachable = None

    def succeeded(self) -> None:
        """Note that an answer was of use: no trouble is left, but for a wish to be left alone."""
        self.answered()
        if self._failing:
            _log.info("an index is well again, after: {error}", error=self._newest)
        self._failing.clear()
        self._pause = FIRST_PAUSE

    def failed(self, key: str, error: UpstreamFailed, since: float, retry: Retry) -> None:
        """
        Note a failure, and see to it that somebody tries again.

        :param since: the clock's seconds when asking began
        :param retry: asks again, and notes here how that went
        """
        now = self._clock.seconds()
        self._note(key, error, retry)
        if self._answered_at < since:
            self._unreachable = error.again()
        self.heed(error)
        if not self._probing:
            self._probing = True
            self._wanted_at = now
            self._probe_later()

    def heed(self, error: UpstreamFailed) -> None:
        """Note a failed try, and leave the index alone for as long as it asked to be, if it did."""
        self._last, self._last_at = error.again(), self._clock.seconds()
        if error.retry_after:
            self._resting = error.again()
            rest = min(error.retry_after, LONGEST_REST)
            self._rests_until = self._clock.seconds() + rest

    def failed_since(self, since: float) -> UpstreamFailed | None:
        """Say why the last try failed, if one did since then (the clock's seconds)."""
        return self._last.again() if self._last is not None and self._last_at >= since else None

    def fails(self, key: str) -> bool:
        """Tell whether what was asked for last failed, and is being probed for."""
        return key in self._failing

    def trouble(self, key: str, retry: Retry) -> UpstreamFailed | None:
        """
        Say why there is no point in asking now, if there is none, to somebody who would.

        :param retry: as for :meth:`failed`: what is wanted is probed for, too
        """
        error = self.resting
        if error is None and key in self._failing:
            error = self._failing[key][0]
        elif error is None and (self._unreachable or len(self._failing) >= ENOUGH):
            error = self._unreachable or self._newest
            self._note(key, error, retry)
        if error is not None:
            self._wanted_at = self._clock.seconds()
            error = error.again()
        return error

    @property
    def resting(self) -> UpstreamFailed | None:
        """Why the index asked to be left alone, and for how long still, if it did."""
        left = self._rests_until - self._clock.seconds()
        if self._resting is None or left <= 0:
            return None
        error = self._resting.again()
        error.retry_after = left
        return error

    @property
    def _newest(self) -> UpstreamFailed:
        """Why what failed last did; there has to be something."""
        return next(reversed(self._failing.values()))[0]

    def _note(self, key: str, error: UpstreamFailed, retry: Retry) -> None:
        """Put something at the end of what is probed for."""
        self._failing.pop(key, None)
        self._failing[key] = (error.again(), retry)
        if len(self._failing) > MOST:
            del self._failing[next(iter(self._failing))]

    def _probe_later(self) -> None:
        # Varied, to keep many proxies from knocking in step.
        pause = self._pause * random.uniform(0.5, 1.5)
        if isinstance(self._newest, CredentialsRejected):
            pause = REJECTED_PAUSE
        left = self._rests_until - self._clock.seconds()
        self._clock.callLater(max(pause, left), self._probe)
        self._pause = min(LONGEST_PAUSE, self._pause * 1.5)

    def _probe(self) -> None:
        if self._clock.seconds() > self._wanted_at + ATTENTION:
            self._failing.clear()
            self._unreachable = None
        if not self._failing:
            self._probing = False
            return
        # One after the other: what failed last may stay broken when all else is well.
        key, (error, retry) = next(iter(self._failing.items()))
        self._note(key, error, retry)

        async def probe() -> None:
            await retry()

        probed = Deferred.fromCoroutine(probe())
        probed.addErrback(_note)
        probed.addCallback(self._probed)

    def _probed(self, _: object) -> None:
        if self._failing:
            self._probe_later()
        else:
            self._probing = False


def _note(failure: Failure) -> None:
    """Pass over what is expected of a probe; log what is proxpi's own fault."""
    if not failure.check(UpstreamFailed):
        _log.failure("while asking an index again", failure=failure)
