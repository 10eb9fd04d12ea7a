"""The packages of a lock that a target needs, and the files that fit it best."""

from __future__ import annotations

import pytest

from proxpi.prefetch import lock_formats, locks
from proxpi.prefetch.locks import Locked, LockedFile, LockError, Target

LINUX = Target.of("3.12", "manylinux_2_28_x86_64")
A, B = "a" * 64, "b" * 64


def fitting(text: str, target: Target | None = LINUX) -> list[Locked]:
    return locks.fitting(lock_formats.read(text.encode()), target)


def projects(text: str, target: Target | None = LINUX) -> list[str]:
    return [locked.project for locked in fitting(text, target)]


def chosen(text: str, target: Target | None = LINUX) -> list[str]:
    return [file.filename for locked in fitting(text, target) for file in locked.files]


@pytest.mark.parametrize(
    ("marker", "needed"),
    [
        ("'fast' in extras", True),
        ("'test' in dependency_groups and sys_platform == 'win32'", False),
        ("extra == 'fast'", True),
        ("extra != 'fast'", True),
        ("platform_machine == 'x86_64'", True),
        ("python_full_version < '3.12.4'", True),
        ("python_full_version >= '3.12.4'", True),
        ("python_version < '3.12'", False),
        ("implementation_name == 'pypy'", False),
        ("platform_release >= '20'", True),
        ("os_name == 'nt'", False),
    ],
)
def test_markers(marker: str, needed: bool) -> None:
    """Extras and groups count as requested; a marker that the query leaves open holds."""
    text = f"""
        lock-version = "1.0"
        [[packages]]
        name = "demo"
        marker = "{marker}"
        sdist = {{name = "demo-1.tar.gz"}}
    """
    assert projects(text) == ["demo"] * needed


def test_best_wheel() -> None:
    """The best tag counts, then the build number; a source only where no wheel fits."""

    def pylock(*files: str) -> str:
        wheels = ", ".join(f'{{name = "{each}"}}' for each in files if each.endswith(".whl"))
        sdist = 'sdist = {name = "demo-1.tar.gz"}' if "demo-1.tar.gz" in files else ""
        package = f'[[packages]]\nname = "demo"\n{sdist}\nwheels = [{wheels}]'
        return f'lock-version = "1.0"\n{package}\n'

    none, own = "demo-1-py3-none-any.whl", "demo-1-cp312-cp312-manylinux_2_17_x86_64.whl"
    newer = "demo-1-cp312-cp312-manylinux_2_28_x86_64.whl"
    too_new = "demo-1-cp312-cp312-manylinux_2_34_x86_64.whl"
    mac, sdist = "demo-1-cp312-cp312-macosx_11_0_arm64.whl", "demo-1.tar.gz"
    assert chosen(pylock(none, own, newer, too_new, mac, sdist)) == [newer]
    assert chosen(pylock(none, own, mac)) == [own]
    assert chosen(pylock(mac, none, sdist)) == [none]
    assert chosen(pylock(mac, too_new, sdist)) == [sdist]
    assert chosen(pylock(mac, too_new)) == []
    builds = ["demo-1-2-py3-none-any.whl", "demo-1-10-py3-none-any.whl", none]
    assert chosen(pylock(*builds)) == [builds[1]]


def test_files_of_the_page() -> None:
    """Where a lock names no files, those of its version count, with one of its digests."""
    page = {
        "demo-1.0-py3-none-any.whl": A,
        "demo-1.0.tar.gz": B,
        "demo-1.0.0-cp312-cp312-macosx_11_0_arm64.whl": A,
        "demo-1.0.post1-py3-none-any.whl": A,
        "demo-2.0-py3-none-any.whl": A,
        "demo-1.0.exe": A,
        "demo-odd.zip": A,
        "demo.whl": A,
    }

    def found(*digests: str, target: Target | None = LINUX, version: str = "1") -> list[str]:
        locked = Locked("demo", version, sha256=frozenset(digests))
        return [file.filename for file in locks.listed_files(locked, page, target)]

    assert found() == ["demo-1.0-py3-none-any.whl"]
    assert found(A) == ["demo-1.0-py3-none-any.whl"]
    assert found(B) == ["demo-1.0.tar.gz"]
    assert found("c" * 64) == []
    assert found(version="3") == []
    assert found(A, B, target=None) == [*page][:3]
    unstated = locks.listed_files(
        Locked("demo", "1.0", sha256=frozenset({A})), {"demo-1.0.zip": None}, LINUX
    )
    assert unstated == [LockedFile("demo-1.0.zip", frozenset({A}))]


@pytest.mark.parametrize(
    ("python", "platform", "named"),
    [
        ("", "win_amd64", "python="),
        ("2.7", "win_amd64", "python=2.7"),
        ("3.x", "win_amd64", "python=3.x"),
        ("4.0", "win_amd64", "python=4.0"),
        ("3.12\n", "win_amd64", "python=3.12"),
        ("3.12", "", "platform"),
        ("3.12", "linux", "'linux'"),
        ("3.12", "manylinux_2_28_x86_64\x00", "manylinux_2_28_x86_64"),
        ("3.12", "x" * 100_000, "xxx"),
    ],
)
def test_no_target(python: str, platform: str, named: str) -> None:
    """A wrong Python or platform is an error that names it."""
    with pytest.raises(LockError) as caught:
        Target.of(python, platform)
    assert named in str(caught.value) and len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_too_many_files() -> None:
    """The files that fit are counted, not those that the lock names."""
    files = ",\n".join(f"{{name = 'a-{number}.zip'}}" for number in range(10_001))
    package = f"[[packages]]\nname = 'a'\nwheels = [\n{files}\n]\n"
    read = lock_formats.read(
        f"lock-version = '1.0'\n{package}{package.replace('a-', 'b-')}".encode()
    )
    with pytest.raises(LockError, match="20000 files"):
        locks.fitting(read, None)
    assert len(locks.fitting(read, LINUX)) == 2
