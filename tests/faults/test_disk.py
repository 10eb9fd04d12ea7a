"""A disk that is full, read-only or removed, and recovers: clients get their files meanwhile.

Each proxpi has a small file system of its own in memory, which no other process sees
(``unshare --mount``). That needs root.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import pytest

from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

MIB = 1 << 20
_MOUNTED = """
mount -t tmpfs -o size=8m,nr_inodes=200 proxpi-test "$1" && { cd "$1"; eval "$2"; cd -; }
shift 2 && exec "$@"
"""
_NEEDED = (
    "this test gives proxpi a file system of its own: it needs root (in a container CAP_SYS_ADMIN, "
    "too) for `unshare --mount` and `nsenter` of util-linux; run the tests as root"
)
NO_SPACE, READ_ONLY = "No space left on device", "Read-only file system"


class SmallDisk:
    """A proxpi whose cache folder, as this process sees it, has 8 MiB and 200 inodes."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        self.folder = Path(f"/proc/{proxy.pid}/root", *folder.parts[1:])
        self._mounted = folder

    def remount(self, option: str) -> None:
        into = ["nsenter", "--mount", "--target", str(self.proxy.pid)]
        subprocess.run([*into, "mount", "-o", f"remount,{option}", str(self._mounted)], check=True)

    @contextmanager
    def filled(self, size: int = 100 * MIB) -> Iterator[None]:
        """Let a foreign file take so many bytes, or all."""
        path = self.folder / "ballast"
        with open(path, "wb", buffering=0) as file, suppress(OSError):
            file.writelines(bytes(4096) for _ in range(size // 4096))
        yield
        path.unlink()

    def error_line(self) -> str:
        """Return the only line of the log that says that nothing can be stored."""
        [line] = [line for line in self.proxy.output.splitlines() if "cache folder" in line]
        return line


StartSmallDisk = Callable[..., SmallDisk]


@pytest.fixture
def start_small_disk(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> Iterator[StartSmallDisk]:
    """Starts a proxpi on a small disk; a command of the shell may run there before."""

    def start(before: str = ":") -> SmallDisk:
        folder = tmp_path / "cache"
        folder.mkdir()
        within = ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(folder), before]
        if subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
            raise AssertionError(_NEEDED)
        # A file system that is written to, as prefetched files are, cannot be made read-only.
        settings = {"cache_dir": folder, "prefetch": "off"}
        return SmallDisk(start_proxy(fake_index, within=within, **settings), folder)

    yield start


@pytest.fixture
def small_disk(start_small_disk: StartSmallDisk) -> SmallDisk:
    return start_small_disk()


def _add(index: FakeIndex, version: str, size: int = 1000) -> Distribution:
    file = make_wheel("demo", version, padding=size)
    index.add(file)
    return file


def _get(proxy: Proxy, file: Distribution) -> Reply:
    """Get a file or a redirect to it."""
    reply = proxy.get(f"/index/demo/{file.filename}")
    assert reply.status in (200, 302)
    if reply.status == 200:
        assert reply.body == file.data
    else:
        assert reply.headers["location"].endswith(f"/files/demo/{file.filename}")
    return reply


def _assert_stored(proxy: Proxy, file: Distribution) -> None:
    """Check that a file is served, and is a hit then."""
    assert _get(proxy, file).status == 200
    assert _get(proxy, file).headers["x-cache"] == "HIT"


def test_full(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A file that does not fit is a redirect, logged once; smaller ones are stored, also later."""
    kept, large = _add(fake_index, "1.0"), _add(fake_index, "2.0", 12 * MIB)
    small, other = _add(fake_index, "3.0", MIB), _add(fake_index, "4.0", 2 * MIB)
    proxy = small_disk.proxy
    _assert_stored(proxy, kept)
    for _ in range(4):
        assert _get(proxy, large).status == 302
        assert proxy.get("/health").status == 200
    assert list((small_disk.folder / ".proxpi").glob("partial-*")) == []
    assert NO_SPACE in small_disk.error_line()
    assert _get(proxy, kept).headers["x-cache"] == "HIT"
    _assert_stored(proxy, small)
    with small_disk.filled(7 * MIB):
        assert _get(proxy, other).status == 302
    _assert_stored(proxy, other)


def test_read_only(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """A disk that turns read-only is read, and written again once that is possible."""
    kept, other = _add(fake_index, "1.0"), _add(fake_index, "2.0")
    proxy = small_disk.proxy
    _assert_stored(proxy, kept)
    small_disk.remount("ro")
    for _ in range(3):
        assert _get(proxy, other).status == 302
        assert _get(proxy, kept).headers["x-cache"] == "HIT"
    assert proxy.get("/health").status == 200
    assert READ_ONLY in small_disk.error_line()
    small_disk.remount("rw")
    _assert_stored(proxy, other)


@pytest.mark.parametrize(
    ("before", "cause", "advice"),
    [
        ("mount -o remount,ro .", READ_ONLY, "mount it for writing"),
        ("head -c 9m /dev/zero >ballast", NO_SPACE, "free space"),
        ("mkdir .proxpi; seq 300 | xargs touch", NO_SPACE, "free space"),
    ],
    ids=["read-only", "full", "no inode"],
)
def test_from_the_start(
    fake_index: FakeIndex, start_small_disk: StartSmallDisk, before: str, cause: str, advice: str
) -> None:
    """A disk that cannot be written is a warning at the start; it is used once it can be."""
    file = _add(fake_index, "1.0")
    disk = start_small_disk(before)
    (line,) = (line for line in disk.proxy.output.splitlines() if "cannot be written" in line)
    assert cause in line and advice in line
    assert _get(disk.proxy, file).status == 302
    disk.remount("rw")
    for path in disk.folder.iterdir():
        if path.is_file():
            path.unlink()
    _assert_stored(disk.proxy, file)


def test_folder_removed(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A folder that is removed during a download is made anew."""
    kept, slow = _add(fake_index, "1.0"), _add(fake_index, "2.0", 100_000)
    cache = tmp_path / "cache"
    proxy = start_proxy(fake_index, cache_dir=cache, download_timeout=0.1)
    path = f"/files/demo/{slow.filename}"
    fake_index.script(path, Behavior(hold_after=50_000, times=1))
    assert proxy.get_cached(f"/index/demo/{kept.filename}").status == 200
    assert _get(proxy, slow).status == 302
    rmtree(cache)
    fake_index.release(path)
    for file in (kept, slow):
        assert proxy.get_cached(f"/index/demo/{file.filename}").body == file.data
    _assert_stored(proxy, slow)


def test_delete(fake_index: FakeIndex, small_disk: SmallDisk) -> None:
    """On a read-only disk a DELETE is a 503 that changes nothing; on a full one it succeeds."""
    _add(fake_index, "1.0")
    proxy, pages = small_disk.proxy, ("/index/", "/index/demo/")
    for path in ("/cache/demo", "/cache"):
        proxy.get("/index/demo/")
        small_disk.remount("ro")
        reply = proxy.request("DELETE", path)
        assert (reply.status, json.loads(reply.body)["status"]) == (503, "error")
        assert json.loads(reply.body)["message"].endswith(READ_ONLY)
        assert proxy.get("/index/demo/").headers["x-cache"] == "HIT"
        small_disk.remount("rw")
        assert proxy.request("DELETE", path).status == 200
        assert proxy.get("/index/demo/").headers["x-cache"] == "MISS"
    for path in ("/cache/demo", "/cache/list", "/cache"):
        for page in pages:
            assert proxy.get(page).status == 200
        with small_disk.filled():
            assert proxy.request("DELETE", path).status == 200
            # (A list is fetched through a file, so a full disk leaves it stale.)
            assert [proxy.get(page).headers.get("x-cache") for page in pages] != ["HIT", "HIT"]


@pytest.mark.parametrize(
    ("before", "error"),
    [("mount -o remount,ro .", READ_ONLY), ("dd if=/dev/zero of=ballast bs=4096", NO_SPACE)],
)
def test_check(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, before: str, error: str
) -> None:
    """``--check`` fails with a disk that is full or read-only, and says what to do."""
    within = ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(tmp_path), f"{before}; :"]
    options: dict[str, object] = {"listens": False, "cache_dir": tmp_path, "within": within}
    proxy = start_proxy(fake_index, "--check", **options)
    assert proxy.wait() == 1, _NEEDED
    [line] = [line for line in proxy.output.splitlines() if line.startswith("cache folder")]
    assert f"FAILED  {tmp_path}: {error}; " in line
