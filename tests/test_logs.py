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
    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.callFromThread = self.calls.append


def catch(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    return written


@pytest.fixture
def _sigusr1(request: pytest.FixtureRequest) -> None:
    """Restore the handler of the signal by which logs are rotated."""
    before = signal.getsignal(signal.SIGUSR1)
    request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, before))


def served(level: str, reactor: Any = None, **twistd: Any) -> tuple[logs.Logged, Any]:
    """Return the service with this level, and the observer that twistd finds on its application."""
    application: Componentized = Application("proxpi")
    service = logs.Logged(level, PLACES | twistd, reactor)
    service.setServiceParent(application)
    return service, application.getComponent(ILogObserver, None)


def event(level: Any, text: str) -> dict[str, Any]:
    names = {"log_namespace": "test", "log_system": "test"}
    return {"log_level": level, "log_format": text, "log_time": 0.0, **names}


@pytest.mark.parametrize(("level", "least"), [*zip(logs._LEVELS, range(5), strict=True)])
def test_levels(monkeypatch: pytest.MonkeyPatch, level: str, least: int) -> None:
    """Events of a level and above it are written to the output, those below it are not."""
    output = catch(monkeypatch)
    _, observe = served(level)
    names = [each.name for each in LogLevel.iterconstants()]
    for each in LogLevel.iterconstants():
        observe(event(each, each.name))
    assert [line.split()[-1] for line in output.getvalue().splitlines()] == names[least:]


@pytest.mark.usefixtures("_sigusr1")
def test_a_file(tmp_path: Path) -> None:
    """``--logfile`` gets the log, and a signal from the operator rotates it, as with twistd."""
    reactor, file = FakeReactor(), tmp_path / "proxpi.log"
    _, observe = served("INFO", reactor, logfile=str(file))
    observe(event(LogLevel.info, "before"))
    os.kill(os.getpid(), signal.SIGUSR1)
    [rotate] = reactor.calls
    rotate()
    observe(event(LogLevel.info, "after"))
    assert file.read_text().split()[-1] == "after"
    assert (tmp_path / "proxpi.log.1").read_text().split()[-1] == "before"


@pytest.mark.usefixtures("_sigusr1")
def test_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon logs to ``twistd.log`` where it was started; one told to use its output to none."""
    monkeypatch.chdir(tmp_path)
    served("INFO", FakeReactor(), nodaemon=False)[1](event(LogLevel.info, "here"))
    assert (tmp_path / "twistd.log").read_text().split()[-1] == "here"
    assert served("INFO", nodaemon=False, logfile="-")[1] is None  # twistd reports the error


def test_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--syslog`` gets the log, under its prefix and from the level on."""
    sent: list[tuple[str, str]] = []

    class FakeSyslog:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        def emit(self, legacy_event: dict[str, Any]) -> None:
            sent.append((self.prefix, formatEvent(legacy_event)))

    monkeypatch.setattr(logs, "SyslogObserver", FakeSyslog)
    _, observe = served("WARNING", syslog=True, prefix="here")
    observe(event(LogLevel.info, "small"))
    observe(event(LogLevel.warn, "large"))
    assert sent == [("here", "large")]


def test_without_twistd() -> None:
    """Under another parent, and without twistd's options, the log is left as it is."""
    parent = MultiService()
    service = logs.Logged("INFO", PLACES, FakeReactor())
    service.setServiceParent(parent)
    assert list(parent) == [service]
    application: Componentized = Application("proxpi")
    service = logs.Logged("INFO", None, Clock())
    service.setServiceParent(application)
    assert application.getComponent(ILogObserver, None) is None
    with logged("proxpi.access") as log:
        service.access("a {line}")
    assert log.lines == ["a {line}"]


def test_access_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the access log look like Twisted's own, and are written soon, several at a time."""
    output = catch(monkeypatch)
    clock = Clock()
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
    """An event is written after the lines before it, and the last line when the service stops."""
    output = catch(monkeypatch)
    service, observe = served("INFO", Clock())
    for number in range(3):
        service.access(f"line {number}")
        observe(event(LogLevel.warn, f"event {number}"))
    service.access("the end")
    service.stopService()
    words = [line.split("] ")[1] for line in output.getvalue().splitlines()]
    order = ["line 0", "event 0", "line 1", "event 1", "line 2", "event 2", "the end"]
    assert words == order


def test_access_lines_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the level INFO access lines are left out; a place that takes none stops nothing."""
    output = catch(monkeypatch)
    clock = Clock()
    served("WARNING", clock)[0].access("a line")
    clock.advance(1)
    assert output.getvalue() == ""
    service, _ = served("INFO", clock)
    service.access("a line")
    output.close()
    clock.advance(1)
    service.access("another")
    clock.advance(1)
