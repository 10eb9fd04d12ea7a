"""The units of docs/ci/systemd: systemd accepts them, and proxpi serves on their socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from configparser import RawConfigParser
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.debian import beside, need
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.process import GUARD_SECONDS, plain_environment
from tests.support.processes import StartProxy
from tests.support.proxy import measured
from tests.support.sockets import reserve_port

_UNITS = Path(__file__).parents[2] / "docs/ci/systemd"
_PORT = "5000"
#: Exposure, in tenths, that the sandbox leaves: the network, the system's own files, and no more.
_EXPOSURE = 15
#: Give the program the listening socket of a descriptor as systemd does: sd_listen_fds(3).
_PASS_ON = """\
import os, sys
descriptor, name, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
os.execv(command[0], command)
"""


def _unit(kind: str) -> str:
    return (_UNITS / f"proxpi@.{kind}").read_text()


def _option(kind: str, section: str, name: str) -> str:
    """Return the value of an option of a unit, which occurs once."""
    unit = RawConfigParser(strict=False, delimiters="=")
    unit.read_string(_unit(kind))
    return unit[section][name]


@pytest.fixture(scope="module")
def listen() -> str:
    """The option by which the service takes the socket."""
    command = _option("service", "Service", "ExecStart")
    start, _, option = command.rpartition(" ")
    assert start == "/opt/proxpi/bin/twistd -n --pidfile= proxpi"
    return option


def _analyze(folder: Path, *arguments: str) -> str:
    """Run systemd-analyze on an instance of both units; return what it prints."""
    for kind in ("socket", "service"):
        unit = _unit(kind).replace("/opt/proxpi/bin/", f"{sys.prefix}/bin/")
        (folder / f"proxpi@{_PORT}.{kind}").write_text(unit)
    program = need("systemd", "systemd-analyze")
    ended = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=plain_environment(SYSTEMD_UNIT_PATH=f"{folder}:{beside(program)}/lib/systemd/system"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_units_are_valid(tmp_path: Path) -> None:
    """systemd finds no fault with the units, nor an option that it does not know."""
    units = [f"proxpi@{_PORT}.socket", f"proxpi@{_PORT}.service"]
    assert _analyze(tmp_path, "verify", "--man=no", *units) == ""


def test_sandbox(tmp_path: Path) -> None:
    """The exposure of the service, as systemd computes it, is below the threshold."""
    options = ["--offline=true", f"--threshold={_EXPOSURE}", "--no-pager"]
    _analyze(tmp_path, "security", *options, f"proxpi@{_PORT}.service")


def test_socket_activation(
    fake_index: FakeIndex, start_proxy: StartProxy, listen: str, tmp_path: Path
) -> None:
    """The first connection starts proxpi, which answers it, drains it, and ends by the signal."""
    wheel = make_wheel("demo", padding=1_000_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=2000))
    reserved, port = reserve_port()
    name = _option("socket", "Socket", "FileDescriptorName")
    activate = [need("systemd", "systemd-socket-activate"), f"--listen=127.0.0.1:{port}"]
    passed = ["PROXPI_INDEX_URL", "PROXPI_CACHE_DIR", "PROXPI_SLOW_DOWNLOAD", *measured()]
    activate += [f"--fdname={name}", *(f"--setenv={each}" for each in passed)]
    settings = {"cache_dir": tmp_path / "cache", "slow_download": "stream"}
    with reserved:
        proxy = start_proxy(fake_index, listen, within=activate, listens=False, **settings)
        proxy.wait_for_line("Listening on")
        with closing(HTTPConnection("127.0.0.1", port, timeout=GUARD_SECONDS)) as client:
            client.request("GET", f"/index/demo/{wheel.filename}")
            response = client.getresponse()
            received = response.read(1000)
            proxy.wait_for_line(rf"listening on http://127\.0\.0\.1:{port}/index/ ")
            os.kill(proxy.pid, signal.SIGTERM)
            fake_index.release(path)
            assert received + response.read() == wheel.data
        assert proxy.wait() == -signal.SIGTERM


def test_restart(
    fake_index: FakeIndex, start_proxy: StartProxy, listen: str, tmp_path: Path
) -> None:
    """A client that connects between two processes waits for the next one."""
    fake_index.add(make_wheel("demo"))
    name = _option("socket", "Socket", "FileDescriptorName")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        within = [sys.executable, "-c", _PASS_ON, str(descriptor), name]
        for _ in range(2):
            with closing(HTTPConnection("127.0.0.1", port, timeout=GUARD_SECONDS)) as client:
                client.request("GET", "/index/demo/")
                proxy = start_proxy(
                    fake_index,
                    listen,
                    within=within,
                    descriptors=[descriptor],
                    cache_dir=tmp_path / "cache",
                )
                assert client.getresponse().status == 200
            assert proxy.stop() == -signal.SIGTERM
