"""Logins from netrc: where the file is, what is in it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxpi.upstream import credentials
from proxpi.upstream.credentials import Netrc

TEXT = """\
# a comment
machine Index.example login user password "pass word"
machine files.example
    account only
    password s#cret
machine empty.example
default login any password for-any
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A netrc."""
    path = tmp_path / "logins"
    path.write_text(TEXT)
    return path


def test_named(file: Path) -> None:
    """``NETRC`` names the file; hosts are in lower case, and an account may stand for a user."""
    found = credentials.read_netrc({"NETRC": str(file)})
    assert found.hosts == {
        "index.example": ("user", "pass word"),
        "files.example": ("only", "s#cret"),
        "empty.example": ("", ""),
    }
    assert found.default == ("any", "for-any")
    assert found.login("files.example") == ("only", "s#cret")
    assert found.login("other.example") == ("any", "for-any")
    assert found.trouble is None


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_at_home(tmp_path: Path, name: str) -> None:
    """Without ``NETRC``, or with an empty one, it is the user's own, under either name."""
    (tmp_path / name).write_text("machine a.example login one password two")
    for environment in ({}, {"NETRC": ""}):
        found = credentials.read_netrc({"HOME": str(tmp_path), **environment})
        assert found.hosts == {"a.example": ("one", "two")}


def test_named_before_home(tmp_path: Path, file: Path) -> None:
    """``NETRC`` holds alone, even where nothing is in it."""
    (tmp_path / ".netrc").write_text("machine a.example login one password two")
    empty = credentials.read_netrc({"HOME": str(tmp_path), "NETRC": "/dev/null"})
    assert (dict(empty.hosts), empty.default, empty.trouble) == ({}, None, None)
    assert (
        "a.example" not in credentials.read_netrc({"HOME": str(tmp_path), "NETRC": str(file)}).hosts
    )


def test_none(tmp_path: Path) -> None:
    """Whoever has none has none: nothing is said about it."""
    found = credentials.read_netrc({"HOME": str(tmp_path)})
    assert (dict(found.hosts), found.default, found.trouble) == ({}, None, None)


def test_nobody_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home, as in containers, is no trouble."""

    def nowhere(path: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert credentials.read_netrc({}).trouble is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"machine a.example login u password p\nsecret", "not understood (line "),
        (b"machine a.example login u secret p", "not understood (line "),
        (b"machine a.example login \xff\xfe password secret", ""),
    ],
)
def test_broken(tmp_path: Path, content: bytes, why: str) -> None:
    """A broken file gives no login at all, and one line that quotes nothing of it."""
    path = tmp_path / "broken"
    path.write_bytes(content)
    found = credentials.read_netrc({"NETRC": str(path)})
    if why:
        assert found.trouble is not None
        assert found.trouble.startswith(f"{path}: {why}")
        assert not found.hosts
    assert "secret" not in (found.trouble or "")
    assert "\n" not in (found.trouble or "")


def test_not_there(tmp_path: Path) -> None:
    """A file that is named has to be there; a folder is none."""
    for path, why in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        found = credentials.read_netrc({"NETRC": str(path)})
        assert found.trouble == f"{path}: cannot be read ({why}); no login is used"


def test_named_in_no_home() -> None:
    """A named file in a home folder that is not known is told of, and gives nothing."""
    found = credentials.read_netrc({"NETRC": "~no-such-user/logins"})
    assert found.hosts == {}
    assert found.trouble is not None
    assert found.trouble.startswith("NETRC=~no-such-user/logins: ")


def test_not_shown() -> None:
    """Nothing that is logged shows the logins."""
    assert "secret" not in repr(Netrc({"a.example": ("user", "secret")}, ("user", "secret")))
