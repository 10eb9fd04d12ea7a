"""The options of ``twistd proxpi``: made from the table, and refused in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxpi import __version__
from proxpi.options import Options
from proxpi.settings import SETTINGS

OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
        monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)


def parsed(*arguments: str) -> Options:
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    return options


def refusal(*arguments: str) -> str:
    """Return the one line that refuses a command line."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    line = ended.value.code
    assert isinstance(line, str)  # the interpreter prints it and ends with status 1
    assert len(line.splitlines()) == 1
    return line


def test_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` explains each option with its default and variable, then other variables."""
    with pytest.raises(SystemExit) as ended:
        parsed("--help")
    assert ended.value.code == 0
    output = capsys.readouterr().out
    shown = "".join(output.split())  # as it is wrapped anywhere
    for setting in SETTINGS:
        assert f"--{setting.option}=" in shown
        assert setting.explains.replace(" ", "") in shown
        default = (setting.default or setting.otherwise).replace(" ", "")
        assert f"Default:{default}.Variable:{setting.variable}" in shown
        assert (f"{setting.variable}_FILE" in shown) == setting.secret
    closing = output.partition("--version")[2]
    proxies = [f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")]
    for name in ("NETRC", *proxies, *OTHERS):
        assert re.search(rf"\b{name}\b", closing)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` is proxpi's own."""
    with pytest.raises(SystemExit) as ended:
        parsed("--version")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"proxpi {__version__}\n")


def test_options_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings come from the command line, then the environment; ``--listen`` may repeat."""
    monkeypatch.setenv("PROXPI_INDEX_TTL", "5")
    monkeypatch.setenv("PROXPI_CACHE_SIZE", "6")
    options = ("--index-ttl=7", "--offline=on", "--listen=tcp:1", "--listen", "unix:/tmp/socket")
    settings = parsed(*options).settings
    assert (settings.indexes[0].ttl, settings.cache_size, settings.offline) == (7.0, 6, True)
    assert settings.listen == ("tcp:1", "unix:/tmp/socket")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("-x", "option -x not recognized; --help shows all options"),
        ("--no-such", "option --no-such not recognized; --help shows all options"),
        ("--idex-url=x", "option --idex-url not recognized; did you mean --index-url?"),
        ("--cache-di=/x", "option --cache-di not recognized; did you mean --cache-dir?"),
        (
            "--index-url-file=/x",
            "--index-url-file is no option; a file is named by PROXPI_INDEX_URL_FILE alone",
        ),
        ("surplus", "'surplus' is not understood; only options are accepted"),
    ],
)
def test_errors(argument: str, line: str) -> None:
    """A wrong option is one line, not the whole help, with the nearest option or the remedy."""
    assert refusal(argument) == f"proxpi: {line}"


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        ("--offline --listen=tcp:47573", "--offline", "such as --offline=on"),
        ("--listen=tcp:1 --offline", "--offline", "such as --offline=on"),
        ("--binary-file-mime-type -n", "--binary-file-mime-type", "--binary-file-mime-type=on"),
        ("--offline=--listen=tcp:1", "--offline", "such as --offline=on"),
        ("--index-ttl --offline=on", "--index-ttl", "such as --index-ttl=1800"),
        ("--listen --offline=on", "--listen", "such as --listen=tcp:5000"),
        ("--listen=tcp:1 --listen --offline=on", "--listen", "such as --listen=tcp:5000"),
        ("--cache-dir --help", "--cache-dir", "a folder is accepted"),
        ("--index-url", "--index-url", "--index-url=https://"),
    ],
)
def test_an_option_without_a_value(arguments: str, option: str, value: str) -> None:
    """An option does not take the next one, or nothing, as its value: the line shows a value."""
    line = refusal(*arguments.split())
    assert line.startswith(f"proxpi: option {option} needs a value")
    assert value in line


def test_options_of_gunicorn() -> None:
    """They are taken: an address is listened to, and each is a warning."""
    settings = parsed("--bind", "0.0.0.0:80", "--threads=4", "--listen=tcp:81").settings
    assert settings.listen == ("tcp:80", "tcp:81")
    assert [warning.split()[0] for warning in settings.warnings] == ["--bind", "--threads"]
    line = refusal("--index-ttl=5", "--certfile", "cert.pem", "--keyfile=key.pem")
    assert line.startswith("proxpi: --certfile is an option of gunicorn")


#: Endpoint strings, separated by bars, by the reason of the refusal.
ENDPOINTS = {
    "write tcp:5000:interface=127.0.0.1)": "127.0.0.1:5000|localhost:5000",
    "write tcp:80)": "0.0.0.0:80|80",
    "a part is missing": "haproxy:tcp|ssl|tcp|tcp:5000:color=red",
    "systemd passed no": "systemd:domain=INET:index=0|haproxy:systemd:domain=INET:index=1",
    "": "nonsense|tcp:|tcp:http:80:90|tcp:5000:backlog=many|ssl:5443:privateKey=/no/such/key.pem|"
    "unix:/tmp/socket:mode=rw|:",
}


@pytest.mark.parametrize(
    ("endpoint", "why"), [(each, why) for why in ENDPOINTS for each in ENDPOINTS[why].split("|")]
)
def test_endpoints(monkeypatch: pytest.MonkeyPatch, endpoint: str, why: str) -> None:
    """A wrong endpoint string is refused with its reason, the endpoint meant, and an example."""
    line = refusal("--listen=tcp:5000", f"--listen={endpoint}")
    assert line.startswith(f"proxpi: PROXPI_LISTEN={endpoint!r} (--listen): not understood ({why}")
    assert line.endswith("; a Twisted server endpoint string such as 'tcp:5000' is accepted")
    monkeypatch.setenv("PROXPI_LISTEN", endpoint)
    assert refusal().startswith(f"proxpi: PROXPI_LISTEN={endpoint!r}: not understood (")


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_endpoint(text: str) -> None:
    """Any endpoint string is accepted or refused in one line."""
    try:
        parsed(f"--listen={text}")
    except SystemExit as ended:
        assert len(str(ended.code).splitlines()) == 1


def test_options_load_without_a_reactor() -> None:
    """Reading options installs no reactor: twistd chooses one."""
    program = (
        "import sys, proxpi.options, proxpi.logs\n"
        "sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
