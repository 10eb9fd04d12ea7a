"""Real TLS servers: their certificates are checked, and proxpi's own is shown to some."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, make_certificate, serving
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy
from tests.support.servers import SecureFront, Shown

ADDRESS = "127.0.0.1"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
UNVERIFIED = {"disable_index_ssl_verification": "on"}
WHEEL = make_wheel("demo")


@pytest.fixture(scope="module")
def index() -> Iterator[FakeIndex]:
    with FakeIndex() as running:
        running.add(WHEEL)
        yield running


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


def front(index: FakeIndex, context: ssl.SSLContext, host: str = ADDRESS) -> SecureFront:
    return SecureFront(int(index.origin.rpartition(":")[2]), context, host)


def refused(proxy: Proxy) -> str:
    """Return the sentence of a page's failure, which must not be temporary."""
    reply = proxy.get("/index/demo/")
    proxy.stop()
    assert reply.status == 502
    assert "retry-after" not in reply.headers
    [line] = reply.text.strip().splitlines()
    return line


def fetch(proxy: Proxy, wheel: Distribution = WHEEL) -> None:
    assert wheel.filename in proxy.get(f"/index/{wheel.project}/").text
    assert proxy.get(f"/index/{wheel.project}/{wheel.filename}").body == wheel.data


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (lambda ours, _: ours.issue("x", ADDRESS, expired=True), f"of {ADDRESS} expired on 20"),
        (lambda ours, _: ours.issue("x", "other.example"), "not for 127.0.0.1 but for other.exam"),
        (lambda _, theirs: theirs.issue("x", ADDRESS), "unknown issuer (OU=theirs,O=trustme"),
        (lambda _, theirs: make_certificate(theirs.path.parent), "is from an unknown issuer"),
        (lambda _, theirs: theirs.self_signed("x"), "is signed by itself; to trust it, add it to "),
    ],
)
def test_refused(
    index: FakeIndex,
    ours: Authority,
    theirs: Authority,
    start_proxy: StartProxy,
    certificate: Callable[[Authority, Authority], Path],
    words: str,
) -> None:
    """A bad certificate is a 502 that says which host, what is wrong, and what to set.

    With checks switched off it is taken all the same.
    """
    with front(index, serving(certificate(ours, theirs))) as server:
        url = f"{server.origin}/simple/"
        line = refused(start_proxy(index_url=url, ca_bundle=ours.path))
        assert words in line
        assert line.startswith(f"Upstream failed: {url}demo/: ")
        proxy = start_proxy(index_url=url, **UNVERIFIED)
        fetch(proxy)
        proxy.wait_for_line("PROXPI_DISABLE_INDEX_SSL_VERIFICATION: certificates are NOT check")
        proxy.stop()


@pytest.mark.parametrize(
    ("listens", "host", "name"),
    [("::1", "[::1]", None), (ADDRESS, "LocalHost", "localhost")],
)
def test_names(
    index: FakeIndex,
    ours: Authority,
    start_proxy: StartProxy,
    listens: str,
    host: str,
    name: str | None,
) -> None:
    """A certificate may be for an address or a name; the server is told the name, if it is one."""
    with front(index, serving(ours.issue("server", name or listens)), listens) as server:
        url = f"https://{host}:{server.port}/simple/"
        proxy = start_proxy(index_url=url, ca_bundle=ours.path)
        fetch(proxy)
        proxy.stop()
    assert {shown.name for shown in server.shown} == {name}


def test_old_version(index: FakeIndex, ours: Authority, start_proxy: StartProxy) -> None:
    """A server with nothing newer than TLS 1.1 is refused, even without certificate checks."""
    context = serving(ours.issue("server", ADDRESS), version=ssl.TLSVersion.TLSv1_1)
    with front(index, context) as server:
        for more in ({}, UNVERIFIED):
            url = f"{server.origin}/simple/"
            line = refused(start_proxy(index_url=url, ca_bundle=ours.path, **more))
            assert "127.0.0.1 speaks no version of TLS that is safe (1.2 or newer)" in line


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificate(
    index: FakeIndex,
    ours: Authority,
    theirs: Authority,
    start_proxy: StartProxy,
    version: ssl.TLSVersion,
) -> None:
    """An index that wants a certificate is shown it, whether its own is checked or not.

    Clients, who could not show it, are not redirected there. A certificate that is missing, or is
    refused (in TLS 1.3 only after proxpi takes the handshake for done), is told.
    """
    client = ours.issue("client", "proxpi@example.com")
    wrong = theirs.issue("wrong", "proxpi@example.com")
    context = serving(ours.issue("server", ADDRESS), ours.path, version)
    with front(index, context) as server:
        given = {"index_url": f"{server.origin}/simple/", "ca_bundle": ours.path}
        line = refused(start_proxy(**given))
        assert line.endswith("127.0.0.1 wants a client certificate; set PROXPI_CLIENT_CERT")
        line = refused(start_proxy(client_cert=wrong, **given))
        assert line.endswith("refuses the certificate of PROXPI_CLIENT_CERT (unknown issuer)")
        assert server.shown == []
        for more in ({}, UNVERIFIED):
            proxy = start_proxy(client_cert=client, download_timeout=0, **given, **more)
            fetch(proxy)
            proxy.stop()
    assert set(server.shown) == {Shown(None, True)}


def test_client_certificate_elsewhere(
    index: FakeIndex, ours: Authority, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """A host of files, which may be anyone, is shown it only if netrc names that host."""
    server_context = serving(ours.issue("server", ADDRESS, "localhost"), ours.path)
    files_context = serving(ours.issue("files", "localhost"), ours.path)
    files_context.verify_mode = ssl.CERT_OPTIONAL
    client = ours.issue("client", "proxpi@example.com")
    netrc = tmp_path / "logins"
    with front(index, server_context) as server, front(index, files_context) as files:
        wheels = [make_wheel("elsewhere"), make_wheel("named")]
        for wheel, text in zip(wheels, ("", "machine localhost login a password b"), strict=True):
            netrc.write_text(text)
            path = f"/files/{wheel.project}/{wheel.filename}"
            index.add(wheel, url=f"https://localhost:{files.port}{path}")
            url = f"{server.origin}/simple/"
            given = {"ca_bundle": ours.path, "client_cert": client, "NETRC": netrc}
            proxy = start_proxy(index_url=url, prefetch="off", **given)
            fetch(proxy, wheel)
            proxy.stop()
    assert [shown.certificate for shown in files.shown] == [False, True]
    assert {shown.certificate for shown in server.shown} == {True}
