"""The entry point of the image: the owner of the cache folder, and twistd's command line.

Without a container: the functions of the entrypoint on folders of this machine, as root.
"""

from __future__ import annotations

import errno
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import entrypoint
import pytest
from twisted.logger import capturedLogs
from twisted.scripts import twistd

#: Not the user of the image, which may be somebody here.
USER = 47573


@pytest.fixture(autouse=True)
def is_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests change owners of files: they need root")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a cache folder of the original, with a link out of it."""
    folder = tmp_path / "cache"
    (folder / "files-example/packages/ab").mkdir(parents=True)
    (folder / "files-example/packages/ab/a.whl").write_text("a")
    (folder / "b.whl").write_text("b")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/c.whl").write_text("c")
    (folder / "files-example/link").symlink_to(tmp_path / "outside")
    (folder / "link").symlink_to(tmp_path / "outside/c.whl")
    return folder


def owners(folder: Path) -> dict[str, int]:
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): path.lstat().st_uid for path in found}


def changes(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_ctime_ns for path in [folder, *folder.rglob("*")]}


def test_give(folder: Path) -> None:
    """Files, folders and links get the new owner; targets of links outside keep theirs."""
    assert entrypoint.give(str(folder), USER)
    assert set(owners(folder).values()) == {USER}
    assert len(owners(folder)) == 8
    assert set(owners(folder.parent / "outside").values()) == {os.getuid()}
    assert folder.parent.stat().st_uid == os.getuid()


def test_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is also elsewhere keeps its owner, and no later start looks for more to give."""
    outside = folder.parent / "outside/c.whl"
    for linked in (folder / "c.whl", folder / "files-example/c.whl"):
        linked.hardlink_to(outside)
    assert entrypoint.give(str(folder), USER)
    assert outside.stat().st_uid == os.getuid()
    assert folder.stat().st_uid == USER
    monkeypatch.delattr(os, "fwalk")
    assert entrypoint.give(str(folder), USER)


def test_files_that_vanish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may use the folder, and remove files at any time: the rest is given."""
    chown, gone = os.chown, ("b.whl", "a.whl", "files-example")

    def vanished(path: str | int, *arguments: int, **keywords: Any) -> None:
        if path in gone:
            raise FileNotFoundError(path)
        chown(path, *arguments, **keywords)

    monkeypatch.setattr(os, "chown", vanished)
    assert entrypoint.give(str(folder), USER)
    kept = {Path(path).name for path, owner in owners(folder).items() if owner != USER}
    assert kept == set(gone)


def test_give_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later start looks at the folder and its children alone."""
    entrypoint.give(str(folder), USER)
    (folder / "files-example/packages/later").touch()
    before = changes(folder)
    monkeypatch.delattr(os, "fwalk")
    assert entrypoint.give(str(folder), USER)
    assert changes(folder) == before


def test_an_interrupted_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start continues an interrupted one, and changes no owner twice."""
    total = len(owners(folder))
    for calls in range(total):
        for path in [folder, *folder.rglob("*")]:
            os.lchown(path, 0, 0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "chown", _interrupted(os.chown, calls))
            with pytest.raises(KeyboardInterrupt):
                entrypoint.give(str(folder), USER)
        given = {path for path, owner in owners(folder).items() if owner == USER}
        before = {path: (folder / path).lstat().st_ctime_ns for path in given}
        assert len(given) == calls
        assert entrypoint.give(str(folder), USER)
        assert set(owners(folder).values()) == {USER}
        assert {path: (folder / path).lstat().st_ctime_ns for path in given} == before


def _interrupted(chown: Callable[..., None], calls: int) -> Callable[..., None]:
    done: list[object] = []

    def limited(*arguments: object, **keywords: object) -> None:
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(arguments)
        chown(*arguments, **keywords)

    return limited


@pytest.mark.parametrize(
    "name",
    ["/", "/etc", "/usr/share/doc", "/proc", "/dev/shm/cache", "/var/cache", "/var/cache/../lib/"],
)
def test_folders_of_the_system(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the system keep their owners, in any spelling; proxpi still runs as the user."""
    monkeypatch.setattr(os, "open", pytest.fail)
    assert entrypoint.give(name, USER)


def test_a_link_to_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to a folder of the system leaves its owner unchanged, too."""
    (tmp_path / "cache").symlink_to("/etc")
    monkeypatch.setattr(os, "open", pytest.fail)
    assert entrypoint.give(str(tmp_path / "cache"), USER)


def test_a_missing_folder(tmp_path: Path) -> None:
    """A missing folder stays missing: proxpi makes it at its start."""
    assert entrypoint.give(str(tmp_path / "cache"), USER)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EPERM, False), (errno.EROFS, True), (errno.EIO, True)]
)
def test_owners_that_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: bool
) -> None:
    """proxpi runs as root if it may not change owners, and as the user after other errors."""

    def chown(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "chown", chown)
    assert entrypoint.give(str(folder), USER) is expected


@pytest.mark.parametrize(
    ("may_change", "arguments", "given", "expected"),
    [
        (True, "", "/set", "--uid=1000 --gid=1000 proxpi"),
        (True, "--cache-dir=/a --offline=on", "/a", "--uid=1000 --gid=1000 proxpi"),
        (True, "--cache-dir /a --cache-dir ~/b", "/home/me/b", "--uid=1000 --gid=1000 proxpi"),
        (True, "--cache-dir=", "", "--uid=1000 --gid=1000 proxpi"),
        (True, "--cache-dir=/refused", "/refused", "proxpi"),
        (False, "--cache-dir=/a", "", "proxpi"),
        (True, "--help", "", "proxpi"),
        (True, "--cache-dir=/a --version", "", "proxpi"),
    ],
)
def test_command_line(
    may_change: bool, arguments: str, given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """twistd gets the options behind ``proxpi``, and the user if the folder may be the user's."""
    calls = list[str]()

    def give(folder: str) -> bool:
        calls.append(folder)
        return folder != "/refused"

    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PROXPI_CACHE_DIR", "/set")
    monkeypatch.setattr(entrypoint, "_may_change_user", lambda: may_change)
    monkeypatch.setattr(entrypoint, "give", give)
    monkeypatch.setattr(twistd, "run", lambda: None)
    monkeypatch.setattr(sys, "argv", ["entrypoint.py", *arguments.split()])
    with capturedLogs() as events:
        entrypoint.main()
    assert calls == ([given] if given else [])
    warned = [str(each.get("why", "")).startswith("proxpi runs as root: ") for each in events]
    assert warned == ([] if may_change else [True])
    assert " ".join(sys.argv) == f"twistd -n --pidfile= {expected} {arguments}".strip()


def test_an_unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /etc/passwd is another one, without the user, twistd could not change to it."""
    monkeypatch.setattr(entrypoint, "USER", USER)
    assert not entrypoint._may_change_user()
    monkeypatch.setattr(entrypoint, "USER", pwd.getpwnam("nobody").pw_uid)
    assert entrypoint._may_change_user()


@pytest.mark.parametrize("words", ["sh", "bash -c true", "twistd -n proxpi"])
def test_a_program(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word in place of options is answered with one line that names ``--entrypoint``."""
    monkeypatch.setattr(sys, "argv", ["entrypoint.py", *words.split()])
    with pytest.raises(SystemExit) as ended:
        entrypoint.main()
    line = str(ended.value.code)
    assert len(line.splitlines()) == 1
    assert f"--entrypoint={words.split()[0]}" in line
