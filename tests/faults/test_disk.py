"""A disk that is full, or read-only, or gone, and comes back: clients get their files meanwhile.

It is a real one: each proxpi has a small file system of its own in memory, which nobody else
sees (``unshare --mount``). That needs root.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

MEBIBYTE = 1 << 20
_MOUNTED = """
mount -t tmpfs -o size=8m,nr_inodes=200 proxpi-test "$1" && { cd "$1"; eval "$2"; cd -; }
shift 2 && exec "$@"
"""
_NEEDED = (
    "this test gives proxpi a file system of its own: it needs root (in a container CAP_SYS_ADMIN, "
    "too) for `unshare --mount` and `nsenter` of util-linux; run the tests as root"
)


class SmallDisk:
    """A proxpi whose cache folder is a file system of 8 MiB and 200 inodes."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        # How this process sees what that one sees.
        self.seen = Path(f"/proc/{proxy.pid}/root", *folder.parts[1:])
        self._folder = folder

    def remount(self, how: str) -> None:
        """Let the file system be read-only (``ro``), or not any more (``rw``)."""
        into = ["nsenter", "--mount", "--target", str(self.proxy.pid)]
        subprocess.run([*into, "mount", "-o", f"remount,{how}", str(self._folder)], check=True)

    @contextmanager
    def ballast(self, size: int) -> Iterator[None]:
        """Let so many bytes be taken by something else."""
        path = self.seen / "ballast"
        path.write_bytes(bytes(size))
        yield
        path.unlink()

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Let nothing be left of its space."""
        path = self.seen / "ballast"
        with open(path, "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield
        path.unlink()

    def complaints(self) -> list[str]:
        """The lines in the log that say that nothing can be kept."""
        return [line for line in self.proxy.output.splitlines() if "cache folder" in line]

    def unfinished(self) -> list[Path]:
        """What lies there of files that are not whole."""
        return list((self.seen / ".proxpi").glob("partial-*"))


@contextmanager
def _small_disk(index: FakeIndex, tmp_path: Path, before: str = ":") -> Iterator[SmallDisk]:
    """Start a proxpi on a small disk, on which a command of the shell has been run before."""
    folder = tmp_path / "cache"
    folder.mkdir()
    within = ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(folder), before]
    if subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
        raise AssertionError(_NEEDED)
    settings = {
        "PROXPI_INDEX_URL": index.url,
        "PROXPI_CACHE_DIR": str(folder),
        "PROXPI_DOWNLOAD_TIMEOUT": "30",
    }
    with Proxy(settings, folder=tmp_path, within=within) as proxy:
        yield SmallDisk(proxy, folder)


@pytest.fixture
def small_disk(fake_index: FakeIndex, tmp_path: Path) -> Iterator[SmallDisk]:
    """A proxpi on a small disk, in front of the fake index."""
    with _small_disk(fake_index, tmp_path) as disk:
        yield disk


def _add(index: FakeIndex, version: str, size: int = 1000) -> Distribution:
    file = make_wheel("demo", version, padding=size)
    index.add(file)
    return file


def _get(proxy: Proxy, file: Distribution) -> Reply:
    """Ask for a file; it comes, or the way to it."""
    reply = proxy.get(f"/index/demo/{file.filename}")
    assert reply.status in (200, 302)
    if reply.status == 200:
        assert reply.body == file.data
    else:
        assert reply.headers["location"].endswith(f"/files/demo/{file.filename}")
    return reply


def _assert_kept(proxy: Proxy, file: Distribution) -> None:
    """Check that a file comes, and comes from the cache the next time."""
    assert _get(proxy, file).status == 200
    assert _get(proxy, file).headers["x-cache"] == "HIT"


def test_full_in_the_middle(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A file for which there is no room: sent elsewhere, told once; a smaller one is kept."""
    kept, large, small = (
        _add(fake_index, version, size)
        for version, size in [("1.0", 1000), ("2.0", 12 * MEBIBYTE), ("3.0", MEBIBYTE)]
    )
    proxy = small_disk.proxy
    _assert_kept(proxy, kept)
    for _ in range(4):
        assert _get(proxy, large).status == 302
        assert proxy.get("/health").status == 200
    assert small_disk.unfinished() == []
    (complaint,) = small_disk.complaints()
    assert "No space left on device" in complaint
    assert _get(proxy, kept).headers["x-cache"] == "HIT"
    _assert_kept(proxy, small)


def test_full_and_room_again(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A disk that somebody else filled is used again once there is room."""
    files = [_add(fake_index, f"{number}.0", 2 * MEBIBYTE) for number in range(2)]
    with small_disk.ballast(7 * MEBIBYTE):
        for file in files:
            assert _get(small_disk.proxy, file).status == 302
    for file in files:
        _assert_kept(small_disk.proxy, file)


def test_read_only(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A disk that turns read-only is used for reading, and for writing when that is over."""
    kept, other = _add(fake_index, "1.0"), _add(fake_index, "2.0")
    proxy = small_disk.proxy
    _assert_kept(proxy, kept)
    small_disk.remount("ro")
    for _ in range(3):
        assert _get(proxy, other).status == 302
        assert _get(proxy, kept).headers["x-cache"] == "HIT"
    assert proxy.get("/health").status == 200
    (complaint,) = small_disk.complaints()
    assert "Read-only file system" in complaint
    small_disk.remount("rw")
    _assert_kept(proxy, other)


@pytest.mark.parametrize(
    ("before", "cause", "advice", "after"),
    [
        ("mount -o remount,ro .", "Read-only file system", "mount it for writing", "rw"),
        ("head -c 9m /dev/zero >ballast", "No space left on device", "free space", "rm"),
        ("mkdir .proxpi; seq 300 | xargs touch", "No space left on device", "free space", "rm"),
    ],
    ids=["read-only", "full", "no inode"],
)
def test_from_the_start(
    fake_index: FakeIndex, tmp_path: Path, before: str, cause: str, advice: str, after: str
) -> None:
    """What cannot be written is noticed at the start, even by root; it is used once it can be."""
    file = _add(fake_index, "1.0")
    with _small_disk(fake_index, tmp_path, before) as disk:
        (line,) = (line for line in disk.proxy.output.splitlines() if "cannot be written" in line)
        assert cause in line and advice in line
        assert _get(disk.proxy, file).status == 302
        if after == "rw":
            disk.remount("rw")
        else:
            for path in disk.seen.iterdir():
                if path.is_file():
                    path.unlink()
        _assert_kept(disk.proxy, file)


def test_no_inode_left(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A disk with room for bytes, but for no further file."""
    file = _add(fake_index, "1.0")
    laid = []
    with pytest.raises(OSError, match="No space left"):
        for number in range(201):
            laid.append(small_disk.seen / f"ballast-{number}")
            laid[-1].touch()
    assert _get(small_disk.proxy, file).status == 302
    for path in laid:
        path.unlink(missing_ok=True)
    _assert_kept(small_disk.proxy, file)


def test_folder_removed(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A folder that is removed under the running program is made anew, also during a download."""
    kept, coming = _add(fake_index, "1.0"), _add(fake_index, "2.0", 100_000)
    cache = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=cache, download_timeout=0.1)
    path = f"/files/demo/{coming.filename}"
    fake_index.script(path, Behavior(hold_after=50_000, times=1))
    assert proxy.get_cached(f"/index/demo/{kept.filename}").status == 200
    assert _get(proxy, coming).status == 302
    rmtree(cache)
    fake_index.release(path)
    assert proxy.get_cached(f"/index/demo/{kept.filename}").body == kept.data
    assert proxy.get_cached(f"/index/demo/{coming.filename}").body == coming.data
    _assert_kept(proxy, coming)
    assert proxy.get("/health").status == 200


@pytest.mark.parametrize("path", ["/cache/demo", "/cache"])
def test_delete_read_only(fake_index: FakeIndex, small_disk: SmallDisk, path: str) -> None:
    """A DELETE that would not outlive the process is a 503 with a sentence; it changes no page."""
    _add(fake_index, "1.0")
    proxy = small_disk.proxy
    proxy.get("/index/demo/")
    small_disk.remount("ro")
    reply = proxy.request("DELETE", path)
    assert reply.status == 503
    answer = json.loads(reply.body)
    assert answer["status"] == "error"
    assert answer["message"].endswith("Read-only file system")
    assert proxy.get("/index/demo/").headers["x-cache"] == "HIT"
    small_disk.remount("rw")
    assert proxy.request("DELETE", path).status == 200
    assert proxy.get("/index/demo/").headers["x-cache"] == "MISS"


@pytest.mark.parametrize("path", ["/cache/demo", "/cache/list", "/cache"])
def test_delete_full(fake_index: FakeIndex, small_disk: SmallDisk, path: str) -> None:
    """A DELETE needs no space: on a full disk it does what it says."""
    _add(fake_index, "1.0")
    pages = ["/index/", "/index/demo/"]
    proxy = small_disk.proxy
    for page in pages:
        proxy.get(page)
    with small_disk.filled():
        assert proxy.request("DELETE", path).status == 200
        # (A list is fetched through a file, so a full disk leaves it stale.)
        assert [proxy.get(page).headers.get("x-cache") for page in pages] != ["HIT", "HIT"]
