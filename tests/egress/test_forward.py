"""Through real forward proxies: pages and files, with TLS and without; locked out; not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.egress.conftest import StartProxy
from tests.support.certificates import make_certificate
from tests.support.clients import pip_install, uv_install
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.forward import USER, Forward, Squid, Tinyproxy
from tests.support.inside import overheard
from tests.support.proxy import Proxy, Reply

KINDS = pytest.mark.parametrize("kind", [Tinyproxy, Squid])
WHEEL = make_wheel("demo", padding=300_000)


def page_and_file(proxy: Proxy) -> list[Reply]:
    """Ask for a page and for a file on it."""
    return [proxy.get("/index/demo/"), proxy.get(f"/index/demo/{WHEEL.filename}")]


def variables(url: str) -> dict[str, str]:
    """One proxy for everything."""
    return {"HTTP_PROXY": url, "HTTPS_PROXY": url}


def assert_served(proxy: Proxy) -> None:
    """Page and file come through whole."""
    page, file = page_and_file(proxy)
    assert page.status == 200, page.text
    assert WHEEL.filename in page.text
    assert (file.status, file.body) == (200, WHEEL.data)


def netloc(index: FakeIndex) -> str:
    """Host and port of an index."""
    return index.origin.partition("://")[2]


@KINDS
def test_plain(kind: type[Forward], fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """http URLs are asked for at the proxy; its credentials go to it, and no further."""
    fake_index.add(WHEEL)
    with kind(locked=True) as forward:
        assert_served(start_proxy(fake_index, **variables(forward.private_url)))
    assert {method for method, _ in forward.served} == {"GET"}
    assert {seen.path for seen in fake_index.requests()} == {
        target.removeprefix(fake_index.origin) for _, target in forward.served
    }
    assert not any("proxy-authorization" in seen.headers for seen in fake_index.requests())


@KINDS
def test_tunnel(kind: type[Forward], tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """https URLs are asked for through one tunnel; nothing of the proxy's is said inside."""
    tls_index.add(WHEEL)
    with kind(locked=True) as forward:
        proxy = start_proxy(tls_index, **variables(forward.private_url))
        assert_served(proxy)
        proxy.stop()
    assert forward.served == [("CONNECT", netloc(tls_index))]
    assert len(tls_index.requests()) == 2
    assert not any("proxy-authorization" in seen.headers for seen in tls_index.requests())


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_locked_out(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """407 is said to be the proxy's, for people to mend; no password is written anywhere."""
    with FakeIndex(tls=tls) as index, kind(locked=True) as forward:
        index.add(WHEEL)
        wrong = forward.url.replace("://", f"://{USER}:wr0ng-s3cr3t@")
        for url, wanted in ((wrong, "other credentials"), (forward.url, "credentials")):
            proxy = start_proxy(index, logging_level="DEBUG", **variables(url))
            for reply in page_and_file(proxy):
                assert reply.status == 502
                # tinyproxy has 401 for what is wrong.
                assert f"proxy {forward.url}: it wants {wanted} (status 40" in reply.text
                assert index.origin not in reply.text
                assert "proxy-authenticate" not in reply.headers
                assert "s3cr3t" not in repr(reply.headers) + reply.text
            proxy.wait_for_line(f"proxy {forward.url}: it wants {wanted}")
            proxy.stop()
            assert "s3cr3t" not in proxy.output
        assert index.requests() == []


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_proxy_that_cannot(kind: type[Forward], tls: bool, start_proxy: StartProxy) -> None:
    """A proxy that cannot connect says so; waiting may help."""
    with FakeIndex(tls=tls) as index, kind() as forward:
        index.close()
        reply = start_proxy(index, **variables(forward.url)).get("/index/demo/")
    assert reply.status == 503
    assert f"proxy {forward.url}: it could not connect (status 50" in reply.text
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("tls", [False, True])
def test_proxy_that_will_not(tls: bool, start_proxy: StartProxy) -> None:
    """A proxy that does not allow it says so; that is no word about what the index has."""
    with (
        FakeIndex(tls=tls) as index,
        FakeIndex() as extra,
        Squid(denied=[netloc(index).rpartition(":")[2]]) as forward,
    ):
        extra.add(WHEEL)
        urls = variables(forward.url)
        reply = start_proxy(index, extra_index_urls=extra.url, **urls).get("/index/demo/")
    assert reply.status == 502
    assert f"proxy {forward.url}: it refuses to connect (status 403)" in reply.text
    assert "retry-after" not in reply.headers


def test_kept_connection(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Connections to a proxy that keeps them are kept: the next request needs no new one."""
    fake_index.add(WHEEL)
    with Squid() as forward:
        proxy = start_proxy(fake_index, index_ttl=0, **variables(forward.url))
        for _ in range(5):
            assert proxy.get("/index/demo/").status == 200
        proxy.stop()
    assert (len(forward.served), forward.connections) == (5, 1)


@pytest.mark.parametrize("tls", [False, True])
def test_secure_proxy(tls: bool, tmp_path: Path, start_proxy: StartProxy) -> None:
    """TLS may be spoken to the proxy itself, and once more within it."""
    certificate = make_certificate(tmp_path, "forward")
    with FakeIndex(tls=tls) as index, Squid(locked=True, certificate=certificate) as forward:
        index.add(WHEEL)
        trusted = certificate.read_text()
        if index.certificate:
            trusted += index.certificate.read_text()
        bundle = tmp_path / "trusted.pem"
        bundle.write_text(trusted)
        proxy = start_proxy(index, SSL_CERT_FILE=bundle, **variables(forward.private_url))
        assert forward.private_url.startswith("https://")
        assert_served(proxy)
        proxy.stop()
    assert [method for method, _ in forward.served] == (["CONNECT"] if tls else ["GET", "GET"])


@pytest.mark.parametrize("tls", [False, True])
def test_proxy_that_nobody_vouches_for(tls: bool, tmp_path: Path, start_proxy: StartProxy) -> None:
    """If the certificate of the proxy is wrong, it is the proxy's, and gets no credentials."""
    certificate = make_certificate(tmp_path, "forward")
    with FakeIndex(tls=tls) as index, Squid(locked=True, certificate=certificate) as forward:
        reply = start_proxy(index, **variables(forward.private_url)).get("/index/demo/")
        assert reply.status == 502
        assert f"proxy {forward.url}: " in reply.text
        assert "certificate" in reply.text
        assert index.origin not in reply.text
    assert forward.served == []


def test_names_are_the_proxy_s_to_look_up(
    fake_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """A name that only the proxy knows is enough; here it is not looked up, nor connected to."""
    fake_index.add(WHEEL)
    port = fake_index.origin.rpartition(":")[2]
    notes = tmp_path / "notes"
    with Squid(hosts={"index.test": "127.0.0.1"}) as forward:
        proxy = start_proxy(
            fake_index,
            index_url=f"http://index.test:{port}/simple/",
            **variables(forward.url),
            **overheard(notes),
        )
        assert_served(proxy)
    said = notes.read_text()
    assert forward.url.rpartition(":")[2] in said
    assert "index.test" not in said
    assert port not in said


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", "*", "{netloc}"])
def test_not_used(tls: bool, no_proxy: str, start_proxy: StartProxy) -> None:
    """What NO_PROXY covers is connected to directly, although the proxy is there."""
    with FakeIndex(tls=tls) as index, Tinyproxy() as forward:
        index.add(WHEEL)
        text = no_proxy.format(netloc=netloc(index))
        assert_served(start_proxy(index, NO_PROXY=text, **variables(forward.url)))
    assert forward.served == []


def test_hosts_apart(start_proxy: StartProxy) -> None:
    """Each host finds its own way: the index directly, its files through the proxy."""
    with FakeIndex(files_elsewhere=True) as index, Tinyproxy() as forward:
        index.add(WHEEL)
        assert_served(start_proxy(index, NO_PROXY=netloc(index), **variables(forward.url)))
    assert [target.partition("/files/")[0] for _, target in forward.served] == [index.files_url]


@pytest.mark.parametrize("install", [pip_install, uv_install])
def test_install(
    install: object, tls_index: FakeIndex, tmp_path: Path, start_proxy: StartProxy
) -> None:
    """pip and uv install through proxpi, a locked proxy with TLS and TLS, from a locked index."""
    assert callable(install)
    tls_index.require_auth("reader", "inde+ s3cr3t")
    tls_index.add(make_wheel("demo-app", requires=["demo"]))
    tls_index.add(WHEEL)
    certificate = make_certificate(tmp_path, "forward")
    assert tls_index.certificate is not None
    bundle = tmp_path / "trusted.pem"
    bundle.write_text(certificate.read_text() + tls_index.certificate.read_text())
    with Squid(locked=True, certificate=certificate) as forward:
        proxy = start_proxy(
            tls_index,
            index_url=tls_index.url.replace("://", "://reader:inde%2B%20s3cr3t@"),
            logging_level="DEBUG",
            SSL_CERT_FILE=bundle,
            **variables(forward.private_url),
        )
        environment, output = install(tmp_path / "client", proxy.url, "demo-app")
        assert environment.version_of("demo") == "1.0"
        proxy.stop()
    assert {target for _, target in forward.served} == {netloc(tls_index)}
    assert all("authorization" in seen.headers for seen in tls_index.requests())
    assert not any("proxy-authorization" in seen.headers for seen in tls_index.requests())
    for secret in ("s3cr3t", forward.password, "reader", USER):
        assert secret not in proxy.output
        assert secret not in output
