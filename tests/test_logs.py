"""The log: in the place that twistd was told, from the level that was set."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application, MultiService
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.components import Componentized
from twisted.python.failure import Failure

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


def served(
    level: str, reactor: Any = None, *, as_json: bool = False, **twistd: Any
) -> tuple[logs.Logged, Any]:
    """Return the service with this level, and the observer that twistd finds on its application."""
    application: Componentized = Application("proxpi")
    service = logs.Logged(level, as_json, PLACES | twistd, reactor)
    service.setServiceParent(application)
    return service, application.getComponent(ILogObserver, None)


def access(service: logs.Logged, path: str, *, debug: bool = False) -> None:
    template = service.access.template(b"GET", path.encode(), 200, 5, "hit", "page")
    service.access.write(template, "192.0.2.1", 12, "an-id", debug=debug)


def line(path: str) -> str:
    return f"192.0.2.1 GET {path} 200 5 12ms HIT id=an-id"


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
    assert [each.split()[-1] for each in output.getvalue().splitlines()] == names[least:]


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
    service = logs.Logged("INFO", False, PLACES, FakeReactor())
    service.setServiceParent(parent)
    assert list(parent) == [service]
    application: Componentized = Application("proxpi")
    service = logs.Logged("INFO", False, None, Clock())
    service.setServiceParent(application)
    assert application.getComponent(ILogObserver, None) is None
    with logged("proxpi.access") as log:
        access(service, "/{line}")
        access(service, "/health", debug=True)
    assert log.lines == [line("/{line}"), line("/health")]
    assert log.levels == ["info", "debug"]


def test_access_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the access log look like Twisted's own, and are written soon, several at a time."""
    output = catch(monkeypatch)
    clock = Clock()
    monkeypatch.setattr("time.time", lambda: 0.0)
    service, observe = served("INFO", clock)
    access(service, "/first{line}")
    access(service, "/second")
    assert output.getvalue() == ""
    clock.advance(logs.DELAY)
    first, second = output.getvalue().splitlines()
    assert re.fullmatch(
        r"1970-01-01T\d\d:\d\d:\d\d\+0000 \[proxpi\.access#info\] "
        + re.escape(line("/first{line}")),
        first,
    )
    observe(event(LogLevel.info, "an event") | {"log_system": "proxpi.access#info"})
    assert output.getvalue().splitlines()[2].replace("an event", line("/second")) == second
    access(service, "/third")
    clock.advance(logs.DELAY)
    assert output.getvalue().endswith(line("/third") + "\n")
    assert clock.getDelayedCalls() == []


def test_access_lines_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is written after the lines before it, and the last line when the service stops."""
    output = catch(monkeypatch)
    service, observe = served("INFO", Clock())
    for number in range(3):
        access(service, f"/{number}")
        observe(event(LogLevel.warn, f"event {number}"))
    access(service, "/end")
    service.stopService()
    words = [each.split("] ")[1] for each in output.getvalue().splitlines()]
    order = [text for n in range(3) for text in (line(f"/{n}"), f"event {n}")] + [line("/end")]
    assert words == order


def test_events_of_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is written once if a thread writes the lines while another one begins to."""
    interrupt: list[Callable[[], object]] = []

    class Interrupted(deque[str]):
        def __len__(self) -> int:
            length = super().__len__()
            if interrupt:
                interrupt.pop()()
            return length

    monkeypatch.setattr(logs, "deque", Interrupted)
    output = catch(monkeypatch)
    service, observe = served("INFO", Clock())
    access(service, "/a")
    interrupt.append(lambda: observe(event(LogLevel.warn, "other")))
    observe(event(LogLevel.warn, "event"))
    words = [each.split("] ")[1] for each in output.getvalue().splitlines()]
    assert words == [line("/a"), "other", "event"]


def test_access_lines_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the level INFO access lines are left out; a place that takes none stops nothing."""
    output = catch(monkeypatch)
    clock = Clock()
    access(served("WARNING", clock)[0], "/a")
    access(served("INFO", clock)[0], "/health", debug=True)
    clock.advance(1)
    assert output.getvalue() == ""
    access(served("DEBUG", clock)[0], "/health", debug=True)
    clock.advance(1)
    assert output.getvalue().endswith(f"[proxpi.access#debug] {line('/health')}\n")
    service, _ = served("INFO", clock)
    access(service, "/a")
    output.close()
    clock.advance(1)
    access(service, "/another")
    clock.advance(1)


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "is_colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colors(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_colored: bool
) -> None:
    """On a terminal the level has a color, unless ``NO_COLOR`` is set or the terminal has none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    output = FakeTerminal()
    monkeypatch.setattr("sys.stdout", output)
    service, observe = served("INFO", Clock())
    access(service, "/a")
    for level, color in ((LogLevel.info, 36), (LogLevel.warn, 33), (LogLevel.error, 31)):
        observe(event(level, "an\x1b[31m event"))
        line = output.getvalue().splitlines()[-1]
        assert (f" \x1b[{color}m[test" in line) is is_colored
        assert line.endswith(r"] an\x1b[31m event" if not is_colored else r"an\x1b[31m event")
    assert ("\x1b[36m[proxpi.access#info]\x1b[0m 192" in output.getvalue()) is is_colored
    assert ("\x1b" in output.getvalue()) is is_colored


def test_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of twistd on its start and end are left out; an error that stops it is logged."""
    output = catch(monkeypatch)
    _, observe = served("DEBUG")
    for text in (
        *("twistd {version} ({exe} {pyVersion}) starting up.", "reactor class: {reactor}."),
        *("Main loop terminated.", "Server Shut Down."),
    ):
        observe(event(LogLevel.info, text) | {"version": 1, "exe": 2, "pyVersion": 3, "reactor": 4})
    for text in ("(TCP Port 5000 Closed)", "proxpi.web.server.Site starting on 5000"):
        observe(
            {
                "log_text": text,
                "log_level": LogLevel.info,
                "log_time": 0.0,
                "log_namespace": "log_legacy",
            }
        )
    assert output.getvalue() == ""
    observe(event(LogLevel.info, "Received SIGTERM, shutting down."))
    assert "SIGTERM" in output.getvalue()


HOSTILE = st.text() | st.text('"\\\r\n\x1b\x9b\u2028\u202e{}[ \ud800', min_size=1)


def failure(text: str) -> Failure:
    try:
        raise ValueError(text)
    except ValueError:
        return Failure()


@given(HOSTILE, st.booleans())
def test_forged_events(text: str, fails: bool) -> None:
    """Whatever an upstream or a client says: an event is one line, or one with its traceback."""
    record = {
        "log_level": LogLevel.warn,
        "log_format": "said {text}",
        "text": text,
        "log_time": 0.0,
    }
    record |= {"log_namespace": "test", **({"log_failure": failure(text)} if fails else {})}
    first, *others = (logs.TextFormat().event(record) or "").removesuffix("\n").split("\n")
    assert re.fullmatch(r"1970-01-01T\S+ \[test#warn\] said .*", first)
    assert bool(others) is fails
    assert all(each[0] == "\t" and each[1:].isprintable() for each in others)
    line = logs.JsonFormat().event(record) or ""
    assert line.endswith("}\n") and line[:-1].isprintable()
    found = json.loads(line)
    assert (found["level"], found["logger"]) == ("warn", "test")
    assert found["message"] == first.partition("] ")[2]
    assert ("ValueError" in found.get("traceback", "")) is fails


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, events and access lines are objects, one a line, with time, level and logger."""
    output = catch(monkeypatch)
    monkeypatch.setattr("time.time", lambda: 1.25)
    service, observe = served("DEBUG", Clock(), as_json=True)
    access(service, "/%25{a}")
    access(service, "/health", debug=True)
    observe(event(LogLevel.error, "it {failed}") | {"failed": "fails", "log_time": 2.0625})
    observe(event(LogLevel.error, ""))
    observe(
        {
            "log_text": "old",
            "log_level": LogLevel.info,
            "log_time": 0.0,
            "log_namespace": "log_legacy",
        }
        | {"log_format": "{log_text}"}
    )
    first, health, third, old = map(json.loads, output.getvalue().splitlines())
    assert first | {"path": ""} == {
        "time": "1970-01-01T00:00:01.250Z",
        "level": "info",
        "logger": "proxpi.access",
        "client": "192.0.2.1",
        "message": "GET /%25{a} 200",
        "method": "GET",
        "path": "",
        "status": 200,
        "bytes": 5,
        "outcome": "hit",
        "kind": "page",
        "ms": 12,
        "request_id": "an-id",
    }
    assert (health["level"], health["path"]) == ("debug", "/health")
    assert third == {
        "time": "1970-01-01T00:00:02.062Z",
        "level": "error",
        "logger": "test",
        "message": "it fails",
    }
    assert (old["logger"], old["message"]) == ("log_legacy", "old")


def test_json_in_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """In syslog, which has a format of its own, lines are text."""
    monkeypatch.setattr(logs, "SyslogObserver", lambda _: Mock())
    service, _ = served("INFO", as_json=True, syslog=True)
    with logged("proxpi.access") as log:
        access(service, "/a")
    assert log.lines == [line("/a")]
