"""Home folders in the paths that are settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxpi.settings import Settings, setting
from tests.test_settings import refusal

PATHS = ["cache_dir", "ca_bundle", "client_cert"]


@pytest.mark.parametrize("name", PATHS)
def test_home_folders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a path, ``~`` and ``~user`` are home folders, but only at its beginning."""
    monkeypatch.setenv("HOME", "/home/me")
    root = Path("~root").expanduser()
    for text, path in [
        ("~", "/home/me"),
        ("~/a/~", "/home/me/a/~"),
        ("~root/a", f"{root}/a"),
        ("a/~/b", "a/~/b"),
        ("./~", "./~"),
    ]:
        assert getattr(Settings.read({setting(name).variable: text}, {}), name) == path


@pytest.mark.parametrize("name", PATHS)
def test_home_of_nobody(name: str) -> None:
    """A user who is not known has no home folder: one line says so."""
    variable = setting(name).variable
    line = refusal({variable: "~no-such-user/a"})
    assert line.startswith(f"{variable}='~no-such-user/a': ")
    assert "~no-such-user is not known" in line


def test_a_secret_from_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of such a file may begin with ``~``, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "url").write_text("http://h/")
    assert Settings.read({"PROXPI_INDEX_URL_FILE": "~/url"}, {}).index_url == "http://h/"
    line = refusal({"PROXPI_INDEX_URL_FILE": "~no-such-user/url"})
    assert line.startswith("PROXPI_INDEX_URL_FILE='~no-such-user/url': ")
    assert "~no-such-user is not known" in line
