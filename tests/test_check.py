"""The check: its findings on cache folder, indexes and proxies, and its table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from proxpi.check import Check, Finding, report
from proxpi.settings import Settings
from proxpi.single_flight import InThread
from proxpi.upstream import Proxies
from tests.support.agent import Reply, Silence
from tests.support.cases import INDEX, PRIVATE_INDEX, ProxpiCase, at_once, run
from tests.support.distributions import make_wheel

PROXY = "http://proxy.example:3128"


def hangs(job: Callable[[], Any], /) -> Deferred[Any]:
    return Deferred()


class CheckCase(ProxpiCase):
    """Checks with the agent in memory."""

    def check(
        self,
        *,
        index: str = INDEX,
        proxies: Proxies | None = None,
        in_thread: InThread = at_once,
        **settings: str,
    ) -> Deferred[list[Finding]]:
        given = {"INDEX_URL": index, "CACHE_DIR": str(self.folder), "CACHE_SIZE": "1MB"}
        variables = {f"PROXPI_{name.upper()}": text for name, text in (given | settings).items()}
        self.settings = Settings.read(variables, {})
        self.build(index=index)
        if self.settings.offline:
            self.upstream.offline = True
        check = Check(
            settings=self.settings,
            folder=Path(self.settings.cache_dir or ""),
            upstream=self.upstream,
            proxies=proxies or Proxies(),
            to_proxies=self.upstream,
            in_thread=in_thread,
            clock=self.clock,
        )
        return run(check.run())

    def outcome(self, tried: str, **given: Any) -> tuple[str, str]:
        """Return verdict and text of one try."""
        findings = {each.tried: each for each in self.result(self.check(**given))}
        return findings[tried].verdict, findings[tried].text


class IndexTests(CheckCase):
    """The findings on an index."""

    def root(self, *replies: Reply | Silence | Exception) -> tuple[str, str]:
        self.agent.at(INDEX, *replies)
        return self.outcome("index root")

    def test_good(self) -> None:
        """An index that sends its root is all right; it gets one request."""
        verdict, text = self.root(Reply(200, b"x"))
        assert (verdict, text) == ("ok", f"{INDEX}: status 200 after 0 s, certificate verified")
        assert self.agent.urls() == [INDEX]

    def test_wrong_root(self) -> None:
        """A URL that is no index fails with a question that helps."""
        verdict, text = self.root(Reply(404))
        assert verdict == "FAILED"
        assert "status 404" in text and "root of an index?" in text
        assert self.root(Reply(500))[0] == "FAILED"

    def test_unreachable(self) -> None:
        """An index that cannot be reached fails with the cause; the time is bounded."""
        assert self.root(ConnectionRefusedError())[0] == "FAILED"
        self.agent.at(INDEX, Silence())
        check = self.check()
        self.pending(check)
        self.clock.advance(self.settings.connect_timeout + self.settings.read_timeout)
        index = self.result(check)[1]
        assert (index.verdict, index.text) == ("FAILED", f"{INDEX}: timed out")

    def test_credentials(self) -> None:
        """It says whether credentials are wanted, taken or rejected, and shows none."""
        for index, status, verdict, words in (
            (INDEX, 401, "FAILED", "it wants credentials"),
            (PRIVATE_INDEX, 200, "ok", "credentials accepted"),
            (PRIVATE_INDEX, 403, "FAILED", "it rejects the credentials"),
        ):
            self.agent.at(INDEX, Reply(status))
            found = self.outcome("index root", index=index)
            assert found[0] == verdict
            assert words in found[1]
            assert "secret" not in found[1]

    def test_redirect(self) -> None:
        """It says where an index redirects to, and how far the certificate was verified."""
        other = "http://other.example/simple/"
        plain = "http://index.example/simple/"
        self.agent.at(plain, Reply(302, b"", {"Location": other}))
        self.agent.at(other, Reply(200))
        verdict, text = self.outcome("index root", index=plain)
        assert verdict == "ok"
        assert f"redirected to {other}" in text
        assert "certificate" not in text
        self.agent.at(INDEX, Reply(200))
        text = self.outcome("index root", disable_index_ssl_verification="on")[1]
        assert "certificate NOT verified" in text

    def test_folder(self) -> None:
        """A folder is read; one that is missing fails."""
        folder = self.new_folder()
        wheel = make_wheel("demo")
        (folder / wheel.filename).write_bytes(wheel.data)
        found = self.outcome("index root", index=f"file://{folder}")
        assert found == ("ok", f"file://{folder}/: a folder with 1 entry")
        found = self.outcome("index root", index=f"file://{folder}/none")
        assert found == ("FAILED", f"file://{folder}/none/: No such file or directory")

    def test_offline(self) -> None:
        """Offline no request is sent."""
        proxies = Proxies.read({"HTTP_PROXY": PROXY})
        findings = self.result(self.check(offline="on", proxies=proxies))
        assert [each.verdict for each in findings] == ["ok", "skipped", "skipped"]
        assert self.agent.asked == []


class ProxyTests(CheckCase):
    """The findings on a forward proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.agent.at(INDEX, Reply(200))
        self.proxies = Proxies.read({"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY})

    def test_good(self) -> None:
        """Whatever a proxy responds, it does; one proxy is tried once, and named with its index."""
        self.agent.at(f"{PROXY}/", Reply(400))
        findings = self.result(self.check(proxies=self.proxies))
        assert [each.tried for each in findings] == ["cache folder", "index root", "proxy"]
        assert findings[-1] == Finding("proxy", "ok", f"{PROXY}: it responds after 0 s")
        assert f"through proxy {PROXY}" in findings[1].text

    def test_closed(self) -> None:
        """A proxy that closes the connection at a request of this kind has taken it."""
        self.agent.at(f"{PROXY}/", ConnectionDone())
        findings = self.result(self.check(proxies=self.proxies))
        assert findings[-1] == Finding("proxy", "ok", f"{PROXY}: it takes connections")

    def test_silent(self) -> None:
        """A proxy that does not respond fails."""
        self.agent.at(f"{PROXY}/", Silence())
        check = self.check(proxies=self.proxies)
        self.clock.advance(60)
        assert self.result(check)[-1] == Finding("proxy", "FAILED", f"{PROXY}/: timed out")


class FolderTests(CheckCase):
    """The findings on the cache folder."""

    def setUp(self) -> None:
        super().setUp()
        self.agent.at(INDEX, Reply(200))

    def test_files(self) -> None:
        """The files in it are counted, and it is left as it was."""
        shutil.rmtree(self.folder / ".proxpi")
        file = self.folder / "files-example" / "demo.whl"
        file.parent.mkdir()
        file.write_bytes(bytes(2000))

        def try_out(job: Callable[[], Any], /) -> Deferred[Any]:
            shutil.rmtree(self.folder / ".proxpi", ignore_errors=True)
            before = sorted(self.folder.rglob("*"))
            done = at_once(job)
            assert sorted(self.folder.rglob("*")) == before
            return done

        verdict, text = self.outcome("cache folder", in_thread=try_out)
        assert verdict == "ok"
        assert text.startswith(
            f"{self.folder} can be written, 1 file of 2.0 kB in it, PROXPI_CACHE_SIZE is 1.0 MB, "
        )

    def test_missing(self) -> None:
        """A folder that can be made is all right, and is not made."""
        folder = self.folder / "a" / "b"
        verdict, text = self.outcome("cache folder", cache_dir=str(folder))
        assert verdict == "ok"
        assert text.startswith(f"{folder} can be made, ")
        assert not folder.parent.exists()

    def test_refused(self) -> None:
        """A file in its place, or above it, fails."""
        file = self.folder / "file"
        file.write_bytes(b"")
        for path in (file, file / "below"):
            verdict, text = self.outcome("cache folder", cache_dir=str(path))
            assert (verdict, text) == ("FAILED", f"{path}: Not a directory")

    def test_too_large(self) -> None:
        """A capacity that the disk does not have is a warning."""
        verdict, text = self.outcome("cache folder", cache_size="9000PB")
        assert verdict == "warning"
        assert "the disk is full before" in text
        verdict, text = self.outcome("cache folder", cache_size="0")
        assert verdict == "ok"
        assert "no file is kept" in text

    def test_a_disk_that_hangs(self) -> None:
        """A disk that does not respond fails in time, and holds nothing else up."""
        check = self.check(in_thread=hangs, read_timeout="7")
        self.clock.advance(6.9)
        self.pending(check)
        self.clock.advance(0.1)
        folder, index = self.result(check)
        assert folder.verdict == "FAILED"
        assert folder.text == f"{self.folder}: the disk has not responded for 7.0 s"
        assert index.verdict == "ok"


class ReportTests(CheckCase):
    """The table."""

    def test_table(self) -> None:
        """Settings that are no defaults with their sources, then the tries, then the end."""
        variables = {"PROXPI_INDEX_URL": PRIVATE_INDEX, "PROXPI_ADMIN_TOKEN": "very-secret"}
        settings = Settings.read(variables, {"index-ttl": "5m"})
        findings = [
            Finding("cache folder", "ok", "good"),
            Finding("index root", "FAILED", "bad"),
        ]
        defaults = sum(each.source == "default" for each in settings.in_force)
        assert report(settings, ["odd\nline"], findings).split("\n") == [
            f"PROXPI_INDEX_URL    environment  {INDEX}",
            "PROXPI_INDEX_TTL    option       5m",
            "PROXPI_ADMIN_TOKEN  environment  set",
            f"{defaults} settings have their defaults (twistd proxpi --help shows them)",
            "",
            r"setting       warning  odd\nline",
            "cache folder  ok       good",
            "index root    FAILED   bad",
            "",
            "1 of 2 tries FAILED",
        ]

    def test_good(self) -> None:
        """Without a failure the end says so."""
        settings = Settings.read({}, {})
        text = report(settings, [], [Finding("cache folder", "warning", "small")])
        assert text.split("\n")[-1] == "nothing FAILED"
        assert os.linesep not in text.split("\n")[0]
