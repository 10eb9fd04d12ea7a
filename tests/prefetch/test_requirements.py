"""Requirements in core metadata: those that a client's resolver follows, and no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxpi.prefetch.requirements import (
    MAX_HEAD,
    MAX_LENGTH,
    MAX_REQUIREMENTS,
    Required,
    applicable,
    read_requirements,
)

ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux"}
METADATA = b"""Metadata-Version: 2.4
Name: demo
Requires-Dist: Plain
Requires-Dist: pinned[Fast_Er,safe]>=1.0,<2
requires-dist: folded
 (>=3)
Requires-Dist: on-linux; sys_platform == "linux"
Requires-Dist: on-windows; sys_platform == "win32"
Requires-Dist: optional>1; extra == "more"
Requires-Dist: by-url @ https://files.example/x.whl
Requires-Dist: what is this?
Requires-Dist: unreadable; python_version ~~ "3"

Requires-Dist: in-the-description
"""


def test_a_client_follows_what_applies_to_it() -> None:
    """Markers, extras, URLs, malformed lines and the description are told apart."""
    followed = applicable(read_requirements(METADATA), ENVIRONMENT)
    assert followed == {
        "plain": Required(frozenset(), frozenset()),
        "pinned": Required(frozenset({"<2,>=1.0"}), frozenset({"fast-er", "safe"})),
        "folded": Required(frozenset({">=3"}), frozenset()),
        "on-linux": Required(frozenset(), frozenset()),
    }


def test_an_extra_that_was_requested_counts() -> None:
    """The requirements of an extra follow once an enclosing requirement names it."""
    followed = applicable(read_requirements(METADATA), ENVIRONMENT, {"more"})
    assert followed["optional"] == Required(frozenset({">1"}), frozenset())


def test_without_an_environment_no_marker_of_it_counts() -> None:
    """A client that states no Python gets the requirements that always apply."""
    followed = applicable(read_requirements(METADATA), None)
    assert set(followed) == {"plain", "pinned", "folded"}


def test_requirements_on_one_project_are_merged() -> None:
    """Two lines on the same project give the specifiers and extras of both."""
    lines = b"Requires-Dist: a>=1\r\nRequires-Dist: A[x]<2\r\n\r\n"
    merged = Required(frozenset({">=1", "<2"}), frozenset({"x"}))
    assert applicable(read_requirements(lines), ENVIRONMENT) == {"a": merged}


def test_long_metadata_is_read_to_a_limit() -> None:
    """Ten thousand requirements give the first thousand."""
    lines = b"".join(b"Requires-Dist: p%d\n" % number for number in range(10_000))
    assert len(read_requirements(lines)) == MAX_REQUIREMENTS


def test_long_requirements_are_left_out() -> None:
    """A requirement with more characters than any real one, and bytes beyond the limit."""
    clauses = b"==1." + b"1" * MAX_LENGTH
    long = b"Requires-Dist: a%b\nRequires-Dist: b\n%b\nRequires-Dist: c\n"
    read = read_requirements(long % (clauses, b"X: " + b"x" * MAX_HEAD))
    assert [each.name for each in read] == ["b"]


def test_a_name_with_a_line_break_is_none() -> None:
    """A folded line never makes a name of two lines."""
    assert read_requirements(b"Requires-Dist: a\n b\n\n") == []


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    """Any bytes behind the field's name are requirements, or none."""
    applicable(read_requirements(b"Requires-Dist: " + data), ENVIRONMENT, {"x"})
