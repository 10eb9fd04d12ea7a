"""An upstream whose certificate nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import StartProxy
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex


@pytest.fixture
def tls_index() -> Iterator[FakeIndex]:
    """An index that speaks TLS with a self-signed certificate."""
    with FakeIndex(tls=True) as index:
        yield index


def test_an_untrusted_certificate_is_refused(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Waiting does not help against a wrong certificate: a 502 that names it, and no retry hint."""
    tls_index.add(make_wheel("demo"))
    reply = start_proxy(tls_index).get("/index/demo/")
    assert reply.status == 502
    assert "certificate" in reply.text.lower()
    assert len(reply.text.strip().splitlines()) == 1
    assert "retry-after" not in reply.headers
    assert tls_index.requests() == []


def test_verification_can_be_switched_off(tls_index: FakeIndex, start_proxy: StartProxy) -> None:
    """With the switch on, page and file come through, and the log says so loudly."""
    wheel = make_wheel("demo")
    tls_index.add(wheel)
    proxy = start_proxy(tls_index, disable_index_ssl_verification="yes")
    assert wheel.filename in proxy.get("/index/demo/").text
    assert proxy.get(f"/index/demo/{wheel.filename}").body == wheel.data
    assert "PROXPI_DISABLE_INDEX_SSL_VERIFICATION" in proxy.output
