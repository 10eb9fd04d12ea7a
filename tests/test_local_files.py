"""URLs of files on this machine, and opening them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxpi.local_files import Identity, is_local, open_regular, path_and_identity, path_of, url_of

IDENTITY = Identity(1, 2, 3)


@pytest.mark.parametrize("path", ["/a/b.whl", "/a b/c?d#e%20@.zip", os.fsdecode(b"/\xff\xfe.zip")])
def test_url(path: str) -> None:
    """The URL of a file holds its path and identity, whatever characters the path has."""
    url = url_of(path, IDENTITY)
    assert url.isascii() and is_local(url)
    assert path_and_identity(url) == (path, IDENTITY)
    assert path_of(url) == path


def test_before_the_epoch() -> None:
    """A time before 1970 is one, too."""
    assert path_and_identity(url_of("/a", Identity(1, 0, -5)))[1].changed_ns == -5


@pytest.mark.parametrize(
    "url",
    [
        *("https://files.example/a", "file:a", "file://host/a", "file:///a#b", "file:///a%00b"),
        *("file:///a?1-2", "file:///a?1-2-3-4", "file:///a?x-2-3", f"file:///a?{'9' * 30}-2-3"),
    ],
)
def test_other_urls(url: str) -> None:
    """Any other URL is refused."""
    with pytest.raises(ValueError, match="no URL of a local file"):
        path_of(url)


def test_no_version() -> None:
    """The URL of a folder names no version of a file."""
    with pytest.raises(ValueError, match="names no version"):
        path_and_identity("file:///srv/wheels/")


def test_open(tmp_path: Path) -> None:
    """A regular file is opened, also through a link; a pipe is not, and nothing waits for it."""
    file, pipe, link = tmp_path / "file", tmp_path / "pipe", tmp_path / "link"
    file.write_bytes(b"data")
    os.mkfifo(pipe)
    link.symlink_to(file)
    with open_regular(str(link)) as opened:
        assert opened.read() == b"data"
        assert Identity.of(os.fstat(opened.fileno())) == Identity.of(file.stat())
    for other in (pipe, tmp_path):
        with pytest.raises(OSError, match="Not a regular file"):
            open_regular(str(other))
