"""Readiness (``/ready``): whether this process can serve, for load balancers and orchestrators.

``/health`` says that the process runs, whatever its upstreams and disks do; a process that is not
healthy is restarted. One that is not *ready* gets no new clients: while the cache folder cannot be
read, or during the drain. A dead upstream is no reason, as all that is cached can be served, and
would be a reason for each of the other processes, too.

The folder is read in a thread of its own. There is one *check* at a time, and its outcome is shared
for :data:`SHARED` seconds. A disk that does not respond by the deadline is a reason; the check goes
on meanwhile, and later requests join it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime

from proxpi import quantities
from proxpi.single_flight import Flights, InThread, WaitTimeout
from proxpi.web import responses
from proxpi.web.responses import WholeResponse

#: Seconds that a disk has to respond: load balancers often wait for one second.
TIMEOUT = 0.75
#: Seconds for which the outcome of a check is shared.
SHARED = 1.0
DRAINING = "proxpi is stopping."

#: The key of the only flight.
_CHECK = "check"


@attrs.define(eq=False)
class Readiness:
    """Makes the responses to ``/ready``.

    :ivar folder: the cache folder
    :ivar draining: tells whether the process is stopping
    """

    _folder: Path
    _in_thread: InThread
    _clock: IReactorTime
    _draining: Callable[[], bool]
    _checks: Flights[str, None] = attrs.field(init=False)
    _reason: str | None = attrs.field(init=False, default=None)
    _checked_at: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._checks = Flights(self._clock)

    async def respond(self) -> WholeResponse:
        reasons = [await self.folder_reason(), DRAINING if self._draining() else None]
        found = [reason for reason in reasons if reason is not None]
        if not found:
            return responses.success(responses.NO_STORE)
        body = {"status": "error", "message": " ".join(found), "reasons": found}
        headers = {**responses.NO_STORE, "Retry-After": str(responses.RETRY_AFTER)}
        return responses.json(503, body, headers)

    async def folder_reason(self) -> str | None:
        """Return why the cache folder cannot be used; ``None`` if it can."""
        now = self._clock.seconds()
        if now < self._checked_at + SHARED:
            return self._reason
        flight = self._checks.join(_CHECK, self._check)
        try:
            await flight.wait(now + TIMEOUT)
        except WaitTimeout:
            waited = quantities.duration(self._clock.seconds() - flight.started)
            return f"The disk of the cache folder has not responded for {waited}."
        return self._reason

    async def _check(self) -> None:
        def read() -> str | None:
            try:
                with os.scandir(self._folder) as entries:
                    next(entries, None)
            except OSError as error:
                return f"The cache folder cannot be read: {error.strerror or error}."
            return None

        self._reason = await self._in_thread(read)
        self._checked_at = self._clock.seconds()
