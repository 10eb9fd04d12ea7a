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
from proxpi.upstream.proxies import Proxies, Proxy

OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
        monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def parsed(*arguments: str) -> Options:
    """The options of a command line."""
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    return options


def refusal(*arguments: str) -> str:
    """What a command line is refused with: the one line of the ``SystemExit``."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    line = ended.value.code
    assert isinstance(line, str)  # the interpreter prints it and ends with status 1
    assert len(line.splitlines()) == 1
    return line


def test_the_help_explains_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` shows each option with what it does, its default and its variable."""
    with pytest.raises(SystemExit) as ended:
        parsed("--help")
    assert ended.value.code == 0
    shown = "".join(capsys.readouterr().out.split())  # as it is wrapped anywhere
    for setting in SETTINGS:
        assert f"--{setting.option}=" in shown
        assert setting.explains.replace(" ", "") in shown
        default = (setting.default or setting.otherwise).replace(" ", "")
        assert f"Default:{default}.Variable:{setting.variable}" in shown
        assert (f"{setting.variable}_FILE" in shown) == setting.secret


def test_the_help_names_what_has_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the options it names the variables of other programs that are read."""
    with pytest.raises(SystemExit):
        parsed("--help")
    closing = capsys.readouterr().out.partition("--version")[2]
    for scheme in ("HTTP", "HTTPS", "ALL", "NO"):
        assert re.search(rf"\b{scheme}_PROXY\b", closing)
    for name in ("NETRC", *OTHERS):
        assert re.search(rf"\b{name}\b", closing)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` is proxpi's own."""
    with pytest.raises(SystemExit) as ended:
        parsed("--version")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"proxpi {__version__}\n")


def test_options_and_environment_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings come from the command line first, then from the environment."""
    monkeypatch.setenv("PROXPI_INDEX_TTL", "5")
    monkeypatch.setenv("PROXPI_CACHE_SIZE", "6")
    settings = parsed("--index-ttl=7", "--binary-file-mime-type=on").settings
    assert (settings.index_ttl, settings.cache_size) == (7.0, 6)
    assert settings.binary_file_mime_type


def test_several_places_to_listen() -> None:
    """``--listen`` given twice are two places, in their order."""
    settings = parsed("--listen=tcp:1", "--listen", "unix:/tmp/socket").settings
    assert settings.listen == ("tcp:1", "unix:/tmp/socket")


@pytest.mark.parametrize("argument", ["--no-such", "surplus", "--index-ttl", "-x"])
def test_usage_errors(argument: str) -> None:
    """An unknown option, a surplus word or a missing value is one line, not the whole help."""
    assert refusal(argument).startswith("proxpi: ")


def test_an_option_that_resembles_another_one() -> None:
    """A misspelt option is named together with the nearest one; what is no option is named, too."""
    assert refusal("--idex-url=x") == (
        "proxpi: option --idex-url not recognized; did you mean --index-url?"
    )
    assert refusal("--index-ttl") == "proxpi: option --index-ttl requires argument"
    assert refusal("surplus") == ("proxpi: 'surplus' is not understood; only options are accepted")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("--bind 0.0.0.0:5000", "--bind is"),
        ("--bind=:80", "--bind is"),
        ("-b unix:/a", "-b is"),
        ("-b[::]:80 --threads 4 -w2", "-b, --threads, -w are"),
        ("--bind", "--bind is"),
        ("--threads 4", "--threads is"),
        ("--index-ttl=1 --timeout=3 --workers 4", "--timeout, --workers are"),
        ("-k gthread -t 30", "-k, -t are"),
        ("--access-logfile - --preload proxpi.server:app", "--access-logfile, --preload are"),
    ],
)
def test_options_of_gunicorn(arguments: str, names: str) -> None:
    """What the original was started with is answered by a line that says what to write instead."""
    assert refusal(*arguments.split()) == (
        f"proxpi: {names} for gunicorn, which does not run proxpi; "
        "--listen tcp:5000 is what --bind 0.0.0.0:5000 was; leave the rest out"
    )


def test_a_bad_value() -> None:
    """A value that cannot be understood is named with option, variable and what is accepted."""
    assert refusal("--index-ttl=abc") == (
        "proxpi: PROXPI_INDEX_TTL='abc' (--index-ttl): not understood; "
        "a number of seconds, 0 or more, also with a unit such as 500ms, 30m or 2 days, is accepted"
    )


def test_forward_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxies are read along with the settings."""
    assert parsed().proxies == Proxies()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert parsed().proxies == Proxies(https=Proxy("http", "proxy.example", 3128))


def test_a_bad_forward_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be used is refused as a setting is, its password hidden."""
    monkeypatch.setenv("all_proxy", "socks5://user:secret@proxy.example:1080")
    assert refusal() == (
        "proxpi: all_proxy='socks5://***@proxy.example:1080': socks5 proxies are not supported; "
        "an http or https URL with a host is accepted"
    )


BAD_ENDPOINTS = [
    "nonsense",
    "tcp",
    "tcp:",
    "tcp:http:80:90",
    "tcp:5000:color=red",
    "tcp:5000:backlog=many",
    "ssl:5443:privateKey=/no/such/key.pem",
    "unix:/tmp/socket:mode=rw",
    "systemd:domain=INET:index=0",
    ":",
]


@pytest.mark.parametrize("endpoint", BAD_ENDPOINTS)
def test_a_bad_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """However an endpoint string is wrong, the line names variable, value and an example."""
    line = refusal("--listen=tcp:5000", f"--listen={endpoint}")
    assert line.startswith(f"proxpi: PROXPI_LISTEN={endpoint!r} (--listen): not understood (")
    assert line.endswith("; a Twisted server endpoint string such as 'tcp:5000' is accepted")
    monkeypatch.setenv("PROXPI_LISTEN", endpoint)
    assert refusal().startswith(f"proxpi: PROXPI_LISTEN={endpoint!r}: not understood (")


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_endpoint(text: str) -> None:
    """Whatever is given as an endpoint string is taken or refused in one line."""
    try:
        parsed(f"--listen={text}")
    except SystemExit as ended:
        assert len(str(ended.code).splitlines()) == 1


def test_options_load_without_a_reactor() -> None:
    """Reading options installs no reactor: which one it is to be is twistd's choice."""
    program = (
        "import sys, proxpi.options, proxpi.logs\n"
        "sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
