"""``twistd proxpi --check``: a table, an exit status, and nothing that is left behind."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import Process, plain_environment
from tests.support.processes import StartProxy
from tests.support.proxy import TWISTD, Proxy


def checked(start_proxy: StartProxy, *options: str, **keywords: object) -> tuple[int, list[str]]:
    """Return exit status and lines of a check."""
    index = keywords.pop("index", None)
    proxy: Proxy = start_proxy(index, "--check", *options, listens=False, **keywords)
    status = proxy.wait()
    return status, proxy.output.split("\n")


def line(lines: list[str], beginning: str) -> str:
    [found] = [each for each in lines if each.startswith(beginning)]
    return found


def test_good(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """With all in order the status is 0; no port, no log, no file is left."""
    before = sorted(tmp_path.rglob("*"))
    status, lines = checked(
        start_proxy, "--index-ttl=5m", index=fake_index, cache_dir=tmp_path / "cache"
    )
    assert status == 0
    assert line(lines, "PROXPI_INDEX_TTL").split() == ["PROXPI_INDEX_TTL", "option", "5m"]
    assert line(lines, "cache folder").split()[2] == "ok"
    assert "status 200" in line(lines, "index root")
    assert lines[-1] == "nothing FAILED"
    assert not [each for each in lines if "[" in each or "Traceback" in each]
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("twistd.pid")


def test_defaults(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Without a cache folder the temporary one is tried."""
    status, lines = checked(start_proxy, index=fake_index)
    assert status == 0
    assert f"a temporary folder in {tmp_path} can be made" in line(lines, "cache folder")
    assert list(tmp_path.iterdir()) == []


def test_another_user() -> None:
    """As root it tries the folders as the user that twistd changes to."""
    nobody = pwd.getpwnam("nobody").pw_uid
    user = [f"--uid={nobody}", f"--gid={nobody}"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        for each in ("cache", "wheels"):
            (folder / each).mkdir(0o700)
        os.chown(folder / "cache", nobody, -1)
        command = [TWISTD, *user, "-n", "--pidfile=", "proxpi", "--check"]
        command += [f"--cache-dir={folder}/cache", f"--index-url=file://{folder}/wheels"]
        with Process(command, folder=folder, environment=plain_environment()) as process:
            assert process.wait() == 1
        assert "can be written" in line(process.output.split("\n"), "cache folder")
        assert "Permission denied" in line(process.output.split("\n"), "index root")


def test_bad_index(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """An index that is not there, and one with a wrong path, fail; others are still tried."""
    status, lines = checked(
        start_proxy,
        index_url="http://user:secret@127.0.0.1:1/simple/",
        extra_index_urls=f"{fake_index.origin}/nothing/,{fake_index.url}",
    )
    assert status == 1
    assert "connection refused" in line(lines, "index root")
    assert "status 404" in line(lines, "index extra-1")
    assert line(lines, "index extra-2").split()[2] == "ok"
    assert lines[-1] == "2 of 4 tries FAILED"
    assert "secret" not in "\n".join(lines)


def test_bad_proxy(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A proxy that is not there fails, and so does what goes through it."""
    proxy = "http://user:secret@127.0.0.1:1"
    status, lines = checked(start_proxy, index=fake_index, HTTP_PROXY=proxy)
    assert status == 1
    assert "connection refused" in line(lines, "proxy ")
    assert "FAILED" in line(lines, "index root")
    assert "secret" not in "\n".join(lines)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_bad_folder(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, place: str
) -> None:
    """A cache folder that cannot be made or written fails."""
    (tmp_path / "file").write_bytes(b"")
    status, lines = checked(start_proxy, index=fake_index, cache_dir=tmp_path / place)
    assert status == 1
    assert "Not a directory" in line(lines, "cache folder")


def test_interrupted(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A check that is interrupted is none that went well."""
    fake_index.script("/simple/", Behavior(hold=True))
    proxy = start_proxy(fake_index, "--check", listens=False, read_timeout=300)
    fake_index.wait_for(lambda seen: len(seen) == 1)
    assert proxy.stop(signal.SIGINT) == 1
    assert proxy.output == ""


def test_wrong_setting(start_proxy: StartProxy) -> None:
    """A wrong setting is the one line of a start, and nothing is tried."""
    status, lines = checked(start_proxy, index_ttl="soon")
    assert status == 1
    assert len(lines) == 1
    assert "PROXPI_INDEX_TTL='soon'" in lines[0]
    status, lines = checked(start_proxy, ca_bundle="/nothing")
    assert status == 1
    assert len(lines) == 1
    assert "PROXPI_CA_BUNDLE='/nothing'" in lines[0]
