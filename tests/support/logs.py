"""Log events while a test runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
from twisted.logger import LogEvent, capturedLogs, formatEvent


@attrs.frozen
class Log:
    """The events of some namespaces, in their order; of all, if there are none."""

    _events: Sequence[LogEvent]
    _namespaces: tuple[str, ...]

    @property
    def events(self) -> list[LogEvent]:
        return [
            event
            for event in self._events
            if not self._namespaces or event.get("log_namespace") in self._namespaces
        ]

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def levels(self) -> list[str]:
        return [event["log_level"].name for event in self.events]


@contextmanager
def logged(*namespaces: str) -> Iterator[Log]:
    """Collect what is logged under these namespaces; under any, if none is given."""
    with capturedLogs() as events:
        yield Log(events, namespaces)
