"""The statements of clients in their user agents, real and hostile ones."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker, default_environment
from packaging.tags import interpreter_abi, platform_tags, sys_tags

from proxpi.prefetch import Client, applies, platforms_of, read_user_agent, wheel_tags
from tests.support.strategies import deterministic

# As pip 26.3, uv 0.5.31 and uv 0.13.9 sent them.
PIP = (
    'pip/26.3 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm","libc":{"lib":"glibc","version":'
    '"2.36"},"name":"Debian GNU/Linux","version":"12"},"implementation":{"name":"CPython",'
    '"version":"3.11.7"},"installer":{"name":"pip","version":"26.3"},"openssl_version":'
    '"OpenSSL 3.0.19 27 Jan 2026","python":"3.11.7","rustc_version":"1.95.0","system":{"name":'
    '"Linux","release":"6.1.0-18-amd64"}}'
)
UV_05 = (
    'uv/0.5.31 {"installer":{"name":"uv","version":"0.5.31"},"python":"3.11.7","implementation":'
    '{"name":"CPython","version":"3.11.7"},"distro":{"name":"Debian GNU/Linux","version":"12","id":'
    '"bookworm","libc":{"lib":"glibc","version":"2.36"}},"system":{"name":"Linux","release":'
    '"6.1.0-18-amd64"},"cpu":"x86_64","openssl_version":null,"setuptools_version":null,'
    '"rustc_version":null,"ci":null}'
)
UV = UV_05.replace("0.5.31", "0.13.9").replace('"},"py', '","subcommand":["pip","install"]},"py')
POETRY = "poetry/2.5.1 CPython/3.11.7 Linux/6.1.0-18-amd64"
PDM = POETRY.replace("poetry/2.5.1", "pdm/2.29.4")
UNKNOWN = Client()

ENVIRONMENT = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.7",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1.0-18-amd64",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def uv(*subcommand: str) -> str:
    return UV.replace('["pip","install"]', json.dumps(subcommand))


def pip(**changes: Any) -> str:
    """Return the user agent of a pip that states something else."""
    name, _, stated = PIP.partition(" ")
    return f"{name} {json.dumps({**json.loads(stated), **changes})}"


def linux(cpu: str, lib: str, version: str, **changes: Any) -> str:
    return pip(cpu=cpu, distro={"name": "x", "libc": {"lib": lib, "version": version}}, **changes)


def macos(version: str, cpu: str) -> str:
    distro = {"name": "macOS", "version": version}
    return pip(cpu=cpu, distro=distro, system={"name": "Darwin", "release": "23.5.0"})


def windows(cpu: str) -> str:
    return pip(cpu=cpu, distro=None, system={"name": "Windows", "release": "11"})


@pytest.mark.parametrize("user_agent", [PIP, UV_05, UV])
def test_the_whole_statement(user_agent: str) -> None:
    """pip and uv state the marker environment but for one key, and the platform of their wheels."""
    client = read_user_agent(user_agent)
    assert client.environment == ENVIRONMENT
    assert set(default_environment()) - set(ENVIRONMENT) == {"platform_version"}
    assert client.ranks == wheel_tags("3.11", "CPython", platforms_of("manylinux_2_36_x86_64"))


@pytest.mark.parametrize("user_agent", [POETRY, PDM])
def test_a_statement_in_words(user_agent: str) -> None:
    """poetry and pdm state Python and system, and no platform that wheels could fit."""
    client = read_user_agent(user_agent)
    assert client.environment == {
        key: value for key, value in ENVIRONMENT.items() if key != "platform_machine"
    }
    assert client.ranks is None


INSTALLERS: list[tuple[str, str, tuple[int, ...], bool, bool]] = [
    # user agent, installer, version, whether it only resolves, whether it reads metadata
    (PIP, "pip", (26, 3), False, True),
    (PIP.replace("pip/26.3", "pip/20.3.4"), "pip", (20, 3, 4), False, False),
    (PIP.replace("pip/26.3", "pip/22.3.1"), "pip", (22, 3, 1), False, False),
    (PIP.replace("pip/26.3", "pip/23.1.2"), "pip", (23, 1, 2), False, False),
    (PIP.replace("pip/26.3", "pip/23.2.1"), "pip", (23, 2, 1), False, True),
    (PIP.replace("pip/26.3", "pip/25.1.dev0"), "pip", (25, 1), False, True),
    (UV_05, "uv", (0, 5, 31), False, True),
    (UV, "uv", (0, 13, 9), False, True),
    (POETRY, "poetry", (2, 5, 1), False, True),
    (PDM, "pdm", (2, 29, 4), False, True),
    *(
        (uv(*words), "uv", (0, 13, 9), False, True)
        for words in [("sync",), ("run",), ("add",), ("version",)]
        + [("pip", "sync"), ("tool", "install"), ("tool", "run"), ()]
    ),
    *(
        (uv(*words), "uv", (0, 13, 9), True, True)
        for words in [("lock",), ("export",), ("tree",), ("audit",)]
        + [("pip", "compile"), ("pip", "list"), ("pip", "tree")]
    ),
]


@pytest.mark.parametrize(
    ("user_agent", "installer", "version", "resolves_only", "reads_metadata"), INSTALLERS
)
def test_installers(
    user_agent: str,
    installer: str,
    version: tuple[int, ...],
    resolves_only: bool,
    reads_metadata: bool,
) -> None:
    """Name, version and subcommand tell what the client will request."""
    client = read_user_agent(user_agent)
    assert (client.installer, client.version) == (installer, version)
    assert (client.resolves_only, client.reads_metadata) == (resolves_only, reads_metadata)


PLATFORMS = [
    (linux("x86_64", "glibc", "2.17"), "manylinux_2_17_x86_64"),
    (linux("aarch64", "glibc", "2.39"), "manylinux_2_39_aarch64"),
    (linux("x86_64", "glibc", "2.20-2014.11"), "manylinux_2_20_x86_64"),
    (linux("armv8l", "glibc", "2.36"), "manylinux_2_36_armv8l"),
    (linux("x86_64", "musl", "1.2.5"), "musllinux_1_2_x86_64"),
    # pip sees no musl.
    (pip(distro={"name": "Alpine Linux", "version": "3.22.1"}), "musllinux_1_2_x86_64"),
    (macos("14.5", "arm64"), "macosx_14_0_arm64"),
    (macos("10.15.7", "x86_64"), "macosx_10_15_x86_64"),
    # A Python that was built for an older macOS.
    (macos("10.16", "x86_64"), "macosx_11_0_x86_64"),
    (windows("AMD64"), "win_amd64"),
    (windows("ARM64"), "win_arm64"),
    (windows("x86"), "win32"),
]


@pytest.mark.parametrize(("user_agent", "platform_tag"), PLATFORMS)
def test_platforms(user_agent: str, platform_tag: str) -> None:
    """System, CPU and C library tell the newest platform tag that fits."""
    ranks = read_user_agent(user_agent).ranks
    assert ranks == wheel_tags("3.11", "CPython", platforms_of(platform_tag))


@pytest.mark.parametrize(
    "user_agent",
    [
        pip(distro=None),
        pip(distro={"name": "Void", "version": "2026"}),
        pip(cpu=None),
        pip(system=None),
        pip(system={"name": "FreeBSD", "release": "15.0-RELEASE"}),
        *(windows("PPC"), macos("", "arm64"), macos("999.0", "arm64"), macos("14.0", "ppc")),
        *(pip(cpu="x86_64\n"), pip(cpu="x" * 5_000), linux("x86_64", "glibc", "3.0")),
        *(linux("x86_64", "glibc", "2.363"), linux("x86_64", "glibc", "2." + "9" * 5_000)),
    ],
)
def test_no_platform(user_agent: str) -> None:
    """Of a client that states no platform, Python decides about markers, and no wheel fits."""
    client = read_user_agent(user_agent)
    assert client.ranks is None
    assert client.rank("a-1-py3-none-any.whl") is None
    assert applies(Marker("python_version >= '3.11'"), client.environment)


def test_other_systems() -> None:
    """Variables of markers follow the system; those of an unknown one are not stated."""
    mac = read_user_agent(macos("14.5", "arm64")).environment
    assert mac is not None
    assert (mac["os_name"], mac["sys_platform"]) == ("posix", "darwin")
    assert (mac["platform_system"], mac["platform_release"]) == ("Darwin", "23.5.0")
    win = read_user_agent(windows("AMD64")).environment
    assert win is not None
    assert (win["os_name"], win["sys_platform"]) == ("nt", "win32")
    assert (win["platform_system"], win["platform_machine"]) == ("Windows", "AMD64")
    bsd = read_user_agent(pip(system={"name": "FreeBSD"})).environment
    assert bsd is not None
    assert not {"os_name", "sys_platform"} & set(bsd)


@pytest.mark.parametrize(
    ("stated", "full", "minor"),
    [("3.9.18", "3.9.18", "3.9"), ("3.15.0b1", "3.15.0b1", "3.15")]
    + [("3.14.0+", "3.14.0+local", "3.14")],
)
def test_python_versions(stated: str, full: str, minor: str) -> None:
    """Pre-releases and builds between releases keep their version; their tags are the usual."""
    client = read_user_agent(pip(python=stated))
    assert client.environment is not None
    assert client.environment["python_full_version"] == full
    assert client.environment["python_version"] == minor
    assert client.rank(f"a-1-cp{minor.replace('.', '')}-abi3-manylinux_2_17_x86_64.whl") is not None


def test_pypy() -> None:
    """PyPy has tags of its own, and a version beside that of Python."""
    client = read_user_agent(pip(implementation={"name": "PyPy", "version": "7.3.17"}))
    assert client.environment is not None
    assert client.environment["implementation_name"] == "pypy"
    assert client.environment["implementation_version"] == "7.3.17"
    assert client.environment["python_full_version"] == "3.11.7"
    assert client.rank("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl") is not None
    assert client.rank("a-1-cp311-cp311-manylinux_2_28_x86_64.whl") is None
    # poetry states PyPy's version where pdm states Python's.
    assert read_user_agent("poetry/2.5.1 PyPy/7.3.17 Linux/6.1").environment is None


def test_another_implementation() -> None:
    """An implementation whose tags are unknown gets those of any Python."""
    client = read_user_agent(pip(implementation={"name": "GraalVM", "version": "25.0"}))
    assert client.environment is not None
    assert "implementation_name" not in client.environment
    assert client.rank("a-1-py3-none-any.whl") is not None
    assert client.rank("a-1-cp311-none-any.whl") is None


def test_this_interpreter() -> None:
    """The tags are those of ``packaging`` for the running interpreter, in the same order."""
    platforms = list(platform_tags())
    newest = next(each for each in platforms if not each.startswith("linux_"))
    assert platforms_of(newest) == platforms
    python = "{}.{}".format(*sys.version_info)
    tags = wheel_tags(python, platform.python_implementation(), platforms_of(newest))
    assert list(tags) == list(dict.fromkeys(map(str, sys_tags())))
    assert [*tags.values()] == [*range(len(tags))]
    assert tags[f"cp{python.replace('.', '')}-{interpreter_abi()}-{platforms[0]}"] == 0


@pytest.mark.parametrize(
    ("platform_tag", "first", "last", "count"),
    [
        ("manylinux_2_7_x86_64", "linux_x86_64", "manylinux1_x86_64", 5),
        ("manylinux2010_i686", "linux_i686", "manylinux1_i686", 11),
        ("manylinux2014_aarch64", "linux_aarch64", "manylinux2014_aarch64", 3),
        ("manylinux_2_18_armv8l", "linux_armv8l", "manylinux2014_armv7l", 8),
        ("musllinux_1_2_x86_64", "linux_x86_64", "musllinux_1_0_x86_64", 4),
        ("macosx_12_0_arm64", "macosx_12_0_arm64", "macosx_10_4_universal2", 17),
        ("linux_riscv64", "linux_riscv64", "linux_riscv64", 1),
        ("win_amd64", "win_amd64", "win_amd64", 1),
    ],
)
def test_platform_tags(platform_tag: str, first: str, last: str, count: int) -> None:
    """A platform tag stands for all older ones, down to the oldest that there is, with aliases."""
    platforms = platforms_of(platform_tag)
    assert (platforms[0], platforms[-1], len(platforms)) == (first, last, count)


@pytest.mark.parametrize(
    "wrong",
    ["", "any", "linux", "manylinux", "manylinux_2_x86_64", "manylinux_3_1_x86_64"]
    + ["manylinux_2_28_x86_64\n", "manylinux2015_x86_64", "musllinux_2_0_x86_64", "win_ppc"]
    + ["macosx_14_arm64", "macosx_9_0_x86_64", "macosx_11_0_universal2", "manylinux_2_999_i686"],
)
def test_wrong_platform_tags(wrong: str) -> None:
    """The error names the wrong platform tag, and right ones."""
    with pytest.raises(ValueError, match="use one such as manylinux_2_28_x86_64") as caught:
        platforms_of(wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "3", "x", "2.7", "4.0", "3.100", "py312", "3." + "9" * 5000])
def test_wrong_python_versions(wrong: str) -> None:
    """The error names the wrong version of Python, and a right one."""
    with pytest.raises(ValueError, match=r"is not a version of Python 3 such as 3\.12") as caught:
        wheel_tags(wrong, "CPython", ["win_amd64"])
    assert repr(wrong[:100]) in str(caught.value)
    assert len(str(caught.value)) < 200


def test_ranks() -> None:
    """Of wheels that fit, the more specific one has the lower rank; others have none."""
    client = read_user_agent(PIP)
    fitting = [
        "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1-2b-CP311-cp311-manylinux1_x86_64.whl",
        "a-1-cp311-abi3-manylinux2014_x86_64.whl",
        "a-1-cp311-none-manylinux2014_x86_64.whl",
        "a-1-cp38-abi3-manylinux2014_x86_64.whl",
        "a-1-py2.py3-none-manylinux1_x86_64.whl",
        "a-1-py2.py3-none-any.whl",
    ]
    ranks = [client.rank(name) for name in fitting]
    assert None not in ranks
    assert ranks == sorted(ranks, key=lambda rank: rank or 0)
    assert len(set(ranks)) == len(ranks)
    platforms = [
        "manylinux_2_37_x86_64",
        "musllinux_1_2_x86_64",
        "win_amd64",
        "macosx_11_0_arm64",
        "*",
    ]
    unfit = [f"a-1-cp311-cp311-{platform}.whl" for platform in platforms]
    unfit += ["a-1-cp312-cp312-linux_x86_64.whl", "a-1-cp311-cp311t-linux_x86_64.whl"]
    unfit += ["a-1.tar.gz", "a-1-py3-none-any.whl.metadata", "a-py3-none-any.whl", ".whl", ""]
    unfit += [f"a-1-{'.'.join(['py3'] * 600)}-none-any.whl"]
    assert [name for name in unfit if client.rank(name) is not None] == []


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("python_version < '3.12' and sys_platform == 'linux'", True),
        ("python_full_version >= '3.11.8'", False),
        ("platform_machine == 'aarch64' or implementation_name == 'cpython'", True),
        ("extra == 'tls'", True),
        ("extra == 'http2'", False),
        ("extra == 'tls' and os_name == 'nt'", False),
        # What the client does not state decides nothing.
        ("platform_version != 'x'", False),
        ("python_version < '3.12' or platform_version == 'x'", False),
        ("platform_version == 'x' and python_version < '3'", False),
        # Comparisons without a meaning.
        ("sys_platform ~= 'linux'", False),
        (f"python_version < '{'9' * 5000}'", False),
    ],
)
def test_markers(marker: str, expected: bool) -> None:
    """A marker applies when what the client states makes it true, in any case."""
    client = read_user_agent(PIP)
    assert applies(Marker(marker), client.environment, {"tls"}) is expected


def test_markers_of_an_unknown_client() -> None:
    """Without a statement, only requirements without marker and those of extras apply."""
    assert applies(None, None)
    assert applies(Marker("extra == 'tls'"), None, {"tls"})
    for marker in ("python_version > '3'", "python_version <= '3'", "os_name != 'nt'"):
        assert not applies(Marker(marker), None, {"tls"})


@pytest.mark.parametrize(
    "user_agent",
    [
        *("", "pip", "pip/", "pip/x", "uv", "uv/", "curl/8.9", "Mozilla/5.0 (X11)", "\0" * 100),
        *("pip/" + "9" * 10_000, 'pip/26.3 {"a":' + "[" * 10_000, PIP[:-1], PIP + "}"),
        'pip/26.3 {"python":' + '{"a":' * 2_000 + "1" + "}" * 2_001,
        *(pip(python=each) for each in ("", "\0", "3", "2.7", "3." + "9" * 5_000)),
        *(pip(python=3.11), pip(python=[])),
        *(pip(implementation="CPython"), pip(system="Linux"), pip(distro=[]), pip(cpu=64)),
        *("\ud800", "pip/26.3 {\ud800}", "poetry/2.5.1 CPython/x Linux/6"),
    ],
)
def test_hostile(user_agent: str) -> None:
    """A malformed header, or that of another program, states nothing."""
    assert read_user_agent(user_agent) == UNKNOWN


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["3.11", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)
keys = ["python", "implementation", "system", "cpu", "distro", "installer", "other"]


@deterministic
@given(st.text(), st.dictionaries(st.sampled_from(keys), json_values), st.integers(0, len(PIP)))
def test_any_text(text: str, changes: dict[str, Any], cut: int) -> None:
    """Any header gives a client, with which any file name and marker can be judged."""
    hostile = [text, f"pip/26.3 {text}", pip(**changes), PIP[:cut] + text + PIP[cut + len(text) :]]
    for user_agent in hostile:
        client = read_user_agent(user_agent)
        client.rank(text)
        client.rank(f"a-1-py3-none-{text}.whl")
        assert applies(None, client.environment)
        applies(Marker("platform_release > '5' and python_version > '3'"), client.environment)
