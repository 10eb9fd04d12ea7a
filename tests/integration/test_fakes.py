"""The fakes themselves: a plain client meets the failures that a test has ordered."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.clients import pip_install
from tests.support.distributions import make_sdist, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.proxy import request
from tests.support.servers import Gate


def test_index(fake_index: FakeIndex, tmp_path: Path) -> None:
    """pip installs from the fake index; behaviors take turns; an outage ends on the same port."""
    path = fake_index.add(make_wheel("demo", requires=["demo-source"]))
    fake_index.add(make_sdist("demo-source", "0.3"))
    environment, _ = pip_install(tmp_path, fake_index.url, "demo")
    assert environment.version_of("demo_source") == "0.3"
    fake_index.script(path, Behavior(times=2, status=503), Behavior(times=1, status=404))
    statuses = [request(fake_index.origin, "GET", path).status for _ in range(4)]
    assert statuses == [503, 503, 404, 200]
    fake_index.close()
    with pytest.raises(ConnectionRefusedError):
        request(fake_index.origin, "GET", path)
    fake_index.reopen()
    assert request(fake_index.origin, "GET", path).status == 200


def test_cuts(fake_index: FakeIndex) -> None:
    """A response that is cut or reset arrives so, also through a gate."""
    path = fake_index.add(make_wheel("demo"))
    with Gate(int(fake_index.origin.rpartition(":")[2])) as gate:
        for behavior, error in (
            (Behavior(truncate_after=10), http.client.IncompleteRead),
            (Behavior(truncate_after=10, chunked=True), http.client.IncompleteRead),
            (Behavior(truncate_after=500, reset=True), ConnectionResetError),
            (Behavior(reset=True), ConnectionResetError),
        ):
            fake_index.script(path, behavior)
            for origin in (fake_index.origin, f"http://{gate.host}:{gate.own_port}"):
                with pytest.raises(error):
                    request(origin, "GET", path)
                assert fake_index.wait_until_quiet()[-1].ended == "cut"


def _get(gate: Gate, trusted: Path | None = None) -> bytes:
    """Request the project list through a gate."""
    connection = http.client.HTTPConnection(gate.host, gate.own_port, timeout=2)
    if trusted is not None:
        context = ssl.create_default_context(cafile=str(trusted))
        connection = http.client.HTTPSConnection(
            gate.host, gate.own_port, timeout=2, context=context
        )
    try:
        connection.request("GET", "/simple/")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_gate(fake_index: FakeIndex, tmp_path: Path) -> None:
    """A gate refuses, drops SYNs, or shows the certificate that it was given."""
    with Gate(int(fake_index.origin.rpartition(":")[2])) as gate:
        gate.close()
        with pytest.raises(ConnectionRefusedError):
            _get(gate)
        gate.clog()
        with pytest.raises(TimeoutError):
            socket.create_connection((gate.host, gate.own_port), timeout=0.5)
        gate.open()
        assert b"projects" in _get(gate)
        good = make_certificate(tmp_path, "good", gate.host)
        expired = make_certificate(tmp_path, "expired", gate.host, expired=True)
        gate.open(good)
        assert b"projects" in _get(gate, trusted=good)
        gate.open(expired)
        for trusted, match in ((expired, "expired"), (good, "self-signed|self signed")):
            with pytest.raises(ssl.SSLCertVerificationError, match=match):
                _get(gate, trusted)
        gate.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError, match="(?i)wrong.version|record"):
            _get(gate, trusted=good)
