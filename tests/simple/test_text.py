"""Foreign text is shown in printable characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.names import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ünïcode, 日本", "plain text, ünïcode, 日本"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("a\x85b\u2028c\u2029", "a\\x85b\\u2028c\\u2029"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\u200b\ufeff\u00ad", "\\u200b\\ufeff\\xad"),
        ("\udc80", "\\udc80"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    """Control characters, line ends, direction marks and surrogates are escaped, the rest stays."""
    assert shown(text) == expected


@given(st.text(st.characters()))
def test_always_printable(text: str) -> None:
    """Whatever comes is shown in one line that can be encoded."""
    assert shown(text).isprintable()
    shown(text).encode()
