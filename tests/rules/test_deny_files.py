"""Files with selectors of what is denied."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.rules import deny_files
from proxpi.rules.deny_files import INTERVAL, DenyFiles, Unusable, concerned, parse
from proxpi.values import SettingsError
from tests.support.cases import FolderCase, at_once, problems_at
from tests.support.logs import Log, logged
from tests.support.rules import rules

T = TypeVar("T")
SHA = "a" * 64


def test_lines() -> None:
    """A line is a selector; comments, blanks, CRLF and a byte-order mark are skipped."""
    text = f"\ufeff# all of them\r\nevil\r\n\r\n  left-pad >=1.2,<1.3  # bad\n#x\nsha256:{SHA}"
    assert [(str(each.selector), each.rule) for each in parse("/deny.txt", text.encode())] == [
        ("evil", '/deny.txt, line 2: "evil"'),
        ("left-pad >=1.2,<1.3", '/deny.txt, line 4: "left-pad >=1.2,<1.3"'),
        (f"sha256:{SHA}", f'/deny.txt, line 6: "sha256:{SHA}"'),
    ]
    assert parse("/deny.txt", b"") == ()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"evil\nleft pad\n", "/a\\\\nb, line 2: 'left pad': 'left pad' is no project name"),
        (b"evil\nb\xff\n", "/a\\\\nb, line 2: not UTF-8"),
        (b"evil==\n", "/a\\\\nb, line 1: 'evil==': '==' are no versions"),
        (b"\x1b[2J\n", r"line 1: '\\x1b\[2J'"),
        (b"a" * 5000, "line 1: '" + "a" * 100 + "…': it has more than 1000 characters"),
    ],
)
def test_no_selector(data: bytes, reason: str) -> None:
    """A line that is no selector is named by file and number, and quoted."""
    with pytest.raises(Unusable, match=reason):
        parse("/a\nb", data)


def test_concerned() -> None:
    """A change concerns the projects of the lines that differ, or any project."""
    one = parse("f", b"evil\nother>1\n")
    assert concerned(one, one) == set()
    assert concerned(one, parse("f", b"evil\nother>2\nthird")) == {"other", "third"}
    assert concerned((), one) == {"evil", "other"}
    assert concerned(one, parse("f", b"evil\nother>1\nacme-*")) is None
    assert concerned(parse("f", f"sha256:{SHA}".encode()), ()) is None


class Watched(FolderCase):
    """Files that change while proxpi runs."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.problems = problems_at(self.clock)
        self.path = self.folder / "deny.txt"
        self.told: list[Collection[str] | None] = []
        self.changes = 0

    def write(self, text: str) -> None:
        """Replace the file, with a time of change of its own."""
        self.changes += 1
        self.path.write_text(text)
        os.utime(self.path, ns=(self.changes, self.changes))

    def open(self, text: str) -> DenyFiles:
        self.write(text)
        files = DenyFiles.open([str(self.path)], self.clock, at_once, self.problems)
        files.changed.append(self.told.append)
        files.start()
        self.addCleanup(files.stop)
        return files

    def look(self) -> Log:
        with logged("proxpi.rules", "proxpi.problems") as log:
            self.clock.advance(INTERVAL)
        return log

    def denied(self, files: DenyFiles) -> list[str]:
        return [str(each.selector) for each in files.denials]

    def test_start(self) -> None:
        """At the start a file that cannot be used is an error that says what is accepted."""
        accepted = "; a file with one selector a line is accepted: a project name such as"
        for text, reason in (
            (None, f"[rules]: deny-files: {self.path}: No such file or directory{accepted}"),
            ("evil\n!\n", f"[rules]: deny-files: {self.path}, line 2: '!'"),
        ):
            if text is not None:
                self.path.write_text(text)
            with pytest.raises(SettingsError) as caught:
                DenyFiles.open([str(self.path)], self.clock, at_once, self.problems)
            assert str(caught.value).startswith(reason)
        os.mkfifo(self.folder / "pipe")
        for path, why in ((self.folder, "not a file"), (self.folder / "pipe", "not a file")):
            with pytest.raises(SettingsError, match=why):
                DenyFiles.open([str(path)], self.clock, at_once, self.problems)
        with pytest.raises(SettingsError, match="null"):
            DenyFiles.open(["a\0b"], self.clock, at_once, self.problems)

    def test_changed(self) -> None:
        """A changed file holds within seconds, and the projects concerned are told."""
        files = self.open("evil\n")
        assert self.look().lines == []
        self.write("evil\nother\n")
        assert self.denied(files) == ["evil"]
        line = f"deny-files: {self.path} was read again; selectors in it: 2"
        assert self.look().lines == [line]
        assert self.denied(files) == ["evil", "other"]
        assert self.told == [{"other"}]
        self.write("# more\nevil\nother\n")
        self.look()
        assert self.told == [{"other"}, {"evil", "other"}]

    def test_shorter(self) -> None:
        """A file that lacks a line may be one that is written just now: it holds once it stays."""
        files = self.open("evil\nother\n")
        for text in ("", "evil\n"):
            self.write(text)
            assert self.look().lines == []
            assert self.denied(files) == ["evil", "other"]
        self.write("evil\nother\nthird\n")
        self.look()
        assert (self.denied(files), self.told) == (["evil", "other", "third"], [{"third"}])
        self.write("")
        self.look()
        line = f"deny-files: {self.path} was read again; selectors in it: 0"
        assert self.look().lines == [line]
        assert (self.denied(files), self.told[1:]) == ([], [{"evil", "other", "third"}])
        self.write("# nothing\n")
        self.look()
        assert len(self.told) == 2

    def test_replaced(self) -> None:
        """A file that another one took the place of is read, although time and size are equal."""
        files = self.open("evil\n")
        other = self.folder / "other"
        other.write_text("vile\n")
        os.utime(other, ns=(self.changes, self.changes))
        other.rename(self.path)
        self.look()
        self.look()
        assert self.denied(files) == ["vile"]

    def test_broken(self) -> None:
        """The lines read before hold while a file is broken, and each problem is logged once."""
        files = self.open("evil\n")
        self.write("evil\n!\n")
        log = self.look()
        assert log.levels == ["error"]
        assert f"deny-files: {self.path}, line 2: '!'" in log.text
        assert "the lines read before still hold" in log.text
        assert self.look().lines == []
        self.path.unlink()
        log = self.look()
        assert log.levels == ["error"]
        assert "No such file" in log.text
        assert self.look().lines == []
        assert (self.denied(files), self.told) == (["evil"], [])
        self.write("evil\nother\n")
        assert self.look().levels == ["info"]
        assert self.denied(files) == ["evil", "other"]

    def test_mended(self) -> None:
        """A file that is there again as it was is no change, and is logged."""
        files = self.open("evil\n")
        self.path.rename(self.folder / "away")
        assert self.look().levels == ["error"]
        (self.folder / "away").rename(self.path)
        assert self.look().levels == ["info"]
        assert (self.denied(files), self.told) == (["evil"], [])

    def test_written_meanwhile(self) -> None:
        """A file that changes while it is read is read at the next look."""
        files = self.open("evil\n")
        self.write("evil\nother\n")
        fstat = os.fstat

        def changing(descriptor: int) -> os.stat_result:
            self.put(os, "fstat", fstat)
            status = fstat(descriptor)
            self.write("evil\nother\nthird\n")
            return status

        self.put(os, "fstat", changing)
        self.look()
        assert self.denied(files) == ["evil"]
        self.look()
        assert self.denied(files) == ["evil", "other", "third"]

    def test_large(self) -> None:
        """A file beyond the limit is refused, unread."""
        self.put(deny_files, "LIMIT", 10)
        self.write("a" * 11)
        with pytest.raises(SettingsError, match="more than 10 bytes"):
            DenyFiles.open([str(self.path)], self.clock, at_once, self.problems)

    def test_stopped(self) -> None:
        """After the stop no file is looked at, and a look under way changes nothing."""
        self.write("evil\n")
        jobs: list[Deferred[None]] = []

        def later(job: Callable[[], T]) -> Deferred[T]:
            jobs.append(Deferred())
            return jobs[-1].addCallback(lambda _: job())

        files = DenyFiles.open([str(self.path)], self.clock, later, self.problems)
        files.start()
        self.write("other\n")
        self.look()
        files.stop()
        jobs[0].callback(None)
        self.look()
        assert (self.denied(files), len(jobs)) == (["evil"], 1)
        files.stop()

    def test_no_files(self) -> None:
        """Without files nothing is looked at."""
        files = DenyFiles.open([], self.clock, at_once, self.problems)
        files.start()
        assert self.clock.getDelayedCalls() == []
        files.stop()

    def test_unexpected(self) -> None:
        """A fault in a callback is logged, and the files are looked at again."""
        files = self.open("evil\n")

        def fails(names: Collection[str] | None) -> None:
            raise RuntimeError(names)

        files.changed.insert(0, fails)
        self.write("evil\nother\n")
        self.look()
        assert len(self.unhandled()) == 1
        files.changed.pop(0)
        self.write("evil\nother\nthird\n")
        self.look()
        assert self.told == [{"third"}]

    def test_rules(self) -> None:
        """A line denies files of its project, the reason names it, and a change holds at once."""
        files = self.open("# list\nDemo==1.0\n")
        found = rules(deny_files=files, deny=["demo==2.0"])
        found.changed.append(self.told.append)
        compiled = found.of("demo")
        assert compiled is not None
        one, two = ({"filename": f"demo-{n}.0.zip", "hashes": {}} for n in (1, 2))
        reason = compiled.judge(one, 0.0, times=False)
        assert reason is not None
        assert reason.rule == f'{self.path}, line 2: "Demo==1.0"'
        self.write("")
        self.look()
        self.look()
        after = found.of("demo")
        assert after is not None
        assert after.judge(one, 0.0, times=False) is None
        assert after.judge(two, 0.0, times=False) is not None
        assert self.told == [{"demo"}, {"demo"}]
