"""The health check of the image finds and asks every kind of endpoint."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import healthcheck
import pytest

from tests.support.certificates import Authority
from tests.support.processes import proxies

KINDS = ["tcp", "tcp6", "haproxy:tcp", "ssl", "unix", "unix:address", "tcp:port"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a proxpi that listens at endpoints of all kinds."""
    folder = tmp_path_factory.mktemp("health")
    certificate = Authority(folder).issue("server", "proxpi.example")
    port = iter([free_port() for _ in range(5)])
    found = {
        "tcp": f"tcp:{next(port)}",
        "tcp6": rf"tcp6:{next(port)}:interface=\:\:1",
        "haproxy:tcp": f"haproxy:tcp:{next(port)}:interface=127.0.0.1",
        "ssl": f"ssl:{next(port)}:privateKey={certificate}:certKey={certificate}",
        "tcp:port": f"tcp:port={next(port)}:interface=127.0.0.2",
        "unix": rf"unix:{folder}/a\:b.sock:mode=600",
        "unix:address": f"unix:address={folder}/c.sock",
    }
    with proxies(folder) as start:
        # The first one is the proxy's own, by which the test waits for it.
        start(
            None,
            "--listen=tcp:0:interface=127.0.0.1",
            *(f"--listen={each}" for each in found.values()),
        )
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_endpoints(endpoints: dict[str, str], kind: str) -> None:
    """The check passes on every kind of endpoint that a container can listen at."""
    assert healthcheck.ask(endpoints[kind]).split()[1:] == ["200", "OK"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "from the environment"),
        ("--offline=on --listen=tcp:80", "tcp:80"),
        ("--listen tcp:80 --listen=tcp:81", "tcp:80"),
        ("--bind 0.0.0.0:80 --threads 2", "tcp:80"),
        ("-b unix:/a", "unix:/a"),
    ],
)
def test_listens(words: str, expected: str) -> None:
    """Of several endpoints the first is asked; those of the command line have precedence."""
    assert healthcheck.listens(words.split(), "from the environment") == expected


def test_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line is found in the list of processes."""
    program = tmp_path / "entrypoint.py"
    program.write_text("print(flush=True)\ninput()\n")
    monkeypatch.setattr(healthcheck, "ENTRYPOINT", str(program))
    assert healthcheck.arguments() == []
    command = [sys.executable, str(program), "--listen=tcp:80"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert healthcheck.arguments() == ["--listen=tcp:80", ""]
        process.communicate("\n")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("tcp:{port}", "refused"),
        ("unix:/no/such/socket", "No such file"),
        ("systemd:domain=INET:index=0", "no health check"),
        ("tcp:none", "invalid literal"),
    ],
)
def test_failures(
    endpoint: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure is one line with the endpoint, and a status that is not 0."""
    endpoint = endpoint.format(port=free_port())
    monkeypatch.setenv("PROXPI_LISTEN", endpoint)
    with pytest.raises(SystemExit) as ended:
        healthcheck.main()
    line = str(ended.value.code)
    assert line.startswith(f"{endpoint}: ")
    assert why in line
    assert len(line.splitlines()) == 1


def test_other_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the status 200 is healthy; no response is not."""
    for status in ("HTTP/1.0 503 Service Unavailable", ""):
        monkeypatch.setattr(healthcheck, "ask", lambda _, status=status: status)
        with pytest.raises(SystemExit, match=status or "no response"):
            healthcheck.main()


def test_an_empty_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PROXPI_LISTEN counts as unset: the check requests the default port."""
    asked = list[str]()

    def ask(endpoint: str) -> str:
        asked.append(endpoint)
        return "HTTP/1.1 200 OK"

    monkeypatch.setattr(healthcheck, "arguments", list)
    monkeypatch.setattr(healthcheck, "ask", ask)
    monkeypatch.setenv("PROXPI_LISTEN", "")
    healthcheck.main()
    assert asked == ["tcp:5000"]
