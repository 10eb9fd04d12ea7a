"""Credentials from netrc, and installs through TLS with credentials on two hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex, Seen
from tests.support.proxy import Proxy

INDEX_LOGIN, FILES_LOGIN = ("reader", "of-pages"), ("fetcher", "of-files")
WHEEL = make_wheel("demo")


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    """An index whose pages want one login, and whose files, on another origin, want another."""
    with FakeIndex(files_elsewhere=True) as running:
        running.require_auth(*INDEX_LOGIN)
        running.require_auth(*FILES_LOGIN, origin="files")
        yield running


def netrc(folder: Path, host: str, login: tuple[str, str], name: str = ".netrc") -> Path:
    """Write a netrc with one entry; at home, unless it has another name."""
    path = folder / name
    entry = "default" if host == "default" else f"machine {host}"
    path.write_text(f"{entry} login {login[0]} password {login[1]}\n")
    return path


def with_login(url: str, login: tuple[str, str]) -> str:
    """Give a URL with user and password in it."""
    return url.replace("://", f"://{':'.join(login)}@")


def settings(url: str, **more: object) -> dict[str, str]:
    """Give the variables of a proxpi that redirects at once."""
    variables = {"PROXPI_INDEX_URL": url, "PROXPI_DOWNLOAD_TIMEOUT": "0"}
    return variables | {name: str(value) for name, value in more.items()}


def of(index: FakeIndex, origin: str) -> list[Seen]:
    """Give the requests that came to one of its origins."""
    return [seen for seen in index.requests() if seen.origin == origin]


def test_files_of_a_host_in_netrc(index: FakeIndex, tmp_path: Path) -> None:
    """Pages are fetched with what the index's URL holds, files with what netrc has for their host.

    A client would not get in there by itself, so it is not sent there.
    """
    index.add(WHEEL)
    netrc(tmp_path, "127.0.0.1", FILES_LOGIN)
    with Proxy(settings(with_login(index.url, INDEX_LOGIN)), folder=tmp_path) as proxy:
        assert WHEEL.filename in proxy.get("/index/demo/").text
        reply = proxy.get(f"/index/demo/{WHEEL.filename}")
        assert (reply.status, reply.body) == (200, WHEEL.data)
    assert {seen.status for seen in index.requests()} == {200}


def test_files_of_another_host(index: FakeIndex, tmp_path: Path) -> None:
    """The index's credentials go to no other origin; nor do those of any host (``default``)."""
    index.add(WHEEL)
    netrc(tmp_path, "default", FILES_LOGIN)
    given = settings(with_login(index.url, INDEX_LOGIN), PROXPI_SLOW_DOWNLOAD="stream")
    with Proxy(given, folder=tmp_path) as proxy:
        assert proxy.get(f"/index/demo/{WHEEL.filename}").status == 502
    assert of(index, "files")
    assert not any("authorization" in seen.headers for seen in of(index, "files"))


@pytest.mark.parametrize("host", ["127.0.0.1", "default"])
def test_index_in_netrc(index: FakeIndex, tmp_path: Path, host: str) -> None:
    """An index whose URL holds no credentials gets those of netrc, also those for any host."""
    index.add(WHEEL)
    path = netrc(tmp_path, host, INDEX_LOGIN, "logins")
    with Proxy(settings(index.url, NETRC=path), folder=tmp_path) as proxy:
        assert proxy.get("/index/demo/").status == 200
