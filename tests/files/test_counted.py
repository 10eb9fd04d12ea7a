"""What is counted of files, and told of those that nobody can vouch for."""

from __future__ import annotations

import hashlib

from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Redirect
from tests.files.mirrored import DATA, NAME, URL, MirrorCase
from tests.files.test_stream_resume import AT, ResumeCase
from tests.support.agent import Reply
from tests.support.counted import Counted
from tests.support.logs import logged

HTML = {"Content-Type": "text/html"}
UNKNOWN: dict[str, object] = {"hashes": {}}


class Outcomes(MirrorCase):
    """Each download ends in one way, and is counted so."""

    def counted(self, *replies: Reply | Exception, **keys: object) -> dict[str, float]:
        """Give what one request for a file adds."""
        self.listed(*replies, **keys)
        counted = Counted()
        found = self.result(self.fetch())
        if not isinstance(found, Redirect):
            self.assert_bytes(found)
        self.clock.advance(0)
        return counted.since()

    def test_kept(self) -> None:
        """A file that is right is kept."""
        assert self.counted() == {"kept": 1}

    def test_wrong(self) -> None:
        """What is wrong is counted by what is wrong with it, each time that it comes."""
        cut = ConnectionResetError()
        cases: list[tuple[str, Reply | Exception, dict[str, object]]] = [
            ("hash", Reply(200, b"something else"), {}),
            ("length", Reply(200, b"something else"), UNKNOWN),
            ("length", Reply(200, b"else", length=None), UNKNOWN),
            ("empty", Reply(200, b""), {"hashes": {}, "size": None}),
            ("page", Reply(200, b"<html>", HTML), UNKNOWN),
            ("encoded", Reply(200, DATA, {"Content-Encoding": "br"}), UNKNOWN),
            ("cut", Reply(200, DATA[:5], length=len(DATA)), UNKNOWN),
            ("upstream", Reply(503), {}),
            ("upstream", cut, {}),
        ]
        for cause, reply, keys in cases:
            expected = {cause: 2.0, "failed": 1.0}
            if cause == "cut":  # what has come is asked on from, once
                expected = {cause: 1.0, "resumed_total": 1.0, "failed": 1.0}
            assert self.counted(reply, **keys) == expected, cause

    def test_wrong_once(self) -> None:
        """The second try may be right."""
        counted = self.counted(Reply(200, b"something else"), Reply(200, DATA))
        assert counted == {"hash": 1, "kept": 1}

    def test_gone(self) -> None:
        """What is not there is no failure."""
        self.listed(Reply(404))
        counted = Counted()
        self.error(self.fetch(), Exception)
        assert counted.since() == {"gone": 1}

    def test_disk(self) -> None:
        """What the disk does not take is the disk's."""
        self.fill_disk()
        assert self.counted() == {"disk": 1}

    def test_too_large(self) -> None:
        """What turns out to be larger than the cache is not kept."""
        self.build(capacity=len(DATA) - 1)
        assert self.counted(size=None) == {"too_large": 1}


class Resumed(ResumeCase):
    """A download that is gone on with is no new one."""

    def test_resumed(self) -> None:
        """It is counted as both."""
        counted = Counted()
        rest = self.slow(AT)
        self.break_off(rest)
        self.finish(rest, AT)
        self.clock.advance(0)
        assert counted.since() == {"resumed_total": 1, "kept": 1}


class Unverified(MirrorCase):
    """Files that no hash vouches for are marked as such."""

    def test_told(self) -> None:
        """It is written to the log and counted, and every copy of it says so."""
        nothing: dict[str, object] = {"hashes": {}, "size": None}
        for keys in (UNKNOWN, {"hashes": {"md4": "0" * 32}}, nothing):
            self.listed(**keys)
            counted = Counted()
            with logged("proxpi.files") as log:
                self.assert_verified(self.result(self.fetch()), False)
            assert counted.since() == {"kept_unverified": 1}
            [line] = [line for line in log.lines if "without a digest" in line]
            assert URL in line
            self.assert_verified(self.mirror.ready("demo", NAME), False)
            self.mirror.delete("demo", NAME)

    def test_any_hash_will_do(self) -> None:
        """A file with a hash is verified, be it an old one."""
        self.listed(hashes={"md5": hashlib.md5(DATA, usedforsecurity=False).hexdigest()})
        self.assert_verified(self.result(self.fetch()), True)

    def assert_verified(self, copy: object, expected: bool) -> None:
        """Check what a copy says of itself."""
        assert isinstance(copy, OpenFile)
        assert copy.has_digest is expected
        self.assert_bytes(copy)
