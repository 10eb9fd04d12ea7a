"""Selectors: short texts that select projects, versions of projects, or files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from proxpi.simple.selectors import name_pattern, selector
from tests.support.strategies import deterministic

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("acme", "acme", True),
        ("acme", "acme-tool", False),
        ("Acme_Tool", "acme-tool", True),
        ("acme.*", "acme-tool", True),
        ("acme-*", "acme", False),
        ("acme*", "acme", True),
        ("acme-*", "acmetool", False),
        ("*-stubs", "foo-stubs", True),
        ("*-stubs", "foo-stubs-2", False),
        ("*", "a", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c", False),
        ("ab*ba", "aba", False),
        ("a*a*a", "aa", False),
        ("**a**", "bab", True),
    ],
)
def test_patterns(text: str, name: str, expected: bool) -> None:
    """A pattern matches normalized names; ``*`` stands for any characters, also for none."""
    assert name_pattern(text).matches(name) is expected


@deterministic
@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=8))
def test_any_pattern(text: str, name: str) -> None:
    """A pattern matches exactly the names that a search by its definition finds."""

    def fits(pattern: str, rest: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return any(fits(pattern[1:], rest[start:]) for start in range(len(rest) + 1))
        return rest[:1] == pattern[0] and fits(pattern[1:], rest[1:])

    assert name_pattern(text).matches(name) is fits(text, name)


def test_a_pattern_as_text() -> None:
    """A pattern is shown in its normalized form, and two with one form are equal."""
    assert str(name_pattern(" Acme._**")) == "acme-*"
    assert name_pattern("ACME.*") == name_pattern("acme-*")
    assert name_pattern("acme").is_name
    assert not name_pattern("acme-*").is_name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("-acme", "'-acme' is no project name"),
        ("acme-", "'acme-' is no project name"),
        ("acme tool", "'acme tool' is no project name"),
        ("acme/../x", "is no project name"),
        ("acmé", "is no project name"),
        ("acme?", "is no project name"),
        ("acme\nevil", r"'acme\\nevil' is no project name"),
        ("[a-z]", "is no project name"),
        ("a" * 201, "a project name has at most 200 characters"),
    ],
)
def test_no_patterns(text: str, reason: str) -> None:
    """A text that can match no project is refused with a reason."""
    with pytest.raises(ValueError, match=reason):
        name_pattern(text)


@pytest.mark.parametrize(
    ("text", "name", "version", "expected"),
    [
        ("evil", "evil", "1.0", True),
        ("evil", "evil-2", "1.0", False),
        ("acme-*", "acme-tool", "1.0", True),
        ("left-pad>=1.2,<1.3", "left-pad", "1.2", True),
        ("left-pad>=1.2,<1.3", "left-pad", "1.2.9", True),
        ("left-pad>=1.2,<1.3", "left-pad", "1.3", False),
        ("left-pad>=1.2,<1.3", "left-pad", "1.1", False),
        ("left-pad>=1.2,<1.3", "left-pad", "1.2.5rc1", True),
        ("Left_Pad >= 1.2 , < 1.3", "left-pad", "1.2", True),
        ("requests==2.40.0", "requests", "2.40", True),
        ("requests==2.40.0", "requests", "2.40.0+local.1", True),
        ("requests==2.40.0", "requests", "2.40.1", False),
        ("requests==2.*", "requests", "2.40.1", True),
        ("requests!=2.40.0", "requests", "2.40.1", True),
        ("requests~=2.40", "requests", "2.41", True),
        ("requests===2.40.0", "requests", "2.40", False),
        ("acme-*<2", "acme-tool", "1.9", True),
        ("acme-*<2", "other", "1.9", False),
        ("evil==1!2.0", "evil", "1!2.0", True),
        ("evil==1.0", "evil", "1.0.post1", False),
        ("evil==1.0rc1", "evil", "1.0rc1", True),
    ],
)
def test_selectors(text: str, name: str, version: str, expected: bool) -> None:
    """A selector selects files by the name of their project and their version (PEP 440)."""
    assert selector(text).matches(name, Version(version), {}, unreadable=True) is expected


@pytest.mark.parametrize(
    ("hashes", "expected"),
    [({"sha256": SHA}, True), ({"sha256": "0" * 64}, False), ({"md5": SHA}, False), ({}, False)],
)
@pytest.mark.parametrize("text", [f"sha256:{SHA}", f"SHA256: {SHA.upper()}"])
def test_digests(text: str, hashes: dict[str, str], expected: bool) -> None:
    """A selector with a digest selects the file that has it, in any project and version."""
    found = selector(text)
    assert found.matches_name("any")
    assert found.matches("any", None, hashes, unreadable=True) is expected


@pytest.mark.parametrize(
    ("text", "name", "unreadable", "expected"),
    [
        ("left-pad<1", "left-pad", True, True),
        ("left-pad<1", "left-pad", False, False),
        ("left-pad<1", "other", True, False),
        ("left-pad", "left-pad", False, True),
    ],
)
def test_no_version(text: str, name: str, unreadable: bool, expected: bool) -> None:
    """The caller says whether a file without a readable version is one of those of a selector."""
    assert selector(text).matches(name, None, {}, unreadable=unreadable) is expected


def test_a_selector_as_text() -> None:
    """A selector is shown as it was written, and tells whether it selects projects as a whole."""
    assert str(selector(" Left_Pad >=1.2 ")) == "Left_Pad >=1.2"
    assert selector("acme-*").whole_projects
    assert not selector("acme-*>1").whole_projects
    assert not selector(f"sha256:{SHA}").whole_projects


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        (">=1.0", "it is empty"),
        ("evil 1.0", "'evil 1.0' is no project name"),
        ("evil=1.0", "'=1.0' are no versions such as ==1.2"),
        ("evil==", "'==' are no versions"),
        ("evil>=1 <2", "'>=1 <2' are no versions"),
        ("evil==" + "9" * 900 + "x", "are no versions"),
        ("evil[extra]", r"extras, markers, URLs and parentheses \(\[\) have no place"),
        ("evil; python_version<'3'", r"\(;\) have no place"),
        ("evil @ file:///x", r"\(@\) have no place"),
        ("evil (>=1)", r"\(\(\) have no place"),
        ("sha256:abc", "a SHA-256 digest has 64 hexadecimal digits"),
        (f"sha256:{'g' * 64}", "64 hexadecimal digits"),
        (f"md5:{'a' * 32}", "'md5' is no digest that is compared: sha256 is"),
        ("a" * 1001, "more than 1000 characters"),
    ],
)
def test_no_selectors(text: str, reason: str) -> None:
    """A text that is no selector is refused with a reason."""
    with pytest.raises(ValueError, match=reason):
        selector(text)
