"""Forward proxies: the variables, the URLs in them, and ``NO_PROXY``."""

from __future__ import annotations

import base64
from urllib import request
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi.simple.urls import Origin
from proxpi.upstream.proxies import Proxies, Proxy
from proxpi.values import SettingsError

PROXY = "http://proxy.example:3128"
OTHER = "http://other.example:3128"
LABELS = st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


def proxies(**variables: str) -> Proxies:
    return Proxies.read(variables)


def name(proxy: Proxy | None) -> str | None:
    return proxy.name.removeprefix("proxy ") if proxy else None


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as refused:
        Proxies.read(variables)
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    return line


def direct(no_proxy: str, host: str, port: int = 443) -> bool:
    return proxies(HTTPS_PROXY=PROXY, NO_PROXY=no_proxy).to(Origin("https", host, port)) is None


@pytest.mark.parametrize(
    ("variables", "http", "https"),
    [
        ({"PATH": "/bin", "no_proxy": "a.example", "FTP_PROXY": "x"}, None, None),
        ({"HTTP_PROXY": PROXY}, PROXY, None),
        ({"HTTPS_PROXY": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY, "https_proxy": OTHER}, PROXY, OTHER),
        # Lower case wins over upper case, as in curl.
        ({"http_proxy": PROXY, "HTTP_PROXY": OTHER}, PROXY, None),
        ({"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, None, PROXY),
        ({"all_proxy": PROXY, "ALL_PROXY": OTHER}, PROXY, PROXY),
        # An empty variable is an unset one.
        ({"http_proxy": "", "HTTP_PROXY": PROXY, "HTTPS_PROXY": " "}, PROXY, None),
        ({"HTTPS_PROXY": "", "all_proxy": " ", "ALL_PROXY": OTHER}, OTHER, OTHER),
        # Under CGI a client could set HTTP_PROXY with a header field.
        ({"REQUEST_METHOD": "GET", "HTTP_PROXY": PROXY, "HTTPS_PROXY": OTHER}, None, OTHER),
        ({"REQUEST_METHOD": "GET", "HTTP_PROXY": PROXY, "http_proxy": OTHER}, OTHER, None),
        ({"REQUEST_METHOD": "", "HTTP_PROXY": PROXY}, PROXY, None),
    ],
)
def test_variables(variables: dict[str, str], http: str | None, https: str | None) -> None:
    """Each scheme has its variable, and ``ALL_PROXY`` is for the schemes without."""
    read = Proxies.read(variables)
    assert (name(read.http), name(read.https)) == (http, https)
    for scheme, proxy in (("http", http), ("https", https)):
        assert name(read.to(Origin(scheme, "index.example", 80))) == proxy


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("HTTP://Proxy.Example:8080/", "http://proxy.example:8080"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("//proxy.example:3128", "http://proxy.example:3128"),
        ("proxy", "http://proxy:80"),
        (" http://proxy:1 ", "http://proxy:1"),
        ("http://proxy:1/path?query#fragment", "http://proxy:1"),
        ("192.0.2.1:3128", "http://192.0.2.1:3128"),
        ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
        ("[::1]", "http://[::1]:80"),
        ("http://user:secret@[::1]:3128/", "http://[::1]:3128"),
        ("http://b\u00fccher.example:1", "http://xn--bcher-kva.example:1"),
    ],
)
def test_urls(text: str, url: str) -> None:
    """A proxy's URL may lack scheme, port and slash; the port is then that of the scheme."""
    assert name(proxies(HTTPS_PROXY=text).https) == url


@given(st.text(min_size=1), st.text())
def test_credentials(user: str, password: str) -> None:
    """User and password of any characters are percent-decoded, and shown nowhere."""
    user = user.encode(errors="replace").decode()
    password = password.encode(errors="replace").decode()
    pair = f"{quote(user, safe='')}:{quote(password, safe='')}"
    proxy = proxies(HTTPS_PROXY=f"http://{pair}@proxy.example:3128").https
    assert proxy is not None
    basic = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
    assert proxy.authorization == basic
    bare = Proxy("http", "proxy.example", 3128)
    assert (proxy.name, repr(proxy)) == (bare.name, repr(bare))


def test_odd_credentials() -> None:
    """A user alone and a password alone are credentials; nothing at all is none."""
    odd = {"": None, "@": None, ":@": None, "token@": b"token:", ":word@": b":word"}
    for userinfo, pair in odd.items():
        proxy = proxies(HTTPS_PROXY=f"http://{userinfo}proxy.example").https
        assert proxy is not None
        assert proxy.authorization == (pair and b"Basic " + base64.b64encode(pair))


@pytest.mark.parametrize("scheme", ["socks5h", "ftp"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_unsupported(scheme: str, variable: str) -> None:
    """A proxy that speaks something else is refused by name, with its password hidden."""
    assert refusal(**{variable: f"{scheme}://user:secret@proxy.example:1080"}) == (
        f"{variable}='{scheme}://***@proxy.example:1080': {scheme} proxies are not supported; "
        "an http or https URL with a host is accepted"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("http://", "http://:3128", "http://proxy:", "http://proxy:/", "http://proxy:port"),
        *("http://proxy:99999", "http://proxy name:3128", "http:/proxy:3128", "http:proxy:3128"),
        *("http://[::1:3128", "::1:3128", "http://proxy..example:3128", "http://a\nb:3128"),
        *("http://user:secret@", "http://user:secret/@proxy:3128", "user:secret://@proxy:3128"),
        *(f"http://user:123{mark}secret@proxy:3128" for mark in "/?#"),
    ],
)
def test_no_proxy_url(text: str) -> None:
    """A URL that is not understood is refused in one line, without a possible password."""
    line = refusal(HTTPS_PROXY=text)
    assert line.startswith("HTTPS_PROXY=")
    assert line.endswith(": not understood; an http or https URL with a host is accepted")
    assert "secret" not in line


def test_unused_variable_not_validated() -> None:
    """Desktops set ALL_PROXY to SOCKS beside the others; where it has no say it does no harm."""
    read = proxies(http_proxy=PROXY, https_proxy=PROXY, ALL_PROXY="socks://proxy.example:1080")
    assert name(read.https) == PROXY
    read = proxies(ALL_PROXY=PROXY, no_proxy="a", NO_PROXY="b")
    assert [read.to(Origin("http", host, 80)) is None for host in "ab"] == [True, False]
    assert "socks" in refusal(http_proxy=PROXY, ALL_PROXY="socks://proxy.example:1080")


@pytest.mark.parametrize(
    ("host", "covered", "not_covered"),
    [
        ("index.example", "*", ""),
        ("index.example", "other, *", " , "),
        ("index.example", "index.example", "."),
        ("index.example", ".index.example", "*."),
        ("www.index.example", ".index.example", "**"),
        ("www.index.example", "index.example", "*.*"),
        ("www.index.example", "*.index.example", "**:443"),
        ("Index.Example", "INDEX.example", ":443"),
        ("index.example", "index.example.", "www.index.example"),
        ("index.example.", "index.example", "index"),
        ("index.example", "index.example:443", "index.example:80"),
        ("index.example", ".example:443", "index.example:port"),
        ("index.example", " a.example ,\tindex.example ", "192.0.2.0/24"),
        ("index.example", ",,a.example index.example,", "0.0.0.0/0"),
        ("myindex.example", "myindex.example", "index.example"),
        ("myindex.example", "example", ".index.example"),
        ("localhost", "localhost", ""),
        ("192.0.2.1", "*", "2.1"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1:80"),
        ("192.0.2.1", "192.0.2.1:443", "192.0.2.0/99"),
        ("192.0.2.255", "192.0.2.7/24", "192.0.3.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.0/24", "192.0.2.10"),
        ("127.0.0.1", "127.0.0.0/8", "::/0"),
        ("2001:db8::1", "[2001:db8:0::0001]", ""),
        ("2001:db8::1", "[2001:db8::1]:443", "[2001:db8::1]:80"),
        ("2001:db8::1", "2001:db8::/32", "2001:db9::/32"),
    ],
)
def test_no_proxy(host: str, covered: str, not_covered: str) -> None:
    """The forms of curl, requests and Go: star, names, suffixes, ports, addresses, networks.

    No item covers more than it says, and loopback is not excluded by itself.
    """
    assert direct(covered, host)
    assert not direct(not_covered, host)


@given(st.lists(NAMES, max_size=3), NAMES)
def test_names_as_the_standard_library(items: list[str], host: str) -> None:
    """For names alone it is what Python's own library, under requests, makes of them."""
    text = ",".join(items)
    bypassed = request.proxy_bypass_environment(host, {"no": text})  # type: ignore[attr-defined]
    assert direct(text, host) == bool(items and bypassed)
