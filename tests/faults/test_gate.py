"""The failures are real ones: what a plain client meets at the gate, and from the name server."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.behavior import Behavior
from tests.support.certificates import make_certificate
from tests.support.fake_index import FakeIndex
from tests.support.gate import Gate
from tests.support.names import Names


def _get(gate: Gate, trusted: Path | None = None) -> bytes:
    """The list of projects, as it comes through the gate."""
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


def test_the_way_is_barred_and_free_again(fake_index: FakeIndex) -> None:
    """A closed gate refuses, a clogged one never answers, an open one lets everything through."""
    with Gate(int(fake_index.origin.rpartition(":")[2])) as gate:
        assert b"html" in _get(gate)
        gate.close()
        with pytest.raises(ConnectionRefusedError):
            _get(gate)
        gate.clog()
        with pytest.raises(TimeoutError):
            socket.create_connection((gate.host, gate.own_port), timeout=0.5)
        gate.open()
        assert b"html" in _get(gate)
    assert [seen.status for seen in fake_index.requests()] == [200, 200]


def test_a_reset_comes_through(fake_index: FakeIndex) -> None:
    """What the index breaks off hard is broken off hard for the client, too."""
    fake_index.script("/simple/", Behavior(truncate_after=10, reset=True))
    with (
        Gate(int(fake_index.origin.rpartition(":")[2])) as gate,
        pytest.raises(ConnectionResetError),
    ):
        _get(gate)


def test_certificates_are_shown(fake_index: FakeIndex, tmp_path: Path) -> None:
    """A good one is believed, an expired one is not though it is trusted, nor plain text."""
    with Gate(int(fake_index.origin.rpartition(":")[2])) as gate:
        good = make_certificate(tmp_path, "good", gate.host)
        gate.open(good)
        assert b"html" in _get(gate, trusted=good)
        expired = make_certificate(tmp_path, "expired", gate.host, expired=True)
        gate.open(expired)
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            _get(gate, trusted=expired)
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed|self signed"):
            _get(gate, trusted=good)
        gate.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError, match="(?i)wrong.version|record"):
            _get(gate, trusted=good)


def test_the_name_server_answers_as_told(tmp_path: Path) -> None:
    """A name is found, is not found, or nobody says so."""
    look_up = "import socket; print(socket.gethostbyname('index.test'))"

    def found(names: Names, patience: float) -> str:
        command = [*names.within, sys.executable, "-c", look_up]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, check=False
        )
        return done.stdout.strip()

    with Names(tmp_path, "127.1.2.3") as names:
        assert found(names, 30) == "127.1.2.3"
        names.mood = "absent"
        assert found(names, 30) == ""
        names.mood = "silent"
        with pytest.raises(subprocess.TimeoutExpired):
            found(names, 2)
