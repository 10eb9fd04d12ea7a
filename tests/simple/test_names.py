"""Names of projects (PEP 503, PEP 508) and printable text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.names import MAX_LENGTH, may_change, normalize, printable
from tests.support.strategies import deterministic, project_names

VALID = re.compile(r"([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])\Z", re.IGNORECASE | re.ASCII)


@deterministic
@given(project_names)
def test_normalized(name: str) -> None:
    """A valid name gets the form that PEP 503 defines; normalizing that again changes nothing."""
    expected = re.sub(r"[-_.]+", "-", name).lower()
    assert normalize(name) == normalize(expected) == expected


@deterministic
@given(st.text(st.sampled_from("aB9._-/\\%\n\x00 é\u017f\u212a"), max_size=6))
def test_valid(name: str) -> None:
    """A name is refused exactly if the grammar of names does not match it."""
    assert (normalize(name) is not None) == (VALID.match(name) is not None)


def test_length() -> None:
    """A name of absurd length is refused."""
    assert normalize("a" * MAX_LENGTH) == "a" * MAX_LENGTH
    assert normalize("a" * (MAX_LENGTH + 1)) is None


def test_may_change() -> None:
    """Of all files, only the description of variants may change under its name."""
    assert may_change("demo-1.0-variants.json")
    for name in ("demo-1.0.whl", "demo-1.0.json", "variants.json", "demo-1.0-variants.json.asc"):
        assert not may_change(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ünïcode, 日本", "plain text, ünïcode, 日本"),
        ("\x1b[2J\x9b2J\x00\x07\x7f", "\\x1b[2J\\x9b2J\\x00\\x07\\x7f"),
        ("a\r\nb\tc\x85b\u2028c\u2029", "a\\r\\nb\\tc\\x85b\\u2028c\\u2029"),
        ("\u202egnp.exe\u2066\u200b\ufeff\xad", "\\u202egnp.exe\\u2066\\u200b\\ufeff\\xad"),
        ("\udc80\U000e0001", "\\udc80\\U000e0001"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    """Control characters, line ends, direction marks and surrogates are escaped, the rest stays."""
    assert printable(text) == expected


@given(st.text(st.characters()))
def test_always_printable(text: str) -> None:
    """Any text becomes one line that can be encoded."""
    assert printable(text).isprintable()
    printable(text).encode()
