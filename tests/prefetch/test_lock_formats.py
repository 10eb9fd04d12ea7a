"""Lock files, as the tools write them, and hostile ones: the packages that they pin.

The locks in ``locks/`` were made by uv 0.13.9, pip 26.3, poetry 2.5.1, pdm 2.29.4 and pip-compile
7.5, of the same four requirements; their hosts were replaced.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.prefetch import lock_formats, locks
from proxpi.prefetch.locks import Locked, LockedFile, LockError, Target
from tests.support.strategies import deterministic

FOLDER = Path(__file__).parent / "locks"
NAMING = ["uv.lock", "pylock.uv.toml", "poetry.lock", "pdm.lock"]
REQUIREMENTS = ["requirements.uv.txt", "requirements.pip-compile.txt"]
EVERY = [*NAMING, "pylock.pip.toml", *REQUIREMENTS]

LINUX = Target.of("3.12", "manylinux_2_28_x86_64")
MAC = Target.of("3.11.4", "macosx_14_0_arm64")
WINDOWS = Target.of("3.13", "win_amd64")
TORNADO = {
    LINUX: "tornado-6.4.2-cp38-abi3-manylinux_2_5_x86_64.manylinux1_x86_64"
    ".manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    MAC: "tornado-6.4.2-cp38-abi3-macosx_10_9_universal2.whl",
    WINDOWS: "tornado-6.4.2-cp38-abi3-win_amd64.whl",
}
CLICK = "63c132bbbed01578a06712a2d1f497bb62d9c1c0d329b7903a866228027263b2"
A, B = "a" * 64, "b" * 64


def lock(name: str) -> locks.Lock:
    return lock_formats.read((FOLDER / name).read_bytes())


def fitting(text: str, target: Target | None = LINUX) -> list[Locked]:
    return locks.fitting(lock_formats.read(text.encode()), target)


def projects(text: str, target: Target | None = LINUX) -> list[str]:
    return [locked.project for locked in fitting(text, target)]


def message(body: str | bytes) -> str:
    with pytest.raises(LockError) as caught:
        lock_formats.read(body if isinstance(body, bytes) else body.encode())
    text = str(caught.value)
    assert text.endswith(".") and text.isprintable() and len(text) < 600
    return text


@pytest.mark.parametrize("name", NAMING)
@pytest.mark.parametrize("target", [LINUX, MAC, WINDOWS])
def test_locks_that_name_files(name: str, target: Target) -> None:
    """Of each package the wheel that fits best is chosen, or its source; markers count."""
    files = [
        "click-8.1.8-py3-none-any.whl",
        *["colorama-0.4.6-py2.py3-none-any.whl"] * (target is WINDOWS),
        *("docopt-0.6.2.tar.gz", "iniconfig-2.0.0-py3-none-any.whl", TORNADO[target]),
    ]
    found = locks.fitting(lock(name), target)
    assert [file.filename for locked in found for file in locked.files] == files
    assert [len(file.sha256) for locked in found for file in locked.files] == [1] * len(files)
    assert found[0] == Locked(
        "click", "8.1.8", (LockedFile("click-8.1.8-py3-none-any.whl", frozenset({CLICK})),)
    )


def test_a_lock_of_one_platform() -> None:
    """pip's lock has the files of one platform; elsewhere those that do not fit are left out."""
    assert [each.project for each in locks.fitting(lock("pylock.pip.toml"), WINDOWS)] == [
        *("click", "docopt", "iniconfig")
    ]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements(name: str) -> None:
    """Requirements name versions and digests, and no files."""
    found = locks.fitting(lock(name), LINUX)
    pins = [(each.project, each.version, len(each.sha256), each.files) for each in found]
    assert pins == [
        ("click", "8.1.8", 2, ()),
        ("docopt", "0.6.2", 1, ()),
        ("iniconfig", "2.0.0", 2, ()),
        ("tornado", "6.4.2", 11, ()),
    ]
    assert CLICK in found[0].sha256


@pytest.mark.parametrize("name", NAMING)
def test_all(name: str) -> None:
    """Without a target all files of all packages count."""
    found = locks.fitting(lock(name), None)
    assert [len(each.files) for each in found] == [2, 2, 1, 2, 11]


def test_spellings_of_requirements() -> None:
    """Extras, markers, comments, options, continued lines and line ends are read as pip reads."""
    text = f"""\ufeff# a comment \\
--index-url https://index.example.test/simple
-i https://index.example.test/simple
Demo.One[extra,other] == 1.0 ; python_version >= "3.11"  --hash=sha256:{A}   # why
two===2.0+local --hash sha256:{A} \\
  --hash=sha256:{B.upper()} --config-settings=x=y\r
three==3 ; sys_platform == 'win32'

four==4; extra == "fast" and python_full_version < "3.12.4"
five==1!5.0 \\
"""
    assert fitting(text) == [
        Locked("demo-one", "1.0", sha256=frozenset({A})),
        Locked("two", "2.0+local", sha256=frozenset({A, B})),
        Locked("four", "4"),
        Locked("five", "1!5.0"),
    ]
    assert projects(text, WINDOWS) == ["demo-one", "two", "three", "five"]


def test_from_elsewhere() -> None:
    """Packages from no index are skipped, with the reason."""
    lines = (
        *("-e .", "--editable=git+https://git.example.test/x", "./x-1-py3-none-any.whl", "/x/y"),
        *("x @ https://files.example.test/x.whl", "https://files.example.test/x.whl", "file:x"),
    )
    read = lock_formats.read("\n".join([*lines, "demo==1"]).encode())
    assert [each.project for each in locks.fitting(read, None)] == ["demo"]
    assert list(read.skipped) == [
        f"line {number}: {line!r} is from no index" for number, line in enumerate(lines, 1)
    ]
    poetry = """
        [[package]]
        name = "x"
        version = "1"
        [package.source]
        type = "git"
        [metadata]
        lock-version = "2.1"
    """
    pdm = """
        [metadata]
        lock_version = "4.5.0"
        [[package]]
        name = "x"
        version = "1"
        git = "https://git.example.test/x"
    """
    pylock = """
        lock-version = "1.0"
        [[packages]]
        name = "x"
        vcs = {type = "git", url = "https://git.example.test/x", commit-id = "0"}
    """
    for text in (poetry, pdm, pylock):
        read = lock_formats.read(text.encode())
        assert (locks.fitting(read, None), len(read.skipped)) == ([], 1)
    assert list(lock("uv.lock").skipped) == ["consumer: it is from no index (virtual)"]


UV = """
version = 1
[[package]]
name = "root"
version = "0"
source = { editable = "." }
dependencies = [
    { name = "fork", version = "1", marker = "sys_platform == 'linux'" },
    { name = "fork", version = "2", marker = "sys_platform != 'linux'" },
    { name = "shell", marker = "sys_platform != 'win32'" },
]
[package.optional-dependencies]
fast = [{ name = "fast" }]
[package.dev-dependencies]
test = [{ name = "circle-a" }]
"""


def uv_package(name: str, *requires: str, version: str = "1") -> str:
    requirements = ", ".join(f'{{ name = "{each}" }}' for each in requires)
    return f"""
[[package]]
name = "{name}"
version = "{version}"
source = {{ registry = "https://index.example.test/simple" }}
dependencies = [{requirements}]
wheels = [{{ url = "https://files.example.test/{name}-{version}-py3-none-any.whl" }}]
"""


def test_graph_of_uv() -> None:
    """A package is needed if a chain of requirements whose markers hold leads to it."""
    packages = [
        *(uv_package("fork"), uv_package("fork", version="2"), uv_package("shell", "terminal")),
        *(uv_package("terminal"), uv_package("fast"), uv_package("circle-a", "circle-b")),
        *(uv_package("circle-b", "circle-a"), uv_package("unrelated")),
    ]
    text = UV + "".join(packages)
    others = ["fast", "circle-a", "circle-b", "unrelated"]
    assert projects(text) == ["fork", "shell", "terminal", *others]
    assert projects(text, WINDOWS) == ["fork", *others]
    assert fitting(text, WINDOWS)[0].version == "2"
    assert projects(text, None) == ["fork", "fork", "shell", "terminal", *others]


def test_script_of_uv() -> None:
    """The lock of a script states its requirements in the manifest."""
    text = 'version = 1\n[manifest]\nrequirements = [{ name = "circle-a", specifier = ">1" }]\n'
    text += uv_package("circle-a", "circle-b") + uv_package("circle-b", "circle-a")
    assert projects(text) == ["circle-a", "circle-b"]


def test_older_poetry_and_pdm() -> None:
    """Older locks list files, or digests alone, below ``metadata``."""
    package = '[[package]]\nname = "demo"\nversion = "1.0"\n[metadata]\ncontent-hash = "0"\n'
    files = f'[{{file = "demo-1.0-py3-none-any.whl", hash = "sha256:{A}"}}]'
    for key in ("demo", '"demo 1.0"'):
        found = fitting(f"{package}[metadata.files]\n{key} = {files}\n")
        file = LockedFile("demo-1.0-py3-none-any.whl", frozenset({A}))
        assert found == [Locked("demo", "1.0", (file,))]
    assert fitting(f'{package}[metadata.hashes]\ndemo = ["{A}"]\n') == [
        Locked("demo", "1.0", sha256=frozenset({A}))
    ]


def test_markers_of_groups() -> None:
    """poetry states a marker for each group; one of them has to hold."""
    for other, needed in (("os_name == 'nt'", False), ("", True), ("os_name == 'posix'", True)):
        text = f"""
            [[package]]
            name = "demo"
            version = "1"
            markers = {{main = "sys_platform == 'win32'", dev = "{other}"}}
            files = [{{file = "demo-1.tar.gz"}}]
            [metadata]
            lock-version = "2.1"
        """
        assert projects(text) == ["demo"] * needed


PACKAGE = 'lock-version = "1"\n[[packages]]\nname = "demo"\n'


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "uv.lock"),
        (b" \n", "uv.lock"),
        (b"# nothing\n", "uv.lock"),
        (b"\xff\xfed\x00e\x00m\x00o\x00", "UTF-8"),
        (b"demo==1\x00", "no text"),
        (b"\x1f\x8b\x08", "UTF-8"),
        (b"PK\x03\x04", "Line 1"),
        (b"<html>", "'<html>'"),
        (b"{}", "'{}'"),
        (b"demo==1\n\n-r other.txt", "Line 3"),
        (b"demo==1\ndemo>=2", "Line 2: 'demo>=2' is not pinned"),
        (b"demo", "name==version"),
        (b"demo==1.*", "'demo==1.*'"),
        (b"demo==1,!=2", "not pinned"),
        (b"demo===what", "'what' is no version"),
        (b"demo==1 --hash=sha256:x", "Line 1: demo: 'sha256:x' is no digest"),
        (b"demo==1; " + b"(" * 5000 + b"os_name", "Line 1"),
        (b"demo==1;" + b" " * 20_000 + b"os_name", "Line 1"),
        (b"[[package]]\nname = 1", "none of a lock"),
        (b"[[package]\n", "line 1"),
        (b"version = 1\n[[package]]\nversion = '1'", "name"),
        (b"version = 1\n[[package]]\nname = []", "package[0].name"),
        (b"version = 1\n[[package]]\nname = 'a'\nsource = {type = []}\n[package.x]\n[x", "TOML"),
        (b"version = 1\npackage = 1", "package"),
        (b"version = '1'\n[[package]]\nname = 'demo'", "none of a lock"),
        (b"lock-version = '1.0'\n", "packages"),
        (b"[tool.poetry]\nname = 'demo'\n", "none of a lock"),
        (f"{PACKAGE}sdist = {{name = '../demo-1.tar.gz'}}".encode(), "name of a file"),
        (f"{PACKAGE}sdist = {{url = 'https://x/'}}".encode(), "name of a file"),
        (f"{PACKAGE}sdist = {{name = 'x', hashes = {{sha256 = 'x'}}}}".encode(), "digest"),
        (f"{PACKAGE}sdist = {{name = 'x'}}\nmarker = 'x'".encode(), "marker"),
        (f"{PACKAGE}name = 'demo'".encode(), "TOML"),
        (b"lock-version='1'\n[[packages]]\nname='-'\nsdist={name='x'}", "name of a project"),
        (b"version = 1\na = '''\n'''", "several lines"),
        (b"version = 1\n" + b"a." * 17 + b"b = 1", "at most 16 parts"),
        (b"version = 1\n" + b"'='. " * 17 + b"b = 1", "at most 16 parts"),
        (b'version = 1\nx = ["""\n""", {' + b"a." * 17 + b'b = 1}, "x"]', "several lines"),
        (b"version = 1\nx = " + b"[" * 5000, "nested too deeply"),
        (b"version = 1\nx = " + b"{a=" * 5000, "nested too deeply"),
    ],
)
def test_errors(body: bytes, named: str) -> None:
    """An error is one sentence that names the place, or what is accepted."""
    assert named in message(body)


def test_locks_that_are_too_large() -> None:
    """A lock that would need much time or memory is refused before it is parsed."""
    signs, characters = "1000000", "262144"
    repeated = {
        signs: ["[", "x=[[],", "[[package]]\n", "\n\n#", "demo==1 \\\n"],
        characters: ["a" * 99, "a.", "'", "#"],
    }
    for limit, texts in repeated.items():
        for text in texts:
            assert limit in message(text * ((1 << 22) // len(text))), text
    assert characters in message("demo==1 \\\n" + f"{' --hash=md5:0' * 10} \\\n" * 5000)
    assert "20000" in message("demo==1\n" * 20_001)
    assert "20000" in message("version = 1\n" + "[[package]]\nname = 'a'\nversion = '1'\n" * 20_001)


PIECES = [path.read_text() for path in sorted(FOLDER.iterdir())]
LINES = sorted({line for piece in PIECES for line in piece.splitlines()})
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(LINES)).map("\n".join),
    st.lists(st.sampled_from([*LINES, "version = 1", "lock-version = '1.0'"]) | st.text()).map(
        "\n".join
    ),
    st.tuples(st.sampled_from(PIECES), st.integers(0, 7000), st.text()).map(
        lambda each: each[0][: each[1]] + each[2] + each[0][each[1] + 1 :]
    ),
)


@deterministic
@given(texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary())
def test_nothing_but_its_own_error(body: bytes) -> None:
    """Any body is a lock, or an error of one printable sentence."""
    try:
        read = lock_formats.read(body)
        for target in (LINUX, WINDOWS, None):
            for locked in locks.fitting(read, target):
                assert (
                    locked.files or locks.listed_files(locked, {"a-1.zip": A}, target) is not None
                )
    except LockError as error:
        assert str(error).isprintable() and len(str(error)) < 600
