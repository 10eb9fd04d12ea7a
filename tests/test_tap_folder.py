"""The cache folder as twistd's service makes it, keeps it, and removes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.application.service import Service
from twisted.python import usage

from proxpi import tap
from tests.test_tap import INDEX, TapCase


class CacheFolder(TapCase):
    """Where files are kept."""

    def temporary(self) -> list[str]:
        """The temporary folders there are."""
        return [path.name for path in self.folder.glob("proxpi-*")]

    def test_temporary(self) -> None:
        """Without a folder of the user's there is a temporary one, which is removed."""
        service = self.start()
        [name] = self.temporary()
        (self.folder / name / "file").write_bytes(b"x")
        self.stop(service)
        assert self.temporary() == []

    def test_no_place(self) -> None:
        """Where nothing temporary can be made, one line says so and what to set."""

        def nowhere() -> str:
            raise FileNotFoundError("No usable temporary directory")

        with mock.patch("tempfile.gettempdir", nowhere), pytest.raises(SystemExit) as end:
            self.make()
        line = str(end.value.code)
        assert line.startswith("proxpi: ")
        assert "PROXPI_CACHE_DIR" in line
        assert "\n" not in line

    def test_own(self) -> None:
        """The user's folder is made, and stays, with what is in it."""
        self.stop(self.start(f"--cache-dir={self.folder}/a/b"))
        assert (self.folder / "a/b/.proxpi").is_dir()
        assert self.temporary() == []

    def test_relative(self) -> None:
        """A relative folder is meant from where the start was, also by a daemon that moves."""
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        service = self.make("--cache-dir=here")
        os.chdir("/")
        service.privilegedStartService()
        service.startService()
        assert (self.folder / "here/.proxpi").is_dir()
        self.stop(service)

    def test_cannot_be_made(self) -> None:
        """A folder that cannot be made ends the start with a line that names it."""
        (self.folder / "file").write_bytes(b"x")
        for path in (f"{self.folder}/file", f"{self.folder}/file/below"):
            text = self.refusal(self.make(f"--cache-dir={path}").privilegedStartService)
            assert f"PROXPI_CACHE_DIR={path!r}" in text
            assert "accepted" in text

    def test_another_user(self) -> None:
        """What root makes for a process that becomes another user is that user's."""
        given: list[tuple[Path, int]] = []
        options = tap.Options()  # type: ignore[no-untyped-call]
        options.parseOptions([f"--index-url={INDEX}", f"--cache-dir={self.folder}/a/b"])
        options.parent = usage.Options()
        options.parent["uid"] = 4711
        for _ in range(2):
            with mock.patch.object(tap, "Shutdown", lambda *_: Service()):
                service: Any = tap.makeService(options)
            with mock.patch("os.chown", lambda path, user, _: given.append((path, user))):
                service.privilegedStartService()
            service.startService()
            self.stop(service)
        assert sorted(given) == [(self.folder / "a", 4711), (self.folder / "a/b", 4711)]
