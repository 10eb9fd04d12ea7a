"""The project in the name of a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple import names
from proxpi.simple.filenames import project_of


@pytest.mark.parametrize(
    ("filename", "folder", "expected"),
    [
        ("Foo_Bar-1.0-py3-none-any.whl", None, "foo-bar"),
        ("foo.bar-1.0-1-py3-none-any.whl", "other", "foo-bar"),
        ("foo-2004b-py2.py3-none-any.whl", None, "foo"),
        ("foo-1.0-py3-none-any.whlx", None, "foo"),
        ("foo-bar-1.0.tar.gz", None, "foo-bar"),
        ("foo-bar-1.0.TAR.GZ", None, "foo-bar"),
        ("foo-linux-1.0.zip", None, "foo-linux"),
        ("foo-2-bar-1.0.tar.bz2", None, "foo-2-bar"),
        ("foo-2-1.0.tgz", None, "foo-2"),
        ("foo-1.0-1.tar.gz", None, "foo"),
        ("foo-1-2.tar.gz", None, "foo"),
        ("foo-1-2.tar.gz", "foo-1", "foo-1"),
        ("foo-1-2.tar.gz", "other", "foo"),
        ("foo-1.0.linux-x86_64.tar.gz", None, "foo"),
        ("foo-2020a-final.zip", None, "foo"),
        ("foo-v1.0.zip", None, "foo"),
        ("foo-1.0+local.1.tar.xz", None, "foo"),
        ("foo-1.0-py2.7.egg", None, "foo"),
        ("foo-1.0-py3.11-linux-x86_64.egg", None, "foo"),
        ("foo-1.0.win32-py2.7.exe", None, "foo"),
        ("foo-1.0.win-amd64-py3.5.msi", None, "foo"),
        ("foo-1.0-1.noarch.rpm", None, "foo"),
        ("foo_bar-1.2-variants.json", None, "foo-bar"),
        ("foo.zip", None, None),
        ("foo.zip", "foo", "foo"),
        ("latest.tar.gz", "foo", "foo"),
        ("foo.whl", None, None),
        ("-1.0-py3-none-any.whl", None, None),
        ("-1.0.tar.gz", None, None),
        ("notes.txt", "foo", None),
        ("foo-1.0.tar.gz.asc", "foo", None),
        ("foo-1.0-py3-none-any.whl.metadata", "foo", None),
        (".tar.gz", None, None),
        ("", None, None),
        (f"foo-{'1' * 5000}.tar.gz", "foo", None),
    ],
)
def test_project(filename: str, folder: str | None, expected: str | None) -> None:
    """The name of a distribution says its project; where it cannot, its folder does."""
    assert project_of(filename, folder) == expected


@given(st.from_regex(r"[a-z0-9._-]{0,30}\.(whl|zip|egg|tar\.gz)", fullmatch=True))
def test_any(filename: str) -> None:
    """A project is a normalized name."""
    found = project_of(filename)
    assert found is None or names.normalize(found) == found
