"""Texts of the operator: sizes, times, and the URLs of indexes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.values import MOST_BYTES, NotAccepted, count, index_url, seconds, size

#: Texts, separated by bars, by what they mean.
SIZE_TEXTS = {
    0: "0|0GB",
    5: "5B",
    7: "7 bytes",
    100: "0.1kB",
    341: "0.3333KiB",
    5_000: "5kB|5KB",
    500_000: ".5 MB",
    5 * 10**6: "5MB",
    5 * 10**9: "5GB|5 gb",
    5 * 10**12: "5TB",
    5 * 10**15: "5PB",
    5 * 2**10: "5KiB|5K",
    5 * 2**20: "5MiB|5m",
    3 * 2**29: "1.5GiB",
    5 * 2**30: "5GiB|5gib|5G",
    5 * 2**40: "5TiB|5t",
    5 * 2**50: "5PiB",
    5368709120: " 5368709120 ",
    MOST_BYTES: str(MOST_BYTES),
}
TIME_TEXTS = {
    0.0: "0",
    0.1: "0.1s",
    0.5: ".5|500ms",
    0.9: " 0.9 ",
    60.5: "1m0.5s",
    90.0: "90 s|90sec",
    300.0: "5 minutes",
    1000.0: "1e3",
    1800.0: "30m|30M",
    3600.0: "1h",
    5400.0: "1.5 hours|1h30m|1 h 30 min",
    172800.0: "2 days",
    604800.0: "1 Week",
}
#: Signs, exponents, separators, other digits, unknown units.
NOT_SIZES = "| |GB|-1|-1GB|+1|1.5|1.5B|1e9|1_000|1,5GB|5XB|5Gb/s|5 G B|0x10|nan|inf|\u0665GB|\uff15"
NOT_TIMES = (
    "| |s|-1|-1s|+1|1h30|30 1h|1 s s|1,5|1_0|5 parsecs|1:30|nan|inf|infinity|\u0663|\u0663s|1e|e3"
)


@pytest.mark.parametrize(("parse", "table"), [(size, SIZE_TEXTS), (seconds, TIME_TEXTS)])
def test_quantities(parse: Callable[[str], float], table: dict[float, str]) -> None:
    """Units are decimal or binary, in any case, with or without a blank; times may have several."""
    for meant, texts in table.items():
        for text in texts.split("|"):
            assert parse(text) == meant, text


@pytest.mark.parametrize(("parse", "texts"), [(size, NOT_SIZES), (seconds, NOT_TIMES)])
def test_refused_quantities(parse: Callable[[str], float], texts: str) -> None:
    """Anything else is refused, without a reason of its own."""
    for text in texts.split("|"):
        with pytest.raises(ValueError) as refused:
            parse(text)
        assert not isinstance(refused.value, NotAccepted), text


def test_too_large() -> None:
    """A size beyond any disk and a time beyond any clock are refused."""
    for text in (str(MOST_BYTES + 1), "8EB", "8192PiB", "9" * 90 + "GB"):
        with pytest.raises(ValueError):
            size(text)
    for text in ("1e999", "9" * 400):
        with pytest.raises(NotAccepted):
            seconds(text)


@pytest.mark.parametrize("parse", [count, size, seconds])
@given(text=st.text())
def test_any_text(parse: Callable[[str], float], text: str) -> None:
    """Any text is 0 or more, or refused as a value."""
    try:
        assert parse(text) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h", "http://h/"),
        ("https://h/simple", "https://h/simple/"),
        (" https://h/simple// ", "https://h/simple/"),
        ("https://u:p%40w@h:8443/a/", "https://u:p%40w@h:8443/a/"),
        ("http://[::1]:80/a", "http://[::1]:80/a/"),
        ("https://bücher.example/simple", "https://xn--bcher-kva.example/simple/"),
        ("https://u:pß@Bücher.example:81", "https://u:pß@xn--bcher-kva.example:81/"),
        ("file:///srv/wheels", "file:///srv/wheels/"),
        (" FILE:/srv//./wheels/ ", "file:///srv/wheels/"),
        ("file://localhost/a%20b/c+,%2C", "file:///a%20b/c%2B%2C%2C/"),
        ("file:///b\u00fccher", "file:///b%C3%BCcher/"),
        ("file:///", "file:///"),
    ],
)
def test_index_urls(text: str, url: str) -> None:
    """A web server's URL ends in one slash and is else as it was; a folder's has one spelling."""
    assert index_url(text) == index_url(url) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "file://srv/wheels",
            "a host has no place in the URL of a folder, such as file:///srv/whe",
        ),
        ("file://u:secret@h/x", "a host has no place in the URL of a folder, such as file:///srv/"),
        ("file://./wheels", "a host has no place in the URL of a folder, such as file:///srv/whee"),
        ("file:wheels", "the path of the folder is not absolute"),
        ("file:", "the path of the folder is not absolute"),
        ("file:///a%00b", "no path has a zero byte"),
        ("file:///a b", "blanks, ? and # are written %20, %3F and %23 in it"),
        ("file:///a?b", "blanks, ? and # are written %20, %3F and %23 in it"),
        ("/srv/my%wheels", "the URL of this folder is file:///srv/my%25wheels/"),
        ("~/packages", "the URL of this folder is file:///home/me/packages/"),
    ],
)
def test_refused_folders(monkeypatch: pytest.MonkeyPatch, text: str, why: str) -> None:
    """The reason why a folder's URL is refused shows the right one, and no password."""
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(NotAccepted) as refused:
        index_url(text)
    assert str(refused.value).startswith(why)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["./wheels", "wheels", "//u:secret@h/", "/u:secret@h/", "ftp://h/"]
)
def test_refused_urls(text: str) -> None:
    """Other texts are refused without a reason, which could show a password."""
    with pytest.raises(ValueError) as refused:
        index_url(text)
    assert not isinstance(refused.value, NotAccepted)
