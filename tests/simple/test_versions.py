"""The version in the name of a file."""

from __future__ import annotations

import pytest
from packaging.version import Version

from proxpi.simple.versions import version, version_of


@pytest.mark.parametrize(
    ("filename", "project", "expected"),
    [
        ("foo-1.2-py3-none-any.whl", "foo", "1.2"),
        ("foo_bar-1.2-1-py3-none-any.whl", "foo-bar", "1.2"),
        ("Foo.Bar-1.2-cp312-cp312-linux_x86_64.whl", "foo-bar", "1.2"),
        ("foo-1.2-cp312-cp312-linux_x86_64-cu126.whl", "foo", "1.2"),
        ("foo-1.2-1-cp312-cp312-linux_x86_64-cu126.whlx", "foo", "1.2"),
        ("foo-1!2.0+cpu.1-py3-none-any.whl", "foo", "1!2.0+cpu.1"),
        ("foo-1.2.tar.gz", "foo", "1.2"),
        ("foo-bar-1.2.zip", "foo-bar", "1.2"),
        ("foo_bar-1.2.tar.bz2", "foo-bar", "1.2"),
        ("foo.bar-1.2rc1.tgz", "foo-bar", "1.2rc1"),
        ("Foo._bar-1.2.tar.gz", "foo-bar", "1.2"),
        ("foo-1.2.TAR.GZ", "foo", "1.2"),
        ("foo-1.2.tar.Z", "foo", "1.2"),
        ("foo-1.2.tar.xz", "foo", "1.2"),
        ("foo-1.2-1.tar.gz", "foo", "1.2.post1"),
        ("foo-2-1.0.tar.gz", "foo-2", "1.0"),
        ("foo-bar-1.2-variants.json", "foo-bar", "1.2"),
        ("foo-1.2-py2.7.egg", "foo", "1.2"),
        ("foo-1.2-py2.7-win-amd64.egg", "foo", "1.2"),
        ("foo-1.2-py3.7-macosx-10.13-x86_64.egg", "foo", "1.2"),
    ],
)
def test_read(filename: str, project: str, expected: str) -> None:
    """The version is what follows the name of the project, up to the tags or the ending."""
    assert version_of(filename, project) == Version(expected)


@pytest.mark.parametrize(
    "filename",
    [
        "bar-1.2.tar.gz",
        "bar-1.2-py3-none-any.whl",
        "foo-1.2.exe",
        "foo-1.2.win32-py2.7.msi",
        "foo.tar.gz",
        "foo-.tar.gz",
        "foo--1.2.tar.gz",
        "foo_-1.2.tar.gz",
        "foo_1.2.tar.gz",
        "foo-final.tar.gz",
        "foo-2-1.0.tar.gz",
        "foo-1.2.whl",
        "foo-1.2-a-b-c-d-e-f.whl",
        "foo",
        "",
        "foo-" + "9" * 5000 + ".tar.gz",
        "foo-1.2" + "." * 1000 + ".tar.gz",
    ],
)
def test_not_read(filename: str) -> None:
    """A name that no client could read for this project has no version."""
    assert version_of(filename, "foo") is None


def test_versions() -> None:
    """A text is a version, or none; digits beyond those that Python reads make none."""
    assert version("1.0") == Version("1.0.0")
    assert version("x") is None
    assert version("1" * 5000) is None
