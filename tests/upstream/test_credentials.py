"""Credentials: read from index URLs and netrc, and bound to their origin or host."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from proxpi.simple import urls
from proxpi.simple.urls import URL
from proxpi.upstream.credentials import Credentials, Netrc, read_netrc

INDEX = "https://user:pass%20word@index.example/simple/"
NETRC = Netrc(
    {"index.example": ("net", "rc"), "files.example": ("f", "g"), "::1": ("six", "s")},
    ("any", "body"),
)
A, B = "https://a:1@index.example/one/", "https://b:2@index.example/one/two/"
BARE, PLAIN = "https://index.example/one/two/", "http://plain.example/simple/"
OTHER = "https://other.example/simple/"


@pytest.mark.parametrize(
    ("index_urls", "netrc", "url", "login"),
    [
        # Credentials of an index are sent to its origin only, even if the URL has others.
        ([INDEX], None, "https://index.example/simple/demo/", "user:pass word"),
        ([INDEX], None, "https://index.example:443/files/demo.whl", "user:pass word"),
        ([INDEX], None, "https://INDEX.example/", "user:pass word"),
        ([INDEX], None, "https://other:pair@index.example/", "user:pass word"),
        ([INDEX], None, "http://index.example/simple/", None),
        ([INDEX], None, "https://index.example:8443/simple/", None),
        ([INDEX], None, "https://files.index.example/", None),
        ([INDEX], None, "https://index.example.evil/", None),
        ([INDEX], None, "https://index.example@evil.example/", None),
        ([INDEX], None, "https://user:pass%20word@evil.example/", None),
        ([BARE], None, BARE, None),
        # Of two indexes on one origin the one counts whose path has more in common.
        ([A, BARE], None, "https://index.example/one/demo/", "a:1"),
        ([A, BARE], None, "https://index.example/files/x.whl", "a:1"),
        ([A, BARE], None, "https://index.example/one/two/demo/", None),
        ([A, B], None, "https://index.example/one/demo/", "a:1"),
        ([A, B], None, "https://index.example/one/two/demo/", "b:2"),
        ([A, B], None, "https://index.example/one/two-and-more/", "a:1"),
        ([A, B], None, "https://index.example/files/x", "a:1"),
        # Percent-decoded, in UTF-8; a user or a password alone is a login, too.
        (["https://token@a.example/"], None, "https://a.example/", "token:"),
        (["https://:word@a.example/"], None, "https://a.example/", ":word"),
        (["https://us%40er:p%3Aw@a.example/"], None, "https://a.example/", "us@er:p:w"),
        (["https://us%C3%A9r:p@a.example/"], None, "https://a.example/", "usér:p"),
        # netrc comes second, and completes a user without a password.
        ([INDEX], NETRC, "https://index.example/simple/", "user:pass word"),
        ([BARE], NETRC, BARE, "net:rc"),
        ([A, BARE], NETRC, "https://index.example/one/two/demo/", "net:rc"),
        (["https://net@index.example/"], NETRC, BARE, "net:rc"),
        (["https://net:@index.example/"], NETRC, BARE, "net:rc"),
        (["https://token@index.example/"], NETRC, BARE, "token:"),
        (["https://net:own@index.example/"], NETRC, BARE, "net:own"),
        # A login of netrc is sent to its host, at any port; over http only if an index is http.
        ([INDEX], NETRC, "https://FILES.example:8443/a.whl", "f:g"),
        ([INDEX], NETRC, "https://index.example:8443/a.whl", "net:rc"),
        ([INDEX], NETRC, "https://[::1]:8443/a.whl", "six:s"),
        ([INDEX], NETRC, "https://sub.files.example/a.whl", None),
        ([INDEX], NETRC, "http://files.example/a.whl", None),
        ([INDEX, PLAIN], NETRC, "http://files.example/a.whl", "f:g"),
        # The default login is sent to indexes only.
        ([OTHER], NETRC, OTHER, "any:body"),
        ([OTHER], NETRC, "https://other.example:8443/simple/", None),
        ([OTHER], NETRC, "https://elsewhere.example/a.whl", None),
    ],
)
def test_header(index_urls: list[str], netrc: Netrc | None, url: str, login: str | None) -> None:
    """Each request has the credentials of its own origin or host, or none."""
    header = login if login is None else b"Basic " + base64.b64encode(login.encode())
    assert Credentials.gather(index_urls, netrc).header_for(URL.parse(url)) == header


def test_client_certificate() -> None:
    """The certificate is shown to indexes and hosts of netrc, whose files are then protected."""
    index = "https://index.example/simple/"
    netrc = Netrc({"files.example": ("f", "g")})
    credentials = Credentials.gather([index], netrc, certificate=True)
    for url, shown in {
        "https://index.example/simple/demo/": True,
        "https://index.example:8443/": False,
        "http://index.example/": False,
        "https://files.example/": True,
        "https://other.example/": False,
    }.items():
        assert credentials.certificate_for(urls.origin(url)) is shown
        assert credentials.protects(url) is shown
    text = repr(Credentials.gather([INDEX], NETRC)) + repr(NETRC)
    for secret in ("word", base64.b64encode(b"user:pass word").decode(), "body"):
        assert secret not in text
    without = Credentials.gather([INDEX, "https://open.example/"])
    assert without.protects("https://index.example/file")
    assert not without.protects("https://open.example/file")
    assert not without.certificate_for(urls.origin(INDEX))


def test_netrc(tmp_path: Path) -> None:
    """``NETRC`` names the file, and holds alone; hosts are lower case, an account is a user."""
    path = tmp_path / "logins"
    path.write_text(
        '# a comment\nmachine Index.example login user password "pass word"\n'
        "machine files.example\n    account only\n    password s#cret\n"
        "machine empty.example\ndefault login any password for-any\n"
    )
    (tmp_path / ".netrc").write_text("machine a.example login one password two")
    found = read_netrc({"NETRC": str(path), "HOME": str(tmp_path)})
    assert found.hosts == {
        "index.example": ("user", "pass word"),
        "files.example": ("only", "s#cret"),
        "empty.example": ("", ""),
    }
    assert found.login("files.example") == ("only", "s#cret")
    assert found.login("other.example") == found.default == ("any", "for-any")
    assert read_netrc({"NETRC": "/dev/null", "HOME": str(tmp_path)}) == Netrc()
    assert found.error is None


@pytest.mark.parametrize("name", [".netrc", "_netrc", None])
def test_netrc_at_home(tmp_path: Path, name: str | None) -> None:
    """Without ``NETRC``, or with an empty one, it is the user's own, if there is one."""
    if name is not None:
        (tmp_path / name).write_text("machine a.example login one password two")
    for environment in ({}, {"NETRC": ""}):
        found = read_netrc({"HOME": str(tmp_path), **environment})
        assert found.hosts == ({} if name is None else {"a.example": ("one", "two")})
        assert found.error is None


def test_netrc_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder, as in containers, is no error unless the file is named.

    Nor is one with a home folder that it may not search, or cannot: this name is too long.
    """
    assert read_netrc({"HOME": f"/{'a' * 5000}"}) == Netrc()
    found = read_netrc({"NETRC": "~no-such-user/logins"})
    assert found.hosts == {}
    assert found.error is not None and found.error.startswith("NETRC=~no-such-user/logins: ")

    def nowhere(path: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert read_netrc({}).error is None


def test_netrc_invalid(tmp_path: Path) -> None:
    """A broken file gives no login at all, and one line that quotes nothing of it."""
    path = tmp_path / "broken"
    for content, why in {
        None: "cannot be read (No such file or directory)",
        b"machine a.example login u password p\nsecret": "not understood (line ",
        b"machine a.example login u secret p": "not understood (line ",
        b"machine a.example login \xff\xfe password secret": None,  # depends on the locale
    }.items():
        if content is not None:
            path.write_bytes(content)
        found = read_netrc({"NETRC": str(path)})
        error = found.error or ""
        assert why is None or (error.startswith(f"{path}: {why}") and not found.hosts)
        assert "secret" not in error and "\n" not in error
