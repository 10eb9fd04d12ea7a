"""What is logged while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from twisted.logger import LogEvent, formatEvent, globalLogPublisher


@attrs.define
class Log:
    """The events of some namespaces, in their order."""

    events: list[LogEvent] = attrs.field(factory=list)

    @property
    def lines(self) -> list[str]:
        """The text of each event."""
        return [formatEvent(event) for event in self.events]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)

    @property
    def levels(self) -> list[str]:
        """The level of each event."""
        return [event["log_level"].name for event in self.events]


@contextmanager
def logged(*namespaces: str) -> Iterator[Log]:
    """Collect what is logged under these namespaces; under any, if none is given."""
    log = Log()

    def observe(event: LogEvent) -> None:
        namespace = event.get("log_namespace", "")
        if not namespaces or namespace in namespaces:
            log.events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield log
    finally:
        globalLogPublisher.removeObserver(observe)
