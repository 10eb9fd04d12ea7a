"""The log: in the place that twistd was told, from the level that was set."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, MultiService
from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.components import Componentized

from proxpi import logs

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
