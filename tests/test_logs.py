"""The log: in the place that twistd was told, from the level that was set."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, MultiService
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.components import Componentized

from proxpi import logs
from tests.support.logs import logged

PLACES: dict[str, Any] = {"syslog": False, "prefix": "", "logfile": None, "nodaemon": True}


class FakeReactor:
    """A reactor for the one thing that a signal asks of it."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        """Keep the call."""
        self.calls.append(call)


def observer(level: str, reactor: Any = None, **twistd: Any) -> Any:
    """What twistd would find on the application of a service with this level."""
    application: Componentized = Application("proxpi")
    logs.Logged(level, PLACES | twistd, reactor).setServiceParent(application)
    return application.getComponent(ILogObserver, None)


def event(level: Any, text: str) -> dict[str, Any]:
    """A log event as Twisted makes them."""
    return {
        "log_level": level,
        "log_format": text,
        "log_time": 0.0,
        "log_namespace": "test",
        "log_system": "test",
    }


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("DEBUG", ["debug", "info", "warn", "error", "critical"]),
        ("INFO", ["info", "warn", "error", "critical"]),
        ("WARNING", ["warn", "error", "critical"]),
        ("ERROR", ["error", "critical"]),
        ("CRITICAL", ["critical"]),
    ],
)
def test_levels(monkeypatch: pytest.MonkeyPatch, level: str, logged: list[str]) -> None:
    """Events of a level and above it are written to the output, those below it are not."""
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    observe = observer(level)
    for each in LogLevel.iterconstants():
        observe(event(each, each.name))
    assert [line.split()[-1] for line in output.getvalue().splitlines()] == logged


def test_a_file(tmp_path: Path) -> None:
    """``--logfile`` gets the log, and a signal from the operator rotates it, as twistd has it."""
    reactor = FakeReactor()
    file = tmp_path / "proxpi.log"
    before = signal.getsignal(signal.SIGUSR1)
    try:
        observe = observer("INFO", reactor, logfile=str(file))
        observe(event(LogLevel.info, "before"))
        os.kill(os.getpid(), signal.SIGUSR1)
        [rotate] = reactor.calls
        rotate()
        observe(event(LogLevel.info, "after"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert file.read_text().split()[-1] == "after"
    assert (tmp_path / "proxpi.log.1").read_text().split()[-1] == "before"


def test_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is told nothing logs to ``twistd.log`` where it was started."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        observer("INFO", FakeReactor(), nodaemon=False)(event(LogLevel.info, "here"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "twistd.log").read_text().split()[-1] == "here"


def test_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--syslog`` gets the log, under its prefix and from the level on."""
    sent: list[tuple[str, str]] = []

    class FakeSyslog:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        def emit(self, legacy_event: dict[str, Any]) -> None:
            sent.append((self.prefix, formatEvent(legacy_event)))

    monkeypatch.setattr(logs, "SyslogObserver", FakeSyslog)
    observe = observer("WARNING", syslog=True, prefix="here")
    observe(event(LogLevel.info, "small"))
    observe(event(LogLevel.warn, "large"))
    assert sent == [("here", "large")]


def test_what_is_left_to_twistd() -> None:
    """A daemon that is to log to its output is an error, and twistd says so itself."""
    assert observer("INFO", nodaemon=False, logfile="-") is None


def test_without_twistd() -> None:
    """Under another parent than twistd's application the service is a service like any other."""
    parent = MultiService()
    service = logs.Logged("INFO", PLACES, FakeReactor())
    service.setServiceParent(parent)
    assert list(parent) == [service]
    application: Componentized = Application("proxpi")
    logs.Logged("INFO", None, FakeReactor()).setServiceParent(application)
    assert application.getComponent(ILogObserver, None) is None


def served(level: str, clock: Clock, **twistd: Any) -> tuple[logs.Logged, Any]:
    """Give the service with this level, and what twistd would find on its application."""
    application: Componentized = Application("proxpi")
    service = logs.Logged(level, PLACES | twistd, clock)
    service.setServiceParent(application)
    return service, application.getComponent(ILogObserver, None)


def test_access_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the access log look like Twisted's own, and are written soon, not each by itself."""
    output, clock = io.StringIO(), Clock()
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr("time.time", lambda: 0.0)
    service, observe = served("INFO", clock)
    service.access("first {line}")
    service.access("second line")
    assert output.getvalue() == ""
    clock.advance(logs.DELAY)
    first, second = output.getvalue().splitlines()
    assert re.fullmatch(
        r"1970-01-01T\d\d:\d\d:\d\d\+0000 \[proxpi\.access#info\] first {line}", first
    )
    observe(event(LogLevel.info, "an event") | {"log_system": "proxpi.access#info"})
    assert output.getvalue().splitlines()[2].replace("an event", "second line") == second
    service.access("third")
    clock.advance(logs.DELAY)
    assert output.getvalue().endswith(" third\n")
    assert clock.getDelayedCalls() == []


def test_access_lines_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged otherwise comes after the lines that were there before."""
    output, clock = io.StringIO(), Clock()
    monkeypatch.setattr("sys.stdout", output)
    service, observe = served("INFO", clock)
    for number in range(3):
        service.access(f"line {number}")
        observe(event(LogLevel.warn, f"event {number}"))
    words = [line.split("] ")[1] for line in output.getvalue().splitlines()]
    assert words == ["line 0", "event 0", "line 1", "event 1", "line 2", "event 2"]


def test_access_lines_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is written when the service stops."""
    output, clock = io.StringIO(), Clock()
    monkeypatch.setattr("sys.stdout", output)
    service, _ = served("INFO", clock)
    service.access("the last line")
    service.stopService()
    assert "the last line" in output.getvalue()


def test_access_lines_below_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of the level INFO, and left out above it."""
    output, clock = io.StringIO(), Clock()
    monkeypatch.setattr("sys.stdout", output)
    service, _ = served("WARNING", clock)
    service.access("a line")
    clock.advance(1)
    assert output.getvalue() == ""


def test_access_lines_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that takes no more stops nothing."""
    output, clock = io.StringIO(), Clock()
    monkeypatch.setattr("sys.stdout", output)
    service, _ = served("INFO", clock)
    service.access("a line")
    output.close()
    clock.advance(1)
    service.access("another")
    clock.advance(1)


def test_access_lines_elsewhere() -> None:
    """Where the place is not proxpi's to know, each line is an event like any other."""
    application: Componentized = Application("proxpi")
    service = logs.Logged("INFO", None, Clock())
    service.setServiceParent(application)
    with logged("proxpi.access") as log:
        service.access("a {line}")
    assert log.lines == ["a {line}"]
